"""What tests of the HTTP API say again and again: rows, bodies, uploads, predictions."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

NUM_FEATURES = 4
ANIMALS = "/v1/models/animals"


def normals(count: int, seed: int = 0, width: int = NUM_FEATURES) -> NDArray[np.float32]:
    """Rows of standard normal numbers, the same for the same seed."""
    return np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)


def npy(
    array: ArrayLike, version: tuple[int, int] | None = None, *, allow_pickle: bool = False
) -> bytes:
    """The bytes of a `.npy` file."""
    file = io.BytesIO()
    np.lib.format.write_array(file, np.asarray(array), version, allow_pickle=allow_pickle)
    return file.getvalue()


def npz(**arrays: Any) -> bytes:
    """The bytes of a compressed `.npz` file."""
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def upload(client: httpx.Client, model: str, path: Path) -> httpx.Response:
    """Send a bundle."""
    return client.post(
        f"/v1/models/{model}/versions",
        content=path.read_bytes(),
        headers={"Content-Type": "application/octet-stream"},
    )


def predicted(client: httpx.Client, rows: NDArray[np.float32], **fields: Any) -> dict[str, Any]:
    """What `animals` answers to rows as JSON."""
    reply = client.post(f"{ANIMALS}/predict", json={"inputs": rows.tolist(), **fields})
    assert reply.status_code == 200, reply.text
    answer: dict[str, Any] = reply.json()
    return answer


def agree(known: object, found: object, where: str = "reply", **tolerance: float) -> None:
    """Same fields and words; numbers within the tolerance that `pytest.approx` takes."""
    if isinstance(known, dict) and isinstance(found, dict):
        assert known.keys() == found.keys(), where
        for key in known:
            agree(known[key], found[key], f"{where}.{key}", **tolerance)
    elif isinstance(known, list) and isinstance(found, list):
        assert len(known) == len(found), where
        for place, pair in enumerate(zip(known, found, strict=True)):
            agree(*pair, f"{where}[{place}]", **tolerance)
    elif isinstance(known, float) and isinstance(found, float):
        assert found == pytest.approx(known, **tolerance), where
    elif where.endswith(".verdict"):  # text with rounded numbers behind the colon
        assert str(known).split(":")[0] == str(found).split(":")[0], where
    else:
        assert known == found, where
