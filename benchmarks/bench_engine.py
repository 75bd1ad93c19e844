"""T passes of the engine against a loop of T forward passes, in one run.

    scripts/bench                      the whole table, about ten minutes on two cores
    scripts/bench --samples 20 --batches 1 16

Both sides get fresh inputs at every timed call and are timed in turn; the figure is the minimum of
the repetitions. The loop is what users write today:

    torch.stack([model(x).softmax(-1) for _ in range(T)])

The engine's side is `Engine.predict`, with mean, variance, standard error and all measures.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from networks import CASES, Case
from torch import Tensor, nn

import dubito
from dubito.engine import Engine
from dubito_nn import export

HERE = Path(__file__).parent


def main() -> None:
    arguments = _arguments()
    rows = []
    for case in CASES:
        torch.manual_seed(0)
        network = case.build()
        engine = _engine(network, case, arguments.samples)
        for batch in arguments.batches:
            rows.append(_measure(case, network, engine, batch, arguments))
            print(_line(rows[-1]), flush=True)
    result = {"machine": _machine(), "samples": arguments.samples, "rows": rows}
    path = HERE / "results" / "bench_engine.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    print(f"\n{_table(result)}\nwritten to {path.relative_to(Path.cwd())}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=50, help="T")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 16, 128], help="B")
    parser.add_argument("--repeats", type=int, default=7, help="of the fast cases")
    parser.add_argument("--seconds", type=float, default=60, help="after which a case stops, at 3")
    return parser.parse_args()


def _engine(network: nn.Module, case: Case, samples: int) -> Engine:
    with tempfile.TemporaryDirectory() as folder:
        bundle = export(
            network,
            torch.randn(4, *case.shape),
            Path(folder) / "network.dubito",
            task="classification",
            output="logits",
        )
    return Engine.load(bundle, num_samples=samples)


def _measure(
    case: Case, network: nn.Module, engine: Engine, batch: int, arguments: argparse.Namespace
) -> dict[str, object]:
    samples = arguments.samples

    def loop(x: Tensor) -> Tensor:
        return torch.stack([network(x).softmax(-1) for _ in range(samples)])

    def one_forward(x: Tensor) -> Tensor:
        return network(x).softmax(-1)

    sides: dict[str, Callable[[Tensor], object]] = {
        "loop": loop,
        "engine": engine.predict,
        "one_forward": one_forward,
    }
    inputs = _fresh(case, batch)
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    network.train()
    with torch.no_grad():
        for side in sides.values():
            side(next(inputs))
        start = time.perf_counter()
        for repeat in range(arguments.repeats):
            if repeat >= 3 and time.perf_counter() - start > arguments.seconds:
                break
            for name, side in sides.items():
                x = next(inputs)
                before = time.perf_counter()
                side(x)
                seconds[name].append(time.perf_counter() - before)
    best = {f"{name}_s": min(times) for name, times in seconds.items()}
    return {
        "network": case.name,
        "batch": batch,
        "repeats": len(seconds["loop"]),
        **best,
        "ratio": best["loop_s"] / best["engine_s"],
        "forwards": best["engine_s"] / best["one_forward_s"],
    }


def _fresh(case: Case, batch: int) -> Iterator[Tensor]:
    generator = torch.Generator().manual_seed(1)
    while True:
        yield torch.randn(batch, *case.shape, generator=generator)


def _machine() -> dict[str, object]:
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE
    )
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "dubito": dubito.__version__,
        "commit": commit.stdout.strip(),
    }


def _processor() -> str:
    """The model's name where Linux tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    named = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return named[0] if named else platform.processor() or platform.machine()


def _line(row: dict[str, object]) -> str:
    return (
        f"{row['network']}, B = {row['batch']}: loop {row['loop_s'] * 1e3:.1f} ms,"  # type: ignore[operator]
        f" engine {row['engine_s'] * 1e3:.1f} ms, {row['ratio']:.1f}x"  # type: ignore[operator]
    )


def _table(result: dict[str, object]) -> str:
    lines = [
        "| network | B | loop, ms | engine, ms | loop / engine | engine / one forward |",
        "|---|---|---|---|---|---|",
    ]
    for row in result["rows"]:  # type: ignore[union-attr]
        lines.append(
            f"| {row['network']} | {row['batch']} | {row['loop_s'] * 1e3:.1f}"
            f" | {row['engine_s'] * 1e3:.1f} | {row['ratio']:.1f} | {row['forwards']:.1f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
