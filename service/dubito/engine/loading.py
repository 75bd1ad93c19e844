"""A bundle on its way to answers: proved, timed, and measured where a request would else wait.

Its job: do at load what must not be done in a request, and not again what an earlier load found.
"""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from dubito.engine import proof
from dubito.engine.answering.recording import RECORDED_AT_LOAD
from dubito.engine.calling.arguments import check_precision
from dubito.engine.calling.sampling import Sampling
from dubito.engine.deviation import check_deviation, in_float32, measured
from dubito.engine.findings import Findings
from dubito.engine.planning.placement import placed
from dubito.engine.plans import Plans, allowed_bytes
from dubito.engine.proving.clock import Clock
from dubito.engine.proving.sizes import GraphLimits
from dubito.engine.running.fold import repeated_each
from dubito.engine.summing.compiled import is_used, warm_up
from dubito.errors import BundleRefusedError, InputError
from dubito.preprocess import ready
from dubito_nn import Bundle, BundleError, load_bundle

if TYPE_CHECKING:
    from dubito.engine.engine import Engine

_MOST_S = 0.2  # of a call as requests make it, from which it is left to the first of them


def read(source: str | Path | bytes) -> Bundle:
    """The bundle in a file, or in its bytes.

    Raises:
        BundleRefusedError: it is unsound.
    """
    try:
        return load_bundle(source)
    except BundleError as error:
        raise BundleRefusedError(str(error)) from error


def proved(
    kind: type[Engine],
    bundle: Bundle,
    device: torch.device,
    defaults: Sampling,
    budget_bytes: int,
    findings: Findings,
    proof_limit_s: float | None,
    max_deviation: float,
) -> Engine:
    """An engine whose bundle has run on made-up rows, now or at an earlier load.

    Args:
        kind: of engine.
        bundle: the lifted network.
        device: where it runs.
        defaults: sampling where a call names none.
        budget_bytes: of the values of one call.
        findings: of earlier loads.
        proof_limit_s: processor time that the proof of a small bundle may take; None: no limit.
        max_deviation: of figures from those in float32.

    Raises:
        BundleRefusedError: the bundle is unsound or does not run.
        InputError: the device lacks the precision, or figures deviate by more.
    """
    check_precision(defaults.precision, device)
    about = proof.about(bundle, device, budget_bytes)
    known = proof.known_size(findings.get(about), proof_limit_s)
    clock = Clock(proof_limit_s, bundle.size_bytes)
    limits = GraphLimits(allowed_bytes(budget_bytes), clock)
    free = proof.fitting_size(bundle, limits) if known is None else known
    try:
        ready(bundle.manifest)
    except InputError as error:
        raise BundleRefusedError(str(error)) from error
    with proof.refusing():
        programs = placed(bundle, device, defaults.precision)
        plans = Plans(bundle, programs, device, defaults, budget_bytes, clock)
        engine = kind(bundle, device, programs, defaults, budget_bytes, plans, free)
        rows = engine.made_up_rows()
        plans.trust(rows)
        if known is None:
            proof.try_out(in_float32(engine), rows)
            findings.put(about, free)
    deviation = measured(engine, findings)
    check_deviation(deviation, defaults.precision, max_deviation)
    engine.deviation, plans.clock = deviation, Clock(None)
    return engine


def prepare(engine: Engine, findings: Findings, timing_limit_s: float | None) -> None:
    """Measure, compile and record now what the first request would else wait for.

    Args:
        engine: proved.
        findings: of earlier loads.
        timing_limit_s: on the wall, for finding out which forms pay; None: no limit.

    Raises:
        BundleRefusedError: the network does not run.
    """
    rows = engine.made_up_rows()
    first = {name: tensor[:1] for name, tensor in rows.items()}
    if is_used(engine.device):
        warm_up()
    with proof.refusing():
        engine.plans.time_forms(rows, findings, timing_limit_s)
        if engine.defaults.draw == "stratified":
            engine.left  # noqa: B018
        two = replace(engine.defaults, num_samples=2, sites="all")
        outputs, start = engine.fitting_outputs(first), time.perf_counter()
        engine.predict(first, sampling=two, outputs=outputs)
        two_s = time.perf_counter() - start
        if two_s * engine.defaults.num_samples < 2 * _MOST_S:  # draws, gathers and keeps all masks
            engine.predict(first, outputs=outputs)
        if engine.device.type == "cuda":
            for count in RECORDED_AT_LOAD * 2:  # the second call records
                engine.predict({name: repeated_each(x, count, 0) for name, x in first.items()})
