"""How quick this processor is, and what a process holds before it has a model: half a minute, in a process of its own.

    python -m tunesmith.plan.calibrate

prints one line of JSON.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .device import Device
    from .rehearse import Count

ROWS, INNER, WIDTH = 512, 1536, 576
THIN, SIDES = 8, (32, 128, 512)
TRY, TRIES = 0.08, 5
"""Seconds of a try, at least, and how many there are."""


def timed(work: Callable[[], Any], threads: int) -> float:
    """Seconds that a piece of work takes by itself: of the processor's time, since others may use it too, a thread's
    share; the middling one of some tries. Each goes on for a while: what other threads took is known no finer than by
    the kernel's tick, and a processor is not as quick for long as it is for a moment."""
    work()
    count, took = 0, 0.0
    while took < TRY:
        count, begun = 2 * count or 1, time.perf_counter()
        for _ in range(count):
            work()
        took = time.perf_counter() - begun
    found: list[float] = []
    for _ in range(TRIES):
        wall, begun = time.perf_counter(), time.process_time()
        for _ in range(count):
            work()
        found.append(min(time.perf_counter() - wall, (time.process_time() - begun) / threads) / count)
    return statistics.median(found)


def products(dtype: Any, sides: tuple[int, ...]) -> list[tuple[int, float]]:
    """Flops a second of [ROWS, INNER] @ [INNER, n], by the smallest side, n."""
    import torch

    from ..machine import product

    found = []
    for side in sides:
        a, b = torch.randn(ROWS, INNER, dtype=dtype), torch.randn(INNER, side, dtype=dtype)
        took = timed(lambda a=a, b=b: product(a, b), torch.get_num_threads())
        found.append((side, 2 * ROWS * INNER * side / took))
    return found


def thin(call: float) -> float:
    """Flops a second of products with THIN columns, rows or sums, as LoRA has them of each kind: none comes near the
    speed of others, and which library takes them goes by their other sides."""
    import torch

    from ..machine import product

    rows = ROWS // 2
    low, narrow = torch.randn(rows, THIN), [torch.randn(THIN, width) for width in (WIDTH, INNER)]
    wide = [(torch.randn(rows, weight.shape[1]), weight) for weight in narrow]

    def work() -> None:
        for x, weight in wide:
            product(x, weight.T)
            product(low.T, x)
            torch.addmm(x, low, weight)

    flops, calls = sum(3 * 2 * x.numel() * THIN for x, _ in wide), 3 * len(wide)
    took = timed(work, torch.get_num_threads())
    return flops / max(took - calls * call, 0.5 * took)


def bandwidth() -> float:
    """Bytes a second that are read and written by what adds two tensors larger than all caches."""
    import torch

    a, b = torch.ones(2**25), torch.ones(2**25)
    return 3 * a.nbytes / timed(lambda: torch.add(a, b, out=a), torch.get_num_threads())


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 8, "num_attention_heads": 4}
LARGE = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 12, "num_attention_heads": 9}
"""Sizes of a model whose operations take little but the time to be called; and of one whose weights, that of a small
language model's blocks, are many times larger than caches."""


class Learner:
    """A Llama of some size, and what its steps come to; as a run has it, its layers add up their own gradients."""

    def __init__(self, sizes: dict[str, int], as_in_runs: bool) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from ..model.learning import make_learning
        from ..model.policy import Policy
        from .rehearse import META

        config = LlamaConfig(vocab_size=64, **sizes)  # pyright: ignore[reportArgumentType]
        with torch.device(META):
            blank = LlamaForCausalLM(config)
        model = LlamaForCausalLM(config)
        for one in (model, blank) if as_in_runs else ():
            make_learning(one)
        for weight in model.parameters():
            weight.grad = torch.zeros_like(weight)
        self.policy, self.blank = Policy(model), Policy(blank)

    def step(self, tokens: int) -> tuple[float, Count]:
        """Seconds of a forward and a backward pass over so many tokens, as a run has them; and their count."""
        from ..data.batch import pack
        from ..data.rendering.tokens import Tokens
        from ..model.learning import adding_up
        from .rehearse import rehearse, there_and_back

        sizes = [min(tokens, LONGEST)] * max(1, tokens // LONGEST)
        batch = pack([Tokens([n % 64 for n in range(size)], [True] * size) for size in sizes])

        def work() -> None:
            with adding_up():
                there_and_back(self.policy.run(batch, self.policy.trunk).last_hidden_state.sum())

        return timed(work, 1), rehearse(self.blank, sizes, 0).step


LONGEST = 128
"""Tokens of a text."""


def learning(device: Device) -> list[tuple[int, float]]:
    """Flops a second of the products of steps, by the number of tokens. What is left of a step's time where all else
    is taken off: they wait for weights that are in no cache, and find their factors where others left them."""
    learner, found = Learner(LARGE, as_in_runs=True), []
    for side in SIDES:
        took, count = learner.step(side)
        wide = count.flops.pop(side)
        found.append((side, wide / max(took - device.seconds(count, False), 0.2 * took)))
    return found


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
    took, count = Learner(SMALL, as_in_runs=False).step(16)  # nothing but the operations that are counted
    framework = psutil.Process().memory_info().rss / GB
    found: dict[str, Any] = {"full": products(torch.float32, (THIN, *SIDES))}
    found["half"] = products(torch.bfloat16, (SIDES[0], SIDES[-1]))
    found |= {"bandwidth": bandwidth(), "framework": framework}
    bare = Device("", "cpu", 0, found, found["bandwidth"], 0.0, 0, 1, True, "")
    found["call"] = max(1e-6, (took - bare.seconds(count, False)) / count.calls)
    found["full"] = [(THIN, thin(found["call"])), *learning(replace(bare, call=found["call"]))]
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
