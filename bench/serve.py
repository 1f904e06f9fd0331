"""Serving on a CPU: `tunesmith serve` beside `transformers serve`, on the same model, prompts and cores.

    python bench/serve.py [--quick] [--model demo/smollm2-135m-instruct] [--json rows.json]

Both are asked the same by the same client, in turns, 16 streams at once; tokens are counted in what came back. Then, of
ours alone: a second adapter in the mix, switching, and a thousand requests of which many are given up half-way.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import socket
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any

import psutil
from train import HERE, QUIET, Row, table
from worker import pin, say, settled

THEIRS = ["torch==2.13.0", "transformers[serving]==5.23.*"]
STREAMS = 16
READY = 1200.0
WORDS = (HERE / "serve.py").read_text(encoding="utf-8").split()
"""Any words will do, as long as there are enough."""


@dataclass
class Reply:
    """What came of one request."""

    text: str = ""
    first: float = 0.0
    """Seconds to the first piece."""
    took: float = 0.0
    status: int = 0


@dataclass
class Server:
    """A server in a process of its own."""

    name: str
    port: int
    model: str
    process: subprocess.Popen[bytes] = field(repr=False)

    def ask(self, prompt: str, most: int, model: str = "", stop_after: int | None = None, **more: Any) -> Reply:
        """One streamed answer; given up after so many pieces."""
        body = {"model": model or self.model, "messages": [{"role": "user", "content": prompt}], "max_tokens": most}
        link = http.client.HTTPConnection("127.0.0.1", self.port, timeout=READY)
        reply, began, pieces = Reply(), time.perf_counter(), 0
        body |= {"stream": True, "temperature": 0, **more}
        link.request("POST", "/v1/chat/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = link.getresponse()
        reply.status = answer.status
        for line in answer:
            if not line.startswith(b"data: {"):
                continue
            choices = json.loads(line[6:]).get("choices") or [{}]
            text = (choices[0].get("delta") or {}).get("content") or ""
            reply.first = reply.first or (time.perf_counter() - began if text else 0.0)
            reply.text += text
            pieces += bool(text)
            if stop_after is not None and pieces >= stop_after:
                break
        link.close()
        reply.took = time.perf_counter() - began
        return reply

    def figures(self) -> tuple[float, float]:
        """Processor seconds and resident MB of all its processes."""
        family = [psutil.Process(self.process.pid), *psutil.Process(self.process.pid).children(recursive=True)]
        cpu = sum(sum(one.cpu_times()[:2]) for one in family)
        return cpu, sum(one.memory_info().rss for one in family) / 2**20


@contextmanager
def started(name: str, words: Sequence[str], model: str, log: Path, port: int, env: Mapping[str, str] | None = None):
    with log.open("wb") as out:
        process = subprocess.Popen(words, stdout=out, stderr=out, env=os.environ | settled() if env is None else env)
    server = Server(name, port, model, process)
    try:
        until = time.monotonic() + READY
        while not reachable(port):
            if process.poll() is not None or time.monotonic() > until:
                sys.exit(f"{name} did not start:\n" + log.read_text(errors="replace")[-3000:])
            time.sleep(0.5)
        yield server
    finally:
        process.terminate()
        process.wait(60)


def reachable(port: int) -> bool:
    link = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        link.request("GET", "/health")
        return link.getresponse().status == 200
    except OSError:
        return False
    finally:
        link.close()


def free() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def at_once(jobs: Sequence[Callable[[], Reply]], streams: int) -> list[Reply]:
    """All the jobs, so many at a time, in threads."""
    found, waiting, lock = [Reply()] * len(jobs), list(enumerate(jobs)), threading.Lock()

    def work() -> None:
        while True:
            with lock:
                if not waiting:
                    return
                at, job = waiting.pop(0)
            found[at] = job()

    threads = [threading.Thread(target=work) for _ in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def prompts(count: int, seed: int) -> list[str]:
    draw = random.Random(seed)
    return [f"Write about this: {' '.join(draw.choices(WORDS, k=draw.randint(5, 40)))} ({n})" for n in range(count)]


@dataclass
class Turn:
    """One turn of one server."""

    tokens: int
    wall: float
    cpu: float
    replies: list[Reply]


def turn(server: Server, asked: Sequence[str], most: int, count: Any, models: Sequence[str] = ("",)) -> Turn:
    cpu, _ = server.figures()
    began = time.perf_counter()
    jobs = [lambda n=n, text=text: server.ask(text, most, models[n % len(models)]) for n, text in enumerate(asked)]
    replies = at_once(jobs, STREAMS)
    wall = time.perf_counter() - began
    tokens = sum(count(reply.text) for reply in replies)
    if refused := [reply.status for reply in replies if reply.status != 200]:
        sys.exit(f"{server.name} refuses {len(refused)} of {len(replies)} requests ({refused[0]})")
    made = Turn(tokens, wall, server.figures()[0] - cpu, replies)
    say(f"  {server.name:22} {tokens} tokens in {wall:.1f} s, {made.cpu:.1f} CPU-s")
    return made


def against(ours: Server, theirs: Server, rounds: int, size: int, most: int, count: Any) -> list[Row]:
    """Both in turns, on the same prompts."""
    speeds: dict[str, dict[str, list[float]]] = {one.name: {"wall": [], "cpu": []} for one in (ours, theirs)}
    firsts: dict[str, list[float]] = {ours.name: [], theirs.name: []}
    for number in range(rounds + 1):
        asked = prompts(size, number)
        for server in (ours, theirs)[:: -1 if number % 2 else 1]:
            made = turn(server, asked, most, count)
            if number:  # the first is not timed
                for clock in ("wall", "cpu"):
                    speeds[server.name][clock].append(made.tokens / getattr(made, clock))
                firsts[server.name] += [reply.first for reply in made.replies]
    rows = []
    for clock in ("wall", "cpu"):
        mine, other = (median(speeds[one.name][clock]) for one in (ours, theirs))
        rows.append(Row(f"tokens a second over {theirs.name}, {clock}", mine / other, 2.0, mine / other >= 2))
        rows += [Row(f"{one.name}, tokens a {clock} second", median(speeds[one.name][clock]), unit="tokens/s")
                 for one in (ours, theirs)]  # fmt: skip
    for name, seconds in firsts.items():
        cut = quantiles(seconds, n=100) if len(seconds) > 1 else [seconds[0]] * 99
        rows.append(Row(f"{name}, time to first token", cut[49], unit="s", note=f"p99 {cut[98]:.2f} s"))
    return rows


def mixed(ours: Server, names: Sequence[str], rounds: int, size: int, most: int, count: Any) -> list[Row]:
    """What a second adapter costs, and that none of them answers for another."""
    one, two = [], []
    for number in range(rounds + 1):
        asked = prompts(size, 100 + number)
        made = [turn(ours, asked, most, count, names[:1]), turn(ours, asked, most, count, names)]
        if number:
            one.append(made[0].tokens / made[0].cpu)
            two.append(made[1].tokens / made[1].cpu)
    cost = median(one) / median(two) - 1
    began = time.perf_counter()
    seconds = []
    for n in range(20):
        began = time.perf_counter()
        ours.ask("Hello", 1, names[n % 2])
        seconds.append(time.perf_counter() - began)
    steady = []
    for _ in range(20):
        began = time.perf_counter()
        ours.ask("Hello", 1, names[0])
        steady.append(time.perf_counter() - began)
    switch = max(0.0, median(seconds) - median(steady)) * 1000
    return [
        Row("a second adapter in the mix, cpu", cost, 0.15, cost <= 0.15, "more"),
        Row("switch of adapter", switch, 50, switch <= 50, "ms", "a first token, beside one without a switch"),
    ]


def storm(ours: Server, names: Sequence[str], requests: int, most: int) -> list[Row]:
    """Many requests from 64 clients, a third of which leave; no answer is lost or another's, and memory comes back."""
    asked = prompts(8, 7)
    alone = {(text, name): ours.ask(text, most, name).text for text in asked for name in names}
    at_once([lambda text=text: ours.ask(text, most, names[0]) for text in asked * 8], 64)  # as large as it gets
    before = ours.figures()[1]
    draw = random.Random(0)
    plan = [(draw.choice(asked), draw.choice(names), draw.random() < 1 / 3) for _ in range(requests)]
    jobs = [
        lambda text=text, name=name, leave=leave: ours.ask(text, most, name, 2 if leave else None)
        for text, name, leave in plan
    ]
    replies = at_once(jobs, 64)
    right = wrong = lost = 0
    for (text, name, leave), reply in zip(plan, replies, strict=True):
        said = alone[text, name]
        if leave:
            wrong += not said.startswith(reply.text)
        elif not reply.text and said:
            lost += 1
        else:
            right, wrong = right + (reply.text == said), wrong + (reply.text != said)
    time.sleep(2)
    after = ours.figures()[1]
    grown = after / before - 1
    return [
        Row(f"{requests} requests: answers lost", lost, 0, lost == 0, "answers"),
        Row("answers unlike those asked for alone", wrong, 0, wrong == 0, "answers", f"{right} alike to the letter"),
        Row("memory after them", grown, 0.05, grown <= 0.05, "more", f"{before:.0f} and {after:.0f} MB"),
    ]


def adapters(model: Path, folder: Path) -> list[Path]:
    """Two LoRA adapters of rank 8 on every linear layer that say something of their own."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = []
    for seed in (1, 2):
        base = AutoModelForCausalLM.from_pretrained(model, trust_remote_code=False)
        tuned = get_peft_model(base, LoraConfig(r=8, target_modules="all-linear"))
        torch.manual_seed(seed)
        for name, weight in tuned.named_parameters():
            if "lora_B" in name:
                weight.data.normal_(0, 0.02)
        made.append(folder / f"adapter{seed}")
        tuned.save_pretrained(made[-1])
    return made


def environment(folder: Path) -> Path:
    """The Python of an environment that has transformers' server; made if need be."""
    python = folder / "bin" / "python"
    mark, wanted = folder / "made-of.txt", "\n".join(THEIRS)
    if mark.exists() and mark.read_text() == wanted:
        return python
    say(f"making an environment for transformers serve in {folder}")
    venv.create(folder, with_pip=True, clear=True)
    constraints = ["-c", str(HERE.parent / "constraints.txt")]
    subprocess.run([str(python), "-m", "pip", "install", "-q", *constraints, *THEIRS], check=True)
    mark.write_text(wanted)
    return python


def measure(asked: argparse.Namespace, folder: Path) -> list[Row]:
    from tunesmith.model.hub import locate
    from tunesmith.model.load import load_tokenizer

    model = locate(asked.model)
    tokenizer = load_tokenizer(model)
    count = lambda text: len(tokenizer(text, add_special_tokens=False)["input_ids"])  # noqa: E731
    size, most, rounds, requests = (16, 8, 1, 64) if asked.quick else (32, 64, asked.rounds, 1000)
    first, second = adapters(model, folder)
    port, other = free(), free()
    ours_words = [sys.executable, "-m", "tunesmith", "serve", str(model), "--port", str(port), "name=base", "queue=256"]
    ours_words += ["--adapter", f"one={first}", "--adapter", f"two={second}"]
    rows: list[Row] = []
    with ExitStack() as stack:
        ours = stack.enter_context(started("tunesmith serve", ours_words, "base", folder / "ours.log", port))
        if not asked.alone:
            python = asked.python or environment(asked.venv)
            words = [str(python), "-m", "transformers.cli.transformers", "serve", str(model), "--port", str(other)]
            words += ["--dtype", "float32", *asked.serve]
            began = started("transformers serve", words, str(model), folder / "theirs.log", other)
            theirs = stack.enter_context(began)
            rows += against(ours, theirs, rounds, size, most, count)
        rows += mixed(ours, ("one", "two"), rounds, size, most, count)
        rows += storm(ours, ("base", "one", "two"), requests, 8 if asked.quick else 24)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one round of few: that all runs, not how fast")
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--model", default="demo/smollm2-135m-instruct", help="a model's folder or name")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of each side (5)")
    parser.add_argument("--alone", action="store_true", help="ours only")
    parser.add_argument(
        "--serve", nargs="*", default=[], help="words for transformers serve, such as --continuous-batching"
    )
    parser.add_argument("--python", type=Path, help="a Python that has transformers' server already")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument(
        "--venv", type=Path, default=cache / "tunesmith-bench" / "serve", help="transformers' environment"
    )
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    say(f"load {load:.2f}; {pin()}")
    with TemporaryDirectory() as name:
        rows = measure(asked, Path(name))
    noisy = "; a busy machine: compare by the processors' time" if load > QUIET else ""
    rows.insert(0, Row("load before", load, unit="", note=f"{asked.model}, fp32, {STREAMS} streams{noisy}"))
    sys.stdout.write(table(rows) + "\n")
    if asked.json:
        asked.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
