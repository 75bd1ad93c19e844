"""What a row over a large vocabulary takes where no spread over the passes is asked for.

    MALLOC_MMAP_THRESHOLD_=1048576 python benchmarks/bench_vocabulary.py
        [--classes 50257] [--length 128] [--samples 16]

One row of tokens, each with a distribution over all classes. Prints the memory that the process
takes at most beside what it held before, that of the means among it, and the time beside the passes
alone; and what the plan takes that the first row of a length waits for. With every column the same
row is refused within the default budget. The variable lets glibc give freed arrays back at once.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread
from typing import Any

import torch
from torch import Tensor, nn

from dubito.engine import Engine, Sampling
from dubito.errors import InputError
from dubito_nn import export

MIB = 2**20
ASKED = ("label", "predictive_entropy", "mutual_information")


class Speller(nn.Module):
    """Tokens (B, S) to logits over the vocabulary, (B, S, C)."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.table, self.drop = nn.Embedding(classes, 64), nn.Dropout(0.1)
        self.head = nn.Linear(64, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.head(self.drop(self.table(tokens)))
        return logits


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--classes", type=int, default=50257)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--samples", type=int, default=16, help="T")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path, tokens = Path(folder) / "speller.dubito", torch.randint(0, options.classes, (3, 4))
        export(
            Speller(options.classes),
            tokens,
            path,
            task="classification",
            output="logits",
            class_axis=2,
            free_dims={"tokens": {1: "length"}},
        )
        engine = Engine.load(path, num_samples=options.samples)
    row, sampling = torch.randint(0, options.classes, (1, options.length)), engine.defaults
    _, _, planned = _measured(lambda: engine.pieces("shared", {"tokens": row}))
    _, passes_s, _ = _measured(lambda: _passes(engine, row, sampling))
    answer, asked_s, more = _measured(lambda: engine.predict(row, outputs=ASKED))
    try:
        engine.predict(row)
        every = "answered"
    except InputError as error:
        every = f"refused: {error}"
    found = {
        "plan_mib": round(planned / MIB),
        "more_mib": round(more / MIB),
        "means_mib": round(answer.mean.nbytes / MIB),
        "predict_s": round(asked_s, 2),
        "predict_to_passes": round(asked_s / passes_s, 2),
        "every_column": every,
    }
    print(json.dumps(found, indent=1))


def _passes(engine: Engine, row: Tensor, sampling: Sampling) -> None:
    """One pass after the other, none of them kept."""
    (tile,) = engine.pieces("shared", {"tokens": row}).lean.tiles({"tokens": row}, sampling, None)
    for raw in tile.passes(range(sampling.num_samples)):
        del raw


def _measured(work: Callable[[], Any]) -> tuple[Any, float, int]:
    """What it returns, its processor time, and how much the process grew at most meanwhile."""
    before, done = _resident(), Event()
    peak = [before]

    def watch() -> None:
        while not done.wait(0.002):
            peak[0] = max(peak[0], _resident())

    watcher = Thread(target=watch)
    watcher.start()
    started = time.process_time()
    returned = work()
    took = time.process_time() - started
    done.set()
    watcher.join()
    return returned, took, peak[0] - before


def _resident() -> int:
    """Bytes that the process holds in memory (Linux)."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


if __name__ == "__main__":
    main()
