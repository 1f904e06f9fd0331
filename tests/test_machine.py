"""Products are the same whichever library makes them, and however their factors lie in memory; what memory there is."""

from itertools import product as pairs

import psutil
import pytest
import torch

from tunesmith import machine

LEFT = [(7, 5), (1, 5), (0, 5), (40, 5)]


def lain(made):
    """A matrix in several ways of lying in memory."""
    wide = torch.cat([made, made], 1)
    return [made, made.T.contiguous().T, wide[:, : made.shape[1]], torch.stack([made, made], 1)[:, 0]]


@pytest.mark.parametrize("quicker", [True, False], ids=["oneDNN", "MKL"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_products_are_those_of_float64(quicker, dtype, monkeypatch):
    if quicker and not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        pytest.skip("this torch is built without oneDNN")
    monkeypatch.setattr(machine, "onednn", lambda *_: quicker)
    torch.manual_seed(0)
    for shape in LEFT:
        left, right = torch.randn(shape).to(dtype), torch.randn(5, 9).to(dtype)
        expected = left.double() @ right.double()
        for a, b in pairs(lain(left), lain(right)):
            got = machine.product(a, b)
            assert got.dtype == dtype and got.shape == expected.shape
            assert torch.allclose(got.double(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_the_quicker_library_is_chosen_by_processor_and_shape(monkeypatch):
    chosen = {}
    for kind in ("", "AVX2", "AVX512", "AMD AVX512", "AMD AVX2"):
        monkeypatch.setattr(machine, "instructions", lambda kind=kind: kind)
        shapes = (100, 576, 1536), (100, 1536, 576), (512, 1536, 8), (16, 1536, 8), (100, 8, 64)
        chosen[kind] = [machine.onednn(*shape) for shape in shapes]
    assert chosen.pop("AMD AVX2") == [True, False, True, False, False]
    assert chosen == {"": [False] * 5, "AVX2": [False] * 5, "AVX512": [True] * 5, "AMD AVX512": [True] * 5}


def test_threads_are_as_many_as_real_cores():
    assert 1 <= machine.cores() <= (psutil.cpu_count(logical=False) or machine.cores())


GIB = 2**30


@pytest.mark.parametrize(
    ("where", "files", "most"),
    [
        (".", {"memory.max": GIB, "memory.current": 3 * GIB // 4, "memory.stat": f"a 5\ninactive_file {2**28}"}, GIB),
        ("memory", {"memory.limit_in_bytes": GIB, "memory.usage_in_bytes": GIB // 2, "memory.stat": "cache 7"}, GIB),
        (".", {"memory.max": "max", "memory.current": GIB, "memory.stat": ""}, None),
        ("memory", {"memory.limit_in_bytes": 2**63 - 4096, "memory.usage_in_bytes": 0, "memory.stat": ""}, None),
        (".", {}, None),
    ],
    ids=["second version", "first version", "no limit", "no limit, first version", "no groups"],
)  # fmt: skip
def test_a_container_has_no_more_memory_than_it_may(where, files, most, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "GROUPS", tmp_path)
    (tmp_path / where).mkdir(exist_ok=True)
    for name, said in files.items():
        (tmp_path / where / name).write_text(f"{said}\n")
    found = machine.memory()
    assert found.total == (most or psutil.virtual_memory().total)
    assert found.free == GIB // 2 if most else abs(found.free - psutil.virtual_memory().available) < GIB


def test_a_peak_is_a_runs_own_only_if_it_has_risen():
    peak = machine.Peak()
    mb, own = peak.read(torch.device("cpu"))
    assert mb >= peak.before and not own  # nothing was done
    peak.before /= 2  # as if the process had held half of it
    assert peak.read(torch.device("cpu")) == (machine.peak_memory_mb(), True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_the_peak_of_a_gpu_is_that_of_a_run():
    device, held = torch.device("cuda"), []
    for mb in (512, 64):
        peak = machine.Peak()
        held.append(torch.empty(mb * 2**20, dtype=torch.uint8, device=device))
        found, own = peak.read(device)
        assert own and mb <= found < mb + 100
        held.clear()


def test_no_attention_is_left_to_cudnn(monkeypatch):
    """It plans anew for every length of a row, which takes longer than the rows."""
    monkeypatch.setattr(torch, "set_num_threads", lambda count: None)
    usual = torch.backends.cuda.cudnn_sdp_enabled()
    torch.backends.cuda.enable_cudnn_sdp(True)
    try:
        machine.settle_in()
        assert not torch.backends.cuda.cudnn_sdp_enabled()
    finally:
        torch.backends.cuda.enable_cudnn_sdp(usual)
