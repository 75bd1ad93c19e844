"""The curves of a report as SVG that a page can hold: its colours and fonts are the page's.

Flow: `Curves` by heading → matplotlib → SVG without metadata, identifiers of its own, and colours
replaced by the page's variables, so that a dark page and a printed one are readable. The same
curves give the same text. matplotlib is an extra.
"""

from __future__ import annotations

import importlib.util
import io
import re
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from dubito.errors import InputError
from dubito.report.curves import Curves, Line, ScoreCounts
from dubito.report.reliability import likely

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ByHeading: TypeAlias = Mapping[str, Curves]

_INK, _FAINT, _FILL, _STRANGE = "#010101", "#020202", "#030303", "#040404"
_LINES = ("#050505", "#060606")
"""Of the raw figures and of the calibrated ones; a single report takes the last."""

_VARIABLES = {
    _INK: "ink",
    _FAINT: "faint",
    _FILL: "fill",
    _STRANGE: "strange",
    _LINES[0]: "raw",
    _LINES[1]: "own",
}
_STYLES = ("--", "-")
_RATIOS = (3, 1)


def check_can_draw() -> None:
    """Refuse now what would fail after the work.

    Raises:
        InputError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "a report with pictures expects matplotlib, which is not installed: pip install "
            "'dubito[pictures]' (in a clone: .venv/bin/pip install -e '.[pictures]'), or leave "
            "out --report"
        )


def pictures(curves: ByHeading) -> dict[str, str]:
    """SVG by name of the picture; those that the curves do not hold are left out.

    Args:
        curves: of one report, or of two to compare, by heading.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_can_draw()
    last = list(curves.values())[-1]
    drawn: dict[str, str] = {}
    if last.bins:
        drawn["reliability"] = _svg(lambda figure: _reliability(figure, curves), "reliability")
    if last.risk_coverage is not None:
        drawn["risk_coverage"] = _svg(lambda figure: _risk(figure, curves), "risk")
    if last.coverage is not None and last.pit:
        drawn["coverage"] = _svg(lambda figure: _coverage(figure, curves), "coverage")
    elif last.coverage is not None:
        drawn["levels"] = _svg(lambda figure: _levels(figure, curves), "levels")
    if last.sparsification is not None:
        drawn["sparsification"] = _svg(lambda figure: _sparsification(figure, curves), "sparse")
    scores = last.scores
    if scores is not None:
        drawn["scores"] = _svg(lambda figure: _scores(figure, scores), "scores")
    return drawn


def _reliability(figure: Figure, curves: ByHeading) -> None:
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=_RATIOS)
    upper.plot([0, 1], [0, 1], ":", color=_INK, linewidth=1)
    for index, (heading, report) in _numbered(curves):
        filled = [each for each in report.bins if each.accuracy is not None]
        color, style = _LINES[index], _STYLES[index]
        points = [each.confidence or 0.0 for each in filled], [each.accuracy for each in filled]
        upper.plot(*points, style, marker="o", markersize=4, color=color, label=heading)
        ends = np.array([likely(each.accuracy or 0.0, each.count) for each in filled])
        upper.vlines(points[0], *ends.reshape(-1, 2).T, color=color, linewidth=0.8)
        edges = [each.lower for each in report.bins] + [1.0]
        counts = [each.count for each in report.bins]
        if index == len(_LINES) - 1:
            lower.stairs(counts, edges, fill=True, color=_FILL)
        lower.stairs(counts, edges, color=color, linestyle=style)
    upper.set(xlim=(0, 1), ylim=(0, 1.02), ylabel="accuracy")
    lower.set(xlabel="confidence, the largest probability", ylabel="rows")
    _legend(upper, curves)


def _risk(figure: Figure, curves: ByHeading) -> None:
    axes = figure.subplots()
    for index, (heading, report) in _numbered(curves):
        if report.risk_coverage is not None:
            _draw(axes, report.risk_coverage, index, heading)
    axes.set(xlim=(0, 1), xlabel="share of rows kept, the most confident", ylabel="error rate")
    axes.set_ylim(bottom=0)
    _legend(axes, curves)


def _coverage(figure: Figure, curves: ByHeading) -> None:
    upper, lower = figure.subplots(2, 1, height_ratios=_RATIOS)
    upper.plot([0, 1], [0, 1], ":", color=_INK, linewidth=1)
    for index, (heading, report) in _numbered(curves):
        if report.coverage is not None:
            _draw(upper, report.coverage, index, heading)
        if report.pit:
            edges = np.linspace(0, 1, len(report.pit) + 1)
            share = np.array(report.pit) / sum(report.pit) * len(report.pit)
            if index == len(_LINES) - 1:
                lower.stairs(share, edges, fill=True, color=_FILL)
            lower.stairs(share, edges, color=_LINES[index], linestyle=_STYLES[index])
    upper.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="level of the central interval")
    upper.set_ylabel("targets inside")
    lower.axhline(1, color=_INK, linestyle=":", linewidth=1)
    lower.set(xlim=(0, 1), xlabel="F(y), the mixture's share below the target", ylabel="density")
    _legend(upper, curves)


def _levels(figure: Figure, curves: ByHeading) -> None:
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], ":", color=_INK, linewidth=1)
    for index, (heading, one) in _numbered(curves):
        if one.coverage is not None:
            _draw(axes, one.coverage, index, heading)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="level", ylabel="targets at or below")
    _legend(axes, curves)


def _sparsification(figure: Figure, curves: ByHeading) -> None:
    axes = figure.subplots()
    for index, (heading, report) in _numbered(curves):
        if report.sparsification is not None:
            _draw(axes, report.sparsification, index, heading)
    oracle = list(curves.values())[-1].oracle
    if oracle is not None:
        axes.plot(oracle.x, oracle.y, ":", color=_INK, linewidth=1.2, label="best order")
    axes.set(xlim=(0, 1), xlabel="share of rows left out", ylabel="RMSE / RMSE of all")
    axes.set_ylim(bottom=0)
    _put_legend(axes)


def _scores(figure: Figure, scores: ScoreCounts) -> None:
    axes = figure.subplots()
    axes.stairs(_shares(scores.counts), scores.edges, fill=True, color=_FILL)
    axes.stairs(_shares(scores.counts), scores.edges, color=_LINES[1], label="labelled rows")
    if scores.ood_counts is not None:
        axes.stairs(
            _shares(scores.ood_counts),
            scores.edges,
            color=_STRANGE,
            linestyle="--",
            linewidth=1.6,
            label="out-of-distribution rows",
        )
    if scores.threshold is not None:
        axes.axvline(scores.threshold, color=_INK, linewidth=1.2, label="threshold")
    if scores.is_log:
        axes.set_xscale("log")
    axes.set(xlabel=scores.name.replace("_", " "), ylabel="share of rows")
    _put_legend(axes)


def _shares(counts: tuple[int, ...]) -> list[float]:
    return [count / max(sum(counts), 1) for count in counts]


def _numbered(curves: ByHeading) -> list[tuple[int, tuple[str, Curves]]]:
    """The reports with the place of their colour: one alone takes the last."""
    first = len(_LINES) - len(curves)
    return [(first + index, pair) for index, pair in enumerate(curves.items())]


def _draw(axes: Axes, line: Line, index: int, heading: str) -> None:
    axes.plot(line.x, line.y, _STYLES[index], color=_LINES[index], linewidth=1.6, label=heading)


def _legend(axes: Axes, curves: ByHeading) -> None:
    if len(curves) > 1:
        _put_legend(axes)


def _put_legend(axes: Axes) -> None:
    """In one line above the axes, where it hides nothing."""
    axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.01), ncols=3, borderaxespad=0.0)


def _svg(draw: Callable[[Figure], None], name: str) -> str:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with _style():
        figure = Figure(figsize=(5.0, 3.9), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    return _inlined(file.getvalue(), name)


def _style() -> AbstractContextManager[None]:
    from matplotlib import rc_context

    return rc_context(
        {
            "axes.edgecolor": _FAINT,
            "axes.grid": True,
            "axes.labelcolor": _INK,
            "axes.spines.right": False,
            "axes.spines.top": False,
            "font.size": 9.5,
            "grid.color": _FAINT,
            "grid.linewidth": 0.5,
            "legend.frameon": False,
            "legend.fontsize": 9,
            "lines.linewidth": 1.6,
            "svg.fonttype": "none",  # text stays text, in the font of the page
            "svg.hashsalt": "dubito",
            "text.color": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
        }
    )


def _inlined(svg: str, name: str) -> str:
    """The `svg` element alone, for a page that holds several of them."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\s(?:xmlns(?::\w+)?|version)="[^"]*"', "", svg)
    svg = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", svg, count=1)
    svg = re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", svg, count=1)
    svg = svg.replace("xlink:href=", "href=")
    used = set(re.findall(r'(?:href="|url\()#([^")]+)', svg))
    svg = re.sub(
        r'\sid="([^"]*)"',
        lambda match: f' id="{name}-{match[1]}"' if match[1] in used else "",
        svg,
    )
    svg = re.sub(r'(href="|url\()#', rf"\g<1>#{name}-", svg)
    svg = re.sub(r"font-family: [^;\"]*;?\s?", "", svg)
    svg = re.sub(r"font: ([\d.]+px) [^;\"]*", r"font-size: \1", svg)
    for color, variable in _VARIABLES.items():
        svg = svg.replace(color, f"var(--{variable})")
    return svg.strip()
