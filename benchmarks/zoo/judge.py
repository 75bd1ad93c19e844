"""One network through export, engine and comparison with eager mode.

The moments of T passes of the engine and of N eager ones are compared by z-scores: of means with
their standard errors, of deviations with theirs under normality. Under equality the largest of
some dozen |z| stays below `MOST` but for one case in ten thousand; outputs have heavier tails than
the normal, so the bound is wide. Where it is passed, as by a map of thousands of numbers with heavy
tails, eager passes of other seeds say how far they are from each other; beyond `APART` times that
is unequal.
"""

from __future__ import annotations

import logging
import re
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from benchmarks.zoo.cases import Build, Case
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dubito.engine import Engine, Sampling
from dubito_nn import ExportError, export
from dubito_nn.capturing.capture import set_mode

PASSES, MOST, APART = 256, 6.0, 1.5


def judged(build: Build) -> dict[str, object]:
    """What became of a network: how far it came, why no farther, and how long it took."""
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    try:
        case = build()
        with torch.no_grad():
            set_mode(case.network, "evaluation")
            case.answered(case.inputs)
    except Exception as error:
        return {"state": "not built", "why": _first(error)}
    start = _Clock()
    with TemporaryDirectory() as folder:
        path = Path(folder) / "network.dubito"
        try:
            bundle = export(
                case.network,
                case.inputs,
                path,
                **{"task": "classification", "output": "logits", **case.terms},  # type: ignore[arg-type]
            )
        except ExportError as error:
            return {"state": "refused", "why": str(error), **start.said("export")}
        except Exception as error:
            return {"state": "crashed", "why": f"{type(error).__name__}: {_first(error)}"}
        said = {"sites": len(bundle.sites), "draws": _draws(case), **start.said("export")}
        start = _Clock()
        try:
            engine = Engine.load(path, timing_limit_s=0)
        except Exception as error:
            return {"state": "not loaded", "why": _first(error), **said}
    said |= start.said("load")
    try:
        return {**said, **_compared(engine, case)}
    except Exception as error:
        return {"state": "not answered", "why": _first(error), **said}


def _compared(engine: Engine, case: Case) -> dict[str, object]:
    """Whether two rows have the same moments, and the largest |z|."""
    rows = case.rows(2)
    names = [spec.name for spec in engine.manifest.inputs]
    named = rows if isinstance(rows, dict) else dict(zip(names, rows, strict=True))
    ours = engine.sample(named, sampling=Sampling(PASSES, draw="iid")).double()
    z = _largest_z(ours, _eager(case, 1).reshape(ours.shape))
    if z <= MOST:
        return {"state": "equal", "z": round(z, 2)}
    usual = max(_largest_z(_eager(case, seed), _eager(case, seed + 1)) for seed in (2, 4))
    state = "equal" if z <= APART * usual else "unequal"
    return {"state": state, "z": round(z, 2), "z_of_eager": round(usual, 2)}


def _eager(case: Case, seed: int) -> Tensor:
    """Passes of the network itself, (T, rows, ...)."""
    set_mode(case.network, "sampling")
    torch.manual_seed(seed)
    with torch.no_grad():
        return torch.stack([case.answered(case.rows(2)) for _ in range(PASSES)]).double()


def _largest_z(ours: Tensor, theirs: Tensor) -> float:
    """The largest |z| of means and deviations."""
    spread = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
    scale = 1e-5 * max(1.0, float(theirs.abs().max()))
    mean_z = (ours.mean(0) - theirs.mean(0)).abs() / (spread + scale)
    log_ratio = ((ours.std(0) + scale) / (theirs.std(0) + scale)).log().abs()
    tails = ((ours - ours.mean(0)) ** 4).mean(0) / (ours.var(0) + scale**2) ** 2
    deviation_z = log_ratio / ((tails.clamp_min(3) - 1) / 4 * 2 / PASSES).sqrt()
    return max(float(mean_z.max()), float(deviation_z.max()))


def _draws(case: Case) -> int:
    """How many random operators an eager pass runs."""
    set_mode(case.network, "sampling")
    with _Counting() as counting, torch.no_grad():
        case.answered(case.rows(2))
    return counting.count


class _Counting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what torch says draws random numbers."""

    count = 0

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: object,
        args: tuple[object, ...] = (),
        kwargs: dict[str, object] | None = None,
    ) -> object:
        self.count += torch.Tag.nondeterministic_seeded in func.tags
        return func(*args, **(kwargs or {}))


class _Clock:
    """Seconds since it was made, by the clock and of the processor."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def said(self, step: str) -> dict[str, object]:
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        return {f"{step}_s": round(wall, 2), f"{step}_processor_s": round(processor, 2)}


def _first(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"/\S+/", "", text)[:300] or type(error).__name__
