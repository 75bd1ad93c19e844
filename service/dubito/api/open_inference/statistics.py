"""What inferences took, by version; and those that failed, where their version exists."""

from __future__ import annotations

from contextlib import suppress

from dubito.api.open_inference.pages import ModelStatisticsEntry, StatisticsPage
from dubito.api.open_inference.request import Addressee
from dubito.application import Application
from dubito.errors import DubitoError
from dubito.keys import Caller
from dubito.registry import VersionFact
from dubito.serving.inferences import Course


def statistics(
    application: Application,
    caller: Caller,
    model: str | None = None,
    reference: str | None = None,
) -> StatisticsPage:
    """The statistics of all models that a caller sees, of one, or of one version.

    Raises:
        NotFoundError: it does not exist.
    """
    entries = [
        ModelStatisticsEntry.of_tally(
            version.model,
            version.number,
            application.inferences.tally(version.model, version.number),
        )
        for version in _versions(application, model, reference)
        if caller.sees_model(version.model)
    ]
    return StatisticsPage(model_stats=entries)


def count_failure(application: Application, to: Addressee, course: Course) -> None:
    """Count an inference that was not answered; one of no version belongs to nobody."""
    with suppress(DubitoError):
        version = application.library.version(to.model, to.version)
        application.inferences.failed(version.model, version.number, course)


def count_refusal(application: Application, model: str, reference: str) -> None:
    """Count an inference that was refused before its body, by what is in memory alone."""
    held = application.library.at_hand(model, reference)
    if held is not None:
        application.inferences.failed(model, held[0].number, Course())


def _versions(
    application: Application, model: str | None, reference: str | None
) -> tuple[VersionFact, ...]:
    if model is None:
        models = application.registry.models()
        return tuple(version for one in models for version in one.versions)
    if reference is None:
        return application.registry.model(model).versions
    return (application.library.version(model, reference),)
