"""What is built for others: a source distribution, a wheel made of it, and what the wheel serves.

The wheel is installed into an environment of its own, which sees the libraries of this one, but not
this folder: everything of Dubito's comes from the wheel. Numba is left out: to compile anew takes
longer than all else, and `test_summing` shows what is compiled in a new place.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from sklearn.datasets import load_diabetes

import dubito
from dubito.web.shell import DRAWING

ROOT = Path(__file__).parent.parent
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built of what the source distribution holds, as an index does."""
    folder = tmp_path_factory.mktemp("dist")
    build = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    subprocess.run([*build, "-t", "sdist"], cwd=ROOT, check=True, capture_output=True)
    (source,) = folder.glob("dubito-*.tar.gz")
    with tarfile.open(source) as archive:
        archive.extractall(folder, filter="data")
    subprocess.run(
        [*build, "-t", "wheel"],
        cwd=folder / source.name.removesuffix(".tar.gz"),
        check=True,
        capture_output=True,
    )
    (made,) = folder.glob("dubito-*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scripts of an environment with the wheel."""
    folder = tmp_path_factory.mktemp("installed")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    paths = {"base": str(folder), "platbase": str(folder)}
    packages = Path(sysconfig.get_path("purelib", vars=paths))
    without = "import sys; sys.modules['numba'] = None"
    (packages / "libraries.pth").write_text(f"{sysconfig.get_path('purelib')}\n{without}\n")
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    options = ["--no-index", "--ignore-installed", "--disable-pip-version-check"]
    subprocess.run([*pip, *options, wheel], check=True)
    return python.parent


def environment(data_dir: Path) -> dict[str, str]:
    """Without the paths to this folder."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return kept | {"DUBITO_DATA_DIR": str(data_dir), "OMP_NUM_THREADS": "1"}


def test_the_wheel_holds_both_packages_with_their_types_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (entry,) = [name for name in names if name.endswith("METADATA")]
        metadata = archive.read(entry).decode()
    assert {"dubito/py.typed", "dubito_nn/py.typed", "dubito/report/page.html.j2"} <= set(names)
    tops = {name.split("/")[0] for name in names}
    assert tops == {"dubito", "dubito_nn", f"dubito-{dubito.__version__}.dist-info"}
    assert f"\nVersion: {dubito.__version__}\n" in metadata
    tracked = {
        str(path.relative_to(ROOT / above))
        for above, package in (("service", "dubito"), ("models", "dubito_nn"))
        for path in (ROOT / above / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert tracked <= set(names)


def test_what_the_wheel_installs_serves_the_demonstration(
    installed: Path, demonstration: Path, tmp_path: Path
) -> None:
    shutil.copytree(demonstration, tmp_path / "data")
    variables = environment(tmp_path / "data")

    def run(*words: str) -> str:
        done = subprocess.run(
            words, cwd=tmp_path, env=variables, check=True, capture_output=True, text=True
        )
        return done.stdout

    assert run(f"{installed}/dubito", "--version") == f"dubito {dubito.__version__}\n"
    where = "from importlib.util import find_spec; print(find_spec('{}').origin)"
    for package in ("dubito", "dubito_nn"):
        origin = run(f"{installed}/python", "-c", where.format(package))
        assert origin.startswith(str(installed.parent))
    served = subprocess.Popen(
        [installed / "dubito", "serve", "--port", "0"],
        cwd=tmp_path,
        env=variables,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert served.stderr is not None
        told = iter(served.stderr.readline, "")
        address = next(filter(None, (re.search(r"http://\S+:\d+", line) for line in told)), None)
        assert address is not None
        rows = load_diabetes(scaled=False).data[:2].tolist()
        with httpx.Client(base_url=address[0], timeout=120) as client:
            names = {model["model"] for model in client.get("/v1/models").json()["models"]}
            assert names == {"digits", "digits-concrete", "diabetes"}
            reply = client.post("/v1/models/diabetes/predict", json={"inputs": rows})
            assert reply.status_code == 200, reply.text
            outputs = reply.json()["outputs"]
            assert np.all(np.array(outputs["interval"]["lower"]) < np.array(outputs["mean"]))
            assert client.get("/docs").status_code == 200
            assert client.get("/").status_code == 200
            drawing = client.get("/page/drawing/uPlot.iife.min.js")
            assert drawing.status_code == (200 if DRAWING.is_file() else 404)
    finally:
        served.terminate()
        served.communicate(timeout=60)
    assert served.returncode in (0, -signal.SIGTERM)
