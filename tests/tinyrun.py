"""A loop over a tiny model and eight uneven sequences, for the laws that hold for every method and objective."""

from uuid import uuid4

import torch
from accelerate import Accelerator

from tunesmith.data.batch import pack, share
from tunesmith.data.rendering.render import Tokens
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.model.reference import Asker
from tunesmith.run import Train
from tunesmith.schedules.constant import Constant
from tunesmith.training.loop import Loop

NEEDS = {"bitfit": {"attention_bias": True, "mlp_bias": True}}
"""What a tiny model must have for a method to find something that it trains."""
WHOLE = {"mixture_of_depths"}
"""Methods that look at all of a sequence, so that what several begin with is not the same for all."""
LENGTHS = (16, 7, 15, 6, 16, 9, 8, 7)


def sequences_for(objective) -> list[Tokens]:
    """Eight sequences of uneven length that begin alike; their targets are what the objective learns."""
    draw = torch.Generator().manual_seed(0)
    kind = objective.targets
    classes = {"label": 3, "liked": 2}.get(kind)
    return [
        Tokens(
            [7, 8, 9, *torch.randint(3, 250, (length - 3,), generator=draw).tolist()],
            [kind == "text" or (kind != "label" and at >= 4) for at in range(length)],
            label=n % classes if classes else None,
        )
        for n, length in enumerate(LENGTHS)
    ]


def loop_of(tiny, method, objective, sequences, layout=share, **settings) -> Loop:
    """The loop of a run on the tiny model."""
    torch.manual_seed(0)
    layout = pack if layout is share and method.name in WHOLE else layout
    train = Train(**{"per_device_train_batch_size": 8, "lr_scheduler_type": Constant(), **settings})
    outputs = objective.outputs(("a", "b", "c"))
    parts = NEEDS.get(method.name, {})
    model = tiny(labels=len(outputs), **parts) if outputs else tiny(**parts)
    policy = Policy(attach(model, method, ("score",) if outputs else ()))
    loop = Loop(policy, objective, train, sequences, layout, Accelerator(cpu=True), method=method)
    asker = Asker(policy, method, layout, {"tests": str(uuid4())}, lambda _: None)
    loop.rows.look_back(objective, asker, range(len(sequences)), 32)
    return loop
