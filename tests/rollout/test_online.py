"""Learning from answers of the model's own: what is drawn, what is made of it, what is learnt, how it goes on."""

import json
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from uuid import uuid4

import pytest
import torch
from rollout_stub import serving
from tinyrun import Words, buffer_of, loop_of, low_first, other, sequences_for
from training.test_resume import StopsAfter

from tunesmith.config.load import load
from tunesmith.data.batch import pack, pad
from tunesmith.errors import BadEnvironment, CheckpointError, RecipeError, Refusal, Stopped
from tunesmith.methods.base import method
from tunesmith.model.engine import Engine
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.objectives._online import Rolled, k3, whiten
from tunesmith.objectives.base import objective
from tunesmith.objectives.gkd import GKD
from tunesmith.objectives.grpo import GRPO
from tunesmith.objectives.ppo import PPO, ahead
from tunesmith.objectives.reinforce_pp import ReinforcePP, to_come
from tunesmith.objectives.rloo import RLOO
from tunesmith.rewards.language import Language
from tunesmith.rollout.buffer import expected, joined, repetition
from tunesmith.rollout.rewarded import Rewarded
from tunesmith.rollout.sample import Drawn, likely, sample
from tunesmith.rollout.score import Scoring
from tunesmith.run import Run
from tunesmith.runs import RunFolder
from tunesmith.samplers.vllm import VLLM
from tunesmith.training import checkpoint
from tunesmith.training.online import refuse_long, refuse_online
from tunesmith.training.train import resume, train
from tunesmith.tuned import load_run

ONLINE = [name for name, one in objective.all().items() if one.targets == "prompts"]
PAID = [name for name in ONLINE if objective[name].rewarded]
PROMPTS = [[7, 8, 9, 40 + n, *range(50, 50 + n)] for n in range(5)]


def rolled(reward, lengths, group=2, **known):
    made = {name: torch.tensor(values) for name, values in known.items()}
    return Rolled(torch.tensor(reward), torch.tensor(lengths), group, torch.tensor([True] * len(reward)), made)


# what is drawn


def test_a_token_has_the_log_probability_at_the_temperature_that_it_was_drawn_with(tiny):
    model, how = tiny().eval(), GRPO(max_completion_length=9, temperature=0.7)
    [one] = sample(Engine(model, Words()), PROMPTS[:1], how, seed=3)
    ids = [*PROMPTS[0], *one.ids]
    logp = (model(torch.tensor([ids])).logits[0].detach() / 0.7).log_softmax(-1)
    full = [float(logp[at - 1, ids[at]]) for at in range(len(PROMPTS[0]), len(ids))]
    assert one.logp == pytest.approx(full, abs=1e-4)


def test_a_seed_gives_its_answers_again_and_another_one_others(tiny):
    engine, how = Engine(tiny(), Words()), GRPO(max_completion_length=6)
    first, again, other = (sample(engine, PROMPTS, how, seed, 3) for seed in (1, 1, 2))
    assert first == again
    assert first != other


def test_drawn_as_often_as_likely(tiny):
    model = tiny().eval()
    logits = model(torch.tensor([PROMPTS[0]])).logits[0, -1].detach()
    drawn = sample(Engine(model, Words()), PROMPTS[:1], GRPO(max_completion_length=1), 0, 4000)
    counts = torch.tensor([one.ids[0] for one in drawn]).bincount(minlength=384) / 4000
    assert (counts - logits.softmax(-1)).abs().max() < 0.012  # four deviations of the likeliest word


def test_only_likely_words_are_drawn():
    logp = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).log()
    kept = {"top_k": (2, 2), "top_p": (0.6, 2), "min_p": (0.25, 3)}
    for name, (value, count) in kept.items():
        assert int(likely(logp, GRPO(**{name: value})).isfinite().sum()) == count
    assert likely(logp, GRPO(top_p=0.4)).isfinite().tolist() == [[True, False, False, False]]


def test_texts_that_end_an_answer(tiny):
    plain = sample(Engine(tiny(), Words()), PROMPTS, GRPO(max_completion_length=8), 5, 2)
    mark = Words().decode([next(one for row in plain for one in row.ids[:-1] if one > 1)])
    drawn = sample(Engine(tiny(), Words()), PROMPTS, GRPO(max_completion_length=8, stop=(mark,)), 5, 2)
    found = [row for row in drawn if mark in Words().decode(row.ids)]
    assert found and all(row.ended and Words().decode(row.ids).endswith(mark) for row in found)


# what is made of it


def test_advantages_with_a_critic_are_those_of_the_definition():
    """A_t = sum over l of (gamma lam)^l d_(t+l), written out in float64."""
    draw = torch.Generator().manual_seed(0)
    lengths, gamma, lam = [3, 1, 5], 0.9, 0.7
    reward, value = (torch.randn(9, generator=draw, dtype=torch.float64) for _ in range(2))
    got = ahead(reward, value, torch.tensor([2, 3, 8]), gamma, lam)
    start, wanted = 0, []
    for length in lengths:
        r, v = reward[start : start + length].tolist(), [*value[start : start + length].tolist(), 0.0]
        deltas = [r[t] + gamma * v[t + 1] - v[t] for t in range(length)]
        wanted += [sum((gamma * lam) ** (k - t) * deltas[k] for k in range(t, length)) for t in range(length)]
        start += length
    assert got.tolist() == pytest.approx(wanted, abs=1e-12)


def test_advantages_within_a_group():
    made = rolled([1.0, 3.0, 5.0, 5.0], [1, 2, 1, 1])
    gain = GRPO(scale_rewards="none").advantages(made)["advantage"]
    assert gain.tolist() == [-1.0, 1.0, 1.0, 0.0, 0.0]
    by_group = GRPO().advantages(made)["advantage"]
    assert by_group.tolist() == pytest.approx([-1 / (2**0.5 + 1e-4), *[1 / (2**0.5 + 1e-4)] * 2, 0.0, 0.0])
    by_all, spread = GRPO(scale_rewards="batch").advantages(made)["advantage"], 3.66667**0.5 + 1e-4
    assert by_all.tolist() == pytest.approx([-1 / spread, *[1 / spread] * 2, 0.0, 0.0], rel=1e-4)


def test_a_cut_answer_can_be_left_out():
    made = rolled([1.0, 3.0], [1, 2])
    made.ended = torch.tensor([True, False])
    counts = GRPO(mask_truncated_completions=True).advantages(made)["counts"]
    assert counts.tolist() == [1.0, 0.0, 0.0]


def test_the_others_are_an_answers_baseline():
    made = rolled([1.0, 2.0, 6.0], [1, 1, 2], 3, old=[0.0, -1.0, -1.0, -1.0], reference=[0.0, -2.0, -1.0, -1.0])
    assert RLOO(kl_coef=0.0).advantages(made)["advantage"].tolist() == [-3.0, -1.5, 4.5, 4.5]
    first, *_ = RLOO(kl_coef=0.5).advantages(made)["advantage"].tolist()
    assert first == pytest.approx(1 - (1.5 + 6) / 2)  # the second one is a nat away from the reference


def test_rewards_to_come():
    assert to_come(torch.tensor([1.0, 2.0, 3.0, 4.0]), rolled([0.0, 0.0], [3, 1], 1)).tolist() == [6.0, 5.0, 3.0, 4.0]


@pytest.mark.parametrize(
    "judge",
    [ReinforcePP(kl_coef=0), RLOO(kl_coef=0, normalize_advantages=True), PPO(kl_coef=0), GRPO()],
    ids=["reinforce_pp", "rloo", "ppo", "grpo"],
)
@pytest.mark.parametrize("reward", [0.2, 0.7, -333.3])
def test_of_equal_rewards_nothing_is_learnt(judge, reward):
    alone = isinstance(judge, PPO | ReinforcePP)  # the others hold answers against those of their group alone
    rewards = [reward * (1 if alone else 1 + n // 6) for n in range(60)]
    made = rolled(rewards, [5] * 60, 6, value=[reward] * 300)
    judge = replace(judge, lam=0.0) if isinstance(judge, PPO) else judge
    assert judge.advantages(made)["advantage"].abs().max() < 1e-2


def test_a_distance_costs_and_the_reward_comes_at_the_end():
    known = {"old": [-1.0, -1.0, -2.0], "reference": [-1.0, -3.0, -2.0], "value": [0.0, 0.0, 0.0]}
    made = replace(rolled([1.0, 5.0], [2, 1], 1, **known), kl_coef=0.1)
    came = PPO(lam=1.0).advantages(made)["came"]
    assert came[:, 1].tolist() == pytest.approx([0.8, 0.8, 5.0])


def test_estimates_and_whitening():
    logp, reference = torch.tensor([-1.0, -2.0]), torch.tensor([-1.5, -1.0])
    assert k3(logp, reference).tolist() == pytest.approx([2.718281828**-0.5 + 0.5 - 1, 2.718281828 - 2])
    values = whiten(torch.tensor([1.0, 2.0, 6.0]))
    assert float(values.mean()) == pytest.approx(0, abs=1e-6) and float(values.std(correction=0)) == pytest.approx(1)
    assert float(whiten(torch.tensor([1.0, 2.0, 6.0]), shift=False).mean()) == pytest.approx(3)
    assert whiten(torch.tensor([0.7, 0.7000001])).abs().max() < 1e-2  # apart by rounding


def test_what_nobody_could_score_is_the_mean_of_its_group():
    nan = float("nan")
    assert expected(torch.tensor([1.0, nan, 3.0, nan, nan, nan]), 3).tolist() == [1.0, 2.0, 3.0, 2.0, 2.0, 2.0]


def test_repetition_is_the_share_of_stretches_that_come_again():
    assert repetition([1, 2, 3, 4, 5, 6]) == repetition([1, 2]) == 0
    assert repetition([1, 2, 3, 4, 1, 2, 3, 4]) == pytest.approx(1 / 5)


# losses


def looked_at(answers, policy):
    """Of each answer, in float64 and by plain transformers: the log-probabilities of its tokens, what a critic expects
    before each, and what was known of it before."""
    for n, tokens in enumerate(answers.rows.sequences):
        known = {name: column.of([n]).double() for name, column in answers.rows.columns.items()}
        said = policy.model(torch.tensor([tokens.ids]), output_hidden_states=True)
        learn = torch.tensor(tokens.learn[1:])
        chances = said.logits[0, :-1].double().log_softmax(-1)
        states, head = said.hidden_states[-1][0, :-1][learn].double(), policy.value_head
        value = states @ head.weight[0].double() + head.bias.double() if head else None
        yield chances.gather(-1, torch.tensor(tokens.ids[1:])[:, None])[:, 0][learn], value, known


def cut(ratio, gain, low, high):
    """What PPO makes least of: the gain of a token, or that of one whose ratio went only so far."""
    return -torch.stack([ratio * gain, ratio.clamp(1 - low, 1 + high) * gain]).amin(0)


def plain_ppo(judge, looked):
    policy, critic = [], []
    for logp, value, known in looked:
        policy.append(cut((logp - known["old"]).exp(), known["advantage"], judge.cliprange, judge.cliprange))
        before, returns = known["came"].unbind(-1)
        near = torch.minimum(torch.maximum(value, before - judge.cliprange_value), before + judge.cliprange_value)
        critic.append(torch.stack([(value - returns) ** 2, (near - returns) ** 2]).amax(0) / 2)
    return torch.cat(policy).mean() + judge.vf_coef * torch.cat(critic).mean()


def plain_reinforce_pp(judge, looked):
    each = [
        cut((one - known["old"]).exp(), known["advantage"], judge.epsilon, judge.epsilon) for one, _, known in looked
    ]
    return torch.cat(each).mean()


def plain_rloo(judge, looked):
    each = [(logp.sum() - known["old"].sum()).exp() * known["advantage"].mean() for logp, _, known in looked]
    return -torch.stack(each).mean()


def plain_online_dpo(judge, looked):
    """The best of each group against its worst; of equals none is either, and the group counts nothing."""
    gains = [(float(known["role"][0]), (logp - known["reference"]).sum()) for logp, _, known in looked]
    losses = []
    for at in range(0, len(gains), judge.num_generations):
        of = {role: gain for role, gain in gains[at : at + judge.num_generations] if role}
        losses.append((1 + (-judge.beta * (of[1.0] - of[-1.0])).exp()).log() if of else gains[0][1] * 0)
    return torch.stack(losses).mean()


def plain_grpo(judge, looked):
    losses = []
    for logp, _, known in looked:
        ratio = (logp - known["old"]).exp()
        if judge.importance_sampling_level == "sequence":
            ratio = (logp - known["old"]).mean().exp().expand(len(logp))
        high = judge.epsilon if judge.epsilon_high is None else judge.epsilon_high
        each = cut(ratio, known["advantage"], judge.epsilon, high)
        if judge.beta:
            drift = known["reference"] - logp
            each = each + judge.beta * (drift.exp() - drift - 1)
        losses.append(each)
    if judge.loss_type == "grpo":
        return torch.stack([one.mean() for one in losses]).mean()
    if judge.loss_type == "dapo":
        return torch.cat(losses).mean()
    return torch.cat(losses).sum() / (len(losses) * judge.max_completion_length)


PLAIN = {
    "grpo": plain_grpo,
    "ppo": plain_ppo,
    "rloo": plain_rloo,
    "reinforce_pp": plain_reinforce_pp,
    "online_dpo": plain_online_dpo,
}
LOSSES = {
    "grpo": {"loss_type": "grpo"},
    "dapo": {"loss_type": "dapo", "epsilon_high": 0.28},
    "dr_grpo": {"loss_type": "dr_grpo", "scale_rewards": "none"},
    "gspo": {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon": 0.01},
    "kl": {"loss_type": "grpo", "beta": 0.3},
    "ppo": {"cliprange_value": 0.02, "cliprange": 0.02},
    "rloo": {"kl_coef": 0.0},
    "reinforce_pp": {"epsilon": 0.02},
    "online_dpo": {},
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_is_its_definition(tiny, name):
    aim = name if name in PLAIN else "grpo"
    judge = objective[aim](num_generations=4, max_completion_length=7, num_iterations=2, **LOSSES[name])
    settings = {"learning_rate": 3e-3, "max_steps": 2, "max_grad_norm": 0.0}
    loop = loop_of(tiny, method["full"](), judge, sequences_for(judge), **settings)
    steps = loop.fit()
    next(steps)  # the policy has moved from where its answers were drawn
    for weight in loop.weights.values():
        weight.grad = None
    wanted = PLAIN[aim](judge, looked_at(loop.answers, loop.policy))
    wanted.backward()
    slopes = {name: weight.grad.clone() for name, weight in loop.weights.items()}
    for weight in loop.weights.values():
        weight.grad = torch.zeros_like(weight)
    tallies, _ = loop.gradient(1)
    loop.divide(float(tallies["loss"].count))
    assert tallies["loss"].mean() == pytest.approx(float(wanted.detach()), abs=1e-6)
    apart = sum(float((weight.grad - slopes[name]).square().sum()) for name, weight in loop.weights.items()) ** 0.5
    assert apart < 1e-5 * max(1.0, sum(float(one.square().sum()) for one in slopes.values()) ** 0.5)


def test_a_critic_learns_what_answers_are_worth(tiny):
    judge = PPO(vf_coef=1.0, max_completion_length=3, kl_coef=0.0, num_iterations=1, lam=1.0)
    scorer = lambda examples, texts, drawn: (torch.ones(len(drawn)), {})  # noqa: E731 - everything is worth 1
    loop = loop_of(tiny, method["full"](), judge, sequences_for(judge), max_steps=60, learning_rate=3e-3)
    loop.answers.scorer = scorer
    list(loop.fit())
    [values] = loop.answers.asked(["value"], loop.answers.rows).values()
    assert float((values - 1).abs().mean()) < 0.2


# learning


@pytest.mark.parametrize("name", ["lora", "full", "prompt_tuning"])
@pytest.mark.parametrize("aim", PAID)
def test_the_better_arm_is_found(tiny, aim, name):
    """A bandit of two arms: answers that begin with a token of the lower half are paid."""

    def loud(**parts):
        """Its head is drawn anew at a size at which states decide what is said."""
        model = tiny(**parts)
        torch.nn.init.normal_(model.lm_head.weight, std=0.5)
        return model

    judge = objective[aim](max_completion_length=1, num_generations=8, num_iterations=1)
    rate = {"lora": 1e-2, "full": 1e-2, "prompt_tuning": 0.1}[name]
    loop = loop_of(loud, method[name](), judge, sequences_for(judge), max_steps=12, learning_rate=rate)
    paid = [step.tallies["reward"].mean() for step in loop.fit() if "reward" in step.tallies]
    assert sum(paid[-4:]) / 4 > paid[0] + 0.12, paid


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_student_comes_near_its_teacher_where_its_own_answers_lead(tiny, beta):
    judge = GKD(max_completion_length=6, num_generations=4, temperature=0.8, beta=beta)
    loop = loop_of(tiny, method["full"](), judge, sequences_for(judge), max_steps=24, learning_rate=2e-2)
    told = [step.loss for step in loop.fit()]
    assert sum(told[-3:]) < 0.92 * sum(told[:3]), told


APART = [*((aim, {}) for aim in ONLINE), ("ppo", {"critic": "separate"})]


@pytest.mark.parametrize(("aim", "more"), APART, ids=[*ONLINE, "ppo_apart"])
def test_a_run_that_is_resumed_while_it_learns_from_answers_goes_on_exactly(tiny, aim, more, tmp_path):
    judge = objective[aim](max_completion_length=4, num_iterations=2, num_mini_batches=2, **more)
    settings = {"max_steps": 7, "learning_rate": 1e-2, "per_device_train_batch_size": 3}

    def afresh():
        return loop_of(tiny, method["full"](), judge, sequences_for(judge), **settings)

    whole = afresh()
    steps = [step.loss for step in whole.fit()]
    first = afresh()
    for _, _ in zip(range(3), first.fit(), strict=False):  # in the middle of a rollout
        pass
    place = checkpoint.write(tmp_path, 3, checkpoint.state(first), {}, None)
    resumed = afresh()
    checkpoint.load(place, resumed, {})
    assert [step.loss for step in resumed.fit(3)] == steps[3:]
    assert all(weight.equal(resumed.weights[name]) for name, weight in whole.weights.items())
    assert resumed.answers.alarms.as_json() == whole.answers.alarms.as_json()


@pytest.mark.parametrize("name", ["full", "lora"])
def test_the_reference_is_the_model_as_it_began(tiny, name):
    judge = GRPO(beta=0.1, max_completion_length=4)
    loop = loop_of(tiny, method[name](), judge, sequences_for(judge), max_steps=3, learning_rate=1e-2)
    list(loop.fit())
    answers, began = loop.answers, Policy(tiny().eval())
    wanted = began.logp(pad(answers.rows.sequences)).token
    with answers.beginning.there():
        got = answers.asked(["logp"], answers.rows)["logp"]
    assert torch.allclose(got, wanted, atol=1e-4)
    now = answers.asked(["logp"], answers.rows)["logp"]
    assert not torch.allclose(now, wanted, atol=1e-2)  # it has learnt, and is itself again


# what goes astray


@pytest.mark.parametrize("aim", PAID)
def test_answers_that_say_nothing_and_cannot_be_scored_are_said_and_nothing_is_learnt_from_them(tiny, aim, capsys):
    judge = objective[aim](max_completion_length=2, num_iterations=2)

    def afresh(text):
        answers = buffer_of(Policy(tiny()), judge, method["full"](), sequences_for(judge))
        answers.scorer = Rewarded(Scoring([Language(script="Latin")]), answers.alarms)
        answers.engine.tokenizer.decode = lambda ids, skip_special_tokens=True: text
        return answers

    answers = afresh("a")
    assert answers.fill(0, [0, 1])["reward"].mean() == 1
    resumed = afresh(" ")
    resumed.restore(answers.state())
    for one in (answers, resumed):
        one.engine.tokenizer.decode = lambda ids, skip_special_tokens=True: " "
        watched = one.fill(1, [2, 3])
        assert watched["empty"].mean() == 1 and watched["reward"].count == 0
        assert watched["rewards/failed"].sum == len(one.rows.sequences)
        columns = {name: column.values for name, column in one.rows.columns.items()}
        assert not columns.get("advantage", columns.get("role")).any()
        assert aim != "ppo" or columns["came"][:, 0].equal(columns["came"][:, 1])
    told = capsys.readouterr().out
    assert told.count("the policy has collapsed") == 2 and "could not be scored, and nothing is learnt" in told
    with pytest.raises(Refusal, match="none of .* answers could be scored: language"):
        afresh(" ").fill(0, [0, 1])


def test_a_step_without_answers_leaves_the_weights_where_they_are(tiny):
    judge = GRPO(max_completion_length=3, num_mini_batches=2)
    settings = {"max_steps": 2, "learning_rate": 1e-2, "weight_decay": 0.5, "per_device_train_batch_size": 1}
    loop = loop_of(tiny, method["full"](), judge, sequences_for(judge), **settings)
    began = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    steps = loop.fit()
    assert next(steps).tallies["loss"].count > 0
    moved = {name: weight.detach().clone() for name, weight in loop.weights.items()}
    assert any(not weight.equal(began[name]) for name, weight in moved.items())
    assert next(steps).tallies["loss"].count == 0
    assert all(weight.equal(moved[name]) for name, weight in loop.weights.items())
    run = load(Run, words=["model.path=m", "data.path=d", "objective=grpo", "rewards=[exact_match]"]).value
    train = replace(run.train, per_device_train_batch_size=2, gradient_accumulation_steps=2)
    for count in (4, 5):
        run = replace(run, objective=GRPO(num_mini_batches=count), train=train)
        with nullcontext() if count == 4 else pytest.raises(RecipeError, match="5 of 4 prompts leaves some without"):
            refuse_online(run)


def test_an_aim_that_nothing_can_reach_is_refused():
    PPO(kl_target=6.0).refuse()
    with pytest.raises(RecipeError, match=r"objective.kl_target: changes kl_coef"):
        PPO(kl_coef=0.0, kl_target=6.0).refuse()


def test_in_16_bits_answers_are_looked_at_as_they_are_learnt_from(tiny, monkeypatch):
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    def loud(**parts):
        model = tiny(**parts)
        torch.nn.init.normal_(model.lm_head.weight, std=0.5)
        return model

    AcceleratorState._reset_state()  # else it keeps the precision of the test before
    monkeypatch.setattr("tinyrun.Accelerator", partial(Accelerator, mixed_precision="bf16"))
    try:
        judge = PPO(max_completion_length=6)  # packed: what answers share is rounded by which of them comes first
        loop = loop_of(loud, method["full"](), judge, sequences_for(judge), pack, max_steps=1, learning_rate=1e-3)
        first = next(loop.fit()).tallies
        assert first["approx_kl"].mean() < 1e-8 and first["clip_ratio"].sum == 0
        assert first["sampler_mismatch"].mean() > 1e-4  # the sampler does without
    finally:
        AcceleratorState._reset_state()


def test_a_temperature_is_no_reason_to_make_all_logits(tiny):
    policy = Policy(tiny())
    policy.temperature = 0.7
    assert not policy.bends_logits


def test_a_sampler_that_differs_is_corrected_and_said(tiny, capsys, monkeypatch):
    judge = GRPO(max_completion_length=3, scale_rewards="none", importance_cap=1.5, num_iterations=2)
    answers = buffer_of(Policy(tiny()), judge, method["full"](), sequences_for(judge))

    def off(*given):
        drawn = sample(*given)
        for one in drawn:
            one.logp = [logp - 0.3 for logp in one.logp]  # e^0.3 = 1.35 less likely than the trainer says
        return drawn

    monkeypatch.setattr("tunesmith.rollout.buffer.sample", off)
    watched = answers.fill(0, [0])
    assert watched["sampler_mismatch"].mean() == pytest.approx(0.3, abs=1e-3)
    assert "differ by 0.30 nats" in capsys.readouterr().out
    lengths = [sum(one.learn) for one in answers.rows.sequences]
    said = [Drawn(one.ids[-length:]) for one, length in zip(answers.rows.sequences, lengths, strict=True)]
    reward, _ = low_first(None, None, said)
    plain = (reward - reward.mean()).repeat_interleave(torch.tensor(lengths))
    assert torch.allclose(answers.rows.columns["advantage"].values, plain * 1.3499, atol=1e-2)


@pytest.mark.parametrize("options", [{}, {"num_iterations": 2}, {"beta": 0.1}], ids=["once", "twice", "pulled"])
def test_answers_that_are_learnt_from_at_once_are_looked_at_once(tiny, options, monkeypatch, capsys):
    def off(*given):
        drawn = sample(*given)
        for one in drawn:
            one.logp = [logp - 0.3 for logp in one.logp]
        return drawn

    def learnt(ever):
        judge = GRPO(max_completion_length=4, importance_cap=1.5, **options)
        loop = loop_of(tiny, method["lora"](), judge, sequences_for(judge), max_steps=4, learning_rate=1e-2)
        asked = []
        look = loop.answers.looked_at
        loop.answers.looked_at = lambda: asked.append(1) or look()
        if not ever:
            vars(loop.answers)["at_once"] = False
        steps = list(loop.fit())
        return (
            loop,
            [one.tallies["sampler_mismatch"].mean() for one in steps if "sampler_mismatch" in one.tallies],
            asked,
        )

    monkeypatch.setattr("tunesmith.rollout.buffer.sample", off)
    (loop, apart, asked), (other, theirs, twice) = learnt(True), learnt(False)
    assert len(twice) == 4 // (options.get("num_iterations") or 1) and len(asked) == (len(twice) if options else 0)
    assert apart == pytest.approx(theirs, abs=1e-5) and min(apart) > 0.29
    assert all(torch.allclose(weight, other.weights[name], atol=2e-5) for name, weight in loop.weights.items())
    assert capsys.readouterr().out.count("differ by 0.30 nats") == 2


def test_a_policy_that_leaves_states_out_is_asked_beforehand(tiny):
    judge = GRPO(max_completion_length=4)
    for rate, once in ((0.0, True), (0.1, False)):
        policy = Policy(attach(tiny(), method["lora"](lora_dropout=rate), ()))
        assert buffer_of(policy, judge, method["lora"](), sequences_for(judge)).at_once is once


def test_alike_groups_are_counted(tiny):
    judge = GRPO(max_completion_length=2)
    answers = buffer_of(Policy(tiny()), judge, method["full"](), sequences_for(judge))
    answers.scorer = lambda examples, texts, drawn: (torch.ones(len(drawn)), {})
    assert answers.fill(0, [0, 1, 2])["groups_alike"].mean() == 1


def test_a_distance_is_brought_to_its_target(tiny):
    judge = PPO(kl_target=0.5, kl_horizon=10.0, kl_coef=0.1, max_completion_length=2)
    answers = buffer_of(Policy(tiny()), judge, method["full"](), sequences_for(judge))
    answers.fill(0, [0, 1])
    assert answers.kl_coef == pytest.approx(0.1 * (1 - 0.2 * 2 / 10))  # too near: it may go further


def test_joined_learns_the_answer_alone():
    made = joined(sequences_for(GRPO())[0], Drawn([4, 1]))
    assert sum(made.learn) == 2 and made.learn[-2:] == [True, True] and made.ids[-2:] == [4, 1]


# whole runs


def asked_in(place):
    rows = [{"prompt": f"what is {n}?", "answer": str(n)} for n in range(30)]
    (place / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_who_refuses_in_the_middle_loses_nothing_and_it_goes_on_exactly(tmp_path, model_folder, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    asked_in(tmp_path)
    gone = []

    def rate(body, number):
        text = body["messages"][-1]["content"]
        return (401, {}, b"expired") if gone and number > gone[0] else json.dumps({"score": 1 + len(text) % 10})

    def run_of(name):
        judge = f"{name}-{uuid4().hex}"  # whom nobody has asked before: what a judge has said is kept
        return load(
            Run,
            text=f"""
model: {{path: {model_folder}}}
data: {{path: asked.jsonl}}
objective: {{name: grpo, num_generations: 4, max_completion_length: 5, num_mini_batches: 2}}
rewards: [{{name: judge, judge: {{model: {judge}, url: "{stub.url}", reason: false}}}}]
train: {{max_steps: 5, learning_rate: 0.01, per_device_train_batch_size: 4}}
eval: {{enabled: false}}
output: {name}
""",
        ).value

    def learnt(name):
        return (tmp_path / name / "adapter" / "adapter_model.safetensors").read_bytes()

    with serving(rate) as stub:
        train(run_of("whole"), quiet=True)
        gone.append(len(stub.bodies) + 20)  # in the second rollout of sixteen answers, or the third
        with pytest.raises(BadEnvironment, match="refuses with 401"):
            train(run_of("broken"), quiet=True)
        [saved] = (tmp_path / "broken" / "checkpoints").glob("step-*")
        assert int(saved.name[-1]) in (2, 4)
        gone.clear()
        resume(tmp_path / "broken", quiet=True)
    assert learnt("broken") == learnt("whole")


def test_prompts_that_leave_no_room_for_an_answer_are_refused(tmp_path, model_folder, tiny, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked_in(tmp_path)
    tiny(max_position_embeddings=32).save_pretrained(model_folder)
    words = [f"model.path={model_folder}", "data.path=asked.jsonl", "objective=grpo", "rewards=[exact_match]"]
    with pytest.raises(
        RecipeError, match=r"the longest prompt has \d+ tokens .* the model knows 32 positions; lower it"
    ):
        train(load(Run, words=[*words, "objective.max_completion_length=20", "output=run"]).value, quiet=True)
    judge = GRPO(max_completion_length=12, sampler=VLLM(max_model_len=24))
    refuse_long(judge, Policy(tiny()), 12)
    with pytest.raises(
        RecipeError, match=r"has 13 tokens .* objective.sampler.max_model_len is 24; raise that, or .*=12$"
    ):
        refuse_long(judge, Policy(tiny()), 13)


def test_other_rewards_and_other_truths_are_no_way_to_go_on(tmp_path, model_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    asked_in(tmp_path)
    worth, rows = tmp_path / "worth.py", tmp_path / "asked.jsonl"
    worth.write_text("def worth(completion):\n    return len(completion)\n")
    words = [
        f"model.path={model_folder}",
        "data.path=asked.jsonl",
        "objective=grpo",
        "eval.enabled=false",
        "output=run",
    ]
    words += ["rewards=[{name: function, path: 'worth.py:worth'}, {name: regex, pattern: a}]", "train.max_steps=3"]
    words += ["objective.max_completion_length=2", "train.per_device_train_batch_size=2", "data.eval_size=0"]
    with pytest.raises(Stopped):
        train(load(Run, words=words).value, [StopsAfter(1)], quiet=True)
    recipe = tmp_path / "run" / "recipe.yaml"
    said = recipe.read_text()
    recipe.write_text(said.replace("pattern: a,", "pattern: b,"))
    with pytest.raises(CheckpointError, match=r"exactly: rewards.1.pattern has changed since \(was a, is b\)$"):
        resume(tmp_path / "run", quiet=True)
    recipe.write_text(said)
    known = rows.read_text()
    rows.write_text(known.replace('"answer": "', '"answer": "1'))
    with pytest.raises(CheckpointError, match="data has changed since: asked.jsonl"):
        resume(tmp_path / "run", quiet=True)
    rows.write_text(known)
    worth.write_text(worth.read_text() + "\n")
    resume(tmp_path / "run")  # what is asked of it may have been mended; it is said
    assert "not as when this run began: data: rewards.0: worth.py" in capsys.readouterr().err


def test_how_patiently_a_judge_is_asked_decides_nothing():
    def of(judge, weight=1):
        one = f"{{name: judge, weight: {weight}, judge: {{model: m, url: 'http://localhost/v1', {judge}}}}}"
        words = ["model.path=a", "data.path=b", "objective=grpo", f"rewards=[{one}]"]
        return checkpoint.deciding(load(Run, words=words).value)

    usual = of("retries: 1")
    assert usual == of("retries: 9, timeout: 9, parallel: 9, backoff: 9, price_in: 9, requests_per_minute: 9")
    assert usual != of("rubric: r") and usual != of("retries: 1", weight=2) and usual["rewards"] == 1


@pytest.mark.parametrize(
    ("aim", "how"), [*((aim, "full") for aim in PAID), ("grpo", "freeze")], ids=[*PAID, "grpo-freeze"]
)
def test_from_recipe_to_report(tmp_path, model_folder, aim, how, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked_in(tmp_path)
    words = [f"model.path={model_folder}", "data.path=asked.jsonl", f"objective={aim}", f"method={how}", "output=run"]
    words += [
        "objective.max_completion_length=5",
        "rewards.0.name=regex",
        "rewards.0.pattern=a|e|o",
        "eval.max_samples=4",
    ]
    words += [f"train.{word}" for word in ("max_steps=3", "learning_rate=0.05", "per_device_train_batch_size=4")]
    words += ["train.logging_steps=1"]
    result = train(load(Run, None, words).value, quiet=True)
    assert result.before["watched"]["reward_low"] <= result.before["watched"]["reward"]
    assert abs(result.before["watched"]["kl"]) < 1e-5 and abs(result.after["watched"]["kl"]) > 1e-3
    samples = RunFolder(tmp_path / "run").facts["samples"]
    assert any(one["before"] != one["after"] for one in samples)
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert {"reward", "rewards/regex", "completion_length", "sampler_mismatch", "repetition"} <= lines[0].keys()
    assert lines[0]["sampler_mismatch"] < 1e-4
    assert (tmp_path / "run/report.html").exists()
    assert any((tmp_path / "run/model").iterdir())


def test_distillation_on_own_answers_asks_for_no_reward(tmp_path, model_folder, tokenizer, monkeypatch):
    """What an answer is worth is how near its teacher it is."""
    monkeypatch.chdir(tmp_path)
    other().save_pretrained("teacher")
    tokenizer.save_pretrained("teacher")
    rows = [{"prompt": f"what is {n}?", "answer": str(n)} for n in range(30)]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    words = [f"model.path={model_folder}", "data.path=asked.jsonl", "objective=gkd", "method=full", "output=run"]
    words += ["objective.max_completion_length=5", "eval.max_samples=8", "objective.teacher=teacher"]
    words += [f"train.{word}" for word in ("max_steps=12", "learning_rate=3e-3", "per_device_train_batch_size=4")]
    result = train(load(Run, None, words).value, quiet=True)
    before, after = result.before["watched"], result.after["watched"]
    assert before["reward"] < after["reward_low"] <= after["reward"] < 0
    assert (lines := RunFolder(tmp_path / "run").metrics) and not any("reward" in line for line in lines)
    again = load_run("run").evaluate().scores.watched
    assert again["reward"] == pytest.approx(after["reward"], abs=1e-4)
    with pytest.raises(RecipeError, match=r"objective.teacher: gkd learns from another model"):
        train(load(Run, None, [word for word in words if "teacher" not in word] + ["output=two"]).value, quiet=True)
