"""BatchBALD for regression: the batch with the largest log-determinant of its joint covariance.

    MI(y_S; ω) = 1/2 log det(Σ_S + N_S) - 1/2 log det N_S

with Σ_S the covariance of the passes' means over all rows and outputs of the batch, under shared
masks, and N_S the diagonal noise. Rows are added greedily; a row's own covariance, given the batch,
is brought up to date after every pick by a block of the Cholesky factor, so that a pick costs
O(N T D²) and no N x N matrix is made.

    gain_n = 1/2 log det(V_n + N_n) - 1/2 log det N_n,   V_n = Cov(f_n | y_S)

Dimensions: T samples, N candidates, D outputs, R directions of the batch so far (|S| · D).

Source: Kirsch, van Amersfoort and Gal 2019, arXiv:1906.08158; Holzmüller, Zaverkin, Kästner and
Steinwart 2023, arXiv:2203.09410; Chen, Zhang and Zhou 2018, arXiv:1709.05135 for the update.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dubito.acquisition.batches.picks import Picks
from dubito.engine.calling.arguments import Check


def choose(
    mean_TND: Tensor,
    noise_ND: Tensor,
    picks: Picks,
    *,
    check: Check | None = None,
) -> None:
    """Fill a batch; its scores are the gains, which add up to the mutual information of the batch.

    Args:
        mean_TND: the passes' means over the candidates, with the same ω_t for all rows.
        noise_ND: noise variances, above 0.
        picks: the batch, still empty.
        check: called between picks; whatever it raises ends the choosing.

    Raises:
        InputError: fewer rows than k can be chosen.
    """
    num_samples, rows, outputs = mean_TND.shape
    centred_NDT = ((mean_TND - mean_TND.mean(0)) / num_samples**0.5).permute(1, 2, 0).contiguous()
    noise_NDD = torch.diag_embed(noise_ND)
    cov_NDD = centred_NDT @ centred_NDT.mT
    factor_NDR = cov_NDD.new_zeros(rows, outputs, 0)
    base_N = noise_ND.log().sum(1)
    while not picks.is_full:
        if check is not None:
            check()
        gain_N = 0.5 * (torch.linalg.slogdet(cov_NDD + noise_NDD)[1] - base_N)
        row = picks.best(gain_N.cpu().numpy())
        picks.take(row, float(gain_N[row]))
        with_last_NDD = centred_NDT @ centred_NDT[row].mT - factor_NDR @ factor_NDR[row].mT
        lower_DD = torch.linalg.cholesky(cov_NDD[row] + noise_NDD[row])
        new_NDD = torch.linalg.solve_triangular(lower_DD, with_last_NDD.mT, upper=False).mT
        factor_NDR = torch.cat([factor_NDR, new_NDD], dim=-1)
        cov_NDD = cov_NDD - new_NDD @ new_NDD.mT
