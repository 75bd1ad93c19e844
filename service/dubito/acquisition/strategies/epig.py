"""EPIG: what a row's label would say about the labels of rows that one cares about.

    EPIG(x) = E_{x*} MI(y; y*),   p(y, y*) = 1/T Σ_t p_t(y) p_t(y*)

averaged over the targets x*, with the same ω_t for rows and targets. Unlike BALD it does not ask
for rows that are far from everything one will ever predict.

Dimensions: T samples, B rows, M targets, C classes, D outputs.

Source: Bickford Smith, Kirsch, Farquhar, Gal, Foster and Rainforth 2023, arXiv:2304.08151.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dubito.acquisition.draws import Words
from dubito.acquisition.strategies.bald import NOISE, noise
from dubito.acquisition.strategy import (
    NUMBERS,
    ONE_CLASS,
    Context,
    PointwiseStrategy,
    kept_samples,
)
from dubito.acquisition.top import Scores
from dubito.engine import Classification, Regression

_TABLE_BYTES = 32 * 2**20  # of one table of rows x targets


def classification(probs_TBC: Tensor, targets_TMC: Tensor) -> Tensor:
    """Scores of a classification, nats, (B,); never below 0.

    s_B = 1/M Σ_m Σ_yz p(y, z) log(p(y, z) / (p̄(y) p̄(z)))
        = H[p̄_b] + 1/M Σ_m (H[p̄_m] - H[p_bm])

    Rows and targets are taken in pieces, so that memory does not grow with either.

    Args:
        probs_TBC: probabilities of every pass over the rows.
        targets_TMC: over the targets, of the same passes.
    """
    _, rows, classes = probs_TBC.shape
    side = max(1, int((_TABLE_BYTES / probs_TBC.element_size()) ** 0.5 / classes))
    joint_B = probs_TBC.new_zeros(rows)
    for part in _pieces(rows, side):
        for other in _pieces(targets_TMC.shape[1], side):
            joint_B[part] += _joint_entropies(probs_TBC[:, part], targets_TMC[:, other])
    row_B = torch.special.entr(probs_TBC.mean(0)).sum(-1)
    target_M = torch.special.entr(targets_TMC.mean(0)).sum(-1)
    information_B: Tensor = row_B + target_M.mean() - joint_B / len(target_M)
    return information_B.clamp_min(0.0)


def _joint_entropies(probs_TbC: Tensor, targets_TmC: Tensor) -> Tensor:
    """Σ over the targets of H[p(y, y*)], (b,)."""
    num_samples, rows, _ = probs_TbC.shape
    table = probs_TbC.reshape(num_samples, -1).T @ targets_TmC.reshape(num_samples, -1)
    table /= num_samples
    entropies: Tensor = torch.special.entr(table, out=table).view(rows, -1).sum(1)
    return entropies


def regression(
    mean_TBD: Tensor, noise_BD: Tensor, targets_TMD: Tensor, target_noise_MD: Tensor
) -> Tensor:
    """Scores of a regression, for Gaussian targets, nats, (B,); never below 0.

    s_B = 1/M Σ_m 1/2 (log det S_b + log det S_m - log det S_bm)
        = -1/M Σ_m 1/2 log det(I - A A'),   A = L_b⁻¹ Cov(f_b, f_m) L_m⁻ᵀ

    with S the covariance of the targets, noise included, and S = L L'.

    Args:
        mean_TBD: means of every pass over the rows.
        noise_BD: their noise variances, above 0.
        targets_TMD: means over the targets, of the same passes.
        target_noise_MD: their noise variances, above 0.
    """
    outputs = mean_TBD.shape[2]
    white_BDT = _whitened(mean_TBD, noise_BD)
    white_MDT = _whitened(targets_TMD, target_noise_MD)
    side = max(1, int((_TABLE_BYTES / mean_TBD.element_size()) ** 0.5 / outputs))
    eye_DD = torch.eye(outputs, dtype=mean_TBD.dtype, device=mean_TBD.device)
    scores_B = white_BDT.new_zeros(len(white_BDT))
    for part in _pieces(len(white_BDT), side):
        for other in _pieces(len(white_MDT), side):
            shared_bmDD = torch.einsum("bdt,met->bmde", white_BDT[part], white_MDT[other])
            left_bmDD = eye_DD - shared_bmDD @ shared_bmDD.mT
            scores_B[part] -= 0.5 * torch.linalg.slogdet(left_bmDD)[1].sum(1)
    return (scores_B / len(white_MDT)).clamp_min(0.0)


def _whitened(mean_TBD: Tensor, noise_BD: Tensor) -> Tensor:
    """Centred passes over √T, times the inverse of the row's L, (B, D, T)."""
    centred_BDT = ((mean_TBD - mean_TBD.mean(0)) / len(mean_TBD) ** 0.5).permute(1, 2, 0)
    cov_BDD = centred_BDT @ centred_BDT.mT + torch.diag_embed(noise_BD)
    lower_BDD = torch.linalg.cholesky(cov_BDD)
    white_BDT: Tensor = torch.linalg.solve_triangular(lower_BDD, centred_BDT, upper=False)
    return white_BDT


def _pieces(length: int, size: int) -> Iterator[slice]:
    for first in range(0, length, size):
        yield slice(first, first + size)


def _of_classes(prediction: Classification, words_B: Words, context: Context) -> Scores:
    samples_TBC, targets_TMC = _samples(prediction), _samples(context.targets)
    return classification(samples_TBC, targets_TMC).numpy()


def _of_numbers(prediction: Regression, words_B: Words, context: Context) -> Scores:
    noise_BD, noise_MD = (
        torch.from_numpy(noise(rows, context).copy()) for rows in (prediction, context.targets)
    )
    samples_TBD, targets_TMD = _samples(prediction), _samples(context.targets)
    return regression(samples_TBD, noise_BD, targets_TMD, noise_MD).numpy()


def _samples(prediction: Classification | Regression) -> Tensor:
    return torch.from_numpy(kept_samples(prediction))


EPIG = PointwiseStrategy("epig", ONE_CLASS, _of_classes, needs_samples=True, needs_targets=True)
EPIG_OF_NUMBERS = PointwiseStrategy(
    "epig", NUMBERS, _of_numbers, needs_samples=True, needs_targets=True, options=NOISE
)
