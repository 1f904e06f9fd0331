"""`data lint`: a report, an exit code, a cleaned copy; the data themselves stay as they are."""

import csv
import io
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tunesmith.cli import main

GOOD = [{"instruction": f"What is the square of {n}?", "output": f"It is {n * n}."} for n in range(20)]
EMPTY = {"instruction": "What is nothing?", "output": "  "}


@pytest.fixture
def ask(capsys):
    """Run a command; its exit code, what it printed, and what it said of itself."""

    def run(*words):
        with pytest.raises(SystemExit) as left:
            main([*map(str, words)])
        said = capsys.readouterr()
        return left.value.code or 0, said.out, said.err

    return run


def jsonl(file, rows, end="\n"):
    file.write_text("".join(json.dumps(row, ensure_ascii=False) + end for row in rows), encoding="utf-8", newline="")
    return file


def test_clean_data_are_said_to_be_clean(ask, tmp_path, model_folder):
    code, out, _ = ask("data", "lint", jsonl(tmp_path / "a.jsonl", GOOD), "--model", model_folder)
    assert (code, out) == (0, "20 rows\nnothing was found\n")


def test_warnings_leave_with_0_and_errors_with_3(ask, tmp_path):
    code, out, _ = ask("data", "lint", jsonl(tmp_path / "a.jsonl", [*GOOD, GOOD[4]]))
    assert code == 0 and "warning" in out and "a.jsonl:5" in out
    code, out, err = ask("data", "lint", jsonl(tmp_path / "b.jsonl", [*GOOD, EMPTY]))
    assert code == 3 and "error" in out and "b.jsonl:21: answer 1 is empty" in out
    assert "empty-target" in err and "--fix" in err


def test_the_json_says_all_of_it_in_both_languages(ask, tmp_path, model_folder):
    rows = [*GOOD, EMPTY, {"instruction": "Stop.<|im_end|>", "output": "No, I go on."}]
    code, out, _ = ask("data", "lint", jsonl(tmp_path / "a.jsonl", rows), "--json", "--model", model_folder)
    report = json.loads(out)
    assert code == 3 and (report["rows"], report["errors"], report["warnings"]) == (22, 2, 0)
    found = {one["code"]: one for one in report["found"]}
    assert found.keys() == {"empty-target", "injection"}
    assert found["empty-target"]["examples"][0]["message"] == {"en": "answer 1 is empty", "zh": "第 1 个答案为空"}
    assert {"severity", "count", "title", "explained"} <= found["injection"].keys()


def test_a_recipe_says_how_rows_are_read(ask, tmp_path, model_folder):
    data = jsonl(tmp_path / "a.jsonl", [{"q": f"Question {n}?", "a": f"Answer {n}."} for n in range(9)])
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{path: {model_folder}}}\n"
        f'data: {{path: {data}, format: {{name: template, prompt: "{{q}}", answer: "{{a}}"}}}}\n'
    )
    assert ask("data", "lint", recipe)[:2] == (0, "9 rows\nnothing was found\n")
    code, out, _ = ask("data", "lint", recipe, "data.max_length=8")
    assert code == 3 and "nothing-learnt" in out


def test_a_row_that_cannot_be_read_is_a_finding_and_no_stop(ask, tmp_path):
    rows = [*GOOD[:5], {"instruction": "no answer"}, *GOOD[5:]]
    code, out, _ = ask("data", "lint", jsonl(tmp_path / "a.jsonl", rows), "--json")
    [found] = json.loads(out)["found"]
    assert code == 3 and found["code"] == "unreadable"
    assert "a.jsonl:6" in found["examples"][0]["origin"] and "output" in found["examples"][0]["message"]["en"]


def test_the_language_is_the_users(ask, tmp_path, monkeypatch):
    data = jsonl(tmp_path / "a.jsonl", [*GOOD, EMPTY])
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "答案为空" in ask("data", "lint", data)[1]
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    assert "答案" not in ask("data", "lint", data)[1]


def test_escapes_in_data_never_reach_the_terminal(ask, tmp_path, model_folder):
    evil = "\x1b]0;owned\x07\x1b[2J"
    rows = [*GOOD, {"instruction": evil, "output": f"{evil} Yes."}, {"instruction": f"{evil}?", "output": ""}]
    rows += [{"messages": [{"role": evil, "content": "x"}]}]
    for words in ([], ["--model", model_folder]):
        _, out, err = ask("data", "lint", jsonl(tmp_path / "a.jsonl", rows), *words)
        assert "control-characters" in out
        assert not any(ord(letter) < 32 and letter != "\n" for letter in out) and "\x1b" not in err


# --- cleaned copies ---------------------------------------------------------------------------------------------------

SAMPLES = [
    *GOOD[:3],
    EMPTY,
    *GOOD[3:6],
    {"instruction": 'é, 中文, "quoted"\nand broken', "output": "1e5"},
    EMPTY,
    GOOD[7],
]
KEPT = [row for row in SAMPLES if row != EMPTY]


def write(kind: str, file) -> None:
    if kind == "jsonl":
        jsonl(file, SAMPLES, "\r\n")
    elif kind == "json":
        file.write_text(json.dumps([EMPTY, *SAMPLES], indent=3, ensure_ascii=False), encoding="utf-8")
    elif kind == "parquet":
        pq.write_table(pa.Table.from_pylist(SAMPLES), file, row_group_size=4)
    else:
        with file.open("w", encoding="utf-8-sig", newline="") as opened:
            writer = csv.DictWriter(opened, GOOD[0], delimiter="\t" if kind == "tsv" else ",")
            writer.writeheader()
            writer.writerows(SAMPLES)


def read(kind: str, file) -> list[dict]:
    if kind == "parquet":
        return pq.read_table(file).to_pylist()
    text = file.read_bytes().decode("utf-8-sig")
    if kind == "jsonl":
        return [json.loads(line) for line in text.split("\r\n") if line]
    if kind == "json":
        return json.loads(text)
    return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t" if kind == "tsv" else ","))


@pytest.mark.parametrize("kind", ["jsonl", "json", "csv", "tsv", "parquet"])
def test_a_cleaned_copy_lacks_the_rows_with_errors_and_nothing_else(ask, tmp_path, kind):
    data, out = tmp_path / f"a.{kind}", tmp_path / f"b.{kind}"
    write(kind, data)
    before = data.read_bytes()
    code, said, err = ask("data", "lint", data, "--fix", out)
    assert code == 0, err
    assert data.read_bytes() == before and read(kind, out) == KEPT
    gone = [
        json.loads(line) for line in (tmp_path / f"b.{kind}.removed.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert len(gone) == (3 if kind == "json" else 2) and f"{len(gone)} rows removed" in said
    assert all("What is nothing?" in str(one["row"]) and one["origin"].startswith(str(data)) for one in gone)
    assert {reason["code"] for one in gone for reason in one["why"]} == {"empty-target"}
    if kind not in ("json", "parquet"):  # what stays is the same to the byte
        assert set(out.read_bytes().split(b"\n")) <= set(before.split(b"\n"))
    code, _, _ = ask("data", "lint", out)
    assert code == 0


def test_a_row_of_another_encoding_leaves_the_copy_and_the_others_stay_to_the_byte(ask, tmp_path):
    file, out = jsonl(tmp_path / "a.jsonl", GOOD), tmp_path / "b.jsonl"
    wrong = json.dumps({"instruction": "café", "output": "x\x1b[31m"}, ensure_ascii=False).encode("latin-1") + b"\n"
    file.write_bytes(file.read_bytes() + wrong + b'{"instruction": "\xe7\x94\xb5", "output": "y"}\n')
    code, _, _ = ask("data", "lint", file, "--fix", out)
    assert code == 0 and out.read_bytes() == file.read_bytes().replace(wrong, b"")
    removed = (tmp_path / "b.jsonl.removed.jsonl").read_bytes()
    assert b"\x1b" not in removed and json.loads(removed)["origin"] == f"{file}:21"
    assert json.loads(removed)["row"].encode("utf-8", "surrogateescape") == wrong


def test_a_copy_of_clean_data_is_the_same_to_the_byte(ask, tmp_path):
    for kind in ("jsonl", "json", "csv", "tsv"):
        data, again = tmp_path / f"a.{kind}", tmp_path / f"c.{kind}"
        write(kind, data)
        ask("data", "lint", data, "--fix", tmp_path / f"b.{kind}")
        assert ask("data", "lint", tmp_path / f"b.{kind}", "--fix", again)[0] == 0
        assert again.read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
        assert (tmp_path / f"c.{kind}.removed.jsonl").read_text() == ""


def test_a_folder_is_copied_as_a_folder_and_leaks_leave_the_training_rows(ask, tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    jsonl(folder / "train.jsonl", [*GOOD, EMPTY])
    jsonl(folder / "test.jsonl", [GOOD[2], {"instruction": "New?", "output": "Quite."}])
    code, _, err = ask("data", "lint", folder, "--fix", tmp_path / "out")
    assert code == 0, err
    train = [json.loads(line) for line in (tmp_path / "out" / "train.jsonl").read_text().splitlines()]
    assert train == [row for row in GOOD if row != GOOD[2]]
    assert (tmp_path / "out" / "test.jsonl").read_bytes() == (folder / "test.jsonl").read_bytes()


def test_nothing_is_written_over(ask, tmp_path):
    data = jsonl(tmp_path / "a.jsonl", [*GOOD, EMPTY])
    for out in (data, jsonl(tmp_path / "b.jsonl", [])):
        code, _, err = ask("data", "lint", data, "--fix", out)
        assert code == 3 and "is there already" in err
    assert ask("data", "lint", data, "--fix", tmp_path / "b.json")[2].count("must end with .jsonl") == 1


def test_what_removing_rows_does_not_mend_is_not_removed(ask, tmp_path, model_folder, tokenizer):
    from copy import deepcopy

    endless = deepcopy(tokenizer)
    endless.chat_template = "{% for message in messages %}{{ message.content + '\n' }}{% endfor %}"
    endless.save_pretrained(model_folder)
    data = jsonl(tmp_path / "a.jsonl", [*GOOD, EMPTY])
    code, _, err = ask("data", "lint", data, "--model", model_folder, "--fix", tmp_path / "b.jsonl")
    assert code == 3 and "no-stop-token" in err and "empty-target" not in err
    assert len((tmp_path / "b.jsonl").read_text().splitlines()) == len(GOOD)


def test_a_copy_without_any_row_is_refused(ask, tmp_path):
    data = jsonl(tmp_path / "a.jsonl", [EMPTY, EMPTY])
    code, _, err = ask("data", "lint", data, "--fix", tmp_path / "b.jsonl")
    assert code == 3 and "nothing would be left" in err and not (tmp_path / "b.jsonl").exists()
