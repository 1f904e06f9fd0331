"""How quick this processor is, and what a process holds before it has a model: a few seconds, in a process of its own.

    python -m tunesmith.plan.calibrate

prints one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .rehearse import Count

ROWS = 512
SIDES = (8, 32, 128, 512, 2048)
TRY, TRIES = 0.08, 5
"""Seconds of a try, at least, and how many there are."""


def timed(work: Callable[[], Any], threads: int) -> float:
    """Seconds that a piece of work takes by itself: of the processor's time, since others may use it too, a thread's
    share; the least of some tries. Each try goes on for a while: what other threads took is known no finer than by the
    kernel's tick, and a processor is not as quick for long as it is for a moment."""
    work()
    count, took = 1, 0.0
    while took < TRY:
        count, begun = 2 * count, time.perf_counter()
        for _ in range(count):
            work()
        took = time.perf_counter() - begun
    found: list[float] = []
    for _ in range(TRIES):
        wall, begun = time.perf_counter(), time.process_time()
        for _ in range(count):
            work()
        found.append(min(time.perf_counter() - wall, (time.process_time() - begun) / threads) / count)
    return min(found)


def products(dtype: Any, sides: tuple[int, ...]) -> list[tuple[int, float]]:
    """Flops a second of [ROWS, n] @ [n, n], or of a thin one, by the smallest side."""
    import torch

    from ..machine import product

    found = []
    for side in sides:
        wide = max(side, 512)
        a, b = torch.randn(ROWS, side, dtype=dtype), torch.randn(side, wide, dtype=dtype)
        took = timed(lambda a=a, b=b: product(a, b), torch.get_num_threads())
        found.append((min(side, ROWS) if side <= ROWS else side, 2 * ROWS * side * wide / took))
    return found


def bandwidth() -> float:
    """Bytes a second that are read and written by what adds two tensors larger than all caches."""
    import torch

    a, b = torch.ones(2**24), torch.ones(2**24)
    return 3 * a.nbytes / timed(lambda: torch.add(a, b, out=a), torch.get_num_threads())


def small_step() -> tuple[float, Count]:
    """Seconds of a step of a model so small that operations take little but the time to be called; and its count."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from ..data.batch import pack
    from ..data.rendering.tokens import Tokens
    from ..model.policy import Policy
    from .rehearse import META, rehearse, there_and_back

    sizes: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": 8,
        "num_attention_heads": 4,
    }
    config = LlamaConfig(vocab_size=64, **sizes)
    policy, batch = Policy(LlamaForCausalLM(config)), pack([Tokens(list(range(16)), [True] * 16)])

    took = timed(lambda: there_and_back(policy.run(batch, policy.trunk).last_hidden_state.sum()), 1)
    with torch.device(META):
        blank = Policy(LlamaForCausalLM(config))
    return took, rehearse(blank, [16], 0).step


def main() -> None:
    import accelerate
    import peft
    import psutil
    import torch

    from ..evaluate import report
    from ..machine import settle_in
    from .device import GB, Device

    assert accelerate and peft and report  # all that a run imports is part of what it takes
    settle_in()
    took, count = small_step()
    framework = psutil.Process().memory_info().rss / GB
    found: dict[str, Any] = {"full": products(torch.float32, SIDES), "half": products(torch.bfloat16, (32, 512))}
    found |= {"bandwidth": bandwidth(), "framework": framework}
    bare = Device("", "cpu", 0, found, found["bandwidth"], 0.0, 0, 1, True, "")
    found["call"] = max(1e-6, (took - bare.seconds(count, False)) / count.calls)
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
