"""No dead option: another value of any of them gives other weights."""

from dataclasses import fields

import numpy as np
import pytest
from optimizers.test_steps import stepped

from tunesmith.optimizers.base import optimizer

BASE = {
    "rank": 4,
    "update_proj_gap": 2,
    "switch_block_every": 2,
    "switch_every": 2,
    "momentum": 0.9,
    "min_8bit_size": 0,
}
BASE |= {"queue_size": 1, "cos_threshold": 0.0, "switch_mode": "ascending", "preserve_threshold": 20}
OTHER = {
    "rank": 3, "update_proj_gap": 1, "scale": 0.7, "scale_type": ("channel", "tensor"), "decay_rate": -0.5,
    "alpha": 0.5,
    "cos_threshold": 1.0, "gamma_proj": 1.0, "queue_size": 4, "switch_block_every": 1, "switch_mode": "descending",
    "switch_every": 3, "update_ratio": 0.5, "mask_mode": "scatter", "preserve_threshold": 500, "momentum": 0.5,
    "dampening": 0.3, "nesterov": (False, True), "lr_decay": 0.5, "eps": 0.1, "initial_accumulator_value": 1.0,
    "centered": True, "beta1": 0.5, "beta3": 0.5, "clip_threshold": 0.1, "t_alpha": 3, "t_beta3": 3,
    "min_8bit_size": 4096, "r": 1.0, "weight_lr_power": 0.0, "ns_steps": 3,
    "adjust_lr_fn": ("match_rms_adamw", "original"),
}  # fmt: skip
EXEMPT = {
    ("lion_8bit", "min_8bit_size"): "signs survive eight bits for some steps; test_runs looks at its state",
    ("schedule_free_radam", "r"): "its first steps, but one, are none",
    ("schedule_free_radam", "weight_lr_power"): "its first steps, but one, are none",
    ("schedule_free_adamw", "weight_lr_power"): "weighs steps by their rates, and these are all the same here",
    ("schedule_free_sgd", "weight_lr_power"): "weighs steps by their rates, and these are all the same here",
}
OPTIONS = [
    (name, field.name)
    for name, entry in optimizer.all().items()
    for field in fields(entry)
    if not name.startswith("paged") and (name, field.name) not in EXEMPT
]


@pytest.mark.parametrize(("name", "option"), OPTIONS)
def test_another_value_gives_other_weights(name, option):
    known = {field.name: field.default for field in fields(optimizer[name])}
    usual = {key: value for key, value in BASE.items() if key in known}
    other = OTHER[option]
    if isinstance(other, tuple):
        other = next(value for value in other if value != (known | usual)[option])
    plain, changed = stepped(name, usual), stepped(name, usual | {option: other})
    assert any(not np.array_equal(changed[key], plain[key]) for key in plain)
