"""`dubito export` and `dubito import`: a network from elsewhere becomes a bundle."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import Tensor, nn

from dubito.cli.console import output, progress, tell
from dubito.cli.options import Chosen, declared_options
from dubito.errors import InputError
from dubito.imports import (
    build,
    load_weights,
    read_example,
    read_mlflow,
    read_program,
    read_state,
)
from dubito_nn import ExportError
from dubito_nn import export as write
from dubito_nn.strict_json import unique

Out = Annotated[Path, typer.Option("--out", help="The bundle to write, a .dubito file.")]
Examples = Annotated[
    list[str] | None,
    typer.Option(
        "--example",
        help="Rows to record with: 8x784, tokens=8x16:int64:0..999, or a .npy or .npz file. "
        "Repeat it for each input.",
    ),
]


@dataclass(frozen=True, kw_only=True)
class Declaration:
    """The caller's description of the network, as texts."""

    task: Annotated[
        str,
        typer.Option(
            help="Task of the network: classification, multilabel, regression or sequence."
        ),
    ]
    output: Annotated[
        str,
        typer.Option(
            "--output",
            help="What the outputs are: logits, log_probs, probs, sigmoid_logits, mean, "
            "mean_and_log_variance, quantiles or token_log_probs.",
        ),
    ]
    classes: Annotated[
        str | None,
        typer.Option(help="Names of the classes: cat,dog, or @FILE with one name per line."),
    ] = None
    output_name: Annotated[
        str | None, typer.Option(help="Key or position of the output in a structured return.")
    ] = None
    features: Annotated[
        str | None, typer.Option(help="Path of the module whose output is the feature vector.")
    ] = None
    target_scale: Annotated[
        str | None,
        typer.Option(help="MEAN,DEVIATION by which the target was standardised in training."),
    ] = None
    drop_prob: Annotated[
        list[str] | None,
        typer.Option(
            help="PATTERN=P sets the dropout of the matching modules, or adds dropout after them."
        ),
    ] = None
    free_dim: Annotated[
        list[str] | None, typer.Option(help="INPUT:AXIS=NAME lets a further axis vary in size.")
    ] = None
    notes: Annotated[str | None, typer.Option(help="Notes to keep with the bundle.")] = None
    class_axis: Annotated[
        int | None,
        typer.Option(
            help="Axis of the classes where every position has a class, such as 1 or -1. Axis 0 "
            "holds the rows."
        ),
    ] = None
    output_axis: Annotated[
        int | None,
        typer.Option(
            help="Axis of the outputs where every position has numbers, such as 1 or -1. Axis 0 "
            "holds the rows."
        ),
    ] = None
    quantile_levels: Annotated[
        str | None,
        typer.Option(help="Levels of quantiles in ascending order, .5 among them: 0.1,0.5,0.9."),
    ] = None
    deterministic: Annotated[
        bool, typer.Option("--deterministic", help="The network has no randomness.")
    ] = False


@declared_options(Declaration)
def export(
    factory: Annotated[
        str,
        typer.Argument(help="Factory that returns the network, as module:name or file.py:name."),
    ],
    weights: Annotated[
        Path,
        typer.Option(help="State dictionary: a .safetensors file, or one written by torch.save."),
    ],
    *,
    out: Out,
    example: Examples = None,
    options: Annotated[
        str | None, typer.Option(help='Arguments of the factory as JSON: {"hidden": 64}.')
    ] = None,
    chosen: Chosen,
) -> None:
    """Export the network that a factory in your code returns. This runs that code."""
    declaration = Declaration(**chosen)
    if not example:
        raise InputError("--example: expected rows to record with, such as 8x784, got none")
    rows = read_example(example)
    state = read_state(weights)
    tell("note", f"running the code of {factory} on this machine")
    network = build(factory, read_options(options))
    load_weights(network, state, str(weights))
    _write(network, rows, out, declaration)


@declared_options(Declaration)
def import_(
    source: Annotated[
        str,
        typer.Argument(help="A .pt2 file, an MLflow folder, models:/NAME/VERSION or runs:/..."),
    ],
    *,
    out: Out,
    example: Examples = None,
    chosen: Chosen,
) -> None:
    """Import a program of torch.export or a model of MLflow. This runs code from it."""
    declaration = Declaration(**chosen)
    example_rows = read_example(example) if example else None
    tell("note", f"reading {source} runs code from it on this machine: import only what you trust")
    may_be_still = bool(declaration.drop_prob) or declaration.deterministic
    if source.endswith(".pt2"):
        imported = read_program(Path(source), is_injected=may_be_still)
    else:
        imported = read_mlflow(source, is_injected=may_be_still)
    rows = example_rows if example_rows is not None else imported.example
    if rows is None:
        raise InputError(
            f"{source}: expected rows to record with, it keeps none: give --example, such as 8x784"
        )
    _write(imported.network, rows, out, declaration)


def _write(
    network: nn.Module,
    rows: Tensor | Mapping[str, Tensor] | Sequence[Tensor],
    out: Path,
    declaration: Declaration,
) -> None:
    try:  # export checks the task and the output
        with progress(f"exporting {out.name}"):
            bundle = write(
                network,
                rows,
                out,
                task=declaration.task,  # type: ignore[arg-type]
                output=declaration.output,  # type: ignore[arg-type]
                classes=_classes(declaration.classes),
                output_name=declaration.output_name,
                features=declaration.features,
                target_scale=_scale(declaration.target_scale),
                drop_prob=_rates(declaration.drop_prob or ()),
                free_dims=_free_dims(declaration.free_dim or ()),
                notes=declaration.notes,
                class_axis=declaration.class_axis,
                output_axis=declaration.output_axis,
                quantile_levels=_levels(declaration.quantile_levels),
                deterministic=declaration.deterministic,
            )
    except ExportError as error:
        raise InputError(str(error)) from error
    output().print(
        f"bundle: {out} ({len(bundle.sites)} random operations, {bundle.digest[:12]})",
        soft_wrap=True,
    )
    for warning in bundle.manifest.warnings:
        output().print(f"warning: {warning}", soft_wrap=True)


def read_options(text: str | None) -> dict[str, object]:
    """Arguments of a factory, from JSON.

    Raises:
        InputError: it is no JSON object.
    """
    try:
        options = json.loads(text or "{}", object_pairs_hook=unique)
    except ValueError as error:
        raise InputError(f"--options: expected JSON, got something else: {error}") from error
    if not isinstance(options, dict):
        raise InputError('--options: expected an object such as {"hidden": 64}')
    return options


def _classes(text: str | None) -> list[str] | None:
    if text is None:
        return None
    if text.startswith("@"):
        return Path(text[1:]).read_text(encoding="utf-8").splitlines()
    return [name.strip() for name in text.split(",")]


def _scale(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    try:
        mean, deviation = (float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(f"--target-scale {text}: expected two numbers, such as 3.1,0.5") from error
    return mean, deviation


def _levels(text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise InputError(
            f"--quantile-levels {text[:40]}: expected numbers, such as 0.1,0.5,0.9"
        ) from error


def _rates(texts: Sequence[str]) -> dict[str, float] | None:
    rates = {}
    for text in texts:
        pattern, _, rate = text.rpartition("=")
        try:
            rates[pattern] = float(rate)
        except ValueError as error:
            raise InputError(f"--drop-prob {text}: expected PATTERN=P, such as 0.*=0.1") from error
    return rates or None


def _free_dims(texts: Sequence[str]) -> dict[str, dict[int, str]] | None:
    dims: dict[str, dict[int, str]] = {}
    for text in texts:
        dimension, _, label = text.partition("=")
        name, _, axis = dimension.rpartition(":")
        if not name or not label or not re.fullmatch("[0-9]{1,9}", axis):
            raise InputError(
                f"--free-dim {text}: expected INPUT:AXIS=NAME, such as tokens:1=length"
            )
        dims.setdefault(name, {})[int(axis)] = label
    return dims or None
