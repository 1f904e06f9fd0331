"""What rows remember that go on together: no row costs the others room, and where memory ends nothing is spoilt."""

from copy import deepcopy

import pytest
import torch
from tinyrun import Words

from tunesmith.model import memory as module
from tunesmith.model.attention import keep_apart
from tunesmith.model.engine import Engine, reading
from tunesmith.model.going import Each, Together
from tunesmith.serving.memory import remembered

SHORT = [[7, 8, 9, 40 + n, *range(50, 50 + n)] for n in range(6)]
LONG = [n % 380 for n in range(11, 161)]


@pytest.fixture
def engine(tiny, monkeypatch):
    monkeypatch.setattr(module, "USUAL", 8)
    model = tiny(max_position_embeddings=512).eval()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(3)
    keep_apart(model)
    made = Engine(model, Words())
    with reading(model):
        assert made.together
        yield made


@pytest.mark.parametrize("numbers", [torch.float32, torch.bfloat16], ids=str)
def test_rows_go_on_together_whatever_numbers_are_rounded_to(numbers, tiny, monkeypatch):
    """In 16 bits as well, as on every GPU; and in neither where attention is another than it should be."""
    model = tiny().eval().to(numbers)
    keep_apart(model)
    assert Engine(model, Words()).together
    usual = module.part
    monkeypatch.setattr(module, "part", lambda query, *more: usual(query * 30, *more))
    assert not Engine(model, Words()).together


def joined(engine, goings, prompts, size=1):
    read = engine.prefill(prompts, [])
    for going in goings:
        going.join(deepcopy(read), size)


def go_on(goings, steps, stays=None):
    """Let both go on alike, and see that they say the same; then some leave."""
    for _ in range(steps):
        right, found = (going.logits for going in goings)
        assert torch.allclose(right, found, atol=1e-4)
        for going in goings:
            going.go_on(right.argmax(-1))
    if stays is not None:
        for going in goings:
            going.keep(stays)


def room(going):
    sizes = {one.shape[0] * one.shape[2] for one in (*going.memory.keys, *going.memory.values)}
    assert len(sizes) == 1
    return sizes.pop()


@pytest.mark.parametrize("order", [(0, 7), (3, 4), (6, 1)], ids=["first", "between", "last"])
def test_a_long_row_costs_the_others_no_room(engine, order):
    before, _ = order
    goings = alone, going = Each(engine.read), Together(engine.read)
    for prompt in [*SHORT[:before], LONG, *SHORT[before:]]:
        joined(engine, goings, [prompt])
        go_on(goings, 2)
    assert room(going) < 7 * len(LONG) / 2
    joined(engine, goings, [SHORT[1], LONG[:100]])
    joined(engine, goings, [SHORT[2]], 3)  # which share their prompt
    go_on(goings, 3)
    at, length = before, len(LONG) + 2
    found = remembered(going, at, length).layers[1]
    part = alone.parts[at]
    for mine, theirs in ((found.keys, part.cache.layers[1].keys), (found.values, part.cache.layers[1].values)):
        assert torch.allclose(mine, theirs[:, :, :length], atol=1e-4)
    go_on(goings, 40, [0, 2, 3, 5, 8, 9, 11])
    go_on(goings, 2, [3, 5])
    go_on(goings, 2)
    assert room(going) < 2 * 2 * (50 + len(LONG))


def test_where_memory_ends_the_others_go_on(engine, monkeypatch):
    goings = _, going = Each(engine.read), Together(engine.read)
    joined(engine, goings, SHORT[:2])
    go_on(goings, 2)
    plain, calls = torch.Tensor.new_zeros, []

    def few(tensor, *shape, **more):
        calls.append(shape)
        if len(calls) == 3:
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return plain(tensor, *shape, **more)

    read = engine.prefill(SHORT[2:], [])
    with monkeypatch.context() as patch:
        patch.setattr(torch.Tensor, "new_zeros", few)
        with pytest.raises(RuntimeError, match="allocate"):
            going.join(deepcopy(read))
    go_on(goings, 2)
    joined(engine, goings, SHORT[2:])
    go_on(goings, 40, [0, 3])
    go_on(goings, 2)
