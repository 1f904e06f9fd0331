"""The rows that both sides train on, and the sizes of the model that does."""

from __future__ import annotations

import json
import random
import struct
import sys
from pathlib import Path

from worker import Worker

MODEL = "demo/smollm2-135m-instruct"
LONGEST = 512
"""Rows with more tokens are left out: TRL's packing would cut them."""


def common(batch: int) -> list[str]:
    """What every run of ours has: TRL's seat at the table, no measuring, and no checkpoints."""
    train = {
        "lr_scheduler_type": "constant",
        "train_sampling_strategy": "sequential",
        "per_device_train_batch_size": batch,
        "logging_steps": 1,
        "save_strategy": "no",
    }
    words = [f"train.{name}={value}" for name, value in train.items()]
    return [f"model.path={MODEL}", "model.precision=fp32", "eval.enabled=false", "data.eval_size=0", *words]


def choose(data: Path | None, batch: int, rounds: int, folder: Path) -> tuple[str, list[dict[str, list]], str]:
    """Write the rows and their tokens, as both sides read them; the model's folder, the tokens, what the rows are."""
    draw, count = random.Random(0), 2 * batch * (rounds + 2)  # a step of TRL's packing takes more rows than one of ours
    if data:
        rows, what = json.loads(data.read_text(encoding="utf-8")), "rows of the file that was given"
    else:
        rows, what = made(draw, 3 * count), "rows made of film reviews, of lengths like Alpaca's"
    rows = draw.sample(rows, min(len(rows), 3 * count))
    (folder / "rows.json").write_text(json.dumps(rows), encoding="utf-8")
    job = {"do": "render", "words": [*common(batch), f"data.path={folder / 'rows.json'}", "data.format=alpaca"]}
    with Worker("ours_side.py", Path(sys.executable), job, folder / "render.log") as worker:
        told = worker.answer()
    short = [pair for pair in zip(rows, told["sequences"], strict=True) if len(pair[1]["ids"]) <= LONGEST][:count]
    if len(short) < count:
        sys.exit(f"{data}: needs {count} rows of at most {LONGEST} tokens (has {len(short)}); lower --rounds")
    (folder / "rows.json").write_text(json.dumps([row for row, _ in short]), encoding="utf-8")
    sequences = [sequence for _, sequence in short]
    (folder / "sequences.json").write_text(json.dumps(sequences), encoding="utf-8")
    return told["model"], sequences, f"{what}, at most {LONGEST} tokens"


def made(draw: random.Random, count: int) -> list[dict[str, str]]:
    """Rows of the alpaca kind whose lengths spread as those of LLaMA-Factory's alpaca_en_demo do."""
    from tunesmith.model.hub import locate_data

    lines = (locate_data("demo/movie-reviews") / "train.jsonl").read_text(encoding="utf-8").splitlines()
    reviews = [json.loads(line)["text"] for line in lines]
    rows = []
    for _ in range(count):
        words: list[str] = []
        wanted = min(draw.lognormvariate(4.1, 1.3), 350)  # in words; 150 tokens on average
        while len(words) < wanted:
            words += draw.choice(reviews).split()
        asked = {"instruction": "Write on in the manner of this review.", "input": draw.choice(reviews)}
        rows.append(asked | {"output": " ".join(words[: max(4, round(wanted))])})
    return rows


def weights(model: Path) -> tuple[list[tuple[int, int]], int]:
    """The shapes of the matrices inside the blocks, and how many weights the head has; from the head of the file."""
    with (model / "model.safetensors").open("rb") as file:
        tensors = json.loads(file.read(struct.unpack("<Q", file.read(8))[0]))
    shapes = {name: entry["shape"] for name, entry in tensors.items() if name != "__metadata__"}
    blocks = [(shape[0], shape[1]) for name, shape in shapes.items() if ".layers." in name and len(shape) == 2]
    [(words, width)] = [shape for name, shape in shapes.items() if "embed_tokens" in name]
    return blocks, words * width


def matrices(model: Path) -> set[tuple[int, int]]:
    """The large shapes of products in forward and backward."""
    blocks, _ = weights(model)
    width = min(max(shape) for shape in blocks)
    large = {shape for shape in blocks if min(shape) >= width}
    return large | {(columns, rows) for rows, columns in large}
