"""Runs of other kinds as models of a server: a soft prompt, classes, and the base that each came from."""

import pytest
from served import running, send

from tunesmith.cli import main
from tunesmith.errors import CheckpointError, RecipeError
from tunesmith.tuned import load_run


def trained(model_folder, reviews, folder, *words):
    with pytest.raises(SystemExit) as left:
        main([
            "train", f"model.path={model_folder}", f"data.path={reviews}", f"output={folder}", "eval.enabled=false",
            "train.max_steps=2", "train.learning_rate=0.1", "data.on_lint=warn", *words,
        ])  # fmt: skip
    assert not left.value.code
    return folder


def asked(site, model, most=8):
    body = {"model": model, "messages": [{"role": "user", "content": "yes?"}], "max_tokens": most, "temperature": 0}
    status, said, _ = send(site, "/v1/chat/completions", body)
    assert status == 200, said
    return said["choices"][0]["message"]["content"]


def test_a_soft_prompt_and_its_base_answer_as_they_do_in_memory(model_folder, reviews, tmp_path):
    words = ["data.format.name=template", "data.format.prompt=judge: {text}", "method=prompt_tuning"]
    run = trained(model_folder, reviews, tmp_path / "run", *words)
    tuned = load_run(run)
    shelf = {"model": str(run), "name": "soft"}
    with running(tmp_path, **shelf) as site:
        names = [one["id"] for one in send(site, "/v1/models")[1]["data"]]
        assert names == ["tiny", "soft"]
        assert asked(site, "soft") == tuned.chat("yes?", 8) != asked(site, "tiny")
        assert asked(site, "tiny") == tuned.chat("yes?", 8, base=True)
    with pytest.raises(RecipeError, match="serve it by itself"), running(tmp_path, **shelf, adapter_root=str(tmp_path)):
        pass
    file = run / "manifest.json"
    text = file.read_text()
    with running(tmp_path, model=str(model_folder), adapter_root=str(tmp_path)) as site:
        load = {"lora_name": "x", "lora_path": "run"}
        status, said, _ = send(site, "/v1/load_lora_adapter", load)
        assert status == 400 and "serve its run by itself" in said["error"]["message"]
        assert asked(site, "tiny") == tuned.chat("yes?", 8, base=True)
    wrong = text.replace('"model.safetensors": "', '"model.safetensors": "0')
    assert wrong != text
    file.write_text(wrong)
    more = {"model": str(model_folder), "adapters": (f"x={run}",)}
    with pytest.raises(CheckpointError, match="trained on other weights"), running(tmp_path, **more):
        pass


def test_a_run_that_tells_classes_apart_scores_and_does_not_write(model_folder, reviews, tmp_path):
    run = trained(model_folder, reviews, tmp_path / "run", "objective=classify", "data.format.name=labelled")
    right = load_run(run).classify("the film is warm 3")
    with running(tmp_path, model=str(run)) as site:
        status, said, _ = send(site, "/v1/score", {"model": "run", "input": ["the film is warm 3", "dull"]})
        assert status == 200 and said["data"][0]["probs"] == pytest.approx(right, abs=1e-5) and len(said["data"]) == 2
        assert said["data"][0]["label"] == max(right, key=right.get)
        for path, body in (
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
            ("/v1/score", {}),
            ("/v1/score", {"input": [""]}),
        ):
            assert send(site, path, {"model": "run", **body})[0] == 400
        long = "warm " * 3000
        status, said, _ = send(site, "/v1/score", {"model": "run", "input": ["dull", long]})
        error = said["error"]
        assert (status, error["param"], error["code"]) == (400, "input", "context_length_exceeded"), error
        assert "this run reads 2048 (data.max_length)" in error["message"]
    assert load_run(run).classify(long)  # by hand a text is cut, as it was to be learnt from
