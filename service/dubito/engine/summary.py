"""A plan in few words: how often each part runs, and which forms may take the place of masks."""

from __future__ import annotations

from dataclasses import dataclass

from dubito.engine.running.passes import Passes


@dataclass(frozen=True)
class PlanPart:
    """The operators that run equally often.

    Args:
        name: `static`, `prefix`, `masks` or `suffix`.
        runs: how often they run.
        operators: number of them.
        alive_bytes: of values alive at once, of one row (of the suffix: of one row and sample).
    """

    name: str
    runs: str
    operators: int
    alive_bytes: int | None


@dataclass(frozen=True)
class PlanForm:
    """A form that may take the place of dense masks.

    Args:
        name: of the form.
        nodes: the first and the last that it takes the place of.
        from_rows: number of rows from which it is used; None: never.
    """

    name: str
    nodes: tuple[str, str]
    from_rows: int | None


@dataclass(frozen=True)
class PlanSummary:
    """Parts in the order in which they run, and forms."""

    parts: tuple[PlanPart, ...]
    forms: tuple[PlanForm, ...]


def summary(passes: Passes) -> PlanSummary:
    """Sum up a plan."""
    plan = passes.execution.plan
    parts = tuple(
        PlanPart(name, runs, sum(node.op.startswith("aten.") for node in nodes), alive)
        for name, runs, nodes, alive in (
            ("static", "once", plan.static, None),
            ("prefix", "once per row", plan.prefix, plan.prefix_row_bytes),
            ("masks", "once per sample, then kept", plan.masks, None),
            ("suffix", "once per row and sample", plan.suffix, plan.suffix_row_bytes),
        )
    )
    forms = tuple(
        PlanForm(
            type(option.form).__name__.lower(),
            (str(option.form.nodes[0]), str(option.form.nodes[-1])),
            option.least_rows(),
        )
        for option in passes.options
    )
    return PlanSummary(parts, forms)
