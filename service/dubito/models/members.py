"""Which networks answer a request: the one that its path names, or the members of an ensemble.

Members are taken in ascending order of their numbers, so that the same set gives the same answer.
"""

from __future__ import annotations

from collections.abc import Sequence

from dubito.engine import Ensemble
from dubito.engine.ensemble import check_agreement, check_members
from dubito.engine.network import Network
from dubito.models.library import Library
from dubito.registry import VersionFact
from dubito_nn.manifest_reader import manifest_from_json


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
    versions = [library.version(model, str(reference)) for reference in references]
    check_members([version.number for version in versions])
    members = sorted(versions, key=lambda version: version.number)
    check_agreement(
        [
            (f"version {member.number}", manifest_from_json(member.manifest), member.digest)
            for member in members
        ]
    )
    return tuple(members)


def predictor(library: Library, version: VersionFact, members: Sequence[VersionFact]) -> Network:
    """The engine of a version, or the ensemble of its fellow versions.

    Raises:
        InputError: the members do not agree.
        BundleRefusedError: one cannot be run here.
    """
    if not members:
        return library.engine(version)
    return Ensemble(tuple(library.engine(member) for member in members))
