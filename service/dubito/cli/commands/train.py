"""`dubito train`: a network trained by a configuration, left as a bundle."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from dubito.cli.console import application, local_actor, messages, output, read_arrays
from dubito.errors import InputError
from dubito.names import check_name
from dubito.recipes import TrainConfig, Trained, read_config, run
from dubito.recipes.rows import Arrays
from dubito.recipes.table import SUFFIXES, read_table
from dubito_nn import training
from dubito_nn.preprocess import TableInput

_COLUMNS = (
    SpinnerColumn(),
    TextColumn("{task.description:<10}"),
    BarColumn(),
    TextColumn("{task.completed:.0f}/{task.total:.0f} epochs"),
    TimeElapsedColumn(),
    TextColumn("{task.fields[note]}"),
)


def train(
    config: Annotated[Path, typer.Argument(help="The configuration, a .toml file.")],
    register: Annotated[
        str | None, typer.Option(help="Store the bundle as the next version of this model.")
    ] = None,
) -> None:
    """Train a network with dropout on a .npz file or a table and write its bundle."""
    if register is not None:
        check_name("model", register)
    configuration = read_config(config)
    trained = _with_bar(configuration, *_rows(configuration))
    _report(trained)
    output().print(f"bundle: {configuration.bundle}", soft_wrap=True)
    if register is None:
        return
    with application() as running, running.library.incoming() as path:
        shutil.copyfile(configuration.bundle, path)
        fact = running.library.register(register, path, actor=local_actor())
    output().print(f"registered: {fact.model} version {fact.number}")


def _rows(config: TrainConfig) -> tuple[Arrays, TableInput | None]:
    """The arrays of the file, and how they are made of a table where it is one."""
    if config.data.suffix in SUFFIXES:
        return read_table(config)
    if config.label or config.target or config.columns:
        raise InputError(
            f"{config.data}: expected a table ({', '.join(SUFFIXES)}) for `label`, `target` and "
            "`columns`, got arrays, which have names of their own: leave these out"
        )
    arrays = read_arrays(config.data)
    if not isinstance(arrays, dict):
        raise InputError(
            f"{config.data}: expected a .npz file, got one array: "
            "write it with numpy.savez(path, inputs=..., labels=...)"
        )
    return arrays, None


def _with_bar(config: TrainConfig, arrays: Arrays, declared: TableInput | None) -> Trained:
    epochs = config.training.epochs
    with Progress(*_COLUMNS, console=messages()) as bar:
        tasks: dict[float | None, TaskID] = {}

        def show(at: training.Progress, tried: float | None) -> None:
            if tried not in tasks:
                title = "training" if tried is None else f"p = {tried:g}"
                tasks[tried] = bar.add_task(title, total=epochs, note="")
            bar.update(tasks[tried], completed=at.epoch, note=_note(at))

        return run(config, arrays, show, declared)


def _note(at: training.Progress) -> str:
    held_out = "" if at.validation_loss is None else f" validation {at.validation_loss:.4f}"
    rates = ", ".join(f"p {rate:.3f}" for rate in at.drop_probs.values())
    return f"loss {at.loss:.4f}{held_out} {rates}".rstrip()


def _report(trained: Trained) -> None:
    result, console = trained.result, output()
    facts = Table(show_header=False, box=None)
    facts.add_row("task", trained.rows.task)
    facts.add_row("rows", _counted(trained))
    facts.add_row("epochs", f"{len(result.losses)}, weights of epoch {result.best_epoch}")
    for path, rate in result.drop_probs.items():
        facts.add_row("learned p", f"{rate:.4f} {path}")
    console.print(facts)
    if trained.search is not None:
        console.print(_trials(trained))
    if trained.gap is None or trained.advice is None:
        console.print("no validation rows: the gap to held-out rows is not known")
        return
    gap = trained.gap
    table = Table("loss", "training rows", "validation rows", "gap")
    table.add_row("dropout off", *(f"{v:.4f}" for v in (gap.train, gap.validation, gap.gap)))
    table.add_row("dropout on", f"{gap.masked:.4f}", "", "")
    table.add_row("best constant", f"{gap.constant:.4f}", "", "")
    console.print(table)
    verdict = trained.advice.verdict.replace("_", " ")
    console.print(f"dropout: {verdict}. {trained.advice.text}", soft_wrap=True)


def _counted(trained: Trained) -> str:
    rows = trained.rows
    held_out = 0 if rows.validation is None else len(rows.validation[0])
    return f"{len(rows.inputs)} for training, {held_out} for validation"


def _trials(trained: Trained) -> Table:
    table = Table("p", "log-likelihood", "± se", "noise precision", "")
    search = trained.search
    for trial in search.trials if search else ():
        precision = "" if trial.noise_precision is None else f"{trial.noise_precision:.4g}"
        table.add_row(
            f"{trial.drop_prob:g}",
            f"{trial.log_likelihood:.4f}",
            f"{trial.standard_error:.4f}",
            precision,
            "taken" if search and trial is search.best else "",
        )
    return table
