"""A dialogue by hand: sides, settings and ratings; what is said is what a server of the same run says."""

import io
import json
from contextlib import closing

import pytest
import torch
from served import adapter, running, send

from tunesmith.cli import main
from tunesmith.model.load import hushed
from tunesmith.serving.decoding import Decoding
from tunesmith.serving.harvest import hear
from tunesmith.serving.store import Store
from tunesmith.serving.talk import Talk
from tunesmith.tuned import load_run

ASKED = "judge: the film is warm"


@pytest.fixture
def run(model_folder, reviews, tmp_path):
    """A run that has learnt a little, and an adapter beside it."""
    with pytest.raises(SystemExit) as left:
        main([
            "train", f"model.path={model_folder}", f"data.path={reviews}", f"output={tmp_path / 'run'}",
            "eval.enabled=false", "data.on_lint=warn", "data.format.name=template", "data.format.prompt=judge: {text}",
            "train.max_steps=2", "train.learning_rate=0.1",
        ])  # fmt: skip
    assert not left.value.code
    adapter(tmp_path / "red", 1)
    return tmp_path / "run"


def chat(monkeypatch, capsys, run, lines, *words):
    monkeypatch.setattr("sys.stdin", io.StringIO("".join(f"{line}\n" for line in lines)))
    with pytest.raises(SystemExit) as left:
        main(["chat", *map(str, (run, *words))])
    said = capsys.readouterr()
    return left.value.code or 0, said.out + said.err


def test_ratings_of_a_dialogue_lie_where_a_servers_do_and_answers_are_a_servers(run, tmp_path, monkeypatch, capsys):
    file, saved, red = tmp_path / "said.sqlite", tmp_path / "mine.jsonl", f"red={tmp_path / 'red'}"
    template = run / "adapter" / "chat_template.jinja"
    refuses = "{% if 'boom' in messages[-1].content %}{{ raise_exception('no booms') }}{% endif %}"
    template.write_text(refuses + template.read_text())
    settings = {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.1, "seed": 3}
    lines = [
        "/good", "/save x.jsonl", "boom",
        "/set " + " ".join(f"{key}={value}" for key, value in settings.items()), ASKED, "/good", "/switch red",
        ASKED, "/bad", "/edit it is warm", f"/save {saved}", "/compare is it dull?", "/switch base", ASKED,
        "/system", ASKED, f"/save {saved}", "/system speak up", "/save x.jsonl",
        "/set temprature=1", "/set beams=2", "/switch nobody", "/save mine.txt", "/nope",
    ]  # fmt: skip
    more = ["--adapter", red, "--feedback", file, "--rater", "ann", "--system", "be brief", "--max-new-tokens", "8"]
    code, said = chat(monkeypatch, capsys, run, lines, *more)
    assert code == 0, said
    with closing(Store(file)) as store:
        heard, answers = hear(store), [store.find(*one) for one in store.base.execute("SELECT id, place FROM answers")]
    asked, brief = {"role": "user", "content": ASKED}, {"role": "system", "content": "be brief"}
    prompts = sorted((one.made_of["model"], len(one.prompt["messages"])) for one in answers)
    assert prompts == [("red", 2), ("run", 2), ("tiny", 1), ("tiny", 2)]
    assert all(one.prompt["messages"] in ([asked], [brief, asked]) for one in answers)
    assert all(one.sampled.items() >= settings.items() and one.asker == "ann" for one in answers)
    with running(tmp_path, model=str(run), adapters=(red,)) as site:
        for one in answers:
            body = {"model": one.made_of["model"], "messages": one.prompt["messages"], "max_tokens": 8, **settings}
            made = send(site, "/v1/chat/completions", body)[1]["choices"][0]
            assert made["message"]["content"] == one.answer["content"]
            assert (made["finish_reason"] == "length") is (one.answer.get("ended") is False)
    figures = heard.figures()
    assert (figures["liked"], figures["disliked"], figures["edits"]) == (1, 1, 1) and figures["models"]["red"] == 2
    first, second = (json.loads(line)["messages"] for line in saved.read_text().splitlines())
    assert first == [brief, asked, {"role": "assistant", "content": "it is warm"}]
    assert len(second) == 2 and second[0] == asked
    for words in (
        "no booms", "there is no dialogue to save yet", "a new dialogue begins under: speak up",
        "there is no answer to speak of yet", "temperature=0.9 top_k=0 top_p=0.95", "kept: liked", "kept: not liked",
        "beams=4", "top_k=50", "top_p=0.95", "min_p=0.1", "did you mean", "beams: above 1 nothing is drawn",
        "no side 'nobody'; there are tuned, base, red", "ends in .jsonl", "no such command: /nope",
    ):  # fmt: skip
        assert words in said, words
    for wrong, why in (("base=x", "name of a side"), ("x=nowhere", "holds no adapter"), ("x", "must be name=path")):
        code, said = chat(monkeypatch, capsys, run, ["hello"], "--adapter", wrong)
        assert code == 2 and why in said
    assert "nothing is kept here" in chat(monkeypatch, capsys, run, [ASKED, "/good"], "--max-new-tokens", 2)[1]


def test_the_ways_that_are_compared_are_what_they_say(run, tmp_path, model_folder, tokenizer):
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    talk = Talk(load_run(run), {"red": tmp_path / "red"}, Decoding(max_new_tokens=8, seed=5))
    talk.switch("red")
    said = talk.compare(ASKED)
    assert list(said) == ["greedy", "beams=4", "top_k=50", "top_p=0.9", "min_p=0.1"] and len(set(said.values())) > 2
    assert talk.turns == [] and said == talk.compare(ASKED)
    talk.begin("be brief")
    assert talk.compare(ASKED)["greedy"] != said["greedy"]
    talk.begin("")
    model = AutoModelForCausalLM.from_pretrained(model_folder, trust_remote_code=False)
    with hushed():
        model = PeftModel.from_pretrained(model, tmp_path / "red").eval()
    turns = [{"role": "user", "content": ASKED}]
    ids = tokenizer.apply_chat_template(turns, add_generation_prompt=True, return_tensors="pt", return_dict=False)
    for name, beams in (("greedy", 1), ("beams=4", 4)):
        made = model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, num_beams=beams, do_sample=False, pad_token_id=1
        )
        assert tokenizer.decode(made[0, ids.shape[1] :], skip_special_tokens=True) == said[name]
        talk.how = Decoding(max_new_tokens=8, beams=beams)
        assert "".join(talk.say(ASKED)) == said[name] and talk.turns[-1].ended is (int(made[0, -1]) == 1)
        talk.forget()
    talk.switch("tuned")
    assert talk.compare(ASKED)["greedy"] == load_run(run).chat(ASKED, 8) != said["greedy"]
    talk.switch("base")
    assert talk.compare(ASKED)["greedy"] == load_run(run).chat(ASKED, 8, base=True)
    talk.how = Decoding(max_new_tokens=8)
    with torch.no_grad():
        talk.whole.get_output_embeddings().weight.zero_()  # the first word is as likely as any, and leaves no text
    assert "".join(talk.say(ASKED)) == "" and not talk.turns[-1].ended
