"""T passes of the engine against a loop of T forward passes and against other libraries.

    scripts/bench                                  everything; installs the other libraries first
    scripts/bench --networks mlp lstm --samples 20 --batches 1 16      prints, and writes nothing
    scripts/bench --device cuda --samples 50 200 --batches 1 16 128 1024

All sides run in one process and take turns, each call with fresh rows; rows start and answers end
on the host; the figure is the minimum of the repetitions. The engine's side is `Engine.predict`
with all measures; the others return the passes alone. `new seed` is the engine where every call
has another seed, so that no mask is kept from the call before. README.md says the rest.

A full run writes results/bench_engine.json (bench_engine_cuda.json) and the table in README.md.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from networks import CASES, Case
from peers import LOOP, PEERS, Peer, Standing, make_peer, peer_versions, standing
from rate import matrix_rate
from tables import line, put_between_markers, section
from torch import Tensor, nn

from dubito.bench import (
    Limits,
    Timing,
    describe_machine,
    interleaved,
    one_after_the_other,
)
from dubito.engine import Engine, Sampling
from dubito_nn import Bundle, export

HERE = Path(__file__).parent
ENGINE, NEW_SEED, PLAIN = "engine", "new seed", "plain"
Row = dict[str, object]


@dataclass(frozen=True)
class Sides:
    """What is timed on one network at one T, and what became of the peers that cannot be.

    Args:
        calls: by name.
        peers: those among them that are peers.
        failed: the other peers' reasons.
    """

    calls: Mapping[str, Callable[[Tensor], object]]
    peers: Mapping[str, Peer]
    failed: Mapping[str, str]


def main() -> None:
    arguments = _arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.backends.cudnn.allow_tf32 = False  # as in the engine: float32 is float32
    device = torch.device(arguments.device)
    rates = [matrix_rate(device)]
    rows: list[Row] = []
    for case in CASES:
        if case.key not in arguments.networks:
            continue
        for row in _measured(case, device, arguments):
            rows.append(row)
            print(line(row), flush=True)
        rates.append(matrix_rate(device))
    result = {
        "machine": {**asdict(describe_machine(device)), "commit": _commit()},
        "peers": peer_versions(),
        "matrix_flops": max(rates),
        "rows": [_with_share(row, max(rates)) for row in rows],
    }
    print(f"\n{section(result)}")
    _write(result, arguments, device)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    keys = [case.key for case in CASES]
    parser.add_argument("--networks", nargs="+", choices=keys, default=keys)
    parser.add_argument("--samples", type=int, nargs="+", default=[50], help="T")
    parser.add_argument("--batches", type=int, nargs="+", help="B, instead of each network's own")
    parser.add_argument("--repeats", type=int, default=7, help="timed calls of each side")
    parser.add_argument("--seconds", type=float, default=60, help="after which 3 calls are enough")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, help="of torch")
    parser.add_argument("--results", type=Path, help="JSON goes there, and README.md stays")
    return parser.parse_args()


def _measured(case: Case, device: torch.device, arguments: argparse.Namespace) -> Iterator[Row]:
    torch.manual_seed(0)
    network = case.build()
    bundle = _bundle(case, network)
    for samples in arguments.samples:
        sides = _sides(network, bundle, samples, device)
        for batch in arguments.batches or case.aims:
            yield _row(case, sides, samples, batch, arguments, len(bundle.sites))


def _bundle(case: Case, network: nn.Module) -> Bundle:
    with tempfile.TemporaryDirectory() as folder:
        return export(
            network,
            torch.randn(4, *case.shape),
            Path(folder) / "network.dubito",
            task="classification",
            output="logits",
        )


def _sides(network: nn.Module, bundle: Bundle, samples: int, device: torch.device) -> Sides:
    peers, failed = dict[str, Peer](), dict[str, str]()
    for name in PEERS:
        try:
            peers[name] = make_peer(name, network, samples, device)
        except ModuleNotFoundError as error:
            failed[name] = f"not installed: {error}"
        except (ImportError, ValueError) as error:
            failed[name] = str(error)
    plain = make_peer(LOOP, network, 1, device).network.eval()
    engine = Engine.load(bundle, device=str(device), num_samples=samples, timing_limit_s=None)
    # its own, so that it evicts nobody's masks
    redrawing = Engine.load(bundle, device=str(device), timing_limit_s=None)
    seeds = itertools.count(1)
    calls: dict[str, Callable[[Tensor], object]] = {
        PLAIN: lambda x: plain(x.to(device)).softmax(-1).cpu(),
        ENGINE: engine.predict,
        NEW_SEED: lambda x: redrawing.predict(x, sampling=Sampling(samples, next(seeds))),
    }
    calls |= {name: peer.sample for name, peer in peers.items()}
    return Sides(calls, peers, failed)


def _row(
    case: Case,
    sides: Sides,
    samples: int,
    batch: int,
    arguments: argparse.Namespace,
    sites: int,
) -> Row:
    fresh = _fresh(case, batch)
    limits = Limits(arguments.repeats, min(3, arguments.repeats), arguments.seconds)
    with torch.no_grad():
        found = {name: standing(peer, next(fresh)) for name, peer in sides.peers.items()}
        found |= {name: Standing(0, False, reason) for name, reason in sides.failed.items()}
        calls = {
            name: call
            for name, call in sides.calls.items()
            if name not in found or found[name].failed is None
        }
        timings = interleaved(calls, lambda: next(fresh), limits)
        warm = one_after_the_other(calls, lambda: next(fresh), limits) if batch == 1 else {}
    best_s = {name: timing.minimum_s for name, timing in timings.items()}
    running = [name for name in found if name in best_s]
    full = [name for name in running if name == LOOP or found[name].is_full(sites)]
    return {
        "key": case.key,
        "network": case.name,
        "samples": samples,
        "batch": batch,
        "calls": len(timings[ENGINE].seconds),
        "minimum_s": best_s,
        "median_s": {name: timing.median_s for name, timing in timings.items()},
        "warm_s": {name: timing.minimum_s for name, timing in warm.items()},
        "sites": sites,
        "peers": {name: asdict(one) for name, one in found.items()},
        **_ratio("full", full, best_s),
        **_ratio("any", running, best_s),
        "ratio_warm": _warm_ratio(full, warm),
        "aim": case.aims.get(batch) if samples == 50 else None,
        "forwards": best_s[ENGINE] / best_s[PLAIN],
        "kept_flops": case.kept_flops(samples, batch) if case.kept_flops else None,
    }


def _ratio(kind: str, names: Sequence[str], best_s: Mapping[str, float]) -> Row:
    best = min(names, key=lambda name: best_s[name])
    return {f"best_{kind}": best, f"ratio_{kind}": best_s[best] / best_s[ENGINE]}


def _warm_ratio(names: Sequence[str], warm: Mapping[str, Timing]) -> float | None:
    if not warm:
        return None
    return min(warm[name].minimum_s for name in names) / warm[ENGINE].minimum_s


def _fresh(case: Case, batch: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(batch, *case.shape, generator=generator)


def _with_share(row: Row, rate: float) -> Row:
    """Share of the machine's product rate that the engine reached, counting kept units alone."""
    kept = row["kept_flops"]
    seconds = row["minimum_s"][ENGINE]  # type: ignore[index]
    return {**row, "matrix_share": None if kept is None else kept / seconds / rate}


def _write(result: Row, arguments: argparse.Namespace, device: torch.device) -> None:
    has_all = len(set(arguments.networks)) == len(CASES)
    is_full = has_all and (device.type != "cpu" or not arguments.batches)
    name = "bench_engine" if device.type == "cpu" else f"bench_engine_{device.type}"
    if arguments.results is None and not is_full:
        print("not all networks at their own B: nothing is written; --results FILE writes JSON")
        return
    path = arguments.results or HERE / "results" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"written to {path}")
    if arguments.results is None:
        put_between_markers(HERE / "README.md", name, section(result))


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        cwd=HERE,
    )
    return asked.stdout.strip()


if __name__ == "__main__":
    main()
