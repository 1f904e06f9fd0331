"""How fast rows become sequences, beside TRL's SFTTrainer, and in how much memory.

    python bench/data.py --data alpaca_en_demo.json

Both sides read the same rows, with the same tokenizer and the same template, on the same two processors, and must come
to the same ids and masks. TRL prepares them with one process, its default, and with as many as there are processors;
the three take turns, and each figure is the best of its rounds. The lint is timed beside them, without near-duplicates.
On a machine that is not quiet, rows in a second of the processors' time tell more than rows in a second.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from itertools import cycle, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from train import QUIET, environment
from worker import HERE, THREADS, say, settled

MODEL = "demo/smollm2-135m-instruct"
TEMPLATE = (
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained"
    " by Hugging Face<|im_end|>\n' }}{% endif %}{% for message in messages %}{% if message.role == 'assistant' %}"
    "{{ '<|im_start|>assistant\n' }}{% generation %}{{ message.content + '<|im_end|>' }}{% endgeneration %}{{ '\n' }}"
    "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
LONGEST = 1024
SPEED, PEAK, LINT = 5.0, 1500.0, 20_000.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="rows of the alpaca kind, a JSON array")
    parser.add_argument("--rows", type=int, default=50_000, help="so many rows, the file's over and over")
    parser.add_argument(
        "--many", type=int, default=1_000_000, help="rows of the run whose memory is measured; 0 for none"
    )
    parser.add_argument("--venv", type=Path, default=Path.home() / ".cache" / "tunesmith-bench" / "trl")
    parser.add_argument("--rounds", type=int, default=1, help="how often each side prepares them")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    say(f"load before: {load:.2f}" + (f", more than {QUIET}: nothing is judged" if load > QUIET else ""))
    trl = environment(asked.venv)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "template.jinja").write_text(TEMPLATE)
        rows = json.loads(asked.data.read_text(encoding="utf-8"))
        same = compare(written(folder / "few.jsonl", rows, asked.rows), asked, folder, str(trl))
        if asked.many:
            many(written(folder / "many.jsonl", rows, asked.many), asked.many, folder)
    sys.exit(not same)


def compare(few: Path, asked: argparse.Namespace, folder: Path, trl: str) -> bool:
    """Both sides on the same rows, in turn; whether they come to the same."""
    ways = {
        "ours": lambda: side(sys.executable, "ours_data.py", few, folder / "ours.jsonl", folder),
        "TRL, 1 process": lambda: side(trl, "trl_data.py", few, folder / "one.jsonl", folder),
        f"TRL, {THREADS} processes": lambda: side(
            trl, "trl_data.py", few, folder / "all.jsonl", folder, processes=THREADS
        ),
        "lint": lambda: side(sys.executable, "ours_data.py", few, None, folder, do="lint"),
    }
    best: dict[str, dict] = {}
    for _ in range(asked.rounds):
        for name, run in ways.items():
            made = run() | {"load": os.getloadavg()[0]}
            speeds = asked.rows / made["seconds"], asked.rows / made["cpu"]
            say(f"  {name}: {speeds[0]:,.0f} rows/s, {speeds[1]:,.0f} a processor second, load {made['load']:.1f}")
            best[name] = min(made, best.get(name, made), key=lambda one: one["seconds"])
    speed = {name: asked.rows / one["seconds"] for name, one in best.items()}
    say(f"{'':24}{'rows/s':>12}{'rows/CPU-s':>12}{'peak MB':>12}")
    for name, one in best.items():
        more = f"ours is {judged(speed['ours'] / speed[name], SPEED)}" if name.startswith("TRL") else ""
        if name == "lint":
            goal = reached(speed[name] >= LINT)
            more = f"after {one['start']:.2f} s to start (goal: at least {LINT:,.0f}: {goal})"
        say(f"{name:24}{speed[name]:12,.0f}{asked.rows / one['cpu']:12,.0f}{one['peak']:12,.0f}   {more}")
    texts = {(folder / f"{name}.jsonl").read_bytes() for name in ("ours", "one", "all")}
    say(f"ids and masks: {'the same' if len(texts) == 1 else 'NOT THE SAME'}")
    return len(texts) == 1


def many(rows: Path, count: int, folder: Path) -> None:
    """So many rows that they show whether memory grows with them."""
    made = side(sys.executable, "ours_data.py", rows, None, folder)
    say(
        f"{count:,} rows: {count / made['seconds']:,.0f} rows/s, peak {made['peak']:,.0f} MB"
        f" (goal: at most {PEAK:,.0f}: {reached(made['peak'] <= PEAK)}), {made['main']:,.0f} in the one that writes"
    )


def reached(yes: bool) -> str:
    return "yes" if yes else "MISSED"


def judged(ratio: float, goal: float) -> str:
    return f"{ratio:.2f} times as fast (goal: at least {goal:g}: {reached(ratio >= goal)})"


def written(file: Path, rows: list[dict], count: int) -> Path:
    """So many rows, no two of them alike."""
    with file.open("w", encoding="utf-8") as out:
        for number, row in enumerate(islice(cycle(rows), count)):
            out.write(json.dumps(row | {"output": f"{row['output']} ({number})"}, ensure_ascii=False) + "\n")
    return file


def side(python: str, script: str, rows: Path, out: Path | None, folder: Path, **more: Any) -> dict:
    job: dict = {"rows": str(rows), "out": str(out or ""), "template": str(folder / "template.jinja"), "model": MODEL}
    job |= {"max_length": LONGEST, "processes": None, "do": "prepare"} | more
    if script.startswith("trl"):
        from tunesmith.model.hub import locate

        job["model"] = str(locate(MODEL))
    done = subprocess.run(
        [python, str(HERE / script), json.dumps(job)],
        capture_output=True,
        text=True,
        env=os.environ | settled() | {"TOKENIZERS_PARALLELISM": "true"},
    )
    if done.returncode:
        sys.exit(f"{script} ended with status {done.returncode}:\n{done.stderr[-3000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    main()
