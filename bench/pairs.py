"""The rows of preference training that both sides train on."""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from material import common
from worker import Worker

Row = dict[str, Any]
LONGEST = 512
"""Of usual rows: answers with more tokens in all are left out."""
LONG_PROMPT, LONG = 500, 1024
"""Of rows with long prompts: tokens of a prompt at least, and of the whole at most."""


@dataclass(frozen=True)
class Rows:
    """Rows for one objective, and what both sides make of them."""

    words: list[str]
    """What a run of ours is told."""
    model: str
    sequences: list[dict[str, list]]
    batch: int
    """Sequences in a step."""
    file: Path
    """The sequences, for TRL."""

    @property
    def tokens(self) -> list[int]:
        """Of each step, how many tokens its sequences have."""
        sizes = [len(sequence["ids"]) for sequence in self.sequences]
        return [sum(sizes[at : at + self.batch]) for at in range(0, len(sizes), self.batch)]


def prepared(folder: Path, rows: Iterable[Row], count: int, batch: int, words: list[str], fits: Callable) -> Rows:
    """The first `count` rows whose sequences fit, written as both sides read them."""
    folder.mkdir()
    candidates = list(rows)
    given, file = folder / "rows.jsonl", folder / "sequences.json"
    words = [*common(batch), *words, f"data.max_length={LONG}", f"data.path={given}", "data.on_bad_row=skip"]
    write(given, candidates)
    with Worker("ours_preference.py", Path(sys.executable), {"do": "render", "words": words}, folder / "log") as worker:
        told = worker.answer()
    size, sequences = told["side_by_side"], told["sequences"]
    made = [sequences[at : at + size] for at in range(0, len(sequences), size)]
    fitting = [(candidates[its[0]["line"] - 1], its) for its in made if fits(its)][:count]
    if len(fitting) < count:
        sys.exit(f"{count} rows of this length are needed (the data have {len(fitting)}); lower --rounds or --batch")
    write(given, [row for row, _ in fitting])
    sequences = [sequence for _, its in fitting for sequence in its]
    file.write_text(json.dumps(sequences), encoding="utf-8")
    return Rows(words, told["model"], sequences, batch * size, file)


def write(file: Path, rows: list[Row]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def short(sequences: list[dict]) -> bool:
    return all(len(sequence["ids"]) <= LONGEST for sequence in sequences)


def long(sequences: list[dict]) -> bool:
    return all(sequence["learn"].index(True) >= LONG_PROMPT and not sequence["cut"] for sequence in sequences)


def single(rows: Iterable[Row], draw: random.Random) -> list[Row]:
    """The answers of pairs by themselves, in a drawn order, each with a verdict."""
    made = []
    for row in rows:
        for side in ("chosen", "rejected"):
            rest = {name: value for name, value in row.items() if name not in ("chosen", "rejected")}
            turns = next((name for name in ("conversations", "messages") if name in rest), None)
            said = {"completion": row[side]} if turns is None else {turns: [*rest[turns], row[side]]}
            made.append(rest | said | {"label": side == "chosen"})
    draw.shuffle(made)
    return made


def reviews() -> list[Row]:
    from tunesmith.model.hub import locate_data

    lines = (locate_data("demo/movie-reviews") / "train.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def written_on(count: int, draw: random.Random) -> list[Row]:
    """Praise to go on with: chosen goes on praising, rejected does not; as long as the rows of dpo_en_demo are."""
    found = reviews()
    sides = {side: [one["text"] for one in found if one["label"] == side] for side in ("positive", "negative")}

    def text(side: str) -> str:
        words: list[str] = []
        wanted = min(draw.lognormvariate(4.7, 0.8), 320)
        while len(words) < wanted:
            words += draw.choice(sides[side]).split()
        return " ".join(words[: max(4, round(wanted))])

    return [
        {
            "prompt": f"Write on in the manner of this review.\n\n{draw.choice(sides['positive'])}",
            "chosen": text("positive"),
            "rejected": text("negative"),
        }
        for _ in range(count)
    ]


def picked(count: int, draw: random.Random) -> list[Row]:
    """Some thirty reviews, and which of them praises most: the prompt is long, the answers are short."""
    found, made = reviews(), []
    for _ in range(count):
        shown = draw.sample(found, draw.randint(24, 32))
        order = sorted(shown, key=lambda one: one["mean"])
        listed = "\n".join(f"- {one['text']}" for one in shown)
        asked = f"Which of these reviews praises its film the most?\n{listed}\nWrite it out."
        made.append({"prompt": asked, "chosen": order[-1]["text"], "rejected": order[0]["text"]})
    return made
