"""How fast this machine multiplies matrices, as a worker: each line on stdin is a list of [rows, inputs, outputs]."""

import json
import sys
import time

import torch

REPEATS = 8


def rate(rows: int, inputs: int, outputs: int) -> float:
    """The best of some products, in floating-point operations a second."""
    x, weight, out = torch.randn(rows, inputs), torch.randn(inputs, outputs), torch.empty(rows, outputs)
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter()
        torch.mm(x, weight, out=out)
        best = min(best, time.perf_counter() - began)
    return 2 * rows * inputs * outputs / best


def main() -> None:
    for line in sys.stdin:
        sys.stdout.write(json.dumps({"rate": max(rate(*shape) for shape in json.loads(line))}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
