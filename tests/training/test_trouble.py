"""A step that is no number names the module and the rows, and leaves the weights as they were."""

from dataclasses import replace

import pytest
import torch
from tinyrun import loop_of, sequences_for

from tunesmith.errors import Diverged
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.sft import SFT
from tunesmith.training.trouble import Spikes

ROWS = [replace(tokens, origin=f"rows.jsonl:{n + 1}") for n, tokens in enumerate(sequences_for(SFT()))]


def poison(loop, row, module="model.layers.1.mlp.down_proj"):
    """Make a module give what is no number for one row alone."""
    first = loop.sequences[row].ids[0]

    def spoil(inside, inputs, output):
        return output * float("nan") if loop.now and first in loop.now[-1] else output

    loop.now = []
    loop.policy.trunk.register_forward_pre_hook(
        lambda _, inputs, named: loop.now.append(named["input_ids"].flatten().tolist()), with_kwargs=True
    )
    loop.policy.bare.get_submodule(module).register_forward_hook(spoil)


def loop_for(tiny, **settings):
    settings = {"per_device_train_batch_size": 1, "train_sampling_strategy": "sequential"} | settings
    sequences = [replace(tokens, ids=[n + 1, *tokens.ids[1:]]) for n, tokens in enumerate(ROWS)]
    sequences = [replace(one, ids=[one.ids[0], *(max(word, 20) for word in one.ids[1:])]) for one in sequences]
    return loop_of(tiny, Full(), SFT(), sequences, **settings)


def test_the_first_bad_module_and_the_rows_are_named_and_nothing_has_changed(tiny):
    loop = loop_for(tiny)
    poison(loop, 2)
    steps = loop.fit()
    next(steps), next(steps)
    before = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    with pytest.raises(Diverged, match=r"step 3: .*model\.layers\.1\.mlp\.down_proj is the first .* rows\.jsonl:3\."):
        next(steps)
    assert all(torch.equal(weight, before[name]) for name, weight in loop.weights.items())


def test_a_bad_step_may_be_left_out(tiny):
    loop = loop_for(tiny, on_nan="skip", num_train_epochs=1)
    poison(loop, 2)
    steps = list(loop.fit())
    assert [bool(step.skipped) for step in steps] == [n == 2 for n in range(8)]
    assert all(bool(weight.isfinite().all()) for weight in loop.weights.values())


def test_a_bad_gradient_of_a_sound_loss_is_told_apart(tiny):
    loop = loop_of(tiny, LoRA(), SFT(), ROWS)
    weight = next(iter(loop.weights.values()))
    weight.register_hook(lambda gradient: gradient * float("inf"))
    with pytest.raises(Diverged, match="the forward pass is sound; the gradient of"):
        next(loop.fit())


def test_a_run_that_leaves_steps_out_says_how_many_and_one_that_stops_saves_the_last_good_weights(
    model_folder, reviews, tmp_path, capsys, monkeypatch
):
    from tunesmith import Data, Eval, Model, Run, Train, train
    from tunesmith.data.formats.template import Template
    from tunesmith.training import loop as where

    original = where.Loop.sound
    monkeypatch.setattr(where.Loop, "sound", lambda self, step: step.number != 3 and original(self, step))

    def run(name, **settings):
        settings = {"max_steps": 5, "save_strategy": "steps", "save_steps": 100} | settings
        parts = {"model": Model(path=str(model_folder)), "eval": Eval(enabled=False)}
        parts["data"] = Data(path=str(reviews), format=Template(prompt="{text}", answer="{label}"))
        return Run(**parts, objective=SFT(), train=Train(**settings), output=str(tmp_path / name))

    train(run("skip", on_nan="skip"))
    assert "step 3 was not taken (1 so far)" in capsys.readouterr().err
    with pytest.raises(Diverged):
        train(run("stop"))
    assert [folder.name for folder in (tmp_path / "stop" / "checkpoints").iterdir()] == ["step-00000002"]


def test_too_many_bad_steps_stop_the_run_saved(model_folder, reviews, tmp_path, monkeypatch):
    from tunesmith.training import checkpoint
    from tunesmith.training import loop as where

    monkeypatch.setattr(where.Loop, "sound", lambda self, step: step.number not in (2, 4))
    with pytest.raises(Diverged, match=r"2 steps were not taken, more than train\.max_skipped_steps"):
        train_tiny(model_folder, reviews, tmp_path / "run", on_nan="skip", max_skipped_steps=1)
    [place] = checkpoint.found(tmp_path / "run" / "checkpoints")
    assert place.name == "step-00000004" and not checkpoint.damage(place)


def test_a_spike_is_told_from_noise():
    spikes = Spikes()
    draw = torch.Generator().manual_seed(0)
    calm = (2 + 0.1 * torch.randn(200, generator=draw)).tolist()
    assert not any(spikes.seen(loss) for loss in calm)
    assert spikes.seen(5.0) and not spikes.seen(2.1)
    falling = Spikes()
    assert not any(falling.seen(3 * 0.99**n) for n in range(200))


def train_tiny(model_folder, reviews, folder, **settings):
    from tunesmith import Data, Eval, Model, Run, Train, train
    from tunesmith.data.formats.template import Template

    return train(
        Run(
            model=Model(path=str(model_folder)),
            data=Data(path=str(reviews), format=Template(prompt="{text}", answer="{label}")),
            train=Train(**{"max_steps": 5, "per_device_train_batch_size": 4, **settings}),
            eval=Eval(enabled=False),
            output=str(folder),
        )
    )


def small_memory(loop, most):
    """Let a batch of more than `most` sequences not fit."""
    look = loop.policy.look

    def limited(batch, names):
        if batch.answers > most:
            raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory")
        return look(batch, names)

    loop.policy.look = limited
    return loop


def test_a_batch_that_does_not_fit_is_cut_until_it_does_and_the_gradient_is_the_same(tiny):
    def gradient(loop):
        loop.gradient(0)
        return torch.cat([weight.grad.flatten() for weight in loop.weights.values()])

    expected = gradient(loop_of(tiny, LoRA(), SFT(), ROWS))
    loop = small_memory(loop_of(tiny, LoRA(), SFT(), ROWS, auto_batch=True), 2)
    assert (gradient(loop) - expected).norm() < 1e-5 * expected.norm() and loop.cuts == 8
    with pytest.raises(RuntimeError, match="allocate"):
        gradient(small_memory(loop_of(tiny, LoRA(), SFT(), ROWS), 2))
    with pytest.raises(RuntimeError, match="allocate"):
        gradient(small_memory(loop_of(tiny, LoRA(), SFT(), ROWS, auto_batch=True), 0))


def test_a_cut_batch_is_said_and_outlives_a_resume(model_folder, reviews, tmp_path, monkeypatch, capsys):
    from training.test_resume import StopsAfter, run_of, weights

    from tunesmith.errors import Stopped
    from tunesmith.model.policy import Policy
    from tunesmith.training.train import resume, train

    look = Policy.look

    def limited(self, batch, names):
        if batch.answers > 2:
            raise MemoryError
        return look(self, batch, names)

    monkeypatch.setattr(Policy, "look", limited)
    for name in ("whole", "parts"):
        run = run_of(model_folder, reviews, tmp_path / name, LoRA(lora_dropout=0.1), SFT(), auto_batch=True)
        if name == "whole":
            train(run)
            assert "step 1: out of memory; from here on batches are cut 2 times as small" in capsys.readouterr().err
            continue
        with pytest.raises(Stopped):
            train(run, [StopsAfter(3)], quiet=True)
        monkeypatch.setattr(Policy, "look", look)
        resume(tmp_path / name, quiet=True)
    assert weights(tmp_path / "whole") == weights(tmp_path / "parts")
