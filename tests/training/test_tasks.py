"""Several tasks at once, and labels beside answers: losses by their formulas, exact batches, whole runs, refusals."""

import json
import math
from dataclasses import replace
from statistics import fmean

import pytest
import torch
from tinyrun import loop_of
from training.test_resume import StopsAfter, run_of, weights

from tunesmith.config.load import load
from tunesmith.data.batch import pad, share
from tunesmith.data.rendering.tokens import Tokens
from tunesmith.data.task import Task
from tunesmith.errors import DataError, RecipeError, Stopped
from tunesmith.evaluate.metrics import Scores
from tunesmith.evaluate.report import summary
from tunesmith.methods.lora import LoRA
from tunesmith.methods.p_tuning import PTuning
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.objectives.classify import Classify
from tunesmith.objectives.mixed import Mixed
from tunesmith.run import Eval, Run
from tunesmith.runs import RunFolder
from tunesmith.training.train import resume, train
from tunesmith.tuned import load_run

TONE = Task("tone", "class", ("bad", "good", "so"), 0, alone=False)
TOPICS = Task("topics", "several", ("cast", "story"), 3, alone=False)
STARS = Task("stars", "score", (), 5, alone=False)
CHAT = Task("chat", "answers", alone=False)
ORDER = (CHAT, TONE, TOPICS, STARS, TONE, CHAT, TOPICS, TONE)
AIMS = {
    "classify": Classify(label_smoothing=0.3, weights={"stars": 0.25}),
    "mixed": Mixed(weights={"chat": 3.0, "topics": 0.5}),
}


def sequences(aim) -> list[Tokens]:
    """One of each task after the other, of uneven length."""
    draw, made = torch.Generator().manual_seed(0), []
    for n, task in enumerate(ORDER):
        ids = [7, 8, 9, *torch.randint(3, 250, (5 + 2 * n,), generator=draw).tolist()]
        said = {
            "class": {"label": n % 3},
            "several": {"marks": (1.0, float(n % 4 == 2))},
            "score": {"grade": 1.5},
            "answers": {},
        }[task.kind]
        if task is not CHAT or isinstance(aim, Mixed):
            made.append(Tokens(ids, [task is CHAT and at > 4 for at in range(len(ids))], task=task, **said))
    return made


def by_formula(score, logp, rows: list[Tokens], aim) -> float:
    """The mean of the tasks' means by their weights, written out in Python's own floats."""
    found: dict[Task, list[float]] = {}
    at = 0
    for numbers, one in zip(score.double().tolist(), rows, strict=True):
        own = numbers[one.task.outputs]
        if one.task is CHAT:
            there = sum(one.learn[1:])
            value = [-said for said in logp[at : at + there]]
            at += there
        elif one.task is STARS:
            value = [(own[0] - one.grade) ** 2]
        elif one.task is TOPICS:
            chances = [1 / (1 + math.exp(-number)) for number in own]
            value = [-fmean(math.log(c if mark else 1 - c) for c, mark in zip(chances, one.marks, strict=True))]
        else:
            chances = [number - math.log(sum(map(math.exp, own))) for number in own]
            value = [-(1 - aim.label_smoothing) * chances[one.label] - aim.label_smoothing * fmean(chances)]
        found.setdefault(one.task, []).extend(value)
    weight = {task: (aim.weights or {}).get(task.name, 1.0) for task in found}
    return sum(weight[task] * fmean(values) for task, values in found.items()) / sum(weight.values())


def step(tiny, aim, layout, size, accumulate):
    """The loss and the gradient of one step over all sequences."""
    sizes = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulate, "max_grad_norm": 0}
    loop = loop_of(tiny, LoRA(), aim, sequences(aim), layout=layout, **sizes)
    draw = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in loop.weights.values():
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
    tallies, _ = loop.gradient(0)
    loop.divide(float(tallies["loss"].count))
    return loop, tallies, torch.cat([weight.grad.flatten() for weight in loop.weights.values()])


@pytest.mark.parametrize("aim", AIMS.values(), ids=AIMS)
def test_the_loss_is_the_mean_of_the_tasks_means_however_a_step_is_cut(tiny, aim):
    loop, tallies, whole = step(tiny, aim, pad, 8, 1)
    looks = loop.policy.look(pad(sequences(aim)), aim.looks())
    said = looks["logp"].token.double().tolist() if "logp" in looks else []
    assert tallies["loss"].mean() == pytest.approx(by_formula(looks["score"], said, sequences(aim), aim), rel=1e-5)
    for layout, size, accumulate in ((pad, 2, 4), (share, 8, 1), (share, 3, 3)):
        _, cut, parts = step(tiny, aim, layout, size, accumulate)
        assert (whole - parts).norm() < 1e-5 * whole.norm()
        assert {name: one.mean() for name, one in cut.items()} == pytest.approx(
            {name: one.mean() for name, one in tallies.items()}, rel=1e-4
        )
    assert tallies["share/tone"].mean() == 3 / len(sequences(aim)) and whole.any()


# --- whole runs -------------------------------------------------------------------------------------------------------


def lines(file, rows) -> str:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file)


@pytest.fixture
def words(tmp_path, model_folder):
    """Sources of four tasks, of which the tiny model can learn each by heart; the words of a run over the first."""
    sides = ("warm", "dull")
    texts = [(n, n % 2, f"the film is {sides[n % 2]} {n}") for n in range(20)]
    lines(tmp_path / "tone.jsonl", [{"text": text, "label": sides[side]} for _, side, text in texts])
    topics = [{"text": f"{text} of it", "labels": ["cast", "story"][: 1 + side]} for _, side, text in texts]
    lines(tmp_path / "topics.jsonl", topics[:12])
    lines(tmp_path / "stars.jsonl", [{"text": f"{text} so", "label": side + 0.5} for _, side, text in texts[:10]])
    chats = [{"prompt": f"judge {n}", "completion": "yes of course"} for n in range(24)]
    lines(tmp_path / "chat.jsonl", chats)
    return [
        f"model.path={model_folder}",
        f"data.path={tmp_path / 'tone.jsonl'}",
        "data.task=tone",
        "data.mixing=interleave_over",
        "data.weight=2",
        "data.eval_size=0.3",
        "train.train_sampling_strategy=balanced",
        "train.max_steps=8",
        "train.learning_rate=1e-2",
        "train.logging_steps=1",
    ]


def also(folder, *names: str) -> str:
    return f"data.also=[{', '.join(f'{{path: {folder / name}.jsonl, task: {name}}}' for name in names)}]"


def trained(words, **more):
    return train(load(Run, None, words).value, quiet=True, **more)


@pytest.mark.parametrize("method", [PromptTuning, PrefixTuning, PTuning], ids=lambda one: one.name)
def test_a_soft_prompt_can_be_switched_off_where_nothing_is_written(method, model_folder, reviews, tmp_path):
    """As before the first step, and to ask what was there before: PEFT exchanges a way of writing with it."""
    run = run_of(model_folder, reviews, tmp_path / "run", method(num_virtual_tokens=4), Classify(), max_steps=2)
    train(replace(run, eval=Eval(max_samples=4)), quiet=True)
    tuned = load_run(str(tmp_path / "run"))
    ids = torch.tensor([[7, 8, 9]])
    with torch.no_grad():
        with tuned.side(base=True) as before:
            off = before(input_ids=ids).logits
        assert not torch.allclose(off, tuned.model(input_ids=ids).logits, atol=1e-6)


def test_one_head_tells_of_every_task(words, tmp_path):
    run = tmp_path / "run"
    result = trained([*words, also(tmp_path, "topics", "stars"), "objective=classify", f"output={run}"])
    facts = RunFolder(run).facts
    assert facts["batch"] == {"tone": 4, "topics": 2, "stars": 2}
    assert facts["labels"] == ["tone: dull", "tone: warm", "topics: cast", "topics: story", "stars: score"]
    for line in RunFolder(run).metrics:
        assert [line[f"share/{name}"] for name in ("tone", "topics", "stars")] == [0.5, 0.25, 0.25]
        assert {"loss/tone", "accuracy/tone", "accuracy/topics", "error/stars"} <= line.keys()
    before, after = Scores.from_json(result.before), Scores.from_json(result.after)
    assert after.loss < before.loss and after.n == sum(one.n for one in after.tasks.values())
    assert after.tasks["tone"].labels == ("dull", "warm") and after.tasks["topics"].macro_f1 is not None
    assert after.tasks["stars"].error < before.tasks["stars"].error
    assert fmean(one.loss for one in after.tasks.values()) == pytest.approx(after.loss, rel=1e-5)
    shown = {row[0] for row in summary(before, after)}
    assert {"tone: accuracy", "topics: macro F1", "stars: mean error"} <= shown
    again = load_run(run)
    assert again.evaluate().scores.tasks["stars"].error == pytest.approx(after.tasks["stars"].error, abs=1e-4)
    told = again.tell("the film is warm 3")
    assert sum(told["tone"].values()) == pytest.approx(1) and set(told["topics"]) == {"cast", "story"}
    assert set(told["stars"]) == {"score"}


@pytest.mark.parametrize("method", ["lora", "full"])
def test_answers_and_labels_are_learnt_by_one_model(words, tmp_path, method):
    run, parts = tmp_path / "run", tmp_path / "parts"
    said = [
        *words,
        also(tmp_path, "chat"),
        "objective=mixed",
        f"method={method}",
        "train.per_device_train_batch_size=3",
    ]
    result = trained([*said, f"output={run}"])
    assert RunFolder(run).facts["batch"] == {"tone": 2, "chat": 1}
    assert [line["share/chat"] for line in RunFolder(run).metrics] == pytest.approx([1 / 3] * 8)
    before, after = Scores.from_json(result.before), Scores.from_json(result.after)
    assert after.tasks["chat"].loss < before.tasks["chat"].loss and after.tasks["tone"].loss < before.tasks["tone"].loss
    again = load_run(run)
    found = again.evaluate().scores.tasks
    assert [found[name].loss for name in found] == pytest.approx([after.tasks[name].loss for name in found], abs=1e-4)
    assert again.chat("judge 3", max_new_tokens=4) and set(again.tell("a warm one")) == {"tone"}
    if method == "full":  # a folder that transformers loads as either
        from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification

        kinds = AutoModelForCausalLM, AutoModelForSequenceClassification
        writes, tells = (one.from_pretrained(run / "model") for one in kinds)
        assert torch.equal(tells.score.weight, again.model.score.weight) and tells.config.num_labels == 2
        assert torch.equal(writes.lm_head.weight, again.model.lm_head.weight)
        return
    with pytest.raises(Stopped):
        trained([*said, f"output={parts}", "eval.enabled=false"], callbacks=[StopsAfter(4)])
    resume(parts, quiet=True)
    assert weights(run) == weights(parts)


REFUSED = {
    "data.task: tone: objective sft learns one thing of all rows": ("objective=sft", "{none}"),
    "objective: mixed learns answers and labels, and all rows have labels": ("objective=mixed", "{topics}"),
    "objective.weights: there is no task 'tune' (tone, topics)": ("{topics}", "objective.weights={{tune: 2}}"),
    "objective.weights: there is one task": ("{none}", "objective.weights={{tone: 2}}"),
    "balanced gives each of several sources its part of a batch, and there is one": ("data.weight=1",),
    "balanced needs an example of each of 2 sources in a batch of 1": (
        "{topics}",
        "train.per_device_train_batch_size=1",
    ),
    "balanced counts examples": ("{topics}", "train.packing=true"),
    "the task 'tone' tells a class in one source and several classes in another": ("{same}",),
}


@pytest.mark.parametrize("sentence", REFUSED)
def test_tasks_that_cannot_be_are_refused_before_a_model_is_read(words, tmp_path, sentence, monkeypatch):
    monkeypatch.setattr("tunesmith.training.train.load_model", None)
    here = {
        "topics": also(tmp_path, "topics"),
        "none": "train.train_sampling_strategy=random",
        "same": f"data.also=[{{path: {tmp_path / 'topics.jsonl'}, task: tone}}]",
    }
    more = [word.format(**here) for word in REFUSED[sentence]]
    if not any(word.startswith("data.also") for word in more):
        more += ["data.mixing=concatenate", "data.weight=1"]
    with pytest.raises((RecipeError, DataError)) as refusal:
        trained([*words, "objective=classify", "data.on_lint=warn", *more, f"output={tmp_path / 'run'}"])
    assert sentence in str(refusal.value)
