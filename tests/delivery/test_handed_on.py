"""Forms that others' programs load, the card that says what is in them, and the hub that they are sent to."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from tunesmith.delivery import hub
from tunesmith.delivery._gptq import calibration
from tunesmith.delivery.card import card, licence_of
from tunesmith.delivery.deliver import deliver
from tunesmith.delivery.gptq import Awq, Gptq
from tunesmith.delivery.merged import Merged
from tunesmith.delivery.onnx import NEEDED, Onnx
from tunesmith.delivery.proof import Apart
from tunesmith.delivery.source import source_of
from tunesmith.errors import BadEnvironment, RecipeError
from tunesmith.methods.lora import LoRA
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.model.stored import stored
from tunesmith.objectives.classify import Classify

TOKEN = "hf_" + "n" * 34


# --- graphs -----------------------------------------------------------------------------------------------------------


def wanting(found, *lacking):
    return lambda package: None if package in lacking else found


def test_what_onnx_needs_is_named(source, run, monkeypatch):
    monkeypatch.setattr("tunesmith.delivery.onnx.find_spec", wanting(object(), "onnxscript", "onnxruntime"))
    with pytest.raises(BadEnvironment, match=r"needs onnxscript, onnxruntime; pip install 'tunesmith\[onnx\]'"):
        Onnx().check(source)
    monkeypatch.setattr("tunesmith.delivery.onnx.find_spec", wanting(object()))
    Onnx().check(source)
    with pytest.raises(RecipeError, match="of the kind PROMPT_TUNING, which no weights can take in"):
        Onnx().check(source_of(run(PromptTuning(num_virtual_tokens=4))))


@pytest.mark.usefixtures("in_this_process")
def test_a_graph_says_what_was_trained_of_rows_of_any_number_and_length(source, tmp_path, capfd):
    for package in NEEDED:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tunesmith[onnx]'")
    from onnxruntime import InferenceSession

    said = []
    apart = deliver(str(source.tuned.folder.path), Onnx(), tmp_path / "out", None, said.append)
    assert apart.prompts == 32 and apart.kl < 1e-6 and apart.agreement > 0.999
    assert not capfd.readouterr().out
    assert "library_name: onnx" in (tmp_path / "out/README.md").read_text()
    session = InferenceSession(str(tmp_path / "out/model.onnx"), providers=["CPUExecutionProvider"])
    for rows, length in ((1, 1), (3, 17), (2, 40)):
        ids = torch.randint(2, 300, (rows, length))
        there = torch.ones_like(ids)
        there[0, length - length // 4 :] = 0  # filled up on the right
        [found] = session.run(["logits"], {"input_ids": ids.numpy(), "attention_mask": there.numpy()})
        with torch.no_grad():
            ours = source.tuned.model(input_ids=ids, attention_mask=there).logits
        assert torch.allclose(torch.from_numpy(found)[there.bool()], ours[there.bool()], atol=1e-5)


@pytest.mark.slow
def test_a_graph_tells_classes_apart(run, tmp_path, in_this_process):
    for package in NEEDED:
        pytest.importorskip(package, reason=f"{package} is not installed: pip install 'tunesmith[onnx]'")
    source = source_of(run(LoRA(r=4), Classify()))
    Onnx().write(source, tmp_path / "out")
    apart = in_this_process(source, tmp_path / "out")
    assert apart.tokens == 32 and apart.kl < 1e-6


# --- few bits ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [Gptq(bits=4), Awq()])
def test_rounding_by_data_is_refused_without_a_gpu_or_its_package(source, run, tmp_path, monkeypatch, way):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(BadEnvironment, match=rf"--to {way.name}: is made on a GPU, and there is none here; .* gguf"):
        deliver(str(source.tuned.folder.path), way, tmp_path / "out", None, print)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("tunesmith.precision.base.find_spec", wanting(object(), "gptqmodel"))
    with pytest.raises(BadEnvironment, match=r"needs gptqmodel, .*: pip install 'tunesmith\[gptqmodel\]'"):
        deliver(str(source.tuned.folder.path), way, tmp_path / "out", None, print)
    assert not (tmp_path / "out").exists()


def test_it_is_fitted_to_rows_that_were_trained_on(source):
    some, every = calibration(source, 5), calibration(source, 10**6)
    assert len(some) == 5 < len(every) <= 16
    assert [row["input_ids"] for row in some] == [every[n * len(every) // 5]["input_ids"] for n in range(5)]
    told = [source.tokenizer.decode(row["input_ids"]) for row in every]
    assert all(
        "judge: the film is" in text and len(row["attention_mask"]) for text, row in zip(told, every, strict=True)
    )
    assert len(set(told)) == len(told)


def test_what_gptqmodel_writes_today_is_loaded(tmp_path):
    told = {"bits": 4, "group_size": 128, "desc_act": False, "lm_head": False, "pack_dtype": "int32", "meta": {"a": 1}}
    gptq = {"method": "gptq", "quant_method": "gptq", "format": "gptq", "checkpoint_format": "gptq", "sym": True}
    awq = {"method": "awq", "quant_method": "awq", "format": "gemm", "checkpoint_format": "gemm", "version": "gemm"}
    for more in (gptq, awq | {"zero_point": True}):
        found = stored(tmp_path / "config.json", {"quantization_config": told | more})
        assert found["quant_method"] == more["method"] and found["group_size"] == 128
        with pytest.raises(RecipeError, match="method: must be one of"):
            stored(tmp_path / "config.json", {"quantization_config": told | more | {"method": "marlin"}})


# --- the card ---------------------------------------------------------------------------------------------------------


def test_a_card_tells_of_data_forgetting_judges_and_licence(source, tmp_path, monkeypatch):
    apart = Apart(32, 100, 0.0, 1.0, 0.0)
    plain = card(source, Merged(), apart, False)
    assert "Not measured; eval.retention=true" in plain and "look there before you hand this on" in plain
    assert f"{source.tuned.run.data.path}: 14 trained rows; " in plain and "Judged" not in plain
    folder = source.tuned.folder
    known = folder.facts | {
        "retention": {"kept": {"all": [0.9, 0.8, 1.0], "text": [0.98, 0.97, 0.99]}},
        "judges": [{"said": "rows.jsonl: labels of the judge j, kappa with people 0.71 (0.62 to 0.80)"}],
        "result": {"before": {"n": 9, "loss": 2.0}, "after": {"n": 9, "loss": 1.5, "loss_interval": [1.4, 1.6]}},
    }
    monkeypatch.setattr(type(folder), "facts", known)
    base = tmp_path / "base"
    base.mkdir()
    (base / "README.md").write_text("---\ntags: [x]\nlicense: apache-2.0\n---\n\nlicense: mit\n")
    assert licence_of(str(base)) == "apache-2.0" and licence_of("org/elsewhere") == ""
    monkeypatch.setattr("tunesmith.delivery.card.licence_of", lambda _: "apache-2.0")
    told = card(source, Merged(), apart, False)
    assert "retained: 90% of general skills (80% to 100%); perplexity of general text up by 2.0%" in told
    assert "Judged by a model:\n\n- rows.jsonl: labels of the judge j, kappa with people 0.71" in told
    assert "| loss | 2 | 1.5 (1.4 to 1.6) |" in told
    assert "license: apache-2.0" in told and "That of the base model, apache-2.0." in told
    assert "method:\n  name: lora" in told


# --- hubs -------------------------------------------------------------------------------------------------------------


class HubServer(BaseHTTPRequestHandler):
    """As much of Hugging Face's hub as a folder needs to be sent to it; files are kept in its `site`."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.headers["authorization"] != f"Bearer {TOKEN}":
            return self.answer(401, {"error": "Invalid credentials"})
        site, path = self.server.site, self.path.split("?")[0]
        if path == "/api/repos/create":
            site["made"] = json.loads(body)
            return self.answer(200, {"url": f"{self.server.address}/me/mine"})
        if path == "/api/validate-yaml":
            site["card"] = json.loads(body)["content"]
            return self.answer(200, {"errors": [], "warnings": []})
        if path == "/api/models/me/mine/preupload/main":
            files = [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                for one in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        if path == "/api/models/me/mine/commit/main":
            for line in map(json.loads, body.splitlines()):
                value = line["value"]
                if line["key"] == "file":
                    site["files"][value["path"]] = base64.b64decode(value["content"])
                else:
                    site["summary"] = value["summary"]
            return self.answer(200, {"commitUrl": f"{self.server.address}/me/mine/commit/1", "commitOid": "1" * 40})
        return self.answer(404, {"error": path})

    def answer(self, status, told):
        data = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def site(monkeypatch):
    """A hub on this machine; what it was sent."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), HubServer)
    server.address, server.site = f"http://127.0.0.1:{server.server_port}", {"files": {}}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", server.address)  # as HF_ENDPOINT sets it
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_DISABLE_XET", True)
    yield server.site
    server.shutdown()
    server.server_close()


@pytest.mark.usefixtures("in_this_process")
def test_a_hub_is_sent_the_folder_with_its_card_and_proof(source, site, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    said = []
    deliver(str(source.tuned.folder.path), hub.Hub(repo="me/mine"), tmp_path / "out", None, said.append)
    assert "/me/mine" in said[-1]
    assert site["made"]["name"] == "mine" and site["made"]["organization"] == "me"
    assert site["made"]["visibility"] == "private" and site["summary"] == hub.MESSAGE
    sent = {str(file.relative_to(tmp_path / "out")): file.read_bytes() for file in (tmp_path / "out").rglob("*.*")}
    assert site["files"] == sent and {"adapter_model.safetensors", "proof.json", "README.md"} <= sent.keys()
    assert "library_name: peft" in site["card"] and TOKEN not in site["card"]


def test_a_hub_that_does_not_let_one_in_leaves_the_folder(site, tmp_path, monkeypatch):
    wrong = "hf_" + "w" * 34
    monkeypatch.setenv("HF_TOKEN", wrong)
    (tmp_path / "README.md").write_text("a card")
    with pytest.raises(BadEnvironment, match=r"could not be sent to huggingface \(.*401.*\); .* is whole") as refused:
        hub.Hub(repo="me/mine").finish(tmp_path)
    assert wrong not in str(refused.value) and not site["files"]


def test_a_hub_that_cannot_be_reached_leaves_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", unreachable)
    with pytest.raises(BadEnvironment, match=r"could not be sent to huggingface \(no network\); .* is whole"):
        hub.Hub(repo="me/mine").finish(tmp_path)


def unreachable(*_, **__):
    raise ConnectionError("no network")
