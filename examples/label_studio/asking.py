"""What the backend asks of a Dubito server, and what it makes of its refusals."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Mapping, Sequence
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
    """A version of a model, as Dubito describes it.

    Args:
        model: its name.
        version: its number.
        classes: names of the C classes.
        shape: of one row.
        dtype: of its numbers, such as `float32` or `int64`.
    """

    model: str
    version: int
    classes: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str

    @property
    def name(self) -> str:
        """What Label Studio calls it."""
        return f"{self.model}/{self.version}"


@dataclass(frozen=True)
class Answer:
    """What Dubito says of a row.

    Args:
        label: the most probable class.
        confidence: its probability, mean over the passes.
        mutual_information: disagreement of the passes, nats.
        predictive_entropy: of the mean, nats.
    """

    label: str
    confidence: float
    mutual_information: float
    predictive_entropy: float

    def certainty(self, score: str, num_classes: int) -> float:
        """From 0, label it first, to 1; measures over their bound, log C."""
        if score == "confidence":
            return self.confidence
        measure: float = getattr(self, score)
        return min(max(1 - measure / math.log(num_classes), 0.0), 1.0)


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
            BackendError: There is no such model, or it gives no single class to a row of one
                input and one size.
        """
        page = self._asked("GET", f"/v1/models/{model}/versions/default")
        manifest = page["manifest"]
        misfit = _misfit(manifest)
        if misfit is not None:
            raise BackendError(
                422,
                "expected a classification of one input, with one class for a row and rows of one "
                f"size, got `{model}`, {misfit}: name another model with --model or --project",
            )
        [taken] = manifest["inputs"]
        classes, shape = tuple(manifest["classes"]), tuple(taken["shape"])
        return Network(model, page["version"], classes, shape, taken["dtype"])

    def predict(
        self, network: Network, rows: Sequence[list[object]]
    ) -> list[Answer | BackendError]:
        """Class and measures of each row, or why there are none.

        Rows that are refused together are asked in halves, until those at fault are alone.
        """
        wanted = ["label", "mean", "mutual_information", "predictive_entropy"]
        path = f"/v1/models/{network.model}/versions/{network.version}/predict"
        try:
            found = self._asked("POST", path, {"inputs": rows, "outputs": wanted})["outputs"]
        except BackendError as error:
            if error.status != httpx.codes.UNPROCESSABLE_ENTITY:
                raise
            if len(rows) == 1:
                return [error]
            half = len(rows) // 2
            return self.predict(network, rows[:half]) + self.predict(network, rows[half:])
        return list(map(_answer, *(found[name] for name in wanted)))

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


def _misfit(manifest: Mapping[str, Any]) -> str | None:
    """What a network is, where it gives no single class to a row of one input and one size."""
    inputs, axis = manifest["inputs"], manifest.get("class_axis")
    if manifest["task"] != "classification":
        return f"whose task is {manifest['task']}"
    if axis is not None:
        return f"with a class at every position (axis {axis} of its output)"
    if len(inputs) != 1:
        return f"of {len(inputs)} inputs"
    free = [size for size in inputs[0]["shape"] if isinstance(size, str)]
    return f"with rows of any {', '.join(free)}" if free else None


def _answer(
    label: str | None, mean: list[float | None], *measures: float | None
) -> Answer | BackendError:
    """A row of the reply; null is what was not finite."""
    known = [number for number in (*mean, *measures) if number is not None]
    if label is None or len(known) < len(mean) + len(measures):
        return BackendError(
            422,
            "expected numbers in the range that the network was trained on, got some on which it "
            "overflows: send them in the units of its training",
        )
    return Answer(label, max(known[: len(mean)]), *known[len(mean) :])
