"""Numbers of laplace-torch for a small network, which `tests/test_laplace.py` compares with.

Run where laplace-torch 0.2 and curvlinops 2.0 are installed (the project needs neither):

    python benchmarks/evidence/methods_reference.py tests/data/laplace/kron_last_layer.npz
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from laplace import KronLLLaplace
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

_WIDTH, _HIDDEN, _CLASSES, _ROWS, _ASKED = 5, 12, 4, 400, 30
_PRIOR = 3.7


def main(path: Path) -> None:
    """Train, fit, and write weights, rows and what laplace-torch says."""
    torch.manual_seed(0)
    hidden, last = nn.Linear(_WIDTH, _HIDDEN), nn.Linear(_HIDDEN, _CLASSES)
    network = nn.Sequential(hidden, nn.ReLU(), last).double()
    rows = torch.randn(_ROWS, _WIDTH).float().double()
    labels = (rows[:, 0] + 0.5 * torch.randn(_ROWS) > 0).long() * 2 + (rows[:, 1] > 0).long()
    optimiser = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(150):
        optimiser.zero_grad()
        nn.functional.cross_entropy(network(rows), labels).backward()
        optimiser.step()
    network = network.float().double()  # as a bundle keeps it
    fitted = KronLLLaplace(network, "classification", prior_precision=_PRIOR)
    fitted.fit(DataLoader(TensorDataset(rows, labels), batch_size=_ROWS))
    asked = (2 * torch.randn(_ASKED, _WIDTH)).float().double()
    _, covariance = fitted._glm_predictive_distribution(asked)
    precisions = np.exp(np.linspace(-7, 7, 20_001))
    evidence = [float(fitted.log_marginal_likelihood(torch.tensor(prior))) for prior in precisions]
    fitted.prior_precision = _PRIOR
    np.savez_compressed(
        path,
        hidden_weight=hidden.weight.detach().numpy(),
        hidden_bias=hidden.bias.detach().numpy(),
        last_weight=last.weight.detach().numpy(),
        last_bias=last.bias.detach().numpy(),
        rows=rows.numpy(),
        asked=asked.numpy(),
        prior_precision=np.array(_PRIOR),
        covariance=covariance.detach().numpy(),
        probit=fitted(asked, link_approx="probit").detach().numpy(),
        best_prior_precision=np.array(precisions[int(np.argmax(evidence))]),
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
