"""Each method that PEFT has: loss and first gradient are those of plain PEFT, and what is saved says the same there."""

import json
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
from conftest import make_tiny
from tinyrun import loop_of, sequences_for

from tunesmith.data.batch import pad
from tunesmith.methods.adalora import AdaLoRA
from tunesmith.methods.boft import BOFT
from tunesmith.methods.bottleneck import Bottleneck
from tunesmith.methods.ia3 import IA3
from tunesmith.methods.layernorm import LayerNorm
from tunesmith.methods.lora import LoRA
from tunesmith.methods.oft import OFT
from tunesmith.methods.p_tuning import PTuning
from tunesmith.methods.prefix_tuning import PrefixTuning
from tunesmith.methods.prompt_tuning import PromptTuning
from tunesmith.methods.vera import VeRA
from tunesmith.model.load import hushed, load_tuned
from tunesmith.objectives.sft import SFT
from tunesmith.training.doctor import stir

LINEAR = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
RANK = {"r": 4, "lora_alpha": 8, **LINEAR}
PROMPT = {"num_virtual_tokens": 5, "task_type": "CAUSAL_LM"}
SEVEN = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
CASES = {
    "lora": (LoRA(r=4), peft.LoraConfig(**RANK)),
    "rslora": (LoRA(r=4, use_rslora=True), peft.LoraConfig(**RANK, use_rslora=True)),
    "dora": (LoRA(r=4, use_dora=True), peft.LoraConfig(**RANK, use_dora=True)),
    "pissa": (LoRA(r=4, init_lora_weights="pissa"), peft.LoraConfig(**RANK, init_lora_weights="pissa")),
    "olora": (LoRA(r=4, init_lora_weights="olora"), peft.LoraConfig(**RANK, init_lora_weights="olora")),
    "patterns": (
        LoRA(r=4, target_modules=r".*(q|v)_proj", rank_pattern={"v_proj": 2}, alpha_pattern={"q_proj": 3}),
        peft.LoraConfig(
            r=4, lora_alpha=8, target_modules=r".*(q|v)_proj", rank_pattern={"v_proj": 2}, alpha_pattern={"q_proj": 3},
            task_type="CAUSAL_LM",
        ),
    ),
    "head saved": (
        LoRA(r=4, target_modules=SEVEN, modules_to_save=("lm_head",)),
        peft.LoraConfig(**RANK | {"target_modules": list(SEVEN)}, modules_to_save=["lm_head"]),
    ),
    "adalora": (
        AdaLoRA(init_r=4, target_r=2),
        peft.AdaLoraConfig(init_r=4, target_r=2, lora_alpha=8, total_step=9, **LINEAR),
    ),
    "vera": (VeRA(r=16), peft.VeraConfig(r=16, **LINEAR)),
    "ia3": (IA3(), peft.IA3Config(task_type="CAUSAL_LM")),
    "oft": (OFT(oft_block_size=16), peft.OFTConfig(oft_block_size=16, **LINEAR)),
    "boft": (BOFT(boft_block_size=8), peft.BOFTConfig(boft_block_size=8, **LINEAR)),
    "layernorm": (LayerNorm(), peft.LNTuningConfig(task_type="CAUSAL_LM")),
    "prompt_tuning": (PromptTuning(num_virtual_tokens=5), peft.PromptTuningConfig(**PROMPT)),
    "p_tuning": (PTuning(num_virtual_tokens=5), peft.PromptEncoderConfig(**PROMPT, encoder_hidden_size=128)),
    "prefix_tuning": (PrefixTuning(num_virtual_tokens=5), peft.PrefixTuningConfig(**PROMPT)),
    "prefix_projection": (
        PrefixTuning(num_virtual_tokens=5, prefix_projection=True, encoder_hidden_size=16),
        peft.PrefixTuningConfig(**PROMPT, prefix_projection=True, encoder_hidden_size=16),
    ),
}  # fmt: skip
MERGED = ["lora", "rslora", "dora", "pissa", "olora", "patterns", "adalora", "vera", "ia3", "oft", "boft", "layernorm"]
IDS = torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12]])


def plain(config, weights):
    """The tiny model under PEFT's own method, with the weights that learn taken from ours, by name."""
    with hushed():
        torch.manual_seed(0)
        model = peft.get_peft_model(make_tiny(), config)
    learning = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    assert learning.keys() == weights.keys()
    with torch.no_grad():
        for name, weight in learning.items():
            weight.copy_(weights[name])
    return model, learning


@pytest.fixture
def stirred(request):
    """A loop of a method, none of whose weights is zero, so that all have a gradient."""
    loop = loop_of(make_tiny, request.param, SFT(), sequences_for(SFT()), max_grad_norm=0)
    stir(loop.weights)
    return loop


@pytest.mark.parametrize(("stirred", "config"), CASES.values(), ids=CASES, indirect=["stirred"])
def test_loss_and_first_gradient_are_those_of_plain_peft(stirred, config):
    loop = stirred
    model, learning = plain(config, loop.weights)
    batch = pad(loop.sequences)
    labels = batch.ids.masked_fill(~batch.learn, -100)
    loss = model.train()(input_ids=batch.ids, attention_mask=batch.attend, labels=labels).loss
    loss.backward()
    tallies, _ = loop.gradient(0)
    loop.divide(float(tallies["loss"].count))
    penalty = loop.method.penalty(loop.policy.model)
    ours = tallies["loss"].mean() + (0.0 if penalty is None else float(penalty.detach()))
    assert ours == pytest.approx(float(loss.detach()), abs=1e-5)
    for name, weight in learning.items():
        assert torch.allclose(loop.weights[name].grad, weight.grad, atol=1e-5, rtol=1e-4), name


def saved(loop, folder: Path) -> Path:
    """Train a little, save, and note what the model says."""
    list(loop.fit())
    loop.method.save(loop.policy.model, folder / "adapter")
    return folder


NEW_PROCESS = """
import sys, warnings, torch
from pathlib import Path
from safetensors.torch import save_file
warnings.simplefilter("ignore")
from peft import PeftModel
from transformers import AutoModelForCausalLM
from tunesmith.model.load import load_tuned
base, ids = Path(sys.argv[1]), torch.tensor([[5, 6, 7, 8, 9, 40, 41, 12]])
for run in map(Path, sys.argv[2:]):
    said = {"ours": load_tuned(run, base)(ids).logits}
    if "bottleneck" not in run.name:
        plain = AutoModelForCausalLM.from_pretrained(base)
        said["theirs"] = PeftModel.from_pretrained(plain, run / "adapter").eval()(ids).logits
        said["theirs"] = said["theirs"][:, -ids.shape[1]:]  # PEFT leaves the logits of virtual tokens in
        said["ours"] = said["ours"][:, -ids.shape[1]:]
    save_file({name: one.contiguous() for name, one in said.items()}, run / "said.safetensors")
"""


def logits(policy):
    from tunesmith.data.rendering.render import Tokens

    batch = pad([Tokens(IDS[0].tolist(), [True] * IDS.shape[1])])
    with policy.trying():
        return policy.head(policy.states(batch))


def test_what_is_saved_says_the_same_in_a_new_process(model_folder, tmp_path):
    from safetensors.torch import load_file

    said, cases = {}, {name: method for name, (method, _) in CASES.items()}
    cases["bottleneck"] = Bottleneck(bottleneck_size=8)
    cases["bottleneck parallel"] = Bottleneck(bottleneck_size=8, placement="parallel", scaling=4.0)
    for name, method in cases.items():
        loop = loop_of(make_tiny, method, SFT(), sequences_for(SFT()), max_steps=3, learning_rate=3e-2)
        saved(loop, tmp_path / name)
        said[name] = logits(loop.policy)
    folders = [str(tmp_path / name) for name in cases]
    done = subprocess.run(
        [sys.executable, "-c", NEW_PROCESS, str(model_folder), *folders], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    untouched = make_tiny().eval()(IDS).logits
    for name in cases:
        found = load_file(tmp_path / name / "said.safetensors")
        assert torch.allclose(found["ours"], said[name], atol=1e-5), name
        assert not torch.allclose(found["ours"], untouched, atol=1e-3), name
        if "theirs" in found:
            assert torch.allclose(found["theirs"], said[name], atol=1e-5), name


@pytest.mark.parametrize("name", MERGED)
def test_merged_into_the_base_it_says_the_same(name, model_folder, tmp_path):
    loop = loop_of(make_tiny, CASES[name][0], SFT(), sequences_for(SFT()), max_steps=3, learning_rate=3e-2)
    saved(loop, tmp_path)
    tuned = load_tuned(tmp_path, model_folder)
    with torch.no_grad():
        before = tuned(IDS).logits
        merged = tuned.merge_and_unload()(IDS).logits
    assert torch.allclose(merged, before, atol=1e-4)
    assert not torch.allclose(merged, make_tiny().eval()(IDS).logits, atol=1e-3)


@pytest.mark.parametrize("start", ["pissa", "olora"])
def test_an_update_that_began_in_the_weights_is_saved_as_a_plain_one_of_twice_the_rank(start, tmp_path):
    loop = loop_of(make_tiny, LoRA(r=4, init_lora_weights=start), SFT(), sequences_for(SFT()), max_steps=2)
    saved(loop, tmp_path)
    said = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert said["r"] == 8 and said["init_lora_weights"] is True
    assert loop.policy.model.peft_config["default"].r == 4


def test_loraplus_gives_the_second_matrix_the_rate_that_peft_gives_it():
    from peft.optimizers import create_loraplus_optimizer

    loop = loop_of(make_tiny, LoRA(r=4, loraplus_lr_ratio=16), SFT(), sequences_for(SFT()), learning_rate=1e-3)
    theirs = create_loraplus_optimizer(loop.policy.model, torch.optim.AdamW, lr=1e-3, loraplus_lr_ratio=16)

    def rates(optimizer):
        return {id(weight): group["lr"] for group in optimizer.param_groups for weight in group["params"]}

    assert rates(loop.optimizer) == rates(theirs)
    assert {id(weight): 16e-3 if "lora_B" in name else 1e-3 for name, weight in loop.weights.items()} == rates(theirs)


def test_adalora_drops_the_ranks_that_peft_drops():
    method, steps = AdaLoRA(init_r=4, target_r=2, tinit=1, tfinal=2, deltaT=2, orth_reg_weight=0.1), 8
    loop = loop_of(make_tiny, method, SFT(), sequences_for(SFT()), max_steps=steps, learning_rate=1e-2, max_grad_norm=0)
    config = peft.AdaLoraConfig(
        init_r=4, target_r=2, lora_alpha=8, tinit=1, tfinal=2, deltaT=2, orth_reg_weight=0.1, total_step=steps, **LINEAR
    )
    model, learning = plain(config, loop.weights)
    list(loop.fit())
    optimizer = torch.optim.AdamW(learning.values(), lr=1e-2, weight_decay=0.0)
    batch = pad(loop.sequences)
    labels = batch.ids.masked_fill(~batch.learn, -100)
    for step in range(steps):
        model.train()(input_ids=batch.ids, attention_mask=batch.attend, labels=labels).loss.backward()
        optimizer.step()
        model.base_model.update_and_allocate(step + 1)
        optimizer.zero_grad()
    ours, theirs = (one.peft_config["default"].rank_pattern for one in (loop.policy.model, model))
    assert ours == theirs
    assert sum(map(sum, ours.values())) == 2 * len(ours)
    for name, weight in learning.items():
        assert torch.allclose(loop.weights[name], weight, atol=1e-4), name


H, WIDE, KV, L = 32, 64, 16, 2
SIDES = [(H, H), (H, KV), (H, KV), (H, H), (H, WIDE), (H, WIDE), (WIDE, H)]
FORMULAS = {
    "lora": (LoRA(r=4), L * sum(4 * (a + b) for a, b in SIDES)),
    "dora": (LoRA(r=4, use_dora=True), L * sum(4 * (a + b) + b for a, b in SIDES)),
    "vera": (VeRA(r=16), L * sum(16 + b for _, b in SIDES)),
    "ia3": (IA3(), L * (KV + KV + WIDE)),
    "oft": (OFT(oft_block_size=16), L * sum(a // 16 * 16 * 15 // 2 for a, _ in SIDES)),
    "adalora": (AdaLoRA(init_r=4, target_r=2), L * sum(4 * (a + b) + 4 for a, b in SIDES)),
    "layernorm": (LayerNorm(), (2 * L + 1) * H),
    "prompt_tuning": (PromptTuning(num_virtual_tokens=5), 5 * H),
    "prefix_tuning": (PrefixTuning(num_virtual_tokens=5), 5 * L * 2 * KV),
    "houlsby": (Bottleneck(bottleneck_size=8), L * 2 * (2 * 8 * H + 8 + H)),
    "pfeiffer": (Bottleneck(bottleneck_size=8, placement="pfeiffer"), L * (2 * 8 * H + 8 + H)),
    "parallel": (Bottleneck(bottleneck_size=8, placement="parallel"), L * (2 * 8 * H + 8 + H)),
}  # fmt: skip


@pytest.mark.parametrize(("method", "count"), FORMULAS.values(), ids=FORMULAS)
def test_as_many_weights_learn_as_the_paper_says(method, count):
    loop = loop_of(make_tiny, method, SFT(), sequences_for(SFT()))
    assert sum(weight.numel() for weight in loop.weights.values()) == count
