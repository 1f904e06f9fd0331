"""A loop over a tiny model and eight uneven sequences, for the laws that hold for every method and objective."""

from pathlib import Path
from uuid import uuid4

import torch
from accelerate import Accelerator
from conftest import WORDS
from transformers import LlamaConfig, LlamaForCausalLM

from tunesmith.data.batch import pack, share
from tunesmith.data.example import Example
from tunesmith.data.rendering.render import Tokens
from tunesmith.data.task import Task
from tunesmith.methods.base import method
from tunesmith.model.beside import put_beside
from tunesmith.model.engine import Engine
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.model.reference import Asker
from tunesmith.model.teacher import Teacher
from tunesmith.objectives.base import Beside
from tunesmith.objectives.base import objective as objectives
from tunesmith.rollout.beginning import Beginning
from tunesmith.rollout.buffer import Buffer
from tunesmith.run import Train
from tunesmith.schedules.constant import Constant
from tunesmith.training.loop import Loop

NEEDS = {"bitfit": {"attention_bias": True, "mlp_bias": True}}
"""What a tiny model must have for a method to find something that it trains."""
WHOLE = {"mixture_of_depths"}
"""Methods that look at all of a sequence, so that what several begin with is not the same for all."""
LENGTHS = (16, 7, 15, 6, 16, 9, 8, 7)


OFFLINE = [name for name, one in objectives.all().items() if one.targets != "prompts"]
"""Objectives whose loss says how far one is; those that learn from the model's own answers see others each time."""
COVER = sorted(
    {(name, aim) for name in method.all() for aim in ("sft", "classify", "dpo")}
    | {(name, aim) for name in ("full", "lora") for aim in OFFLINE}
)
"""Pairs in which every method and every objective occurs."""


TASKS = {"answers": Task("answers", "answers", alone=False), "label": Task("tone", labels=("a", "b", "c"), alone=False)}


def sequences_for(objective) -> list[Tokens]:
    """Eight sequences of uneven length that begin alike; their targets are what the objective learns."""
    draw = torch.Generator().manual_seed(0)
    kinds = ("answers", "label") if objective.targets == "mixed" else (objective.targets,)
    classes = {"label": 3, "liked": 2}
    made = []
    for n, length in enumerate(LENGTHS):
        kind = kinds[n // 2 % len(kinds)]
        made.append(
            Tokens(
                [7, 8, 9, *torch.randint(3, 250, (length - 3,), generator=draw).tolist()],
                [kind == "text" or (kind not in ("label", "prompts") and at >= 4) for at in range(length)],
                label=n % classes[kind] if kind in classes else None,
                task=TASKS[kind] if len(kinds) > 1 else None,
            )
        )
    return made


def other():
    """A teacher of the same words: another width, other weights, and surer of what it says."""
    torch.manual_seed(1)
    sizes = {"hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4}
    model = LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, initializer_range=0.3, **sizes))
    return model.requires_grad_(False)


class Words:
    """A tokenizer for engines: each token is a letter of its own."""

    eos_token_id = 1

    def decode(self, ids, skip_special_tokens=True) -> str:
        return "".join(chr(0x4E00 + one) for one in ids if one > 1)


def low_first(examples, texts, drawn):
    """Rewards answers that begin with a token of the lower half."""
    return torch.tensor([float(one.ids[0] < 192) for one in drawn]), {}


def buffer_of(policy, objective, method, prompts, layout=share) -> Buffer:
    """Where the answers of a tiny model are kept."""
    if "value" in objective.looks():
        policy.add_value_head(objective.critic_apart)
    beginning = Beginning(policy, method) if "reference" in objective.before() else None
    engine, examples = Engine(policy.model, Words()), [Example(text="x")] * len(prompts)
    return Buffer(policy, objective, engine, layout, prompts, examples, low_first, 0, print, beginning)


def loop_of(tiny, method, objective, sequences, layout=share, **settings) -> Loop:
    """The loop of a run on the tiny model."""
    torch.manual_seed(0)
    layout = pack if layout is share and method.name in WHOLE else layout
    train = Train(**{"per_device_train_batch_size": 8, "lr_scheduler_type": Constant(), **settings})
    tasks = sorted({one.task for one in sequences if one.task}, key=lambda task: task.first)
    outputs = objective.outputs(tuple(name for task in tasks for name in task.names) or ("a", "b", "c"))
    parts = NEEDS.get(method.name, {})
    heads = {"labels": len(outputs)} if outputs and not isinstance(outputs, Beside) else {}
    model = tiny(**heads, **parts)
    if isinstance(outputs, Beside):
        put_beside(model, outputs, Path("nowhere"))
    policy = Policy(attach(model, method, ("score",) if outputs else ()))
    if "divergence" in objective.looks():
        policy.teacher = Teacher.of(Policy(other().eval()), objective)
    answers = buffer_of(policy, objective, method, sequences, layout) if objective.targets == "prompts" else None
    parts = {"method": method, "answers": answers}
    loop = Loop(policy, objective, train, sequences, layout, Accelerator(cpu=True), **parts)
    if answers:
        return loop
    asker = Asker(policy, method, layout, {"tests": str(uuid4())}, lambda _: None)
    loop.rows.look_back(objective, asker, range(len(sequences)), 32)
    return loop
