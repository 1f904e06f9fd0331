"""What vLLM is given in either way: what has been learnt, and how answers are drawn."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, Protocol
from uuid import uuid4

from ..errors import RecipeError
from .base import How, Pupil

FOLDER = "sampler"
RANKS = (1, 8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM lets max_lora_rank be."""


class Place(Protocol):
    """Where vLLM is, and how much room it has; documented in vllm.py."""

    @property
    def url(self) -> str | None: ...
    @property
    def served_model(self) -> str | None: ...
    @property
    def timeout(self) -> float | None: ...
    @property
    def gpu_memory_utilization(self) -> float | None: ...
    @property
    def max_model_len(self) -> int | None: ...


class Learnt:
    """What has been learnt, put down for vLLM to read: one folder, its name another each time."""

    def __init__(self, pupil: Pupil) -> None:
        self.pupil, self.number = pupil, 0
        self.root = pupil.folder.resolve() / FOLDER
        rmtree(self.root, ignore_errors=True)  # of a run that was killed
        self.mark = uuid4().hex[:8]  # a server may still know the adapters of that run by their names
        self.adapter = False
        """Whether it is one, once it has been written."""

    @contextmanager
    def written(self) -> Iterator[Path]:
        """The folder of what has been learnt until now, which is there as long as this."""
        self.number += 1
        folder = self.root / f"tunesmith-{self.mark}-{self.number}"
        folder.mkdir(parents=True)
        try:
            self.pupil.save(folder)
            self.adapter = (folder / "adapter_config.json").is_file()
            yield folder
        finally:
            rmtree(folder, ignore_errors=True)
            with suppress(OSError):
                self.root.rmdir()

    def close(self) -> None:
        rmtree(self.root, ignore_errors=True)


def rank(folder: Path) -> int:
    """The largest rank in an adapter."""
    said = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
    return max(said["r"], *(said.get("rank_pattern") or {}).values(), 1)


def least_rank(needed: int) -> int:
    """The least of vLLM's ranks that is enough."""
    if needed > RANKS[-1]:
        raise RecipeError(f"method.r: vllm takes adapters of a rank of {RANKS[-1]} at most; this has {needed}")
    return next(one for one in RANKS if one >= needed)


def sampling(how: How, stops: set[int], size: int, seed: int, number: int) -> dict[str, Any]:
    """How the answers to one of several prompts are drawn, by the names that vLLM has in Python and over HTTP. Nothing
    is left to what the model's own generation_config.json says."""
    return {
        "n": size,
        "seed": random.Random(f"{seed} {number}").getrandbits(62),  # the answers have this one and those that follow
        "max_tokens": how.max_completion_length,
        "temperature": how.temperature,
        "top_p": how.top_p,
        "top_k": how.top_k,
        "min_p": how.min_p,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "stop": list(how.stop),
        "stop_token_ids": sorted(stops),
        "logprobs": 0,  # of the token that was drawn, and of no others
    }
