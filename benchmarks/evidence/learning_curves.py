"""Learning curves of active learning as a picture, beside those that were published."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

Curve = tuple[Sequence[int], Sequence[float]]  # labels beyond the first ones, accuracies
_COLOURS = {"batchbald": "tab:blue", "bald": "tab:orange", "random": "tab:gray"}
_PUBLISHED = {"batchbald": "mnist_multibald_bald_k100_b10", "bald": "bald_20"}


def draw(
    curves: Mapping[str, Sequence[Curve]], references: Mapping[str, Curve], path: Path
) -> None:
    """Write the curves of each strategy, a line per seed, and published ones, as SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "dubito"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7, 4.2), layout="constrained")
    for strategy, mine in curves.items():
        for place, (labels, accuracies) in enumerate(mine):
            axes.plot(
                labels,
                accuracies,
                color=_COLOURS[strategy],
                alpha=0.8,
                label=None if place else f"{strategy}, {len(mine)} seeds",
            )
    for strategy, (labels, median) in references.items():
        colour = _COLOURS[strategy]
        axes.plot(labels, median, "--", color=colour, label=f"{strategy}, published")
    axes.axhline(0.9, color="black", linewidth=0.5)
    axes.set(xlabel="labels beyond the first 20", ylabel="accuracy, test rows", ylim=(0.4, 1))
    axes.legend(loc="lower right", frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def published(data: Path) -> dict[str, Curve]:
    """Median curves of the authors' runs, where their file is there."""
    path = data / "ref_batchbald_curves" / "batchbald_mnist_curves.json"
    if not path.exists():
        return {}
    known = json.loads(path.read_text())
    curves: dict[str, Curve] = {}
    for strategy, name in _PUBLISHED.items():
        many = known[name]["curves_[labels,acc,nll]"]
        labels = sorted({int(point[0]) for curve in many for point in curve})
        median = [
            float(np.median([point[1] for curve in many for point in curve if point[0] == count]))
            for count in labels
        ]
        curves[strategy] = ([count - known[name]["n_initial"] for count in labels], median)
    return curves
