"""One network through export, engine and comparison with eager mode.

The moments of T passes of the engine and of N eager ones are compared by z-scores: of means with
their standard errors, of deviations with theirs under normality. Under equality the largest of
some dozen |z| stays below `MOST` but for one case in ten thousand; outputs have heavier tails than
the normal, so the bound is wide.
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

from dubito.engine import Engine, Sampling
from dubito_nn import ExportError, export
from dubito_nn.lifting.capture import set_mode

PASSES, MOST = 256, 6.0


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
    start = time.perf_counter()
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
            return {"state": "refused", "why": str(error), "export_s": _since(start)}
        except Exception as error:
            return {"state": "crashed", "why": f"{type(error).__name__}: {_first(error)}"}
        said = {"sites": len(bundle.sites), "export_s": _since(start)}
        start = time.perf_counter()
        try:
            engine = Engine.load(path, timing_limit_s=0)
        except Exception as error:
            return {"state": "not loaded", "why": _first(error), **said}
    said["load_s"] = _since(start)
    try:
        z = _largest_z(engine, case)
    except Exception as error:
        return {"state": "not answered", "why": _first(error), **said}
    said["z"] = round(z, 2)
    return {"state": "equal" if z <= MOST else "unequal", **said}


def _largest_z(engine: Engine, case: Case) -> float:
    """The largest |z| of means and deviations, of two rows."""
    rows = case.rows(2)
    names = [spec.name for spec in engine.manifest.inputs]
    named = rows if isinstance(rows, dict) else dict(zip(names, rows, strict=True))
    ours = engine.sample(named, sampling=Sampling(PASSES, draw="iid")).double()
    set_mode(case.network, "sampling")
    torch.manual_seed(1)
    with torch.no_grad():
        theirs = torch.stack([case.answered(rows) for _ in range(PASSES)]).double()
    theirs = theirs.reshape(ours.shape)
    spread = (ours.var(0) / len(ours) + theirs.var(0) / len(theirs)).sqrt()
    scale = 1e-5 * max(1.0, float(theirs.abs().max()))
    mean_z = (ours.mean(0) - theirs.mean(0)).abs() / (spread + scale)
    log_ratio = ((ours.std(0) + scale) / (theirs.std(0) + scale)).log().abs()
    tails = ((ours - ours.mean(0)) ** 4).mean(0) / (ours.var(0) + scale**2) ** 2
    deviation_z = log_ratio / ((tails.clamp_min(3) - 1) / 4 * 2 / PASSES).sqrt()
    return max(float(mean_z.max()), float(deviation_z.max()))


def _since(start: float) -> float:
    return round(time.perf_counter() - start, 2)


def _first(error: Exception) -> str:
    text = (str(error).strip().splitlines() or [""])[0]
    return re.sub(r"/\S+/", "", text)[:300] or type(error).__name__
