"""Pictures of two records, as SVG beside them.

python benchmarks/evidence/pictures.py

fashion.svg         confidence against accuracy, and the NLL under rotation and noise
uci_regression.svg  log-likelihood of each set, published and here
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matplotlib import rc_context
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from record import HERE
from uci_regression import REFERENCE

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, ORANGE = "#2a6f97", "#e07a1f"
STYLE = {"font.size": 9, "svg.hashsalt": "dubito", "axes.grid": True, "axes.axisbelow": True}


def main(arguments: list[str] | None = None) -> list[Path]:
    """Draw what there are records of; return the files."""
    options = _parser().parse_args(arguments)
    drawn = []
    for name, draw, panels in (("fashion", _fashion, 2), ("uci_regression", _uci, 4)):
        record = options.results / f"{name}{'_quick' if options.quick else ''}.json"
        if not record.exists():
            continue
        figures = json.loads(record.read_text())["figures"]
        with rc_context(STYLE):
            figure = Figure(figsize=(8.4, 2.6), layout="constrained")
            FigureCanvasSVG(figure)
            ratios = [1, 2] if panels == 2 else [1] * panels
            draw(figure.subplots(1, panels, width_ratios=ratios), figures)
            drawn.append(record.with_suffix(".svg"))
            figure.savefig(drawn[-1], format="svg", metadata={"Date": None})
    return drawn


def _fashion(axes: list[Axes], figures: Mapping[str, Any]) -> None:
    left, right = axes
    bins = [one for one in figures["bins"] if one["count"]]
    left.plot([0, 1], [0, 1], color="grey", linewidth=0.8)
    left.plot([one["confidence"] for one in bins], [one["accuracy"] for one in bins], "o-", c=BLUE)
    ece = figures["test"]["mc"]["after"]["ece"]
    left.set(xlabel="confidence", ylabel="accuracy", title=f"ECE {ece:.3f}")
    labels = list(figures["shifts"])
    for way, label, colour, side in (
        ("point", "one pass", ORANGE, -0.2),
        ("mc", "mean of the passes", BLUE, 0.2),
    ):
        nll = [figures["shifts"][shift][way]["after"]["nll"] for shift in labels]
        places = [place + side for place in range(len(labels))]
        right.bar(places, nll, 0.4, color=colour, label=label)
    right.set_xticks(range(len(labels)), [one.replace(" by ", "\n") for one in labels], fontsize=7)
    right.set(ylabel="NLL, nats", title="rotation and noise, both calibrated")
    right.legend(frameon=False)


def _uci(axes: list[Axes], figures: Mapping[str, Any]) -> None:
    for axis, (name, found) in zip(axes, figures["mean"].items(), strict=False):
        _, _, published, published_error = REFERENCE[name]
        style = {"fmt": "o", "capsize": 3}
        axis.errorbar([0], [published], [published_error], color=ORANGE, **style)
        axis.errorbar(
            [1], [found["log_likelihood"]], [found["log_likelihood_error"]], color=BLUE, **style
        )
        axis.set(title=f"{name}, {found['splits']:.0f} splits", xlim=(-0.5, 1.5))
        axis.set_xticks([0, 1], ["published", "here"])
    axes[0].set_ylabel("log-likelihood, nats")


def _parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    made.add_argument("--results", type=Path, default=HERE / "results", help="where records are")
    made.add_argument("--quick", action="store_true", help="of smoke runs")
    return made


if __name__ == "__main__":
    main()
