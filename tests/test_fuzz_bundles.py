"""Mutated bundles are refused by a reason or answered sanely: no crash, no hang.

`DUBITO_TEST_FUZZ_CASES` sets the number of cases of the slow run, `DUBITO_TEST_FUZZ_SEED` its seed.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .corpus.good import GOOD
from .corpus.parts import good_parts

ROOT = Path(__file__).parent.parent
KINDS = ("a gru", "a convolution with batch norm", "a pair of means and variances", "tied weights")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good bundles of several kinds."""
    folder = tmp_path_factory.mktemp("fuzz")
    (folder / "good-0.dubito").write_bytes(good_parts(folder / "canary").sealed())
    for number, name in enumerate(KINDS):
        GOOD[name](folder / f"good-{number + 1}.dubito")
    return folder


def _fuzz(folder: Path, count: int, seed: int) -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.corpus.fuzz", str(count), str(seed), folder],
        cwd=ROOT,
        env={
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT / "service"), str(ROOT / "models"), str(ROOT)]),
            "OMP_NUM_THREADS": "1",
        },
        capture_output=True,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, f"{folder / 'case.dubito'}\n{done.stderr[-4000:]}"
    assert f"{count} cases" in done.stdout
    assert not (folder / "canary").exists()


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_some_hundred_mutated_bundles_crash_nothing(folder: Path) -> None:
    _fuzz(folder, 300, 0)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")
def test_ten_thousand_mutated_bundles_crash_nothing(folder: Path) -> None:
    count = int(os.environ.get("DUBITO_TEST_FUZZ_CASES", "10000"))
    _fuzz(folder, count, int(os.environ.get("DUBITO_TEST_FUZZ_SEED", "1")))
