"""Finished runs of a tiny model, and what a new process would say of a delivery."""

import json

import pytest
from conftest import make_tiny
from safetensors.torch import save_file
from training.test_resume import run_of

from tunesmith.delivery.proof import compared, heard, texts
from tunesmith.delivery.source import source_of
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.sft import SFT
from tunesmith.training.train import train


@pytest.fixture
def run(model_folder, reviews, tmp_path):
    """Trains a run, and gives its folder."""

    def made(method, objective=None, **settings):
        folder = tmp_path / "runs" / "r"
        one = run_of(model_folder, reviews, folder, method, objective or SFT(), max_steps=3, **settings)
        train(one, quiet=True)
        return str(folder)

    return made


@pytest.fixture(scope="session")
def source(tokenizer, tmp_path_factory):
    """A finished LoRA run."""
    place = tmp_path_factory.mktemp("lora")
    make_tiny().save_pretrained(place / "tiny")
    tokenizer.save_pretrained(place / "tiny")
    rows = [{"text": f"the film is {word} {n}", "label": word} for n in range(8) for word in ("warm", "dull")]
    (place / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    train(run_of(place / "tiny", place / "rows.jsonl", place / "r", LoRA(r=4), SFT(), max_steps=3), quiet=True)
    return source_of(str(place / "r"))


@pytest.fixture
def in_this_process(tmp_path, monkeypatch):
    """Proves a delivery without the time that a new process takes to start; `deliver` does so too."""

    def proven(source, folder):
        place = tmp_path / "heard"
        job = {"folder": str(folder), "texts": texts(source), "labels": source.labels}
        if source.adapter:
            job |= {"base": source.tuned.run.model.path, "run": str(source.tuned.folder.path)}
        save_file(dict(heard(job)), place)
        return compared(source, texts(source), place)

    monkeypatch.setattr("tunesmith.delivery.deliver.prove", proven)
    return proven
