"""BatchBALD against batchbald_redux: the same probabilities, candidates and configurations.

    pip install --no-deps --target PEERS -r benchmarks/peers_acquisition.txt
    PYTHONPATH=PEERS python benchmarks/bench_acquisition.py        about two minutes on one core

Probabilities of T random linear networks with a common part, so that rows share what ω decides.
Each side runs in a process of its own, once, in float64, and answers with its rows, its time and
its peak memory, which counts the interpreter, torch and the probabilities. The rows must be the
same as long as all outcomes are kept; where outcomes are drawn, the two batches are compared by the
information that 20,000 outcomes of another seed give them.

Dimensions: T samples, N candidates, C classes.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import resource
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import dubito
from dubito.acquisition.batches import batchbald
from dubito.acquisition.batches.picks import Picks
from dubito.acquisition.draws import words

HERE = Path(__file__).parent
SIDES = ("dubito", "batchbald_redux")
_JUDGES = 20_000  # outcomes by which two batches are compared


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    if options.side is not None:
        print(json.dumps(_measured(options)))
        return
    found = {side: _in_a_process(side) for side in SIDES}
    mine, theirs = (found[side] for side in SIDES)
    exact = 1 + int(math.log(options.configurations, options.classes) + 1e-9)
    probs_TNC = probabilities(options)
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {options.threads} thread",
        "versions": {name: version(name) for name in ("torch", "batchbald_redux")}
        | {"dubito": dubito.__version__},
        "settings": {key: value for key, value in vars(options).items() if key != "side"},
        "sides": found,
        "exact_rows": exact,
        "same_exact_rows": mine["rows"][:exact] == theirs["rows"][:exact],
        "times_faster": theirs["seconds"] / mine["seconds"],
        "information": {side: _information(probs_TNC, found[side]["rows"]) for side in SIDES},
    }
    path = HERE / "results" / "bench_acquisition.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


def probabilities(options: argparse.Namespace) -> Tensor:
    """Probabilities (T, N, C) of random linear networks."""
    generator = np.random.default_rng(options.seed)
    points_NF = generator.normal(size=(options.rows, 32))
    common_FC = generator.normal(size=(32, options.classes))
    own_TFC = generator.normal(size=(options.samples, 32, options.classes))
    logits_TNC = np.matmul(points_NF, 0.3 * common_FC + 0.15 * own_TFC)
    return torch.from_numpy(logits_TNC).softmax(-1)


def _measured(options: argparse.Namespace) -> dict[str, object]:
    """Rows, time and memory of one side."""
    probs_TNC = probabilities(options)
    run = _dubito if options.side == "dubito" else _redux
    if options.side != "dubito":
        probs_TNC = probs_TNC.transpose(0, 1).log()  # what it takes: (N, T, C), logarithms
        probs_TNC = probs_TNC.contiguous()
    start = time.perf_counter()
    rows = run(probs_TNC, options)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"rows": rows, "seconds": seconds, "peak_bytes": peak}


def _dubito(probs_TNC: Tensor, options: argparse.Namespace) -> list[int]:
    picks = Picks(options.k, words(options.seed, np.arange(options.rows)))
    batchbald.choose(probs_TNC, picks, seed=options.seed, configurations=options.configurations)
    return picks.places


def _redux(log_probs_NTC: Tensor, options: argparse.Namespace) -> list[int]:
    from batchbald_redux.batchbald import get_batchbald_batch

    torch.manual_seed(options.seed)
    batch = get_batchbald_batch(
        log_probs_NTC, options.k, options.configurations, dtype=torch.double, device="cpu"
    )
    return [int(index) for index in batch.indices]


def _information(probs_TNC: Tensor, rows: list[int]) -> float:
    """What the labels of the rows say about ω, nats, by drawn outcomes of one more seed."""
    known = batchbald.Configurations.none(len(probs_TNC), _JUDGES, 2**20, probs_TNC)
    expected_N = torch.special.entr(probs_TNC).sum(-1).mean(0)
    total = 0.0
    for row in rows:
        total += float(known.conditional_entropy(probs_TNC[:, [row]])[0] - expected_N[row])
        known.add(probs_TNC[:, row])
    return total


def _in_a_process(side: str) -> dict[str, list[int]]:
    command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000, help="N, all of them candidates")
    parser.add_argument("--samples", type=int, default=100, help="T")
    parser.add_argument("--classes", type=int, default=10, help="C")
    parser.add_argument("--k", type=int, default=10)
    parser.add_argument("--configurations", type=int, default=1000, help="outcomes, at most")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--side", choices=SIDES, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
