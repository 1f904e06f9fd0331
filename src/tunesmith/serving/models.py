"""What may be asked, by the names that clients use: the model that is served, what it came from, and adapters."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from itertools import count
from pathlib import Path
from typing import Any

from ..data.rendering.render import Renderer
from ..errors import CheckpointError, RecipeError, Refusal
from ..files import sha256
from ..machine import to_ask
from ..model.adapter import locate_adapter, refuse_strangers, under_adapter
from ..model.attention import keep_apart
from ..model.ends import ends_by
from ..model.engine import Engine
from ..model.hub import locate
from ..model.load import hushed, load_model, load_tokenizer, load_tuned
from ..model.side_by_side import Beside
from ..model.sight import Sight, sees, sight_of
from ..model.soft import soft
from ..model.swift import swift
from ..passport import digest
from ..run import Data, Run
from ..runs import NAME, RunFolder
from ..tuned import Tuned
from .fault import Fault, bad
from .lane import Lane
from .memory import affordable
from .settings import Serving, named_adapters

LONGEST = 1 << 20
BASE = ""
"""The adapter of rows that are under none."""


@dataclass(eq=False)
class Served:
    """One name that clients may ask."""

    name: str
    renderer: Renderer
    adapter: str = BASE
    """The adapter, by the name that programs use."""
    parent: str | None = None
    folder: Path | None = None
    tuned: Tuned | None = None
    """A run whose model scores or tells classes apart, and writes nothing."""
    created: int = field(default_factory=lambda: int(time.time()))
    ends: frozenset[int] = field(init=False)
    """The tokens that end an answer, as its tokenizer tells, which may be another than the model's."""

    def __post_init__(self) -> None:
        self.ends = frozenset(ends_by(self.renderer.tokenizer))

    @cached_property
    def made_of(self) -> dict[str, Any]:
        """What an answer under this name came from, beside what was asked."""
        file = self.folder / "adapter_model.safetensors" if self.folder and self.adapter else None
        return {
            "model": self.name,
            "base": self.parent or self.name,
            "adapter": sha256(file) if file and file.is_file() else None,
            "template": digest(self.renderer.tokenizer.chat_template),
        }


class Models:
    """All that is served. What changes the model is done by the loop's thread alone."""

    def __init__(self, settings: Serving) -> None:
        self.settings = settings
        self.served: dict[str, Served] = {}
        self.leaving: dict[str, Served] = {}
        """Adapters that are to go when nobody is answered with them any more."""
        self.lanes: dict[str, Lane] = {}
        self.holds = settings.cache_tokens or LONGEST
        """Tokens that answers being written and their prompts may come to."""
        self.numbers = count(1)
        self.base_sums: dict[str, str] = {}
        self.beside: Beside | None = None
        self.prompted: Any = None
        """The model behind a soft prompt."""
        self.sight: Sight | None = None
        """How the model sees, if it does."""
        here = Path(settings.model).expanduser()
        run = RunFolder(here) if (here / "recipe.yaml").is_file() else None
        self.name = settings.name or here.name or settings.model
        self.tuned: Tuned | None = None
        self.recipe: Run | None = run.recipe().value if run else None
        self.check(run)
        if run and self.recipe and (run.facts.get("labels") or self.recipe.objective.targets == "ranked"):
            self.open_scorer(run, self.recipe)
        else:
            self.open_writer(here, run)

    def check(self, run: RunFolder | None) -> None:
        """Refuse what cannot be, before weights are read."""
        for name, path in named_adapters(self.settings.adapters).items():
            locate_adapter(path, f"adapters: {name}")
            if name == self.name:
                raise RecipeError(f"adapters: {name} is the name of the model; give the adapter another")
        root = self.settings.adapter_root
        if root and not Path(root).is_dir():
            raise RecipeError(f"adapter_root: {root} is no folder; name the one that adapters or runs are in")
        if run and not any((run.path / name).is_dir() for name in ("adapter", "model")):
            raise CheckpointError(f"{run.path}: holds neither adapter/ nor model/; was the run finished?")

    # --- at the start -------------------------------------------------------------------------------------------------

    def open_scorer(self, run: RunFolder, recipe: Run) -> None:
        if self.settings.adapters or self.settings.adapter_root:
            raise RecipeError(f"adapters: {run.path} scores texts and writes none; serve adapters beside their base")
        self.tuned = Tuned(run, recipe)
        self.model, self.tokenizer = self.tuned.model, self.tuned.tokenizer
        renderer = Renderer(self.tokenizer, recipe.data)
        self.served[self.name] = Served(self.name, renderer, folder=run.path, tuned=self.tuned)

    def open_writer(self, here: Path, run: RunFolder | None) -> None:
        recipe = self.recipe
        adapter = run and (run.path / "adapter").is_dir()
        if recipe and adapter:
            settings = recipe.model
            self.base = locate(settings.path)
            parts = settings.precision, (), settings.adapters, settings.changes
            self.model = to_ask(load_model(self.base, *parts)[0])
            base_name = Path(settings.path).name
            base_name = f"{base_name}-base" if base_name == self.name else base_name
        elif recipe and run:
            settings = recipe.model
            self.base, base_name = run.path / "model", self.name
            self.model = load_tuned(run.path, self.base, settings.precision, (), (), settings.changes)
        else:
            self.base, base_name = locate(self.settings.model), self.name
            self.model = to_ask(load_model(self.base, sees=sees(self.base))[0])
        self.base_name = base_name
        self.tokenizer = load_tokenizer(run.path / "adapter" if run and adapter else self.base)
        self.holds = self.settings.cache_tokens or affordable(Engine(self.model, self.tokenizer))
        keep_apart(self.model)
        self.sight = sight_of(self.base, self.model)
        self.quick = ExitStack()  # for as long as it is served
        self.quick.enter_context(swift(self.model))
        self.beside = Beside(self.model)
        options = recipe.data if recipe else Data(path="none", max_length=LONGEST)
        self.served[base_name] = Served(base_name, Renderer(load_tokenizer(self.base), options), folder=self.base)
        if run and adapter:
            self.open_adapter(run.path / "adapter", options)
        for name, path in named_adapters(self.settings.adapters).items():
            self.load(name, locate_adapter(path, f"adapters: {name}"))
        self.lane(BASE)

    def open_adapter(self, folder: Path, options: Data) -> None:
        """The adapter of the run that is served, which may be of any kind."""
        said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        if said.get("peft_type") not in ("PROMPT_TUNING", "PREFIX_TUNING", "P_TUNING"):
            self.load(self.name, folder, options)
            return
        if self.settings.adapters or self.settings.adapter_root:
            raise RecipeError(
                f"adapters: {folder} is a soft prompt, beside which no other adapter can be; serve it by itself"
            )
        with hushed():
            self.prompted = under_adapter(self.model, folder).eval()
        engine = Engine(self.prompted, self.tokenizer)
        self.lanes["soft"] = Lane(engine, nothing, self.keeps)
        renderer = Renderer(load_tokenizer(folder), options)
        self.served[self.name] = Served(self.name, renderer, "soft", self.base_name, folder)

    # --- while it serves ----------------------------------------------------------------------------------------------

    def find(self, name: str) -> Served:
        """What a client calls by this name. Raises Fault."""
        if name not in self.served:
            known = ", ".join(self.served)
            raise Fault(404, f"the model '{name[:80]}' does not exist; there are {known}", "model", "model_not_found")
        return self.served[name]

    def lane(self, adapter: str) -> Lane:
        """Where rows under an adapter go on; those of adapters that mix go on together. Raises Fault."""
        known = self.beside.names if self.beside else {}
        if adapter not in (BASE, *self.lanes, *known):
            raise Fault(404, "the model has been unloaded", "model", "model_not_found")
        key = adapter if adapter in self.lanes or not known.get(adapter, True) else BASE
        if key not in self.lanes:
            engine = Engine(self.model, self.tokenizer)
            self.lanes[key] = Lane(engine, self.under, self.keeps)
        return self.lanes[key]

    def under(self, adapters: Sequence[str]):
        """A context in which each row is under its adapter."""
        assert self.beside is not None
        return self.beside.under([adapter or None for adapter in adapters])

    def load(self, name: str, folder: Path, options: Data | None = None) -> Served:
        """Take in an adapter. Raises Refusal where it does not fit."""
        assert self.beside is not None
        refuse_strangers({f"adapters: {name}": folder}, self.base, self.base_sums)
        adapter = f"a{next(self.numbers)}"
        kinds = {kind for kind, _ in map(self.kind, [*self.served.values(), *self.leaving.values()]) if kind}
        kind = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8")).get("peft_type")
        if kinds - {kind}:
            raise CheckpointError(
                f"{folder}: is of the kind {kind}, and those that are served of {', '.join(kinds)}; PEFT holds one kind"
                " in a model: serve it by itself"
            )
        known = folder / "tokenizer.json"
        tokenizer = load_tokenizer(folder if known.is_file() else self.base)
        renderer = Renderer(tokenizer, options or Data(path="none", max_length=LONGEST))
        served = Served(name, renderer, adapter, self.base_name, folder)
        self.beside.load(adapter, folder)
        try:
            self.lane(adapter)  # takes some passes, for which whoever comes to ask it is not to wait
        except BaseException:
            self.unload(served)
            raise
        self.served[name] = served
        return served

    def kind(self, served: Served) -> tuple[str | None, str]:
        """PEFT's name of an adapter's method."""
        tuned = self.beside.tuned if self.beside else None
        if served.adapter == BASE or tuned is None:
            return None, served.name
        config = tuned.peft_config[served.adapter]
        return str(getattr(config.peft_type, "value", config.peft_type)), served.name

    def unload(self, served: Served) -> None:
        """Let go of an adapter that no row is under any more."""
        assert self.beside is not None
        self.beside.unload(served.adapter)
        for lane in self.lanes.values():
            lane.kept.forget(served.adapter)
        self.lanes.pop(served.adapter, None)

    def named(self, name: str, path: str) -> Path:
        """The folder of an adapter that a client names: one of those in adapter_root, and nothing else."""
        root = self.settings.adapter_root
        if root is None:
            raise Fault(403, "adapters are not loaded at run time; start the server with adapter_root=FOLDER")
        if not re.fullmatch(NAME, name):
            raise bad("lora_name must be a name of letters, digits, . _ -", "lora_name")
        if not re.fullmatch(NAME, path):
            raise bad("lora_path must be the name of a folder in adapter_root, and no path", "lora_path")
        there = {entry.name: entry for entry in Path(root).iterdir() if entry.is_dir() and not entry.is_symlink()}
        if path not in there:
            raise Fault(404, f"there is no adapter '{path[:80]}' in adapter_root", "lora_path", "adapter_not_found")
        try:
            return locate_adapter(str(there[path]), "lora_path")
        except Refusal:
            raise bad(f"'{path[:80]}' in adapter_root holds no adapter", "lora_path") from None

    def without_paths(self, sentence: str, folder: Path, name: str) -> str:
        """A sentence about an adapter for who named it: where things lie is nobody's business."""
        for there, said in ((folder, name), (folder.parent, name), (self.base, self.base_name)):
            sentence = sentence.replace(str(there), said)
        return sentence

    @property
    def words(self) -> int:
        """How many words the model's head knows."""
        head: Any = self.model.get_output_embeddings()
        return head.weight.shape[0]

    @cached_property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer, under whatever name."""
        return frozenset(Engine(self.model, self.tokenizer).stops())

    def length(self) -> int:
        """The longest prompt with its answer."""
        known = getattr(self.model.config.get_text_config(), "max_position_embeddings", None) or LONGEST
        before = soft(self.prompted) if self.prompted is not None else None
        virtual = before.length if before else 0
        return min(known - virtual, self.settings.max_length or LONGEST, self.holds)

    @property
    def keeps(self) -> int:
        """Tokens of ended rows that are remembered."""
        return min(self.settings.keep_tokens, self.holds // 4)

    def entry(self, served: Served) -> dict[str, Any]:
        """As /v1/models lists it; where it lies is nobody's business."""
        return {
            "id": served.name, "object": "model", "created": served.created, "owned_by": "tunesmith",
            "root": served.parent or served.name, "parent": served.parent, "max_model_len": self.length(),
        }  # fmt: skip


def nothing(_: Sequence[str]):
    """A context of a model that is under its one adapter always."""
    return nullcontext()
