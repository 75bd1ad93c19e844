"""What is there to copy: `compose.yaml`, manifests of Kubernetes, the unit of systemd.

They are held against schemas, against each other, and against what the server has: its settings,
its routes of health, and the series that it exports.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import httpx
import kubernetes_validate
import pytest
import yaml

import dubito
from dubito.settings import Settings

from .conftest import Server
from .containers import stages

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"
COMPOSE_TEXT = (ROOT / "compose.yaml").read_text()
COMPOSE = yaml.safe_load(COMPOSE_TEXT)
SERVICES = COMPOSE["services"]
UNIT = (DEPLOY / "dubito.service").read_text()
MANIFESTS = sorted((DEPLOY / "kubernetes").glob("*.yaml"))
OF_OTHERS = {"ServiceMonitor", "ScaledObject", "Kustomization"}  # which Kubernetes has no schema of
DEFAULTS = Settings.model_construct()
FOREIGN = re.compile(
    r"AWS_(ACCESS_KEY_ID|SECRET_ACCESS_KEY|REGION|ENDPOINT_URL)|POSTGRES_(USER|PASSWORD)"
    r"|NUMBA_CACHE_DIR|TRITON_CACHE_DIR|HOME|PYTHONDONTWRITEBYTECODE"
)


DOCUMENTS = [
    (path.name, document) for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())
]


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    """A client of a server without models."""
    server = Server(Settings(data_dir=tmp_path_factory.mktemp("deployed") / "data"))
    server.start()
    with httpx.Client(base_url=server.url, timeout=60) as client:
        yield client
    server.stop()


def of_kind(*kinds: str) -> list[tuple[str, dict[str, Any]]]:
    """The manifests of some kinds, with the names of their files."""
    return [(name, document) for name, document in DOCUMENTS if document["kind"] in kinds]


def pods() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, document in of_kind("Deployment", "Job"):
        yield name, document["spec"]["template"]


def containers() -> Iterator[tuple[str, dict[str, Any]]]:
    for name, pod in pods():
        for container in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]:
            yield name, container


def given() -> dict[str, dict[str, str]]:
    """The environment that each deployment gives a server."""
    (_, settings), *_ = of_kind("ConfigMap")
    words = re.findall(r"^Environment=(.+)$", UNIT, re.MULTILINE)
    found = {
        "compose.yaml": SERVICES["server"]["environment"],
        "settings.yaml": settings["data"],
        "dubito.service": dict(word.split("=", 1) for line in words for word in line.split()),
    }
    for name, container in containers():
        found[name] = {one["name"]: one["value"] for one in container.get("env", [])}
    return found


@pytest.mark.parametrize("deployment", given())
def test_a_deployment_sets_what_the_server_reads(
    deployment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    variables = given()[deployment]
    settings = {name for name in variables if name.startswith("DUBITO_")}
    assert {
        name.removeprefix("DUBITO_").lower() for name in settings
    } <= Settings.model_fields.keys()
    assert all(FOREIGN.fullmatch(name) for name in variables.keys() - settings)
    for name in settings:
        monkeypatch.setenv(name, variables[name])
    Settings()  # refuses values that it cannot use


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_every_manifest_is_valid_in_strict_mode(path: Path) -> None:
    latest = kubernetes_validate.latest_version()
    for document in yaml.safe_load_all(path.read_text()):
        if document["kind"] not in OF_OTHERS:
            kubernetes_validate.validate(document, latest, strict=True)


def test_kustomize_builds_all_files_with_the_version_of_this_code(tmp_path: Path) -> None:
    shutil.copytree(DEPLOY / "kubernetes", tmp_path, dirs_exist_ok=True)
    file = tmp_path / "kustomization.yaml"
    text = file.read_text()
    chosen = re.findall(r"^  (?:# )?- (\S+\.yaml)", text, re.MULTILINE)
    assert sorted([*chosen, "kustomization.yaml"]) == [path.name for path in MANIFESTS]
    assert {image["newTag"] for image in yaml.safe_load(text)["images"]} == {dubito.__version__}
    program = shutil.which("kubectl")
    if program is None:
        pytest.skip("kubectl is not installed (Debian: kubernetes-client)")
    for added, gone in ((["gpu", "monitor", "keda"], []), (["single"], ["server", "upgrade"])):
        page = text
        for name in added:
            page = page.replace(f"  # - {name}.yaml", f"  - {name}.yaml")
        for name in gone:
            page = page.replace(f"  - {name}.yaml", f"  # - {name}.yaml")
        file.write_text(page)
        built = subprocess.run(
            [program, "kustomize", tmp_path], capture_output=True, text=True, check=True
        )
        images = set(re.findall(r"image: (\S+)", built.stdout))
        assert images <= {
            f"registry.example.org/{name}:{dubito.__version__}" for name in ("dubito", "dubito-gpu")
        }


def test_every_pod_has_no_rights_and_writes_to_its_volumes_alone() -> None:
    for name, pod in pods():
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"], name
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert spec["automountServiceAccountToken"] is False
        # A service named dubito would else be a variable DUBITO_PORT, tcp://..., of every pod.
        assert spec["enableServiceLinks"] is False
    for name, container in containers():
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert {mount["mountPath"] for mount in container["volumeMounts"]} == {"/data", "/tmp"}
        assert "memory" in container["resources"]["limits"], name


def test_users_and_ports_are_those_of_the_image() -> None:
    steps = stages((ROOT / "Dockerfile").read_text())["base"]
    found = {step.word: step.rest for step in steps}
    for _, pod in pods():
        context = pod["spec"]["securityContext"]
        assert f"{context['runAsUser']}:{context['runAsGroup']}" == found["USER"]
    for name, document in of_kind("Deployment"):
        (server,) = document["spec"]["template"]["spec"]["containers"]
        assert [str(port["containerPort"]) for port in server["ports"]] == [found["EXPOSE"]], name


def test_servers_are_probed_where_health_answers_and_have_the_time_to_drain(
    asked: httpx.Client,
) -> None:
    drain_s = DEFAULTS.drain_timeout_ms / 1000
    for name, document in of_kind("Deployment"):
        spec = document["spec"]["template"]["spec"]
        (server,) = spec["containers"]
        probes = {"startupProbe": "live", "livenessProbe": "live", "readinessProbe": "ready"}
        for probe, route in probes.items():
            assert server[probe]["httpGet"] == {"path": f"/health/{route}", "port": "http"}, name
            assert asked.get(server[probe]["httpGet"]["path"]).status_code == 200
        paused_s = server["lifecycle"]["preStop"]["sleep"]["seconds"]
        assert spec["terminationGracePeriodSeconds"] >= drain_s + paused_s
    assert int(SERVICES["server"]["stop_grace_period"].removesuffix("s")) > drain_s
    stop = re.search(r"^TimeoutStopSec=(\d+)$", UNIT, re.MULTILINE)
    assert stop is not None
    assert int(stop[1]) > drain_s


def test_labels_that_are_looked_for_are_those_of_pods() -> None:
    labels = [pod["metadata"]["labels"] for _, pod in pods()]
    for name, document in of_kind("Deployment"):
        own = document["spec"]["template"]["metadata"]["labels"]
        assert document["spec"]["selector"]["matchLabels"].items() <= own.items(), name
    wanted = [document["spec"]["selector"] for _, document in of_kind("Service")]
    wanted += [
        document["spec"]["selector"]["matchLabels"]
        for _, document in of_kind("PodDisruptionBudget", "ServiceMonitor")
    ]
    for selector in wanted:
        assert any(selector.items() <= own.items() for own in labels), selector
    ((_, scaled), (_, keda)) = (
        of_kind("HorizontalPodAutoscaler")[0],
        of_kind("ScaledObject")[0],
    )
    names = {document["metadata"]["name"] for _, document in of_kind("Deployment")}
    assert scaled["spec"]["scaleTargetRef"]["name"] in names
    assert keda["spec"]["scaleTargetRef"]["name"] in names


def test_what_scales_servers_asks_for_series_that_a_server_exports(asked: httpx.Client) -> None:
    exported = set(re.findall(r"^# TYPE (\w+)", asked.get("/metrics").text, re.MULTILINE))
    wanted = {
        word
        for _, document in of_kind("HorizontalPodAutoscaler", "ScaledObject")
        for word in re.findall(r"\bdubito_\w+", yaml.safe_dump(document))
    }
    assert wanted == {"dubito_queue_wait_seconds", "dubito_jobs"}
    assert wanted <= exported


def test_services_of_compose_wait_for_each_other_and_share_what_they_name() -> None:
    for name, service in SERVICES.items():
        waits = service.get("depends_on", {})
        for other, how in waits.items() if isinstance(waits, dict) else []:
            if how["condition"] == "service_healthy":
                is_of_image = SERVICES[other].get("image") == "dubito"  # which has a check
                assert is_of_image or "test" in SERVICES[other]["healthcheck"], (name, other)
            else:
                assert "restart" not in SERVICES[other], f"{other} is to end"
        assert set(waits) <= SERVICES.keys()
        mode = service.get("network_mode", "")
        assert not mode or mode.removeprefix("service:") in SERVICES
        assert not (mode and "ports" in service), "ports belong to whose address it is"
        for secret in service.get("secrets", []):
            assert secret["source"] in COMPOSE["secrets"]
    mounts = [mount for service in SERVICES.values() for mount in service.get("volumes", [])]
    folders = {mount.split(":")[0] for mount in mounts}
    assert {folder for folder in folders if "/" not in folder} == COMPOSE["volumes"].keys()
    assert all((ROOT / folder).is_file() for folder in folders if "/" in folder)
    ports = [port for service in SERVICES.values() for port in service.get("ports", [])]
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert len(set(ports)) == len(ports)


def test_images_of_compose_are_pinned_and_the_server_has_no_rights() -> None:
    for name, service in SERVICES.items():
        if service["image"] != "dubito":
            assert re.fullmatch(r"[a-z/-]+:v?\d+\.\d+(\.\d+)?", service["image"]), name
        assert "no-new-privileges:true" in service.get("security_opt", []) or name == "bucket"
    server = SERVICES["server"]
    assert (server["read_only"], server["tmpfs"], server["cap_drop"]) == (True, "/tmp", ["ALL"])
    steps = chain(*stages((ROOT / "Dockerfile").read_text()).values())
    arguments = {step.rest.split("=")[0] for step in steps if step.word == "ARG"}
    assert server["build"]["args"].keys() <= arguments


def test_secrets_that_compose_wants_are_made_by_its_first_lines() -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?\}", COMPOSE_TEXT))
    made = set(re.findall(r"^#   (\w+)=\$\(openssl", COMPOSE_TEXT, re.MULTILINE))
    assert wanted == made == {"DUBITO_API_KEY", "POSTGRES_PASSWORD", "AWS_SECRET_ACCESS_KEY"}
    assert COMPOSE["secrets"]["key"]["environment"] in wanted


def test_prometheus_of_compose_finds_its_files_and_the_server() -> None:
    prometheus = SERVICES["prometheus"]
    config = yaml.safe_load((DEPLOY / "prometheus.yaml").read_text())
    places = {mount.split(":")[1] for mount in prometheus["volumes"]}
    places |= {secret["target"] for secret in prometheus["secrets"]}
    (scrape,) = config["scrape_configs"]
    wanted = ["prometheus.yaml", *config["rule_files"]]
    wanted.append(scrape["authorization"]["credentials_file"])
    assert {f"/etc/prometheus/{name}" for name in wanted} <= places
    assert "--config.file=/etc/prometheus/prometheus.yaml" in prometheus["command"]
    (target,) = scrape["static_configs"][0]["targets"]
    owner = prometheus["network_mode"].removeprefix("service:")
    assert SERVICES["server"]["network_mode"].removeprefix("service:") == owner
    assert f"127.0.0.1:{DEFAULTS.port}:{DEFAULTS.port}" in SERVICES[owner]["ports"]
    assert target == f"127.0.0.1:{DEFAULTS.port}"


def test_systemd_takes_the_unit_and_finds_little_exposed(tmp_path: Path) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    unit = tmp_path / "dubito.service"
    unit.write_text(UNIT.replace("/opt/dubito/bin/dubito", sys.executable))
    done = subprocess.run([program, "verify", unit], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    done = subprocess.run(
        [program, "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
