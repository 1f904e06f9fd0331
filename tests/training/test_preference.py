"""Preferences end to end: steps whose pairs are compared with each other, references, pairs as likes, bad input."""

import gc
import json
import math
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest
import torch
from conftest import make_tiny
from laws.test_processes import STEPWIDE
from laws.test_split import gradient_of
from tinyrun import loop_of

from tunesmith.cli import app
from tunesmith.data.batch import pad, share
from tunesmith.data.keeping.store import Many, learnt
from tunesmith.data.rendering.tokens import Tokens
from tunesmith.errors import CheckpointError, DataError, RecipeError
from tunesmith.methods.lora import LoRA
from tunesmith.model.reference import Asker
from tunesmith.model.rows import Strangers
from tunesmith.objectives.dpo import DPO
from tunesmith.objectives.kto import KTO
from tunesmith.run import Data, Model, Run
from tunesmith.runs import RunFolder
from tunesmith.training.before import before_learning
from tunesmith.tuned import load_run


@pytest.mark.parametrize("name", STEPWIDE)
def test_what_a_step_compares_does_not_depend_on_its_cuts_or_order(tiny, name):
    aim = STEPWIDE[name]
    whole = gradient_of(tiny, LoRA(), aim, pad, 8, 1)
    for layout, size, cuts in ((pad, 2, 4), (share, 1, 8)):
        parts = gradient_of(tiny, LoRA(), aim, layout, size, cuts)
        assert (whole - parts).norm() < 1e-5 * whole.norm()
    assert whole.any()


def test_aot_of_one_pair_is_dpo(tiny):
    """With nothing to be ranked among, a pair meets itself."""
    found = [gradient_of(tiny, LoRA(), DPO(loss_type=kind), pad, 1, 1) for kind in ("sigmoid", "aot", "aot_unpaired")]
    assert torch.allclose(found[0], found[1], atol=1e-7) and torch.allclose(found[0], found[2], atol=1e-7)


@pytest.fixture
def pairs(tmp_path):
    rows = [
        {"prompt": f"is this film {word}? {n}", "chosen": "positive of course", "rejected": f"negative {n}"}
        for n in range(12)
        for word in ("warm", "dull")
    ]
    return lines(tmp_path / "pairs.jsonl", rows)


def lines(file: Path, rows) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def other(folder: Path, tokenizer) -> Path:
    """A model with the same tokens and other weights."""
    model = make_tiny()
    draw = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.parameters():
            weight.add_(0.05 * torch.randn(weight.shape, generator=draw))
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def trained(model: Path, data: Path, *words: str) -> list[dict]:
    """The lines of metrics of a short run."""
    folder = data.with_name(f"run-{len(list(data.parent.iterdir()))}")
    steps = ["train.max_steps=2", "train.logging_steps=1", "train.learning_rate=1e-2", f"output={folder}"]
    app(["train", f"model.path={model}", f"data.path={data}", *steps, *words], standalone_mode=False)
    named = next((word.partition("=")[2] for word in words if word.startswith("output=")), folder)
    return RunFolder(Path(named)).metrics


def refused(model: Path, data: Path, kind, *words: str) -> str:
    with pytest.raises(kind) as refusal:
        trained(model, data, *words)
    return str(refusal.value)


def test_the_first_loss_is_ln_2_unless_a_reference_is_given(model_folder, pairs, tokenizer, tmp_path):
    full = ("objective=dpo", "method=full", "eval.enabled=false")
    assert trained(model_folder, pairs, *full)[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)
    given = other(tmp_path / "other", tokenizer)
    first = trained(model_folder, pairs, *full, f"objective.reference={given}")[0]
    assert first["loss"] == pytest.approx(expected(model_folder, given, first["rewards/margins"]), abs=0.05)
    assert abs(first["rewards/margins"]) > 1e-3
    itself = trained(model_folder, pairs, *full, f"objective.reference={model_folder}")[0]
    assert itself["loss"] == pytest.approx(math.log(2), abs=1e-6)


def test_where_both_answers_are_level_half_of_the_pairs_are_right():
    from torch import tensor

    from tunesmith.objectives._pairs import ahead, watched

    assert ahead(tensor([2.0, 0.0, -0.0, -1.0])).tolist() == [1, 0.5, 0.5, 0]
    assert watched(tensor([1.0, 1.0, 3.0, 2.0]), tensor([0.0] * 4), None)["accuracy"].tolist() == [0.5, 1]


def test_a_reference_speaks_in_the_numbers_in_which_is_learnt(model_folder, pairs):
    """And a run in other numbers goes before it in this process."""
    words = ("objective=dpo", "method=full", "eval.enabled=false")
    for more in (("train.bf16=true",), ("train.bf16=true", f"objective.reference={model_folder}"), ()):
        first = trained(model_folder, pairs, *words, *more)[0]
        assert first["loss"] == pytest.approx(math.log(2), abs=1e-6) and first["rewards/margins"] == 0


def test_a_reference_is_read_anew_when_rows_before_it_change(model_folder, pairs):
    words = ("objective=dpo", "method=full", "eval.enabled=false", "train.per_device_train_batch_size=2")
    seen = [trained(model_folder, pairs, *words)[0]["loss"]]
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()]
    for number in range(0, len(rows), 6):  # at least one of them is in no batch, and before one that is
        changed = [row | {"rejected": row["rejected"] + " of" * (at == number)} for at, row in enumerate(rows)]
        seen.append(trained(model_folder, lines(pairs, changed), *words)[0]["loss"])
    assert seen == pytest.approx([math.log(2)] * len(seen), abs=1e-6)


def test_what_a_model_was_is_found_again_when_its_biases_have_learnt(tokenizer, tmp_path, pairs):
    base = tmp_path / "biased"
    make_tiny(attention_bias=True).save_pretrained(base)
    tokenizer.save_pretrained(base)
    words = ("objective=dpo", "method=lora", "method.bias=all", "train.learning_rate=0.5", "data.eval_size=0.3")
    trained(base, pairs, *words, f"output={tmp_path / 'first'}")
    same(tmp_path / "first")


AGAIN = {
    "lora": ("objective=dpo", "method=lora"),
    "full": ("objective=dpo", "method=full"),
    "kto": ("objective=kto", "method=lora"),
    "soft": ("objective=dpo", "method=prompt_tuning"),
}


def same(run: Path) -> None:
    """A finished run measures again what it measured."""
    again, then = load_run(run).evaluate().scores.as_json(), RunFolder(run).facts["after"]
    figures = [[found[name] for name in ("loss", "accuracy", "n")] for found in (again, then)]
    assert again["watched"] == pytest.approx(then["watched"], abs=1e-4)
    assert figures[0] == pytest.approx(figures[1], abs=1e-4)


@pytest.mark.parametrize("words", AGAIN.values(), ids=list(AGAIN))
def test_a_finished_run_measures_again_what_it_measured(model_folder, pairs, tmp_path, words):
    trained(model_folder, pairs, *words, "data.eval_size=0.3", f"output={tmp_path / 'first'}")
    same(tmp_path / "first")
    if words == ("objective=dpo", "method=lora"):  # the reference of a run that goes on from an adapter has it
        onwards = f"method.adapter={tmp_path / 'first'}", f"output={tmp_path / 'second'}"
        found = trained(model_folder, pairs, *words, *onwards, "data.eval_size=0.3")
        assert found[0]["loss"] == pytest.approx(math.log(2), abs=1e-5)
        same(tmp_path / "second")


def expected(model: Path, reference: Path, margin: float) -> float:
    """About what the loss is, when the margins of all pairs are like their mean."""
    assert model != reference
    return math.log(1 + math.exp(-margin))


def test_a_given_reference_is_never_beside_the_model_that_learns(model_folder, pairs, tokenizer, tmp_path, monkeypatch):
    from transformers import PreTrainedModel

    from tunesmith.training import train as line

    given, there = other(tmp_path / "other", tokenizer), []
    build = line.build
    gc.collect()
    before = {id(one) for one in gc.get_objects() if issubclass(type(one), PreTrainedModel)}

    def watched(*args):
        there.extend(
            one for one in gc.get_objects() if issubclass(type(one), PreTrainedModel) and id(one) not in before
        )
        return build(*args)

    monkeypatch.setattr(line, "build", watched)
    trained(model_folder, pairs, "objective=dpo", f"objective.reference={given}", "eval.enabled=false")
    assert there == []


def test_references_that_cannot_be_compared_with_are_refused(model_folder, pairs, tmp_path, tokenizer):
    words = ("objective=dpo", "eval.enabled=false")
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}")
    said = refused(model_folder, pairs, RecipeError, *words, f"objective.reference={adapter}")
    assert said.startswith("objective.reference:") and "is an adapter, expected a whole model" in said
    given = other(tmp_path / "words", tokenizer)
    text = json.loads((given / "tokenizer.json").read_text(encoding="utf-8"))
    text["model"]["vocab"]["zz"] = len(text["model"]["vocab"])
    (given / "tokenizer.json").write_text(json.dumps(text), encoding="utf-8")
    said = refused(model_folder, pairs, RecipeError, *words, f"objective.reference={given}")
    assert said.startswith("objective.reference:") and "knows other tokens" in said and "'zz'" in said
    said = refused(model_folder, pairs, RecipeError, *words, f"objective.reference={tmp_path / 'nowhere'}")
    assert said.startswith("objective.reference: model")
    said = refused(model_folder, pairs, RecipeError, "objective=orpo", f"objective.reference={given}")
    assert "objective.orpo.reference" in said


def test_an_adapter_over_another_base_than_its_own_is_refused(model_folder, pairs, tmp_path, tokenizer):
    first = tmp_path / "first"
    trained(model_folder, pairs, "objective=dpo", "eval.enabled=false", f"output={first}")
    given = other(tmp_path / "other", tokenizer)
    for setting in (f"method.adapter={first}", f"model.adapters=[{first}]"):
        said = refused(given, pairs, CheckpointError, "objective=dpo", "eval.enabled=false", setting)
        assert said.startswith(f"{setting.partition('=')[0]}")
        assert f"was trained on other weights than those in {given}" in said
    [line, _] = trained(model_folder, pairs, "objective=dpo", "eval.enabled=false", f"method.adapter={first}")
    assert line["loss"] == pytest.approx(math.log(2), abs=1e-5) and 0 < line["entropy"] < math.log(384)


def test_how_far_a_judgement_of_pairs_can_be_believed_is_measured(model_folder, pairs, tmp_path):
    run = tmp_path / "run"
    trained(model_folder, pairs, "objective=dpo", "data.eval_size=0.3", f"output={run}")
    before, after = (RunFolder(run).facts[side] for side in ("before", "after"))
    assert before["brier"] == pytest.approx(0.25, abs=1e-6) and after["brier"] < 0.25  # of one who knows nothing yet
    assert sum(count for *_, count in after["reliability"]) == after["n"]


def test_pairs_are_likes_and_dislikes_to_kto(model_folder, pairs):
    seen = trained(model_folder, pairs, "objective=kto", "train.per_device_train_batch_size=32")
    assert seen[0]["loss"] == pytest.approx(0.5, abs=1e-4)
    assert seen[1]["rewards/chosen"] > seen[1]["rewards/rejected"]


BAD = {
    "the same": {"prompt": "a", "chosen": "yes", "rejected": "yes"},
    "no answer": {"prompt": "a", "chosen": "yes", "rejected": ""},
    "other prompts": {"chosen": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}],
                      "rejected": [{"role": "user", "content": "c"}, {"role": "assistant", "content": "d"}]},
    "prompts that part": {side: [{"role": "system", "content": "s"}, {"role": "user", "content": side},
                          {"role": "assistant", "content": "b"}] for side in ("chosen", "rejected")},
}  # fmt: skip
SAYS = {
    "the same": "pairs.jsonl:2: has two answers that come to the same tokens",
    "no answer": "pairs.jsonl:2: answer 2 is empty",
    "other prompts": "pairs.jsonl:2: cannot be read as preference: has no prompt, and chosen and rejected begin with no"
    " turn in common: a pair is two answers to one prompt",
    "prompts that part": "pairs.jsonl:2: cannot be read as preference: has no prompt, and chosen and rejected begin"
    " with 1 turn in common and part where one asks: a pair is two answers to one prompt",
}


@pytest.mark.parametrize("fault", BAD)
def test_bad_pairs_are_named(model_folder, tmp_path, fault):
    good = [{"prompt": f"is it {n}?", "chosen": "yes", "rejected": "no"} for n in range(6)]
    if "prompts" in fault:
        good = [{side: [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[side]}]
                 for side in ("chosen", "rejected")} for row in good]  # fmt: skip
    data = lines(tmp_path / "pairs.jsonl", [good[0], BAD[fault], *good[1:]])
    said = refused(model_folder, data, DataError, "objective=dpo", "data.eval_size=0")
    assert SAYS[fault] in said, said


def test_one_kind_of_answer_is_not_enough_for_kto(model_folder, tmp_path):
    rows = [{"prompt": f"is it {n}?", "completion": "yes", "label": True} for n in range(6)]
    said = refused(model_folder, lines(tmp_path / "likes.jsonl", rows), DataError, "objective=kto", "data.eval_size=0")
    assert "are liked" in said and "learns from both kinds" in said


def test_what_cannot_be_compared_is_refused(model_folder, pairs, tmp_path):
    rows = [{"prompt": f"is it {n}?", "completion": "yes", "label": n % 2 == 0} for n in range(12)]
    likes = lines(tmp_path / "likes.jsonl", rows)
    said = refused(model_folder, likes, RecipeError, "objective=kto", "data.eval_size=0.3", "eval.max_samples=1")
    assert said.startswith("data.eval_size: one row is held out, and kto compares rows")
    rest = ("eval.enabled=false", f"objective.reference={model_folder}")  # nobody looks at them
    assert trained(model_folder, likes, "objective=kto", "data.eval_size=0.3", "eval.max_samples=1", *rest)
    said = refused(model_folder, pairs, RecipeError, "objective=dpo", "data.train_on=[all]")
    assert said.startswith("data.train_on: all learns what is asked too, and dpo judges answers")


def test_a_stranger_answers_another_prompt(model_folder):
    """The rows of one prompt, as those of a pair, stand side by side."""
    sequences = [Tokens([9, prompt, 20 + n], [False, False, True]) for n, prompt in enumerate((5, 5, 5, 6, 6, 5))]
    strangers = Strangers(sequences, 8)
    assert [strangers.one(n).ids for n in range(6)] == [
        [9, 5, 23], [9, 5, 23], [9, 5, 23], [9, 6, 25], [9, 6, 25], [9, 5, 23],
    ]  # fmt: skip
    alone = Strangers([Tokens([9, 5, 20 + n], [False, False, True]) for n in range(2)], 8)
    assert alone.one(0).ids == [9, 5, 21] and alone.one_prompt and not strangers.one_prompt


class Read(Many):
    """Answers of one to three tokens to one prompt, the last to another; counts how often one is read."""

    def __init__(self, size: int) -> None:
        self.size, self.reads = size, 0

    def __len__(self) -> int:
        return self.size

    def one(self, number: int) -> Tokens:
        self.reads += 1
        said = [20 + number] * (1 + number % 3)
        prompt = [9, 6] if number == self.size - 1 else [9, 5, 5]
        return Tokens(prompt + said, [False] * len(prompt) + [True] * len(said))


def test_a_stranger_is_found_however_far_and_rows_are_read_a_few_times():
    """Also where a prompt has more answers than anybody would look through for each of them."""
    rows = Read(81)
    strangers = Strangers(rows, 5)
    assert len(learnt(strangers)) == 81 and rows.reads <= 4 * 81
    made, reads = strangers[:], rows.reads
    assert {tuple(one.ids) for one in made[:-1]} == {(9, 5, 5, 100, 100)}  # a third is cut off
    assert made[-1].ids == [9, 6, 20] and reads <= 6 * 81
    assert learnt(strangers) == [sum(one.learn[1:]) for one in made]


def test_that_all_answers_are_to_one_prompt_is_said():
    answers, aim = [Tokens([9, 5, 20 + n], [False, False, True], label=n % 2) for n in range(8)], KTO()
    run = Run(model=Model(path="tiny"), data=Data(path="rows"), objective=aim)
    for rows, count in ((answers, 1), ([*answers[:-1], replace(answers[-1], ids=[9, 6, 27])], 0)):
        said: list[str] = []
        loop = loop_of(make_tiny, LoRA(), aim, rows)
        oracle = Asker(loop.policy, LoRA(), loop.layout, {"tests": str(uuid4())}, lambda text: None)
        before_learning(run, loop, [], oracle, said.append)
        assert [text.startswith("kto: all 8 answers are to one prompt") for text in said] == [True] * count


def test_the_doctor_looks_at_pairs_too(model_folder, pairs, tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"model: {{path: {model_folder}}}\ndata: {{path: {pairs}}}\nobjective: dpo\n")
    app(["doctor", str(recipe), "--json", "--rows", "2"], standalone_mode=False)
    findings = json.loads(capsys.readouterr().out)
    assert findings and all(one["holds"] for one in findings)
