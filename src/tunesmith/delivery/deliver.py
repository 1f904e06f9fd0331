"""The delivery itself: written beside, proven, then put in its place."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..errors import CheckpointError, RecipeError
from ..files import whole
from .base import Into, Way
from .card import card
from .proof import Apart, merged_into, prove
from .source import Source, source_of


def deliver(folder: str, way: Way, out: Path, most: float | None, say: Callable[[str], None]) -> Apart:
    """Write a finished run in some form, and prove it. `most` is how far apart it may be, in nats of KL a token; as its
    form says unless given. Raises RecipeError for what cannot be so delivered, CheckpointError for what differs."""
    if out.exists():
        raise RecipeError(f"--out: {out} is there already; name a new folder")
    source = source_of(folder)
    way.check(source)
    bound = way.apart() if most is None else most
    with whole(out) as beside:
        beside.mkdir(parents=True)
        way.write(source, beside)
        apart = prove(source, beside)
        say(f"proof: {apart.sentence()}")
        other = beside_it(source, way, say)
        if not apart.kl <= bound:  # also where it is no number
            raise CheckpointError(
                f"{folder}: what was written is {apart.kl:.2g} nats a token from what was trained, more than {bound:g};"
                f" nothing is kept. {ways_out(way)}"
            )
        proof = {"form": way.name, "bound": bound, **asdict(apart), **other}
        (beside / "proof.json").write_text(json.dumps(proof, indent=1), encoding="utf-8")
        adapter = (beside / "adapter_config.json").is_file()
        (beside / "README.md").write_text(card(source, way, apart, adapter), encoding="utf-8")
    if done := way.finish(out):
        say(done)
    return apart


OTHER: dict[Into, Into] = {"trained_on": "original", "original": "trained_on"}


def beside_it(source: Source, way: Way, say: Callable[[str], None]) -> dict[str, Any]:
    """Of a run over quantised weights, how far it would be from itself merged into the other ones, which is said."""
    into: Into | None = getattr(way, "into", None)
    if into is None or not source.quantised or source.adapter is None:
        return {}
    other = OTHER[into]
    apart = merged_into(source, other)
    say(f"this is into={into}; merged into the other weights (into={other}), before rounding: {apart.sentence()}")
    return {"into": into, f"into_{other}": asdict(apart)}


def ways_out(way: Way) -> str:
    if getattr(way, "into", "") == "original":
        return "Merge into the weights that it was trained on (into=trained_on), or allow more with --most"
    return "Take more bits a number, or allow more with --most"


def named(out: Path | None, folder: str, way: Way) -> Path:
    """Where it goes unless that is said: beside the run."""
    return out or Path(folder).resolve().with_name(f"{Path(folder).resolve().name}-{way.name}")
