"""The report as one HTML file that needs nothing else: no address, no script.

Flow: evaluations by heading → `Page` → HTML, which is well-formed XML too. Equal
pages give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from dubito import __version__
from dubito.errors import InputError
from dubito.report import words
from dubito.report.evaluation import Evaluation
from dubito.report.pictures import check_can_draw, pictures
from dubito.report.statistics import NUM_RESAMPLES, Interval

_TEMPLATE = "page.html.j2"
_MOST_CLASSES = 30  # of a table that a page can show


@dataclass(frozen=True, slots=True)
class Page:
    """What one file shows.

    Args:
        title: what was judged.
        facts: with what, by name.
        reports: one evaluation, or two to compare, by heading.
        coverage: that was asked of sets and intervals, where there are any.
        alpha: false-alarm rate that was asked of the flag, where there is one.
        warnings: what a reader should know.
        promises: what was promised and what came, a sentence each.
        classes: their names, for the table of what is taken for what.
    """

    title: str
    facts: Mapping[str, str]
    reports: Mapping[str, Evaluation]
    coverage: float | None = None
    alpha: float | None = None
    warnings: Sequence[str] = ()
    promises: Sequence[str] = ()
    classes: Sequence[str] = ()


def check_can_write(path: Path) -> None:
    """Refuse now what would fail after the work.

    Raises:
        InputError: matplotlib is not installed, or there is no such folder.
    """
    check_can_draw()
    if not path.parent.is_dir() or path.is_dir():
        raise InputError(
            f"`report` expects a file in a folder that exists, got {path}: make the folder first"
        )


def write(page: Page, path: Path) -> None:
    """Write the page as one HTML file.

    Raises:
        InputError: matplotlib is not installed.
    """
    path.write_text(html(page), encoding="utf-8")


def html(page: Page) -> str:
    """Return the text of the HTML file.

    Raises:
        InputError: matplotlib is not installed.
    """
    text = resources.files(__package__).joinpath(_TEMPLATE).read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True,
        keep_trailing_newline=True,
        lstrip_blocks=True,
        trim_blocks=True,
        undefined=StrictUndefined,
    )
    curves = {name: evaluation.curves for name, evaluation in page.reports.items()}
    return environment.from_string(text).render(
        page=page,
        groups=_groups(page),
        pictures=[(*words.PICTURES[name], Markup(svg)) for name, svg in pictures(curves).items()],
        confusions=[
            (name, evaluation.confusion)
            for name, evaluation in page.reports.items()
            if 0 < len(evaluation.confusion) == len(page.classes) <= _MOST_CLASSES
        ],
        bins=[(name, drawn.bins) for name, drawn in curves.items() if drawn.bins],
        num_resamples=NUM_RESAMPLES,
        number=number,
        version=__version__,
    )


def number(value: float | None) -> str:
    """Return a number with four significant digits, or a dash for None."""
    return "–" if value is None else f"{value:.4g}"


def _groups(page: Page) -> dict[str, list[tuple[str, str, str, list[tuple[str, str]]]]]:
    """Name, label, words, and a value with its interval per report, by group."""
    names = dict.fromkeys(
        name for evaluation in page.reports.values() for name in evaluation.report
    )
    groups = dict(words.GROUPS)
    others = {name: (name, "") for name in names if name not in words.known()}
    if others:
        groups["Others"] = others
    return {
        heading: lines
        for heading, group in groups.items()
        if (
            lines := [
                (
                    name,
                    label,
                    told,
                    [_cell(evaluation, name) for evaluation in page.reports.values()],
                )
                for name, (label, told) in group.items()
                if name in names
            ]
        )
    }


def _cell(evaluation: Evaluation, name: str) -> tuple[str, str]:
    return number(evaluation.report.get(name)), _shown(evaluation.intervals.get(name))


def _shown(interval: Interval | None) -> str:
    return "" if interval is None else f"{number(interval[0])} to {number(interval[1])}"
