"""The form of an answer over HTTP."""

import httpx
import pytest

from .conftest import NUM_FEATURES


@pytest.mark.parametrize(
    ("accept", "sent"),
    [
        ("application/x-npz;q=0, application/json", "json"),
        ("application/x-npz;q=0", "json"),
        ("application/x-npz;q=0.1, application/json", "json"),
        ("application/json;q=0.5, application/x-npz", "x-npz"),
        ("application/json; q=0.5 , application/x-npy; q=0.9", "x-npy"),
        ("*/*, application/x-npz;q=0.1", "json"),
        ("*/*;q=0.8, application/x-npz", "x-npz"),
        ("application/*;q=0.2, application/x-npz;q=0.3", "x-npz"),
        ("application/x-npz;q=nan, application/json;q=0.001", "json"),
        ("text/html", "json"),
    ],
)
def test_the_weights_of_accept_choose_the_form(ready: httpx.Client, accept: str, sent: str) -> None:
    body = {"inputs": [[0.0] * NUM_FEATURES], "outputs": ["mean"]}
    reply = ready.post("/v1/models/animals/predict", json=body, headers={"Accept": accept})
    assert (reply.status_code, reply.headers["Content-Type"]) == (200, f"application/{sent}")
