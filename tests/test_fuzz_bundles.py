"""Mutated bundles are refused by a reason or answered sanely: no crash, no hang.

`DUBITO_TEST_FUZZ_CASES` sets the number of cases (10000 before a release), `DUBITO_TEST_FUZZ_SEED`
the seed, which is a number of the commit otherwise and is printed.
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


def commit() -> int:
    """A number of the commit at hand, so that commits together try other cases; 0 without git."""
    asked = ["git", "rev-parse", "--short=8", "HEAD"]
    said = subprocess.run(asked, cwd=ROOT, capture_output=True, text=True, check=False)
    return int(said.stdout, 16) if said.returncode == 0 else 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_mutated_bundles_crash_nothing(folder: Path) -> None:
    count = int(os.environ.get("DUBITO_TEST_FUZZ_CASES", "1000"))
    seed = int(os.environ.get("DUBITO_TEST_FUZZ_SEED", commit()))
    print(f"DUBITO_TEST_FUZZ_SEED={seed}")
    _fuzz(folder, count, seed)
