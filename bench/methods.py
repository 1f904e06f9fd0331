"""What methods and optimizers cost: weights that learn, memory, time of a step; beside what guides and papers say.

    python bench/methods.py [--steps 5] [--only lora,galore_adamw] [--json rows.json]

Each line is a run in a process of its own, on two processors; the first step is not timed. Figures of large models
are counted on models without weights, made from their published sizes: by the same methods and the same optimizers,
whose step is taken once.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

from worker import pin, say, settled

MODEL = "demo/smollm2-135m-instruct"
HERE = Path(__file__).resolve()
COMMON = {
    "model.path": MODEL,
    "model.precision": "fp32",
    "data.path": "demo/movie-reviews",
    "data.format.name": "template",
    "data.format.prompt": "Is this movie review positive or negative? Answer with one word.\\n\\n{text}",
    "data.format.answer": "{label}",
    "data.max_length": "96",
    "data.truncation": "left",
    "data.max_samples": "64",
    "eval.enabled": "false",
    "train.save_strategy": "no",
    "train.per_device_train_batch_size": "4",
    "train.learning_rate": "1e-4",
    "train.lr_scheduler_type": "constant",
    "train.on_nan": "skip",
}
MORE = {"llama_pro": {"method.num_expand": "2"}}
BLOCK = {"train.optim.rank": "64"}
OPTIMIZERS = {
    "adamw_torch_fused": {},
    "adamw_torch": {},
    "sgd": {},
    "adafactor": {},
    "muon": {},
    "adam_mini": {},
    "badam": {},
    "badam_ratio": {},
    "galore_adamw": BLOCK,
    "galore_adafactor": BLOCK,
    "q_galore_adamw": BLOCK,
    "apollo_adamw": BLOCK,
    "apollo_mini": {},
    "schedule_free_adamw": {},
    "adamw_bnb_8bit": {},
    "lion_8bit": {},
    "ademamix_8bit": {},
}


@dataclass
class Row:
    """One line of the result."""

    name: str
    learns: int = 0
    total: int = 0
    peak_mb: float = 0.0
    step_s: float = 0.0
    state_mb: float = 0.0
    losses: tuple[float, ...] = ()
    failed: str = ""


def once(words: list[str], steps: int) -> dict[str, Any]:
    """One run in this process."""
    import time

    from transformers import TrainerCallback

    from tunesmith.config.load import load
    from tunesmith.machine import peak_memory_mb
    from tunesmith.run import Run
    from tunesmith.training.train import train

    class Watch(TrainerCallback):
        """Times every step, and looks at the optimizer when the last one was taken."""

        times: list[float]
        losses: list[float]
        state = 0

        def on_train_begin(self, args, state, control, **made):
            self.times, self.losses = [], []

        def on_step_begin(self, args, state, control, **made):
            self.began = time.perf_counter()

        def on_step_end(self, args, state, control, **made):
            self.times.append(time.perf_counter() - self.began)
            if state.global_step == steps:
                weights = (weight for group in made["optimizer"].param_groups for weight in group["params"])
                self.state = sum(map(remembered, (made["optimizer"].state.get(weight, {}) for weight in weights)))

        def on_log(self, args, state, control, logs=None, **made):
            self.losses.append(round((logs or {}).get("loss", 0.0), 4))

    watch = Watch()
    with TemporaryDirectory() as folder:
        settings = [*words, f"train.max_steps={steps}", "train.logging_steps=1", f"output={folder}/run"]
        run = load(Run, None, settings).value
        train(run, [watch], quiet=True)
        parameters = json.loads((Path(folder) / "run" / "run.json").read_text())["parameters"]
    return {
        "learns": parameters["trainable"],
        "total": parameters["total"],
        "peak_mb": peak_memory_mb(),
        "step_s": median(watch.times[1:]),
        "state_mb": watch.state / 2**20,
        "losses": watch.losses,
    }


def remembered(state: dict[str, Any]) -> int:
    """Bytes of tensors, tables that many weights share aside."""
    return sum(one.nbytes for key, one in state.items() if hasattr(one, "nbytes") and not key.startswith("qmap"))


def measured(name: str, settings: dict[str, str], steps: int) -> Row:
    """A run in a process of its own."""
    words = [f"{key}={value}" for key, value in (COMMON | settings).items()]
    job = json.dumps({"words": words, "steps": steps})
    done = subprocess.run(
        [sys.executable, str(HERE), "--one", job], capture_output=True, text=True, env=os.environ | settled()
    )
    if done.returncode:
        return Row(name, failed=(done.stderr.strip().splitlines() or ["died"])[-1])
    return Row(name, **json.loads(done.stdout.splitlines()[-1]))


def large(kind: str) -> Any:
    """A published model without its weights."""
    import torch
    from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

    with torch.device("meta"):
        if kind == "bert-base":  # 768 wide, 12 blocks, 3072 within, 30,522 words: the defaults
            return BertForSequenceClassification(BertConfig())
        sizes = {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "vocab_size": 32000}
        return LlamaForCausalLM(LlamaConfig(num_attention_heads=32, **sizes))


def share(kind: str, name: str, **options: Any) -> tuple[int, int]:
    """How many weights learn, and how many the model had."""
    import torch

    from tunesmith.methods.base import method
    from tunesmith.model.load import hushed

    model = large(kind)
    total = sum(weight.numel() for weight in model.parameters())
    with torch.device("meta"), hushed():
        tuned = method[name](**options).attach(model)
    return sum(weight.numel() for weight in tuned.parameters() if weight.requires_grad), total


ATTENTION = ("q_proj", "k_proj", "v_proj", "o_proj")
GUIDE = [
    ("r=8 adds 0.1 % to a 7B model", 0.1, "LLaMA-7B, LoRA r=8, queries and values", "llama-7b", "lora",
     {"r": 8, "target_modules": ATTENTION[::2]}),
    ("", 0.1, "LLaMA-7B, LoRA r=8, all of attention", "llama-7b", "lora", {"r": 8, "target_modules": ATTENTION}),
    ("", 0.1, "LLaMA-7B, LoRA r=8, all-linear", "llama-7b", "lora", {"r": 8}),
    ("bottleneck 64 adds about 0.5 % to BERT-base", 0.5, "BERT-base, bottleneck 64, Pfeiffer", "bert-base",
     "bottleneck", {"bottleneck_size": 64, "placement": "pfeiffer"}),
    ("", 0.5, "BERT-base, bottleneck 64, Houlsby", "bert-base", "bottleneck", {"bottleneck_size": 64}),
    ("", 0.5, "BERT-base, bottleneck 32, Pfeiffer", "bert-base", "bottleneck",
     {"bottleneck_size": 32, "placement": "pfeiffer"}),
]  # fmt: skip
CLAIMS = [
    ("adamw_torch", {}, "two numbers a weight"),
    ("galore_adamw", {"rank": 1024}, "arXiv:2403.03507: up to 65.5 % less in optimizer states"),
    ("galore_adamw", {"rank": 128}, ""),
    ("apollo_adamw", {"rank": 256}, "arXiv:2412.05270: 2 r numbers for each of the longer side, no projection"),
    ("apollo_mini", {}, "arXiv:2412.05270: as much as gradient descent, which has none"),
    ("adam_mini", {}, "arXiv:2406.16793: 50 % less than AdamW"),
    ("badam", {"switch_mode": "descending"}, "arXiv:2404.02827: a block's, of 32: about 3 % of AdamW's"),
    ("adafactor", {}, "arXiv:1804.04235: rows and columns instead of their product"),
    ("muon", {}, "arXiv:2502.16982: half of AdamW for matrices"),
]


def states(kind: str, name: str, options: dict[str, Any]) -> tuple[int, int]:
    """The bytes that an optimizer remembers once it took a step: of all weights, and of the blocks' matrices alone."""
    import torch

    from tunesmith.methods.base import Method
    from tunesmith.model.policy import Policy
    from tunesmith.optimizers.base import optimizer
    from tunesmith.run import Train
    from tunesmith.training.optim import learnt

    entry = optimizer[name](**options)
    train = Train(optim=entry)
    weights = learnt(train, Policy(large(kind)), Method())
    made = entry.make(weights, train)
    if name == "badam":  # an average block's turn: the first is the head's
        made.param_groups[0]["taken"] = options.get("switch_block_every", 50)
    with entry.learning(made):
        for one in weights:
            if one.weight.requires_grad:
                one.weight.grad = torch.empty_like(one.weight)
    made.step()
    sizes = [(remembered(made.state.get(one.weight, {})), one.inner) for one in weights]
    return sum(size for size, _ in sizes), sum(size for size, inner in sizes if inner)


def on_paper(lines: list[str]) -> list[dict[str, Any]]:
    """What guides and papers say, beside what is counted."""
    found: list[dict[str, Any]] = []
    lines += ["", "| what is said | counted | learns | share |", "|-|-|-|-|"]
    for said, claim, what, kind, name, options in GUIDE:
        learns, total = share(kind, name, **options)
        lines.append(f"| {said} | {what} | {learns:,} | {100 * learns / total:.2f} % |")
        found.append({"what": what, "learns": learns, "total": total, "claimed_percent": claim})
    lines += [
        "",
        "| optimizer of LLaMA-7B, fp32 states | GB | without embeddings | of AdamW's | the paper |",
        "|-|-|-|-|-|",
    ]
    most = 0
    for name, options, claim in CLAIMS:
        size, inner = states("llama-7b", name, options)
        most = most or size
        what = name + "".join(f" {key}={value}" for key, value in options.items())
        lines.append(f"| {what} | {size / 1e9:.2f} | {inner / 1e9:.2f} | {100 * size / most:.1f} % | {claim} |")
        found.append({"what": what, "state_bytes": size, "of_matrices": inner, "of_adamw": size / most, "claim": claim})
    return found


def table(head: str, rows: list[Row], states: bool) -> list[str]:
    last = " | state, MB" if states else ""
    lines = ["", f"| {head} | learns | share | peak, MB | step, s{last} | losses |", "|-|-|-|-|-|-|" + "-|" * states]
    for row in rows:
        if row.failed:
            lines.append(f"| {row.name} | {row.failed} |" + " |" * (4 + states))
            continue
        fits = f" | {row.state_mb:.1f}" if states else ""
        share = 100 * row.learns / row.total
        losses = f"{row.losses[0]:.3f} to {row.losses[-1]:.3f}"
        cells = f"{row.learns:,} | {share:.3f} % | {row.peak_mb:,.0f} | {row.step_s:.2f}{fits} | {losses}"
        lines.append(f"| {row.name} | {cells} |")
    return lines


def main() -> None:
    from tunesmith.methods.base import method

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5, help="steps of each run, of which the first is not timed")
    parser.add_argument("--only", default="", help="names of methods and optimizers, by commas")
    parser.add_argument("--json", type=Path, help="where to write the rows")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.one:
        job = json.loads(asked.one)
        print(json.dumps(once(job["words"], job["steps"])))  # noqa: T201 - this is what it is for
        return
    say(pin())
    only = set(filter(None, asked.only.split(",")))
    methods = {name: {"method": name} | MORE.get(name, {}) for name in method.all()}
    optims = {name: {"method": "full", "train.optim": name} | more for name, more in OPTIMIZERS.items()}
    found: dict[str, list[Row]] = {}
    for kind, runs in (("method", methods), ("optimizer", optims)):
        found[kind] = []
        for name, settings in runs.items():
            if not only or name in only:
                found[kind].append(measured(name, settings, asked.steps))
                say(str(found[kind][-1]))
    lines = table("method", found["method"], False) + table("optimizer, method=full", found["optimizer"], True)
    counted = on_paper(lines)
    print("\n".join(lines))  # noqa: T201 - this is what it is for
    if asked.json:
        rows = {kind: [asdict(row) for row in rows] for kind, rows in found.items()}
        asked.json.write_text(json.dumps(rows | {"counted": counted}, indent=1), encoding="utf-8")


if __name__ == "__main__":
    from tunesmith.start import begin_again

    begin_again()  # as the command line does
    main()
