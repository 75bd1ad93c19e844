"""The time that the mean takes to be as exact: 16 stratified samples, or a peer's passes.

    python benchmarks/bench_same_error.py     half an hour on a quiet core; writes its table
    python benchmarks/bench_same_error.py --networks mlp --weights random --results FILE

The networks of bench_engine.py at B = 16, as they are built, and trained for a moment on
scikit-learn's digits, enlarged to their rows. One process, one thread, processor time.

    error     Σ over rows and classes of the variance of `mean` over seeds: every sample is
              distributed as one pass is, so that this is its mean square error
    passes    independent ones with the same error: Σ of the variance of one pass / error
    peer      the fastest of those that sample every dropout, for so many passes; of more than 64 it
              is asked for 64, and the time counts in proportion
    engine    `Engine.predict` with all columns, T = 16, the masks being kept from call to call, as
              a server keeps them; and with a new seed, so new masks, in every call

Dimensions: S seeds, T samples, B rows, C classes.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from networks import CASES, Case
from peers import LOOP, PEERS, make_peer, peer_versions, standing
from tables import commit, footer, put_between_markers
from torch import Tensor, nn
from trained import digits

from dubito.bench import Limits, describe_machine, interleaved
from dubito.engine import Classification, Engine, Sampling
from dubito_nn import Bundle, export

HERE = Path(__file__).parent
SAMPLES, BATCH = 16, 16
WEIGHTS = ("random", "trained")
_TRAINED_ROWS, _RATE, _WARM_UP, _STEP_ROWS = 1200, 5e-4, 40, 32
_MOST_PASSES = 64  # that a peer is asked for


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    cases = [case for case in CASES if case.key in options.networks]
    rows = []
    for case, weights in itertools.product(cases, options.weights):
        rows.append(_measured(case, weights, options))
        print(json.dumps(rows[-1]), flush=True)
    machine = {**asdict(describe_machine(torch.device("cpu"))), "commit": commit()}
    result = {"machine": machine, "num_samples": SAMPLES, "peers": peer_versions(), "rows": rows}
    text = section(result)
    print(text)
    path = options.results or HERE / "results" / "bench_same_error.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    if options.results is None:
        put_between_markers(HERE / "README.md", "bench_same_error", text)


def _measured(case: Case, weights: str, options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    network = case.build()
    if weights == "trained":
        train(network, case, options.steps)
    network.eval()
    bundle = _bundle(network, case)
    engine = Engine.load(bundle, num_samples=SAMPLES, timing_limit_s=None)
    fresh = _fresh(case, weights)
    rows = next(fresh)
    one_pass, error = errors(engine, rows, options.seeds)
    passes = max(1, round(one_pass / error))
    limits = Limits(options.repeats, least=3, limit_s=options.seconds)
    timed = _seconds(network, bundle, engine, min(passes, _MOST_PASSES), fresh, limits)
    per_pass = max(1.0, passes / _MOST_PASSES)
    best = min((name for name in timed if name in PEERS), key=lambda name: timed[name])
    peer_s = timed[best] * per_pass
    return {
        "key": case.key,
        "network": case.name,
        "weights": weights,
        "mean_deviation": float(np.sqrt(one_pass / (BATCH * 10))),
        "passes": passes,
        "best": best,
        "seconds": timed,
        "peer_s": peer_s,
        "ratio": peer_s / timed["engine"],
        "ratio_new_seed": peer_s / timed["new seed"],
    }


def errors(engine: Engine, rows: Tensor, seeds: int) -> tuple[float, float]:
    """Σ of the variance of one pass, and of the mean of 16 stratified ones.

    Args:
        engine: of a classification.
        rows: B of them.
        seeds: S.
    """
    means, variances = [], []
    for seed in range(1, seeds + 1):
        for draw, found in (("stratified", means), ("iid", variances)):
            said = engine.predict(rows, sampling=Sampling(SAMPLES, seed, draw=draw))
            assert isinstance(said, Classification)
            found.append(said.mean if draw == "stratified" else said.variance)
    one_pass = float(np.mean(variances, axis=0).sum()) * SAMPLES / (SAMPLES - 1)
    return one_pass, float(np.var(means, axis=0, ddof=1).sum())


def _seconds(
    network: nn.Module,
    bundle: Bundle,
    engine: Engine,
    passes: int,
    fresh: Iterator[Tensor],
    limits: Limits,
) -> dict[str, float]:
    """Lower quartile of the processor times of both kinds of calls, and of the peers that count."""
    redrawing = Engine.load(bundle, num_samples=SAMPLES, timing_limit_s=None)
    seeds, sites = itertools.count(1), len(bundle.sites)
    calls: dict[str, Callable[[Tensor], object]] = {
        "engine": engine.predict,
        "new seed": lambda x: redrawing.predict(x, sampling=Sampling(SAMPLES, next(seeds))),
    }
    with torch.no_grad():
        for name in PEERS:
            try:
                peer = make_peer(name, network, passes, torch.device("cpu"))
            except (ImportError, ValueError):
                continue
            if name == LOOP or standing(peer, next(fresh)).is_full(sites):
                calls[name] = peer.sample
        timed = interleaved(calls, lambda: next(fresh), limits, clock=time.process_time)
    return {name: float(np.quantile(timing.seconds, 0.25)) for name, timing in timed.items()}


def train(network: nn.Module, case: Case, steps: int) -> None:
    """Train on digits that are enlarged to the network's rows, by Adam from a fixed seed."""
    images, labels = digits()
    optimiser = torch.optim.Adam(network.parameters(), _RATE)
    growing = torch.optim.lr_scheduler.LinearLR(optimiser, 0.1, total_iters=_WARM_UP)
    network.train()
    for _ in range(steps):
        chosen = torch.randint(_TRAINED_ROWS, (_STEP_ROWS,))
        optimiser.zero_grad()
        loss = nn.functional.cross_entropy(network(enlarged(images[chosen], case)), labels[chosen])
        loss.backward()
        optimiser.step()
        growing.step()


def enlarged(images: Tensor, case: Case) -> Tensor:
    """Digits of 8 x 8 as rows of a network, with 0 as mean and 1 as deviation of all pixels."""
    size = {"mlp": (28, 28), "resnet": (32, 32)}.get(case.key, case.shape[-2:])
    large = nn.functional.interpolate(
        images.reshape(-1, 1, 8, 8), size, mode="bilinear", align_corners=False
    )
    colours = 3 if case.key == "resnet" else 1
    mean, deviation = _of_pixels()
    rows = ((large - mean) / deviation).repeat(1, colours, 1, 1)
    return rows.reshape(len(images), *case.shape)


@cache
def _of_pixels() -> tuple[float, float]:
    images = digits()[0][:_TRAINED_ROWS]
    return float(images.mean()), float(images.std())


def _fresh(case: Case, weights: str) -> Iterator[Tensor]:
    """Rows of normal numbers, or digits that the network was not trained on."""
    generator = torch.Generator().manual_seed(1)
    held_out = digits()[0][_TRAINED_ROWS:]
    while True:
        if weights == "random":
            yield torch.randn(BATCH, *case.shape, generator=generator)
        else:
            chosen = torch.randint(len(held_out), (BATCH,), generator=generator)
            yield enlarged(held_out[chosen], case)


def _bundle(network: nn.Module, case: Case) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        path, example = Path(folder) / "network.dubito", torch.randn(4, *case.shape)
        return export(network, example, path, task="classification", output="logits")


def section(result: dict[str, Any]) -> str:
    """The table and what it was measured on."""
    head = (
        *("network", "weights", "passes with the same error", "best peer", "peer", "engine"),
        *("new seed", "peer / engine", "peer / new seed"),
    )
    lines = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)]
    for row in result["rows"]:
        times = (row["peer_s"], row["seconds"]["engine"], row["seconds"]["new seed"])
        cells = [row["network"], row["weights"], str(row["passes"]), row["best"]]
        cells += [f"{1e3 * seconds:.3g}" for seconds in times]
        cells += [f"{row['ratio']:.1f}", f"{row['ratio_new_seed']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    peers = ", ".join(f"{name} {version}" for name, version in result["peers"].items())
    beside = f" {peers or 'No other library installed'}. Shared machine, processor time."
    return "\n".join([*lines, "", footer(result) + beside])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    keys = [case.key for case in CASES]
    parser.add_argument("--networks", nargs="+", choices=keys, default=keys)
    parser.add_argument("--weights", nargs="+", choices=WEIGHTS, default=list(WEIGHTS))
    parser.add_argument("--seeds", type=int, default=60, help="S, of which errors are the variance")
    parser.add_argument("--steps", type=int, default=200, help="of training")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each side")
    parser.add_argument("--seconds", type=float, default=40, help="after which 3 calls are enough")
    parser.add_argument("--results", type=Path, help="JSON goes there, and README.md stays")
    return parser


if __name__ == "__main__":
    main()
