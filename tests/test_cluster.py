"""What of a cluster needs no Ray: that it is asked for, the policy, metrics of several replicas."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from dubito.acquisition import Acquisition, ArrayPool, Search
from dubito.cluster.autoscaling import wanted
from dubito.cluster.frame import merged
from dubito.engine import Engine, Sampling

from .conftest import Bundles
from .http import normals
from .shell import run_command

without_ray = pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))


@without_ray
@pytest.mark.parametrize(
    "words",
    [
        ("serve", "--ray"),
        ("serve", "--ray", "127.0.0.1:6379"),
        ("select", "digits", "--pool", "rows", "--strategy", "entropy", "-k", "1", "--ray"),
    ],
)
def test_without_the_extra_a_command_says_how_to_get_it(
    words: tuple[str, ...], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run_command(capsys, monkeypatch, *words)
    assert code == 1
    assert "pip install 'dubito[ray]'" in err


def test_an_address_without_ray_is_refused(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, _, err = run_command(capsys, monkeypatch, "serve", "127.0.0.1:6379")
    assert code == 1
    assert "write --ray ADDRESS" in err


def test_what_serves_on_one_machine_imports_no_ray() -> None:
    code = (
        "import sys; import dubito.api.factory, dubito.cli.serve, dubito.cli.select;"
        "print([name for name in sys.modules if name.partition('.')[0] == 'ray'])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    ("busy", "ahead_s", "replicas"),
    [
        ([0.0], [0.0], 1),
        ([0.7], [0.0], 1),
        ([0.71], [0.0], 2),
        ([1.0, 1.0], [2.0, 2.0], 9),
        ([0.2] * 10, [0.0] * 10, 3),
        ([], [], 1),
    ],
)
def test_replicas_follow_what_is_done_and_what_waits(
    busy: list[float], ahead_s: list[float], replicas: int
) -> None:
    assert wanted(busy, ahead_s, utilisation=0.7, drain_s=1.0) == replicas


def test_metrics_of_several_replicas_are_one_page_that_names_each() -> None:
    pages = {
        name: (
            "# HELP dubito_ready Whether the server is ready.\n# TYPE dubito_ready gauge\n"
            f"dubito_ready {ready}\n"
            "# HELP dubito_http_requests_total Requests.\n"
            "# TYPE dubito_http_requests_total counter\n"
            f'dubito_http_requests_total{{route="/v1/models/{{model}}/predict",status="200"}} {n}\n'
        ).encode()
        for name, ready, n in (("a", 1.0, 3.0), ("b", 0.0, 5.0))
    }
    families = {
        family.name: family for family in text_string_to_metric_families(merged(pages).decode())
    }
    ready = {one.labels["replica"]: one.value for one in families["dubito_ready"].samples}
    counted = {
        (one.labels["replica"], one.labels["route"]): one.value
        for one in families["dubito_http_requests"].samples
    }
    assert ready == {"a": 1.0, "b": 0.0}
    route = "/v1/models/{model}/predict"
    assert counted == {("a", route): 3.0, ("b", route): 5.0}


@pytest.mark.parametrize(
    "options",
    [
        {"strategy": "entropy", "k": 7},
        {"strategy": "bald", "k": 6, "per_class": 2},
        {"strategy": "random", "k": 9, "exclude": (3, 4, 5)},
        {"strategy": "batchbald", "k": 3, "candidates": 20},
    ],
)
def test_a_pool_that_is_searched_in_parts_gives_the_choice_of_one_search(
    bundles: Bundles, options: dict[str, object]
) -> None:
    engine = Engine.load(bundles("first"))
    pool = ArrayPool(engine.read_inputs(normals(200)))
    acquisition = Acquisition(seed=3, **options)  # type: ignore[arg-type]

    def search() -> Search:
        return Search.begin(engine, acquisition, len(pool), sampling=Sampling(8))

    whole, parts = search(), search()
    for first in range(0, 200, 40):
        part = search()
        part.restore({"done": np.array(first)})
        rows = np.arange(first, first + 40)
        kept = part.strategy.ranking.needs_samples
        predicted = engine.predict(pool.take(rows), sampling=part.sampling, keep_samples=kept)
        part.look(rows, predicted)
        whole.look(rows, predicted)
        parts.absorb(part.state())
    assert parts.done == whole.done == 200
    one, other = whole.finish(pool), parts.finish(pool)
    np.testing.assert_array_equal(one.indices, other.indices)
    np.testing.assert_array_equal(one.scores, other.scores)


def test_simulated_replicas_wait_for_their_batches_and_follow_a_burst(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pytest.importorskip("simpy")
    monkeypatch.syspath_prepend(Path(__file__).parent.parent)
    from benchmarks.simulate_cluster import Cluster, Cost, steady

    cost = Cost(rows=(1, 16, 128), seconds=(0.004, 0.016, 0.044), request_s=0.0, each=16)
    calm = steady(cost, devices=4, load=0.02, seconds=4.0)
    assert calm["p50_ms"] == pytest.approx(16.0, abs=1.0)  # nobody waits but for the own batch
    assert calm["refused_share"] == 0
    cluster = Cluster(cost, seed=0, start_s=1.0)
    cluster.add(1)
    cluster.clock.process(cluster.arrivals({0.0: 0.5 * cost.capacity, 2.0: 5 * cost.capacity}))
    cluster.clock.process(cluster.autoscaler(1, 8, 0.5, 60.0))
    cluster.clock.process(cluster.watch())
    cluster.clock.run(12.0)
    assert cluster.windows[1].replicas == 1
    assert cluster.windows[-1].replicas == 8
    assert cluster.windows[-1].refused == 0
