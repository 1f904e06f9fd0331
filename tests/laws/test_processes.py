"""Law: two processes take the same steps as one, whatever is learnt and by whatever method."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from conftest import make_tiny
from safetensors.torch import load_file
from tinyrun import COVER, loop_of, sequences_for

from tunesmith.methods.base import method
from tunesmith.methods.lora import LoRA
from tunesmith.objectives.base import objective
from tunesmith.objectives.dpo import DPO
from tunesmith.objectives.kto import KTO
from tunesmith.optimizers.sgd import SGD

TESTS = Path(__file__).parents[1]
STEPS = 2
SCRIPT = """
import json, sys
sys.path.insert(0, sys.argv[1])
from laws.test_processes import COVER, STEPWIDE, at_once, taken
from safetensors.torch import save_file
losses, weights = {name: at_once(aim, 2)[1] for name, aim in STEPWIDE.items()}, {}
for name, aim in COVER:
    loop, losses[f"{name} {aim}"], _ = taken(name, aim, 4)
    weights |= {f"{name} {aim} {key}": weight.detach() for key, weight in loop.weights.items()}
if loop.accelerator.is_main_process:
    save_file(weights, sys.argv[2])
    print(json.dumps(losses))
loop.accelerator.wait_for_everyone()
loop.accelerator.end_training()
"""


def exact_tiny(**said):
    """In float64: what differs is then what is computed, not how a processor rounds products of other sizes."""
    return make_tiny(**said).double()


def taken(name, aim, size):
    """A loop after its steps, of batches of `size` on each process, their losses, and the weights before them."""
    judge = objective[aim]()
    settings = {"per_device_train_batch_size": size, "max_steps": STEPS, "optim": SGD(), "learning_rate": 0.1}
    loop = loop_of(exact_tiny, method[name](), judge, sequences_for(judge), **settings)
    start = {key: weight.detach().clone() for key, weight in loop.weights.items()}
    return loop, [step.loss for step in loop.fit()], start


STEPWIDE = {"aot": DPO(loss_type="aot"), "aot_unpaired": DPO(loss_type="aot_unpaired"), "kto": KTO()}
"""Objectives that compare what a step has, wherever it is computed."""


def at_once(aim, processes):
    """A loop after three steps of all examples over so many processes, and of each the loss and the gradient."""
    size = 8 // aim.side_by_side // processes
    settings = {"per_device_train_batch_size": size, "max_steps": 3, "optim": SGD(), "learning_rate": 0.5}
    loop = loop_of(make_tiny, LoRA(), aim, sequences_for(aim), **settings)
    return loop, [[step.loss, step.grad_norm] for step in loop.fit()]


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes come to: losses and weights, by pair; and by objectives that compare."""
    folder = tmp_path_factory.mktemp("two")
    (folder / "steps.py").write_text(SCRIPT)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = [str(folder / "steps.py"), str(TESTS), str(folder / "weights.safetensors")]
    ran = subprocess.run([*launch, *words], capture_output=True, text=True, timeout=300)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1]), load_file(folder / "weights.safetensors")


@pytest.mark.parametrize(("name", "aim"), COVER)
def test_equivalence_of_two_processes_and_one(two, name, aim):
    losses, weights = two
    loop, expected, start = taken(name, aim, 8)
    assert losses[f"{name} {aim}"] == pytest.approx(expected, abs=1e-6)
    for key, weight in loop.weights.items():
        assert torch.allclose(weights[f"{name} {aim} {key}"], weight, atol=1e-6), key
    assert any(not torch.allclose(weight, start[key], atol=1e-4) for key, weight in loop.weights.items())


@pytest.mark.parametrize("name", STEPWIDE)
def test_two_processes_compare_what_one_does(two, name):
    _, expected = at_once(STEPWIDE[name], 1)
    assert two[0][name] == [pytest.approx(step, rel=1e-5) for step in expected]
