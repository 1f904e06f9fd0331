"""The whole circle on a CPU: serve, talk, rate 200 answers by a rule, learn from it by KTO, serve again.

    python bench/feedback.py [--quick] [--model demo/smollm2-135m-instruct] [--json rows.json] [key=value ...]

A program plays a person who likes an answer that comes to its end within so many tokens, and no other. Everything goes
by the commands and addresses that people use. The share that is liked is measured on questions about other things than
those that were rated, by the same seeds before and after. Keys go to `tunesmith feedback train`.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import mean
from tempfile import TemporaryDirectory
from typing import Any

from serve import at_once, free, started
from train import Row, table
from worker import say

from tunesmith.evaluate.metrics import gain

FORMS = (
    "What is {}, in a few words?", "Is {} dangerous?", "Name one use of {}.", "What colour is {}?",
    "Where would I find {}?",
)  # fmt: skip
RATED = (
    "a volcano", "a bicycle", "bread", "a whale", "the moon", "a library", "rain", "an island", "a clock", "honey",
    "a bridge", "a desert", "a violin", "salt", "a camel", "a glacier", "a lighthouse", "tea", "a robot", "a rainbow",
    "coffee", "a satellite", "a spider", "a magnet", "an earthquake", "a map", "soap", "a forest", "a telescope",
    "cheese", "a battery", "an owl", "paper", "a river", "a castle", "glass", "a horse", "gold", "a train", "ice",
)  # fmt: skip
HELD_OUT = (
    "a mountain", "sugar", "a ship", "a wolf", "the sun", "a lamp", "snow", "a lake", "a mirror", "butter", "a tunnel",
    "a piano", "a penguin", "silver", "a rocket", "cotton", "a bee", "a compass", "wool", "a waterfall",
)  # fmt: skip
TRAINING = (
    "method.r=16", "method.lora_alpha=32", "train.learning_rate=5e-5", "train.per_device_train_batch_size=8",
    "train.max_steps=50", "train.warmup_steps=5", "data.eval_size=0", "data.on_lint=warn", "eval.enabled=false",
)  # fmt: skip
"""What `tunesmith feedback train` is told beside the feedback."""
STREAMS = 32


@dataclass
class Talk:
    """One answer, and whether the person likes it."""

    id: str
    index: int
    text: str
    tokens: int
    liked: bool


@dataclass
class Person:
    """Talks to a server, and likes what comes to an end in time."""

    port: int
    patience: int
    """Tokens."""

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=3600)
        link.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        answer = link.getresponse()
        said = json.loads(answer.read())
        link.close()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {said}")
        return said

    def talk(self, model: str, question: str, seed: int, n: int = 1) -> list[Talk]:
        asked = {"messages": [{"role": "user", "content": question}], "max_tokens": self.patience, "n": n, "seed": seed}
        said = self.post("/v1/chat/completions", {"model": model, "temperature": 1, **asked})
        used = said["usage"]["completion_tokens"] // n
        return [
            Talk(said["id"], one["index"], one["message"]["content"], used, one["finish_reason"] == "stop")
            for one in said["choices"]
        ]

    def all(self, model: str, questions: Sequence[str], seed: int, n: int = 1) -> list[Talk]:
        """Answers to all, many at a time."""
        jobs: list[Any] = [
            lambda at=at, text=text: self.talk(model, text, seed + at, n) for at, text in enumerate(questions)
        ]
        found: list[Any] = at_once(jobs, STREAMS // n)
        return [one for talks in found for one in talks]

    def rate(self, talks: Sequence[Talk]) -> None:
        for one in talks:
            thumb = "up" if one.liked else "down"
            self.post("/v1/feedback", {"response_id": one.id, "index": one.index, "thumb": thumb, "rater": "person"})


@contextmanager
def serving(words: Sequence[str], log: Path, patience: int) -> Iterator[Person]:
    """`tunesmith serve` in a process of its own, and a person before it. It has as many threads as this program."""
    port = free()
    words = [*words, "--port", str(port), f"queue={2 * STREAMS}", "timeout=3600"]
    command = [sys.executable, "-m", "tunesmith", "serve", *words]
    with started("tunesmith serve", command, "", log, port, os.environ):
        yield Person(port, patience)


def questions(things: Sequence[str], count: int) -> list[str]:
    """So many of all forms and things, every form as often."""
    every = [form.format(thing) for n, thing in enumerate(things) for form in FORMS[n % 5 :] + FORMS[: n % 5]]
    return [every[at * len(every) // count] for at in range(count)]


def circle(asked: argparse.Namespace, folder: Path) -> list[Row]:
    store, run = folder / "said.sqlite", folder / "tuned"
    rated, held = questions(RATED, asked.ratings // 2), questions(HELD_OUT, asked.held_out)
    seconds: dict[str, float] = {}
    with serving([asked.model, "name=base", f"feedback={store}"], folder / "first.log", asked.patience) as person:
        before = timed(seconds, "asked", lambda: person.all("base", held, 10_000))
        talks = timed(seconds, "rated", lambda: person.all("base", rated, 0, 2))
        person.rate(talks)
    say(f"rated {len(talks)}, liked {share(talks):.1%}; held out {share(before):.1%}")
    words = ["feedback", "train", store, "--as", "kto", "--base", asked.model, "--to", folder / "next"]
    words += [f"output={run}", *TRAINING, *asked.words]
    timed(seconds, "trained", lambda: command(words))
    with serving([str(run)], folder / "second.log", asked.patience) as person:
        after = person.all(run.name, held, 10_000)
    say("\n".join(f"  {one!r}\n  -> {two!r}" for one, two in [(a.text, b.text) for a, b in pairs(before, after)][:8]))
    return rows(asked, talks, before, after, seconds)


def rows(asked: argparse.Namespace, talks: list[Talk], before: list[Talk], after: list[Talk], took: dict[str, float]):
    """What came of it."""
    rose = gain([float(one.liked) for one in before], [float(one.liked) for one in after])
    low, high = rose["gain_low"], rose["gain_high"]
    lost = sum(one.liked and not two.liked for one, two in pairs(before, after))
    won = sum(two.liked and not one.liked for one, two in pairs(before, after))
    note = f"95% interval {low:.1%} to {high:.1%}; {won} won, {lost} lost of {len(before)}"
    return [
        Row("answers rated", len(talks), unit="", note=f"{asked.model}, at most {asked.patience} tokens"),
        Row("of these liked", share(talks), unit="share"),
        Row("liked before, other questions", share(before), unit="share"),
        Row("liked after", share(after), unit="share"),
        Row("the liked share rose by", rose["gain"], 0.0, low > 0, "share", note),
        Row("empty answers after", sum(not one.text.strip() for one in after), 0, unit="answers"),
        Row("tokens an answer before", mean(one.tokens for one in before), unit="tokens"),
        Row("tokens an answer after", mean(one.tokens for one in after), unit="tokens"),
        *(Row(f"seconds: {name}", value, unit="s") for name, value in took.items()),
    ]


def pairs(before: Sequence[Talk], after: Sequence[Talk]) -> list[tuple[Talk, Talk]]:
    return list(zip(before, after, strict=True))


def share(talks: Sequence[Talk]) -> float:
    return mean(one.liked for one in talks)


def timed(seconds: dict[str, float], name: str, work: Callable[[], Any]) -> Any:
    began = time.perf_counter()
    try:
        return work()
    finally:
        seconds[name] = time.perf_counter() - began
        say(f"{name} in {seconds[name]:.0f} s")


def command(words: Sequence[Any]) -> None:
    done = subprocess.run([sys.executable, "-m", "tunesmith", *map(str, words)], capture_output=True, text=True)
    say(done.stdout)
    if done.returncode:
        sys.exit(f"tunesmith {words[0]} {words[1]}: {done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("words", nargs="*", metavar="key=value", help="for `tunesmith feedback train`")
    parser.add_argument("--quick", action="store_true", help="few of all: that it runs, not what comes of it")
    parser.add_argument("--model", default="demo/smollm2-135m-instruct", help="a model's folder or name")
    parser.add_argument("--ratings", type=int, default=200, help="answers that are rated (200)")
    parser.add_argument("--held-out", type=int, default=100, help="questions that are asked before and after (100)")
    parser.add_argument("--patience", type=int, default=24, help="tokens within which an answer must end (24)")
    parser.add_argument("--keep", type=Path, help="keep the feedback, the run and the logs in this folder")
    parser.add_argument("--json", type=Path, help="write the rows here")
    asked = parser.parse_args()
    if asked.quick:
        asked.ratings, asked.held_out, asked.words = 16, 10, [*asked.words, "train.max_steps=2"]
    with TemporaryDirectory() as name:
        folder = asked.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        found = circle(asked, folder)
    sys.stdout.write(table(found) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in found], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
