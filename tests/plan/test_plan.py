"""A plan is held against what real models do: their weights, what they keep and compute, what optimizers remember."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch
from conftest import WORDS
from torch.utils.flop_counter import FlopCounterMode

from tunesmith.cli import main
from tunesmith.config.load import load
from tunesmith.data.batch import pack
from tunesmith.data.rendering.render import Renderer
from tunesmith.data.rendering.tokens import Tokens
from tunesmith.errors import RecipeError
from tunesmith.evaluate.retention import ask
from tunesmith.methods.base import method
from tunesmith.model.lean import remaking
from tunesmith.model.learning import adding_up
from tunesmith.model.load import attach
from tunesmith.model.policy import Policy
from tunesmith.model.swift import mergeable
from tunesmith.objectives.distill import Distill
from tunesmith.objectives.grpo import GRPO
from tunesmith.objectives.sft import SFT
from tunesmith.optimizers.base import optimizer
from tunesmith.plan import calibrate, past
from tunesmith.plan.blank import blank, held
from tunesmith.plan.changes import changes, ways
from tunesmith.plan.device import GB, Device, device, recognised
from tunesmith.plan.estimate import Setting, Subject, estimate
from tunesmith.plan.known import Found, find, parameters, short
from tunesmith.plan.memory import merged
from tunesmith.plan.rehearse import ATTENDING, Count, Told, rehearse
from tunesmith.plan.skills import battery
from tunesmith.plan.work import Part, Work
from tunesmith.run import Data, Model, Run, Train
from tunesmith.training.optim import learnt
from tunesmith.training.planned import Rows, guessed, plan, remembered, work
from tunesmith.training.train import refuse

RATES = {kind: [(8, 1e9), (512, 5e10)] for kind in ("full", "half")}
CPU = Device("a processor", "cpu", 8, RATES, 1e11, 1e10, 1e10, 1e-5, 0.4, 1e9, True, "")


def flat(rate):
    return {kind: [(1, rate), (2, rate)] for kind in ("full", "half")}


USUAL = ("model.path=tiny", "data.path=rows")
METHODS = {"full": {}, "lora": {}, "prefix_tuning": {}, "bottleneck": {}, "freeze": {"last_n": 1}, "ia3": {}}
SIZES = (40, 31, 57)
SIZES_OF = ("hidden_size", "num_attention_heads", "vocab_size")


def run_of(name="lora", options=None, **train):
    entry = method[name]
    known = {key: value for key, value in (options or {}).items() if key in entry.__dataclass_fields__}
    return Run(model=Model(path="tiny"), data=Data(path="rows"), method=entry(**known), train=Train(**train))


def found(tiny):
    return Found(tiny().config, "made here")


def real(tiny, run):
    model = tiny()
    tuned = attach(model, run.method)
    if run.train.gradient_checkpointing:
        tuned.activation_checkpointing_enable({"use_reentrant": False})
    return Policy(tuned)


@pytest.mark.parametrize("name", METHODS)
def test_weights_are_counted_as_they_are(name, tiny):
    run = run_of(name, METHODS[name])
    made, there = held(blank(run, found(tiny), CPU), run.model.precision), real(tiny, run)
    weights = list(there.model.parameters())
    assert made.total == sum(weight.numel() for weight in weights)
    assert made.trainable == sum(weight.numel() for weight in there.trainable().values())
    assert made.bytes == sum(weight.nbytes for weight in weights)


def watched(found):
    """Within it, what a forward pass keeps is noted, by its place."""
    usual = remaking()

    def pack(tensor):
        kept = usual.pack_hook(tensor)
        if isinstance(kept, torch.Tensor):
            found[kept.untyped_storage().data_ptr()] = kept.untyped_storage().nbytes()
        return kept

    return torch.autograd.graph.saved_tensors_hooks(pack, usual.unpack_hook)


@pytest.mark.parametrize("name", ["full", "lora"])
def test_what_waits_and_what_is_multiplied_is_counted_as_it_is(name, tiny):
    run, kept = run_of(name, {"r": 6}), {}
    there = real(tiny, run)
    for weight in there.trainable().values():
        weight.grad = torch.zeros_like(weight)
    there.saving = lambda: watched(kept)

    def added(_, one, two, **made):
        return 2 * math.prod(one) * two[1]

    def onednn(one, two, *_, **made):
        return 2 * math.prod(one) * two[0]

    unknown: dict = {torch.ops.aten.addmm_: added}  # by which gradients of weights are added up
    if hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        unknown[torch.ops.mkldnn._linear_pointwise] = onednn  # which `product` takes on some processors
    with FlopCounterMode(display=False, custom_mapping=unknown) as flops, adding_up():
        there.run(
            pack([Tokens([5] * size, [True] * size) for size in SIZES]), there.trunk
        ).last_hidden_state.sum().backward()
    weights = {weight.untyped_storage().data_ptr() for weight in there.model.parameters()}
    made = rehearse(blank(run, found(tiny), CPU), Part(SIZES), 1)
    slopes = 4 * WORDS * 32 if name == "full" else 0  # of the head, which is not gone through here
    assert made.forward.kept - slopes == pytest.approx(sum(kept[at] for at in kept.keys() - weights), rel=0.12)
    heads = 2 * 3 * WORDS * 32 if name == "full" else 2 * 2 * WORDS * 32  # of the one token that the rehearsal learns
    attention = made.step.flops[ATTENDING]
    assert made.step.all_flops - heads - attention == pytest.approx(flops.get_total_flops(), rel=0.01)
    again = rehearse(blank(run_of(name, {"r": 6}, gradient_checkpointing=True), found(tiny), CPU), Part(SIZES), 1)
    assert again.forward.kept < 0.4 * made.forward.kept and again.step.all_flops > 1.2 * made.step.all_flops


def test_what_is_learnt_is_a_share_of_what_is_computed(tiny):
    """What sequences begin with in common stands in a batch once; not where something is dropped at random."""
    texts = [Tokens([5] * 30 + [6 + n] * 10, [False] * 30 + [True] * 10) for n in range(8)]
    run = run_of("lora", per_device_train_batch_size=2)
    made = work(run, Setting(CPU), rows := Rows(texts))
    assert set(made.sampled) == {(Part((40, 11), (0, 29)),)} and made.learnt == pytest.approx(20 / 51)
    plan(run, Setting(CPU), rows, found(tiny))
    assert work(run, Setting(CPU), rows) == made
    dropping = run_of("lora", {"lora_dropout": 0.1}, per_device_train_batch_size=2)
    plan(dropping, Setting(CPU), rows, found(tiny))
    made = work(dropping, Setting(CPU), rows)
    assert set(made.sampled) == {(Part((40, 40)),)} and made.learnt == pytest.approx(20 / 80)


def test_a_family_is_gone_through_as_it_is_looked_at(tiny):
    """What sequences begin with is looked at apart, and put together with what each has of its own."""
    run = run_of("lora", {"r": 6})
    part = Part((40, 11, 21), (0, 29, 29))
    made = rehearse(blank(run, found(tiny), CPU), part, 1)
    alone = rehearse(blank(run, found(tiny), CPU), Part(part.own), 1)
    looked = [
        made.step.flops[ATTENDING] - alone.step.flops[ATTENDING],
        made.forward.flops[ATTENDING] - alone.forward.flops[ATTENDING],
    ]
    heads, blocks, width = 4, 2, 8
    assert looked == [looked[1] * 7 // 2, blocks * 4 * heads * width * 32 * 29] and made.step.calls > alone.step.calls


def test_a_head_that_learns_is_gone_through_again_where_answers_are_weighed(tiny):
    for name, again in ("full", 2), ("lora", 0):
        policy = blank(run_of(name), found(tiny), CPU)
        once, twice = (rehearse(policy, Part(SIZES), 10, Told(weighs=weighs)).step for weighs in (False, True))
        assert twice.all_flops - once.all_flops == again * 2 * 10 * WORDS * 32


def test_attention_by_a_mask_keeps_no_square_of_tokens(tiny):
    """As where a prefix is in front, for which there is a mask: that square alone is kept, as on a CPU and a GPU."""
    policy = blank(run_of("prefix_tuning", {"num_virtual_tokens": 4}), found(tiny), CPU)
    one, two = (rehearse(policy, Part((size,)), 1).step.kept for size in (400, 800))
    masks = 4 * (800 * 804 - 400 * 404)
    assert two - masks <= 2.1 * one


OPTIMIZERS = {
    "adamw_torch_fused": {}, "sgd": {"momentum": 0.9}, "adafactor": {}, "adam_mini": {}, "muon": {}, "badam_ratio": {},
    "galore_adamw": {"rank": 8}, "apollo_adamw": {"rank": 4}, "q_galore_adamw": {"rank": 8},
    "adamw_bnb_8bit": {"min_8bit_size": 64},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_what_an_optimizer_remembers_is_counted_as_it_is(name, tiny):
    run = run_of("full", optim=optimizer[name](**OPTIMIZERS[name]))
    there, said = real(tiny, run), []
    weights = learnt(run.train, there, run.method)
    made = run.train.optim.make(weights, run.train)
    for one in weights:
        one.weight.grad = torch.ones_like(one.weight)
    made.step()
    states = [made.state.get(one.weight, {}) for one in weights]
    tables = ("qmap1", "qmap2")
    bytes_there = sum(
        one.nbytes for state in states for key, one in state.items() if hasattr(one, "nbytes") and key not in tables
    )
    assert remembered(run, blank(run, found(tiny), CPU), said) == pytest.approx(bytes_there, rel=0.03)
    assert said == []


def test_a_deep_model_is_told_by_few_of_its_blocks(tiny):
    deep = Found(tiny().config, "made here")
    deep.config.num_hidden_layers = 9
    subject = Subject(run_of(), deep, Setting(CPU))
    short, whole = subject.rehearse(Part((40, 30)), 0.5), rehearse(subject.policy, Part((40, 30)), 35)
    assert short.step.all_flops == whole.step.all_flops
    assert short.step.calls == whole.step.calls
    assert short.step.peak == pytest.approx(whole.step.peak, rel=0.02)


def test_memory_and_time_follow_from_what_there_is_to_do(tiny):
    work = Work(
        steps=100, tokens=1e5, sampled=((Part((100, 100)), Part((90, 90))), (Part((200,)), Part((50,)))), learnt=0.5
    )
    plain, more = (
        Subject(run_of("full", save_strategy="no"), found(tiny), Setting(CPU, price=price)) for price in (None, 2.0)
    )
    made = estimate(plain, work, 8.0 * plain.held.trainable)
    assert made.memory["weights"] * GB == made.memory["gradients"] * GB == 4 * made.parameters
    assert made.memory["optimizer"] == 2 * made.memory["weights"]
    assert made.peak == pytest.approx(sum(made.memory.values()))
    assert made.train_seconds == pytest.approx(100 * made.step_seconds)
    assert estimate(more, work, 0.0).cost == pytest.approx(2 * estimate(more, work, 0.0).hours)
    cut = Subject(run_of("full", save_strategy="no"), found(tiny), Setting(CPU, devices=4, shard=True))
    assert estimate(cut, work, 1e6).memory["optimizer"] == pytest.approx(1e6 / 4 / GB)


def test_what_does_not_fit_is_made_to(tiny):
    small = replace(CPU, kind="gpu", memory=0.4 + 0.02, name="a GPU")
    run = run_of("full", per_device_train_batch_size=64, save_strategy="no")
    run = replace(run, eval=replace(run.eval, enabled=False))
    rows = guessed(run, [300] * 256, ())

    def planned(run, setting):
        return plan(run, setting, rows, found(tiny))

    made = planned(run, Setting(small))
    tried = ways(run, Setting(small), planned)
    assert not made.fits and any(way.fits for way in tried)
    first = next(way for way in tried if way.fits)
    words = [word for word in first.words if not word.startswith("--")]
    usual = (*USUAL, "method=full", "train.save_strategy=no", "eval.enabled=false")
    recipe = load(Run, None, [*usual, *words]).value
    assert plan(recipe, Setting(small), rows, found(tiny)).fits


def test_where_measuring_takes_most_fewer_rows_are_measured_at_once(tiny):
    run = run_of("lora", per_device_train_batch_size=1, save_strategy="no")
    rows = guessed(run, [300] * 400, ())

    def planned(run, setting):
        return plan(run, setting, rows, found(tiny))

    made = planned(run, Setting(CPU))
    small = replace(CPU, memory=made.peak * 0.98, name="a small one")
    first = ways(run, Setting(small), planned)[0]
    assert first.words == ("eval.batch_size=1",) and first.fits


@pytest.mark.parametrize(
    ("name", "blocks"),
    [("Qwen/Qwen2-1.5B-Instruct", 28), ("meta-llama/Meta-Llama-3-8B", 32), ("mistralai/Mistral-7B-Instruct-v0.3", 32)],
)
def test_well_known_models_are_known_by_name(name, blocks):
    assert find(name).config.num_hidden_layers == blocks and not find(name).assumed
    assert short(name) in name.lower()


def test_what_is_not_known_is_assumed_and_said_or_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    guess = find("acme:wonder-30b")
    assert "taken for a Llama of 30B" in guess.assumed[0]
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "wonder", **dict.fromkeys(SIZES_OF, 64), "num_hidden_layers": 3})
    )  # fmt: skip
    strange = find(str(tmp_path))
    assert strange.config.num_hidden_layers == 3 and "no architecture 'wonder'" in strange.assumed[0]
    with pytest.raises(RecipeError, match="sizes of wonder are unknown"):
        find("wonder")
    with pytest.raises(RecipeError, match="did you mean 'rtx-3090'"):
        device("rtx-309")
    assert device("NVIDIA GeForce RTX 3090").memory == 24


@pytest.mark.parametrize("key", ["num_attention_heads", "head_dim", "vocab_size"])
def test_a_model_without_a_size_is_refused(key, tmp_path):
    sizes = dict.fromkeys(SIZES_OF, 64) | {"num_hidden_layers": 3}
    for wrong in (0, "a", None if key == "vocab_size" else True):
        (tmp_path / "config.json").write_text(json.dumps({"model_type": [], **sizes, key: wrong}))
        with pytest.raises(RecipeError, match=f"must say {key}, a whole number from 1 on"):
            find(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": [], **sizes, "num_key_value_heads": 3}))
    with pytest.raises(RecipeError, match="must be a multiple of num_attention_heads"):
        find(str(tmp_path))
    (tmp_path / "config.json").write_text(json.dumps({"model_type": [], **sizes}))
    assert "no architecture '[]'" in find(str(tmp_path)).assumed[0]
    with pytest.raises(RecipeError, match="sizes of acme:wonder-0b are unknown"):
        find("acme:wonder-0b")
    assert parameters("acme/wonder-0b") is None and parameters("acme/wonder-1.5b") == 1.5e9


def test_no_change_is_tried_that_training_refuses():
    gpu, early = replace(CPU, kind="gpu"), {"optimizer_in_backward": True, "max_grad_norm": 0}
    for said, without in ((early, "train.per_device"), ({"torch_compile": True}, "model.max_memory")):
        run = run_of("lora", per_device_train_batch_size=8, **said)
        refuse(run)
        tried = list(changes(run, Setting(gpu)))
        assert len(tried) > 4 and without in str([one.words for one in changes(run_of("lora"), Setting(gpu))])
        for change in tried:
            refuse(change.run)


def test_a_model_that_cannot_be_gone_through_is_planned_as_a_llama(tiny):
    from transformers import MixtralConfig

    config = MixtralConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=WORDS, num_local_experts=4,
    )  # fmt: skip
    subject = Subject(run_of("full"), Found(config, "made here"), Setting(CPU))
    subject.counted(Part((40,)), 0.5)
    assert subject.held.total > 2 * 4 * 3 * 32 * 64
    assert all("Llama of its sizes" in one for one in subject.assumed)


def test_a_machine_is_learnt_from_what_runs_took(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    run, alike = run_of(), {"model": "tiny", "method": "lora", "objective": "sft"}
    rows = Rows([Tokens([5] * 40, [True] * 40) for _ in range(32)])
    first = past.correct(plan(run, Setting(CPU), rows, found(tiny)), CPU, alike)
    told = past.note(first, CPU, alike, first.peak * 1.25, first.step_seconds * 2)
    assert told["memory"]["error"] == pytest.approx(1 / 1.25 - 1)
    again = past.correct(plan(run, Setting(CPU), rows, found(tiny)), CPU, alike | {"method": "full"})
    assert again.peak == pytest.approx(1.25 * first.peak) and again.step_seconds == pytest.approx(
        2 * first.step_seconds
    )
    assert again.corrected["runs"] == 1
    told = past.note(again, CPU, alike, first.peak * 1.25, first.step_seconds * 2)
    assert told["time"]["error"] == pytest.approx(0, abs=1e-6)
    elsewhere = replace(CPU, name="another")
    assert past.correct(first, elsewhere, alike) is first


def test_memory_and_time_are_each_learnt_from_runs_that_tell_of_them(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("TUNESMITH_HOME", str(tmp_path))
    alike = {"model": "tiny", "method": "full", "objective": "sft"}
    made = plan(run_of(), Setting(CPU), Rows([Tokens([5] * 40, [True] * 40)]), found(tiny))
    past.note(made, CPU, alike, made.peak * 1.25, made.step_seconds)
    other = alike | {"method": "lora"}
    assert past.note(made, CPU, other, None, made.step_seconds * 3).keys() == {"time"}
    again = past.correct(made, CPU, other)
    assert again.peak == pytest.approx(1.25 * made.peak) and again.step_seconds == pytest.approx(3 * made.step_seconds)


def test_general_skills_are_planned_as_they_are_asked(tiny, tokenizer):
    model, renderer, shapes = tiny(), Renderer(tokenizer, Data(path="rows")), ([], [])

    def note(module, args, said):
        shapes["logits_to_keep" not in said].append(tuple(said["input_ids"].shape))

    model.register_forward_pre_hook(note, with_kwargs=True)
    ask(model, renderer)
    batches, (read, told) = battery(32, renderer), shapes
    assert {(len(one.read), max(one.read)) for one in batches} <= set(read)
    assert max(rows * width for rows, width in told) == max(len(one.told) * (max(one.told) - 1) for one in batches)
    assert sum(len(one.read) for one in batches) == 200 + 24
    asked = run_of(save_strategy="no")
    asked = replace(asked, eval=replace(asked.eval, enabled=False))
    none, some = (Rows([Tokens([5] * 40, [True] * 40)] * 8) for _ in range(2))
    some.ranked = batches
    without, made = (plan(asked, Setting(CPU), rows, found(tiny)) for rows in (none, some))
    longest = max(len(one.told) * max(one.told) for one in batches)
    assert made.memory["logits"] * GB == pytest.approx(12 * longest * WORDS) and without.more_seconds == 0
    tokens = sum(rows * width for rows, width in [*read, *told])
    most = asked.eval.batch_size * made.step_seconds / 40 * tokens  # padded, and forward and back
    assert 0 < made.more_seconds < most
    guess = battery(32)
    assert sum(one.tokens for one in guess) == pytest.approx(sum(one.tokens for one in batches), rel=0.8)


def test_a_checkpoint_is_copied_to_main_memory(tiny):
    work = Work(steps=9, tokens=1e3, sampled=((Part((40,)),),), learnt=0.5)
    gpu = replace(CPU, kind="gpu", name="a GPU")
    here, there = (
        estimate(Subject(run_of("full"), found(tiny), Setting(device)), work, 1e9).memory for device in (CPU, gpu)
    )
    assert here["copy for a checkpoint"] * GB == pytest.approx(1e9 + here["gradients"] * GB)
    assert "copy for a checkpoint" not in there and "activations" in there


def test_words_that_no_head_reads_stay_in_their_file(tiny):
    """As a classifier's beside an adapter on a CPU, where they are stored in the numbers that it has."""
    work = Work(steps=9, tokens=1e3, sampled=((Part((40,)),),), learnt=0.5)
    words = tiny().get_input_embeddings().weight.nbytes

    def weights(method, labels=("a", "b"), device=CPU, stored="float32"):
        one = found(tiny)
        one.config.dtype = stored
        subject = Subject(run_of(method), one, Setting(device), labels)
        return subject.held.bytes - subject.held.scales - estimate(subject, work, 0.0).memory["weights"] * GB

    assert weights("lora") == pytest.approx(words)
    assert weights("lora", ()) == pytest.approx(words)  # of the tiny model, whose head is another
    for had in ({"method": "full"}, {"method": "freeze"}, {"device": replace(CPU, kind="gpu")}, {"stored": "bfloat16"}):
        assert weights(**{"method": "lora", **had}) == pytest.approx(0, abs=1)


def test_a_teacher_is_held_and_reads_too(tiny, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    teachers, even = (
        {},
        Setting(replace(CPU, rates=flat(1e9), attention=1e9, call=0.0, bandwidth=math.inf, intake=math.inf)),
    )
    for depth in (2, 6):
        config = tiny().config
        config.num_hidden_layers = depth
        config.save_pretrained(tmp_path / str(depth))
        taught = replace(run_of(save_strategy="no"), objective=Distill(teacher=str(tmp_path / str(depth))))
        rows = Rows([Tokens([5] * 40, [True] * 40) for _ in range(32)])
        rows.measured = [40] * 8
        teachers[depth] = plan(taught, even, rows, found(tiny))
    alone = plan(replace(taught, objective=SFT()), even, rows, found(tiny))
    unknown = plan(replace(taught, objective=Distill(teacher="wonder")), even, rows, found(tiny))
    assert teachers[2].memory["teacher"] * GB == sum(weight.nbytes for weight in tiny().parameters())
    more = (teachers[6].memory["teacher"] - teachers[2].memory["teacher"]) * GB / 4  # weights of four blocks
    longer = teachers[6].step_seconds - teachers[2].step_seconds
    assert longer == pytest.approx(2 * more * 8 * 40 / 1e9, rel=0.3)  # a product each; attention is the rest
    assert teachers[2].step_seconds > alone.step_seconds + longer / 2
    assert teachers[6].more_seconds > teachers[2].more_seconds > alone.more_seconds
    assert "teacher" not in alone.memory and "teacher" not in unknown.memory
    assert any("objective.teacher: the sizes of wonder are unknown" in one for one in unknown.assumed)
    assert unknown.step_seconds == pytest.approx(alone.step_seconds)


GPUS = {
    ("NVIDIA GeForce RTX 4090", 23.6): "GeForce RTX 4090",
    ("NVIDIA GeForce RTX 3090", 23.7): "GeForce RTX 3090",
    ("NVIDIA RTX A6000", 47.5): "NVIDIA RTX A6000",
    ("Tesla T4", 14.6): "NVIDIA T4",
    ("Tesla V100-SXM2-16GB", 15.8): "NVIDIA V100 16 GB",
    ("NVIDIA A100-SXM4-40GB", 39.4): "NVIDIA A100 40 GB",
    ("NVIDIA A100 80GB PCIe", 79.3): "NVIDIA A100 80 GB",
    ("NVIDIA A10", 22.1): "NVIDIA A10",
    ("NVIDIA L40S", 44.4): "NVIDIA L40S",
    ("NVIDIA H100 80GB HBM3", 79.1): "NVIDIA H100 80 GB SXM",
    ("NVIDIA H100 PCIe", 79.1): "NVIDIA H100 80 GB PCIe",
    ("AMD Instinct MI300X", 191.7): "AMD MI300X",
}


def test_this_machines_gpu_is_taken_for_no_other():
    for (told, memory), name in GPUS.items():
        made = recognised(told, memory)
        assert (made.name, made.memory) == (name, memory)
    strange = ["NVIDIA A40", "NVIDIA A10G", "NVIDIA L40", "NVIDIA GeForce RTX 3060 Ti", "NVIDIA RTX A4000"]
    for told in [*strange, "NVIDIA GeForce RTX 4090 Laptop GPU", "NVIDIA A100-SXM4-40GB MIG 1g.5gb"]:
        with pytest.raises(RecipeError, match="is not in the table; name the nearest"):
            recognised(told, 16)


def test_a_processor_is_measured_by_width(monkeypatch):
    monkeypatch.setattr(calibrate, "TRY", 0.005)
    monkeypatch.setattr(calibrate, "LARGE", calibrate.LARGE | {"num_hidden_layers": 2})
    found = calibrate.timed()
    assert [side for side, _ in found["full"]] == [8, 32, 128, 512] and [side for side, _ in found["half"]] == [32, 512]
    assert all(rate > 1e8 for kind in ("full", "half") for _, rate in found[kind]) and 0 < found["call"] < 1e-2
    assert all(found[what] > 1e8 for what in ("attention", "bandwidth", "intake"))
    assert (
        CPU.rate(4, False) < CPU.rate(8, False) < CPU.rate(100, False) < CPU.rate(512, False) == CPU.rate(4096, False)
    )


def test_pieces_of_work_are_timed_in_turn(monkeypatch):
    """What slows a machine down for a while falls on all alike, and the middling round is taken."""
    monkeypatch.setattr(calibrate, "TRY", 0.0)
    clock, order = [0.0], []
    monkeypatch.setattr(calibrate.time, "perf_counter", lambda: clock[0])

    def work(name, seconds):
        order.append(name)
        clock[0] += seconds * (50 if len(order) in (5, 6) else 1)  # the first round, after two tries of each

    made = calibrate.in_turn({"one": lambda: work("one", 2.0), "two": lambda: work("two", 3.0)})
    assert made == {"one": pytest.approx(2.0), "two": pytest.approx(3.0)} and order[4:8] == ["one", "two"] * 2


def test_a_gpu_computes_while_it_is_told_what_comes_next():
    count = Count(Counter({512: 10**9, ATTENDING: 10**9}), weights=1e8, read=1e8, moved=1e7, calls=10)
    told, done = (replace(CPU, kind="gpu", call=call, rates=flat(1e12)) for call in (1.0, 0.0))
    assert told.seconds(count, True) == 10.0
    assert done.seconds(count, True) == pytest.approx(2e8 / 1e10 + 1e7 / 1e10)  # reading takes longer than products
    here = replace(CPU, call=1.0, rates=flat(1e12), intake=1e9)
    assert here.seconds(count, True) == pytest.approx(
        10 + 1e9 / 1e12 + 1e9 / 1e11 + 1e8 / 1e9 + 1e8 / 1e10 + 1e7 / 1e10
    )


def test_weights_that_products_read_are_counted_apart(tiny):
    """Each once forwards, the head for its slopes too; and backwards but for what no gradient goes through."""
    policy = blank(run_of("lora", {"r": 6}), found(tiny), CPU)
    made = rehearse(policy, Part(SIZES), 1)
    names = dict(policy.model.named_parameters())
    read = sum(one.nbytes for name, one in names.items() if one.ndim == 2 and "embed_tokens" not in name)
    assert made.forward.weights == read + policy.bare.lm_head.weight.nbytes
    assert made.forward.weights < made.step.weights <= 2 * made.forward.weights


def test_plan_is_asked_by_a_recipe(capsys, tmp_path, tiny):
    tiny().config.save_pretrained(tmp_path / "bare")
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        f"model: {{path: {tmp_path / 'bare'}}}\ndata: {{path: not-there.jsonl}}\nmethod: {{name: lora, r: 8}}\n"
    )
    with pytest.raises(SystemExit) as left:
        main(["plan", str(recipe), "--device", "rtx-3090", "--price", "0.5", "--json", "train.learning_rate=1"])
    said = json.loads(capsys.readouterr().out)
    assert left.value.code in (0, None) and said["fits"] and said["cost"] > 0
    assert any("1,000 rows" in one for one in said["assumed"])
    assert [one["key"] for one in said["advice"]][:1] == ["train.learning_rate"]
    assert said["parameters"] == sum(weight.numel() for weight in tiny().parameters()) + said["trainable"]


@pytest.mark.parametrize("minis", [1, 2])
def test_answers_are_planned_as_they_will_be_learnt_from(minis, tiny):
    words = [*USUAL, "objective=ppo", f"objective.num_mini_batches={minis}", "objective.num_iterations=2"]
    words += ["objective.max_completion_length=10", "rewards.0.name=length", "rewards.0.target=5"]
    run = load(Run, None, [*words, "train.per_device_train_batch_size=8", "train.max_steps=8"]).value
    rows = Rows([Tokens([n, n + 1, n + 2, 7], [False] * 4) for n in range(8, 40)])
    done = work(run, Setting(CPU), rows)
    assert done.answers == done.writing == 8 and done.rollouts == 1 / (2 * minis) and done.looks == 1
    once = replace(run, objective=GRPO(max_completion_length=10))
    assert work(once, Setting(CPU), rows).looks == 0  # it is looked at as it is learnt from
    for step in done.sampled:
        assert sum(len(part.own) for part in step) == 8 // minis
        assert {size for part in step for size in part.own} == {14}
    grouped = replace(run, objective=replace(run.objective, num_generations=4))
    [part] = work(grouped, Setting(CPU), rows).sampled[0]
    assert sorted(set(part.own)) == [11, 14] and part.tokens == 8 // minis * (14 + 3 * 11)
    there = mergeable(real(tiny, run).model)
    assert (
        merged(Subject(run, found(tiny), Setting(CPU))) == sum(one.get_base_layer().weight.nbytes for one in there) > 0
    )
