"""`dubito demo`: three networks on real data, trained, calibrated and registered."""

from __future__ import annotations

from typing import Annotated

import torch
import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from dubito.application import Application
from dubito.cli.console import application, messages, output
from dubito.recipes.demo import RECIPES, Published, Recipe, is_published, publish
from dubito_nn import training

_COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description:<16}"),
    BarColumn(),
    TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
    TimeElapsedColumn(),
    TextColumn("{task.fields[note]}"),
)


def demo(
    if_missing: Annotated[
        bool, typer.Option("--if-missing", help="Make only the models that do not exist yet.")
    ] = False,
) -> None:
    """Train, calibrate and register the networks of the demonstration."""
    if make(if_missing=if_missing):
        output().print("next: dubito serve")


def make(*, if_missing: bool) -> bool:
    """Make the models of the demonstration and show how good they are; whether any was made.

    Args:
        if_missing: only those that do not exist yet.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # small networks train faster so, and the same whatever the machine
    try:
        with application() as running:
            wanted = [r for r in RECIPES if not (if_missing and is_published(running, r))]
            made = _make(running, wanted) if wanted else []
    finally:
        torch.set_num_threads(threads)
    if made:
        _show(made)
    return bool(made)


def _show(made: list[Published]) -> None:
    table = Table("model", "version", "train", "calibration", "test", "on the test rows", "time")
    for published in made:
        table.add_row(
            published.model,
            str(published.version),
            *map(str, (published.num_train, published.num_calibration, published.num_test)),
            f"{published.score_name} {published.score:.4g}",
            f"{published.elapsed_s:.0f} s",
        )
    output().print(table)


def _make(running: Application, recipes: list[Recipe]) -> list[Published]:
    made = []
    with Progress(*_COLUMNS, console=messages()) as bar:
        tasks = [bar.add_task(r.name, total=r.epochs, start=False, note="") for r in recipes]
        for recipe, task in zip(recipes, tasks, strict=True):
            bar.start_task(task)

            def show(at: training.Progress, task: int = task) -> None:
                rates = ", ".join(f"p {rate:.2f}" for rate in at.drop_probs.values())
                done = "calibrating" if at.epoch == at.epochs else f"loss {at.loss:.3f} {rates}"
                bar.update(task, completed=at.epoch, note=done)  # type: ignore[arg-type]

            made.append(publish(running, recipe, show))
            bar.update(task, note="ready")
            bar.stop_task(task)
    return made
