"""Predictions: what they were made with, and their columns.

These pages are never made: `border/replies.py` writes the arrays as they are. A column stands in a
reply where the head has it and `outputs` does not leave it out; it is null where it needs a
calibration, or passes, that are not there.

Dimensions: T passes, B rows, C classes or labels, D outputs, P positions (one axis or more), L
tokens.
"""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field

from dubito.api.pages.base import DrawnPage, JsonPage, Names, Nested, SamplingEntry

Numbers: TypeAlias = list[float | None]
Figures: TypeAlias = list[Nested]


class OodColumns(JsonPage):
    """Whether rows are out of distribution, by a score whose held-out values are known."""

    score: Numbers = Field(description="Score of each row; large is strange.")
    p_value: Numbers = Field(description="Share of held-out rows that are at least as strange.")
    flag: list[bool | None] = Field(description="Whether the row is out of distribution.")


class IntervalColumns(JsonPage):
    """Intervals of a regression; an end is null where the interval has none."""

    lower: Figures = Field(description="Lower ends, (B, D) or (B, P, D), in target units.")
    upper: Figures = Field(description="Upper ends, (B, D) or (B, P, D), in target units.")


class WayEntry(JsonPage):
    """What was measured of a way to answer, against 256 masked passes."""

    fit: int = Field(description="Number of the fit of `agreement` that measured it.")
    error_of_mean: float = Field(
        description="Largest difference of a row's means, which 95 % of its rows did not exceed; "
        "in probabilities or target units."
    )
    spearman: float = Field(
        description="Rank correlation over its rows of what is epistemic: mutual information, or "
        "the variance over the passes."
    )
    milliseconds: float = Field(description="Time of a call of so many rows, as measured then.")


class OutputColumns(JsonPage):
    """Columns of a prediction; the first axis of each is the row.

    A number, name, set, flag or decision is null where the network overflows on the row.
    """

    label: list[Names] | None = Field(
        default=None,
        description="Classification: the most probable class of each row, (B,), or of each "
        "position, (B, P); of several labels the names of those that are on.",
    )
    mean: Figures | None = Field(
        default=None,
        description="Classification: mean of the probabilities over the passes, (B, C) or "
        "(B, P, C); of several labels that of being on. Regression: mean of the predictions, or of "
        "quantiles the level .5, (B, D) or (B, P, D), in target units. Sequence: mean of its "
        "log-probability, (B,), in nats.",
    )
    variance: Figures | None = Field(
        default=None,
        description="Classification: variance of the probabilities over the passes, as `mean`. "
        "Regression: `epistemic_variance` + `aleatoric_variance`, (B, D); of positions the mean. "
        "Sequence: variance of its log-probability over the passes, (B,).",
    )
    standard_error: Figures | None = Field(
        default=None,
        description="Monte Carlo standard error of `mean`, under the draw used. Regression at "
        "positions: root of the mean square over them, (B, D).",
    )
    num_samples_used: list[int] | None = Field(
        default=None, description="Number of passes that each row took; fewer with a tolerance."
    )
    method_used: list[str] | None = Field(
        default=None,
        description="Methods `distilled` and `auto`: which method answered each row.",
    )
    predictive_entropy: Numbers | None = Field(
        default=None, description="Entropy of the mean probabilities, in nats: the total doubt."
    )
    expected_entropy: Numbers | None = Field(
        default=None,
        description="Mean of the entropies of the passes, in nats: the aleatoric part.",
    )
    mutual_information: Numbers | None = Field(
        default=None,
        description="`predictive_entropy` - `expected_entropy`, in nats: the epistemic part.",
    )
    mutual_information_corrected: Numbers | None = Field(
        default=None,
        description="`mutual_information` without most of its bias from few passes, by jackknife.",
    )
    variation_ratio: Numbers | None = Field(
        default=None, description="Share of the passes whose class is not the most frequent one."
    )
    position_predictive_entropy: Figures | None = Field(
        default=None, description="`predictive_entropy` of each label or position, in nats."
    )
    position_expected_entropy: Figures | None = Field(
        default=None, description="`expected_entropy` of each label or position, in nats."
    )
    position_mutual_information: Figures | None = Field(
        default=None, description="`mutual_information` of each label or position, in nats."
    )
    position_mutual_information_corrected: Figures | None = Field(
        default=None,
        description="`mutual_information_corrected` of each label or position, in nats.",
    )
    position_variation_ratio: Figures | None = Field(
        default=None, description="`variation_ratio` of each label or position."
    )
    position_variance: Figures | None = Field(
        default=None, description="Regression: `variance` of each position, (B, P, D)."
    )
    position_epistemic_variance: Figures | None = Field(
        default=None, description="Regression: `epistemic_variance` of each position, (B, P, D)."
    )
    position_aleatoric_variance: Figures | None = Field(
        default=None, description="Regression: `aleatoric_variance` of each position, (B, P, D)."
    )
    position_standard_error: Figures | None = Field(
        default=None,
        description="Regression: standard error of `mean` at each position, (B, P, D).",
    )
    epistemic_variance: Figures | None = Field(
        default=None,
        description="Regression: variance of the passes' means, in target units squared.",
    )
    aleatoric_variance: Figures | None = Field(
        default=None, description="Regression: variance of the noise, in target units squared."
    )
    normalised_mean: Numbers | None = Field(
        default=None,
        description="Sequence: mean of its log-probability for each token, in nats; null of a row "
        "without tokens.",
    )
    normalised_variance: Numbers | None = Field(
        default=None,
        description="Sequence: variance over the passes of its log-probability for each token; "
        "null of a row without tokens.",
    )
    num_tokens: list[int] | None = Field(
        default=None, description="Sequence: tokens that count, (B,)."
    )
    token_mean: Figures | None = Field(
        default=None,
        description="Sequence: mean over the passes of each token's log-probability, (B, L), in "
        "nats; null at padding.",
    )
    token_std: Figures | None = Field(
        default=None,
        description="Sequence: standard deviation over the passes of each token's log-probability, "
        "(B, L), in nats; null at padding.",
    )
    quantiles: dict[str, Figures] | None = Field(
        default=None,
        description="Regression: quantiles of the calibrated mixture, or those that the network "
        "returns, by level.",
    )
    prediction_set: list[Names] | None = Field(
        default=None,
        description="Classification: the classes that the promise of the coverage keeps, by row or "
        "position; of several labels those that may be on.",
    )
    certain_set: list[Names] | None = Field(
        default=None, description="Several labels: those that must be on."
    )
    interval: IntervalColumns | None = Field(
        default=None, description="Regression: intervals at the coverage."
    )
    decision: list[Literal["accept", "review", "reject"] | None] | None = Field(
        default=None,
        description="`accept` where the prediction can be used, `review` where somebody should "
        "look at it, `reject` where the row is out of distribution.",
    )
    ood: OodColumns | None = Field(
        default=None, description="Whether the row is out of distribution."
    )
    samples: Figures | None = Field(
        default=None,
        description="All passes, (B, T, ...) as `mean`; only where `outputs` names them.",
    )


class PredictPage(DrawnPage, SamplingEntry):
    """A prediction with its uncertainty."""

    request_id: str = Field(description="Identifier of the request, which feedback takes.")
    calibration: int | None = Field(
        description="Number of the calibration that was applied; null: figures are raw."
    )
    warnings: list[str] = Field(description="What the caller should know.")
    ids: list[str | int | float | bool | None] | None = Field(
        default=None, description="Cells of the `id_column`, one for each row."
    )
    agreement: WayEntry | None = Field(
        default=None,
        description="Method `auto`: what was measured of the way that answered; left out where "
        "none was relied on.",
    )
    outputs: OutputColumns = Field(description="The columns by name.")
