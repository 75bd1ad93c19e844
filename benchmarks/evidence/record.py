"""What the evidence scripts share: their arguments, progress on the screen, and the record."""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar
from rich.table import Table

import dubito
from dubito_nn.training import Progress

HERE = Path(__file__).parent
Settings = Mapping[str, object]


def parser(description: str | None, *, needs_data: bool = True) -> argparse.ArgumentParser:
    """Return a parser with the arguments of every script."""
    made = argparse.ArgumentParser(description=(description or "").splitlines()[0])
    made.add_argument("--data", type=Path, required=needs_data, help="the folder that holds mnist/")
    made.add_argument("--results", type=Path, default=HERE / "results", help="where JSON goes")
    made.add_argument("--quick", action="store_true", help="a smoke run: no figure to go by")
    made.add_argument("--threads", type=int, default=1, help="of torch")
    return made


@contextmanager
def training_bar(label: str, note: Callable[[], str] = str) -> Iterator[Callable[[Progress], None]]:
    """Show epochs, loss and a note while a network is trained; give the callback of `train`.

    Args:
        label: In front of the bar.
        note: Called after every epoch; shown behind the loss.
    """
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=None, note="")

        def show(state: Progress) -> None:
            held_out = state.validation_loss
            shown = f"loss {state.loss:.3f}" + (f", held out {held_out:.3f}" if held_out else "")
            bar.update(
                task,
                completed=state.epoch,
                total=state.epochs,
                note=f"{shown} {note()}",
            )

        yield show


def print_table(title: str, head: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print figures beside their reference."""
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*(cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row))
    Console().print(table)


def write(
    folder: Path,
    name: str,
    *,
    settings: Settings,
    figures: Settings,
    seconds: float,
    is_quick: bool,
) -> None:
    """Write a record: figures, settings, seeds, versions, commit, machine."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "figures": figures,
        "settings": settings,
        "seconds": round(seconds, 1),
        "quick": is_quick,
        "torch": torch.__version__,
        "dubito": dubito.__version__,
        "commit": _commit(),
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
    }
    path = folder / (f"{name}_quick.json" if is_quick else f"{name}.json")
    path.write_text(json.dumps(record, indent=1) + "\n")
    Console().print(f"written to {path}")


def _commit() -> str:
    asked = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        cwd=HERE,
    )
    return asked.stdout.strip()
