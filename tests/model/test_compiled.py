"""Translated blocks take the steps of those that were written, and a machine that cannot translate says so."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SCRIPT = """
import sys
sys.path.insert(0, sys.argv[1])
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from torch._inductor import config
from tunesmith.errors import BadEnvironment
from tunesmith.methods.lora import LoRA
from tunesmith.model.compiled import compile_blocks
from tunesmith.objectives.sft import SFT
loop = loop_of(make_tiny, LoRA(), SFT(), sequences_for(SFT()))
try:
    with config.patch({"cpp.cxx": ("/nowhere/g++",)}):
        compile_blocks(loop.policy, loop.layout)
except BadEnvironment as said:
    print(said)
if sys.argv[2] == "0":
    sys.exit()
losses = []
for translate in (False, True):
    loop = loop_of(make_tiny, LoRA(), SFT(), sequences_for(SFT()), per_device_train_batch_size=4, max_steps=3)
    seconds = compile_blocks(loop.policy, loop.layout) if translate else 1
    losses.append([step.loss for step in loop.fit()])
assert seconds > 0
assert all(abs(one - other) < 1e-5 for one, other in zip(*losses, strict=True)), losses
from torch._dynamo.utils import counters
assert counters["stats"]["unique_graphs"] > 0
print("alike")
"""


def ran(tmp_path, **environment):
    """In a process of its own: what is translated is kept for as long as a process lives."""
    import os

    (tmp_path / "steps.py").write_text(SCRIPT)
    words = [sys.executable, str(tmp_path / "steps.py"), str(TESTS)]
    kept = {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=os.environ | kept | environment)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++, by which torch.compile makes programs for a CPU")
def test_translated_blocks_take_the_same_steps(tmp_path):
    done = ran(tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "alike\n"
    assert "recompile_limit" not in done.stderr


def test_a_machine_without_a_compiler_says_so(tmp_path):
    done = ran(tmp_path, CXX="/nowhere/g++")
    assert "BadEnvironment: train.torch_compile: this machine cannot compile" in done.stderr
