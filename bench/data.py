"""How fast rows become sequences, beside TRL's SFTTrainer, and in how much memory.

    python bench/data.py --data alpaca_en_demo.json

Both sides read the same rows, with the same tokenizer and the same template, on the same two processors, and must come
to the same ids and masks. TRL is given as many processes as there are processors; with its default of one it takes
about twice as long.
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
SPEED, PEAK = 5.0, 1500.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="rows of the alpaca kind, a JSON array")
    parser.add_argument("--rows", type=int, default=50_000, help="so many rows, the file's over and over")
    parser.add_argument(
        "--many", type=int, default=1_000_000, help="rows of the run whose memory is measured; 0 for none"
    )
    parser.add_argument("--venv", type=Path, default=Path.home() / ".cache" / "tunesmith-bench" / "trl")
    asked = parser.parse_args()
    load = os.getloadavg()[0]
    say(f"load before: {load:.2f}" + (f", more than {QUIET}: nothing is judged" if load > QUIET else ""))
    trl = environment(asked.venv)
    with TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "template.jinja").write_text(TEMPLATE)
        rows = json.loads(asked.data.read_text(encoding="utf-8"))
        few = written(folder / "few.jsonl", rows, asked.rows)
        ours = side(sys.executable, "ours_data.py", few, folder / "ours.jsonl", folder)
        theirs = side(str(trl), "trl_data.py", few, folder / "theirs.jsonl", folder)
        same = (folder / "ours.jsonl").read_bytes() == (folder / "theirs.jsonl").read_bytes()
        speeds = [asked.rows / one["seconds"] for one in (ours, theirs)]
        say(f"{'':28}{'ours':>12}{'TRL':>12}")
        say(f"{'rows/s':28}{speeds[0]:12,.0f}{speeds[1]:12,.0f}   {judged(speeds[0] / speeds[1], SPEED)}")
        say(f"{'peak MB':28}{ours['peak']:12,.0f}{theirs['peak']:12,.0f}")
        say(f"{'ids and masks':28}{'the same' if same else 'NOT THE SAME':>12}")
        if asked.many:
            lots = side(sys.executable, "ours_data.py", written(folder / "many.jsonl", rows, asked.many), None, folder)
            say(
                f"{asked.many:,} rows: {asked.many / lots['seconds']:,.0f} rows/s, peak {lots['peak']:,.0f} MB"
                f" (goal: at most {PEAK:,.0f}: {'yes' if lots['peak'] <= PEAK else 'MISSED'})"
            )
    sys.exit(not same)


def judged(ratio: float, goal: float) -> str:
    return f"{ratio:.2f} times (goal: at least {goal:g}: {'yes' if ratio >= goal else 'MISSED'})"


def written(file: Path, rows: list[dict], count: int) -> Path:
    """So many rows, no two of them alike."""
    with file.open("w", encoding="utf-8") as out:
        for number, row in enumerate(islice(cycle(rows), count)):
            out.write(json.dumps(row | {"output": f"{row['output']} ({number})"}, ensure_ascii=False) + "\n")
    return file


def side(python: str, script: str, rows: Path, out: Path | None, folder: Path) -> dict:
    job = {"rows": str(rows), "out": str(out or ""), "template": str(folder / "template.jinja"), "model": MODEL}
    job |= {"max_length": LONGEST, "processes": THREADS}
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
