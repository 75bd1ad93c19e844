"""T passes with `sites="last"` against one plain forward pass, and against T passes of all sites.

    python benchmarks/bench_sites.py            some five minutes; writes its table in README.md
    python benchmarks/bench_sites.py --networks lstm --batches 1 --repeats 3 --results FILE

The encoder, the LSTM and the ResNet of bench_engine.py, each with dropout in front of its last
map too. One process, one thread; the sides take turns, each call with fresh rows, and count with
the lower quartile of their processor times. The plain side is the network itself in evaluation
mode; the engine's side is `Engine.predict` with all measures, of independent stratified masks that
all rows share. `agreement` is the rank correlation of mutual information with all sites; the
networks are not trained, so it tells only that the figure is to be had.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from networks import Encoder, Recurrent, residual
from tables import commit, footer, put_between_markers
from torch import Tensor, nn

from dubito.bench import Limits, describe_machine, interleaved
from dubito.bench.agreement import agreements
from dubito.engine import Engine, Sampling
from dubito_nn import export

HERE = Path(__file__).parent
HEAD_DROP_PROB = 0.3
_COMPARED_ROWS = 64


@dataclass(frozen=True)
class Case:
    """A network with dropout in front of its last map, and the shape of its rows."""

    name: str
    build: Callable[[], nn.Module]
    shape: tuple[int, ...]


CASES = {
    "encoder": Case(
        "transformer encoder, 4 layers, d 256, length 64",
        lambda: Encoder(HEAD_DROP_PROB),
        (64, 256),
    ),
    "resnet": Case(
        "ResNet, 3 stages of 2 blocks, DropBlock, stochastic depth",
        lambda: residual(HEAD_DROP_PROB),
        (3 * 32 * 32,),
    ),
    "lstm": Case("LSTM, 2 layers of 256, length 32", lambda: Recurrent(HEAD_DROP_PROB), (32, 64)),
}


def main() -> None:
    options = _parser().parse_args()
    torch.set_num_threads(1)
    rows = []
    for key in options.networks:
        rows += _measured(CASES[key], options)
        print(json.dumps(rows[-1]), flush=True)
    machine = {**asdict(describe_machine(torch.device("cpu"))), "commit": commit()}
    result = {"machine": machine, "num_samples": options.samples, "rows": rows}
    text = _section(result)
    print(text)
    path = options.results or HERE / "results" / "bench_sites.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    if options.results is None:
        put_between_markers(HERE / "README.md", "bench_sites", text)


def _measured(case: Case, options: argparse.Namespace) -> list[dict[str, object]]:
    torch.manual_seed(0)
    network = case.build()
    with tempfile.TemporaryDirectory() as folder:
        path, example = Path(folder) / "network.dubito", torch.randn(4, *case.shape)
        bundle = export(network, example, path, task="classification", output="logits")
    network.eval()
    engine = Engine.load(bundle, num_samples=options.samples)
    every, last = Sampling(options.samples), Sampling(options.samples, sites="last")
    compared = engine.read_inputs(torch.randn(_COMPARED_ROWS, *case.shape))
    agreement = agreements(engine, compared, every, ["last"])[-1]

    def plain(x: Tensor) -> Tensor:
        with torch.no_grad():
            return network(x).softmax(-1)

    sides: dict[str, Callable[[Tensor], object]] = {
        "plain": plain,
        "last": lambda x: engine.predict(x, sampling=last),
        "all": lambda x: engine.predict(x, sampling=every),
    }
    made = []
    for batch in options.batches:
        limits = Limits(options.repeats, least=3, limit_s=options.seconds)
        fresh = partial(torch.randn, batch, *case.shape)
        timed = interleaved(sides, fresh, limits, clock=time.process_time)
        quartiles = {
            name: float(np.quantile(timing.seconds, 0.25)) for name, timing in timed.items()
        }
        made.append(
            {
                "network": case.name,
                "batch": batch,
                "sites": len(bundle.sites),
                "sampled": agreement.sampled,
                "seconds": quartiles,
                "last_over_plain": quartiles["last"] / quartiles["plain"],
                "all_over_plain": quartiles["all"] / quartiles["plain"],
                "rank_epistemic": agreement.rank_epistemic,
            }
        )
    return made


def _section(result: dict[str, object]) -> str:
    head = ("network", "sites", "B", "one forward", "last", "all", "last / one forward")
    lines = [f"| {' | '.join((*head, 'all / one forward'))} |", "|" + "---|" * (len(head) + 1)]
    for row in result["rows"]:  # type: ignore[attr-defined]
        times = [f"{1e3 * row['seconds'][side]:.3g}" for side in ("plain", "last", "all")]
        cells = [row["network"], f"{row['sampled']} of {row['sites']}", str(row["batch"]), *times]
        cells += [f"{row['last_over_plain']:.2f}", f"{row['all_over_plain']:.1f}"]
        lines.append(f"| {' | '.join(cells)} |")
    lines += ["", footer(result)]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--networks", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--samples", type=int, default=50, help="T")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16], help="B")
    parser.add_argument("--repeats", type=int, default=15, help="timed calls of each side")
    parser.add_argument("--seconds", type=float, default=60, help="after which 3 calls are enough")
    parser.add_argument("--results", type=Path, help="JSON goes there, and README.md stays")
    return parser


if __name__ == "__main__":
    main()
