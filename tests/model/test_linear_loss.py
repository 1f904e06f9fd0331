"""linear_loss against float64 autograd over whole logits: values and gradients, for every kind of head."""

from itertools import combinations, product

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tunesmith.model import linear_loss as module
from tunesmith.model.learning import adding_up
from tunesmith.model.linear_loss import After, linear_loss

NAMES = ("logp", "entropy", "uniform", "normaliser")
WANTS = [wanted for count in (1, 2, 4) for wanted in combinations(NAMES, count)]
AFTER = [After(), After(0.3), After(softcap=2.0), After(1.7, 3.0)]
M, H, V = 7, 5, 11


def reference(states, weight, bias, targets, after):
    logits = nn.functional.linear(states, weight, bias) * after.scale
    if after.softcap:
        logits = after.softcap * torch.tanh(logits / after.softcap)
    logp = logits.log_softmax(-1)
    return {
        "logp": logp.gather(-1, targets[:, None])[:, 0],
        "entropy": -(logp.exp() * logp).sum(-1),
        "uniform": logp.mean(-1),
        "normaliser": logits.logsumexp(-1),
    }


def made(bias=True, trainable=True, dtype=torch.float64):
    torch.manual_seed(0)
    head = nn.Linear(H, V, bias=bias, dtype=dtype).requires_grad_(trainable)
    with torch.no_grad():
        head.weight.mul_(4)
    return torch.randn(M, H, dtype=dtype, requires_grad=True), head, torch.randint(0, V, (M,))


@pytest.mark.parametrize("wants", WANTS, ids="+".join)
@pytest.mark.parametrize("after", AFTER, ids=str)
@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "plain"])
def test_values_and_gradients(wants, after, trainable, even, bias):
    states, head, targets = made(bias, trainable)
    learning = [states, *head.parameters()] if trainable else [states]
    expected = reference(states, head.weight, head.bias, targets, after)
    got = linear_loss(states, head, targets, wants, after, chunk=3)
    assert list(got) == list(wants)
    weights = [torch.full((M,), 1.5 + n) if even else torch.rand(M) for n in range(len(wants))]
    ours = torch.autograd.grad(sum((got[w] * k).sum() for w, k in zip(wants, weights, strict=True)), learning)
    theirs = torch.autograd.grad(sum((expected[w] * k).sum() for w, k in zip(wants, weights, strict=True)), learning)
    for name in wants:
        assert torch.allclose(got[name], expected[name], atol=1e-12)
    for one, other in zip(ours, theirs, strict=True):
        assert torch.allclose(one, other, atol=1e-12)


def test_values_that_no_loss_reads_cost_no_gradient():
    states, head, targets = made()
    got = linear_loss(states, head, targets, NAMES, chunk=3)
    expected = reference(states, head.weight, head.bias, targets, After())
    got["entropy"].sum().backward()
    assert torch.allclose(states.grad, torch.autograd.grad(expected["entropy"].sum(), states)[0])


@pytest.mark.parametrize("after", AFTER, ids=str)
@pytest.mark.parametrize("trainable", [True, False], ids=["trainable", "frozen"])
@pytest.mark.parametrize("general", [True, False], ids=["general", "plain"])
def test_what_is_watched_is_the_entropy_and_changes_no_gradient(after, trainable, general):
    states, head, targets = made(True, trainable)
    if general:
        head.register_forward_hook(lambda *_: None)
    learning = [states, *head.parameters()] if trainable else [states]
    alone = linear_loss(states, head, targets, ("logp",), after, chunk=3)["logp"]
    both = linear_loss(states, head, targets, ("logp", "surprise"), after, chunk=3)
    expected = reference(states, head.weight, head.bias, targets, after)["entropy"]
    assert torch.allclose(both["surprise"], expected, atol=1e-12) and not both["surprise"].requires_grad
    for k in (torch.ones(M), torch.rand(M)):
        ours, theirs = (
            torch.autograd.grad((one * k).sum(), learning, retain_graph=True) for one in (both["logp"], alone)
        )
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))


def test_a_heads_gradient_is_made_in_the_same_memory_each_time():
    states, head, targets = made(bias=False)
    alone = torch.autograd.grad(linear_loss(states, head, targets, chunk=3)["logp"].sum(), head.weight)[0]
    head.weight.grad, places = torch.zeros_like(head.weight), set()
    for step in range(1, 4):
        with adding_up():
            linear_loss(states, head, targets, chunk=3)["logp"].sum().backward()
        places.add(module.SPARE[head.weight].data_ptr())
        assert torch.allclose(head.weight.grad, step * alone, atol=1e-12)
    assert len(places) == 1
    uneven = torch.rand(M, dtype=torch.float64)
    other = torch.autograd.grad((linear_loss(states, head, targets, chunk=3)["logp"] * uneven).sum(), head.weight)[0]
    with adding_up():
        (linear_loss(states, head, targets, chunk=3)["logp"] * uneven).sum().backward()
    assert head.weight in module.SPARE
    assert torch.allclose(head.weight.grad, 3 * alone + other, atol=1e-12)
    one, two = (linear_loss(states, head, targets, chunk=3)["logp"].sum() for _ in range(2))  # both before either
    with adding_up():
        one.backward()
        two.backward()
    assert torch.allclose(head.weight.grad, 5 * alone + other, atol=1e-12)


def test_backward_twice_gives_the_same_twice():
    states, head, targets = made()
    value = linear_loss(states, head, targets, chunk=3)["logp"].sum()
    first = torch.autograd.grad(value, [states, head.weight], retain_graph=True)
    again = torch.autograd.grad(value, [states, head.weight])
    assert all(torch.equal(*pair) for pair in zip(first, again, strict=True))


@pytest.mark.parametrize("trainable", [True, False])
def test_float32_is_as_near_to_float64_as_torchs_own(trainable):
    torch.manual_seed(0)
    head = nn.Linear(64, 5000, bias=False).requires_grad_(trainable)
    states, targets = torch.randn(300, 64, requires_grad=True), torch.randint(0, 5000, (300,))
    learning = [states, head.weight] if trainable else [states]

    def gradients(value):
        return [gradient.double() for gradient in torch.autograd.grad(value, learning)]

    exact = gradients(cross_entropy(states.double() @ head.weight.double().T, targets, reduction="sum"))
    plain = gradients(cross_entropy(states @ head.weight.T, targets, reduction="sum"))
    ours = gradients(-linear_loss(states, head, targets, chunk=37)["logp"].sum())
    for true, theirs, mine in zip(exact, plain, ours, strict=True):
        error, their_error = ((true - other).abs().max() / true.abs().max() for other in (mine, theirs))
        assert error < 1e-5
        assert error < 1.5 * their_error + 1e-7


def test_a_head_with_an_adapter_goes_the_general_way():
    from peft import LoraConfig, get_peft_model

    states, head, targets = made(bias=False)
    model = get_peft_model(nn.ModuleDict({"head": head}), LoraConfig(target_modules=["head"], r=2))
    wrapped = model.base_model.model["head"]
    with torch.no_grad():
        wrapped.lora_B["default"].weight.normal_()
    whole = head.weight + wrapped.get_delta_weight("default")
    expected = reference(states, whole, None, targets, After(1.2, 3.0))["logp"]
    got = linear_loss(states, wrapped, targets, after=After(1.2, 3.0), chunk=3)["logp"]
    assert torch.allclose(got, expected, atol=1e-6)
    [ours] = torch.autograd.grad(got.sum(), states)
    [theirs] = torch.autograd.grad(expected.sum(), states)
    assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("wants", WANTS, ids="+".join)
@pytest.mark.parametrize("after", AFTER, ids=str)
def test_the_general_way_gives_the_same(wants, after):
    states, head, targets = made()
    learning = [states, *head.parameters()]
    weights = torch.rand(len(wants), M, dtype=states.dtype)

    def outcome(head):
        got = torch.stack([*linear_loss(states, head, targets, wants, after, chunk=3).values()])
        return got, *torch.autograd.grad((got * weights).sum(), learning)

    for ours, general in zip(outcome(head), outcome(lambda some: head(some)), strict=True):
        assert torch.allclose(ours, general, atol=1e-12)


@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
def test_a_tied_head_learns_from_both_its_ends(even):
    _, head, targets = made()
    words, weights = torch.randint(0, V, (M,)), torch.ones(M) if even else torch.rand(M)
    states = nn.functional.embedding(words, head.weight).tanh()
    expected = reference(states, head.weight, head.bias, targets, After())["logp"]
    got = linear_loss(states, head, targets, chunk=3)["logp"]
    [ours] = torch.autograd.grad((got * weights).sum(), head.weight, retain_graph=True)
    [theirs] = torch.autograd.grad((expected * weights).sum(), head.weight)
    assert torch.allclose(ours, theirs, atol=1e-12)


@pytest.mark.parametrize("general", [True, False], ids=["general", "plain"])
def test_nothing_of_all_tokens_times_all_words_is_kept(general):
    torch.manual_seed(0)
    head, states = nn.Linear(H, 50), torch.randn(40, H, requires_grad=True)
    called = (lambda some: head(some)) if general else head
    largest = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: largest.append(t.numel()) or t, lambda t: t):
        linear_loss(states, called, torch.randint(0, 50, (40,)), NAMES, chunk=2)
    assert max(largest, default=0) <= 50 * H


def test_without_gradients_none_are_made(monkeypatch):
    states, head, targets = made()
    expected = linear_loss(states, head, targets, NAMES, chunk=3)
    asked = []
    monkeypatch.setattr(module, "look", lambda *given, look=module.look: asked.append(given[-1]) or look(*given))
    with torch.no_grad():
        got = linear_loss(states, head, targets, NAMES, chunk=3)
    assert asked == [False] * 3
    assert all(torch.equal(got[name], expected[name]) for name in NAMES)


def test_a_head_with_a_hook_is_heard():
    states, head, targets = made()
    head.register_forward_hook(lambda module, inputs, output: 2 * output)
    expected = reference(states, head.weight, head.bias, targets, After(2.0))["logp"]
    assert torch.allclose(linear_loss(states, head, targets, chunk=3)["logp"], expected)


def test_a_bias_learns_beside_a_frozen_weight():
    states, head, targets = made()
    head.weight.requires_grad_(False)
    expected = reference(states, head.weight, head.bias, targets, After())["logp"]
    got = linear_loss(states, head, targets, chunk=3)["logp"]
    for weights in (torch.ones(M), torch.rand(M)):
        [ours] = torch.autograd.grad((got * weights).sum(), head.bias, retain_graph=True)
        [theirs] = torch.autograd.grad((expected * weights).sum(), head.bias, retain_graph=True)
        assert torch.allclose(ours, theirs, atol=1e-12)


def test_a_value_without_a_name_is_a_mistake():
    with pytest.raises(KeyError, match="perplexity"):
        linear_loss(*made(), ("perplexity",))


def test_no_tokens_are_no_values():
    states, head, targets = made()
    got = linear_loss(states[:0], head, targets[:0])["logp"]
    assert got.shape == (0,)
    got.sum().backward()
    assert torch.equal(head.weight.grad, torch.zeros_like(head.weight))


@pytest.mark.parametrize("autocast", [True, False], ids=["autocast", "as is"])
@pytest.mark.parametrize("even", [True, False], ids=["even", "uneven"])
@pytest.mark.parametrize("wants", [("logp",), NAMES], ids="+".join)
@pytest.mark.parametrize("kinds", [*product([torch.float32, torch.bfloat16], repeat=2)], ids=str)
def test_types_may_differ(kinds, wants, even, autocast):
    states, head, targets = made()
    states = states.detach().to(kinds[0]).requires_grad_()
    head.to(kinds[1])
    weights = torch.ones(len(wants), M) if even else torch.rand(len(wants), M)
    learning = [states, head.weight, head.bias]
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
        got = torch.stack([*linear_loss(states, head, targets, wants, chunk=3).values()])
    ours = torch.autograd.grad((got * weights).sum(), learning)
    exact = [tensor.detach().double().requires_grad_() for tensor in learning]
    expected = torch.stack([reference(*exact, targets, After())[name] for name in wants])
    theirs = torch.autograd.grad((expected * weights).sum(), exact)
    slack = 1e-5 if kinds == (torch.float32, torch.float32) and not autocast else 3e-2
    assert got.dtype == torch.float32
    assert [gradient.dtype for gradient in ours] == [tensor.dtype for tensor in learning]
    for one, other in zip((got, *ours), (expected, *theirs), strict=True):
        assert (one - other).abs().max() < slack * other.abs().max()


@pytest.mark.parametrize("general", [True, False], ids=["general", "plain"])
@pytest.mark.parametrize("wrong", [V, -1])
def test_a_target_that_is_no_word_is_refused(wrong, general):
    states, head, targets = made()
    targets[3] = wrong
    with pytest.raises(ValueError, match=f"the target {wrong} is not among the {V} words"):
        linear_loss(states, (lambda some: head(some)) if general else head, targets)


@pytest.mark.parametrize("count", [1, 2, 3, 6, 16])
def test_few_tokens_are_as_exact_as_many(count):
    torch.manual_seed(0)
    head = nn.Linear(64, 49152, bias=False).requires_grad_(False)
    states, targets = torch.randn(count, 64, requires_grad=True), torch.full((count,), 5)
    with torch.no_grad():
        head.weight.mul_(3)
    exact = cross_entropy(states.double() @ head.weight.double().T, targets, reduction="sum")
    [true] = torch.autograd.grad(exact, states)
    [ours] = torch.autograd.grad(-linear_loss(states, head, targets)["logp"].sum(), states)
    assert (ours - true).norm() < 2e-6 * true.norm()
