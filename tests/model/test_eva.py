"""EVA: an update begins at what a layer's inputs vary along most, found a second way here; ranks go where it counts."""

from functools import partial

import pytest
import torch
from conftest import make_tiny
from tinyrun import sequences_for

from tunesmith.data.batch import pack, pad, share
from tunesmith.errors import RecipeError
from tunesmith.methods.lora import LoRA
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.objectives.sft import SFT
from tunesmith.training.glimpses import AT_ONCE, glimpses

ROWS = sequences_for(SFT())
TARGETS = ("q_proj", "o_proj", "down_proj")


def begun(layout=share, **options):
    """The tiny model under LoRA that has begun at what it makes of eight rows, and what was said of it."""
    method = LoRA(**{"r": 4, "init_lora_weights": "eva", "target_modules": TARGETS, **options})
    model = attach(make_tiny(), method)
    said = method.begin_among(model, partial(glimpses, ROWS, layout, 42), Policy(model).outcome)
    return model, said


def inputs(sequences):
    """[M, I] what reaches each layer of the plain model, row by row; what all rows begin with counts once."""
    model, found, before = make_tiny().eval(), {}, set()
    for path, layer in model.named_modules():
        if path.endswith(TARGETS):
            found[path] = []
            layer.register_forward_pre_hook(lambda _, given, to=found[path]: to.append(given[0][0]))
    for tokens in sequences:
        with torch.no_grad():
            model(torch.tensor([tokens.ids]))
        fresh = [at for at in range(len(tokens.ids)) if tuple(tokens.ids[: at + 1]) not in before]
        before |= {tuple(tokens.ids[: at + 1]) for at in range(len(tokens.ids))}
        for rows in found.values():
            rows[-1] = rows[-1][fresh]
    return {path: torch.cat(rows) for path, rows in found.items()}


@pytest.mark.parametrize("layout", [share, pad, pack])
def test_an_update_begins_along_what_varies_most(layout):
    model, _ = begun(layout, eva_rho=1)
    expected = inputs(ROWS)
    if layout is not share:
        expected = {path: torch.cat([inputs([tokens])[path] for tokens in ROWS]) for path in expected}
    for path, rows in expected.items():
        rows = rows - rows.mean(0)
        most = torch.linalg.svdvals(rows)[:4].square().sum()  # what no other four directions explain more than
        update = model.get_submodule(f"base_model.model.{path}")
        begins = update.lora_A["default"].weight
        assert torch.allclose(begins @ begins.T, torch.eye(4), atol=1e-4)
        assert (rows @ begins.T).square().sum() > 0.99 * most, path
        assert not update.lora_B["default"].weight.any()


def test_ranks_go_where_they_explain_most_and_none_is_lost():
    model, said = begun()
    ranks = {path: len(one.lora_A["default"].weight) for path, one in model.named_modules() if hasattr(one, "lora_A")}
    assert sum(ranks.values()) == 4 * 2 * len(TARGETS)
    assert max(ranks.values()) <= 8 and len(set(ranks.values())) > 1
    assert f"ranks from {min(ranks.values())} to {max(ranks.values())}" in said
    shares = {}
    for path, rows in inputs(ROWS).items():
        values = torch.linalg.svdvals(rows - rows.mean(0)).square()
        shares |= {(f"base_model.model.{path}", n): float(one / values.sum()) for n, one in enumerate(values[:8])}
    best = sorted(shares, key=shares.__getitem__)[-sum(ranks.values()) :]
    assert ranks == {path: sum(of == path for of, _ in best) for path in ranks}


def test_what_the_model_says_does_not_change_and_how_fast_it_learns_neither():
    model, _ = begun()
    ids = torch.tensor([ROWS[0].ids])
    assert torch.allclose(model.eval()(ids).logits, make_tiny().eval()(ids).logits, atol=1e-6)
    assert {one.scaling["default"] for one in model.modules() if hasattr(one, "lora_A")} == {2.0}


def test_rows_that_are_too_few_are_refused():
    method = LoRA(r=8, init_lora_weights="eva", target_modules=TARGETS)
    model = attach(make_tiny(), method)
    with pytest.raises(RecipeError, match="at least 32 tokens, and the training rows have fewer"):
        method.begin_among(model, partial(glimpses, ROWS[:2], share, 42), Policy(model).outcome)


def test_glimpses_are_other_rows_in_each_batch_and_each_has_enough():
    many = [one for _ in range(40) for one in ROWS]
    for layout in (pack, pad, share):
        batches = glimpses(many, layout, 1, 900)
        assert len(batches) > 1
        assert all((batch.ids.numel() if batch.attend is None else batch.tokens) >= 900 > AT_ONCE for batch in batches)
        assert sum(batch.answers for batch in batches) <= len(many)
