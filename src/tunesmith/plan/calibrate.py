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
    from ..methods.base import Method
    from .device import Device
    from .rehearse import Count

ROWS, INNER, WIDTH = 512, 1536, 576
ONE, THIN, SIDES = 1, 8, (32, 128, 512)
"""Sides of products: one token, the rank that LoRA has unless it is told, and numbers of tokens."""
TRY, TRIES, FEWEST, LONG = 0.08, 5, 3, 2.0
"""Seconds of a try, at least; how many there are, and how few will do where so many seconds have gone by."""


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
    while len(found) < FEWEST or (len(found) < TRIES and sum(found) * count < LONG):
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


def bandwidth() -> float:
    """Bytes a second that are read and written by what adds two tensors larger than all caches."""
    import torch

    a, b = torch.ones(2**25), torch.ones(2**25)
    return 3 * a.nbytes / timed(lambda: torch.add(a, b, out=a), torch.get_num_threads())


SMALL = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
LARGE = {"hidden_size": WIDTH, "intermediate_size": INNER, "num_hidden_layers": 12, "num_attention_heads": 9}
"""Sizes of a model that is hardly there; and of one whose weights, those of a small language model's blocks, are many
times larger than caches."""


class Learner:
    """A Llama of some size that learns by a method, and what its steps come to."""

    def __init__(self, sizes: dict[str, int], method: Method) -> None:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from ..model.learning import make_learning
        from ..model.load import hushed
        from ..model.policy import Policy
        from .rehearse import META

        config = LlamaConfig(vocab_size=64, **sizes)  # pyright: ignore[reportArgumentType]
        with torch.device(META):
            blank = LlamaForCausalLM(config)
        with hushed():
            self.policy, self.blank = (Policy(method.attach(one)) for one in (LlamaForCausalLM(config), blank))
        for policy in (self.policy, self.blank):
            if policy.model is policy.bare:  # as a run has it
                make_learning(policy.model)
        for weight in self.policy.model.parameters():
            weight.grad = torch.zeros_like(weight) if weight.requires_grad else None

    def step(self, tokens: int) -> tuple[float, Count]:
        """Seconds of a forward and a backward pass over so many tokens, as a run has them; and their count."""
        from ..data.batch import pack
        from ..data.rendering.tokens import Tokens
        from ..model.learning import adding_up
        from .rehearse import rehearse, there_and_back
        from .work import Part

        sizes = [min(tokens, LONGEST)] * max(1, tokens // LONGEST)
        batch = pack([Tokens([n % 64 for n in range(size)], [True] * size) for size in sizes])

        def work() -> None:
            with adding_up():
                there_and_back(self.policy.run(batch, self.policy.trunk).last_hidden_state.sum())

        return timed(work, 1), rehearse(self.blank, Part(tuple(sizes)), 0).step


LONGEST = 128
"""Tokens of a text."""


def learning(device: Device) -> tuple[list[tuple[int, float]], float]:
    """Flops a second of products, by their smallest side, and the seconds that an operation takes by itself. Each is
    what is left of a step's time where all else is taken off: steps wait for weights that are in no cache, find their
    factors where others left them, and a language that is interpreted is slower where it must be fetched again as well.
    """
    from ..methods.full import Full
    from ..methods.lora import LoRA

    adapter, whole = Learner(LARGE, LoRA()), Learner(LARGE, Full())
    took, count = adapter.step(ONE)
    device = replace(device, call=max(1e-6, (took - device.seconds(count, False)) / count.calls))
    known = {side: rate_of(side, *whole.step(side), device) for side in SIDES}
    device.rates["full"][1:] = known.items()
    known[THIN] = rate_of(THIN, *adapter.step(SIDES[-1]), device)
    return sorted(known.items()), device.call


def rate_of(side: int, took: float, count: Count, device: Device) -> float:
    """Flops a second of the products with that side in a step that took so long."""
    flops = count.flops.pop(side)
    return flops / max(took - device.seconds(count, False), 0.2 * flops / device.rate(side, False))


def main() -> None:
    import accelerate
    import peft
    import psutil
    import torch

    from ..evaluate import report
    from ..machine import settle_in
    from ..methods.full import Full
    from .device import GB, Device

    assert accelerate and peft and report  # all that a run imports is part of what it takes
    settle_in()
    Learner(SMALL, Full()).step(16)
    framework = psutil.Process().memory_info().rss / GB
    found: dict[str, Any] = {"half": products(torch.bfloat16, (SIDES[0], SIDES[-1]))}
    found |= {"full": products(torch.float32, (THIN, *SIDES)), "bandwidth": bandwidth(), "framework": framework}
    found["full"], found["call"] = learning(Device("", "cpu", 0, found, found["bandwidth"], 0.0, 0, 1, True, ""))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
