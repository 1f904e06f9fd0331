"""A run's passport names all that decides its result; by it the run can be made again, or is refused."""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from training.test_resume import StopsAfter, changed, run_of, weights

import tunesmith
from tunesmith import passport
from tunesmith.cli import main
from tunesmith.errors import CheckpointError, DataError, RecipeError, Stopped
from tunesmith.methods.full import Full
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.sft import SFT
from tunesmith.runs import versions
from tunesmith.training.reproduce import reproduce
from tunesmith.training.train import resume, train

ADAPTER = "adapter/adapter_model.safetensors"


@pytest.fixture(autouse=True)
def here(monkeypatch, tmp_path):
    """Runs that are given no folder stand below this test's own."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def made(model_folder, reviews, tmp_path):
    """A finished run of three steps."""
    method = LoRA(r=2, lora_dropout=0.1)
    run = run_of(model_folder, reviews, tmp_path / "run", method, SFT(), max_steps=3, warmup_steps=1)
    train(run, origins={"model.path": "mine.yaml:2"}, quiet=True)
    return tmp_path / "run"


@pytest.fixture
def stopped(model_folder, reviews, tmp_path):
    """A run that was stopped after two steps, and saved."""
    with pytest.raises(Stopped):
        train(run_of(model_folder, reviews, tmp_path / "run", LoRA(r=2), SFT()), [StopsAfter(2)], quiet=True)
    return tmp_path / "run"


def flip(file: Path) -> None:
    """Change a file's last bit: in safetensors, one of a weight."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


def forge(folder: Path) -> None:
    """Change a run's weights, and its passport so that they seem to be what the run came to."""
    flip(folder / ADAPTER)
    known = passport.read(folder)
    passport.put(folder, known | {"result": known["result"] | {ADAPTER: sum_of(folder / ADAPTER)}})


def sum_of(file: Path) -> str:
    return sha256(file.read_bytes()).hexdigest()


def ask(capsys, *words) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main([*map(str, words)])
    return left.value.code or 0, *capsys.readouterr()


def test_a_passport_names_all_that_decides_a_result(made, model_folder, reviews):
    known = passport.read(made)
    assert known["base"]["model.safetensors"] == sum_of(model_folder / "model.safetensors")
    assert {"config.json", "tokenizer.json", "tokenizer_config.json"} <= known["base"].keys()
    assert known["data"]["reviews.jsonl"] == sum_of(reviews)
    root = Path(tunesmith.__file__).parent
    assert known["code"]["training/loop.py"] == sum_of(root / "training" / "loop.py")
    assert known["options"]["model.path"] == {"value": str(model_folder), "origin": "mine.yaml:2"}
    assert known["options"]["method.r"] == {"value": 2, "origin": "Python"}
    assert known["options"]["train.seed"] == {"value": 42, "origin": "default"}
    assert known["seeds"]["training"] == 42
    assert known["versions"] == versions()
    assert known["machine"]["threads"] == torch.get_num_threads()
    assert known["machine"]["device"] == "cpu"
    assert known["hashes"].keys() == {"recipe", "code", "data", "base", "environment"}
    assert known["result"][ADAPTER] == sum_of(made / ADAPTER)
    assert "changed" not in known


def test_a_fact_stands_in_one_place(made):
    assert not {"origins", "versions"} & json.loads((made / "run.json").read_text()).keys()


@pytest.mark.parametrize("part", ["method", "data", "train"])
def test_the_recipes_hash_changes_with_every_part_but_the_output(model_folder, reviews, part):
    def of(output="a", seed=42, method=LoRA(), rows=reviews):  # noqa: B008 - it is frozen
        return passport.recipe(run_of(model_folder, rows, output, method, SFT(), seed=seed))

    other = {"method": {"method": LoRA(r=3)}, "data": {"rows": "other.jsonl"}, "train": {"seed": 7}}[part]
    assert of() == of("b")
    assert of() != of(**other)


def test_the_hash_of_weights_sees_a_bit_a_name_and_a_type():
    one = torch.arange(6.0).view(2, 3)
    bit = one.clone()
    bit.view(torch.int32)[1, 2] ^= 1
    others = [{"a": bit}, {"b": one}, {"a": one.view(3, 2)}, {"a": one.view(torch.int32)}, {"a": one.bfloat16()}]
    found = [passport.in_memory(each) for each in ({"a": one}, *others)]
    assert len(set(found)) == len(found)
    assert passport.in_memory({"a": one.T.contiguous().T, "b": bit}) == passport.in_memory({"b": bit, "a": one})


@pytest.mark.parametrize("method", [LoRA(r=2, lora_dropout=0.1), Full()], ids=["lora", "full"])
def test_a_run_is_reproduced_bit_for_bit(model_folder, reviews, tmp_path, method):
    train(run_of(model_folder, reviews, tmp_path / "run", method, SFT(), max_steps=3, logging_steps=1), quiet=True)
    found = reproduce(tmp_path / "run", quiet=True)
    assert found.second.path == Path("runs/run-again")
    assert found.exact and not found.unpromised and not found.differences
    assert weights(tmp_path / "run") == weights(Path("runs/run-again"))
    assert len(found.figures) == 6
    assert all(one == other for _, _, one, other in found.figures)
    assert passport.TRAINED in found.results


def test_the_command_tells_that_the_weights_are_the_same(made, capsys):
    code, said, _ = ask(capsys, "reproduce", made)
    assert code == 0
    assert "the weights are the same, bit for bit" in said
    code, said, _ = ask(capsys, "reproduce", made, "--output", made.with_name("third"), "--json")
    told = json.loads(said)
    assert (code, told["exact"], told["promised"]) == (0, True, True)
    assert told["second"] == str(made.with_name("third"))
    assert len(set(told["weights"][ADAPTER])) == 1


def test_changed_data_are_refused_before_training(made, reviews):
    reviews.write_text(reviews.read_text().replace("warm 0", "warm 00"))
    with pytest.raises(DataError, match=r"has changed since .* was trained on it: reviews.jsonl$"):
        reproduce(made, quiet=True)
    assert not Path("runs").exists()


def test_a_changed_base_is_refused_before_training(made, model_folder):
    flip(model_folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"has changed since .* was trained on it: model.safetensors$"):
        reproduce(made, quiet=True)
    assert not Path("runs").exists()


def test_a_tampered_adapter_is_refused_before_training(made):
    flip(made / ADAPTER)
    with pytest.raises(CheckpointError, match=r"adapter_model.safetensors: is not what the run wrote"):
        reproduce(made, quiet=True)
    assert not Path("runs").exists()


def test_a_changed_recipe_is_refused_before_training(made):
    changed(made, "weight_decay", 0.5)
    with pytest.raises(RecipeError, match=r"recipe.yaml: is not .* train.weight_decay was 0.0, is 0.5$"):
        reproduce(made, quiet=True)


def test_a_run_without_a_passport_is_refused(made):
    (made / passport.NAME).unlink()
    with pytest.raises(CheckpointError, match=r"manifest.json, the run's passport, cannot be read"):
        reproduce(made, quiet=True)


def test_an_unfinished_run_is_refused(stopped):
    with pytest.raises(CheckpointError, match=r"is not finished; go on with `tunesmith train --resume"):
        reproduce(stopped, quiet=True)


def test_other_weights_from_the_same_inputs_are_a_failure(made, capsys):
    forge(made)
    code, said, error = ask(capsys, "reproduce", made)
    assert code == 1
    assert "NO" in said
    assert "the same inputs, code, versions and machine gave other weights" in error


@pytest.mark.parametrize(
    ("section", "name"), [("versions", "torch"), ("machine", "threads"), ("code", "training/loop.py")]
)
def test_the_same_bits_are_not_promised_elsewhere(made, capsys, section, name):
    forge(made)
    known = passport.read(made)
    passport.put(made, known | {section: known[section] | {name: "another"}})
    code, said, error = ask(capsys, "reproduce", made)
    assert code == 0, error
    assert f"the same bits are not promised, for these differ: {section}: {name}" in " ".join(said.split())


def test_batches_cut_for_memory_are_noted_and_round_otherwise(made):
    passport.complete(made, made / "adapter", {}, cuts=4)
    found = reproduce(made, quiet=True)
    assert not found.exact  # no weights were named
    assert found.unpromised == ["machine: batches cut for memory"]


def test_a_changed_base_is_refused_on_resume(stopped, model_folder):
    flip(model_folder / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"the base model has changed since: model.safetensors"):
        resume(stopped, quiet=True)
    flip(model_folder / "model.safetensors")
    resume(stopped, quiet=True)


def test_a_checkpoint_without_its_runs_passport_knows_its_base(stopped, model_folder):
    flip(model_folder / "model.safetensors")
    (stopped / passport.NAME).unlink()
    with pytest.raises(CheckpointError, match=r"step-00000002: cannot go on exactly: base has changed since"):
        resume(stopped, quiet=True)


def test_what_changed_between_the_sessions_of_a_run_is_noted(stopped, monkeypatch):
    monkeypatch.setattr(passport, "versions", lambda *more, real=passport.versions: real(*more) | {"torch": "9.9"})
    resume(stopped, quiet=True)
    known = passport.read(stopped)
    assert known["changed"]["versions"]["torch"] == [known["versions"]["torch"], "9.9"]
    assert known["changed"]["machine"]["callbacks"][1] is None
    monkeypatch.undo()
    found = reproduce(stopped, quiet=True)
    assert found.exact
    assert "versions: torch" in found.unpromised


def test_a_run_that_was_killed_before_it_had_a_passport_gets_one(stopped):
    (stopped / passport.NAME).unlink()
    resume(stopped, quiet=True)
    known = passport.read(stopped)
    assert known["options"]["method.r"]["origin"].startswith(f"{stopped}/recipe.yaml:")
    assert ADAPTER in known["result"]


def test_changed_held_out_rows_are_said_and_noted(model_folder, reviews, tmp_path, capsys):
    held = tmp_path / "held.jsonl"
    held.write_text("".join(reviews.read_text().splitlines(keepends=True)[:8]))
    run = run_of(model_folder, reviews, tmp_path / "run", LoRA(r=2), SFT())
    with pytest.raises(Stopped):
        train(replace(run, data=replace(run.data, eval_path=str(held), on_lint="warn")), [StopsAfter(2)], quiet=True)
    held.write_text(held.read_text().replace("warm 0", "warm 00"))
    resume(tmp_path / "run")
    said = capsys.readouterr().err
    assert "the held-out rows have changed since this run began: its figures before and after" in said
    assert "data: eval_path: held.jsonl, measured rows" in said
    assert passport.read(tmp_path / "run")["changed"]["data"].keys() == {"eval_path: held.jsonl", passport.MEASURED}


def test_a_checkpoint_names_the_code_and_versions_that_wrote_it(stopped):
    known = passport.read(stopped)
    manifest = json.loads((stopped / "checkpoints" / "step-00000002" / "manifest.json").read_text())
    assert manifest["code"] == known["hashes"]["code"]
    names = ("torch", "transformers", "peft", "accelerate")
    assert {name: manifest[name] for name in names} == {name: known["versions"][name] for name in names}
