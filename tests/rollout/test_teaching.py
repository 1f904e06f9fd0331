"""A judge that is taught by people's comparisons learns what it will be asked, and labels by nothing but its word."""

import json

import pytest
from rollout_stub import by, serving

from tunesmith.cli import main
from tunesmith.data.formats.messages import Messages
from tunesmith.data.rendering.render import Renderer
from tunesmith.rewards._settings import Judge
from tunesmith.rollout.judge import open_judge
from tunesmith.rollout.question import comparison
from tunesmith.run import Data

PAIRS = [("warm and funny", "dull mess"), ("good friends", "lifeless film"), ("funny story", "wastes cast")]
ROWS = [{"prompt": "a film", "chosen": better, "rejected": worse} for better, worse in PAIRS]
TURNS = ({"role": "user", "content": "a film"},)
RUBRIC = "The warmer."


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.chdir(tmp_path)


def run(*words):
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    return left.value.code or 0


def rows(file, made):
    file.write_text("".join(json.dumps(row) + "\n" for row in made))
    return file


def read(file):
    return [json.loads(text) for text in file.read_text().splitlines()]


def test_what_is_taught_is_what_is_asked_and_ranked(tmp_path, model_folder, tokenizer):
    again = [ROWS[0] | {"chosen": ROWS[0]["rejected"], "rejected": ROWS[0]["chosen"]}, ROWS[0]]
    alike = [{"prompt": "a film", "chosen": "same", "rejected": "same "}]
    human, out = rows(tmp_path / "human.jsonl", [*ROWS, *again, *alike]), tmp_path / "lessons.jsonl"
    told = [f"judge.model={model_folder}", "judge.reason=false", f"judge.rubric={RUBRIC}"]
    assert run("judge", "teach", human, "--to", out, *told) == 0
    judge = open_judge(Judge(model=str(model_folder), reason=False, rubric=RUBRIC)).speaker
    renderer, lessons = Renderer(tokenizer, Data(path="none", max_length=4096)), read(out)
    asked = [
        (comparison(TURNS, *shown, RUBRIC, False), right)
        for better, worse in PAIRS
        for shown, right in (((better, worse), 0), ((worse, better), 1))
    ]
    assert len(lessons) == len(asked) == 2 * len(PAIRS)
    for row, (question, right) in zip(lessons, asked, strict=True):
        [example] = Messages().examples(row)
        [tokens] = renderer.render(example, "answers")
        prompt, answer = judge.prompt(question), judge.answers(question)[right]
        assert tokens.ids[: len(prompt) + len(answer)] == prompt + answer
        learnt = [token for token, counts in zip(tokens.ids, tokens.learn, strict=True) if counts]
        assert learnt == answer and question.read(example.gold) == "AB"[right]


def test_what_cannot_be_taught_is_refused(tmp_path, capsys):
    human = rows(tmp_path / "human.jsonl", ROWS)
    told = ["judge", "teach", human, "judge.model=m"]
    assert run(*told, "--to", "lessons.jsonl") == 2
    assert "judge.reason: pairs come without reasons" in capsys.readouterr().err
    told.append("judge.reason=false")
    assert run(*told, "--to", "lessons.json") == 2 and "must end with .jsonl" in capsys.readouterr().err
    assert run(*told, "--to", human) == 2 and "is there already" in capsys.readouterr().err
    assert run(*told, "--to", "lessons.jsonl", "threshold=0.5") == 2 and "threshold" in capsys.readouterr().err
    assert run(*told, "--to", "lessons.jsonl", "agreement=0.9") == 3
    assert "human.jsonl:1: does not say how far raters agree" in capsys.readouterr().err
    same = rows(tmp_path / "same.jsonl", [{"prompt": "a film", "chosen": "x", "rejected": "x"}])
    assert run("judge", "teach", same, "--to", "lessons.jsonl", *told[3:]) == 3
    assert "no pair of two different answers" in capsys.readouterr().err and not (tmp_path / "lessons.jsonl").exists()


def test_a_judge_may_be_taught_by_pairs_alone_on_which_raters_agree(tmp_path):
    scores = ([2, 2], [1, 1]), ([2, 0], [1, 1])  # all of them, and half of them
    made = [ROWS[n] | {"chosen_ratings": better, "rejected_ratings": worse} for n, (better, worse) in enumerate(scores)]
    human = rows(tmp_path / "human.jsonl", [*made, ROWS[2] | {"agreement": 0.8}])
    told = ["judge", "teach", human, "judge.model=m", "judge.reason=false"]
    for least, count in ((0.5, 6), (0.8, 4), (0.9, 2)):
        assert run(*told, "--to", f"lessons-{least}.jsonl", f"agreement={least}") == 0
        assert len(read(tmp_path / f"lessons-{least}.jsonl")) == count


def test_a_run_that_has_learnt_to_judge_judges_labels_and_is_learnt_from(tmp_path, tiny, tokenizer, capsys):
    """A tiny model learns two pairs by heart; as it comes it knows nothing of them."""
    model_folder = tmp_path / "tiny"
    tiny(initializer_range=0.3).save_pretrained(model_folder)  # of larger weights, it learns in a few steps
    tokenizer.save_pretrained(model_folder)
    human = rows(tmp_path / "human.jsonl", ROWS[:2])
    (tmp_path / "judge.yaml").write_text(f"judge: {{model: judge, reason: false, rubric: {RUBRIC}}}\n")
    told = ["--judge", "judge.yaml"]
    assert run("judge", "teach", human, "--to", "lessons.jsonl", *told) == 0
    words = [f"model.path={model_folder}", "eval.enabled=false", "train.save_strategy=no"]
    learn = ["data.path=lessons.jsonl", "data.eval_size=0", "train.learning_rate=0.01", "train.max_steps=30"]
    assert run("train", *words, *learn, "train.lr_scheduler_type=constant", "method=full", "output=judge") == 0
    assert run("judge", "calibrate", human, *told, f"judge.model={model_folder}", "--to", "before.json") == 0
    assert run("judge", "calibrate", human, *told, "--to", "after.json") == 0
    known = [json.loads((tmp_path / name).read_text())["figures"] for name in ("before.json", "after.json")]
    assert known[0]["accuracy"]["value"] < 1 and known[1]["accuracy"]["value"] == 1
    unsorted = [
        {"prompt": "a film", "answer_a": pair[n % 2], "answer_b": pair[1 - n % 2]} for n, pair in enumerate(PAIRS[:2])
    ]
    new = rows(tmp_path / "new.jsonl", unsorted)
    columns = ["data.format.name=preference", "data.format.chosen=answer_a", "data.format.rejected=answer_b"]
    label = ["judge", "label", new, "--to", "labels.jsonl", *told, *columns, "calibration=after.json"]
    assert run(*label) == 2 and "on 2 pairs only" in capsys.readouterr().err
    assert run(*label, "--override") == 0
    assert [(row["chosen"], row["rejected"]) for row in read(tmp_path / "labels.jsonl")] == PAIRS[:2]
    words = [f"model.path={model_folder}", "data.path=labels.jsonl", f"data.eval_path={human}", "data.on_lint=warn"]
    assert run("train", *words, "objective=dpo", "train.max_steps=2", "output=policy") == 0
    facts = json.loads((tmp_path / "policy" / "run.json").read_text())
    assert facts["judges"][0]["judge"] == "judge" and "on 2 pairs only" in facts["judges"][0]["overridden"]


def test_labels_say_nothing_of_what_people_said(tmp_path):
    """Rows whose order and scores are people's are labelled as the same rows without either."""
    scored = [row | {"chosen_ratings": [3, 2], "rejected_ratings": [-1]} for row in ROWS]
    scored += [{"prompt": "b", "chosen": "x", "rejected": "longer", "margin": 2, "agreement": 0.9}]
    turned = [{"prompt": row["prompt"], "chosen": row["rejected"], "rejected": row["chosen"]} for row in scored]
    with serving(by(len)) as stub:
        told = [f"judge.url={stub.url}", "judge.model=m", "--override"]
        for name, made in (("scored", scored), ("turned", turned)):
            file = rows(tmp_path / f"{name}.jsonl", made)
            assert run("judge", "label", file, "--to", f"labels-{name}.jsonl", *told) == 0
    labels = (tmp_path / "labels-scored.jsonl").read_text()
    assert labels == (tmp_path / "labels-turned.jsonl").read_text()
    assert read(tmp_path / "labels-scored.jsonl")[-1] == {"prompt": "b", "chosen": "longer", "rejected": "x"}
