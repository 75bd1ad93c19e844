"""Show on the example that the lifted graph is the network, or refuse it.

Its job, in order: replay what the eager network drew and compare the outputs, and compare the point
graph with the network in evaluation mode, each at two numbers of rows and two
sizes of every free dimension; see that no row reads
another; see that every site alone changes the output, or take note of those that do not.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from dubito_nn.capturing.capture import Captured, Mode, set_mode
from dubito_nn.capturing.paths import WHOLE, clean_path
from dubito_nn.errors import ExportError
from dubito_nn.lifting.lift import Lifted
from dubito_nn.lifting.unserved import without_unserved
from dubito_nn.manifest import named_modules
from dubito_nn.proving.dead import REDRAWS, dead_sites
from dubito_nn.proving.replayed import UnlikeEvaluationError, compare
from dubito_nn.proving.rows import prove_rows
from dubito_nn.proving.sizes import free_sizes, limit_notices, prove_one_row, prove_other_rows


def prove(captured: Captured, lifted: Lifted, point: Lifted) -> Lifted:
    """Show that the lifted graph is the network; the result knows how its sites hold their rows.

    Raises:
        ExportError: with the module and the remedy, where one of the proofs fails.
    """
    with torch.no_grad():
        try:
            for inputs in two_sizes(captured):
                compare(captured, lifted, point.program, inputs)
        except UnlikeEvaluationError:
            raise
        except ExportError as error:
            _refuse_changed_by_mode(captured, error)
            raise
        prove_other_rows(captured, lifted, point.program)
        prove_one_row(captured, lifted, point.program)
        limits = free_sizes(captured, lifted, point)
        notices = (*limit_notices(captured, limits), *lifted.notices)
        lifted = replace(lifted, free_sizes=limits, notices=notices)
        if not lifted.sites:  # as the caller has it declared
            return prove_rows(lifted, captured.example)
        lifted = without_unserved(lifted)
        if not lifted.sites:
            raise ExportError(
                "the network has no random operation that reaches its output, so all its samples"
                " would be equal: serve the output that one feeds, or name modules in"
                " drop_prob={pattern: p} to put dropout behind them"
            )
        lifted = prove_rows(lifted, captured.example)
        return _noted_dead(captured, lifted)


def _refuse_changed_by_mode(captured: Captured, error: ExportError) -> None:
    """Say which module's own train() or eval() changes numbers, where that is the reason."""

    def numbers(mode: Mode) -> dict[str, Tensor]:
        set_mode(captured.module, mode)
        held = [*captured.module.named_parameters(), *captured.module.named_buffers()]
        return {name: tensor.detach().clone() for name, tensor in held}

    before, after = numbers("sampling"), numbers("evaluation")
    changed = [name for name in before if not before[name].equal(after.get(name, before[name]))]
    if changed:
        raise ExportError(
            f"module `{clean_path(changed[0]).rpartition('.')[0] or WHOLE}` changes its weights in"
            " train() or eval(), as adapters do that are merged for evaluation: turn that off"
            " (merge_weights=False), so that both modes have the same"
        ) from error


def _noted_dead(captured: Captured, lifted: Lifted) -> Lifted:
    """Take note of sites that change nothing alone, the others held fixed; refuse if all do so."""
    dead = [lifted.sites[index] for index in dead_sites(lifted, captured.example)]
    if len(dead) == len(lifted.sites):
        site = dead[0]
        raise ExportError(
            f"module `{site.module_path}`: the draws of `{site.operator}` do not change the output"
            f" ({REDRAWS} redrawn), nor do any others, so all samples would be equal: take the"
            " layer out, train what stands at 0 behind it, or serve the output that it feeds"
        )
    if not dead:
        return lifted
    paths = dict.fromkeys(f"`{site.module_path}`" for site in dead)
    notice = (
        f"{len(dead)} of {len(lifted.sites)} random operations change nothing that can be seen in"
        f" the output, those of {named_modules(list(paths))}: weights at 0 behind them, or many"
        " steps; they are drawn all the same"
    )
    return replace(lifted, notices=(*lifted.notices, notice))


def two_sizes(captured: Captured) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The example, and a part of it with fewer rows and less along every free dimension."""
    return captured.example, _smaller(captured)


def _smaller(captured: Captured) -> dict[str, Tensor]:
    """The example with fewer rows, and one less along every free dimension where that can be."""
    result = {}
    for name, tensor in captured.example.items():
        tensor = tensor[: len(tensor) - 2]
        for axis in captured.inputs.free_dims.get(name, {}):
            tensor = tensor.narrow(axis, 0, max(2, tensor.shape[axis] - 1))
        result[name] = tensor.contiguous()
    return result
