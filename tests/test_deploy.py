"""What lies in `deploy/`: Prometheus asks a server, alerts fire, panels have their figures."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from dubito.registry.database import Database
from dubito.registry.keys import KeyStore
from dubito.settings import Settings

from .conftest import Bundles, Server
from .http import ANIMALS, normals, predicted, upload

DEPLOY = Path(__file__).parent.parent / "deploy"
DASHBOARD = json.loads((DEPLOY / "dashboard.json").read_text())
RULES = yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"][0]["rules"]
WORDS = {"$__rate_interval": "30s", "$instance": ".*", "$model": ".*"}
EMPTY = {"dubito_device_memory_bytes"}  # without a GPU
Ask = Callable[[str], list[Any]]


def _program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed (Debian: prometheus)")
    return path


def _queries() -> list[str]:
    """The queries of all panels, as Grafana sends them."""
    queries = []
    for panel in DASHBOARD["panels"]:
        for target in panel["targets"]:
            query = target["expr"]
            for word, value in WORDS.items():
                query = query.replace(word, value)
            queries.append(query)
    return queries


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, bundles: Bundles) -> Iterator[str]:
    """Where Prometheus answers, which has asked a server twice, with predictions between."""
    program = _program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    server = Server(Settings(data_dir=folder / "data", num_samples=16))
    server.start()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        upload(client, "animals", bundles("first")).raise_for_status()
        rows = normals(120, seed=1)
        labels = [int(row[0] > 0) for row in rows]
        body = {"inputs": rows.tolist(), "labels": labels, "num_samples": 16, "scaling": "none"}
        fitted = client.post(f"{ANIMALS}/calibrate", json=body).raise_for_status().json()
        active = {"active": fitted["calibration"]}
        client.put(f"{ANIMALS}/calibration", json=active).raise_for_status()
        reply = predicted(client, normals(12))
        truths = [{"row": row, "label": 0} for row in range(12)]
        outcomes = {"request_id": reply["request_id"], "rows": truths}
        client.post(f"{ANIMALS}/feedback", json=outcomes).raise_for_status()
        client.get("/v1/models/nothing")
    database = Database(server.settings.registry_url)
    key = KeyStore(database).create("prometheus", "predict")
    database.close()
    process = _start(program, folder, server.url, key)
    try:
        _wait(process[1], 'min(count_over_time(dubito_ready{job="dubito"}[1m])) >= 3')
        yield process[1]
    finally:
        process[0].kill()
        process[0].wait()
        server.stop()


def _start(program: str, folder: Path, url: str, key: str) -> tuple[subprocess.Popen[bytes], str]:
    """Prometheus with the configuration of `deploy`, but for the address and the pace."""
    from dubito.cli.commands.serve import bind

    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "500ms"}
    config["scrape_configs"][0]["static_configs"][0]["targets"] = [url.partition("//")[2]]
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    (folder / "dubito.key").write_text(key)
    shutil.copy(DEPLOY / "alerts.yaml", folder)
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [
            program,
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'series'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--log.level=error",
        ]
    )
    return process, f"http://127.0.0.1:{port}"


def _wait(url: str, query: str) -> None:
    """Ask until there is an answer."""
    until_s = time.monotonic() + 60
    with httpx.Client(base_url=url) as client:
        while time.monotonic() < until_s:
            try:
                if client.get("/api/v1/query", params={"query": query}).json()["data"]["result"]:
                    return
            except (httpx.HTTPError, KeyError, ValueError):  # it has just begun
                continue
    raise AssertionError(f"no answer to {query}")


def test_every_alert_fires_on_series_that_call_for_it() -> None:
    promtool = _program("promtool")
    cases = yaml.safe_load((DEPLOY / "alerts_test.yaml").read_text())["tests"][0]
    fired = {case["alertname"] for case in cases["alert_rule_test"] if case["exp_alerts"]}
    assert fired == {rule["alert"] for rule in RULES}
    for words in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run([promtool, *words], cwd=DEPLOY, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_query_of_the_dashboard_has_an_answer(url: str) -> None:
    queries = _queries()
    assert len(queries) > 25
    with httpx.Client(base_url=url, timeout=30) as client:
        for query in queries:
            page = client.get("/api/v1/query", params={"query": query}).json()
            assert page["status"] == "success", query
            is_empty = any(name in query for name in EMPTY)
            assert page["data"]["result"] or is_empty, query
        for variable in DASHBOARD["templating"]["list"][1:]:
            found = re.fullmatch(r"label_values\((.+), (\w+)\)", variable["query"])
            assert found is not None
            page = client.get("/api/v1/query", params={"query": found[1]}).json()
            assert page["data"]["result"][0]["metric"][found[2]]


def test_the_rules_are_loaded_and_none_fires_on_a_healthy_server(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        groups = client.get("/api/v1/rules").json()["data"]["groups"]
        assert {rule["name"] for rule in groups[0]["rules"]} == {rule["alert"] for rule in RULES}
        assert {rule["health"] for rule in groups[0]["rules"]} == {"ok"}
        alerts = client.get("/api/v1/alerts").json()["data"]["alerts"]
    assert not [alert for alert in alerts if alert["state"] == "firing"]


def test_alerts_and_panels_ask_for_series_that_a_server_has(url: str) -> None:
    with httpx.Client(base_url=url, timeout=30) as client:
        known = set(client.get("/api/v1/label/__name__/values").json()["data"])
    asked = {rule["expr"] for rule in RULES} | set(_queries())
    names = {name for query in asked for name in re.findall(r"\b(?:dubito|process)_\w+", query)}
    assert len(names) > 20
    assert names - known <= EMPTY


def test_panels_have_titles_of_their_own_and_lie_beside_each_other() -> None:
    panels = DASHBOARD["panels"]
    assert len({panel["title"] for panel in panels}) == len(panels)
    places = {(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}
    assert len(places) == len(panels)
