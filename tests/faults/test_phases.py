"""A run that is told to stop, or killed, in each of its phases ends as if nothing had been."""

import json

import pytest
from faults.test_faults import settings

from tunesmith.cli.faults import going_on, outcome
from tunesmith.runs import RunFolder

STOP, KILL = "kill -TERM $PID", "kill -KILL $PID"
TWICE = f"{STOP}; sleep 0.2; {STOP}"
NOTHING, GOES_ON = "there was nothing to save", "nothing is lost; go on with: tunesmith train --resume"
PHASES = {
    "looking at the model": ("open *tiny/config.json", STOP, 130, NOTHING),
    "reading the data": ("open *reviews.jsonl", STOP, 130, NOTHING),
    "rendering the data": ("said data: * read as *", STOP, 130, NOTHING),
    "loading the weights": ("open *tiny/generation_config.json", STOP, 130, NOTHING),
    "measuring before": ("said measuring before*", STOP, 75, GOES_ON),
    "training": ("said step 3/*", STOP, 75, "after step 3, and saved"),
    "writing a checkpoint": ("os.mkdir *.step-00000004*", STOP, 75, ", and saved; go on with"),
    "measuring meanwhile": ("said step 4: loss on*", STOP, 75, "after step 4, and saved"),
    "saving what was learnt": ("os.mkdir *.adapter*", STOP, 75, GOES_ON),
    "measuring after": ("said measuring after*", STOP, 75, GOES_ON),
    "training, told twice": ("said step 3/*", TWICE, 143, "step 3/6"),
    "killed while the run begins": ("open *.run.json*", KILL, -9, ""),
    "killed while a checkpoint is written": ("open *.step-00000004*manifest.json", KILL, -9, ""),
    "killed while what was learnt is saved": ("open *.adapter*adapter_config.json", KILL, -9, ""),
    "killed while the report is written": ("open *.report.html*", KILL, -9, ""),
}


@pytest.fixture
def words(model_folder, reviews):
    more = ["train.max_steps=6", "train.save_steps=2", "train.eval_strategy=steps", "train.eval_steps=4"]
    more += ["train.logging_steps=1", "eval.enabled=true", "eval.max_new_tokens=4"]
    return ["train", *settings(model_folder, reviews), *more]


def test_a_run_that_is_stopped_in_any_phase_ends_as_if_nothing_had_been(ready, words, tmp_path):
    """All phases on one model, since most of what a test takes is to make it."""
    log = tmp_path / "log"
    code, said = ready.run(*words, f"output={tmp_path / 'alone'}", log=log)
    assert code == 0, said
    alone = outcome(tmp_path / "alone")
    for phase, (moment, then, expected, sentence) in PHASES.items():
        folder = tmp_path / phase
        begin = [*words, f"output={folder}"]
        code, said = ready.run(*begin, log=log, moments=[(moment, then)])
        assert (code, sentence in said) == (expected, True), f"{phase}: {code}: {said}"
        assert expected != 130 or not folder.exists(), phase
        code, said = ready.run(*going_on(begin, folder), log=log)
        assert code == 0, f"{phase}: {said}"
        assert outcome(folder) == alone, phase
        assert not [place.name for place in folder.glob("checkpoints/*") if "step-0" not in place.name[:6]], phase
        facts = RunFolder(folder).facts
        assert facts["status"] == "finished" and facts["result"]["after"], phase
        assert json.loads((folder / "manifest.json").read_text())["result"], phase


def test_a_clock_that_jumps_changes_nothing(ready, words, tmp_path):
    log = tmp_path / "log"
    assert ready.run(*words, f"output={tmp_path / 'alone'}", log=log)[0] == 0
    moments = [("said step 3/*", STOP)]
    code, said = ready.run(*words, f"output={tmp_path / 'run'}", log=log, moments=moments, skewed=True)
    assert code == 75, said
    code, said = ready.run("train", "--resume", tmp_path / "run", log=log, skewed=True)
    assert code == 0, said
    assert outcome(tmp_path / "run") == outcome(tmp_path / "alone")
    result = RunFolder(tmp_path / "run").facts["result"]
    assert 0 < result["train_seconds"] < 600 and result["tokens_per_second"] > 0
