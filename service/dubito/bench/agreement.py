"""What is lost where only some sites are sampled: figures beside those of all sites.

Its job: predict the same rows with all sites and with each choice of them, under the same masks,
and compare the order that the figures of uncertainty put the rows in, the means, and, where truths
are at hand, how good the predictions are. All sites under another seed are compared with all as
well: what they differ by is chance, and no choice of sites can agree better.

    rank correlation   Spearman's, over the rows: of the epistemic figure (mutual information, or
                       epistemic variance) and of the total one (predictive entropy, or variance)
    mean error         mean |mean of the choice - mean of all|, over rows and outputs
    auroc_errors       chance that a row with a wrong class has more predictive entropy than one
                       with the right class
    auroc_strange      chance that a strange row has a larger epistemic figure than another

Dimensions: B rows, N strange rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from torch import Tensor

from dubito.asked import EvaluateOrder
from dubito.engine import Engine, Prediction, Sampling
from dubito.engine.calling.sampling import SEED_LIMIT, Sites, shown_sites
from dubito.errors import InputError
from dubito.ranks import Floats, auroc, rank_correlation
from dubito.serving.labelled import LabelledRows, evaluate

_FIGURES = (("mutual_information", "predictive_entropy"), ("epistemic_variance", "variance"))


@dataclass(frozen=True, slots=True)
class Agreement:
    """A choice of sites beside all of them.

    Args:
        choice: the sites, or `all, another seed`.
        sampled: how many sites are.
        rank_epistemic: rank correlation of the epistemic figure; None where one does not vary.
        rank_total: that of the total figure.
        mean_error: mean absolute difference of the means.
        nll: mean negative log-likelihood; None without truths, or where the head has none.
        auroc_errors: of predictive entropy; None without labels, or without right and wrong rows.
        auroc_strange: of the epistemic figure; None without strange rows.
        refused: why the network does not allow the choice, else None.
    """

    choice: str
    sampled: int = 0
    rank_epistemic: float | None = None
    rank_total: float | None = None
    mean_error: float | None = None
    nll: float | None = None
    auroc_errors: float | None = None
    auroc_strange: float | None = None
    refused: str | None = None


def agreements(
    engine: Engine,
    rows: Mapping[str, Tensor],
    sampling: Sampling,
    choices: Sequence[Sites],
    labelled: LabelledRows | None = None,
    step: Callable[[int], None] | None = None,
) -> list[Agreement]:
    """Compare choices of sites with all, which come first, and with all under another seed.

    Args:
        engine: ready to be asked.
        rows: to predict, where none are labelled.
        sampling: of all sites.
        choices: of sites.
        labelled: rows with truths, in place of the others.
        step: called with the number of choices done.
    """
    told = step or (lambda done: None)
    other = replace(sampling, seed=(sampling.seed + 1) % SEED_LIMIT)
    ways = [("all", sampling), ("all, another seed", other)]
    ways += [(shown_sites(sites), replace(sampling, sites=sites)) for sites in choices]
    with_all: Prediction | None = None
    found = list[Agreement]()
    for name, way in ways:
        try:
            made = engine.predict(rows if labelled is None else labelled.inputs, sampling=way)
        except InputError as error:
            found.append(Agreement(name, refused=error.detail))
        else:
            with_all = with_all or made
            one = _compared(name, made, with_all, len(engine.of_sites(way.sites).sampled))
            judged = {} if labelled is None else _judged(engine, labelled, way, made)
            found.append(replace(one, **judged))  # type: ignore[arg-type]  # names of figures
        told(len(found))
    return found


def _compared(name: str, made: Prediction, with_all: Prediction, sampled: int) -> Agreement:
    (epistemic, total), (of_all, total_of_all) = _figures(made), _figures(with_all)
    return Agreement(
        name,
        sampled,
        rank_epistemic=rank_correlation(epistemic, of_all),
        rank_total=rank_correlation(total, total_of_all),
        mean_error=float(np.abs(made.mean - with_all.mean).mean()),
    )


def _judged(
    engine: Engine, labelled: LabelledRows, sampling: Sampling, made: Prediction
) -> dict[str, float | None]:
    order = EvaluateOrder(model="", inputs=[], calibration="none")
    judged = evaluate(engine, labelled, order, sampling, None, lambda: None, 0)
    figures: dict[str, float | None] = {"nll": judged.evaluation.report.get("nll")}
    predicted_B = vars(made).get("label_index")
    if predicted_B is not None and predicted_B.ndim == 1:  # one class a row
        is_wrong_B, entropy_B = predicted_B != labelled.truths, _figures(made)[1]
        figures["auroc_errors"] = auroc(entropy_B[~is_wrong_B], entropy_B[is_wrong_B])
    if labelled.ood_inputs is not None:
        strange = engine.predict(labelled.ood_inputs, sampling=sampling)
        figures["auroc_strange"] = auroc(_figures(made)[0], _figures(strange)[0])
    return figures


def _figures(made: Prediction) -> tuple[Floats, Floats]:
    """The epistemic figure and the total one, of every row or output."""
    epistemic, total = next(pair for pair in _FIGURES if hasattr(made, pair[0]))
    return np.ravel(getattr(made, epistemic)), np.ravel(getattr(made, total))
