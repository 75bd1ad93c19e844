"""The command line on a data directory of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from typer.main import get_command

from dubito import __version__
from dubito.cli import console, make_app
from dubito.registry.database import Database
from dubito_nn import export

from .conftest import CLASSES, NUM_FEATURES, Bundles
from .shell import Run
from .shell import run_command as _run

_MAIN = "from dubito.cli import main; main()"
RECIPES = ("digits", "digits-concrete", "diabetes")


@pytest.fixture(autouse=True)
def _data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("DUBITO_NUM_SAMPLES", "16")
    monkeypatch.setenv("COLUMNS", "200")


def test_register_predict_calibrate_and_list(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    rows = np.random.default_rng(0).normal(size=(120, NUM_FEATURES)).astype(np.float32)
    labels = np.random.default_rng(1).integers(0, len(CLASSES), 120)
    np.save(tmp_path / "rows.npy", rows[:3])
    (tmp_path / "rows.json").write_text(json.dumps(rows[:3].tolist()))
    np.savez(tmp_path / "held_out.npz", inputs=rows, labels=labels)

    code, out, _ = _run(capsys, monkeypatch, "register", bundles("first"), "--model", "animals")
    assert (code, out.startswith("animals version 1")) == (0, True)

    predict = ("predict", "animals", "--inputs")
    code, table, err = _run(capsys, monkeypatch, *predict, tmp_path / "rows.npy")
    assert code == 0
    assert "mutual" in table
    assert "no active calibration" in err

    fit = ("calibrate", "animals", "--data", tmp_path / "held_out.npz", "--alpha", "0.1")
    code, out, _ = _run(capsys, monkeypatch, *fit)
    assert (code, "calibration 1, active" in out, "nll" in out) == (0, True, True)
    assert "verdict: no different from no fit beyond chance: by cross-validation on 30" in out

    replies = [
        json.loads(_run(capsys, monkeypatch, *predict, tmp_path / name, "--json")[1])
        for name in ("rows.npy", "rows.json")
    ]
    assert replies[0]["calibration"] == 1
    assert replies[0]["num_samples"] == 16
    np.testing.assert_allclose(
        replies[0]["outputs"]["mean"], replies[1]["outputs"]["mean"], atol=1e-6
    )
    assert set(replies[0]["outputs"]["prediction_set"][0]) <= set(CLASSES)

    chosen = ("--scaling", "vector", "--sets", "aps")
    code, out, _ = _run(capsys, monkeypatch, *fit, *chosen)
    assert (code, "calibration 2" in out, "empty_sets" in out) == (0, True, True)
    code, _, err = _run(capsys, monkeypatch, *fit, "--per-class")
    assert (code, "at least 47 labelled rows of each class" in err) == (1, True)

    _run(capsys, monkeypatch, "register", bundles("second"), "--model", "animals")
    together = ("--method", "ensemble", "--members", "1,2", "--json")
    code, out, _ = _run(capsys, monkeypatch, *predict, tmp_path / "rows.npy", *together)
    assert (code, json.loads(out)["members"]) == (0, [1, 2])

    code, table, _ = _run(capsys, monkeypatch, "models")
    assert code == 0
    for word in ("animals", "default", "classification"):
        assert word in table


def test_a_whole_request_in_a_file_counts_as_over_http(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    rows = np.random.default_rng(0).normal(size=(9, NUM_FEATURES)).tolist()
    _run(capsys, monkeypatch, "register", bundles("first"), "--model", "animals")

    def asked(command: str, body: dict[str, object], *words: object) -> tuple[int, str]:
        (tmp_path / "body.json").write_text(json.dumps(body))
        given = "--data" if command == "select" else "--inputs"
        words = ("animals", given, tmp_path / "body.json", "--json", *words)
        code, out, err = _run(capsys, monkeypatch, command, *words)
        return code, out if code == 0 else err

    body = {"inputs": rows, "num_samples": 8, "seed": 3, "masks": "independent"}
    reply = json.loads(asked("predict", {**body, "outputs": ["mean"], "calibration": "none"})[1])
    taken = {name: reply[name] for name in ("num_samples", "seed", "masks")}
    assert taken == {"num_samples": 8, "seed": 3, "masks": "independent"}
    assert list(reply["outputs"]) == ["mean"]
    assert reply["warnings"] == ["raw figures: the request asked for no calibration"]
    (tmp_path / "body.json").write_text(json.dumps({**body, "outputs": ["samples"]}))
    told = _run(capsys, monkeypatch, "predict", "animals", "--inputs", tmp_path / "body.json")
    assert (told[0], "got samples, which no line holds: ask for --json" in told[2]) == (1, True)
    reply = json.loads(asked("predict", body, "--seed", 5, "--num-samples", 4)[1])
    assert (reply["seed"], reply["num_samples"], reply["masks"]) == (5, 4, "independent")

    chosen = {"inputs": rows, "strategy": "epig", "k": 2, "targets": rows[:3], "exclude": [0]}
    reply = json.loads(asked("select", {**chosen, "seed": 3})[1])
    assert (reply["strategy"], reply["seed"], reply["candidates"]) == ("epig", 3, 8)
    assert len(reply["indices"]) == 2
    reply = json.loads(asked("select", {**chosen, "targets": None}, "--strategy", "bald")[1])
    assert reply["strategy"] == "bald"

    for command, wrong, told in (
        ("predict", {"num_sample": 8}, "`num_sample`: unknown field: leave it out, or write"),
        ("predict", {"labels": [0]}, "`labels`: unknown field"),
        ("predict", {"method": "magic"}, "`method`: expected 'mc'"),
        ("predict", {"format": "npz"}, "`format` expects a stored `pool`"),
        ("predict", {"pool": "wild"}, "expected --inputs FILE, or --pool NAME"),
        ("select", {"outputs": []}, "`outputs`: unknown field: leave it out, or correct its name"),
        ("select", {"strategy": "bald"}, "`k`: expected a value, got nothing: add it"),
    ):
        code, err = asked(command, {"inputs": rows, **wrong})
        assert (code, told in err) == (1, True), err
    code, err = asked("predict", {"inputs": rows}, "--out", tmp_path / "all.npz")
    assert (code, "--out expects a .csv or .parquet file" in err) == (1, True)
    (tmp_path / "rows.json").write_text(json.dumps({"inputs": rows, "seed": 1}))
    code, err = asked("select", {"inputs": rows}, "--targets", tmp_path / "rows.json")
    assert (code, "expected rows alone, got inputs, seed" in err) == (1, True)


def test_inspect_prints_every_warning_of_the_bundle_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bundles: Bundles
) -> None:
    code, out, err = _run(capsys, monkeypatch, "inspect", bundles("injected"))
    assert (code, err) == (0, "")
    assert "".join(out.splitlines()).count("warning: dropout injected at export: `0.1`") == 1
    assert out.count("warning: ") == 1
    assert "warning: " not in _run(capsys, monkeypatch, "inspect", bundles("first"))[1]


def test_a_regression_shows_its_interval(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    np.save(tmp_path / "rows.npy", np.zeros((2, NUM_FEATURES), np.float32))
    _run(capsys, monkeypatch, "register", bundles("regression"), "--model", "heights")
    code, table, _ = _run(
        capsys, monkeypatch, "predict", "heights", "--inputs", tmp_path / "rows.npy"
    )
    assert code == 0
    assert "aleatoric" in table


def test_an_empty_directory_says_what_to_do(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    code, out, _ = _run(capsys, monkeypatch, "models")
    assert (code, "dubito register" in out) == (0, True)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["predict", "nobody", "--inputs", "rows.npy"], "no model 'nobody': `dubito models` lists"),
        (["jobs", "show", "none"], "`dubito jobs` lists"),
        (["pool", "show", "none"], "`dubito pool list` lists"),
        (["predict", "nobody", "--inputs", "gone.npy"], "gone.npy"),
        (["predict", "nobody", "--inputs", "broken.npy"], "numpy.save"),
        (["predict", "nobody", "--inputs", "broken.json"], "JSON"),
        (["predict", "nobody", "--inputs", "rows.xlsx"], ".xlsx"),
        (["calibrate", "nobody", "--data", "rows.npy"], "numpy.savez"),
        (["calibrate", "nobody", "--data", "twice.npz"], "an array twice"),
        (["register", "broken.npy", "--model", "animals"], "readable bundle"),
        (["register", "gone.dubito", "--model", "animals"], "gone.dubito"),
        (["serve", "--host", "0.0.0.0"], "DUBITO_API_KEY"),
    ],
)
def test_an_error_is_one_line_and_exit_code_1(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    words: list[str],
    told: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", np.zeros((2, NUM_FEATURES), np.float32))
    np.savez("twice.npz", inputs=np.zeros(2))
    with zipfile.ZipFile("twice.npz", "a") as archive:
        archive.writestr("inputs", archive.read("inputs.npy"))
    for name in ("broken.npy", "broken.json", "rows.xlsx"):
        Path(name).write_bytes(b"broken {")
    code, _, err = _run(capsys, monkeypatch, *words)
    assert code == 1
    assert err.count("\n") == 1, err
    assert err.startswith("error: ")
    assert told in err


def test_the_life_of_a_version(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bundles: Bundles
) -> None:
    for name in ("first", "second"):
        _run(capsys, monkeypatch, "register", bundles(name), "--model", "animals")

    def run(*words: object) -> Run:
        return _run(capsys, monkeypatch, *words)

    code, out, _ = run("show", "animals")
    assert code == 0
    for word in ("animals 1", "default", "made for a test", "by local", "torch"):
        assert word in out, out
    assert "revision 1" in run("alias", "animals", 1, "--name", "best")[1]
    code, _, err = run("alias", "animals", 2, "--name", "best", "--revision", 2)
    assert (code, "If-Match" in err) == (1, True)
    code, out, _ = run("alias", "animals", 2, "--name", "best", "--revision", 1)
    assert (code, "revision 2" in out) == (0, True)
    code, _, err = run("retire", "animals", 2, "--reason", "worse")
    assert (code, "`best`" in err) == (1, True)
    assert run("unalias", "animals", "best")[0] == 0
    assert run("unalias", "animals", "default")[0] == 1
    assert run("retire", "animals", 2, "--reason", "worse")[0] == 0
    assert "worse" in run("show", "animals", 2)[1]
    assert "retired" in run("models")[1]
    assert run("alias", "animals", 2)[0] == 1
    assert run("restore", "animals", 2)[0] == 0
    assert run("delete", "animals", 1)[0] == 1
    assert run("delete", "animals", 2)[0] == 0
    assert run("show", "animals", 2)[0] == 1


def test_registry_check_and_audit(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    bundles: Bundles,
    tmp_path: Path,
) -> None:
    _run(capsys, monkeypatch, "register", bundles("first"), "--model", "animals")
    code, out, _ = _run(capsys, monkeypatch, "registry", "check")
    whole = "1 models, 1 versions, 0 pools, 0 results of jobs, 1 objects: no problems, no orphans"
    assert (code, out.strip()) == (0, whole)
    code, out, _ = _run(capsys, monkeypatch, "registry", "audit")
    assert (code, "upload" in out, "local" in out) == (0, True, True)
    assert _run(capsys, monkeypatch, "registry", "audit", "nobody")[0] == 1
    (path,) = (tmp_path / "data" / "objects").rglob("*.dubito")
    path.rename(path.with_name("0" * 64 + ".dubito"))
    code, out, _ = _run(capsys, monkeypatch, "registry", "check", "--fix", "--older-than", "0")
    assert code == 1
    assert "got none" in out


def test_load_and_unload_ask_the_server_that_runs(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    ready: httpx.Client,
) -> None:
    url = str(ready.base_url)
    code, out, _ = _run(capsys, monkeypatch, "load", "animals", "--url", url)
    assert (code, "version 1 is loaded" in out) == (0, True)
    code, out, _ = _run(capsys, monkeypatch, "unload", "animals", "1", "--url", url)
    assert (code, "is available" in out) == (0, True)
    code, _, err = _run(capsys, monkeypatch, "load", "nobody", "--url", url)
    assert (code, "no model 'nobody'" in err) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        monkeypatch.setenv("DUBITO_PORT", str(free.getsockname()[1]))
    code, _, err = _run(capsys, monkeypatch, "load", "animals")
    assert (code, "`dubito serve`" in err) == (1, True)
    assert _run(capsys, monkeypatch, "load", "animals", "--url", "file:///etc")[0] == 1
    code, _, err = _run(capsys, monkeypatch, "load", "animals", "--url", "http://localhost:many")
    assert (code, "no server answers at http://localhost:many" in err) == (1, True)
    monkeypatch.setenv("DUBITO_HOST", "::1")
    code, _, err = _run(capsys, monkeypatch, "load", "animals")
    assert (code, "no server answers at http://[::1]:" in err) == (1, True)


def test_old_tables_are_named_until_they_are_upgraded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path / 'old.sqlite3'}"
    database = Database(url)
    database.upgrade("0001")
    database.close()
    monkeypatch.setenv("DUBITO_DATABASE_URL", url)
    for words in (["models"], ["serve", "--port", "0"]):
        code, _, err = _run(capsys, monkeypatch, *words)
        assert (code, err.count("\n")) == (1, 1)
        assert "`dubito db upgrade`" in err
    code, out, _ = _run(capsys, monkeypatch, "db", "current")
    assert (code, "0001, this build needs" in out, "`dubito db upgrade`" in out) == (0, True, True)
    code, out, _ = _run(capsys, monkeypatch, "db", "upgrade")
    assert (code, "from 0001 to" in out) == (0, True)
    code, out, _ = _run(capsys, monkeypatch, "db", "current")
    assert (code, "upgrade" in out) == (0, False)
    assert _run(capsys, monkeypatch, "models")[0] == 0


def test_a_port_that_is_taken_is_told_before_anything_is_loaded(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(tmp_path / "untouched"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, err = _run(capsys, monkeypatch, "serve", "--port", str(port))
    assert (code, err.count("\n")) == (1, 1)
    assert f"port {port} of 127.0.0.1: expected a free one" in err
    assert "--port" in err
    assert not (tmp_path / "untouched").exists()
    code, _, err = _run(
        capsys, monkeypatch, "serve", "--host", "203.0.113.7", "--insecure", "--port", "0"
    )
    assert (code, err.count("\n")) == (1, 1)
    assert "address 203.0.113.7" in err


def test_a_bad_setting_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_PORT", "many")
    code, _, err = _run(capsys, monkeypatch, "models")
    assert (code, err) == (
        *(1, "error: setting DUBITO_PORT: expected a whole number, got 'many': correct it\n"),
    )


def test_a_misspelt_setting_is_warned_of_without_its_value(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DUBITO_NUM_SAMPELS", "DUBITO_QQQ", "DUBITO_TEST_RAY", "DUBITO_PORT_80_TCP"):
        monkeypatch.setenv(name, "hidden")
    _, _, err = _run(capsys, monkeypatch, "models")
    assert err.count("warning: ") == 2
    assert "got DUBITO_NUM_SAMPELS" in err
    assert "perhaps DUBITO_NUM_SAMPLES" in err
    assert "got DUBITO_QQQ, which is none and is ignored: remove it" in err
    assert "hidden" not in err
    monkeypatch.setenv("DUBITO_DEVICE", "cuda:99")
    assert "got DUBITO_QQQ" in _run(capsys, monkeypatch, "serve", "--port", "0")[2]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_place_that_holds_no_folders_is_told_with_the_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", "/proc/nowhere")
    code, _, err = _run(capsys, monkeypatch, "models")
    assert (code, err.count("\n"), "by DUBITO_DATA_DIR" in err) == (1, 1, True)


@pytest.mark.parametrize("setting", ["DUBITO_DEVICE", "DUBITO_DEVICES"])
def test_a_device_that_is_not_there_is_told_at_start(
    setting: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(setting, "cuda:99")
    code, _, err = _run(capsys, monkeypatch, "serve", "--port", "0")
    assert (code, err.count("\n")) == (1, 1)
    assert f"setting {setting}" in err
    assert "got 'cuda:99'" in err


@contextmanager
def _served(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """`dubito serve` on a free port as a person starts it, and where it answers."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    process = subprocess.Popen(
        [sys.executable, "-c", _MAIN, "serve", "--port", "0", *options],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:\d+", line)
        assert found, line
        yield process, found[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_serve_prints_its_address_answers_and_ends_on_a_signal() -> None:
    with _served() as (process, url):
        assert process.stderr is not None
        with httpx.Client(base_url=url, timeout=60) as client:
            assert client.get("/health/ready").json()["ready"] is True
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        assert process.returncode in (0, -signal.SIGTERM)
        assert process.stderr.read() == ""


def test_serve_with_the_demonstration_says_when_its_models_are_loaded(
    demonstration: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DUBITO_DATA_DIR", str(demonstration))
    with _served("--demo") as (process, url):
        assert process.stderr is not None
        event = json.loads(process.stderr.readline())
        assert event["event"] == "ready"
        assert event["loaded"] == [f"{name}@default" for name in RECIPES]
        health = httpx.get(f"{url}/health/ready", timeout=60).json()
    assert {line["model"]: line["state"] for line in health["models"]} == dict.fromkeys(
        RECIPES, "loaded"
    )


def test_inspect_shows_the_plan_with_estimated_and_measured_gains(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    network = torch.nn.Sequential(
        torch.nn.Linear(8, 512), torch.nn.ReLU(), torch.nn.Dropout(0.5),
        torch.nn.Linear(512, 512), torch.nn.ReLU(), torch.nn.Dropout(0.5), torch.nn.Linear(512, 3),
    )  # fmt: skip
    path = tmp_path / "wide.dubito"
    export(network, torch.randn(4, 8), path, task="classification", output="logits")
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = _run(capsys, monkeypatch, "inspect", str(path), "--plan")
    assert code == 0
    for word in ("prefix", "once per row and sample", "thinned", "times faster", "B 64: "):
        assert word in out
    assert "thinned" not in _run(capsys, monkeypatch, "inspect", str(path))[1]


def test_help_lists_every_command_as_it_describes_itself_and_imports_none() -> None:
    described = get_command(make_app(is_help=True)).commands  # type: ignore[attr-defined]
    imported = get_command(make_app()).commands  # type: ignore[attr-defined]
    assert {name: one.get_short_help_str(999) for name, one in described.items()} == {
        name: one.get_short_help_str(999) for name, one in imported.items()
    }
    script = (
        "import sys; from dubito.cli import make_app; make_app(is_help=True);"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


def test_the_version_is_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert _run(capsys, monkeypatch, "--version") == (0, f"dubito {__version__}\n", "")


def test_no_error_of_the_command_line_speaks_of_a_route() -> None:
    folder = Path(console.__file__).parent.parent
    texts = [path.read_text() for path in folder.rglob("*.py") if path.parent.name != "api"]
    told = {word for text in texts for word in re.findall(r"(GET /v1/[^ \"]+ lists)", text)}
    assert told
    for line in told:
        assert any(route.search(f"{line} its") for route, _ in console._COMMANDS), line


def test_commands_that_run_no_network_import_no_torch(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, bundles: Bundles
) -> None:
    assert _run(capsys, monkeypatch, "register", bundles("first"), "--model", "net")[0] == 0
    lines = (
        *("models", "show net", "pool list", "jobs", "jobs show x", "db current"),
        *("registry check", "registry audit", "monitor net --url http://127.0.0.1:9"),
        *("unalias net other", "retire net 2 --reason old", "restore net 2", "delete net 2"),
    )
    script = (
        "import sys\n"
        "from dubito.cli import main\n"
        f"for line in {lines!r}:\n"
        "    sys.argv = ['dubito', *line.split()]\n"
        "    try:\n"
        "        main()\n"
        "    except SystemExit:\n"
        "        assert 'torch' not in sys.modules, line\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
    assert "net" in ended.stdout
