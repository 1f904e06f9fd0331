"""Judges whose leanings are planted: their figures are known by arithmetic, and what they label is trusted or not."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
from rollout_stub import by, serving, shown, verdict

from tunesmith.cli import main
from tunesmith.data.example import Example, Message
from tunesmith.rewards._settings import Judge
from tunesmith.rollout.calibration import calibrate, read_calibration
from tunesmith.rollout.judge import AT_ONCE, Pair, open_judge
from tunesmith.rollout.judging import Writing
from tunesmith.rollout.written import answered

SIZE, LONGER = 60, 36
"""Pairs, and in how many of them people prefer the longer answer."""
KEY = "k3y-that-nobody-may-see-0123456789"


@pytest.fixture(autouse=True)
def apart(tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("OPENAI_API_KEY", KEY)


def answers(n):
    """A better and a worse answer: the better one says `good`, and is the longer one in the first of the pairs."""
    better, worse = f"good {n}", f"bad. {n}"
    return (better + " and more", worse) if n < LONGER else (better, worse + " and more")


ROWS = [{"prompt": f"question {n}?", "chosen": answers(n)[0], "rejected": answers(n)[1]} for n in range(SIZE)]
PAIRS = [Pair(({"role": "user", "content": row["prompt"]},), row["chosen"], row["rejected"]) for row in ROWS]


def wise(body, number=0):
    return by(lambda text: text.startswith("good"))(body, number)


def longest(body, number=0):
    return by(len)(body, number)


def first(body, number=0):
    return verdict("A")


def figures(reply):
    with serving(reply) as stub:
        made = calibrate(open_judge(Judge(url=stub.url, model="m")), PAIRS, "rows")
    assert made.pairs == SIZE and len(stub.bodies) == 2 * SIZE
    return made, {name: one.value for name, one in made.figures.items()}


def test_a_judge_who_thinks_as_people_do_is_found_perfect():
    made, found = figures(wise)
    assert (found["kappa"], found["accuracy"], found["ties"], found["position_bias"]) == (1, 1, 0, 0)
    assert found["longer_judge"] == found["longer_people"] == LONGER / SIZE and found["length_bias"] == 0
    assert made.figures["kappa"].interval == (1, 1) and made.distrust() is None


def test_a_judge_who_prefers_what_stands_first_is_found_out():
    made, found = figures(first)
    assert (found["kappa"], found["accuracy"], found["ties"]) == (0, 0.5, 1)
    assert (found["shown_first"], found["position_bias"]) == (1, 0.5)
    assert found["longer_judge"] is None and made.figures["length_bias"].interval is None
    assert "as low as a kappa of 0.00" in made.distrust()


def test_a_judge_who_prefers_what_is_longer_is_found_out():
    made, found = figures(longest)
    assert found["accuracy"] == pytest.approx(LONGER / SIZE)
    assert (found["ties"], found["position_bias"], found["longer_judge"]) == (0, 0, 1)
    assert found["length_bias"] == pytest.approx(1 - LONGER / SIZE)
    low, high = made.figures["accuracy"].interval
    normal = 1.96 * (0.6 * 0.4 / SIZE) ** 0.5
    assert low == pytest.approx(0.6 - normal, abs=0.03) and high == pytest.approx(0.6 + normal, abs=0.03)
    assert made.figures["length_bias"].interval[0] > 0.2 and made.distrust() is not None


def test_kappa_is_that_of_a_table_of_counts():
    _, found = figures(longest)
    from tunesmith.rollout.calibration import apart

    table = [[0, 0], [0, 0]]
    for n, pair in enumerate(PAIRS):
        turned = apart(pair)
        table[turned][turned if n < LONGER else not turned] += 1
    agreed = (table[0][0] + table[1][1]) / SIZE
    chance = sum(sum(table[k]) * (table[0][k] + table[1][k]) for k in (0, 1)) / SIZE**2
    assert found["kappa"] == pytest.approx((agreed - chance) / (1 - chance)) and table[0][0] and table[1][1]


def test_a_judge_who_is_swayed_now_and_then_is_so_by_so_much():
    def swayed(body, number):
        question = int(body["messages"][-1]["content"].split("question ")[1].split("?")[0])
        return first(body) if question % 5 == 0 else wise(body)

    _, found = figures(swayed)
    assert found["ties"] == pytest.approx(0.2) and found["position_bias"] == pytest.approx(0.1)
    assert found["accuracy"] == pytest.approx(0.9)


def test_what_is_left_unjudged_is_counted_and_distrusted(tmp_path):
    def often_mad(body, number):
        question = int(body["messages"][-1]["content"].split("question ")[1].split("?")[0])
        return "?" if question % 5 == 0 else wise(body)

    with serving(often_mad) as stub:
        made = calibrate(open_judge(Judge(url=stub.url, model="m", retries=0)), PAIRS, "rows")
    assert (made.pairs, made.unjudged) == (48, 12) and "left 12 of 60 pairs unjudged" in made.distrust()
    made.save(tmp_path / "c.json")
    assert read_calibration(tmp_path / "c.json") == made
    with serving(wise) as stub:
        few = calibrate(open_judge(Judge(url=stub.url, model="m")), PAIRS[:29], "rows")
        turned = [Pair(one.turns, one.other, one.one) for one in PAIRS[:2]]
        same = calibrate(open_judge(Judge(url=stub.url, model="m")), [*PAIRS[:2], *turned] * 8, "rows")
    assert "on 29 pairs only, and" in few.distrust() and (same.pairs, same.repeats) == (2, 30)
    assert "on 2 pairs only (30 rows more are of the same ones)" in same.distrust()


def test_a_lower_threshold_opens_nothing():
    made = figures(wise)[0]
    made.figures["kappa"] = replace(made.figures["kappa"], interval=(0.3, 0.6))
    assert "a kappa of 0.30, below the usual 0.4, though not the threshold 0.2 that was set" in made.distrust(0.2)
    assert "below the threshold 0.4" in made.distrust() and "below the threshold 0.5" in made.distrust(0.5)
    made.figures["kappa"] = replace(made.figures["kappa"], interval=(0.45, 0.6))
    assert made.distrust(0.2) is None and "below the threshold 0.5" in made.distrust(0.5)


# --- the commands -----------------------------------------------------------------------------------------------------


@pytest.fixture
def rows(tmp_path):
    """Pairs that people have compared, and others that nobody has."""
    human, new = tmp_path / "human.jsonl", tmp_path / "new.jsonl"
    human.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    unsorted = [
        {"prompt": f"other {n}?", "answer_a": answers(n)[n % 2], "answer_b": answers(n)[1 - n % 2]} for n in range(SIZE)
    ]
    new.write_text("".join(json.dumps(row) + "\n" for row in unsorted))
    return human, new


COLUMNS = ["data.format.name=preference", "data.format.chosen=answer_a", "data.format.rejected=answer_b"]


def run(*words):
    with pytest.raises(SystemExit) as left:
        main(["judge", *map(str, words)])
    return left.value.code or 0


def test_a_trusted_judge_labels_and_a_bad_one_only_if_told_so(rows, tmp_path, capsys):
    human, new = rows
    out, known = tmp_path / "labels.jsonl", tmp_path / "known.json"
    with serving(wise) as stub:
        told = [f"judge.url={stub.url}", "judge.model=m"]
        assert run("label", new, "--to", out, *told, *COLUMNS) == 2
        assert "nobody has held it against people" in capsys.readouterr().err and not out.exists()
        assert run("calibrate", human, "--to", known, *told) == 0
        assert "kappa" in (said := capsys.readouterr().out) and "may label" in said
        assert run("label", new, "--to", out, *told, *COLUMNS, f"calibration={known}", "judge.rubric=Other.") == 2
        assert "of another judge" in capsys.readouterr().err
        assert run("label", new, "--to", out, *told, *COLUMNS, f"calibration={known}") == 0
    labels = [json.loads(text) for text in out.read_text().splitlines()]
    assert [(row["chosen"], row["rejected"]) for row in labels] == [answers(n) for n in range(SIZE)]
    beside = json.loads((tmp_path / "labels.jsonl.calibration.json").read_text())
    assert beside["overridden"] is None and beside["calibration"]["figures"]["kappa"]["value"] == 1
    with serving(first) as stub:
        told = [f"judge.url={stub.url}", "judge.model=m"]
        assert run("calibrate", human, "--to", known, *told, "--json") == 0
        capsys.readouterr()
        other = tmp_path / "other.jsonl"
        assert run("label", new, "--to", other, *told, *COLUMNS, "--calibration", known) == 2
        assert "below the threshold 0.4" in capsys.readouterr().err
        assert run("label", new, "--to", other, *told, *COLUMNS, "--calibration", known, "--override") == 3
        assert "preferred no answer of 60 pairs" in capsys.readouterr().err and not other.exists()
    with serving(longest) as stub:
        told = [f"judge.url={stub.url}", "judge.model=m"]
        assert run("calibrate", human, "--to", known, *told) == 0
        words = ["--to", other, *told, *COLUMNS, "--calibration", known]
        assert run("label", new, *words, "--override") == 0
        assert json.loads((tmp_path / "other.jsonl.calibration.json").read_text())["overridden"]
        other.unlink()
        for threshold in ("-0.5", "nan", "1.5", "0"):
            assert run("label", new, *words, f"--threshold={threshold}") == 2 and not other.exists()
        assert run("label", new, *words, "--threshold=0", "--override") == 0
        assert json.loads((tmp_path / "other.jsonl.calibration.json").read_text())["threshold"] == 0
    written = [file for file in tmp_path.rglob("*") if file.is_file()]
    assert len(written) > 100 and not [file for file in written if KEY.encode() in file.read_bytes()]


def test_labels_that_are_trained_on_bring_their_judge_into_the_run(rows, tmp_path, model_folder, capsys):
    human, new = rows
    out, known = tmp_path / "labels.jsonl", tmp_path / "known.json"
    with serving(wise) as stub:
        told = [f"judge.url={stub.url}", "judge.model=m"]
        run("calibrate", human, "--to", known, *told)
        run("label", new, "--to", out, *told, *COLUMNS, "--calibration", known)
    words = [f"model.path={model_folder}", f"data.path={out}", "objective=dpo", "train.max_steps=1"]
    with pytest.raises(SystemExit) as left:
        main(["train", *words, "eval.enabled=false", f"output={tmp_path / 'run'}"])
    assert not left.value.code
    [one] = json.loads((tmp_path / "run" / "run.json").read_text())["judges"]
    assert one["judge"] == "m" and one["unchanged"] and one["calibration"]["figures"]["accuracy"]["value"] == 1
    said = capsys.readouterr()
    assert "labels of the judge m, kappa with people 1.00" in said.out + said.err
    assert "labels of the judge m" in (tmp_path / "run" / "report.html").read_text()


def test_a_killed_label_loses_one_batch_at_most(rows, tmp_path):
    _, new = rows
    out = tmp_path / "labels.jsonl"

    def slowly(body, number):
        time.sleep(0.02)
        return wise(body)

    with serving(slowly) as stub:
        words = ["label", new, "--to", out, f"judge.url={stub.url}", "judge.model=m", *COLUMNS, "--override"]
        child = subprocess.Popen([sys.executable, "-m", "tunesmith", "judge", *map(str, words)])
        until = time.monotonic() + 60
        while len(stub.bodies) < 40 and time.monotonic() < until:
            time.sleep(0.01)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        time.sleep(0.2)  # what was under way is answered to nobody
        before = len(stub.bodies)
        assert 40 <= before < 2 * SIZE and not out.exists()
        assert run(*words) == 0
        assert len(stub.bodies) <= 2 * SIZE + AT_ONCE + 4
    assert len(out.read_text().splitlines()) == SIZE


def test_a_judge_rewrites_answers_and_prefers_what_it_has_written_only_if_it_does(tmp_path, capsys):
    data, out = tmp_path / "one.jsonl", tmp_path / "labels.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"p{n}", "completion": f"bad {n}"}) + "\n" for n in range(4)))

    def constitutional(body, number):
        text = body["messages"][-1]["content"]
        if "<answer_A_" in text:
            return wise(body)
        if "<critique_" in text:
            return json.dumps({"answer": "good, and new"})
        return json.dumps({"critique": "it is bad"})

    with serving(constitutional) as stub:
        told = [f"judge.url={stub.url}", "judge.model=m", "--override"]
        assert run("label", data, "--to", out, *told) == 3
        assert "has 1 answers where two are compared" in capsys.readouterr().err
        assert run("label", data, "--to", out, *told, "revise=true") == 0
    labels = [json.loads(text) for text in out.read_text().splitlines()]
    assert [(row["chosen"], row["rejected"]) for row in labels] == [("good, and new", f"bad {n}") for n in range(4)]


def test_a_model_writes_two_answers_that_are_compared(tmp_path, model_folder, capsys):
    data, out = tmp_path / "prompts.jsonl", tmp_path / "labels.jsonl"
    data.write_text("".join(json.dumps({"prompt": f"p{n}", "answer": "x"}) + "\n" for n in range(10)))
    write = [f"write.model={model_folder}", "write.max_new_tokens=6"]
    seen = []

    def longer(body, number):
        seen.append(shown(body))
        return longest(body)

    with serving(longer) as stub:
        told = [f"judge.url={stub.url}", "judge.model=m", "--override", *write]
        assert run("label", data, "--to", out, *told) == 0
        asked = len(stub.bodies)
        first = out.read_text()
        out.unlink()
        assert run("label", data, "--to", out, *told) == 0
        assert len(stub.bodies) == asked and out.read_text() == first  # the same answers again, and none asked about
    assert 1 <= len(first.splitlines()) <= 10 and any(one != other for one, other in seen)
    pairs = [(row["chosen"][-1], row["rejected"][-1]) for row in map(json.loads, first.splitlines())]
    assert all(len(better["content"]) >= len(worse["content"]) for better, worse in pairs)
    # one that was cut off after six tokens is told from one that came to its end, so that no end is learnt from it
    assert {turn.get("ended", True) for pair in pairs for turn in pair} >= {False}
    asked = [Example(prompt=(Message("user", f"p{n}"),)) for n in range(8)]
    found = answered(asked, Writing(model=str(model_folder), max_new_tokens=400), lambda done, of: None)
    assert any(answer.messages[-1].ended for one in found for answer in one.answers)  # each does at 2 of 3 draws
