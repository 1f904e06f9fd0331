"""Several families in a row, each with its own beginning: what is computed once changes nothing, whatever the model."""

import pytest
import torch
from conftest import make_tiny
from test_attention import causal
from tinyrun import NEEDS

from tunesmith.data.batch import branches, pad, share
from tunesmith.data.rendering.tokens import Tokens
from tunesmith.methods.lora import LoRA
from tunesmith.methods.p_tuning import PTuning
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy

METHODS = {"lora": LoRA(), "prompt": PromptTuning(), "p-tuning": PTuning(), "prefix": PrefixTuning()}
MODELS = ("llama", "llama eager", "mistral", "gemma2", "gpt2")


def said(prompt: int, size: int, answer: int, length: int) -> Tokens:
    """One of a few prompts of so many tokens, and one of a few answers."""
    ids = [(11 * n + 50 * prompt) % 300 + 5 for n in range(size)] + [(7 * n + answer) % 300 + 5 for n in range(length)]
    return Tokens(ids, [n >= size for n in range(size + length)], label=answer % 2)


ROW = [
    said(0, 12, 1, 5), said(0, 12, 40, 9),  # a pair
    said(1, 7, 3, 6),  # nobody's neighbour
    said(2, 20, 60, 3), said(2, 20, 61, 4), said(2, 20, 62, 1),  # three answers to one prompt
    said(3, 9, 80, 2), said(3, 9, 81, 8),
]  # fmt: skip
BORROWED = [0, 11, 0, 0, 19, 19, 0, 8]


def outcome(policy: Policy, layout) -> torch.Tensor:
    """What is said of every token to be learnt, and the gradient by whatever learns."""
    policy.model.zero_grad()
    logp = policy.logp(layout(ROW)).token
    (logp.square().sum() + logp.sum()).backward()
    slopes = [weight.grad.flatten() for weight in policy.trainable().values() if weight.grad is not None]
    return torch.cat([logp.detach(), *slopes])


def test_families_are_found_and_their_prompts_are_computed_once():
    assert branches(ROW) == BORROWED
    batch = share(ROW)
    assert batch.ids.numel() == batch.tokens - sum(BORROWED) == sum(len(one.ids) for one in ROW) - 57


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("family", MODELS)
def test_families_of_any_model(family, checkpointing):
    model = causal(family).train()
    if family == "gpt2":  # drops at random unless told otherwise, and then shares nothing
        model.eval()
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model)
    assert policy.layout() is share
    alone, once = outcome(policy, pad), outcome(policy, share)
    assert (alone - once).norm() < 1e-5 * alone.norm()


@pytest.mark.parametrize("checkpointing", [False, True], ids=["kept", "recomputed"])
@pytest.mark.parametrize("name", METHODS)
def test_families_behind_a_soft_prompt(name, checkpointing):
    method = METHODS[name]
    torch.manual_seed(0)
    model = attach(make_tiny(**NEEDS.get(method.name, {})), method)
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
    policy = Policy(model)
    with torch.no_grad():
        for weight in policy.trainable().values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    alone, once = outcome(policy, pad), outcome(policy, share)
    assert (alone - once).norm() < 1e-5 * alone.norm()


def test_families_in_one_row_do_not_hear_each_other():
    policy = Policy(causal("mistral").eval())
    with torch.no_grad():
        together = policy.logp(share(ROW)).token
        parts = torch.cat([policy.logp(share(ROW[at:end])).token for at, end in ((0, 2), (2, 3), (3, 6), (6, 8))])
    assert torch.allclose(together, parts, atol=1e-5)
