"""What the sums of a classification say, in one loop: `figures.classification` for a processor.

Dimensions: N distributions, C classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from dubito.engine.summing.blocks import PRIOR_FREEDOM
from dubito.engine.summing.compiled.compiling import in_order
from dubito.engine.summing.compiled.tiles import BLOCK, Doubles, Totals
from dubito.ties import LEAST, RELATIVE


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
    """The columns, (N, C) or (N,), by their names in a prediction."""

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


@in_order
def write_figures(
    spread: Totals,
    votes: Doubles,
    entropy: Doubles,
    jackknife: Doubles,
    of: Of,
    figures: ClassFigures,
) -> None:
    """Write the columns of some distributions.

    Args:
        spread: (N, C) each.
        votes: (N, C).
        entropy: (N,) Σ_t H[p_t].
        jackknife: (N,) its correction.
        of: what the sums are of.
        figures: that are written.
    """
    count, left, blocks = of.samples, of.left, of.blocks
    is_stratified = left == left
    freedom, number, prior = max(1, count - 1), max(1, blocks), PRIOR_FREEDOM + blocks - 1
    slope_factor, between_factor = freedom / number**2, freedom / max(1, prior)
    constant, factor = of.mean_line
    group_constant, group_factor = of.group_line
    means, squares, slopes, betweens = spread.mean, spread.squares, spread.slope, spread.between
    errors, shares, variances = figures.standard_error, figures.vote_share, figures.variance
    outputs = figures.mean
    for n in range(entropy.shape[0]):
        total, voted, predictive, varies = 0.0, 0.0, 0.0, False
        true_weight, taken_weight = 0.0, 0.0
        for c in range(votes.shape[1]):
            total += means[n, c]
        for c in range(votes.shape[1]):
            mean, square, part, group_part = means[n, c] / total, squares[n, c], 1.0, 1.0
            if is_stratified:
                ratio = 1.0
                if square != 0:
                    straight = min(slopes[n, c] ** 2 * slope_factor / square, 1.0)
                    ratio += (left - 1) * straight ** (1 + 0.5 / number)
                    if blocks > 1:  # a part of the squares, whatever rounding says
                        ratio *= PRIOR_FREEDOM / prior
                        ratio += min(betweens[n, c] * BLOCK / square, 1.0) * between_factor
                part, group_part = constant + factor * ratio, group_constant + group_factor * ratio
            errors[n, c] = 0 * square
            if count > 1:
                errors[n, c] = math.sqrt(square * part / ((count - part) * count))
            outputs[n, c], variances[n, c] = mean, square / count
            shares[n, c] = votes[n, c] / count
            voted = max(voted, votes[n, c])
            varies = varies or square != 0
            if mean != 0:  # or nan
                predictive -= mean * math.log(mean)
                true_weight += square / mean * part
                taken_weight += square / mean * group_part
        largest = outputs[n].max()
        for _ in range(2):  # of the most probable class, of tied ones the first (`dubito.ties`)
            largest -= RELATIVE * abs(largest) + LEAST
        label = 0
        for c in range(votes.shape[1] - 1, -1, -1):
            label = c if outputs[n, c] >= largest else label
        figures.label_index[n] = label
        expected = entropy[n] / count
        # by concavity H[p̄] ≥ mean H[p_t]; rounding must not undo it
        predictive = predictive if varies and not predictive < expected else expected
        added = jackknife[n] if varies else 0.0
        if taken_weight > 0:
            added *= true_weight / taken_weight
        figures.predictive_entropy[n], figures.expected_entropy[n] = predictive, expected
        figures.mutual_information[n] = predictive - expected
        figures.mutual_information_corrected[n] = predictive - expected + added
        # a pass that overflowed votes for nothing
        figures.variation_ratio[n] = 1.0 - voted / count + 0 * expected


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
