"""What a run that learns from its own answers tells of them: what went wrong, what it gained, who judged."""

import json
from dataclasses import replace

import pytest
import torch
from rollout_stub import by, serving
from tinyrun import loop_of, sequences_for

from tunesmith.cli import main
from tunesmith.cli.train import show
from tunesmith.config.load import load
from tunesmith.data.example import Message
from tunesmith.data.rendering.render import Renderer
from tunesmith.errors import RecipeError
from tunesmith.evaluate.course import course, warnings
from tunesmith.evaluate.metrics import gain, worth
from tunesmith.evaluate.report import headline, summary
from tunesmith.methods.base import method
from tunesmith.model.engine import Engine
from tunesmith.model.policy import Policy
from tunesmith.objectives.base import Tally
from tunesmith.objectives.grpo import GRPO
from tunesmith.objectives.ppo import PPO
from tunesmith.rewards._settings import Judge
from tunesmith.rewards.judge import JudgeReward
from tunesmith.rollout.alarms import LAST, Alarms
from tunesmith.rollout.label import judging
from tunesmith.rollout.sample import sample
from tunesmith.run import Run
from tunesmith.runs import RunFolder
from tunesmith.training.train import train
from tunesmith.tuned import load_run

USUAL = {"reward": 1.0, "completion_length": 20.0, "empty": 0.0, "repetition": 0.1, "sampler_mismatch": 0.0, "kl": 1.0}


def heard(alarms, number=0, failed=0.0, **more):
    """A rollout of sixteen answers."""
    found = {name: Tally(16 * value, 16) for name, value in (USUAL | more).items()}
    alarms.look(number, found | {"rewards/failed": Tally(failed, 1)})
    alarms.apart(number, found["sampler_mismatch"].mean())


@pytest.mark.parametrize(
    ("kind", "now", "words"),
    [
        ("failed", {"failed": 2.0}, "2 of 16 answers could not be scored"),
        ("empty", {"empty": 0.6}, "60% of the answers are empty"),
        ("length", {"completion_length": 41.0}, "answers have 41 tokens, where they had 20"),
        ("repetition", {"repetition": 0.35}, "35% of what is said"),
        ("kl", {"kl": 26.0}, "26 nats away"),
        ("mismatch", {"sampler_mismatch": 0.2}, "differ by 0.20 nats a token"),
    ],
)
def test_what_goes_wrong_is_said_once_and_not_before(kind, now, words):
    told = []
    alarms = Alarms(told.append)
    alarms.reasons["function: it raised"] += 7
    heard(alarms)
    assert not told
    heard(alarms, 1, **now)
    heard(alarms, 2, **now)
    assert len(told) == 1 and told[0].startswith("rollout 1: ") and words in told[0]
    again = Alarms(told.append)
    again.restore(json.loads(json.dumps(alarms.as_json())))
    heard(again, 3, **now)
    assert len(told) == 1 and again.said.keys() == {kind} and again.as_json() == alarms.as_json()


def test_groups_that_teach_nothing_are_said_once_it_is_no_chance():
    told = []
    alarms = Alarms(told.append)
    for number in range(LAST + 1):
        heard(alarms, number, groups_alike=0.95)
        assert len(told) == (number + 1 >= LAST)
    assert "in 95% of the groups of the last 8 rollouts" in told[0]


def test_a_gain_is_counted_prompt_by_prompt():
    """Prompts differ far more than the two sides do: the gain is sure although the sides' intervals overlap."""
    draw = torch.Generator().manual_seed(0)
    before = (10 * torch.randn(200, generator=draw)).tolist()
    after = [one + 0.5 + 0.1 * float(torch.randn(1, generator=draw)) for one in before]
    found = gain([*before, None, 1.0], [*after, 5.0, None])
    assert found["gain"] == pytest.approx(0.5, abs=0.03) and found["gain_low"] > 0.45 and found["gain_high"] < 0.55
    sides = [worth(torch.tensor(side).numpy(), {}).watched for side in (before, after)]
    assert sides[0]["reward_high"] > sides[1]["reward_low"]
    assert gain([None], [1.0]) == {}
    nothing = worth(torch.tensor([torch.nan]).numpy(), {"empty": 1.0})
    assert nothing.n == 0 and headline(None, nothing).endswith("no answer to a held-out prompt could be scored")
    assert ("empty answers", "", "100.0%") in summary(None, nothing)


def test_a_reward_that_rises_where_it_was_learnt_alone_is_said():
    lines = [{"step": n, "reward": n / 10, "completion_length": 9.0, "rewards/x": 1.0} for n in range(1, 11)]
    found = {name: (first, last) for name, first, last in course(lines)}
    assert found["reward"] == ("0.150", "0.950") and found["tokens of an answer"] == ("9.0", "9.0")
    paid = torch.tensor([0.4, 0.6]).numpy()
    before, after = (worth(paid, {"rewards/x": side, "rewards/failed": 0.0}) for side in (2, 1))
    after.watched.update(gain([0.4, 0.6], [0.5, 0.5]))
    [said] = warnings(lines, before, after, {})
    assert "rose from 0.150 to 0.950" in said and "the gain may be none" in said
    after.watched["reward"] = 0.9
    assert any("reward: x fell from 2.000 to 1.000" in one for one in warnings(lines, before, after, {}))
    assert headline(before, after).startswith("Reward 0.500 → 0.900 on 2 held-out prompts; gain")
    assert ("reward: x", "2.000", "1.000") in summary(before, after) and not course([{"step": 1, "loss": 2.0}])


# a critic of its own


@pytest.mark.parametrize("name", ["full", "lora"])
def test_a_critic_apart_leaves_the_policy_alone(tiny, name):
    def weights(weight, critic):
        judge = PPO(vf_coef=weight, critic=critic, max_completion_length=3, num_iterations=3)
        settings = {"max_steps": 3, "learning_rate": 1e-2, "max_grad_norm": 0.0}
        loop = loop_of(tiny, method[name](), judge, sequences_for(judge), **settings)
        list(loop.fit())
        return loop, {key: one for key, one in loop.weights.items() if not key.startswith(("critic", "value"))}

    loop, one = weights(0.1, "separate")
    _, other = weights(5.0, "separate")
    assert all(torch.allclose(one[name], other[name], atol=1e-6) for name in one)
    _, mixed = weights(5.0, "shared")
    assert not all(torch.allclose(one[name], mixed[name], atol=1e-3) for name in one)
    critic = loop.policy.critic
    assert critic.head.weight is loop.policy.head.weight  # what says nothing is there once
    frozen = [one for one in critic.model.parameters() if not one.requires_grad]
    mine = {id(one) for one in loop.policy.model.parameters()}
    assert all(id(one) in mine for one in frozen) and (name == "full") == (not frozen)
    began = Policy(tiny()).trunk if name == "full" else None
    moved = dict(critic.trunk.named_parameters())
    assert began is None or any(not moved[n].equal(one) for n, one in began.named_parameters())


def test_a_critic_apart_learns_what_answers_are_worth(tiny):
    judge = PPO(vf_coef=1.0, critic="separate", max_completion_length=3, kl_coef=0.0, num_iterations=1, lam=1.0)
    loop = loop_of(tiny, method["lora"](), judge, sequences_for(judge), max_steps=40, learning_rate=1e-2)
    loop.answers.scorer = lambda examples, texts, drawn: (torch.ones(len(drawn)), {})
    list(loop.fit())
    [values] = loop.answers.asked(["value"], loop.answers.rows).values()
    assert float((values - 1).abs().mean()) < 0.2


# whole runs

OWN = """
def spoken(completion, row):
    if row["terms"] == [3, "drei"]:
        raise ValueError("no three")
    return row["weight"] * sum(letter in "aeiou" for letter in completion)
"""


def test_a_function_sees_the_rows_other_columns_and_its_failures_are_told(tmp_path, model_folder, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = [
        {"prompt": f"what is {n}?", "answer": str(n), "terms": [n % 5, "drei"], "weight": 0.5 + n / 100}
        for n in range(30)
    ]
    (tmp_path / "asked.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.py").write_text(OWN)
    recipe = f"""
model: {{path: {model_folder}}}
data: {{path: asked.jsonl, eval_size: 0.3}}
objective: {{name: grpo, max_completion_length: 5}}
rewards: [{{name: function, path: "own.py:spoken"}}]
train: {{max_steps: 3, learning_rate: 0.05, per_device_train_batch_size: 8, logging_steps: 1}}
output: run
"""
    result = train(load(Run, text=recipe).value, quiet=True)
    run = RunFolder(tmp_path / "run")
    facts = run.facts
    [(why, count)] = facts["alarms"]["reasons"].items()
    assert "own.py:4: spoken raised ValueError: no three" in why
    lines = [line for line in run.metrics if "reward" in line]
    assert count == sum(line["rewards/failed"] for line in lines) + result.before["watched"]["rewards/failed"]
    assert facts["worth"]["before"].count(None) == result.before["watched"]["rewards/failed"] > 0
    assert "failed" in facts["alarms"]["said"]
    now = result.after["watched"]
    both = [pair for pair in zip(*facts["worth"].values(), strict=True) if None not in pair]
    assert now["gain"] == pytest.approx(sum(after - before for before, after in both) / len(both), abs=1e-5)
    assert result.before["watched"]["kl"] == pytest.approx(0, abs=1e-4) and now["kl"] > 0
    page = (tmp_path / "run/report.html").read_text()
    for words in ("To look at first", "could not be scored", "While it learnt", "nats away from the model", "gain"):
        assert words in page
    show(result, as_json=False)
    assert "gain, prompt by prompt" in capsys.readouterr().out


# feedback from a judge: label, calibrate, learn, and be judged again

VOWELS = "aeiou"


def vowels(text):
    return sum(letter in VOWELS for letter in text)


def test_feedback_from_a_judge_makes_what_the_judge_likes_likelier(tmp_path, model_folder, tiny, monkeypatch, capsys):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    loud = tiny()
    torch.nn.init.normal_(loud.lm_head.weight, std=0.7)  # so that states, which an adapter moves, decide what is said
    loud.save_pretrained(model_folder)

    human = [{"prompt": f"q {n}?", "chosen": f"aeiou a {n}", "rejected": f"xyz {n}"} for n in range(30)]
    asked = [{"prompt": f"what is {n}?", "answer": "a"} for n in range(100)]
    for name, rows in (("human", human), ("asked", asked)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    out, known, run = tmp_path / "labels.jsonl", tmp_path / "known.json", tmp_path / "run"

    def command(*words):
        with pytest.raises(SystemExit) as left:
            main([*map(str, words)])
        assert not left.value.code, capsys.readouterr()

    with serving(by(vowels)) as stub:
        told = [f"judge.url={stub.url}", "judge.model=vowels", "judge.parallel=1"]
        command("judge", "calibrate", tmp_path / "human.jsonl", "--to", known, *told)
        writes = [f"write.model={model_folder}", "write.max_new_tokens=4", f"calibration={known}"]
        command("judge", "label", tmp_path / "asked.jsonl", "--to", out, *told, *writes)
        labels = [json.loads(line) for line in out.read_text().splitlines()]
        assert len(labels) > 30 and all(
            vowels(row["chosen"][-1]["content"]) > vowels(row["rejected"][-1]["content"]) for row in labels
        )
        settings = ["train.max_steps=25", "train.learning_rate=1e-2", "train.per_device_train_batch_size=16"]
        settings += ["data.on_lint=warn"]  # four tokens are never a whole answer
        settings += ["objective=dpo", "objective.loss_type=[sigmoid, sft]"]  # the second as in arXiv:2404.19733
        command("train", f"model.path={model_folder}", f"data.path={out}", *settings, f"output={run}")
        rated = JudgeReward(judge=Judge(url=stub.url, model="vowels"), calibration=str(known))
        other = replace(rated, judge=replace(rated.judge, rubric="Other."))
    tuned = load_run(run)
    renderer = Renderer(tuned.tokenizer, tuned.run.data)
    prompts = [renderer.prompt((Message("user", row["prompt"]),)) for row in asked]

    def liked(model):
        drawn = sample(Engine(model, tuned.tokenizer), prompts, GRPO(max_completion_length=4), 0, 4)
        return [vowels(tuned.tokenizer.decode(one.ids, skip_special_tokens=True)) for one in drawn]

    after = liked(tuned.model)
    with tuned.before() as model:
        before = liked(model)
    assert gain(before, after)["gain_low"] > 0, (len(labels), before, after)
    card = (run / "adapter" / "README.md").read_text()
    assert "labels of the judge vowels, kappa with people 1.00" in card
    [rater] = judging([rated])
    assert rater["said"] == "rewards.0: answers are rated by the judge vowels, kappa with people 1.00 (1.00 to 1.00)"
    assert judging([replace(rated, calibration=None)])[0]["said"].endswith("never calibrated")
    with pytest.raises(RecipeError, match="of another judge: its rubric differ"):
        judging([other])
