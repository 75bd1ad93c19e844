"""A study drawn: the error against T, and the error against the time to answer.

Left, both axes logarithmic, the standard error as replies state it and the actual error. Right, the
same errors over the median time of a call, one line per B. matplotlib is an extra.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from dubito.bench.study import Study
from dubito.errors import InputError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE = "#2a6f97", "#e07a1f"
_SHADES = ("#a9d6e5", "#468faf", "#014f86", "#012a4a")


def check_can_draw() -> None:
    """Refuse now what would fail after the measuring.

    Raises:
        InputError: matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise InputError(
            "a picture expects matplotlib, which is not installed: pip install "
            "'dubito[pictures]' (in a clone: .venv/bin/pip install -e '.[pictures]'), or leave "
            "out --picture"
        )


def draw(study: Study, path: Path) -> None:
    """Write an SVG picture.

    Args:
        study: what was measured.
        path: of the file.

    Raises:
        InputError: matplotlib is not installed.
    """
    check_can_draw()
    from matplotlib import rc_context
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with rc_context({"font.size": 10, "svg.hashsalt": "dubito", "axes.grid": True}):
        figure = Figure(figsize=(8.4, 3.2), layout="constrained")
        FigureCanvasSVG(figure)
        left, right = figure.subplots(1, 2, sharey=True)
        _over_samples(left, study)
        _over_time(right, study)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _over_samples(axes: Axes, study: Study) -> None:
    counts = [accuracy.num_samples for accuracy in study.accuracies]
    axes.plot(
        counts,
        [accuracy.standard_error_median for accuracy in study.accuracies],
        "o-",
        color=_BLUE,
        label="standard error, median",
    )
    axes.plot(
        counts,
        [accuracy.standard_error_max for accuracy in study.accuracies],
        "o:",
        color=_BLUE,
        label="standard error, largest",
    )
    errors = [accuracy.error for accuracy in study.accuracies if accuracy.error is not None]
    if errors:
        axes.plot(counts, errors, "s-", color=_ORANGE, label=f"error against T = {study.reference}")
    axes.set(xscale="log", yscale="log", xlabel="T", ylabel="error of the mean")
    axes.set_xticks(counts, [str(count) for count in counts])
    axes.minorticks_off()
    axes.legend(frameon=False, fontsize=8)


def _over_time(axes: Axes, study: Study) -> None:
    errors = [accuracy.standard_error_median for accuracy in study.accuracies]
    batches = sorted({latency.batch for latency in study.latencies})
    for position, batch in enumerate(batches):
        times_ms = [
            1e3 * study.at(batch, "mc", accuracy.num_samples).median_s
            for accuracy in study.accuracies
        ]
        shade = _SHADES[position % len(_SHADES)]
        axes.plot(times_ms, errors, "o-", color=shade, label=f"B = {batch}")
    axes.set(xscale="log", yscale="log", xlabel="median time of a call, ms")
    axes.legend(frameon=False, fontsize=8)
