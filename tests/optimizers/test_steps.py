"""Five steps of each optimizer, against the same steps derived a second time: in numpy, or by torch."""

from importlib.util import find_spec

import numpy as np
import pytest
import torch
from numpy.linalg import norm, svd

from tunesmith.errors import BadEnvironment, RecipeError
from tunesmith.optimizers.base import Learnt, optimizer
from tunesmith.run import Train
from tunesmith.schedules.constant import Constant

SHAPES = {"block.q_proj.weight": (12, 20), "block.up.weight": (24, 10), "words.weight": (30, 6), "norm.weight": (20,)}
RATE, DECAY, STEPS = 0.01, 0.1, 5


def given(seed: int, by: float = 1.0) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(seed)
    return {name: by * draw.standard_normal(shape) for name, shape in SHAPES.items()}


START = given(0)
GRADIENTS = [given(1 + step, 0.1 + step) for step in range(STEPS)]


def learnt(start=START) -> list[Learnt]:
    """The weights as a run would hand them over; queries have heads of four rows."""
    return [
        Learnt(
            name,
            torch.nn.Parameter(torch.tensor(value, dtype=torch.float32)),
            decay=DECAY if value.ndim == 2 else 0.0,
            inner=name.startswith("block"),
            rows=4 if "q_proj" in name else 1,
            block=1 if name.startswith("block") else 0 if name.startswith("words") else 2,
        )
        for name, value in start.items()
    ]


def stepped(name: str, options: dict | None = None, **train) -> dict[str, np.ndarray]:
    """The weights after the steps."""
    entry, weights = entry_of(name, options), learnt()
    settings = Train(learning_rate=RATE, optim=entry, lr_scheduler_type=Constant(), **train)
    entry.refuse(settings)
    made = entry.make(weights, settings)
    for gradient in GRADIENTS:
        with entry.learning(made):
            for one in weights:
                if one.weight.requires_grad:
                    one.weight.grad = torch.tensor(gradient[one.name], dtype=torch.float32)
        made.step()
    entry.finish(made)
    return {one.name: one.weight.detach().double().numpy() for one in weights}


def entry_of(name: str, options: dict | None = None):
    entry = optimizer[name](**(options or {}))
    if entry.package and find_spec(entry.package) is None:
        pytest.skip(f"{entry.package} is not installed")
    return entry


def adam(mean, squares, gradient, step, epsilon=1e-8, betas=(0.9, 0.999)):
    """Adam's direction, its means and the correction for their beginning."""
    mean = betas[0] * mean + (1 - betas[0]) * gradient
    squares = betas[1] * squares + (1 - betas[1]) * gradient**2
    return mean / (np.sqrt(squares) + epsilon), mean, squares, np.sqrt(1 - betas[1] ** step) / (1 - betas[0] ** step)


def follow(rule, start=START) -> dict[str, np.ndarray]:
    """The weights after the steps, where `rule(name, gradient, memory, step)` says what is subtracted."""
    weights, memories = {name: value.copy() for name, value in start.items()}, {name: {} for name in start}
    for step, gradient in enumerate(GRADIENTS, 1):
        for name in weights:
            move = rule(name, gradient[name], memories[name], step)
            decay = DECAY if weights[name].ndim == 2 else 0.0
            if move is not None:  # nor does what stays decay
                weights[name] = weights[name] * (1 - RATE * decay) - RATE * move
    return weights


def plain(name, gradient, memory, step):
    """AdamW."""
    direction, memory["m"], memory["v"], by = adam(memory.get("m", 0), memory.get("v", 0), gradient, step)
    return direction * by


def torchs(name, gradient, memory, step):
    """AdamW with epsilon where torch and bitsandbytes have it: beside the corrected root."""
    _, memory["m"], memory["v"], _ = adam(memory.get("m", 0), memory.get("v", 0), gradient, step)
    return memory["m"] / (1 - 0.9**step) / (np.sqrt(memory["v"] / (1 - 0.999**step)) + 1e-8)


def agree(ours, theirs, within=2e-6):
    moved = max(np.abs(theirs[name] - START[name]).max() for name in theirs)
    assert moved > 1e-3
    for name, expected in theirs.items():
        assert np.abs(ours[name] - expected).max() < within, name


def on_short_side(rule):
    """A rule for matrices that lie down: [m, n], m <= n."""

    def turned(name, gradient, memory, step):
        if not name.startswith("block"):
            return plain(name, gradient, memory, step)
        tall = gradient.shape[0] >= gradient.shape[1]
        move = rule(gradient.T if tall else gradient, memory, step)
        return move.T if tall else move

    return turned


@pytest.mark.parametrize("name", ["adamw_torch", "adamw_torch_fused"])
def test_adamw(name):
    agree(stepped(name), follow(torchs))


def test_sgd():
    def momentum(name, gradient, memory, step):
        memory["b"] = 0.9 * memory["b"] + gradient if "b" in memory else gradient
        return gradient + 0.9 * memory["b"]

    def coupled(start):
        weights, memories = {name: value.copy() for name, value in start.items()}, {name: {} for name in start}
        for step, gradient in enumerate(GRADIENTS, 1):
            for name, value in weights.items():
                decayed = gradient[name] + (DECAY * value if value.ndim == 2 else 0)
                weights[name] = value - RATE * momentum(name, decayed, memories[name], step)
        return weights

    agree(stepped("sgd", {"momentum": 0.9, "nesterov": True}), coupled(START), 1e-5)


def test_galore():
    def low(wide, memory, step):
        if step % 3 == 1:
            memory["p"] = aligned(svd(wide)[0][:, :4], wide, memory)
        projected = memory["p"].T @ wide
        direction, memory["m"], memory["v"], by = adam(memory.get("m", 0), memory.get("v", 0), projected, step)
        return 0.25 * memory["p"] @ (direction * by)

    agree(stepped("galore_adamw", {"rank": 4, "update_proj_gap": 3}), follow(on_short_side(low)), 1e-5)


def aligned(basis, wide, memory):
    """Singular vectors whose signs are torch's, which are as good as any."""
    theirs = torch.linalg.svd(torch.tensor(wide, dtype=torch.float32), full_matrices=False).U[:, : basis.shape[1]]
    return basis * np.sign((basis * theirs.double().numpy()).sum(0))


def adafactor(gradient, memory, step):
    old = 1 - step**-0.8
    squares = gradient**2 + 1e-30
    if gradient.ndim == 2:
        memory["r"] = old * memory.get("r", 0) + (1 - old) * squares.mean(1)
        memory["c"] = old * memory.get("c", 0) + (1 - old) * squares.mean(0)
        move = gradient / np.sqrt(np.outer(memory["r"], memory["c"]) / memory["r"].mean())
    else:
        memory["v"] = old * memory.get("v", 0) + (1 - old) * squares
        move = gradient / np.sqrt(memory["v"])
    return move / max(1.0, np.sqrt((move**2).mean()))


def test_galore_adafactor():
    def rule(name, gradient, memory, step):
        if not name.startswith("block"):
            return adafactor(gradient, memory, step)
        tall = gradient.shape[0] >= gradient.shape[1]
        wide = gradient.T if tall else gradient
        if step % 3 == 1:
            memory["p"] = svd(wide)[0][:, :4]
        move = 0.5 * memory["p"] @ adafactor(memory["p"].T @ wide, memory, step)
        return move.T if tall else move

    agree(stepped("galore_adafactor", {"rank": 4, "update_proj_gap": 3, "scale": 0.5}), follow(rule), 1e-5)


def test_adafactor():
    agree(stepped("adafactor"), follow(lambda name, gradient, memory, step: adafactor(gradient, memory, step)), 1e-5)


def test_q_galore_is_galore_on_a_basis_of_four_bits():
    from tunesmith.optimizers._low_rank import pack, unpack

    basis = torch.linalg.svd(torch.tensor(given(7)["words.weight"]).float(), full_matrices=False).U
    packed, scales = pack(basis)
    assert packed.dtype == torch.uint8 and packed.numel() == 128  # 180 numbers fill one block of 256
    steps = basis.abs().max() / 7
    assert (unpack(packed, scales, *basis.shape) - basis).abs().max() <= steps / 2 + 1e-6
    near, galore = stepped("q_galore_adamw", {"rank": 4}), stepped("galore_adamw", {"rank": 4})
    for name in galore:
        moved = norm(galore[name] - START[name])
        assert norm(near[name] - galore[name]) < 0.25 * moved, name
    assert np.abs(near["block.up.weight"] - galore["block.up.weight"]).max() > 1e-6


def test_q_galore_looks_for_a_basis_less_often_where_it_does_not_change():
    options = {"rank": 4, "update_proj_gap": 2, "queue_size": 2, "cos_threshold": 0.9, "gamma_proj": 3.0}
    entry, weights = optimizer["q_galore_adamw"](**options), learnt()
    made = entry.make(weights, Train(optim=entry))
    one, drawn = weights[0].weight, torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    due = []
    for _ in range(15):
        one.grad = drawn.clone()
        made.step()
        due.append(int(made.state[one]["due"]))
    assert due == [3, 3, 5, 5, 11, 11, 11, 11, 11, 11, 29, 29, 29, 29, 29]  # the gap is 2, and six once two are alike


@pytest.mark.parametrize(
    ("name", "rank", "kind", "scale"), [("apollo_adamw", 4, 0, 2.0), ("apollo_mini", 1, None, 128)]
)
def test_apollo(monkeypatch, name, rank, kind, scale):
    from tunesmith.optimizers._low_rank import Apollo

    drawn = {}

    def low(wide, memory, step):
        at = drawn[wide.shape, step]
        direction, memory["m"], memory["v"], by = adam(memory.get("m", 0), memory.get("v", 0), at @ wide, step)
        move = wide * (norm(direction, axis=kind) / norm(at @ wide, axis=kind)) * scale**0.5
        length = norm(move)
        if "l" in memory and length / memory["l"] > 1.01:
            move = move * 1.01 * memory["l"] / length
        memory["l"] = norm(move)
        return move * by

    usual = Apollo.projection

    def seen(self, wide, state, group, step):
        made = usual(self, wide, state, group, step)
        drawn[tuple(wide.shape), step] = made.double().numpy()
        return made

    monkeypatch.setattr(Apollo, "projection", seen)
    ours = stepped(name, {"rank": rank, "scale": scale, "update_proj_gap": 3})
    agree(ours, follow(on_short_side(low)), 2e-5)
    one, other = drawn[(12, 20), 1], drawn[(10, 24), 1]
    assert np.array_equal(drawn[(12, 20), 3], one) and not np.array_equal(drawn[(12, 20), 4], one)
    assert not np.allclose(one[:, :10], other)
    assert ours["block.up.weight"].shape == (24, 10)


def test_apollo_projects_by_normal_numbers_of_variance_one_over_the_rank():
    entry, weights = (
        optimizer["apollo_adamw"](rank=8),
        [Learnt("w", torch.nn.Parameter(torch.zeros(400, 500)), inner=True)],
    )
    made = entry.make(weights, Train(optim=entry))
    weights[0].weight.grad = torch.ones(400, 500)
    made.step()
    drawn = made.projection(torch.ones(400, 500), made.state[weights[0].weight], made.param_groups[0], 1)
    assert drawn.shape == (8, 400)
    assert float(drawn.var()) == pytest.approx(1 / 8, rel=0.1) and float(drawn.mean()) == pytest.approx(0, abs=0.02)


def test_adam_mini():
    def mini(name, gradient, memory, step):
        rows = {"block.q_proj.weight": 4, "norm.weight": 20}.get(name, 1)
        parts = gradient.reshape(len(gradient) // rows, -1)
        memory["m"] = 0.9 * memory.get("m", 0) + 0.1 * gradient
        memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * (parts**2).mean(1)
        root = np.sqrt(memory["v"] / (1 - 0.999**step)) + 1e-8
        return (memory["m"].reshape(parts.shape) / root[:, None]).reshape(gradient.shape) / (1 - 0.9**step)

    agree(stepped("adam_mini"), follow(mini))


BY_SHAPE = {
    "match_rms_adamw": lambda rows, columns: 0.2 * max(rows, columns) ** 0.5,
    "original": lambda rows, columns: max(1.0, rows / columns) ** 0.5,
}


@pytest.mark.parametrize("options", [{}, {"nesterov": False, "momentum": 0.8, "ns_steps": 4}])
@pytest.mark.parametrize("adjust", BY_SHAPE)
def test_muon(adjust, options):
    decay = options.get("momentum", 0.95)

    def orthogonal(name, gradient, memory, step):
        if not name.startswith("block"):
            return torchs(name, gradient, memory, step)
        memory["b"] = decay * memory.get("b", 0) + (1 - decay) * gradient
        ahead = (1 - decay) * gradient + decay * memory["b"]
        tall = gradient.shape[0] > gradient.shape[1]
        x = ahead if options.get("nesterov", True) else memory["b"]
        x = x.T / norm(x) if tall else x / norm(x)
        for _ in range(options.get("ns_steps", 5)):
            square = x @ x.T
            x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
        return (x.T if tall else x) * BY_SHAPE[adjust](*gradient.shape)

    agree(stepped("muon", options | {"adjust_lr_fn": adjust}), follow(orthogonal), 1e-3)  # torch iterates in bfloat16


def test_badam_moves_a_block_at_a_time_and_forgets():
    options = {"switch_block_every": 2, "switch_mode": "ascending"}
    turns = [("words.weight",), ("block.q_proj.weight", "block.up.weight"), ("norm.weight",)]
    memories: dict = {}

    def in_turn(name, gradient, memory, step):
        turn, at = divmod(step - 1, 2)
        if name not in turns[turn]:
            return None
        memories[name] = {} if at == 0 else memories[name]
        return plain(name, gradient, memories[name], at + 1)

    agree(stepped("badam", options), follow(in_turn))


@pytest.mark.parametrize("mode", ["random", "ascending", "descending"])
def test_badam_gives_every_block_its_turn(mode):
    entry, weights = optimizer["badam"](switch_block_every=1, switch_mode=mode), learnt()
    made = entry.make(weights, Train(optim=entry))
    turns = []
    for _ in range(12):
        turns.append(made.active)
        made.step()
    around = [turns[at : at + 3] for at in range(0, 12, 3)]
    assert all(sorted(one) == [0, 1, 2] for one in around)
    told = {"ascending": [0, 1, 2], "descending": [2, 1, 0]}
    assert len({tuple(one) for one in around}) > 1 if mode == "random" else around == [told[mode]] * 4


@pytest.mark.parametrize("mode", ["adjacent", "scatter"])
def test_badam_by_ratio(mode):
    options = {"switch_every": 2, "update_ratio": 0.25, "mask_mode": mode, "preserve_threshold": 20}
    entry, weights = optimizer["badam_ratio"](**options), learnt()
    made = entry.make(weights, Train(learning_rate=RATE, optim=entry))
    chosen: list[dict[str, np.ndarray]] = []
    for gradient in GRADIENTS:
        before = {one.name: one.weight.detach().clone() for one in weights}
        for one in weights:
            one.weight.grad = torch.tensor(gradient[one.name], dtype=torch.float32)
        made.step()
        chosen.append({one.name: (one.weight.detach() != before[one.name]).numpy() for one in weights})
    for name, whole in START.items():
        places = [np.flatnonzero(one[name]) for one in chosen]
        size = whole.size if whole.size <= 20 else whole.size // 4
        assert {len(one) for one in places} == {size}
        assert np.array_equal(places[0], places[1]) and np.array_equal(places[2], places[3])
        assert size == whole.size or not np.array_equal(places[1], places[2])
        assert size == whole.size or (np.ptp(places[0]) == size - 1) == (mode == "adjacent")

    def ratio(name, gradient, memory, step):
        turn, at = divmod(step - 1, 2)
        if at == 0:
            memory.clear()
        return plain(name, gradient, memory, at + 1) * chosen[step - 1][name]

    agree({one.name: one.weight.detach().double().numpy() for one in weights}, undecayed(ratio))


def undecayed(rule):
    """As `follow`, of weights that learn without decay where they do not move."""
    weights, memories = {name: value.copy() for name, value in START.items()}, {name: {} for name in START}
    for step, gradient in enumerate(GRADIENTS, 1):
        for name, value in weights.items():
            move = rule(name, gradient[name], memories[name], step)
            decayed = value * (1 - RATE * (DECAY if value.ndim == 2 else 0.0))
            weights[name] = np.where(move == 0, value, decayed - RATE * move)
    return weights


def test_lion():
    def lion(name, gradient, memory, step):
        mean = memory.get("m", 0)
        memory["m"] = 0.999 * mean + 0.001 * gradient
        return np.sign(0.9 * mean + 0.1 * gradient)

    agree(stepped("lion_32bit"), follow(lion), 1e-5)


def test_rmsprop_of_bitsandbytes_and_of_torch():
    agree(stepped("rmsprop", {"alpha": 0.9}), coupled_rms(0.9), 1e-5)
    ours = stepped("rmsprop_bnb", {"alpha": 0.9})
    agree(ours, coupled_rms(0.9), 1e-4)


def coupled_rms(alpha):
    weights, squares = {name: value.copy() for name, value in START.items()}, dict.fromkeys(START, 0)
    for gradient in GRADIENTS:
        for name, value in weights.items():
            slope = gradient[name] + (DECAY * value if value.ndim == 2 else 0)
            squares[name] = alpha * squares[name] + (1 - alpha) * slope**2
            weights[name] = value - RATE * slope / (np.sqrt(squares[name]) + 1e-8)
    return weights


def test_adagrad():
    weights, squares = {name: value.copy() for name, value in START.items()}, dict.fromkeys(START, 0.5)
    for step, gradient in enumerate(GRADIENTS, 1):
        for name, value in weights.items():
            slope = gradient[name] + (DECAY * value if value.ndim == 2 else 0)
            squares[name] = squares[name] + slope**2
            weights[name] = value - RATE / (1 + 0.1 * (step - 1)) * slope / (np.sqrt(squares[name]) + 1e-10)
    agree(stepped("adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.5}), weights, 1e-5)


def test_ademamix():
    def mix(name, gradient, memory, step):
        memory["a"] = 0.9 * memory.get("a", 0) + 0.1 * gradient
        memory["b"] = 0.99 * memory.get("b", 0) + 0.01 * gradient
        memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * gradient**2
        root = np.sqrt(memory["v"]) / np.sqrt(1 - 0.999**step) + 1e-8
        return (memory["a"] / (1 - 0.9**step) + 3 * memory["b"]) / root

    agree(stepped("ademamix", {"beta3": 0.99, "alpha": 3.0}), follow(mix), 1e-4)


@pytest.mark.parametrize("name", ["adamw_bnb_8bit", "adamw_8bit"])
def test_eight_bits_are_nearly_adamw(name):
    near = stepped(name, {"min_8bit_size": 0})
    expected = follow(torchs)
    for key in expected:
        moved = norm(expected[key] - START[key])
        assert 1e-6 < norm(near[key] - expected[key]) < 0.1 * moved, key
    agree(stepped(name), expected, 1e-4)  # small weights have all of their bits


def schedule_free(direction, beta):
    """The averages x after steps of z, gradients being taken at y between them."""
    z, x = ({name: value.copy() for name, value in START.items()} for _ in range(2))
    memories = {name: {} for name in START}
    for step, gradient in enumerate(GRADIENTS, 1):
        for name in START:
            y = (1 - beta) * z[name] + beta * x[name]
            move = direction(gradient[name], memories[name], step) + (DECAY * y if y.ndim == 2 else 0)
            z[name] = z[name] - RATE * move
            x[name] = (1 - 1 / step) * x[name] + z[name] / step
    return x


def test_schedule_free_radam_begins_where_its_variance_is_known():
    def radam(gradient, memory, step):
        memory["v"] = 0.9 * memory.get("v", 0) + 0.1 * gradient**2
        far = 2 / (1 - 0.9) - 1
        rho = far - 2 * step * 0.9**step / (1 - 0.9**step)
        by = ((rho - 4) * (rho - 2) * far / ((far - 4) * (far - 2) * rho)) ** 0.5 if rho > 4 else 0.0
        return by * gradient / (np.sqrt(memory["v"] / (1 - 0.9**step)) + 1e-8), by

    z, x = ({name: value.copy() for name, value in START.items()} for _ in range(2))
    memories, weighed, largest = {name: {} for name in START}, 0.0, 0.0
    for step, gradient in enumerate(GRADIENTS, 1):
        moves = {name: radam(gradient[name], memories[name], step) for name in START}
        largest = max(largest, RATE * moves["norm.weight"][1])
        weighed += largest**2
        for name, (move, by) in moves.items():
            y = 0.1 * z[name] + 0.9 * x[name]
            z[name] = z[name] - RATE * (move + by * (DECAY * y if y.ndim == 2 else 0))
            x[name] += (largest**2 / weighed if weighed else 0.0) * (z[name] - x[name])
    agree(stepped("schedule_free_radam", adam_beta2=0.9), x, 1e-5)


def test_schedule_free():
    def adams(gradient, memory, step):
        memory["v"] = 0.999 * memory.get("v", 0) + 0.001 * gradient**2
        return gradient / (np.sqrt(memory["v"] / (1 - 0.999**step)) + 1e-8)

    agree(stepped("schedule_free_adamw"), schedule_free(adams, 0.9), 1e-5)
    agree(stepped("schedule_free_sgd", {"momentum": 0.8}), schedule_free(lambda g, m, s: g, 0.8), 1e-5)


@pytest.mark.parametrize(
    ("name", "options", "train", "sentence"),
    [
        ("sgd", {}, {"adam_beta1": 0.8}, "train.adam_beta1: sgd has no use for it; leave it out"),
        ("sgd", {"nesterov": True}, {}, "set train.optim.momentum=0.9"),
        ("badam", {}, {"optimizer_in_backward": True}, "train.optimizer_in_backward: badam .*; set it to false"),
        ("galore_adafactor", {}, {"adam_epsilon": 1e-6}, "train.adam_epsilon: galore_adafactor has no use for it"),
    ],
)
def test_what_does_not_go_together_is_refused(name, options, train, sentence):
    entry = optimizer[name](**options)
    with pytest.raises(RecipeError, match=sentence):
        entry.refuse(Train(optim=entry, **train))


@pytest.mark.parametrize("name", ["galore_adamw", "apollo_adamw", "q_galore_adamw"])
def test_nothing_to_project_is_refused(name):
    entry = optimizer[name](rank=12)
    with pytest.raises(RecipeError, match=r"train\.optim\.rank: .* longer than 12, and of what learns none is"):
        entry.make(learnt(), Train(optim=entry))


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("tunesmith.optimizers.base.find_spec", lambda name: None)
    entry = optimizer["adamw_bnb_8bit"]()
    with pytest.raises(BadEnvironment, match=r"needs bitsandbytes; pip install 'tunesmith\[bitsandbytes\]'"):
        entry.refuse(Train(optim=entry))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_paging_needs_a_gpu():
    entry = entry_of("paged_adamw_8bit")
    with pytest.raises(RecipeError, match="there is none here; take adamw_bnb_8bit"):
        entry.refuse(Train(optim=entry))
