"""The same command line, answered by vLLM's own server instead of ours: what it is begun with, and what it lacks."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ..errors import BadEnvironment, RecipeError
from ..model.adapter import locate_adapter
from ..model.hub import locate
from ..run import Run
from ..runs import RunFolder
from ..samplers._vllm import least_rank, rank
from .settings import HOME, Serving, named_adapters

LACKS = {
    "adapter_root": "it would load any folder that a request names; name each adapter by --adapter",
    "allowed_hosts": "it does not look at the name that it is called by; put a proxy before it",
    "queue": "it lets all wait",
    "timeout": "it knows no end of patience",
    "max_tokens": "it bounds an answer by max_length alone",
    "max_n": "it has no such bound",
    "max_body": "it has no such bound",
    "cache_tokens": "it takes what its GPU has room for",
    "feedback": "it keeps nothing of what people say",
}
"""What ours does and vLLM's does not."""
WHOLE = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def hand_over(settings: Serving, key: str) -> None:
    """Become vLLM's server. Raises a Refusal where it cannot serve what is asked for."""
    words = command(settings)
    if find_spec("vllm") is None:
        raise BadEnvironment("engine: vllm is not installed: pip install 'tunesmith[vllm]'; or leave the engine out")
    sys.stdout.flush()
    os.execve(sys.executable, [sys.executable, *words], os.environ | environment(key))


def environment(key: str) -> dict[str, str]:
    """What vLLM's server is told otherwise than by its command line, which all can read who use the machine."""
    return {"VLLM_NO_USAGE_STATS": "1"} | ({"VLLM_API_KEY": key} if key else {})


def command(settings: Serving) -> list[str]:
    """The words that Python is begun with."""
    refuse(settings)
    model = asked(settings)
    words = ["-m", "vllm.entrypoints.cli.main", "serve", str(model.base), "--served-model-name", model.name]
    words += ["--host", settings.host, "--port", str(settings.port), "--max-num-seqs", str(settings.max_rows)]
    words += ["--allowed-origins", json.dumps(settings.allowed_origins)]
    words += ["--generation-config", "vllm"]  # what a request leaves open is as OpenAI has it, not as the model's file
    words += ["--dtype", model.dtype] if model.dtype else []
    words += ["--tokenizer", str(model.tokenizer)] if model.tokenizer else []
    words += ["--max-model-len", str(settings.max_length)] if settings.max_length else []
    words += [] if settings.keep_tokens else ["--no-enable-prefix-caching"]
    words += ["--enable-log-requests"] if settings.log_prompts else []
    if model.adapters:
        ranks = [rank(folder) for folder in model.adapters.values()]
        words += ["--enable-lora", "--max-loras", str(len(ranks)), "--max-lora-rank", str(least_rank(max(ranks)))]
        words += ["--lora-modules", *(f"{name}={folder}" for name, folder in model.adapters.items())]
    return words


def refuse(settings: Serving) -> None:
    """Refuse what vLLM's server would pass over in silence."""
    usual = {field.name: field.default for field in fields(Serving)}
    for key, why in LACKS.items():
        if getattr(settings, key) != usual[key]:
            raise RecipeError(f"{key}: vllm does not have it, as {why}; leave it out, or take engine=embedded")
    if settings.keep_tokens not in (0, usual["keep_tokens"]):
        raise RecipeError("keep_tokens: vllm remembers what fits; set it to 0 for none, or leave it out")
    if settings.host not in HOME:
        raise RecipeError(
            f"host: {settings.host} can be reached from elsewhere, and vllm asks for its key under /v1 alone; listen on"
            " 127.0.0.1, and put a proxy before it that passes on /v1"
        )
    if not settings.port:
        raise RecipeError("port: vllm takes no free one by itself; name one, such as 8000")


@dataclass
class Asked:
    """What is served."""

    base: Path
    name: str
    adapters: dict[str, Path]
    tokenizer: Path | None = None
    """The folder of words that are not the base's."""
    dtype: str = ""


def asked(settings: Serving) -> Asked:
    """The model and its adapters, by the names that our own server would give them."""
    here = Path(settings.model).expanduser()
    name = settings.name or here.name or settings.model
    adapters = {
        each: locate_adapter(path, f"adapters: {each}") for each, path in named_adapters(settings.adapters).items()
    }
    if name in adapters:
        raise RecipeError(f"adapters: {name} is the name of the model; give the adapter another")
    found = Asked(Path(), name, adapters)
    if (here / "recipe.yaml").is_file():
        of_run(found, RunFolder(here))
    else:
        found.base = locate(settings.model)
    for each, folder in found.adapters.items():
        refuse_adapter(f"adapters: {each}", folder)
    return found


def of_run(found: Asked, run: RunFolder) -> None:
    """What a run has made, and under what."""
    recipe: Run = run.recipe().value
    model, adapter = recipe.model, run.path / "adapter"
    if run.facts.get("labels") or recipe.objective.targets == "ranked":
        raise RecipeError(f"{run.path}: scores texts and writes none; take engine=embedded")
    if model.precision.quantised or model.rope_scaling.name != "unchanged" or (model.adapters and adapter.is_dir()):
        raise RecipeError(
            f"{run.path}: stands on a base that was changed in memory (precision, rope_scaling or adapters), which vllm"
            f" would not do; write it first (tunesmith export {run.path} --to merged) and serve that"
        )
    found.dtype = WHOLE.get(model.precision.name, "")
    if not adapter.is_dir():
        found.base = run.path / "model"
        return
    found.base, found.tokenizer = locate(model.path), adapter
    found.adapters = {found.name: adapter} | found.adapters
    base = Path(model.path).name
    found.name = f"{base}-base" if base in found.adapters else base


def refuse_adapter(what: str, folder: Path) -> None:
    """Refuse an adapter that vLLM does not know."""
    said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    for reason in unknown(said):
        raise RecipeError(f"{what}: {folder} has {reason}, which vllm does not know; take engine=embedded, or merge it")


def unknown(said: dict[str, Any]) -> Iterator[str]:
    """What of an adapter's config vLLM cannot do."""
    if said.get("peft_type") != "LORA":
        yield f"peft_type {said.get('peft_type')}"
    for key, usual in {"use_dora": False, "bias": "none", "modules_to_save": None, "target_parameters": None}.items():
        if said.get(key) not in (usual, None, []):
            yield key
