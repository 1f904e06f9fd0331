"""Figures of a server, as Prometheus reads them."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclass
class Histogram:
    """How often something took how long, in seconds."""

    counts: list[int] = field(default_factory=lambda: [0] * (len(BUCKETS) + 1))
    sum: float = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BUCKETS, seconds)] += 1
        self.sum += seconds

    def lines(self, name: str) -> Iterator[str]:
        below = 0
        for bound, count in zip((*BUCKETS, math.inf), self.counts, strict=True):
            below += count
            yield f'{name}_bucket{{le="{"+Inf" if math.isinf(bound) else bound}"}} {below}'
        yield f"{name}_sum {self.sum:.6f}"
        yield f"{name}_count {below}"


@dataclass
class Metrics:
    """What the loop counts. Its thread alone writes; what ends before it comes there is counted by the other."""

    finished: Counter[str] = field(default_factory=Counter)
    failed: int = 0
    late: int = 0
    refused: int = 0
    cancelled: int = 0
    prompt_tokens: int = 0
    reused_tokens: int = 0
    written_tokens: int = 0
    reading: float = 0.0
    first: Histogram = field(default_factory=Histogram)
    step: Histogram = field(default_factory=Histogram)

    def wrote(self, seconds: float, rows: int) -> None:
        self.step.add(seconds)
        self.written_tokens += rows

    def wait(self) -> int:
        """Seconds after which there may be room: what it took of late until a first token."""
        count = sum(self.first.counts)
        return max(1, min(60, math.ceil(self.first.sum / count))) if count else 1

    def text(self, running: int, waiting: int, models: int, held: int) -> str:
        """All of it, in Prometheus' text format."""
        lines = []
        for name, kind, value, what in (
            ("requests_running", "gauge", running, "Answers that are being written."),
            ("requests_waiting", "gauge", waiting, "Requests that wait."),
            ("cache_tokens", "gauge", held, "Tokens that answers being written and their prompts may come to."),
            ("models", "gauge", models, "Names that may be asked."),
            ("prompt_tokens_total", "counter", self.prompt_tokens, "Tokens of prompts."),
            ("prompt_tokens_reused_total", "counter", self.reused_tokens, "Those of them that had been read before."),
            ("generation_tokens_total", "counter", self.written_tokens, "Tokens written."),
            ("prefill_seconds_total", "counter", round(self.reading, 6), "Time in which prompts were read."),
            ("requests_failed_total", "counter", self.failed, "Requests that failed here."),
            ("requests_timeout_total", "counter", self.late, "Requests that took too long."),
            ("requests_refused_total", "counter", self.refused, "Requests refused because too many waited."),
            ("requests_cancelled_total", "counter", self.cancelled, "Requests whose client left."),
        ):
            lines += described(name, kind, what) + [f"tunesmith_{name} {value}"]
        lines += described("answers_total", "counter", "Answers finished, by why.")
        reasons = sorted({"stop", "length", *self.finished})
        lines += [f'tunesmith_answers_total{{finish_reason="{why}"}} {self.finished[why]}' for why in reasons]
        for name, histogram, what in (
            ("time_to_first_token_seconds", self.first, "From the request to its first token."),
            ("step_seconds", self.step, "A token for every row."),
        ):
            lines += [*described(name, "histogram", what), *histogram.lines(f"tunesmith_{name}")]
        return "\n".join(lines) + "\n"


def described(name: str, kind: str, what: str) -> list[str]:
    return [f"# HELP tunesmith_{name} {what}", f"# TYPE tunesmith_{name} {kind}"]
