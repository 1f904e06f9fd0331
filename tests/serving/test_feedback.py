"""From an answer to a row that is learnt from: what was said is kept with what it is about, and counted as it is."""

import json
import sqlite3
from contextlib import closing

import pytest
from served import running, send

from tunesmith.cli import main
from tunesmith.errors import DataError
from tunesmith.serving.harvest import hear, rows
from tunesmith.serving.store import Store

ASKED = [{"role": "user", "content": "is the film warm?"}]


def say(site, **said):
    return send(site, "/v1/feedback", said)


def answer(site, n=1, **more):
    body = {"model": "red", "messages": ASKED, "max_tokens": 6, "n": n, "seed": 1, **more}
    return send(site, "/v1/chat/completions", body)[1]


def run(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    said = capsys.readouterr()
    return left.value.code or 0, said.out + said.err


def test_what_people_say_becomes_rows_that_train_reads(shelf, tmp_path, capsys):
    file = tmp_path / "said.sqlite"
    with running(shelf, adapters=(f"red={shelf / 'red'}",), feedback=str(file)) as site:
        two, one = answer(site, n=2), answer(site, seed=3, user="ann")
        assert say(site, response_id=two["id"], index=1, better_than=0, tags=["short"], rater="bob")[0] == 200
        assert say(site, response_id=one["id"], thumb="up")[1]["kept"] == 1
        assert say(site, response_id=one["id"], thumb="up")[0] == 200
        assert say(site, response_id=two["id"], thumb="down", edit="Yes, warm and funny.", rater="bob")[0] == 200
        for wrong, status in (
            ({"response_id": "chatcmpl-none", "thumb": "up"}, 404),
            ({"response_id": two["id"], "index": 5, "thumb": "up"}, 404),
            ({"response_id": two["id"], "index": (1 << 64) - 1, "thumb": "up"}, 400),
            ({"response_id": two["id"], "better_than": f"x#{1 << 70}"}, 404),
            ({"response_id": two["id"]}, 400),
            ({"response_id": two["id"], "thumb": "maybe"}, 400),
            ({"response_id": two["id"], "better_than": 0}, 400),
            ({"response_id": two["id"], "thumb": "up", "color": 1}, 400),
            ({"response_id": two["id"], "edit": two["choices"][0]["message"]["content"]}, 400),
        ):
            assert say(site, **wrong)[0] == status, wrong
        streamed = {"model": "red", "messages": [{"role": "user", "content": "why?"}], "stream": True, "max_tokens": 4}
        chunks = send(site, "/v1/chat/completions", streamed)[1]
        other = json.loads(chunks.split("\n")[0].removeprefix("data: "))["id"]
        assert say(site, response_id=other, thumb="up", rater="bob")[0] == 200
        status, said, _ = say(site, response_id=other, better_than=one["id"])
        assert status == 400 and "another prompt" in said["error"]["message"]
    with closing(Store(file, create=False)) as store:
        heard, kept = hear(store), store.find(one["id"], 0)
    assert kept.prompt["messages"] == ASKED and kept.sampled["seed"] == 3 and kept.asker == "ann"
    assert kept.answer["content"] == one["choices"][0]["message"]["content"]
    assert kept.made_of["base"] == "tiny" and len(kept.made_of["adapter"]) == 64 and kept.made_of["template"]
    figures = heard.figures()
    assert (figures["liked"], figures["disliked"], figures["edits"], figures["comparisons"]) == (2, 1, 1, 1)
    assert figures["duplicates"] == 1 and figures["raters"] == 2 and figures["tags"] == {"short": 1}
    texts = [one["message"]["content"] for one in two["choices"]]
    pairs = {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows(heard, "preference")}
    assert pairs == {(texts[1], texts[0]), ("Yes, warm and funny.", texts[0])}
    labels = {row["completion"][0]["content"]: row["label"] for row in rows(heard, "kto")}
    assert labels[texts[0]] is False and labels["Yes, warm and funny."] is True and len(labels) == 4
    assert [row["messages"][0] for row in rows(heard, "sft")][0] == ASKED[0]
    cut = {choice["message"]["content"]: choice["finish_reason"] == "length" for choice in two["choices"]}
    assert any(cut.values())
    for row in rows(heard, "preference"):
        for turn in (row["chosen"][0], row["rejected"][0]):
            assert turn.get("ended", True) is not cut.get(turn["content"], False)
    assert json.loads(run(capsys, "feedback", "stats", file, "--json")[1]) == figures
    for kind, objective in (("preference", "dpo"), ("sft", "sft")):
        code, said = run(capsys, "feedback", "export", file, "--to", tmp_path / f"{kind}.jsonl", "--as", kind)
        assert code == 0, said
        rows_file = tmp_path / f"{kind}.jsonl"
        whole = ["--model", shelf / "tiny", f"objective={objective}", "data.eval_size=0"]
        code, said = run(capsys, "data", "preview", rows_file, *whole)
        assert code == 0 and "warm" in said, said
    words = [
        "feedback", "train", file, "--base", shelf / "tiny", "--to", tmp_path / "learnt", "--as", "kto",
        f"output={tmp_path / 'run'}", "train.max_steps=2", "data.eval_size=0", "data.on_lint=warn",
        "eval.enabled=false",
    ]  # fmt: skip
    code, said = run(capsys, *words)
    assert code == 0, said
    assert (tmp_path / "run" / "adapter" / "adapter_model.safetensors").is_file()
    assert json.loads((tmp_path / "learnt" / "kto.jsonl.provenance.json").read_text())["rows"] == 4


def test_conflicts_floods_and_what_is_no_feedback_are_named(tmp_path, capsys):
    from tunesmith.serving.store import Answered, Verdict

    file = tmp_path / "said.sqlite"
    with closing(Store(file)) as store:
        places = [
            Answered(f"r{n}", 0, {"messages": ASKED}, {"role": "assistant", "content": f"{n}"}) for n in range(30)
        ]
        store.answered(places)
        modes = {one.name: one.stat().st_mode & 0o777 for one in tmp_path.iterdir()}
        assert modes == dict.fromkeys(("said.sqlite", "said.sqlite-wal", "said.sqlite-shm"), 0o600)
        store.say([Verdict(f"r{n}", 0, "thumb", "up", "ann") for n in range(25)])
        store.say([Verdict("r0", 0, "thumb", "down", "bob"), Verdict("r1", 0, "thumb", "down", "ann")])
        store.say([Verdict("r2", 0, "better_than", {"id": "r3", "place": 0}, "ann")])
        store.say([Verdict("r3", 0, "better_than", {"id": "r2", "place": 0}, "bob")])
        with pytest.raises(sqlite3.IntegrityError):
            store.say([Verdict("r4", 0, "tag", "x", "ann"), Verdict("nowhere", 0, "thumb", "up", "ann")])
        heard = hear(store)
    figures = heard.figures()
    assert (figures["conflicts"], figures["changed"], figures["circles"], figures["floods"]) == (1, 1, 1, ["ann"])
    assert figures["tags"] == {}  # of what could not be kept whole, nothing was
    found = {row["completion"][0]["content"]: row["label"] for row in rows(heard, "kto")}
    assert "0" not in found and found["1"] is False and len(found) == 24
    assert rows(heard, "preference") == []
    assert "one rater (ann)" in run(capsys, "feedback", "stats", file)[1]
    assert run(capsys, "feedback", "export", file, "--to", tmp_path / "p.jsonl", "--as", "preference")[0] == 3
    (tmp_path / "text.sqlite").write_text("no database at all, and long enough to be looked at" * 20)
    for wrong in (tmp_path / "text.sqlite", tmp_path / "missing.sqlite"):
        with pytest.raises(DataError, match="feedback"):
            Store(wrong, create=False)


def test_what_was_said_counts_and_not_under_which_id(tmp_path):
    """Four answers to one prompt, each given twice; a second prompt as a text, which is the same to who learns."""
    from tunesmith.serving.store import Answered, Verdict

    with closing(Store(tmp_path / "said.sqlite")) as store:
        for n, word in enumerate("abcdabcd"):
            prompt = {"messages": ASKED} if n < 4 else {"prompt": ASKED[0]["content"]}
            store.answered([Answered(f"{word}{n // 4}", 0, prompt, {"role": "assistant", "content": word})])
        thumbs = (
            ("a0", "up", "ann"), ("a1", "down", "bob"),  # two who disagree
            ("b0", "up", ""), ("b1", "down", ""),  # as may two without a name
            ("c0", "up", "ann"), ("c1", "down", "ann"),  # one who has changed their mind
            ("d0", "up", "ann"), ("d1", "up", "bob"),
        )  # fmt: skip
        store.say([Verdict(id, 0, "thumb", value, rater) for id, value, rater in thumbs])
        store.say([
            Verdict(one, 0, "better_than", {"id": other, "place": 0}, rater)
            for one, other, rater in (
                ("a0", "b0", "ann"), ("b1", "a1", "ann"),  # changed, and b is better
                ("c0", "d0", "ann"), ("d1", "c1", "bob"),  # a circle
                ("a0", "a1", "ann"),  # no difference
            )
        ])  # fmt: skip
        store.say([Verdict("c1", 0, "edit", "d", "eve"), Verdict("d0", 0, "edit", "a", "eve")])
        heard = hear(store)
    figures = heard.figures()
    assert (figures["conflicts"], figures["changed"], figures["circles"]) == (2, 2, 1)
    found = [(row["completion"][0]["content"], row["label"]) for row in rows(heard, "kto")]
    assert sorted(found) == [("c", False), ("d", True)]
    pairs = {(row["chosen"][0]["content"], row["rejected"][0]["content"]) for row in rows(heard, "preference")}
    assert pairs == {("b", "a"), ("a", "d")}
    assert rows(heard, "sft") == [{"messages": [*ASKED, {"role": "assistant", "content": "d"}]}]


COURSE = (
    "method=full", "train.learning_rate=3e-2", "train.max_steps=30", "train.per_device_train_batch_size=16",
    "data.eval_size=0", "data.on_lint=warn", "eval.enabled=false",
)  # fmt: skip


def test_a_person_who_rates_is_heard(shelf, tokenizer, tmp_path, capsys):
    """The whole circle: serve, rate 200 answers by a rule, learn by KTO, serve again, and ask by other seeds."""
    texts = [f"{one} {other}" for one in ("one", "two", "three", "four", "five") for other in "abcde"]
    halves = [n for n in range(len(tokenizer)) if "\ufffd" in tokenizer.decode([n])]  # no text tells them apart
    more = {"max_tokens": 2, "n": 8, "logit_bias": {str(n): -100 for n in halves}}
    file = tmp_path / "said.sqlite"

    def talk(site, model, seed):
        for n, text in enumerate(texts):
            body = {"model": model, "messages": [{"role": "user", "content": text}], "seed": seed + n, **more}
            status, made, _ = send(site, "/v1/chat/completions", body)
            assert status == 200, made
            for one in made["choices"]:
                yield made["id"], one["index"], one["message"]["content"][:1].isalpha()

    with running(shelf, feedback=str(file)) as site:
        talks = list(talk(site, "tiny", 0))
        for id, index, liked in talks:
            said = {"response_id": id, "index": index, "thumb": "up" if liked else "down", "rater": "person"}
            assert say(site, **said)[0] == 200
    words = ["--base", shelf / "tiny", "--to", tmp_path / "next", "--as", "kto", f"output={tmp_path / 'run'}", *COURSE]
    code, said = run(capsys, "feedback", "train", file, *words)
    assert code == 0, said
    with running(tmp_path, model=str(tmp_path / "run"), queue=0) as site:  # which lets in what there is room for
        after = [liked for _, _, liked in talk(site, "run", 1000)]
    before = [liked for _, _, liked in talks]
    assert len(before) == len(after) == 200
    share, rise = (sum(before) + sum(after)) / 400, (sum(after) - sum(before)) / 200
    assert rise / (share * (1 - share) * 2 / 200) ** 0.5 > 3, (sum(before), sum(after))


def test_a_full_disk_costs_the_feedback_and_no_answer(shelf, tmp_path):
    file = tmp_path / "said.sqlite"
    with running(shelf, adapters=(f"red={shelf / 'red'}",), feedback=str(file)) as site:
        first = answer(site)
        with closing(sqlite3.connect(file)) as base:
            base.execute("BEGIN IMMEDIATE")  # as good as a disk that takes nothing
            second = answer(site, seed=2)
            assert second["choices"][0]["message"]["content"]
            status, said, _ = say(site, response_id=first["id"], thumb="up")
            assert status in (503, 507) and said["error"]["code"] == "not_kept"
        assert say(site, response_id=first["id"], thumb="up")[0] == 200
        assert say(site, response_id=second["id"], thumb="up")[0] == 404
