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
ONE, FEW, THIN, SIDES = 1, 4, 8, (32, 128, 512)
"""Sides of products: one token, some, the rank that LoRA has unless it is told, and numbers of tokens."""
ROUNDS, TRY = 5, 0.1
"""How often everything is timed, and the seconds of each try, at least."""


def in_turn(works: dict[Any, Callable[[], Any]]) -> dict[Any, float]:
    """Seconds that pieces of work take: the middling ones of rounds in which all have their turn. A machine that is
    shared is quicker and slower for seconds at a time, and so falls on all of them alike."""
    counts = {name: 1 + int(TRY / max(once(work, 1), once(work, 1))) for name, work in works.items()}
    rounds = [{name: once(work, counts[name]) for name, work in works.items()} for _ in range(ROUNDS)]
    return {name: statistics.median(one[name] for one in rounds) for name in works}


def once(work: Callable[[], Any], count: int) -> float:
    begun = time.perf_counter()
    for _ in range(count):
        work()
    return (time.perf_counter() - begun) / count


def multiplying(side: int) -> Callable[[], Any]:
    """[ROWS, INNER] @ [INNER, side] in 16 bits."""
    import torch

    from ..machine import product

    a, b = torch.randn(ROWS, INNER, dtype=torch.bfloat16), torch.randn(INNER, side, dtype=torch.bfloat16)
    return lambda: product(a, b)


def adding() -> tuple[Callable[[], Any], int]:
    """Two tensors, larger than all caches, that are added; and the bytes that are read and written for it."""
    import torch

    a, b = torch.ones(2**25), torch.ones(2**25)
    return lambda: torch.add(a, b, out=a), 3 * a.nbytes


def taking() -> tuple[Callable[[], Any], int]:
    """Products of few tokens with weights that together are larger than all caches, and the bytes of these."""
    import torch

    from ..machine import product

    few, weights = torch.randn(FEW, WIDTH), [torch.randn(INNER, WIDTH) for _ in range(64)]
    return lambda: [product(few, weight.T) for weight in weights], sum(weight.nbytes for weight in weights)


def attending() -> tuple[Callable[[], Any], int]:
    """Attention within a text, there and back, and the flops of it."""
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    from .rehearse import ATTENDING, META, Counting, Flash, there_and_back

    def work(device: str | torch.device = "cpu") -> None:
        states = torch.ones(1, 9, 128, 64, device=device, requires_grad=True)
        there_and_back(scaled_dot_product_attention(states, states, states, is_causal=True).sum())

    with Counting() as counting, Flash():
        work(META)
    return work, counting.count.flops[ATTENDING]


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

    def step(self, tokens: int) -> Callable[[], None]:
        """A forward and a backward pass over so many tokens, as a run has them."""
        from ..data.batch import pack
        from ..data.rendering.tokens import Tokens
        from ..model.learning import adding_up
        from .rehearse import there_and_back

        batch = pack([Tokens([n % 64 for n in range(size)], [True] * size) for size in texts(tokens)])

        def work() -> None:
            with adding_up():
                there_and_back(self.policy.run(batch, self.policy.trunk).last_hidden_state.sum())

        return work

    def count(self, tokens: int) -> Count:
        """What that comes to."""
        from .rehearse import rehearse
        from .work import Part

        return rehearse(self.blank, Part(texts(tokens)), 0).step


def texts(tokens: int) -> tuple[int, ...]:
    """So many tokens in texts of 128 at most."""
    return (min(tokens, 128),) * max(1, tokens // 128)


def timed() -> dict[str, Any]:
    """What a processor is taken for. Rates of products, and the seconds that an operation takes by itself, are what is
    left of a step's time where all else is taken off: steps wait for weights that are in no cache, find their factors
    where others left them, and a language that is interpreted is slower where it must be fetched again as well."""
    from ..methods.full import Full
    from ..methods.lora import LoRA
    from .device import Device

    adapter, whole = Learner(LARGE, LoRA()), Learner(LARGE, Full())
    (add, moved), (take, taken), (attend, looked) = adding(), taking(), attending()
    halves = SIDES[0], SIDES[-1]
    works = {"add": add, "take": take, "attend": attend, ONE: adapter.step(ONE), THIN: adapter.step(SIDES[-1])}
    works |= {("half", side): multiplying(side) for side in halves}
    took = in_turn(works | {side: whole.step(side) for side in SIDES})
    speeds = looked / took["attend"], moved / took["add"], taken / took["take"]
    found: dict[str, Any] = dict(zip(("attention", "bandwidth", "intake"), speeds, strict=True))
    found["half"] = [(side, 2 * ROWS * INNER * side / took["half", side]) for side in halves]

    counts = {side: whole.count(side) for side in SIDES}
    known = dict.fromkeys((THIN, *SIDES), counts[SIDES[-1]].all_flops / took[SIDES[-1]])
    device = Device("", "cpu", 0, {"full": list(known.items())}, *speeds, 0.0, 0, 1, True, "")
    one = adapter.count(ONE)
    device = replace(device, call=max(1e-6, (took[ONE] - device.seconds(one, False)) / one.calls))
    for side, count in [*sorted(counts.items(), reverse=True), (THIN, adapter.count(SIDES[-1]))]:
        known[side] = rate_of(side, took[side], count, device)
        device = replace(device, rates={"full": list(known.items())})
    return found | {"full": list(known.items()), "call": device.call}


def rate_of(side: int, took: float, count: Count, device: Device) -> float:
    """Flops a second of the products with that side in a step that took so long. Those of LoRA's thin ones are little
    of a step, and are bounded: none is quicker for being thin."""
    flops, quickest = count.flops.pop(side), device.rate(SIDES[-1], False)
    return flops / max(took - device.seconds(count, False), flops / (quickest if side == THIN else 5 * quickest))


def main() -> None:
    import accelerate
    import peft
    import psutil

    from ..evaluate import report
    from ..machine import settle_in
    from ..methods.full import Full
    from .device import GB

    assert accelerate and peft and report  # all that a run imports is part of what it takes
    settle_in()
    Learner(SMALL, Full()).step(16)()
    framework = psutil.Process().memory_info().rss / GB
    sys.stdout.write(json.dumps(timed() | {"framework": framework}) + "\n")


if __name__ == "__main__":
    main()
