"""Fits of further methods over HTTP."""

from __future__ import annotations

from typing import Any

import httpx

from .test_jobs import finished


def fitted(client: httpx.Client, path: str, method: str, **body: Any) -> dict[str, Any]:
    """The result of the job that fits a method to a version."""
    reply = client.post(f"{path}/fit", json={"method": method, **body})
    assert reply.status_code == 202, reply.text
    page = finished(client, reply.json()["job"])
    assert page["state"] == "succeeded", page
    result: dict[str, Any] = client.get(str(page["result"])).json()
    return result
