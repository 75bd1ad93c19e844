"""Show on the example that the lifted graph is the network, or refuse it.

Its job, in order: replay what the eager network drew and compare the outputs, and compare the point
graph with the network in evaluation mode, each at two numbers of rows and two
sizes of every free dimension; see that no row reads
another; see that every site alone changes the output, or take note of those that do not.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from dubito_nn.capturing.branching.outcomes import decisions, drawn_in, ways
from dubito_nn.capturing.capture import Captured, Mode, set_mode
from dubito_nn.capturing.paths import WHOLE, clean_path
from dubito_nn.errors import ExportError
from dubito_nn.lifting.draws import TOLERANCE, random_draws, tolerance
from dubito_nn.lifting.lift import Lifted
from dubito_nn.lifting.recording import DrawRecorder
from dubito_nn.lifting.unserved import without_unserved
from dubito_nn.manifest import named_modules
from dubito_nn.program import Program
from dubito_nn.proving.dead import REDRAWS, dead_sites
from dubito_nn.proving.rows import prove_rows

MANY_ROWS = 2**16  # a number of rows beyond which none is asked for


class UnlikeEvaluationError(ExportError):
    """The point graph is not the network in evaluation mode."""


def prove(captured: Captured, lifted: Lifted, point: Program) -> Lifted:
    """Show that the lifted graph is the network; the result knows how its sites hold their rows.

    Raises:
        ExportError: with the module and the remedy, where one of the proofs fails.
    """
    with torch.no_grad():
        try:
            for inputs in two_sizes(captured):
                _replay(captured, lifted, inputs)
                _compare_point(captured, lifted, point, inputs)
        except UnlikeEvaluationError:
            raise
        except ExportError as error:
            _refuse_changed_by_mode(captured, error)
            raise
        _prove_beyond(captured, lifted, point)
        _prove_one_row(captured, lifted, point)
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


def _prove_beyond(captured: Captured, lifted: Lifted, point: Program) -> None:
    """Where the network asks how many rows there are, the answer must change no number of a row."""
    counts = {
        count
        for least, most in captured.row_ranges
        for count in (1, least - 1, *((most + 1,) if most < MANY_ROWS else ()))
        if count > 0
    }
    for count in sorted(counts):
        inputs = {
            name: tensor.repeat(count // len(tensor) + 1, *(1,) * (tensor.ndim - 1))[:count]
            for name, tensor in captured.example.items()
        }
        try:
            _replay(captured, lifted, inputs)
            _compare_point(captured, lifted, point, inputs)
        except (ExportError, RuntimeError) as error:
            ranges = dict.fromkeys(f"{least} to {most}" for least, most in captured.row_ranges)
            raise ExportError(
                f"the network asks how many rows there are, and computes something else for"
                f" {count} of them than its graph, which was recorded for {' and '.join(ranges)}:"
                " compute every row alike, however many there are"
            ) from error


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


def _prove_one_row(captured: Captured, lifted: Lifted, point: Program) -> None:
    """A recording stands for two rows or more, and whether a network asks for one it cannot tell.

    A network that fails on one row, or drops its axis, is answered as it answers several.
    """
    inputs = {name: tensor[:1].contiguous() for name, tensor in captured.example.items()}
    try:
        shapes = {captured.run(inputs, mode)["output"].shape for mode in ("sampling", "evaluation")}
        shape = point.run(inputs, lifted.weights)["output"].shape
    except ExportError:
        raise
    except Exception:  # of the network's own code
        return
    if shapes != {shape}:
        return
    try:
        _replay(captured, lifted, inputs)
        _compare_point(captured, lifted, point, inputs)
    except ExportError as error:
        raise ExportError(
            "the network computes something else for one row than for several, as where it leaves"
            " a layer out (if len(x) > 1): compute every row alike, however many there are"
        ) from error


def _replay(captured: Captured, lifted: Lifted, inputs: Mapping[str, Tensor]) -> None:
    """Feed eager draws to the lifted graph and compare the outputs, in every way it may go."""
    found = decisions(lifted.program, lifted.conditions, inputs, lifted.weights, lifted.sites)
    for way in ways(found):
        drawn, told = drawn_in(found, way, lifted.sites)
        _replay_way(captured, lifted, inputs, drawn, told)


def _replay_way(
    captured: Captured,
    lifted: Lifted,
    inputs: Mapping[str, Tensor],
    drawn: Sequence[int],
    told: Mapping[int, float],
) -> None:
    """Compare one pass.

    Args:
        captured: the eager network.
        lifted: its graph.
        inputs: to both.
        drawn: the sites that the eager network draws at, in order.
        told: what some of them are to draw.
    """
    places = {site: place for place, site in enumerate(drawn)}
    by_place = {places[site]: number for site, number in told.items() if site in places}
    with DrawRecorder(captured.running, by_place) as eager:
        expected = captured.run(inputs, "sampling")["output"]
    if len(eager.draws) != len(drawn):
        paths = [lifted.sites[site].module_path for site in drawn]
        odd = [path for path in eager.paths if eager.paths.count(path) != paths.count(path)]
        raise ExportError(
            f"module `{(odd or [WHOLE])[0]}` draws numbers that no output reads, or not in every"
            f" pass ({len(eager.draws)} draws, {len(drawn)} of them in the graph): take"
            " the layer out, or make its draws depend on nothing but the input's shape"
        )
    unread = random_draws(lifted.sites)

    def recorded(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        if index not in places:
            return unread(index, size, dtype)
        draw: Tensor = eager.draws[places[index]]
        if index in told and draw.numel() == 1:
            draw = draw.reshape(()).expand(size)
        if tuple(draw.shape) != size:
            path = lifted.sites[index].module_path
            raise ExportError(
                f"module `{path}` drew numbers of shape {tuple(draw.shape)}, its graph {size}:"
                " take the shape of random numbers from the input alone"
            )
        return draw.to(dtype)

    graph: Tensor = lifted.program.run(inputs, lifted.weights, recorded)["output"]
    _agree(expected, graph, "with the draws of the network itself, its graph", "sampling")


def _compare_point(
    captured: Captured, lifted: Lifted, point: Program, inputs: Mapping[str, Tensor]
) -> None:
    """Where evaluation mode rolls no dice, the point graph is the network in that mode."""
    with DrawRecorder(captured.running) as recorder:
        eager = captured.run(inputs, "evaluation")["output"]
    graph = point.run(inputs, lifted.weights)["output"]
    if recorder.draws:
        return
    try:
        _agree(eager, graph, "the point graph", "evaluation")
    except ExportError as error:
        raise UnlikeEvaluationError(str(error)) from error


def _agree(eager: Tensor, graph: Tensor, what: str, mode: str) -> None:
    """Refuse outputs of a graph that are not those of the eager network."""
    if not eager.isfinite().all():
        raise ExportError(
            f"the network returns NaN or infinity in {mode} mode on the example: give real rows as"
            " example_inputs, and keep numbers finite in forward()"
        )
    if eager.shape != graph.shape:
        raise ExportError(
            f"{what} returns the shape {tuple(graph.shape)}, the network in {mode} mode"
            f" {tuple(eager.shape)}: keep the rows first"
        )
    if graph.isnan().any():
        raise ExportError(
            f"{what} returns NaN, which the network in {mode} mode does not, as where it reads"
            " memory that nobody has written (torch.empty): start from torch.zeros or torch.full"
        )
    difference = float((eager.double() - graph.double()).abs().max())
    if not difference <= tolerance(eager):
        raise ExportError(
            f"{what} differs from the network in {mode} mode by {difference:.2g}, expected at most"
            f" {TOLERANCE:g}: look for state that forward() keeps or changes between calls"
        )


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
