"""serve --engine vllm: what vLLM's own server is begun with, and what is refused because it lacks it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from served import adapter

from tunesmith.config.load import load, to_yaml
from tunesmith.errors import BadEnvironment, RecipeError
from tunesmith.run import Run
from tunesmith.serving.by_vllm import command, environment, hand_over
from tunesmith.serving.settings import Serving


def told(words: list[str], flag: str) -> str:
    return words[words.index(flag) + 1]


def test_a_model_and_adapters(shelf):
    adapters = (f"red={shelf / 'red'}", f"green={shelf / 'root' / 'green'}")
    more = {"port": 9001, "max_rows": 7, "max_length": 96, "keep_tokens": 0, "allowed_origins": ("https://a.org",)}
    words = command(Serving(model=str(shelf / "tiny"), adapters=adapters, engine="vllm", log_prompts=True, **more))
    assert words[:4] == ["-m", "vllm.entrypoints.cli.main", "serve", str(shelf / "tiny")]
    flags = {"--served-model-name": "tiny", "--host": "127.0.0.1", "--port": "9001", "--max-num-seqs": "7"}
    flags |= {"--max-model-len": "96", "--allowed-origins": '["https://a.org"]', "--max-loras": "2"}
    flags |= {"--max-lora-rank": "8", "--generation-config": "vllm"}
    assert {flag: told(words, flag) for flag in flags} == flags
    assert words[-2:] == [f"red={shelf / 'red'}", f"green={shelf / 'root' / 'green'}"]
    assert {"--enable-lora", "--enable-log-requests", "--no-enable-prefix-caching"} < set(words)


def run_folder(place: Path, base: Path, *more: str) -> Path:
    """A finished run's folder, as far as a server looks into it."""
    run = load(Run, None, [f"model.path={base}", "data.path=x", *more]).value
    place.mkdir(parents=True)
    (place / "recipe.yaml").write_text(to_yaml(run, {}))
    (place / "run.json").write_text('{"status": "finished"}')
    return place


def test_a_run_is_its_adapter_beside_its_base_or_a_whole_model(shelf, tmp_path):
    run = run_folder(tmp_path / "law", shelf / "tiny", "model.precision=fp32")
    adapter(run / "adapter", 6, rank_pattern={"q_proj": 20})
    words = command(Serving(model=str(run)))
    assert words[3] == str(shelf / "tiny") and told(words, "--served-model-name") == "tiny"
    assert told(words, "--lora-modules") == f"law={run / 'adapter'}" and told(words, "--max-lora-rank") == "32"
    assert told(words, "--tokenizer") == str(run / "adapter") and told(words, "--dtype") == "float32"
    whole = run_folder(tmp_path / "whole", shelf / "tiny", "method=full")
    (whole / "model").mkdir()
    words = command(Serving(model=str(whole)))
    assert words[3] == str(whole / "model") and told(words, "--served-model-name") == "whole"
    assert not {"--enable-lora", "--tokenizer", "--dtype"} & set(words)


LACKED = {
    "adapter_root": "elsewhere", "allowed_hosts": ("a.org",), "queue": 3, "timeout": 5.0, "max_tokens": 9, "max_n": 3,
    "max_body": 99, "feedback": "said.sqlite", "keep_tokens": 77, "port": 0, "host": "0.0.0.0",
}  # fmt: skip


@pytest.mark.parametrize("key", LACKED)
def test_what_vllm_lacks_is_refused_in_one_sentence(shelf, key):
    with pytest.raises(
        RecipeError, match=rf"^{key}: .*vllm .*(leave it out|name one, such as 8000|put a proxy before it)"
    ) as said:
        command(Serving(model=str(shelf / "tiny"), **{key: LACKED[key]}))
    assert "\n" not in str(said.value)


def test_what_it_could_not_serve_alike_is_refused(shelf, tmp_path):
    with pytest.raises(
        RecipeError, match=r"adapters: odd: .*dora has use_dora, which vllm does not know; take engine="
    ):
        command(Serving(model=str(shelf / "tiny"), adapters=(f"odd={shelf / 'dora'}",)))
    with pytest.raises(RecipeError, match="adapters: tiny is the name of the model; give the adapter another"):
        command(Serving(model=str(shelf / "tiny"), adapters=(f"tiny={shelf / 'red'}",)))
    few = run_folder(tmp_path / "few", shelf / "tiny", "model.precision=nf4")
    with pytest.raises(
        RecipeError, match=r"few: stands on a base that was changed in memory .*--to merged\) and serve"
    ):
        command(Serving(model=str(few)))
    with pytest.raises(RecipeError, match="scores texts and writes none; take engine=embedded"):
        command(Serving(model=str(run_folder(tmp_path / "judge", shelf / "tiny", "objective=reward"))))
    with pytest.raises(BadEnvironment, match=r"engine: vllm is not installed: pip install 'tunesmith\[vllm\]'"):
        hand_over(Serving(model=str(shelf / "tiny"), engine="vllm"), "")


def test_the_command_line_becomes_its_server_with_the_key_in_the_environment(shelf, tmp_path):
    place = tmp_path / "vllm" / "entrypoints" / "cli"
    place.mkdir(parents=True)
    show = "import json, os, sys\nprint(json.dumps([sys.argv[1:], os.environ.get('VLLM_API_KEY'), os.getpid()]))\n"
    (place / "main.py").write_text(show)
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    key = "a-key-of-many-letters"
    words = [sys.executable, "-m", "tunesmith", "serve", str(shelf / "tiny"), "--engine", "vllm", "--port", "9"]
    with subprocess.Popen(
        words, env=os.environ | {"PYTHONPATH": path, "TUNESMITH_API_KEY": key}, stdout=subprocess.PIPE, text=True
    ) as begun:
        said, named, pid = json.loads(begun.communicate(timeout=120)[0])
    assert pid == begun.pid  # signals go to vLLM itself
    assert said[:2] == ["serve", str(shelf / "tiny")] and told(said, "--port") == "9"
    assert named == key and key not in " ".join(said)
    assert environment("") == {"VLLM_NO_USAGE_STATS": "1"}
