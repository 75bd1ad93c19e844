"""How fast this machine multiplies matrices, so that a figure can be held against its limit."""

from __future__ import annotations

import time

import torch

_SHAPES = {  # (batch, m, k, n) of a product: large ones, and the perceptron's thinned ones
    "cpu": ((1, 1024, 1024, 1024), (1, 2048, 2048, 2048), (1, 6400, 784, 1024), (8, 128, 512, 512)),
    "cuda": ((1, 4096, 4096, 4096), (1, 8192, 8192, 8192), (50, 1024, 512, 512)),
}


def matrix_rate(device: torch.device, repeats: int = 5) -> float:
    """Best rate of a float32 product over several shapes, in FLOP/s.

    Args:
        device: where.
        repeats: of every shape; the shortest counts.
    """
    return max(_rate(shape, device, repeats) for shape in _SHAPES[device.type])


def _rate(shape: tuple[int, int, int, int], device: torch.device, repeats: int) -> float:
    batch, m, k, n = shape
    left = torch.randn(batch, m, k, device=device)
    right = torch.randn(batch, k, n, device=device)
    out = torch.empty(batch, m, n, device=device)
    best_s = float("inf")
    for _ in range(repeats + 1):  # the first one is slower, and never the minimum
        _finish(device)
        before = time.perf_counter()
        torch.bmm(left, right, out=out)
        _finish(device)
        best_s = min(best_s, time.perf_counter() - before)
    return 2.0 * batch * m * k * n / best_s


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
