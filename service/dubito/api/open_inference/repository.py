"""The model repository extension: which models are ready, and loading and unloading them."""

from __future__ import annotations

from dubito.api.open_inference.pages import IndexEntry
from dubito.application import Application
from dubito.keys import Caller
from dubito.models.library import Library
from dubito.names import DEFAULT_ALIAS
from dubito.registry import VersionFact

NAME = "dubito"
EXTENSIONS = (
    *("binary_tensor_data", "parameters", "model_repository"),
    *("model_repository(unload_dependents)", "model_configuration", "statistics"),
)


def index(
    application: Application, caller: Caller, *, only_ready: bool = False
) -> list[IndexEntry]:
    """All versions of all models that a caller sees, with their states on this server."""
    models = (model for model in application.registry.models() if caller.sees_model(model.name))
    versions = (version for model in models for version in model.versions)
    entries = [entry(application.library, version) for version in versions]
    return [one for one in entries if one.state == "READY" or not only_ready]


def entry(library: Library, version: VersionFact) -> IndexEntry:
    """The state of one version."""
    state, reason = library.state(version)
    if library.is_ready(version):
        said, reason = "READY", ""
    elif state == "loading":
        said, reason = "LOADING", ""
    else:
        said, reason = "UNAVAILABLE", reason or "unloaded"
    return IndexEntry.model_validate(
        {"name": version.model, "version": str(version.number), "state": said, "reason": reason}
    )


def is_ready(application: Application, model: str, reference: str) -> bool:
    """Whether a version is ready on a server that takes requests.

    Raises:
        NotFoundError: it does not exist.
    """
    version = application.library.version(model, reference)
    takes_requests = application.vitals.is_live() and not application.worker.is_draining
    return takes_requests and application.library.is_ready(version)


def versions(application: Application, model: str) -> list[str]:
    """Numbers of the versions of a model that answer requests."""
    known = application.registry.model(model).versions
    return [str(version.number) for version in known if version.retired_at is None]


def load(application: Application, model: str, caller: Caller) -> IndexEntry:
    """Load what the alias `default` points to."""
    page = application.library.load(model, DEFAULT_ALIAS, actor=caller.name)
    return entry(application.library, page.version)


def unload(application: Application, model: str, caller: Caller) -> IndexEntry:
    """Unload every version of a model; the entry is that of the alias `default`.

    Raises:
        ConflictError: one of them is pinned.
    """
    library = application.library
    for version in application.registry.model(model).versions:
        library.unload(model, str(version.number), actor=caller.name)
    return entry(library, library.version(model, DEFAULT_ALIAS))
