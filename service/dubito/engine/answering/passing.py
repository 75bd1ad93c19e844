"""The passes of a call, by its method, and the tally that sums them.

Dimensions: T samples, B rows, N fixed points.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from torch import Tensor

from dubito.engine.answering.call import EngineCall
from dubito.engine.answering.learned import learned_passes
from dubito.engine.answering.tally import Tally
from dubito.engine.kernels.products import run
from dubito.engine.moments import OutputMoments
from dubito.engine.running.passes import Tile
from dubito.errors import InputError

if TYPE_CHECKING:
    from dubito.engine.engine import Engine


def passes(engine: Engine, call: EngineCall) -> Iterator[Iterator[Tensor]]:
    """Yield, block of rows by block, the raw outputs of its passes in order of t."""
    sampling = call.sampling
    if sampling.method == "ensemble":
        raise InputError("method `ensemble` expects several networks, got one: use `Ensemble`")
    if sampling.method == "moments":
        assert engine.head.moments is not None
        for moments in propagated(engine, call):
            yield iter([engine.head.moments.passes(moments)])
        return
    if sampling.method == "distilled":
        yield from learned_passes(engine, call)
        return
    if sampling.method == "mc":
        for tile in tiles(engine, call):
            yield tile.passes(range(sampling.num_samples))
        return
    placed = engine.placed
    for rows in engine.pieces(sampling.masks, call.rows).rows(call.rows):
        if call.check is not None:
            call.check()
        if sampling.method == "laplace":
            yield engine.fits.passes(rows, sampling, call.check)
        else:
            made = run(placed.point, rows, placed.weights, engine.device, placed.compute)
            yield iter([made[None]])


def tiles(engine: Engine, call: EngineCall) -> Iterator[Tile]:
    """Some rows after the others, each with what is computed of them once."""
    pieces = engine.pieces(call.sampling.masks, call.rows)
    if call.is_lean(engine.head):
        pieces = pieces.lean
    for tile in pieces.tiles(call.rows, call.sampling, call.check):
        if call.seen is not None:
            call.seen(tile)
        yield tile


def propagated(engine: Engine, call: EngineCall) -> Iterator[OutputMoments]:
    """Moments of the outputs of some rows after the others."""
    engine.pieces("shared", call.rows)  # checks the sizes
    return engine.propagating.blocks(call)


def tally_of(engine: Engine, call: EngineCall, made: Iterable[Tensor] = ()) -> Tally:
    """Return a tally of some passes, to which more may be added."""
    head, left = engine.head, engine.left_of(call.sampling)
    tally = Tally(head, call.scaling, left, call.keep_samples, call.is_lean(head))
    for raw in made:
        tally.add(raw)
        del raw  # else it would lie beside the next
    return tally
