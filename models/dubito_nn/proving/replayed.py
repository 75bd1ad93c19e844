"""A lifted graph held against its network, on rows and draws.

Its job: feed what the eager network drew to the graph and compare the outputs, and compare the
point graph with the network in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from dubito_nn.capturing.branching.outcomes import decisions, drawn_in, ways
from dubito_nn.capturing.capture import Captured
from dubito_nn.capturing.paths import WHOLE
from dubito_nn.errors import ExportError
from dubito_nn.lifting.draws import TOLERANCE, random_draws, tolerance
from dubito_nn.lifting.lift import Lifted
from dubito_nn.lifting.recording import DrawRecorder
from dubito_nn.program import Program


class UnlikeEvaluationError(ExportError):
    """The point graph is not the network in evaluation mode."""


def compare(
    captured: Captured, lifted: Lifted, point: Program, inputs: Mapping[str, Tensor]
) -> None:
    """Hold both graphs against the network on some rows.

    Raises:
        UnlikeEvaluationError: the point graph is another network.
        ExportError: the lifted one is, with the module and the remedy.
    """
    _replay(captured, lifted, inputs)
    _compare_point(captured, lifted, point, inputs)


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
