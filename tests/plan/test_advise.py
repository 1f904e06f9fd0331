"""The advisor's rules: the keys that they name are there, they say what the guide says, what they write loads back."""

import math
import re
from dataclasses import replace
from functools import partial

import pytest

from tunesmith.cli import main
from tunesmith.cli.advise import objections, where
from tunesmith.compare.contest import Entrant
from tunesmith.compare.trial import scaled
from tunesmith.config.describe import rows
from tunesmith.config.load import load
from tunesmith.model.load import attach
from tunesmith.plan.advise import advise, applied, circumstances, holds, keeps, settled
from tunesmith.plan.table import table
from tunesmith.run import Run
from tunesmith.training.order import Order

RULES = table("advice")["rules"]
GUIDE = {
    "train.learning_rate", "train.lr_scheduler_type", "train.warmup_steps", "train.gradient_accumulation_steps",
    "train.num_train_epochs", "train.weight_decay", "method.r", "method.lora_alpha", "method.lora_dropout",
    "method.target_modules", "method.num_virtual_tokens", "method.bottleneck_size", "train.fp16", "train.bf16",
    "train.max_grad_norm", "train.gradient_checkpointing", "train.activation_offload", "model.max_memory",
}  # fmt: skip


def asked(*words, **facts):
    made = load(Run, None, ["model.path=m", "data.path=d", *words])
    return {one.key: one for one in advise(made.value, made.origins, circumstances(made.value, **facts))}


def test_every_rule_names_keys_and_figures_that_there_are():
    there = {row.path for row in rows(Run)}
    figures = circumstances(
        load(Run, None, ["model.path=m", "data.path=d"]).value, 1e9, 100, far=True, device="gpu", room=1, bf16=True
    )
    for rule in RULES:
        assert rule["key"] in there, rule["id"]
        assert rule["when"].keys() <= there | figures.keys(), rule["id"]
        assert rule.get("of", rule["key"]) in there | figures.keys()
        assert ("among" in rule) != ("low" in rule), rule["id"]
        assert re.search("[\u4e00-\u9fff]", rule["zh"]) and rule["en"] and rule["source"]
    assert {rule["key"] for rule in RULES} >= GUIDE
    assert len({rule["id"] for rule in RULES}) == len(RULES)


@pytest.mark.parametrize(
    "said",
    [
        "method: lora", "method: full", "method: prefix_tuning", "objective: dpo", "method: ia3",
        "method: {name: lora, r: 64}", "method: {name: lora, r: 100, lora_alpha: 7, use_rslora: true}",
        "train: {max_steps: 90000, per_device_train_batch_size: 3}", "train: {max_steps: 1, num_train_tokens: 5}",
        "train: {packing: true, max_steps: 5}", "method: full\nobjective: pretrain",
        "train: {per_device_train_batch_size: 128, gradient_accumulation_steps: 1}",
    ],
)  # fmt: skip
def test_what_is_recommended_is_not_objected_to(said):
    for size, count, room in ((1e8, 5, 24), (7e9, 5000, 16), (2e11, 2_000_000, 24), (7e10, 50_000, 80)):
        known = {"parameters": size, "rows": count, "device": "gpu", "room": room, "bf16": room > 16}
        object_to = partial(objections, known=known)
        text, _ = settled(f"model: {{path: m}}\ndata: {{path: d}}\n{said}\n", object_to)
        assert [one.sentence(False) for one in object_to(text)] == []


def test_the_guides_principles_hold():
    small = asked("method=full", "train.learning_rate=2e-5", parameters=7e9, rows=8000)["train.learning_rate"]
    assert small.conflict and small.value == 1e-5 and "guide" in small.source
    assert not asked("method=lora", parameters=7e9, rows=8000)["train.learning_rate"].conflict
    tasks = asked("data.also=[{path: e}]", parameters=7e9)["train.gradient_accumulation_steps"]
    assert tasks.conflict and tasks.low == 64 and tasks.value == 8
    assert asked(far=True)["method.r"].value == 32 and asked()["method.r"].value == 16


def test_rates_of_preferences_and_rewards_are_for_methods_that_they_fit():
    rates = {
        ("dpo", "prompt_tuning"): 1e-2, ("grpo", "bitfit"): 3e-3, ("kto", "freeze"): 5e-7, ("ppo", "adalora"): 1e-5,
    }  # fmt: skip
    for (aim, name), rate in rates.items():
        assert asked(f"objective={aim}", f"method={name}")["train.learning_rate"].value == rate
    frozen = asked("objective=dpo", "method.init_lora_weights=pissa", "model.precision=bf16")
    assert frozen["train.learning_rate"].value == 1e-5 and "model.precision" not in frozen
    assert asked("method=bitfit", "model.precision=bf16")["model.precision"].conflict


def test_what_training_refuses_is_not_advised():
    early = ["train.optimizer_in_backward=true", "train.max_grad_norm=0", "train.per_device_train_batch_size=1"]
    for said in (["data.also=[{path: e}]"], ["objective=dpo"], ["method=full"], []):
        found = asked(*early, *said, parameters=7e10, rows=5000)
        assert "train.gradient_accumulation_steps" not in found and not found["train.max_grad_norm"].conflict
    facts = where("t4")
    old = asked("method=full", "model.precision=fp32", "train.fp16=true", **facts)
    assert facts["device"] == "gpu" and not old["train.bf16"].conflict and "train.fp16" not in old
    assert asked("train.bf16=true", **facts)["train.bf16"].conflict
    assert asked("method=full", "model.precision=fp32", **where("a10"))["train.bf16"].conflict


def test_general_rows_mixed_in_are_no_task():
    replay = "data.also=[{path: general, max_samples: 100}]"
    found = asked(replay)["train.gradient_accumulation_steps"]
    assert found.rule == "batch-lora" and not found.conflict
    ways = keeps(circumstances(load(Run, None, ["model.path=m", "data.path=d", replay]).value))
    assert "keep-replay" not in {way.rule for way in ways}


def test_what_the_guide_has_wrong_is_told():
    one = asked("method.target_modules=[q_proj, v_proj]")["method.target_modules"]
    assert one.conflict and one.origin == "command line" and "against the guide" in one.source
    assert "all-linear" in one.sentence(False) and "线性层" in one.sentence(True)
    assert asked("method.r=64")["method.use_rslora"].conflict
    assert asked("method.lora_alpha=64")["method.lora_alpha"].conflict
    assert asked("method.r=64", "method.use_rslora=true")["method.lora_alpha"].value == 16
    assert not asked("method.r=64", "method.use_rslora=true", "method.lora_alpha=16")["method.lora_alpha"].conflict


@pytest.mark.parametrize("words", [[], ["method.use_rslora=true"], ["method.use_rslora=true", "method.lora_alpha=5"]])
def test_an_update_is_scaled_as_peft_scales_it(words, tiny):
    run = load(Run, None, ["model.path=m", "data.path=d", "method.r=16", *words]).value
    scales = {one.scaling["default"] for one in attach(tiny(), run.method).modules() if hasattr(one, "lora_A")}
    assert list(scales) == pytest.approx([circumstances(run)["scale"]])
    for rank in (4, 64):
        alpha = scaled(run.method, rank)
        method = replace(run.method, r=rank, **({"lora_alpha": alpha} if alpha else {}))
        other = circumstances(replace(run, method=method))["scale"]
        assert other == pytest.approx(circumstances(run)["scale"], rel=0.25)  # a whole number is nearest


def test_passes_over_the_rows_are_steps_where_these_end_a_run():
    found = asked("train.max_steps=5000", rows=1000)
    assert "train.num_train_epochs" not in found and found["train.max_steps"].conflict
    assert found["train.max_steps"].value == 375 and found["train.max_steps"].got == 40
    assert not asked("train.max_steps=375", rows=1000)["train.max_steps"].conflict
    assert not asked("train.max_steps=375", "train.packing=true", rows=1000).keys() & {
        "train.max_steps", "train.num_train_epochs",
    }  # fmt: skip
    words = ["model.path=m", "data.path=d", "train.gradient_accumulation_steps=3", "train.num_train_epochs=1.5"]
    run = load(Run, None, words).value
    facts, order = circumstances(run, rows=1001), Order(run.train, [5] * 1001)
    assert facts["epoch_steps"] == order.epoch_steps and math.ceil(facts["steps"]) == order.total


def test_what_does_not_fit_waits_elsewhere():
    large = {"parameters": 7e10, "device": "gpu", "room": 80}
    found = asked("model.precision=bf16", "train.gradient_checkpointing=true", **large)
    assert found["model.max_memory"].conflict and found["model.max_memory"].value == 40
    assert found["model.max_memory"].got == pytest.approx(1.4e11 / 2**30 / 80)
    assert found["train.activation_offload"].conflict and found["train.activation_offload"].value == "cpu"
    assert not asked("model.precision=bf16", "model.max_memory=40", **large)["model.max_memory"].conflict
    assert not asked("model.precision=bf16", **large | {"parameters": 7e9})["model.max_memory"].conflict
    assert "model.max_memory" not in asked("model.precision=nf4", **large)
    assert not asked(**large | {"device": "cpu"}).keys() & {"model.max_memory", "train.activation_offload"}


@pytest.mark.parametrize(
    ("test", "value", "passes"),
    [
        ("< 1e4", 9999, True), ("< 1e4", 10000, False), (">= 2", 2, True), ("<= 1", 2, False), ("> 1", "a", False),
        ([">= 1", "< 5"], 4, True), ([">= 1", "< 5"], 5, False), (["a", "b"], "b", True), ("lora", "full", False),
        (True, True, True), (False, None, False),
    ],
)  # fmt: skip
def test_conditions_are_compared_never_run(test, value, passes):
    assert holds(test, value) is passes


def test_what_is_applied_loads_back_with_its_origin(tmp_path, capsys):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "# mine\nmodel: {path: llama-7b}\ndata:\n  path: not-there.jsonl # these\n"
        "method: full\ntrain: {learning_rate: 3e-4}\n"
    )
    with pytest.raises(SystemExit) as left:
        main(["advise", str(recipe), "--apply", "--device", "cpu", "--rows", "5000"])
    assert left.value.code in (0, None), capsys.readouterr()
    made = load(Run, recipe)
    assert made.value.train.learning_rate == 1e-5 and made.value.train.gradient_accumulation_steps == 1
    assert made.origins["train.learning_rate"].startswith("advisor")
    assert made.origins["data.path"] == f"{recipe}:4" and "# mine" in recipe.read_text()
    assert not [one for one in asked_of(made) if one.conflict]


def asked_of(made):
    return advise(made.value, made.origins, circumstances(made.value, 6.7e9, 5000, device="cpu"))


def test_a_choice_with_options_keeps_them():
    written = "model: {path: m}\ndata: {path: d}\nmethod: full\ntrain:\n  lr_scheduler_type: constant\n"
    advice = [
        one for one in asked("method=full", "train.lr_scheduler_type=constant", rows=500).values() if one.conflict
    ]
    made = load(Run, text=applied(f"{written}  optim: {{name: sgd, momentum: 0.9}}\n", advice)).value
    assert made.train.lr_scheduler_type.name == "linear" and made.train.optim.momentum == 0.9
    assert made.train.warmup_steps == 0.06 and made.train.learning_rate == 2e-5
    options = "lr_scheduler_type: # mine\n    name: cosine_with_restarts\n    num_cycles: 2\n  # of the optimizer"
    text = written.replace("lr_scheduler_type: constant", options)
    text = applied(f"{text}  optim: {{name: sgd, momentum: 0.9}} # and this\n\n  # of decay\n  bf16: false\n", advice)
    made = load(Run, text=text).value  # another choice has other options
    assert made.train.lr_scheduler_type.name == "linear" and made.train.optim.momentum == 0.9
    assert text.index("# advisor: schedule\n  # of the optimizer\n  optim") < text.index("# and this\n\n  # of decay\n")


@pytest.mark.parametrize("objective", ["sft", "dpo", "kto", "grpo", "ppo"])
def test_what_keeps_more_of_what_a_model_knew_loads_as_a_variant(objective):
    said = ["model.path=m", "data.path=d", f"objective={objective}", "method=lora", "train.learning_rate=1e-3"]
    ways = keeps(circumstances(load(Run, None, said).value))
    found = {way.rule: load(Run, None, [*said, *Entrant(f"lora {way.said}").words]).value for way in ways}
    assert found["keep-rate"].train.learning_rate == 3e-4 and found["keep-scale"].method.lora_alpha == 8
    assert len(found) == {"sft": 4, "dpo": 3, "kto": 3, "grpo": 3, "ppo": 3}[objective]
    large = load(Run, None, [*said, "method.r=64", "method.use_rslora=true"]).value
    [less] = [way for way in keeps(circumstances(large)) if way.rule == "keep-scale-rslora"]
    assert less.words == ("method.lora_alpha=8",)
    if objective == "sft":
        assert found["keep-replay"].data.also and found["keep-kl"].objective.name == "distill"
        assert found["keep-kl"].objective.models() == {"objective.teacher": "m"}
    assert all(way.en and re.search("[\u4e00-\u9fff]", way.zh) and way.source for way in ways)
