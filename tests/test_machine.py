"""Products are the same whichever library makes them, and however their factors lie in memory."""

from itertools import product as pairs

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
    monkeypatch.setattr(machine, "onednn", lambda: quicker)
    torch.manual_seed(0)
    for shape in LEFT:
        left, right = torch.randn(shape).to(dtype), torch.randn(5, 9).to(dtype)
        expected = left.double() @ right.double()
        for a, b in pairs(lain(left), lain(right)):
            got = machine.product(a, b)
            assert got.dtype == dtype and got.shape == expected.shape
            assert torch.allclose(got.double(), expected, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5, atol=1e-5)


def test_threads_are_as_many_as_real_cores():
    import psutil

    assert 1 <= machine.cores() <= (psutil.cpu_count(logical=False) or machine.cores())
