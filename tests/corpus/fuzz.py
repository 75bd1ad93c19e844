"""Runs mutated bundles in a process of its own, so that a crash of it is seen from outside.

    python -m tests.corpus.fuzz COUNT SEED FOLDER

FOLDER holds the good bundles; the case that is under way lies in it as `case.dubito`. Ends with 0
where every case was refused by a reason or answered sanely.
"""

from __future__ import annotations

import faulthandler
import signal
import sys
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, Phase, given, seed, settings

from dubito.engine import Engine, Sampling
from dubito.engine.proving.sizes import warm_up
from dubito.errors import DubitoError

from .mutations import mutated

HANG_S = 30  # of processor time: a busy machine is no hang
PROOF_S = 1.5


def main(count: int, first: int, folder: Path) -> None:
    torch.set_num_threads(1)
    faulthandler.enable()  # a crash shows where it was
    faulthandler.register(signal.SIGPROF, chain=True)  # and so does a hang, which then ends it
    warm_up()
    bundles = [path.read_bytes() for path in sorted(folder.glob("good-*.dubito"))]
    case, seen = folder / "case.dubito", Counter[str]()

    @seed(first)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(mutated(bundles))
    def run(content: bytes) -> None:
        case.write_bytes(content)
        signal.setitimer(signal.ITIMER_PROF, HANG_S)
        seen[check(content)] += 1
        signal.setitimer(signal.ITIMER_PROF, 0)

    run()
    print(f"{sum(seen.values())} cases: {dict(seen)}")


def check(content: bytes) -> str:
    """What became of a case; anything but a refusal or a sane answer is raised."""
    try:
        engine = Engine.load(content, num_samples=4, proof_limit_s=PROOF_S)
    except DubitoError as error:
        return _refused(error, "refused")
    rows = engine.made_up_rows()
    for method in ("mc", "point"):
        try:
            prediction = engine.predict(rows, sampling=Sampling(4, method=method))  # type: ignore[arg-type]
        except DubitoError as error:
            return _refused(error, "taken, refused to answer")
        assert prediction.mean.shape == prediction.variance.shape
        assert len(prediction.mean) == 2
    return "answered"


def _refused(error: DubitoError, outcome: str) -> str:
    if error.status != 422 or not 0 < len(error.detail) < 1000:
        raise AssertionError(f"expected a 422 with a reason, got {error.status}") from error
    return outcome


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]))
