"""Every optimizer on a tiny model: it learns, goes on exactly, and remembers as much as its paper says."""

from functools import cache
from importlib.util import find_spec

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from training.test_resume import StopsAfter, run_of, weights

from tunesmith.errors import RecipeError, Stopped
from tunesmith.methods.adalora import AdaLoRA
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.sft import SFT
from tunesmith.optimizers.base import optimizer
from tunesmith.runs import RunFolder
from tunesmith.schedules.constant import Constant
from tunesmith.training import checkpoint
from tunesmith.training.train import resume, train

SMALL = {
    "galore_adamw": {"rank": 4, "update_proj_gap": 2},
    "galore_adafactor": {"rank": 4, "update_proj_gap": 2},
    "q_galore_adamw": {"rank": 4, "update_proj_gap": 2, "queue_size": 2},
    "apollo_adamw": {"rank": 4, "update_proj_gap": 2},
    "apollo_mini": {"update_proj_gap": 2},
    "badam": {"switch_block_every": 2},
    "badam_ratio": {"switch_every": 2, "update_ratio": 0.3},
    "sgd": {"momentum": 0.9},
    "adafactor": {"beta1": 0.9},
}
"""What suits a model of 32 dimensions and a few steps."""
RATES = {"sgd": 0.3, "schedule_free_sgd": 1.0, "lion": 3e-3, "galore_adafactor": 0.1, "galore": 0.05, "q_galore": 0.05}


def entries(**facts):
    """Every optimizer that can be tried here: those that page need a GPU, some a package."""
    found = []
    for name, cls in optimizer.all().items():
        missing = cls.package and find_spec(cls.package) is None
        if name.startswith("paged") or any(bool(getattr(cls, fact)) != value for fact, value in facts.items()):
            continue
        marks = [pytest.mark.skipif(bool(missing), reason=f"{cls.package} is not installed")]
        found.append(pytest.param(cls(**SMALL.get(name, {})), id=name, marks=marks))
    return found


def rate(entry) -> float:
    return next((value for name, value in RATES.items() if entry.name.startswith(name)), 1e-2)


def loop(entry, method=None, objective=None, **settings):
    judge = objective or SFT()
    settings = {"learning_rate": rate(entry), "optim": entry, "max_steps": 6, "weight_decay": 0.01, **settings}
    return loop_of(make_tiny, method or Full(), judge, sequences_for(judge), **settings)


def flat(one) -> torch.Tensor:
    return torch.cat([weight.detach().flatten() for weight in one.weights.values()])


@cache
def alone(entry) -> tuple[torch.Tensor, torch.Tensor]:
    """What six steps come to that nobody looks at or stops: what is trained, and what is saved of it."""
    one = loop(entry)
    list(one.fit())
    trained = flat(one)
    entry.finish(one.optimizer)
    return trained, flat(one)


@pytest.mark.parametrize("entry", entries())
def test_the_loss_falls(entry):
    losses = [step.loss for step in loop(entry, max_steps=24).fit()]
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize("entry", entries())
def test_stopped_and_resumed_is_the_same_to_the_bit(entry, tmp_path):
    first = loop(entry)
    steps = first.fit()
    for _ in range(3):
        next(steps)
    place = checkpoint.write(tmp_path, 3, checkpoint.state(first), {}, None)
    again = loop(entry)
    checkpoint.load(place, again, {})
    list(again.fit(3))
    trained, saved = alone(entry)
    assert torch.equal(flat(again), trained)
    again.train.optim.finish(again.optimizer)
    assert torch.equal(flat(again), saved)


@pytest.mark.parametrize("entry", entries(whole=False))
def test_steps_in_the_backward_pass_are_the_same(entry):
    settings = {"max_grad_norm": 0, "max_steps": 3, "optim": entry}
    after, early = loop(entry, **settings), loop(entry, optimizer_in_backward=True, **settings)
    for one, other in zip(after.fit(), early.fit(), strict=True):
        assert other.loss == pytest.approx(one.loss, abs=1e-4)
    assert (flat(early) - flat(after)).abs().max() < 2e-3
    assert all(weight.grad is None for weight in early.weights.values())


@pytest.mark.parametrize("entry", entries())
def test_a_look_in_between_changes_nothing(entry):
    watched, looks = loop(entry), set()
    for _ in watched.fit():
        before = flat(watched).clone()
        with entry.settled(watched.optimizer):
            looks.add(torch.equal(flat(watched), before))
        assert torch.equal(flat(watched), before)
    assert torch.equal(flat(watched), alone(entry)[0])
    assert looks == ({True} if entry.package != "schedulefree" else {False, True} & looks)


@pytest.mark.parametrize("entry", entries())
def test_lora_and_a_new_head_learn(entry):
    if "rank" in type(entry).__dataclass_fields__ and entry.rank > 1:
        entry = type(entry)(**(SMALL[entry.name] | {"rank": 2}))
    one = loop(entry, LoRA(r=8, loraplus_lr_ratio=4.0), Classify(), max_steps=12, learning_rate=rate(entry) / 2)
    before = {name: weight.detach().clone() for name, weight in one.weights.items()}
    losses = [step.loss for step in one.fit()]
    assert min(losses[1:]) < losses[0]
    moved = {name for name, weight in one.weights.items() if not torch.equal(weight, before[name])}
    for kind in ("lora_A", "lora_B", "score"):
        assert entry.name == "badam" or any(kind in name for name in moved)
    assert len({group["lr"] for group in one.optimizer.param_groups}) == 2


def remembered(entry, method=None, steps=1) -> int:
    """The bytes of an optimizer's state after a step, but for counters."""
    one = loop(entry, method, max_steps=steps)
    list(one.fit())
    states = one.optimizer.state
    return sum(
        value.nbytes
        for weight in one.weights.values()
        for value in states.get(weight, {}).values()
        if isinstance(value, torch.Tensor) and value.numel() > 1
    )


def shapes(inner: bool) -> list[torch.Size]:
    names = ("embed_tokens", "lm_head")
    own = dict(make_tiny().named_parameters())
    return [one.shape for name, one in own.items() if (one.ndim == 2 and not any(n in name for n in names)) == inner]


def test_adamw_remembers_two_numbers_a_weight():
    every = sum(shape.numel() for shape in [*shapes(True), *shapes(False)])
    assert remembered(optimizer["adamw_torch"]()) == 2 * 4 * every


def test_galore_remembers_a_basis_and_two_numbers_for_each_of_the_longer_side():
    others = sum(2 * shape.numel() for shape in shapes(False))
    inner = sum(4 * min(shape) + 2 * 4 * max(shape) for shape in shapes(True))
    assert remembered(optimizer["galore_adamw"](rank=4)) == 4 * (others + inner)


def test_apollo_remembers_no_basis():
    others = sum(2 * shape.numel() for shape in shapes(False))
    inner = sum(max(shape) for shape in shapes(True))
    assert remembered(optimizer["apollo_adamw"](rank=4)) == 4 * (others + 2 * 4 * inner)
    assert remembered(optimizer["apollo_mini"]()) == 4 * (others + 2 * inner)


def test_q_galore_remembers_its_basis_in_half_a_byte_a_number():
    others = sum(2 * shape.numel() for shape in shapes(False))
    means = sum(2 * 4 * max(shape) for shape in shapes(True))
    blocks = sum(-(-4 * min(shape) // 256) for shape in shapes(True))
    scales = 4 * blocks if blocks > len(shapes(True)) else 0  # one alone counts as a counter here
    assert remembered(optimizer["q_galore_adamw"](rank=4)) == 4 * (others + means) + 128 * blocks + scales


def test_adam_mini_remembers_half():
    half = remembered(optimizer["adamw_torch"]()) / 2
    assert half < remembered(optimizer["adam_mini"]()) < 1.05 * half


def test_badam_by_ratio_remembers_a_share():
    sizes = [weight.numel() for weight in make_tiny().parameters()]
    share = sum(2 * 4 * (size if size <= 100 else size // 4) for size in sizes)
    near = remembered(optimizer["badam_ratio"](update_ratio=0.25))
    assert near == share + 2 * 8 * len(sizes)  # and where the share begins and ends
    far = remembered(optimizer["badam_ratio"](update_ratio=0.25, mask_mode="scatter"))
    assert far == share * 3 // 2


def test_badam_remembers_one_block():
    model = make_tiny()
    entry = optimizer["badam"](switch_block_every=1, switch_mode="ascending")
    block = sum(weight.numel() for weight in model.model.layers[0].parameters())
    words = model.model.embed_tokens.weight.numel()
    assert [remembered(entry, steps=steps) for steps in (1, 2, 3)] == [2 * 4 * words, 2 * 4 * block, 2 * 4 * block]


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_eight_bits_are_a_quarter():
    every = remembered(optimizer["adamw_torch"]())
    tables = (
        2 * 256 * 4 * len([*shapes(True), *shapes(False)])
    )  # a table of levels for each mean; shared between weights
    assert remembered(optimizer["adamw_bnb_8bit"](min_8bit_size=0)) < every / 4 * 1.1 + tables


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
def test_small_weights_keep_all_bits():
    every, few = (remembered(optimizer["lion_8bit"](min_8bit_size=size)) for size in (10**6, 0))
    assert few < every / 2


def test_badam_computes_no_other_gradient():
    one = loop(optimizer["badam"](switch_block_every=1, switch_mode="ascending"), max_steps=2)
    alive = []
    gradient = one.gradient

    def watched(number):
        made = gradient(number)
        alive.append({name for name, weight in one.weights.items() if weight.grad is not None})
        return made

    one.gradient = watched
    list(one.fit())
    assert alive[0] == {"model.embed_tokens.weight"}
    assert all(name.startswith("model.layers.0.") for name in alive[1]) and len(alive[1]) == 9


@pytest.mark.parametrize("entry", [one for one in entries() if one.id in ("badam", "schedule_free_adamw", "muon")])
def test_a_run_is_stopped_measured_and_goes_on(model_folder, reviews, tmp_path, entry):
    settings = {"optim": entry, "lr_scheduler_type": Constant(), "eval_strategy": "steps", "eval_steps": 2}
    train(run_of(model_folder, reviews, tmp_path / "whole", Full(), SFT(), **settings), quiet=True)
    stopped = run_of(model_folder, reviews, tmp_path / "parts", Full(), SFT(), **settings)
    with pytest.raises(Stopped):
        train(stopped, [StopsAfter(3)], quiet=True)
    resume(tmp_path / "parts", quiet=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
    losses = [[line["eval_loss"] for line in RunFolder(tmp_path / run).metrics if "eval_loss" in line] for run in NAMES]
    assert len(losses[0]) == 3 and losses[0] == losses[1]


NAMES = ("whole", "parts")


@pytest.mark.skipif(find_spec("schedulefree") is None, reason="schedulefree is not installed")
def test_what_is_saved_is_the_average(model_folder, reviews, tmp_path):
    """The last measure of the loss, taken of the average while training, is that of what was saved."""
    entry = optimizer["schedule_free_adamw"]()
    one = loop(entry)
    list(one.fit())
    with entry.settled(one.optimizer):
        average = flat(one).clone()
    assert not torch.equal(flat(one), average)
    entry.finish(one.optimizer)
    assert torch.equal(flat(one), average)


def test_schedules_that_spoil_each_other_are_refused(model_folder, reviews, tmp_path):
    for entry in (one for one in entries() if one.id == "schedule_free_adamw"):
        falling = run_of(model_folder, reviews, tmp_path / "run", Full(), SFT(), optim=entry.values[0])
        if find_spec("schedulefree"):
            with pytest.raises(
                RecipeError, match=r"train\.lr_scheduler_type: schedule_free_adamw needs none; take constant"
            ):
                train(falling, quiet=True)
            looked = {"optim": entry.values[0], "lr_scheduler_type": Constant()}
            with pytest.raises(RecipeError, match="spoils gradients, and adalora looks at them; take adamw_torch"):
                train(run_of(model_folder, reviews, tmp_path / "run", AdaLoRA(), SFT(), **looked), quiet=True)
    assert not (tmp_path / "run").exists()
