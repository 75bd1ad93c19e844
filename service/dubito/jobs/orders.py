"""What a job asked for, as its row keeps it, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict

from dubito.acquisition import Acquisition
from dubito.asked import PredictOrder
from dubito.engine import Inputs, Sampling
from dubito.registry import JobFact
from dubito.serving.selecting import SelectOrder


def settled(
    sampling: Sampling, members: Sequence[int] | None, pool_format: str, **others: object
) -> dict[str, object]:
    """An order in plain values.

    Args:
        sampling: all choices, made.
        members: versions of an ensemble.
        pool_format: of the pool's object.
        others: what the kind of job needs.
    """
    return {
        "sampling": asdict(sampling),
        "members": None if members is None else list(members),
        "pool_format": pool_format,
        **others,
    }


def sampling_of(fact: JobFact) -> Sampling:
    """The sampling of a job."""
    stored = fact.order["sampling"]
    assert isinstance(stored, Mapping)
    return Sampling(**stored)


def order_of(fact: JobFact) -> PredictOrder:
    """What a prediction asked for, without its rows."""
    order = fact.order
    coverage, outputs = order["coverage"], order["outputs"]
    assert coverage is None or isinstance(coverage, float | int)
    assert outputs is None or isinstance(outputs, list)
    return PredictOrder(
        model=fact.model,
        inputs=[],
        version=str(fact.version),
        coverage=coverage,
        calibration="none" if order["calibration"] == "none" else "active",
        outputs=outputs,
    )


def select_order_of(fact: JobFact, targets: Inputs | None) -> SelectOrder:
    """What a selection asked for, without its rows.

    Args:
        fact: the job.
        targets: rows that `epig` cares about.
    """
    stored = fact.order["acquisition"]
    assert isinstance(stored, Mapping)
    acquisition = Acquisition(**{**stored, "exclude": tuple(stored["exclude"])})
    return SelectOrder(fact.model, [], acquisition, version=str(fact.version), targets=targets)


def members_of(fact: JobFact) -> tuple[int, ...] | None:
    """The versions of an ensemble; None where it is none."""
    members = fact.order["members"]
    assert members is None or isinstance(members, list)
    return None if members is None else tuple(members)
