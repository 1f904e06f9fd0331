"""NEFTune: noise on the embeddings, in training alone, by each sequence's own length."""

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from training.test_resume import StopsAfter, run_of, weights

from tunesmith.data.batch import pack, pad, share
from tunesmith.errors import Stopped
from tunesmith.methods.base import method
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.kept import keep
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.objectives.sft import SFT
from tunesmith.runs import RunFolder
from tunesmith.training.train import resume, train

ALPHA = 5.0
SEQUENCES = sequences_for(SFT())


def policy(chosen=None) -> Policy:
    made = Policy(attach(make_tiny(), chosen or Full()))
    made.noise = ALPHA
    return made


def seen(made: Policy, batch) -> torch.Tensor:
    """What the model's first block is given."""
    found = []
    block = made.trunk.layers[0]
    hook = block.register_forward_pre_hook(
        lambda module, inputs, kwargs: found.append((inputs or (kwargs["hidden_states"],))[0].detach().clone()),
        with_kwargs=True,
    )
    made.states(batch)
    hook.remove()
    return found[0]


@pytest.mark.parametrize("layout", [pack, pad])
def test_each_sequence_is_stirred_by_its_own_length(layout):
    made, batch = policy(), layout(SEQUENCES)
    torch.manual_seed(1)
    noise = torch.stack([seen(made, batch) for _ in range(20)])
    noise = (noise - made.bare.get_input_embeddings().weight.detach()[batch.ids]).abs()
    for number, tokens in enumerate(SEQUENCES):
        own = batch.owner == number if batch.attend is None else (batch.owner == number) & batch.attend.bool()
        most = ALPHA / (len(tokens.ids) * 32) ** 0.5
        found = noise[:, own]
        assert 0.98 * most < found.max() <= most * 1.0001
        assert found.mean() == pytest.approx(most / 2, rel=0.05)  # uniform


def test_alone_it_is_what_transformers_does():
    from transformers.integrations.neftune import neftune_post_forward_hook

    made, batch = policy(), pack(SEQUENCES[:1])
    torch.manual_seed(3)
    ours = seen(made, batch)
    made.noise = 0.0
    words = made.bare.get_input_embeddings()
    words.neftune_noise_alpha = ALPHA
    hook = words.register_forward_hook(neftune_post_forward_hook)
    torch.manual_seed(3)
    theirs = seen(made, batch)
    hook.remove()
    assert torch.allclose(ours, theirs, atol=1e-7)
    assert not torch.allclose(ours, seen(made, batch), atol=1e-3)


def test_evaluation_sees_none():
    made, batch = policy(), pack(SEQUENCES)
    noisy = made.states(batch)
    made.model.eval()
    quiet = made.states(batch)
    made.noise = 0.0
    assert torch.equal(made.states(batch), quiet) and not torch.equal(noisy, quiet)
    assert not made.bare.get_input_embeddings()._forward_hooks


def test_nothing_is_shared_and_nothing_kept(tmp_path):
    made = policy(LoRA(target_modules=r".*layers\.1\..*q_proj"))
    assert made.layout() is pack
    assert keep(made, SEQUENCES, 2, tmp_path, print) is None
    made.noise = 0.0
    assert made.layout() is share
    assert keep(made, SEQUENCES, 2, tmp_path, print) is not None


@pytest.mark.parametrize("name", ["prompt_tuning", "p_tuning", "prefix_tuning"])
def test_soft_prompts_stay_as_they_are(name):
    chosen = method[name]()
    torch.manual_seed(0)
    loop = loop_of(make_tiny, chosen, SFT(), SEQUENCES, pack, max_steps=8, learning_rate=1e-1)
    loop.policy.noise = ALPHA
    batch = loop.policy.begun(pack(SEQUENCES)).batch
    own = torch.isin(batch.ids, torch.tensor(loop.policy.soft.words))
    states = torch.stack([seen(loop.policy, pack(SEQUENCES)) for _ in range(2)])
    moved = (states[0] - states[1]).abs().amax(-1)
    assert not moved[own].any() and (moved[~own] > 0).all()
    losses = [step.loss for step in loop.fit()]
    assert losses[-1] < losses[0]


def test_stopped_and_resumed_is_the_same_to_the_bit(model_folder, reviews, tmp_path):
    settings = {"neftune_noise_alpha": ALPHA, "eval_strategy": "steps", "eval_steps": 2}
    for name, more in (("whole", settings), ("quiet", settings | {"neftune_noise_alpha": None})):
        train(run_of(model_folder, reviews, tmp_path / name, Full(), SFT(), **more), quiet=True)
    with pytest.raises(Stopped):
        parts = run_of(model_folder, reviews, tmp_path / "parts", Full(), SFT(), **settings)
        train(parts, [StopsAfter(3)], quiet=True)
    resume(tmp_path / "parts", quiet=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts") != weights(tmp_path / "quiet")
    losses = [[line for line in RunFolder(tmp_path / run).metrics if "eval_loss" in line] for run in ("whole", "parts")]
    assert [line["eval_loss"] for line in losses[0]] == [line["eval_loss"] for line in losses[1]]
