"""What the sums of a classification say, in one loop: `figures.classification` for a processor.

Dimensions: N distributions, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from dubito.engine.summing.blocks import PRIOR_FREEDOM
from dubito.engine.summing.compiled.compiling import in_order, loop
from dubito.engine.summing.compiled.formulas import exponential, logarithm
from dubito.engine.summing.compiled.tiles import BLOCK, Doubles, Totals
from dubito.ties import LEAST, RELATIVE

F = np.float32
_LEAST = F(1e-30)  # of what a logarithm is taken of
_AT_ONCE = 512  # numbers whose figures are made at once


class Of(NamedTuple):
    """What the sums are of.

    Args:
        samples: T.
        left: what a stratified draw leaves; nan for `iid`.
        blocks: whole blocks of 16 among them.
        mean_line: q of all samples, as a straight line in R: its value at 0, and its slope.
        group_line: the same of a group of the jackknife.
    """

    samples: int
    left: float
    blocks: int
    mean_line: tuple[float, float]
    group_line: tuple[float, float]


class ClassFigures(NamedTuple):
    """The columns, (N·C,) or (N,), by their names in a prediction."""

    mean: Doubles
    variance: Doubles
    standard_error: Doubles
    vote_share: Doubles
    variation_ratio: Doubles
    predictive_entropy: Doubles
    expected_entropy: Doubles
    mutual_information: Doubles
    mutual_information_corrected: Doubles
    label_index: Doubles


class LeanFigures(NamedTuple):
    """The columns that need no spread over the passes, (N·C,) or (N,), by their names."""

    mean: Doubles
    variation_ratio: Doubles
    predictive_entropy: Doubles
    expected_entropy: Doubles
    mutual_information: Doubles
    label_index: Doubles


@in_order
def write_figures(
    spread: Totals,
    votes: Doubles,
    entropy: Doubles,
    jackknife: Doubles,
    of: Of,
    answer: Doubles,
) -> None:
    """Write the columns of some distributions.

    Args:
        spread: (N·C,) each.
        votes: (N·C,).
        entropy: (N,) Σ_t H[p_t].
        jackknife: (N,) its correction.
        of: what the sums are of.
        answer: that is written: `ClassFigures`, one after the other.
    """
    count, distributions = of.samples, entropy.shape[0]
    figures = _class_figures(answer, votes.shape[0], distributions)
    classes = votes.shape[0] // max(1, distributions)
    at_once = max(1, _AT_ONCE // classes)
    spare = np.empty((3, at_once * classes))
    outputs, shares, variances = figures.mean, figures.vote_share, figures.variance
    for first in range(0, distributions, at_once):
        some = min(at_once, distributions - first)
        start, stop = first * classes, (first + some) * classes
        for n in range(some):
            _normalise(spread.mean, outputs, start + n * classes, classes)
        squares = spread.squares[start:stop]
        _write_errors(
            outputs[start:stop],
            squares,
            spread.slope[start:stop],
            spread.between[start:stop],
            of,
            figures.standard_error[start:stop],
            spare,
        )
        for k in range(start, stop):
            variances[k], shares[k] = spread.squares[k] / count, votes[k] / count
        for n in range(some):
            at, row = first + n, n * classes
            part = spare[:, row : row + classes]
            own, true_weight, taken_weight = _sum_of(part[0]), _sum_of(part[1]), _sum_of(part[2])
            voted, varies = 0.0, False
            for c in range(classes):
                voted = max(voted, votes[start + row + c])
                varies = varies or squares[row + c] != 0
            expected = entropy[at] / count
            # by concavity H[p̄] ≥ mean H[p_t]; rounding must not undo it
            predictive = own if varies and not own < expected else expected
            added = jackknife[at] if varies else 0.0
            if taken_weight > 0:
                added *= true_weight / taken_weight
            figures.predictive_entropy[at], figures.expected_entropy[at] = predictive, expected
            figures.mutual_information[at] = predictive - expected
            figures.mutual_information_corrected[at] = predictive - expected + added
            # a pass that overflowed votes for nothing
            figures.variation_ratio[at] = 1.0 - voted / count + 0 * expected
            figures.label_index[at] = _most_probable(outputs[start + row : start + row + classes])


@in_order
def _class_figures(answer: Doubles, numbers: int, rows: int) -> ClassFigures:
    """Columns that lie one after the other."""
    n = 4 * numbers
    return ClassFigures(
        answer[:numbers],
        answer[numbers : 2 * numbers],
        answer[2 * numbers : 3 * numbers],
        answer[3 * numbers : n],
        answer[n : n + rows],
        answer[n + rows : n + 2 * rows],
        answer[n + 2 * rows : n + 3 * rows],
        answer[n + 3 * rows : n + 4 * rows],
        answer[n + 4 * rows : n + 5 * rows],
        answer[n + 5 * rows : n + 6 * rows],
    )


@in_order
def _normalise(means: Doubles, outputs: Doubles, first: int, classes: int) -> None:
    total = 0.0
    for c in range(classes):
        total += means[first + c]
    for c in range(classes):
        outputs[first + c] = means[first + c] / total


@loop
def _sum_of(numbers: Doubles) -> float:
    total = 0.0
    for number in numbers:
        total += number
    return total


@in_order
def _write_errors(
    means: Doubles,
    squares: Doubles,
    slopes: Doubles,
    betweens: Doubles,
    of: Of,
    errors: Doubles,
    spare: Doubles,
) -> None:
    """Write standard errors of some numbers, and what is summed of them over the classes.

    Args:
        means: (K,) that add up to 1 over the classes.
        squares: Σ (p - mean)² over the passes.
        slopes: covariance with the normal scores of each block, summed over the blocks.
        betweens: Σ (mean of a block - mean of these)².
        of: what the sums are of.
        errors: that are written.
        spare: (3, K) the entropy's share, and what weighs the jackknife's correction.
    """
    count, left, blocks = of.samples, of.left, of.blocks
    is_stratified, is_one = left == left, count < 2
    freedom, number, prior = max(1, count - 1), max(1, blocks), PRIOR_FREEDOM + blocks - 1
    slope_factor, more_power = freedom / number**2, 0.5 / number
    # of one block, what is seen between blocks says nothing
    prior_share = PRIOR_FREEDOM / prior if blocks > 1 else 1.0
    between_factor = BLOCK * freedom / prior if blocks > 1 else 0.0
    most_between = between_factor / BLOCK
    constant, factor = of.mean_line
    group_constant, group_factor = of.group_line
    own, true_weight, taken_weight = spare[0], spare[1], spare[2]
    for k in range(means.shape[0]):
        mean, square = means[k], squares[k]
        inverse = 1.0 / square
        straight = min(slopes[k] * slopes[k] * slope_factor * inverse, 1.0)
        power = straight * exponential(F(more_power * logarithm(max(F(straight), _LEAST))))
        # a part of the squares, whatever rounding says
        between = min(betweens[k] * between_factor * inverse, most_between)
        ratio = (1.0 + (left - 1) * power) * prior_share + between
        ratio = 1.0 if square == 0 else ratio
        part = constant + factor * ratio if is_stratified else 1.0
        group_part = group_constant + group_factor * ratio if is_stratified else 1.0
        error = math.sqrt(square * part / ((count - part) * count))
        errors[k] = 0 * square if is_one else error
        rounded = max(F(mean), _LEAST)
        inverse_mean = 1.0 / mean
        off = (mean - rounded) * inverse_mean
        share = -mean * (logarithm(rounded) + off)
        weight = square * inverse_mean
        own[k] = 0.0 if mean == 0 else share
        true_weight[k] = 0.0 if mean == 0 else weight * part
        taken_weight[k] = 0.0 if mean == 0 else weight * group_part


@in_order
def write_lean_figures(
    most_votes: Doubles,
    entropy: Doubles,
    varies: Doubles,
    samples: int,
    figures: LeanFigures,
) -> None:
    """Write the columns of some distributions that need no spread over the passes.

    Args:
        most_votes: (N,) how many passes the class won that won most.
        entropy: (N,) Σ_t H[p_t].
        varies: (N,) 1 where passes differ.
        samples: T.
        figures: that are written, the means being there and made to add up to 1.
    """
    distributions = entropy.shape[0]
    classes, means = figures.mean.shape[0] // max(1, distributions), figures.mean
    for n in range(distributions):
        _normalise(means, means, n * classes, classes)
        mean, expected = means[n * classes : (n + 1) * classes], entropy[n] / samples
        predictive = _entropy(mean)
        # by concavity H[p̄] ≥ mean H[p_t]; rounding must not undo it
        predictive = predictive if varies[n] != 0 and not predictive < expected else expected
        figures.predictive_entropy[n], figures.expected_entropy[n] = predictive, expected
        figures.mutual_information[n] = predictive - expected
        # a pass that overflowed votes for nothing
        figures.variation_ratio[n] = 1.0 - most_votes[n] / samples + 0 * expected
        figures.label_index[n] = _most_probable(mean)


@loop
def _entropy(mean: Doubles) -> float:
    total = 0.0
    for p in mean:
        rounded = max(F(p), _LEAST)
        share = -p * (logarithm(rounded) + (p - rounded) / max(p, np.float64(_LEAST)))
        total += share
    return total


@in_order
def write_number_figures(spread: Totals, beside: Doubles, of: Of, answer: Doubles) -> None:
    """Write what is said of numbers.

    Args:
        spread: (N,) each.
        beside: (N,) Σ_t of their noise variances.
        of: what the sums are of.
        answer: (5, N) mean, variance, its epistemic and its aleatoric part, standard error.
    """
    count, numbers = of.samples, beside.shape[0]
    squares, spare = spread.squares, np.empty((3, numbers))
    _write_errors(spread.mean, squares, spread.slope, spread.between, of, answer[4], spare)
    for k in range(numbers):
        epistemic, aleatoric = squares[k] / count, beside[k] / count
        answer[0, k], answer[1, k] = spread.mean[k], epistemic + aleatoric
        answer[2, k], answer[3, k] = epistemic, aleatoric


@in_order
def _most_probable(mean: Doubles) -> int:
    """The most probable class, of tied ones the first (`dubito.ties`)."""
    largest = mean.max()
    for _ in range(2):
        largest -= RELATIVE * abs(largest) + LEAST
    for c in range(mean.shape[0]):
        if mean[c] >= largest:
            return c
    return 0


@in_order
def write_sizes(sizes: Doubles, share: float, answer: Doubles) -> None:
    """Write what is said of the size of logits: energy, its spread, the largest, (B,) each.

    Args:
        sizes: (T, S, 2) log Σ exp and the largest, of S tiles, which rows have equally many of.
        share: by which the sums over the tiles of a row are multiplied.
        answer: (3, B).
    """
    samples, rows = sizes.shape[0], answer.shape[1]
    tiles = sizes.shape[1] // rows
    of_rows, mean, squares = np.zeros((samples, rows, 2)), np.zeros((rows, 2)), np.zeros((rows, 2))
    for t in range(samples):
        for b in range(rows):
            for tile in range(b * tiles, (b + 1) * tiles):
                of_rows[t, b, 0] += sizes[t, tile, 0] * share
                of_rows[t, b, 1] += sizes[t, tile, 1] * share
    merge_sizes(of_rows, 0, mean, squares)
    for b in range(rows):
        answer[0, b] = -mean[b, 0]
        answer[1, b] = math.sqrt(squares[b, 0] / samples)
        answer[2, b] = mean[b, 1]


@in_order
def merge_sizes(sizes: Doubles, before: int, mean: Doubles, squares: Doubles) -> None:
    """Bring mean and squares of the size of logits up to date by Chan's rule.

    Args:
        sizes: (T, B, 2), of some passes.
        before: passes before.
        mean: (B, 2).
        squares: (B, 2).
    """
    samples = sizes.shape[0]
    for b in range(sizes.shape[1]):
        for i in range(2):
            first, offset, square = sizes[0, b, i], 0.0, 0.0
            for t in range(samples):
                offset += sizes[t, b, i] - first
            offset /= samples
            for t in range(samples):
                off = sizes[t, b, i] - first - offset
                square += off * off
            off = first + offset - mean[b, i]
            squares[b, i] += square
            if before:
                squares[b, i] += off * off * (before * samples / (before + samples))
                mean[b, i] += off * (samples / (before + samples))
            else:
                mean[b, i] = first + offset
