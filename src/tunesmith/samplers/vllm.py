"""vLLM draws: in this process beside the model that learns, or behind an address."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..config.record import Count, Positive, Share
from ..errors import BadEnvironment, RecipeError
from ._vllm import Place
from .base import Drawer, How, Pupil, Sampler, sampler

if TYPE_CHECKING:
    from ..run import Run

WHOLE = ("full", "freeze", "bitfit")
"""Methods that leave a whole model of the same kind."""


@sampler("vllm")
class VLLM(Sampler):
    """vLLM (Kwon et al. 2023, arXiv:2309.06180), which is given what has been learnt before it draws: an adapter of
    LoRA, or a whole model."""

    repeats: ClassVar[bool] = False

    url: str | None = None
    """Address of a `vllm serve` that sees the run's folder, such as http://127.0.0.1:8000; a key for it stands in the
    environment (VLLM_API_KEY). Unless given, vLLM runs in this process, on its GPU."""
    served_model: str | None = None
    """What the server calls the base, where it knows it neither by the name nor by the folder in model.path."""
    timeout: Positive | None = None
    """Seconds that the server may take for one prompt; 600 unless given."""
    gpu_memory_utilization: Share | None = None
    """Share of the GPU's memory that vLLM takes in this process; 0.3 unless given, as the rest is for what learns."""
    max_model_len: Count | None = None
    """Longest prompt with its answer in this process, in tokens; the model's own length unless given."""

    def refuse(self, run: Run, base: Path | None = None) -> None:
        refuse_method(run)
        refuse_model(run, base)
        refuse_settings(self, run.objective)
        if not self.url:
            refuse_here()
        elif base is None:  # a server is asked once the name of the base is known
            from ._vllm_server import Server

            Server(self.url, self.timeout).models()
        else:
            from ._vllm_server import refuse_server

            how: Any = run.objective
            refuse_server(self, (run.model.path, base), run.method.name in WHOLE, how)

    def open(self, pupil: Pupil, how: How) -> Drawer:
        if self.url:
            from ._vllm_server import Served

            return Served(self, pupil)
        from ._vllm_inside import Inside

        return Inside(self, pupil, how)


def refuse_method(run: Run) -> None:
    """Refuse what vLLM could not be given."""
    method: Any = run.method
    if method.name in WHOLE:
        return
    if method.name != "lora":
        raise RecipeError(
            f"method: vllm takes adapters of lora, and whole models of {', '.join(WHOLE)}; it cannot be given"
            f" {method.name}: take one of those, or objective.sampler=exact"
        )
    unknown = {
        "use_dora=true": method.use_dora,
        f"bias={method.bias}": method.bias != "none",
        "modules_to_save": method.modules_to_save,
        "target_parameters": method.target_parameters,
    }
    for option, there in unknown.items():
        if there:
            raise RecipeError(
                f"method.{option}: vllm does not know it in an adapter; leave it out, or set objective.sampler=exact"
            )


def refuse_model(run: Run, base: Path | None) -> None:
    """Refuse a base that vLLM would have otherwise than the run."""
    model, adapter = run.model, run.method.name not in WHOLE
    if model.precision.quantised or (base and quantised(base)):
        raise RecipeError(
            "objective.sampler: vllm would hold the base otherwise than model.precision does, and draw from another"
            " model than the one that learns; take a base that is not quantised, or set objective.sampler=exact"
        )
    if model.adapters and adapter:
        raise RecipeError(
            "model.adapters: are merged in memory, where vllm does not see them; write the model that they make first"
            " (tunesmith export RUN --to merged) and name that in model.path, or set objective.sampler=exact"
        )
    if model.rope_scaling.name != "unchanged":
        raise RecipeError(
            f"model.rope_scaling: {model.rope_scaling.name} stretches positions in memory, where vllm does not see it;"
            " write it into the model's config.json, or set objective.sampler=exact"
        )


def quantised(base: Path) -> bool:
    """Whether a model's weights are quantised on the disk."""
    import json

    return "quantization_config" in json.loads((base / "config.json").read_text(encoding="utf-8"))


def refuse_settings(said: Place, how: Any) -> None:
    """Refuse settings that exclude each other, or of which one would be for nothing."""
    here, there = ("gpu_memory_utilization", "max_model_len"), ("served_model", "timeout")
    for key in here if said.url else there:
        if getattr(said, key) is not None:
            place = "in this process: give it to the server" if said.url else "behind an address: name one by url"
            raise RecipeError(f"objective.sampler.{key}: is for vllm {place}, or leave it out")
    if said.url and not said.url.startswith(("http://", "https://")):
        raise RecipeError(
            f"objective.sampler.url: must begin with http:// or https:// (got {said.url}); such as http://127.0.0.1:8000"
        )
    if how.temperature != 1 and cut(how):
        raise RecipeError(
            "objective.temperature: vllm tells log-probabilities at a temperature or among all words, never both; set"
            " it to 1, or leave top_p, top_k and min_p out"
        )


def cut(how: How) -> bool:
    """Whether some words may not be drawn."""
    return bool(how.top_k or how.min_p or how.top_p < 1)


def refuse_here() -> None:
    """Refuse vLLM in a process that cannot have it."""
    import torch

    if find_spec("vllm") is None:
        raise BadEnvironment(
            "objective.sampler: vllm is not installed: pip install 'tunesmith[vllm]'; or name a server by"
            " objective.sampler.url"
        )
    if not torch.cuda.is_available():
        raise BadEnvironment(
            "objective.sampler: vllm in this process needs a GPU; name a server by objective.sampler.url, or set"
            " objective.sampler=exact"
        )
