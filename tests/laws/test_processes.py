"""Law: two processes take the same step as one."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_tiny
from safetensors.torch import load_file
from tinyrun import loop_of, sequences_for

from tunesmith.methods.full import Full
from tunesmith.objectives.sft import SFT

TESTS = Path(__file__).parents[1]
STEP = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import make_tiny
from safetensors.torch import save_file
from tinyrun import loop_of, sequences_for
from tunesmith.methods.full import Full
from tunesmith.objectives.sft import SFT
size = int(sys.argv[3])
loop = loop_of(make_tiny, Full(), SFT(), sequences_for(SFT()), per_device_train_batch_size=size, max_steps=1)
[step] = loop.fit()
if loop.accelerator.is_main_process:
    save_file({name: weight.detach() for name, weight in loop.weights.items()}, sys.argv[2])
    print(step.loss)
loop.accelerator.wait_for_everyone()
loop.accelerator.end_training()
"""


def test_two_processes_take_the_same_step_as_one(tmp_path):
    (tmp_path / "step.py").write_text(STEP)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [str(tmp_path / "step.py"), str(TESTS), str(tmp_path / "weights.safetensors"), "4"]
    ran = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=180)
    assert ran.returncode == 0, ran.stderr
    loop = loop_of(make_tiny, Full(), SFT(), sequences_for(SFT()), per_device_train_batch_size=8, max_steps=1)
    [step] = loop.fit()
    assert float(ran.stdout.split()[-1]) == pytest.approx(step.loss, abs=1e-6)
    weights = load_file(tmp_path / "weights.safetensors")
    for name, weight in loop.weights.items():
        assert torch.allclose(weights[name], weight, atol=1e-6), name
