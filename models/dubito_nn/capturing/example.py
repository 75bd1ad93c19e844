"""The example that a network is recorded and proved with.

Its job: name the inputs, check them, and bring them to a few rows that differ, since the proofs
compare rows with each other and run at two numbers of rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor, nn

from dubito_nn.errors import ExportError

Example: TypeAlias = "Tensor | Sequence[Tensor] | Mapping[str, Tensor]"
FreeDims: TypeAlias = "Mapping[str, Mapping[int, str]] | None"
BATCH = "batch"
ROWS = 5  # a prime, so that no other dimension is likely to be taken for the rows


@dataclass(frozen=True)
class Inputs:
    """The inputs of a network, with rows to try it on.

    Args:
        tensors: `ROWS` rows of each input, by name, at least two of them different.
        given: the caller's own example.
        bounds: least and greatest value of each integer input in the caller's example.
        by_keyword: whether the network takes its inputs by keyword.
        free_dims: input name → axis → name of the free dimension.
    """

    tensors: dict[str, Tensor]
    given: dict[str, Tensor]
    bounds: dict[str, tuple[int, int]]
    by_keyword: bool
    free_dims: dict[str, dict[int, str]]


def read_example(network: nn.Module, example: Example, free_dims: FreeDims) -> Inputs:
    """Name and check the example inputs.

    Raises:
        ExportError: where they are not tensors with equally many rows first, or free_dims names
            what is not there.
    """
    named, by_keyword = _named(network, example)
    if not named:
        raise ExportError("example_inputs is empty: give one batch as the network takes it")
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.ndim == 0 or not tensor.numel():
            got = tuple(tensor.shape) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ExportError(
                f"example input `{name}` expects a tensor with at least one row, rows first,"
                f" got {got}: give one batch as the network takes it; a network that takes more"
                " than tensors, or a list or mapping of them, is exported in a module around it"
            )
        if tensor.layout != torch.strided or tensor.device.type == "meta":
            kind = "no numbers (device meta)" if tensor.device.type == "meta" else tensor.layout
            raise ExportError(
                f"example input `{name}` expects a dense tensor with numbers, got {kind}: give it"
                " as x.to_dense(), on a device that holds numbers"
            )
    rows = sorted({len(tensor) for tensor in named.values()})
    if len(rows) != 1:
        raise ExportError(
            f"example inputs expect equally many rows on their first axes, got {rows}: put the"
            " rows first in every input"
        )
    detached = {name: tensor.detach().cpu() for name, tensor in named.items()}
    bounds = {
        name: (int(tensor.min()), int(tensor.max()))
        for name, tensor in detached.items()
        if not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)
    }
    checked = _checked_free_dims(free_dims, detached)
    return Inputs(_different_rows(detached), detached, bounds, by_keyword, checked)


def _named(network: nn.Module, example: Example) -> tuple[dict[str, Tensor], bool]:
    """The inputs by name, and whether the network takes them by keyword."""
    if isinstance(example, Mapping):
        return {str(name): tensor for name, tensor in example.items()}, True
    if not isinstance(example, (Tensor, tuple, list)):
        raise ExportError(
            f"example_inputs expects a tensor, a sequence or a mapping of tensors, got"
            f" {type(example).__name__}: convert it with torch.as_tensor"
        )
    tensors = [example] if isinstance(example, Tensor) else list(example)
    parameters = inspect.signature(network.forward).parameters.values()
    names = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
    if len(names) < len(tensors):
        names = [f"input_{position}" for position in range(len(tensors))]
    return dict(zip(names, tensors, strict=False)), False


def _different_rows(named: dict[str, Tensor]) -> dict[str, Tensor]:
    """`ROWS` rows of each input; those that the example lacks are varied copies of its rows."""
    num_given = len(next(iter(named.values())))
    wanted = min(num_given, ROWS)
    if all(torch.equal(t[:wanted], t[:1].expand_as(t[:wanted])) for t in named.values()):
        wanted = 1  # equal rows show nothing
    result = {}
    for name, tensor in named.items():
        generator = torch.Generator().manual_seed(0)  # the same order of elements in every input
        given_rows = [tensor[row : row + 1] for row in range(wanted)]
        varied = [_varied(given_rows[n % wanted], generator) for n in range(ROWS - wanted)]
        result[name] = torch.cat([*given_rows, *varied]).contiguous()
    if wanted == 1 and not any(tensor.is_floating_point() for tensor in named.values()):
        result = {name: _shuffled(tensor[:1]) for name, tensor in named.items()}
    if all(torch.equal(tensor, tensor[:1].expand_as(tensor)) for tensor in result.values()):
        raise ExportError(
            "example_inputs expects rows that differ, since the proofs compare rows, got the same"
            " numbers everywhere: give two real rows or more"
        )
    return result


def _varied(row: Tensor, generator: torch.Generator) -> Tensor:
    """A row like `row`, within the range of its numbers where that range is bounded."""
    if not row.is_floating_point():  # whose numbers may belong together
        return row
    numbers = row.double()
    noise = torch.rand(row.shape, generator=generator, dtype=torch.float64)
    if numbers.min() >= 0 and numbers.max() <= 1 and numbers.max() > 0:
        return (0.7 * numbers + 0.3 * noise).to(row.dtype)
    spread = numbers.std(correction=0).clamp_min(0.1)
    shift = noise if numbers.min() > 0 else 2 * noise - 1
    return (numbers + 0.5 * spread * shift).to(row.dtype)


def _shuffled(row: Tensor) -> Tensor:
    """A single row of integers and others of the same, since there is nothing else to compare."""
    generator = torch.Generator().manual_seed(0)  # the same order of elements in every input
    orders = (torch.randperm(row.numel(), generator=generator) for _ in range(ROWS - 1))
    return torch.cat([row, *(row.flatten()[order].reshape(row.shape) for order in orders)])


def _checked_free_dims(
    free_dims: FreeDims, example: Mapping[str, Tensor]
) -> dict[str, dict[int, str]]:
    """The free dimensions by input and axis, refused where they name none."""
    checked: dict[str, dict[int, str]] = {}
    declared = {} if free_dims is None else free_dims
    if not isinstance(declared, Mapping) or not all(
        isinstance(a, Mapping) for a in declared.values()
    ):
        raise ExportError(
            f"free_dims expects input name → axis → name, got {str(free_dims)[:100]}: write it as"
            " {'tokens': {1: 'length'}}"
        )
    for name, axes in declared.items():
        if name not in example:
            raise ExportError(
                f"free_dims names the input `{name}`: choose among the inputs {list(example)}"
            )
        for axis, free in axes.items():
            is_axis = isinstance(axis, int) and 1 <= axis < example[name].ndim
            is_name = isinstance(free, str) and free.isidentifier() and free != BATCH
            if not (is_axis and is_name):
                raise ExportError(
                    f"free_dims of `{name}` expects axis numbers from 1 to"
                    f" {example[name].ndim - 1} with plain names other than `{BATCH}`, got"
                    f" {{{axis!r}: {free!r}}}: the rows on axis 0 are always free"
                )
        checked[name] = dict(axes)
    return checked
