"""Tunesmith as a worker: trains by its public `train`, or renders rows, as the first line on stdin says."""

import json
import sys
from tempfile import TemporaryDirectory

from gate import Gate, Left, OnlineGate, answer, own_stdout

from tunesmith.start import begin_again


def main() -> None:
    answers = own_stdout()
    job = json.loads(sys.stdin.readline())
    if job["do"] == "render":
        answer(answers, **render(job["words"]))
        return
    gate = (OnlineGate if job["do"] == "online" else Gate)(answers)
    train(job["words"], gate)
    while gate.asked == "again":
        train(job["words"], gate)


def train(words: list[str], gate: Gate) -> None:
    """One run, until the gate is told otherwise."""
    from tunesmith.config.load import load
    from tunesmith.run import Run
    from tunesmith.training.train import train

    with TemporaryDirectory() as folder:
        run = load(Run, None, [*words, f"output={folder}/run"]).value
        try:
            train(run, [gate], quiet=True)
        except Left:
            return


def render(words: list[str]) -> dict:
    """Every row as it is trained on, and where the model is."""
    from tunesmith.config.load import load
    from tunesmith.data.keeping.material import prepare
    from tunesmith.data.reading.places import places
    from tunesmith.model.hub import locate, locate_data
    from tunesmith.model.load import load_tokenizer
    from tunesmith.run import Run

    run = load(Run, None, words).value
    base = locate(run.model.path)
    material = prepare(run, places(run.data, locate_data), load_tokenizer(base), lambda text: None)
    sequences = [{"ids": tokens.ids, "learn": tokens.learn} for tokens in material.sequences]
    return {"model": str(base), "sequences": sequences}


if __name__ == "__main__":
    begin_again()  # as the command line does
    main()
