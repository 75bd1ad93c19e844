"""What the backend asks of a Dubito server, and what it makes of its refusals."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from labelling import Json


class BackendError(Exception):
    """Answered as JSON with a status; Label Studio shows its text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Network:
    """A version of a model, as Dubito describes it."""

    model: str
    version: int
    classes: tuple[str, ...]
    shape: tuple[int, ...]

    @property
    def name(self) -> str:
        """What Label Studio calls it."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True)
class Answer:
    """What Dubito says of rows.

    Args:
        labels: the most probable classes.
        probabilities: of these classes, mean over the passes.
        mutual_information: disagreement of the passes, nats.
        predictive_entropy: of the mean, nats.
    """

    labels: list[str]
    probabilities: list[float]
    mutual_information: list[float]
    predictive_entropy: list[float]

    def certainty(self, row: int, score: str, num_classes: int) -> float:
        """From 0, label it first, to 1; measures over their bound, log C."""
        if score == "confidence":
            return self.probabilities[row]
        measure: list[float] = getattr(self, score)
        return min(max(1 - measure[row] / math.log(num_classes), 0.0), 1.0)


class Dubito:
    """The Dubito server, as far as the backend asks it."""

    def __init__(self, address: str, key: str | None) -> None:
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._client = httpx.Client(base_url=address, headers=headers, timeout=90)
        self._address = address

    @asynccontextmanager
    async def lifespan(self, app: object) -> AsyncIterator[None]:
        """Close the connections when the backend ends."""
        yield
        self._client.close()

    def network(self, model: str) -> Network:
        """The version that answers for a model now.

        Raises:
            BackendError: There is no such model, or it is no classification of one input.
        """
        page = self._asked("GET", f"/v1/models/{model}/versions/default")
        manifest = page["manifest"]
        inputs = manifest["inputs"]
        if page["task"] != "classification" or len(inputs) != 1:
            raise BackendError(
                422,
                f"expected a classification of one input, got `{model}`, a {page['task']} of "
                f"{len(inputs)}: name another model",
            )
        shape = tuple(inputs[0]["shape"])
        return Network(model, page["version"], tuple(manifest["classes"]), shape)

    def predict(self, network: Network, rows: list[list[object]]) -> Answer:
        """Classes and measures of some rows."""
        wanted = ["label", "mean", "mutual_information", "predictive_entropy"]
        path = f"/v1/models/{network.model}/versions/{network.version}/predict"
        found = self._asked("POST", path, {"inputs": rows, "outputs": wanted})["outputs"]
        return Answer(
            found["label"],
            [max(mean) for mean in found["mean"]],
            found["mutual_information"],
            found["predictive_entropy"],
        )

    def _asked(self, method: str, path: str, body: Json | None = None) -> dict[str, Any]:
        try:
            reply = self._client.request(method, path, json=body)
        except httpx.HTTPError as error:
            raise BackendError(
                502,
                f"expected a Dubito server at {self._address}, got {type(error).__name__}: start it"
                " with `dubito serve`, or name its address with --dubito",
            ) from error
        if reply.is_success:
            page: dict[str, Any] = reply.json()
            return page
        try:
            detail = reply.json()["detail"]
        except (ValueError, KeyError):
            detail = f"status {reply.status_code}"
        status = reply.status_code if reply.status_code in (404, 413, 422, 429, 503) else 502
        raise BackendError(status, f"Dubito: {detail}")
