"""Which networks answer a request: the one that its path names, or the members of an ensemble.

Members are taken in ascending order of their numbers, so that the same set gives the same answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

from torch import Tensor

from dubito.engine import Engine, Ensemble, Sampling
from dubito.engine.ensemble import check_agreement, check_members, numbers_per_row
from dubito.models.library import Library
from dubito.registry import VersionFact
from dubito_nn.manifest_reader import manifest_from_json

Predictor: TypeAlias = Engine | Ensemble


def find_members(
    library: Library, model: str, references: Sequence[int | str] | None
) -> tuple[VersionFact, ...]:
    """The versions that a request names as members; none where it names none.

    Args:
        library: where they are looked up.
        model: whose versions they are.
        references: numbers or aliases.

    Raises:
        InputError: too few or too many, one twice, or members that do not agree.
        NotFoundError: one does not exist.
    """
    if references is None:
        return ()
    check_members(range(len(references)))  # counted before they are looked up
    found = [library.version(model, str(reference)) for reference in references]
    check_members([version.number for version in found])
    members = sorted(found, key=lambda version: version.number)
    check_agreement(
        [(f"version {one.number}", manifest_from_json(one.manifest), one.digest) for one in members]
    )
    return tuple(members)


def predictor(library: Library, version: VersionFact, members: Sequence[VersionFact]) -> Predictor:
    """The engine of a version, or the ensemble of its fellow versions.

    Raises:
        InputError: the members do not agree.
        BundleRefusedError: one cannot be run here.
    """
    if not members:
        return library.engine(version)
    return Ensemble(tuple(library.engine(member) for member in members))


def count_networks(engine: Predictor) -> int:
    """How many networks a row goes through."""
    return len(engine.members) if isinstance(engine, Ensemble) else 1


def num_values(
    rows: int, engine: Predictor, sampling: Sampling, inputs: Mapping[str, Tensor] | None = None
) -> int:
    """Numbers that all passes over the rows make.

    Args:
        rows: how many.
        engine: of the version, or of several.
        sampling: how many passes.
        inputs: rows of the same shape; None: as made-up rows are.
    """
    per_row = numbers_per_row(engine, inputs)
    return rows * per_row * sampling.num_returned * count_networks(engine)
