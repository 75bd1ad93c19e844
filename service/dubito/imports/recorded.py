"""A network as a program of `torch.export`, from a `.pt2` file.

Its job: read the program, which runs code from the file, and bring it into a form that can be
recorded again; a program without active randomness or with a fixed number of rows is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, fx, nn

from dubito.errors import InputError


@dataclass(frozen=True)
class Recorded:
    """A network that was read from a recorded program, and its example.

    Args:
        network: that can be recorded again.
        example: the inputs that it was recorded with, where the file keeps them.
    """

    network: nn.Module
    example: tuple[Tensor, ...] | None


def read_program(path: Path, *, is_injected: bool = False) -> Recorded:
    """Read a `.pt2` file. This runs code from the file.

    Args:
        path: the file.
        is_injected: dropout is put in afterwards, so the program need not hold any.

    Raises:
        InputError: it is no program, rolls no dice, or takes one number of rows only.
    """
    if not path.is_file():
        raise InputError(f"{path}: expected a .pt2 file, got none: check the path")
    try:
        program = torch.export.load(path)
        network = program.module()
    except Exception as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
        raise InputError(
            f"{path}: expected a program of torch.export, got something else ({reason}): write it"
            " with torch.export.save"
        ) from error
    args, kwargs = program.example_inputs or ((), {})
    tensors = (*args, *kwargs.values())
    is_plain = tensors and all(isinstance(value, Tensor) for value in tensors)
    return Recorded(plain(network, str(path), is_injected), tensors if is_plain else None)


def plain(network: nn.Module, where: str, is_injected: bool = False) -> nn.Module:
    """The module of a recorded program, without what forbids to record it again.

    A network that is no recorded program is given back as it is.

    Args:
        network: as `ExportedProgram.module` gives it, or any other.
        where: it came from, for the refusal.
        is_injected: dropout is put in afterwards.

    Raises:
        InputError: it rolls no dice, or takes one number of rows only.
    """
    if not isinstance(network, fx.GraphModule):
        return network
    nodes = list(network.graph.nodes)
    if not is_injected and not any(_rolls_dice(node) for node in nodes):
        raise InputError(
            f"{where}: the program holds no active randomness, it was exported in evaluation mode:"
            " export it from network.train() with its batch-norms in eval(), then"
            " torch.export.save; or bring the network itself with `dubito export`"
        )
    for node in nodes:
        value = node.meta.get("val")
        if node.op == "placeholder" and isinstance(value, Tensor) and _is_fixed(value.shape):
            raise InputError(
                f"{where}: the program takes {value.shape[0]} rows only: export it with"
                f" dynamic_shapes={{{node.name!r}: {{0: torch.export.Dim.DYNAMIC}}}} and an example"
                " of more than one row"
            )
    for name in ("train", "eval"):  # which raise in the module of a program
        network.__dict__.pop(name, None)
    return network


def _is_fixed(shape: Sequence[int | torch.SymInt]) -> bool:
    return len(shape) > 0 and isinstance(shape[0], int)


def _rolls_dice(node: fx.Node) -> bool:
    """Whether the node draws numbers, by torch's own tag and its switch."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload):
        return False
    names = [argument.name for argument in target._schema.arguments]
    arguments = dict(zip(names, node.args, strict=False)) | dict(node.kwargs)
    if arguments.get("train", arguments.get("training", True)) is False:
        return False
    rates = [arguments[name] for name in ("p", "dropout", "dropout_p") if name in arguments]
    is_random = torch.Tag.nondeterministic_seeded in target.tags
    fused = target._schema.name.split("::")[1] in ("lstm", "gru", "rnn_tanh", "rnn_relu", "dropout")
    if fused or rates:
        return any(not isinstance(rate, (int, float)) or rate > 0 for rate in rates)
    return is_random
