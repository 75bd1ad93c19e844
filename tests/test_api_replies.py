"""The form of an answer over HTTP."""

import httpx

from .conftest import NUM_FEATURES

FORMS = {
    "application/x-npz;q=0, application/json": "json",
    "application/x-npz;q=0": "json",
    "application/x-npz;q=0.1, application/json": "json",
    "application/json;q=0.5, application/x-npz": "x-npz",
    "application/json; q=0.5 , application/x-npy; q=0.9": "x-npy",
    "*/*, application/x-npz;q=0.1": "json",
    "*/*;q=0.8, application/x-npz": "x-npz",
    "application/*;q=0.2, application/x-npz;q=0.3": "x-npz",
    "application/x-npz;q=nan, application/json;q=0.001": "json",
    "text/html": "json",
}


def test_the_weights_of_accept_choose_the_form(ready: httpx.Client) -> None:
    body = {"inputs": [[0.0] * NUM_FEATURES], "outputs": ["mean"]}
    sent = {}
    for accept in FORMS:
        reply = ready.post("/v1/models/animals/predict", json=body, headers={"Accept": accept})
        sent[accept] = reply.raise_for_status().headers["Content-Type"]
    assert sent == {accept: f"application/{form}" for accept, form in FORMS.items()}
