"""Translated blocks take the steps of those that were written, and a machine that cannot translate says so."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
SCRIPT = """
import os, sys
sys.path.insert(0, sys.argv[1])
from conftest import make_tiny
from tinyrun import loop_of, sequences_for
from torch._inductor import config
from tunesmith.errors import BadEnvironment
from tunesmith.methods.lora import LoRA
from tunesmith.model.compiled import compile_blocks
from tunesmith.objectives.sft import SFT
def loop(**settings):
    return loop_of(make_tiny, LoRA(), SFT(), sequences_for(SFT()), **settings)
if not (child := os.fork()):  # what has been tried of a compiler is known for as long as a process lives
    config.cpp.cxx = ("/nowhere/g++",)
    try:
        compile_blocks(loop().policy, loop().layout)
    except BadEnvironment as said:
        print("BadEnvironment:", said, flush=True)
    os._exit(0)
os.waitpid(child, 0)
config.compile_threads = 1  # else helpers are begun, each of which loads torch
losses = []
for translate in (False, True):
    taken = loop(per_device_train_batch_size=4, max_steps=3)
    seconds = compile_blocks(taken.policy, taken.layout) if translate else 1
    losses.append([step.loss for step in taken.fit()])
assert seconds > 0
assert all(abs(one - other) < 1e-5 for one, other in zip(*losses, strict=True)), losses
from torch._dynamo.utils import counters
assert counters["stats"]["unique_graphs"] > 0
print("alike")
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """In a process of its own: what is translated is kept for as long as a process lives."""
    folder = tmp_path_factory.mktemp("translated")
    (folder / "steps.py").write_text(SCRIPT)
    words = [sys.executable, str(folder / "steps.py"), str(TESTS)]
    kept = {"TORCHINDUCTOR_CACHE_DIR": str(folder / "cache")}
    return subprocess.run(words, capture_output=True, text=True, timeout=300, env=os.environ | kept)


@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++, by which torch.compile makes programs for a CPU")
def test_translated_blocks_take_the_same_steps(done):
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("alike\n")
    assert "recompile_limit" not in done.stderr


def test_a_machine_without_a_compiler_says_so(done):
    assert "BadEnvironment: train.torch_compile: this machine cannot compile" in done.stdout
