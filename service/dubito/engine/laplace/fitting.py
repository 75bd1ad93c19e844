"""From what rows say to a posterior: how wide it is.

Classes. The prior precision δ is the one number to be found.

    marginal likelihood     γ(δ) = δ ‖θ‖²,  γ = Σ λμ / (λμ + δ)      needs no labels: the likelihood
                            at the trained weights does not depend on δ
    held out                the least mean -log p of labelled rows, p by probit

Numbers. S is of all n rows, best of those of the training beside the labelled ones, which give ς by
likelihood, and for each ς every α in closed form:

    h = (φ, 1)ᵀ (S + ς² I)⁻¹ (φ, 1),  S = N/n Σ (φ, 1)(φ, 1)ᵀ
    α_d² = mean of r_d² / h'          r: truth less output;  h' = h / (1 - N/n h): without the row

Dimensions: B rows, F features, G directions, C outputs, D numbers.
Source: MacKay 1992, Bayesian interpolation; Daxberger et al. 2021, arXiv:2106.14806; Bigi et al.
2024, arXiv:2403.02251; h' by Sherman and Morrison 1950.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dubito.engine.laplace.curvature import Curvature, CurvatureSums
from dubito.engine.laplace.low_rank import LowRankPosterior
from dubito.engine.laplace.posterior import Posterior, probit
from dubito.errors import InputError

AnyPosterior = Posterior | LowRankPosterior

LEAST_ROWS = 30
_LOG_RANGE = (-20.0, 30.0)  # of δ
_GRID = 33
_STILL = 1e-10  # variance of features, relative to their mean square


@dataclass(frozen=True, eq=False)
class Labelled:
    """Labelled rows at the last map.

    Args:
        features: (B, F).
        scores: (B, C).
        truths: class of each row, (B,); or numbers as the network gives them, (B, D).
    """

    features: Tensor
    scores: Tensor
    truths: Tensor


@dataclass(frozen=True, eq=False)
class FitResult:
    """A posterior, and how it came about.

    Args:
        posterior: over the last map.
        report: figures, as plain values.
        warnings: what a reader should know.
    """

    posterior: AnyPosterior
    report: Mapping[str, object]
    warnings: tuple[str, ...] = ()

    def with_warning(self, line: str) -> FitResult:
        """The same, with one more to know."""
        return replace(self, warnings=(*self.warnings, line))


@dataclass(frozen=True, eq=False)
class Evidence:
    """The marginal likelihood over δ, but for what does not depend on it.

    log p(D | δ) = const - 1/2 (Σ log(λμ + δ) - P log δ + δ ‖θ‖²)

    Args:
        precisions: λμ of every direction, of P numbers.
        squared_norm: ‖θ‖² of the trained map.
        weights: how often each counts.
    """

    precisions: Tensor
    squared_norm: float
    weights: Tensor | float = 1.0
    _bounds: tuple[float, float] = field(default=_LOG_RANGE)

    def log_marginal_likelihood(self, prior_precision: float) -> float:
        """Its value at δ."""
        ratio = (self.weights * (self.precisions / prior_precision).log1p()).sum()
        return -0.5 * (float(ratio) + prior_precision * self.squared_norm)

    def effective_parameters(self, prior_precision: float) -> float:
        """γ at δ."""
        shares = self.precisions / (self.precisions + prior_precision)
        return float((self.weights * shares).sum())

    def best(self) -> float:
        """The δ at which it is largest: there is one, since γ falls and δ ‖θ‖² grows."""
        from scipy.optimize import brentq

        def excess(log_prior: float) -> float:
            prior = math.exp(log_prior)
            return self.effective_parameters(prior) - prior * self.squared_norm

        low, high = self._bounds
        if excess(low) <= 0:
            return math.exp(low)
        return math.exp(high if excess(high) >= 0 else brentq(excess, low, high, xtol=1e-10))


def fit_classes(
    seen: CurvatureSums,
    *,
    num_training_rows: int,
    has_bias: bool,
    squared_norm: float,
    prior_precision: float | None = None,
    held_out: Labelled | None = None,
) -> FitResult:
    """A posterior of a head of classes.

    Args:
        seen: of the rows.
        num_training_rows: N, that the network was trained on.
        has_bias: whether the last map adds one.
        squared_norm: ‖θ‖² of the map.
        prior_precision: δ; None: found.
        held_out: labelled rows, by whose likelihood δ is found; None: by the marginal likelihood.

    Raises:
        InputError: rows that say nothing of the curvature.
    """
    check_rows(seen)
    check_votes(seen)
    curvature = Curvature.of(seen, num_training_rows)
    precisions_CG = _precisions(curvature, has_bias)
    evidence = Evidence(precisions_CG, squared_norm)

    def made(prior: float) -> Posterior:
        return Posterior(curvature.rotation, curvature.frame, 1 / (precisions_CG + prior))

    prior, report = chosen_prior(evidence, made, prior_precision, held_out)
    return FitResult(made(prior), report)


def chosen_prior(
    evidence: Evidence,
    made: Callable[[float], AnyPosterior],
    prior_precision: float | None,
    held_out: Labelled | None,
) -> tuple[float, dict[str, object]]:
    """The prior precision, and what is reported of it.

    Args:
        evidence: the marginal likelihood.
        made: gives the posterior of a prior precision.
        prior_precision: δ; None: found.
        held_out: labelled rows, by whose likelihood δ is found; None: by the marginal likelihood.
    """
    if prior_precision is not None:
        chosen_by, prior = "given", prior_precision
    elif held_out is not None:
        chosen_by = "held_out"
        prior = math.exp(_least(lambda log: nll(made(math.exp(log)), held_out), _LOG_RANGE))
    else:
        chosen_by, prior = "marginal_likelihood", evidence.best()
    report: dict[str, object] = {
        "prior_precision": prior,
        "chosen_by": chosen_by,
        "log_marginal_likelihood": evidence.log_marginal_likelihood(prior),
        "effective_parameters": evidence.effective_parameters(prior),
    }
    if held_out is not None:
        report |= {"nll": nll(made(prior), held_out), "nll_point": nll(None, held_out)}
    return prior, report


def fit_numbers(
    seen: CurvatureSums, held_out: Labelled, *, num_training_rows: int, has_bias: bool
) -> FitResult:
    """A posterior of a head of numbers.

    Args:
        seen: of all rows, the labelled ones among them.
        held_out: labelled rows.
        num_training_rows: N.
        has_bias: whether the last map adds one.

    Raises:
        InputError: rows that say nothing of the curvature, too few labelled ones, or outputs
            without an error.
    """
    check_rows(seen)
    check_labelled(len(held_out.scores), int(seen.count))
    weight = num_training_rows / float(seen.count)
    rotation, eigen_G = _with_constant(seen, weight, has_bias)
    num_outputs = held_out.scores.shape[1]
    frame = torch.eye(num_outputs, dtype=torch.float64)
    squared_BD = (held_out.truths.double() - held_out.scores.double()).square()
    if not bool((squared_BD.mean(0) > 0).all()):
        raise InputError(
            "`targets` expects rows that the network does not predict without any error, got such"
            " ones: give rows that it was not trained on"
        )

    def leverage(log_regularizer: float) -> Tensor:
        """H' of every row, (B,)."""
        variance_1G = (1 / (eigen_G + math.exp(log_regularizer)))[None]
        one = Posterior(rotation, frame[:1, :1], variance_1G)
        h_B = one.variances(held_out.features.double())[:, 0]
        return h_B / (1 - weight * h_B).clamp_min(1e-9)

    def loss(log_regularizer: float) -> float:
        h_B = leverage(log_regularizer)
        alpha_D = (squared_BD / h_B[:, None]).mean(0)
        return float(0.5 * (alpha_D.log().mean() + h_B.log().mean()))

    middle = math.log(max(float(eigen_G.mean()), 1e-30))
    best = _least(loss, (middle - 25, middle + 10))
    h_B = leverage(best)
    alpha_D = (squared_BD / h_B[:, None]).mean(0)
    variance_CG = alpha_D[:, None] / (eigen_G + math.exp(best))
    constant = 0.5 * float(squared_BD.mean(0).log().mean()) + 0.5
    report = {
        "alpha": alpha_D.sqrt().tolist(),
        "regularizer": math.exp(best / 2),
        "nll": loss(best) + 0.5 + 0.5 * math.log(2 * math.pi),
        "nll_one_noise": constant + 0.5 * math.log(2 * math.pi),
    }
    return FitResult(Posterior(rotation, frame, variance_CG), report)


def nll(posterior: AnyPosterior | None, rows: Labelled) -> float:
    """Mean -log p of labelled rows by probit; None: of the trained map alone."""
    scores_BC = rows.scores.double()
    variance_BC = (
        torch.zeros_like(scores_BC)
        if posterior is None
        else posterior.variances(rows.features).to(scores_BC)
    )
    p_BC = probit(scores_BC, variance_BC)
    own_B = p_BC.gather(1, rows.truths.long()[:, None])[:, 0]
    return -float(own_B.clamp_min(torch.finfo(torch.float64).tiny).log().mean())


def check_rows(seen: CurvatureSums) -> None:
    """Refuse rows that are too few, or whose features are all the same.

    Raises:
        InputError: naming how many there are.
    """
    count = int(seen.count)
    if count < LEAST_ROWS:
        raise InputError(
            f"a fit of `laplace` expects at least {LEAST_ROWS} rows, got {count}: give more, a"
            " thousand or so"
        )
    mean_F, squares_F = seen.features / count, seen.squares.diagonal() / count
    if not (squares_F - mean_F**2 > _STILL * squares_F).any():
        raise InputError(
            f"a fit of `laplace` expects rows that differ in front of the last linear map, got"
            f" {count} with the same features: give rows of different inputs"
        )


def check_labelled(count: int, num_rows: int) -> None:
    """Refuse rows of which too few have true values.

    Raises:
        InputError: naming how many have.
    """
    if count < LEAST_ROWS:
        raise InputError(
            f"a fit of `laplace` to a regression expects at least {LEAST_ROWS} rows with `targets`,"
            f" got {count} of {num_rows}: give more, of rows that training has not seen"
        )


def check_votes(seen: CurvatureSums) -> None:
    """Refuse rows that the network takes all for one class.

    Raises:
        InputError: it does.
    """
    if int((seen.votes > 0).sum()) < 2:
        raise InputError(
            f"a fit of `laplace` expects rows of several classes, got {int(seen.count)} that the"
            f" network takes all for class {int(seen.votes.argmax())}: give rows of all classes"
        )


def _precisions(curvature: Curvature, has_bias: bool) -> Tensor:
    """λ_g μ_c of every direction, and of the bias μ_c, (C, G)."""
    outputs_C = curvature.of_outputs
    of_weights_CF = outputs_C[:, None] * curvature.of_features
    return torch.cat([of_weights_CF, outputs_C[:, None]], 1) if has_bias else of_weights_CF


def _with_constant(seen: CurvatureSums, weight: float, has_bias: bool) -> tuple[Tensor, Tensor]:
    """The frame and eigenvalues of S."""
    squares = torch.from_numpy(seen.squares)
    if has_bias:
        sums_F1 = torch.from_numpy(seen.features)[:, None]
        last = torch.cat([sums_F1.T, torch.tensor([[float(seen.count)]]).double()], 1)
        squares = torch.cat([torch.cat([squares, sums_F1], 1), last])
    values, vectors = torch.linalg.eigh(weight * squares)
    return vectors, values.clamp_min(0)


def _least(loss: Callable[[float], float], bounds: tuple[float, float]) -> float:
    """Where a loss over one number is least: the best of a grid, then bounded search beside it."""
    from scipy.optimize import minimize_scalar

    grid = torch.linspace(*bounds, _GRID, dtype=torch.float64).tolist()
    best = min(range(_GRID), key=lambda at: loss(grid[at]))
    around = grid[max(best - 1, 0)], grid[min(best + 1, _GRID - 1)]
    found = minimize_scalar(loss, bounds=around, method="bounded", options={"xatol": 1e-4})
    return float(found.x)
