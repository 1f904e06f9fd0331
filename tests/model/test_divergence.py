"""What is told of two heads at once is what the papers' formulas say, in value and slope, in little memory."""

from dataclasses import replace

import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, other, sequences_for
from torch import nn

from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.model.divergence import Divergence
from tunesmith.model.linear_loss import After, linear_divergence
from tunesmith.objectives.distill import Distill
from tunesmith.objectives.gkd import GKD

AFTER = {"plain": After(), "scaled": After(0.5), "capped": After(2.0, 3.0)}
M, H, OTHER, V = 20, 16, 24, 61


def formula(ours, theirs, beta, temperature):
    """Word by word from arXiv:2306.13649, section 2, in float64."""
    q, p = (torch.softmax(logits.double() / temperature, -1) for logits in (ours, theirs))

    def kl(one, two):
        return (one * (one / two).log()).sum(-1)

    if beta in (0, 1):
        return kl(q, p) if beta else kl(p, q)
    m = beta * p + (1 - beta) * q
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def logits(made, after):
    made = made * after.scale
    return after.softcap * torch.tanh(made / after.softcap) if after.softcap else made


def drawn(head_type=nn.Linear, bias=False):
    torch.manual_seed(0)
    head, teacher = head_type(H, V, bias=bias), nn.Linear(OTHER, V)
    for one in (head, teacher):
        nn.init.normal_(one.weight, std=0.7)  # far apart: of what is near 0, little is left beside rounding
    return torch.randn(M, H, requires_grad=True), head, torch.randn(M, OTHER), teacher


class Other(nn.Linear):
    """A head that is more than a product, for all that is known of it."""


@pytest.mark.parametrize("kind", [nn.Linear, Other], ids=["plain head", "other head"])
@pytest.mark.parametrize("after", AFTER.values(), ids=AFTER)
@pytest.mark.parametrize("temperature", [1.0, 2.5])
@pytest.mark.parametrize("beta", [0.0, 0.1, 0.5, 1.0])
def test_it_is_the_formula_in_value_and_slope(beta, temperature, after, kind):
    states, head, theirs, teacher = drawn(kind, bias=True)
    weight = torch.rand(M)  # every token counts another much
    judge = Divergence(teacher, after, beta, temperature)
    found = linear_divergence(states, head, theirs, judge, after)
    (found * weight).sum().backward()
    got = [found.detach(), states.grad, head.weight.grad, head.bias.grad]
    states.grad = head.weight.grad = head.bias.grad = None
    expected = formula(logits(head(states), after), logits(teacher(theirs), after).detach(), beta, temperature)
    (expected * weight).sum().backward()
    for one, right in zip(got, [expected.detach(), states.grad, head.weight.grad, head.bias.grad], strict=True):
        assert (one - right).norm() <= 1e-5 * right.norm()


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_the_chunks_do_not_matter_nor_that_every_token_counts_the_same(beta, monkeypatch):
    found = {}
    for size in (4 * V * 2, 2**26):
        monkeypatch.setattr("tunesmith.model.linear_loss.CHUNK_BYTES", size)
        states, head, theirs, teacher = drawn()
        apart = linear_divergence(states, head, theirs, Divergence(teacher, After(), beta, 1.0))
        (0.25 * apart).sum().backward()
        found[size] = torch.cat([apart.detach(), states.grad.flatten(), head.weight.grad.flatten()])
        assert teacher.weight.grad is None
    few, all_ = found.values()
    assert (few - all_).norm() < 1e-6 * all_.norm()


def test_divergences_differ_and_end_where_nothing_differs():
    states, head, theirs, teacher = drawn()

    def apart(beta, temperature=1.0):
        judge = Divergence(teacher, After(), beta, temperature)
        return linear_divergence(states, head, theirs, judge).sum().item()

    found = [apart(0.0), apart(0.3), apart(0.7), apart(1.0), apart(0.0, 2.0)]
    assert min(abs(one - two) for at, one in enumerate(found) for two in found[:at]) > 1e-3
    for beta in (0.0, 0.3, 1.0):
        judge = Divergence(head, After(), beta, 1.0)
        with torch.no_grad():
            assert linear_divergence(states, head, states.detach(), judge).abs().max() < 1e-6


def test_of_neither_head_all_logits_are_held(monkeypatch):
    monkeypatch.setattr("tunesmith.model.linear_loss.CHUNK_BYTES", 4 * V * 2)
    states, head, theirs, teacher = drawn()
    largest = []

    def see(tensor):
        largest.append(tensor.numel())
        return tensor

    seen = teacher.register_forward_hook(lambda module, inputs, output: largest.append(len(output)))
    with torch.autograd.graph.saved_tensors_hooks(see, lambda tensor: tensor):
        linear_divergence(states, head, theirs, Divergence(teacher, After(), 0.5, 1.0)).sum().backward()
    seen.remove()
    assert [n for n in largest if n <= 2] == [2] * 10 and max(largest) < M * V


@pytest.mark.parametrize(("method", "left"), [(LoRA(), 0.98), (Full(), 0.6)], ids=["lora", "full"])
def test_a_student_comes_near_its_teacher_which_stays_as_it_is(method, left):
    aim = Distill(beta=0.0)
    loop = loop_of(make_tiny, method, aim, sequences_for(aim), max_steps=30, learning_rate=3e-2)
    teacher = loop.policy.teacher.policy.model
    before = [weight.clone() for weight in teacher.parameters()]
    losses = [step.loss for step in loop.fit()]
    assert losses[-1] < left * losses[0]
    assert all(torch.equal(one, two) for one, two in zip(before, teacher.parameters(), strict=True))
    assert not {id(weight) for weight in teacher.parameters()} & {id(weight) for weight in loop.weights.values()}


def test_the_loss_is_of_targets_alone_and_by_their_weights():
    aim = Distill(beta=0.5)
    loop = loop_of(make_tiny, LoRA(), aim, sequences_for(aim))
    ours, theirs = loop.policy.bare.eval(), loop.policy.teacher.policy.bare
    sequence = replace(loop.sequences[0], weights=[float(n % 3) for n in range(len(loop.sequences[0].ids))])
    batch = loop.layout([sequence])
    loss = aim.loss(batch, **loop.policy.look(batch, aim.looks()))
    ids = torch.tensor([sequence.ids])
    values = formula(ours(ids).logits[0], theirs(ids).logits[0], 0.5, 1.0)[:-1]
    counts = torch.tensor([weight * learn for weight, learn in zip(sequence.weights, sequence.learn, strict=True)])[1:]
    assert loss.sum.item() == pytest.approx((values * counts).sum().item(), rel=1e-5)
    assert loss.count == counts.sum()


def test_a_teacher_that_mixes_packed_rows_up_is_given_padded_ones():
    from transformers import BloomConfig, BloomForCausalLM

    from tunesmith.data.batch import pad, share
    from tunesmith.model.policy import Policy
    from tunesmith.model.teacher import Teacher

    torch.manual_seed(0)
    policy = Policy(make_tiny())
    assert policy.layout() is share
    bloom = BloomForCausalLM(BloomConfig(vocab_size=384, n_layer=2, n_head=4, hidden_size=32)).eval()
    policy.teacher = Teacher(Policy(bloom), 0.5, 1.0)
    assert policy.layout() is pad
    policy.teacher = Teacher(Policy(other().eval()), 0.5, 1.0)
    assert policy.layout() is share


def test_both_models_logits_are_divided_by_the_temperature_whoever_makes_them():
    """A model whose head is more than a layer makes them itself."""
    from tunesmith.data.batch import pad
    from tunesmith.model.policy import Policy
    from tunesmith.model.teacher import Teacher

    batch, aim = pad(sequences_for(Distill())), GKD(temperature=0.5, beta=0.3)
    found = {}
    for itself in (False, True):
        student, teacher = Policy(make_tiny().eval()), Policy(other().eval())
        student.temperature, student.teacher = aim.temperature, Teacher.of(teacher, aim)
        assert not student.bends_logits and not teacher.bends_logits
        student.bends_logits = teacher.bends_logits = itself
        with torch.no_grad():
            found[itself] = student.divergence(batch).token
            both = [model(batch.ids, attention_mask=batch.attend).logits for model in (student.bare, teacher.bare)]
    expected = formula(*both, aim.beta, aim.temperature)[:, :-1][batch.learn[:, 1:]]
    for values in found.values():
        assert torch.allclose(values.double(), expected, atol=1e-5)
