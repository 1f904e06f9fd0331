"""A server that speaks as `vllm serve` does, and really draws: by the model of a folder, under adapters that it reads
from folders. The log-probabilities that it tells are of plain forward passes."""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from copy import deepcopy
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import torch
from safetensors.torch import load_file

from tunesmith.model.attention import keep_apart
from tunesmith.model.engine import Engine
from tunesmith.model.load import hushed, load_tokenizer
from tunesmith.rollout.sample import likely, sample


class Fault(Exception):
    """An answer that is none: its code, and what it says."""


class Drawing:
    """The model of a folder, as it is asked."""

    def __init__(self, folder: Path, mode: str = "raw_logprobs") -> None:
        from transformers import AutoModelForCausalLM

        self.mode, self.tokenizer = mode, load_tokenizer(folder)
        with hushed():
            self.base = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="sdpa").eval()

    def under(self, folder: Path):
        from peft import PeftModel

        with hushed():
            return PeftModel.from_pretrained(deepcopy(self.base), folder).eval()

    def reload(self, folder: Path) -> None:
        weights = {name: one for file in folder.glob("*.safetensors") for name, one in load_file(file).items()}
        self.base.load_state_dict(weights, strict=False)

    def draw(self, model, prompt, asked):
        """Answers, each with the log-probability of its tokens and of the likeliest ones."""
        how = SimpleNamespace(
            max_completion_length=asked["max_tokens"], stop=tuple(asked.get("stop", ())),
            temperature=asked["temperature"], top_p=asked.get("top_p", 1.0), top_k=asked.get("top_k", 0),
            min_p=asked.get("min_p", 0.0),
        )  # fmt: skip
        keep_apart(model.get_base_model() if hasattr(model, "get_base_model") else model)
        engine = Engine(model, self.tokenizer)
        for one in sample(engine, [prompt], how, asked.get("seed", 0) % 2**31, asked.get("n", 1)):
            with torch.no_grad():
                logits = model(torch.tensor([[*prompt, *one.ids]])).logits[0, len(prompt) - 1 : -1]
            if self.mode == "processed_logprobs":
                logits = likely((logits / how.temperature).log_softmax(-1), how)
            logp = logits.log_softmax(-1)
            yield one, logp[range(len(one.ids)), one.ids].tolist(), logp.amax(-1).tolist()


class Site:
    """What was asked, in order, and how it is answered. `faults` are answered with first."""

    def __init__(self, folder: Path, dynamic: bool = True, mode: str = "raw_logprobs", **more) -> None:
        self.root, self.dynamic, self.drawing = str(folder), dynamic, Drawing(folder, mode)
        self.name = more.get("name", str(folder))
        self.adapters, self.loaded, self.reloaded = {}, [], []
        self.asked, self.keys, self.faults = [], [], []
        self.lock, self.url = threading.Lock(), ""

    def answer(self, path, body, key):
        with self.lock:
            self.asked.append((path, body))
            self.keys.append(key)
            if self.faults and path == "/v1/completions":
                raise Fault(*self.faults.pop(0))
            work = {
                "/v1/models": self.models, "/v1/completions": self.complete, "/v1/load_lora_adapter": self.load,
                "/v1/unload_lora_adapter": self.unload, "/collective_rpc": self.rpc,
                "/reset_prefix_cache": lambda body: {"success": True},
            }  # fmt: skip
            dynamic = ("/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/collective_rpc", "/reset_prefix_cache")
            if path not in work or (path in dynamic and not self.dynamic):
                raise Fault(404, {"error": {"message": "Not Found", "type": "NotFoundError", "code": 404}})
            return work[path](body)

    def models(self, _):
        base = {"id": self.name, "object": "model", "owned_by": "vllm", "root": self.root, "parent": None}
        others = [{"id": name, "root": "", "parent": self.name} for name in self.adapters]
        return {"object": "list", "data": [base, *others]}

    def load(self, body):
        if body["lora_name"] in self.adapters:
            raise Fault(400, {"error": {"message": f"'{body['lora_name']}' has already been loaded", "code": 400}})
        folder = Path(body["lora_path"])
        self.adapters[body["lora_name"]] = self.drawing.under(folder)
        self.loaded.append(sha256((folder / "adapter_model.safetensors").read_bytes()).hexdigest())
        return f"Success: LoRA adapter '{body['lora_name']}' added successfully."

    def unload(self, body):
        if body["lora_name"] not in self.adapters:
            said = f"The lora adapter '{body['lora_name']}' cannot be found."
            raise Fault(404, {"error": {"message": said, "type": "NotFoundError", "code": 404}})
        del self.adapters[body["lora_name"]]
        return f"Success: LoRA adapter '{body['lora_name']}' removed successfully."

    def rpc(self, body):
        assert body["method"] == "reload_weights"
        self.drawing.reload(Path(body["kwargs"]["weights_path"]))
        self.reloaded.append(body["kwargs"]["weights_path"])
        return {"results": [None]}

    def complete(self, body):
        model = self.drawing.base if body["model"] == self.name else self.adapters.get(body["model"])
        if model is None:
            raise Fault(404, {"error": {"message": f"The model `{body['model']}` does not exist.", "code": 404}})
        choices = [
            {
                "index": n, "text": "", "finish_reason": "stop" if one.ended else "length",
                "token_ids": one.ids if body.get("return_token_ids") else None,
                "logprobs": {"token_logprobs": logp, "top_logprobs": [{"": best} for best in top]},
            }
            for n, (one, logp, top) in enumerate(self.drawing.draw(model, body["prompt"], body))
        ]  # fmt: skip
        return {"object": "text_completion", "model": body["model"], "choices": choices}


@contextmanager
def vllm_serving(folder: Path, **more):
    site = Site(folder, **more)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.do_POST()

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "{}")
            try:
                code, said = 200, site.answer(self.path, body, self.headers.get("Authorization"))
            except Fault as fault:
                code, said = fault.args
            content = said.encode() if isinstance(said, str) else json.dumps(said).encode()
            self.send_response(code)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    site.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield site
    finally:
        server.shutdown()
        server.server_close()


class LoRARequest:
    def __init__(self, lora_name, lora_int_id, lora_path):
        self.lora_name, self.lora_int_id, self.lora_path = lora_name, lora_int_id, lora_path


class LLM:
    """What of `vllm.LLM` is used, by the same drawing."""

    made: ClassVar[dict] = {}
    """What the last one was told."""

    def __init__(self, **told):
        self.made["told"] = told
        self.drawing, self.numbers = Drawing(Path(told["model"]), told["logprobs_mode"]), []

    def collective_rpc(self, name, kwargs):
        assert name == "reload_weights"
        self.drawing.reload(Path(kwargs["weights_path"]))

    def reset_prefix_cache(self):
        return True

    def generate(self, prompts, asked, lora_request=None, use_tqdm=True):
        model = self.drawing.base
        if lora_request:
            assert lora_request.lora_int_id not in self.numbers  # it would take the adapter of that number
            self.numbers.append(lora_request.lora_int_id)
            model = self.drawing.under(Path(lora_request.lora_path))
        return [
            SimpleNamespace(outputs=[said(n, *one) for n, one in enumerate(self.drawing.draw(model, ids, how))])
            for ids, how in zip([one["prompt_token_ids"] for one in prompts], asked, strict=True)
        ]


def said(index, one, logp, _):
    steps = [{token: SimpleNamespace(logprob=each)} for token, each in zip(one.ids, logp, strict=True)]
    reason = "stop" if one.ended else "length"
    return SimpleNamespace(index=index, token_ids=one.ids, logprobs=steps, finish_reason=reason)
