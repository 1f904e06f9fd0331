"""The grid holds, in a sample and on the whole; and each of its checks finds the fault that it is for."""

import json
import re
import shutil
from importlib.util import find_spec
from io import StringIO

import pytest
import torch
from safetensors.torch import load_file, save_file

from tunesmith.cli import app
from tunesmith.errors import Refusal
from tunesmith.grid import plain, reload
from tunesmith.grid.cells import Cell, cells, known
from tunesmith.grid.check import ASKED, HEARD, SAID, Outcome, examine, listen, run_of
from tunesmith.grid.grid import go
from tunesmith.grid.page import page
from tunesmith.grid.reload import hear
from tunesmith.grid.tiny import tiny
from tunesmith.methods.lora import LoRA
from tunesmith.model.policy import Policy
from tunesmith.objectives.base import LogProbs, objective
from tunesmith.objectives.sft import SFT
from tunesmith.precision.base import precision
from tunesmith.rollout.buffer import Buffer
from tunesmith.rollout.sample import sample

USUAL = Cell("lora", "sft", "fp32", "packed")


@pytest.fixture(scope="module")
def place():
    with tiny() as made:
        yield made


@pytest.mark.filterwarnings("ignore")  # of packages that hold weights in few bits
def test_every_name_has_a_cell_that_holds():
    """The sample that every change is tried with: each method, objective, precision and kind of batch once or more."""
    outcomes = go(cells({}), together=1)
    assert [(one.name, one.reason) for one in outcomes if one.status == "failed"] == []
    held = {name for one in outcomes if one.status == "ok" for name in one.name.split()}
    missing = {name for name, entry in precision.all().items() if entry.package and not find_spec(entry.package)}
    missing |= set() if torch.cuda.is_available() else {"fp16"}
    assert {name for names in known().values() for name in names} - held == missing
    assert all(one.reason for one in outcomes if one.status == "refused")


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_every_cell_holds():
    outcomes = go(cells({}))
    assert [(one.name, one.reason) for one in outcomes if one.status == "failed"] == []
    assert sum(one.status == "ok" for one in outcomes) > len(outcomes) / 3


def test_the_command_prints_json_and_writes_a_page(tmp_path, capsys):
    words = ["--method", "lora", "--method", "full", "--objective", "sft", "--precision", "nf4", "--batch", "padded"]
    app(["grid", *words, "--json", "--write", str(tmp_path / "grid.md")], standalone_mode=False)
    found = json.loads(capsys.readouterr().out)["cells"]
    assert [(cell["name"], cell["status"]) for cell in found] == [
        ("lora sft nf4 padded", "ok"),
        ("full sft nf4 padded", "refused"),
    ]
    assert "full trains or changes them; take an adapter" in found[1]["reason"]
    written = (tmp_path / "grid.md").read_text(encoding="utf-8")
    assert "| lora | ok padded |" in written and "试验网格" in written and "torch " in written


def test_a_cell_that_fails_fails_the_command(monkeypatch):
    import tunesmith.grid.grid

    monkeypatch.setattr(tunesmith.grid.grid, "go", lambda *_: [Outcome(USUAL.name, "failed", "the loss does not fall")])
    with pytest.raises(Refusal, match="1 of 1 cells failed: lora sft fp32 packed"):
        app(["grid", "--json"], standalone_mode=False)


def test_the_page_says_why_and_once():
    cases = [Cell(name, "sft", held, "packed").name for name in ("full", "freeze") for held in ("nf4", "fp4")]
    said = "method: model.precision={} holds weights in few bits, which cannot learn, and {} trains or changes them"
    found = [Outcome(name, "refused", said.format(name.split()[2], name.split()[0])) for name in cases]
    text = page([*found, Outcome("lora sft nf4 packed", "failed", "it is broken")], " --fast")
    assert text.count("holds weights in few bits") == 1 and "| full | 1 packed | 1 packed |" in text
    assert "| lora |  | **2** packed |" in text and "2. failed: it is broken" in text


# --- each check finds its fault ---------------------------------------------------------------------------------------


def reason(place, folder) -> str:
    outcome = examine(USUAL, place, folder)
    if outcome.status == "ok":
        save_file(hear(folder), folder / HEARD)
        listen(outcome, folder)
    return outcome.reason


def test_a_cell_without_a_fault_holds(place, tmp_path):
    assert reason(place, tmp_path) == ""


def test_a_loss_that_rises_is_found(place, tmp_path, monkeypatch):
    monkeypatch.setattr(LoRA, "rate", lambda self, name: -1.0)
    assert "the loss does not fall" in reason(place, tmp_path)


def test_a_weight_that_should_not_move_is_found(place, tmp_path, monkeypatch):
    def spoil(self, model, step, total):
        with torch.no_grad():
            model.get_base_model().model.layers[1].mlp.up_proj.base_layer.weight[0, 0] += 1e-3

    monkeypatch.setattr(LoRA, "after_step", spoil)
    assert "layers.1.mlp.up_proj.base_layer.weight does not learn and has moved" in reason(place, tmp_path)


def test_a_weight_that_should_move_is_found(place, tmp_path, monkeypatch):
    monkeypatch.setattr(LoRA, "rate", lambda self, name: float("layers.1.mlp.up_proj.lora_A" not in name))
    assert "layers.1.mlp.up_proj.lora_A.default.weight learns and has not moved" in reason(place, tmp_path)


def test_a_wrong_loss_is_found(place, tmp_path, monkeypatch):
    right = Policy.logp

    def wrong(self, batch):
        logp = right(self, batch)
        return LogProbs(logp.token * 1.01, logp.owner, logp.answers, logp.weight)

    monkeypatch.setattr(Policy, "logp", wrong)
    assert "the first loss is" in reason(place, tmp_path)


def test_a_wrong_gradient_of_one_weight_is_found(place, tmp_path, monkeypatch):
    right = LoRA.attach

    def wrong(self, model, heads=()):
        tuned = right(self, model, heads)
        for name, weight in tuned.named_parameters():
            if "layers.0.self_attn.k_proj.lora_B" in name:
                weight.register_hook(lambda gradient: gradient * 1.5)
        return tuned

    monkeypatch.setattr(LoRA, "attach", wrong)
    assert "the gradient of" in reason(place, tmp_path) and "k_proj.lora_B" in reason(place, tmp_path)


def test_a_base_that_a_method_has_changed_is_found(place, tmp_path, monkeypatch):
    right = LoRA.attach

    def wrong(self, model, heads=()):
        tuned = right(self, model, heads)
        with torch.no_grad():
            tuned.get_base_model().model.norm.weight *= 1.001
        return tuned

    monkeypatch.setattr(LoRA, "attach", wrong)
    assert "norm.weight does not learn, and is not what it is in a plain model" in reason(place, tmp_path)


def test_a_weight_that_is_not_saved_is_found(place, tmp_path, monkeypatch):
    right = LoRA.save

    def wrong(self, model, folder):
        right(self, model, folder)
        file = folder / "adapter_model.safetensors"
        weights = load_file(file)
        first = next(name for name in weights if "lora_B" in name)
        save_file(weights | {first: torch.zeros_like(weights[first])}, file)

    monkeypatch.setattr(LoRA, "save", wrong)
    assert "loaded in a new process it says something else" in reason(place, tmp_path)


def test_a_wrong_merge_is_found(place, tmp_path):
    outcome = examine(USUAL, place, tmp_path)
    heard = hear(tmp_path)
    assert torch.allclose(load_file(tmp_path / SAID)["said"], heard["loaded"], atol=1e-5)
    save_file(heard | {"merged": heard["merged"] * 1.01}, tmp_path / HEARD)
    listen(outcome, tmp_path)
    assert outcome.status == "failed" and "merged it says something else" in outcome.reason


def test_what_cannot_be_loaded_is_found_and_the_others_are_loaded(place, tmp_path, monkeypatch):
    outcome = examine(USUAL, place, tmp_path)
    weights = tmp_path / "adapter" / "adapter_model.safetensors"
    there = weights.read_bytes()
    weights.write_bytes(b"not weights")
    other = tmp_path.with_name("other")
    shutil.copytree(tmp_path, other)
    (other / "adapter" / "adapter_model.safetensors").write_bytes(there)
    monkeypatch.setattr("sys.stdin", StringIO(f"{tmp_path}\n{other}\n"))
    reload.main()
    listen(outcome, tmp_path)
    assert outcome.status == "failed" and "saved, it cannot be loaded: CheckpointError" in outcome.reason
    listen(held := Outcome(USUAL.name), other)
    assert held.status == "ok" and held.figures["reloaded"] < 1e-4


def drawn_otherwise(monkeypatch):
    def off(*given):
        drawn = sample(*given)
        for one in drawn:
            one.logp = [logp - 0.3 for logp in one.logp]
        return drawn

    monkeypatch.setattr("tunesmith.rollout.buffer.sample", off)


def known_otherwise(monkeypatch):
    right = Buffer.looked_at
    monkeypatch.setattr(Buffer, "looked_at", lambda self: {name: one + 0.1 for name, one in right(self).items()})


WRONG = {
    "drawn": (drawn_otherwise, "grpo", "answers are drawn 0.3 nats a token from"),
    "known": (known_otherwise, "rloo", "the first loss is|the gradient of"),
}


@pytest.mark.parametrize(("spoil", "aim", "says"), WRONG.values(), ids=WRONG)
def test_answers_that_are_drawn_or_known_otherwise_are_found(spoil, aim, says, place, tmp_path, monkeypatch):
    spoil(monkeypatch)
    assert re.search(says, examine(USUAL._replace(objective=aim), place, tmp_path).reason)


@pytest.mark.filterwarnings("ignore")
def test_what_rounds_is_held_to_its_rounding_and_no_less(place, tmp_path):
    pytest.importorskip("bitsandbytes")
    outcome = examine(USUAL._replace(objective="pretrain", precision="llm_int8", batch="padded"), place, tmp_path)
    allowed = json.loads((tmp_path / ASKED).read_text())["allowed"]
    assert outcome.reason == "" and 1e-4 < allowed < 0.05
    said = load_file(tmp_path / SAID)["said"]
    save_file({"loaded": said + 1.5 * allowed * said.abs().max()}, tmp_path / HEARD)
    listen(outcome, tmp_path)
    assert outcome.status == "failed" and "loaded in a new process it says something else" in outcome.reason


def test_an_error_of_one_cell_does_not_end_the_others(place, tmp_path, monkeypatch):
    monkeypatch.setattr(SFT, "loss", lambda self, batch, logp: 1 / 0)
    failed = examine(USUAL, place, tmp_path)
    assert (failed.status, failed.reason) == ("failed", "ZeroDivisionError: division by zero")


# --- losses, written a third time -------------------------------------------------------------------------------------


def each_token(model, tokens):
    """The negative log-probability of each token that is learnt, by softmax written out in float64."""
    chances = plain.logits(model, tokens)[:-1].double().exp()
    chances = chances / chances.sum(-1, keepdim=True)
    return [-chances[at, tokens.ids[at + 1]].log() for at, learn in enumerate(tokens.learn[1:]) if learn]


def of_tokens(model, sequences):
    return torch.stack([one for tokens in sequences for one in each_token(model, tokens)]).mean()


def of_labels(model, sequences):
    scores = plain.score(model, sequences).double().exp()
    return -torch.stack(
        [(row[tokens.label] / row.sum()).log() for row, tokens in zip(scores, sequences, strict=True)]
    ).mean()


FORMULAS = {"sft": of_tokens, "pretrain": of_tokens, "classify": of_labels}


@pytest.mark.parametrize("aim", FORMULAS)
def test_the_loss_is_that_of_its_formula(aim, place):
    run = run_of(USUAL._replace(method="full", objective=aim), place)
    material = place.material(run)
    torch.manual_seed(0)
    model = anew(run, place, material)
    with torch.no_grad():
        expected = FORMULAS[aim](model, list(material.sequences))
    learning = {name: weight for name, weight in model.named_parameters() if "norm" in name}
    loss, slopes = plain.gradient(model, objective[aim](), plain.Given(list(material.sequences)), learning)
    assert float(loss) == pytest.approx(float(expected), abs=1e-6)
    assert all(slope.any() for slope in slopes.values())


def anew(run, place, material):
    from tunesmith.model.load import load_model

    model, _ = load_model(place.base, run.model.precision, material.labels)
    model.config.pad_token_id = None
    return model
