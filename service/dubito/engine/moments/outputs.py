"""From the moments of the declared outputs to the columns of a prediction.

Regression is closed: mean and variance as they are, the noise of a log-variance head log-normal,
E e^s = exp(E s + Var s / 2).

For classes the outputs are taken as jointly Gaussian, z ~ N(m, Σ), and everything that is said of
softmax(z / temperature) is an average over 256 fixed points z_n = m + Σ^½ ξ_n, where the ξ_n are
Sobol points through Φ⁻¹, whitened, so that the mean of the z_n is m and their covariance is Σ:

    p̄ = 1/N Σ_n p_n,   predictive H[p̄],   expected 1/N Σ_n H[p_n],   mutual information the rest

Σ is full for up to 128 outputs of a last linear map, else diagonal. No Monte Carlo error enters:
`standard_error` is 0, and the corrected mutual information is the plain one.

Dimensions: N nodes, B rows, C classes, D outputs, J factors.
Source: Daunizeau 2017, arXiv:1703.00091, for the softmax of a Gaussian; Sobol' 1967; Owen 2003,
Quasi-Monte Carlo sampling.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from scipy.special import ndtri
from scipy.stats import qmc
from torch import Tensor

from dubito.engine.calling.sampling import NUM_NODES
from dubito.engine.heads.heads import mean_and_variance
from dubito.engine.heads.scaling import Scaling, scaled
from dubito.engine.kernels.constants import constant
from dubito.engine.moments.values import Spread
from dubito.errors import InputError
from dubito_nn import Manifest

MAX_JOINT = 128
_SEED = 20_000  # of the scrambling, the same for every prediction


@dataclass(frozen=True, eq=False)
class OutputMoments:
    """Moments of the declared outputs; of log-probabilities and probabilities: of their logits.

    Args:
        mean: (B, C), or (B, 2, D) for a pair of heads.
        variance: the same shape.
        covariance: (B, C, C) of the outputs of a last linear map; None: they count as independent.
    """

    mean: Tensor
    variance: Tensor
    covariance: Tensor | None

    @classmethod
    def of(cls, value: Spread) -> OutputMoments:
        """The moments of a value."""
        is_joint = value.joint is not None and value.mean.shape[-1] <= MAX_JOINT
        covariance = value.joint() if is_joint and value.joint is not None else None
        if covariance is not None:
            return cls(value.mean, covariance.diagonal(dim1=-2, dim2=-1), covariance)
        return cls(value.mean, value.total(), None)

    @classmethod
    def joined(cls, parts: Sequence[OutputMoments]) -> OutputMoments:
        """The rows of several parts, on the CPU in float64."""
        mean, variance, covariance = (
            None
            if any(getattr(part, name) is None for part in parts)
            else torch.cat([getattr(part, name).cpu().double() for part in parts])
            for name in ("mean", "variance", "covariance")
        )
        assert mean is not None
        assert variance is not None
        return cls(mean, variance, covariance)

    def at_nodes(self, output: str) -> Tensor:
        """Points with these moments, (N, B, ...), in float64; they stand in for passes.

        Args:
            output: what the network declares; log-probabilities and probabilities are normalised.
        """
        raw = self._by_rows("logits").permute(2, 0, 1).reshape(NUM_NODES, *self.mean.shape)
        if output == "log_probs":
            return raw.log_softmax(-1)
        return raw.softmax(-1) if output == "probs" else raw

    def columns(
        self, manifest: Manifest, temperature: Scaling, *, keep_nodes: bool
    ) -> dict[str, Tensor]:
        """What a prediction says, by name.

        Args:
            manifest: what the outputs are.
            temperature: on the logits of every node; classification only.
            keep_nodes: whether to return the nodes as `samples`.
        """
        if manifest.family == "regression":
            return self._regression(manifest, keep_nodes=keep_nodes)
        return self._classification(manifest, temperature, keep_nodes=keep_nodes)

    def _regression(self, manifest: Manifest, *, keep_nodes: bool) -> dict[str, Tensor]:
        mean, variance = self.mean.double(), self.variance.double()
        noise = torch.zeros_like(mean)
        if manifest.output == "mean_and_log_variance":
            noise = (mean[:, 1] + variance[:, 1] / 2).exp()
            mean, variance = mean[:, 0], variance[:, 0]
        if manifest.target_scale is not None:
            shift, factor = (constant(part, mean) for part in manifest.target_scale)
            mean, square = shift + factor * mean, factor.square()
            variance, noise = square * variance, square * noise
        kept = {}
        if keep_nodes:
            samples, noises = mean_and_variance(self.at_nodes(manifest.output), manifest)
            kept = {"samples": samples, "noise_samples": noises}
        return {
            "mean": mean,
            "variance": variance + noise,
            "epistemic_variance": variance,
            "aleatoric_variance": noise,
            "standard_error": 0 * mean,
            "num_samples_used": torch.ones(len(mean)),
            **kept,
        }

    def _classification(
        self, manifest: Manifest, temperature: Scaling, *, keep_nodes: bool
    ) -> dict[str, Tensor]:
        raw_BCN = self._by_rows(manifest.output).float()
        z_BCN = scaled(raw_BCN, temperature, dim=1)
        norm_B1N = z_BCN.logsumexp(1, keepdim=True)
        probs_BCN = (z_BCN - norm_B1N).exp_()
        entropy_BN = norm_B1N[:, 0] - (probs_BCN * z_BCN).sum(1)
        mean_BC = probs_BCN.mean(-1).double()
        mean_BC = mean_BC / mean_BC.sum(-1, keepdim=True)
        expected_B = entropy_BN.mean(-1).double().clamp_min(0)
        # by concavity; rounding must not undo it
        predictive_B = torch.maximum(torch.special.entr(mean_BC).sum(-1), expected_B)
        mutual_B = predictive_B - expected_B
        share_BC = (z_BCN == z_BCN.amax(1, keepdim=True)).double().mean(-1)
        energy_BN = norm_B1N[:, 0] if z_BCN is raw_BCN else raw_BCN.logsumexp(1)
        return {
            "mean": mean_BC,
            "variance": (probs_BCN - mean_BC.float().unsqueeze(-1)).square_().mean(-1).double(),
            "standard_error": 0 * mean_BC,
            "num_samples_used": torch.ones(len(mean_BC)),
            "predictive_entropy": predictive_B,
            "expected_entropy": expected_B,
            "mutual_information": mutual_B,
            "mutual_information_corrected": mutual_B,
            "vote_share": share_BC,
            # where the network overflows nothing is known
            "variation_ratio": 1 - share_BC.amax(-1) + 0 * expected_B,
            "energy": -energy_BN.mean(-1).double(),
            "energy_spread": energy_BN.std(-1, correction=0).double(),
            "max_logit": raw_BCN.amax(1).mean(-1).double(),
            **({"samples": probs_BCN.permute(2, 0, 1).double()} if keep_nodes else {}),
        }

    def _by_rows(self, output: str) -> Tensor:
        """Logits at the nodes, (B, C, N): operators over classes are fast where N lies inside."""
        mean_BC = self.mean.double().flatten(1)
        off_CN = _points(mean_BC.shape[1]).to(mean_BC.device).T
        if self.covariance is None or mean_BC.shape[1] == 1:
            noise_BCN = self.variance.double().flatten(1).sqrt().unsqueeze(-1) * off_CN
        else:
            noise_BCN = _root(self.covariance.double()) @ off_CN
        raw_BCN = noise_BCN.add_(mean_BC.unsqueeze(-1))
        if output == "sigmoid_logits":
            return torch.cat([torch.zeros_like(raw_BCN), raw_BCN], 1)
        return raw_BCN.log_softmax(1) if output in ("log_probs", "probs") else raw_BCN


@lru_cache(maxsize=16)
def _points(dims: int) -> Tensor:
    """N points with mean 0 and covariance I, (N, dims), in float64.

    Raises:
        InputError: more dimensions than the Sobol sequence has.
    """
    if dims > qmc.Sobol.MAXDIM:
        raise InputError(
            f"method `moments` takes at most {qmc.Sobol.MAXDIM} outputs, got {dims}: use `mc`"
        )
    uniform = qmc.Sobol(dims, scramble=True, rng=_SEED).random(NUM_NODES)
    normal = torch.from_numpy(ndtri(uniform))
    normal = normal - normal.mean(0)
    if dims > MAX_JOINT:
        return normal / normal.square().mean(0).sqrt()
    root: Tensor = torch.linalg.cholesky(normal.T @ normal / NUM_NODES)
    white: Tensor = torch.linalg.solve_triangular(root, normal.T, upper=False).T
    return white.contiguous()


def _root(covariance_BCC: Tensor) -> Tensor:
    """Σ^½; a little is added to the diagonal where Σ has no full rank; nan where Σ overflowed."""
    diagonal = covariance_BCC.diagonal(dim1=-2, dim2=-1)
    floor = 1e-9 * diagonal.amax(-1).clamp_min(1e-30)
    eye = torch.eye(covariance_BCC.shape[-1], dtype=torch.float64, device=covariance_BCC.device)
    found = torch.linalg.cholesky_ex(covariance_BCC + floor[:, None, None] * eye)
    root: Tensor = found.L
    if bool(found.info.any()):
        values, vectors = torch.linalg.eigh(covariance_BCC.nan_to_num(0.0, 0.0, 0.0))
        root = vectors * values.clamp_min(0).sqrt().unsqueeze(-2)
    is_known_B11 = covariance_BCC.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    return root.where(is_known_B11, float("nan"))
