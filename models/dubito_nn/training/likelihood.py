"""How likely the targets are under the mixture of T masked passes: what dropout is chosen by.

    log p(y|x) ≈ log 1/T Σ_t p(y | f(x, ω_t))

Dimensions: T samples, B rows, C classes, D outputs.

Source: Gal and Ghahramani 2016, arXiv:1506.02142, equation 8.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.training.losses import Output, check_targets
from dubito_nn.training.modes import device_of, in_mode
from dubito_nn.training.seeding import seeded

Head = Literal["logits", "mean", "mean_and_log_variance"]

# log τ is looked for this far to either side of the precision of the mean, in steps of one half.
_WIDEST, _NUM_COARSE, _NUM_FINE = 14.0, 57, 41


def sampled_outputs(
    network: nn.Module,
    inputs: Tensor,
    *,
    num_samples: int = 64,
    seed: int = 0,
    batch_size: int = 512,
) -> list[Output]:
    """Return the outputs of T masked passes, in float64 on the CPU.

    Args:
        network: Unchanged; every row has masks of its own.
        inputs: Rows, (B, ...).
        num_samples: T, at least 1.
        seed: Of the masks.
        batch_size: Rows at a time.

    Raises:
        ValueError: T is below 1.
    """
    if num_samples < 1:
        raise ValueError(f"expected num_samples of at least 1, got {num_samples}: use 64")
    device = device_of(network)
    with in_mode(network, "sampling"), seeded(seed, device), torch.no_grad():
        return [
            _joined([network(rows.to(device)) for rows in torch.split(inputs, batch_size)])
            for _ in range(num_samples)
        ]


def log_likelihood(
    samples: list[Output], targets: Tensor, *, head: Head, noise_precision: float | None = None
) -> Tensor:
    """Return log 1/T Σ_t p(y | sample t) of each row, in nats, shape (B,).

    log softmax at the label for logits, Σ_d log N(y_d; μ_d, 1/τ) for means, and with exp s_d in
    place of 1/τ for a pair.

    Args:
        samples: T outputs, as `sampled_outputs` gives them.
        targets: Class indices (B,), or values (B, D).
        head: What the outputs are.
        noise_precision: τ in inverse squared units of the target, for a head of means alone.

    Raises:
        ValueError: A head of means without a positive τ, an unknown head, or targets that do not
            go with it.
    """
    each_TB = torch.stack([_log_density(o, targets, head, noise_precision) for o in samples])
    return torch.logsumexp(each_TB, dim=0) - math.log(len(samples))


def best_noise_precision(samples: list[Output], target_BD: Tensor) -> float:
    """Return the τ that makes the targets most likely under the mixture of the T means.

    argmax_τ Σ_b log 1/T Σ_t Π_d N(y_bd; μ_tbd, 1/τ), on a grid of log τ and a finer one around its
    best point; one τ for all outputs.

    Args:
        samples: T tensors of means, (B, D).
        target_BD: Values of held-out rows.
    """
    mean_TBD = torch.stack([_tensor(sample) for sample in samples])
    check_targets(mean_TBD[0], target_BD)
    squared = (mean_TBD.mean(dim=0) - target_BD.cpu().double()).square().mean()
    centre = -math.log(max(float(squared), 1e-12))
    for width, count in ((_WIDEST, _NUM_COARSE), (0.5, _NUM_FINE)):
        grid = torch.linspace(centre - width, centre + width, count, dtype=torch.float64)
        scores = [
            float(log_likelihood(samples, target_BD, head="mean", noise_precision=tau).mean())
            for tau in grid.exp().tolist()
        ]
        centre = float(grid[int(torch.tensor(scores).argmax())])
    return math.exp(centre)


def _log_density(
    output: Output, targets: Tensor, head: Head, noise_precision: float | None
) -> Tensor:
    """Return log p(y | one pass) of each row, in nats, shape (B,)."""
    targets = targets.cpu()
    if head == "logits":
        _check_labels(_tensor(output), targets)
        return -functional.cross_entropy(_tensor(output), targets, reduction="none")
    if head == "mean":
        if noise_precision is None or not noise_precision > 0.0:
            raise ValueError(
                f"a head of means expects a positive noise_precision, got {noise_precision}: "
                "take it from best_noise_precision(samples, targets)"
            )
        mean_BD = _tensor(output)
        log_variance_BD = torch.full_like(mean_BD, -math.log(noise_precision))
    elif head == "mean_and_log_variance" and not isinstance(output, Tensor):
        mean_BD, log_variance_BD = output
    else:
        raise ValueError(
            "expected the head `logits`, `mean` (one tensor), or `mean_and_log_variance` (a pair),"
            f" got {head!r} for {'one tensor' if isinstance(output, Tensor) else 'a pair'}"
        )
    check_targets(mean_BD, targets)
    squared_BD = (targets.double() - mean_BD).square() * torch.exp(-log_variance_BD)
    return -0.5 * (log_variance_BD + squared_BD + math.log(2.0 * math.pi)).sum(dim=1)


def _check_labels(logits_BC: Tensor, labels: Tensor) -> None:
    num_classes = logits_BC.shape[1]
    is_index = not labels.is_floating_point() and labels.shape == logits_BC.shape[:1]
    if num_classes < 2 or not is_index or labels.min() < 0 or labels.max() >= num_classes:
        raise ValueError(
            "the head `logits` expects at least two of them and a class index per row below their "
            f"number, got {num_classes} and targets {labels.dtype} of shape {tuple(labels.shape)}: "
            "real values go with the head `mean`"
        )


def _joined(parts: list[Output]) -> Output:
    if isinstance(parts[0], Tensor):
        return torch.cat([_tensor(part) for part in parts]).double().cpu()
    first, second = zip(*parts, strict=True)
    return torch.cat(first).double().cpu(), torch.cat(second).double().cpu()


def _tensor(output: Output) -> Tensor:
    if isinstance(output, Tensor):
        return output
    raise TypeError("expected one tensor, got a pair: the head is mean_and_log_variance")
