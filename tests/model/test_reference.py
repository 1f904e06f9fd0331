"""What is asked of the model before it learns: in groups in which a prompt is computed once, to the same numbers."""

import os
import time

import pytest
import torch
from conftest import make_tiny

from tunesmith.data.batch import pad, share
from tunesmith.data.keeping.store import learnt
from tunesmith.data.rendering.tokens import Tokens
from tunesmith.methods.lora import LoRA
from tunesmith.model import reference
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.model.reference import Asker, Reference, groups


def answers(prompts: int, each: int) -> list[Tokens]:
    """So many prompts of 20 tokens, and to each so many answers of 10."""
    return [
        Tokens(
            [(13 * prompt + at) % 300 + 5 for at in range(20)] + [(answer + 3 * at) % 300 + 5 for at in range(10)],
            [at >= 20 for at in range(30)],
        )
        for prompt in range(prompts)
        for answer in range(each)
    ]


@pytest.fixture
def asker():
    torch.manual_seed(0)
    policy = Policy(attach(make_tiny(), LoRA()))
    return Asker(policy, LoRA(), policy.layout(), {}, lambda _: None)


@pytest.mark.parametrize(("each", "room"), [(2, 45), (2, 100), (3, 100), (7, 60)])
def test_answers_to_one_prompt_are_computed_together(each, room, monkeypatch):
    monkeypatch.setattr(reference, "AT_ONCE", room)
    sequences = answers(6, each)
    found = list(groups(range(len(sequences)), sequences))
    assert [n for group in found for n in group] == list(range(len(sequences)))
    computed = [share([sequences[n] for n in group]).ids.numel() for group in found]
    assert max(computed) <= room or max(map(len, found)) == 1
    if each * 11 + 19 <= room:  # they fit: no prompt is computed twice
        assert sum(computed) == 6 * (19 + 11 * each)


def test_groups_do_not_matter(asker, tmp_path, monkeypatch):
    sequences, found = answers(5, 2), []
    for room in (45, 1024):
        monkeypatch.setattr(reference, "AT_ONCE", room)
        asker.compute(tmp_path / str(room), sequences, range(10), learnt(sequences))
        found.append(Reference(tmp_path / str(room), learnt(sequences)).of(range(10)))
    with torch.no_grad(), asker.policy.model.disable_adapter():
        alone = torch.cat([asker.policy.logp(pad([one])).token for one in sequences])
    assert all(torch.allclose(one, alone, atol=1e-5) for one in found)


def test_what_nobody_asked_for_in_30_days_is_forgotten(asker, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    room, aged = tmp_path / "reference", {"old": 31, "young": 29}
    for name, days in aged.items():
        (room / name).mkdir(parents=True)
        os.utime(room / name, (time.time() - days * 86_400,) * 2)
    asker.ask(answers(1, 2), range(2))
    [made] = {folder.name for folder in room.iterdir()} - {"young"}  # and "old" is not there
    os.utime(room / made, (0, 0))
    asker.ask(answers(1, 2), range(2))  # it was there, and is used again
    assert time.time() - (room / made).stat().st_mtime < 3_600
