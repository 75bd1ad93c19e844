"""Moments of the outputs, by the way that a network allows, and the trial of the second one.

Its job: walk the graph where every operator on the way has a rule. Else take its masks at their
means and differentiate, once that came out right on made-up rows, against masked passes:

    √(Σ variance by moments / Σ variance over the passes)                          in [.8, 1.25]
    √(Σ (mean by moments - mean of the passes)² / Σ variance over the passes)      at most .5

where the sums run over rows and classes, and for numbers over rows alone.

Dimensions: B rows, D outputs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from dubito.engine.answering.call import EngineCall
from dubito.engine.answering.passing import passes, tally_of
from dubito.engine.answering.streaming import joined
from dubito.engine.calling.arguments import Check
from dubito.engine.calling.columns import Columns
from dubito.engine.calling.sampling import Sampling
from dubito.engine.moments import Linearisation, OutputMoments, Propagation, RefusedError
from dubito.engine.planning.placement import on_device
from dubito.errors import InputError
from dubito_nn import Program, Site

if TYPE_CHECKING:
    from dubito.engine.engine import Engine

_REMEDY = ": use method `mc`"
_MAX_SHAPES = 16  # of rows for which it is known whether the graph can be walked
TRIAL = Sampling(64, draw="iid")
_TRIAL_ROWS = 4
_LEAST, _MOST = 0.8, 1.25  # of the spread of the passes
_FARTHEST = 0.5  # spreads between the means


@dataclass(eq=False)
class Propagating:
    """Moments of one engine.

    Args:
        engine: whose graph it is.
    """

    engine: Engine
    _refused: dict[tuple[object, ...], InputError | None] = field(default_factory=dict)
    _tried: list[str | None] = field(default_factory=list)

    def blocks(self, call: EngineCall) -> Iterator[OutputMoments]:
        """Moments of the outputs of some rows after the others.

        Raises:
            InputError: the graph has no rule for an operator, and linearised it is wrong.
        """
        budget, refusal = self.engine.memory_budget_bytes, self._refusal(call.rows)
        if refusal is None:
            yield from self.walk.blocks(call.rows, budget, call.check)
            return
        try:
            verdict = self._verdict(call.check)
            if verdict is not None:
                raise RefusedError(verdict)
            yield from self.linearised.blocks(call.rows, budget, call.check)
        except RefusedError as reason:
            told = str(refusal).removesuffix(_REMEDY)
            if not told.endswith(str(reason)):
                told += f"; linearised in its masks, {reason}"
            raise InputError(told + _REMEDY) from reason

    def _refusal(self, rows: Mapping[str, Tensor]) -> InputError | None:
        """Why the walk does not take rows of that shape; None: it does."""
        shapes = tuple(tensor.shape[1:] for tensor in rows.values())
        if shapes not in self._refused:
            while len(self._refused) >= _MAX_SHAPES:
                self._refused.pop(next(iter(self._refused)))
            self._refused[shapes] = self.walk.refusal(rows)
        return self._refused[shapes]

    def _verdict(self, check: Check | None) -> str | None:
        """Why linearised moments are not to be trusted here; None: they are. Tried once."""
        if not self._tried:
            self._tried.append(self._trial(check))
        return self._tried[0]

    def _trial(self, check: Check | None) -> str | None:
        engine = self.engine
        assert engine.head.moments is not None
        rows = engine.made_up_rows(_TRIAL_ROWS)
        made = OutputMoments.joined(
            list(self.linearised.blocks(rows, engine.memory_budget_bytes, check))
        )
        told = engine.head.moments.columns(made, 1.0, keep_nodes=False)
        call = EngineCall(rows, TRIAL, check)
        each = [tally_of(engine, call, block).columns() for block in passes(engine, call)]
        drawn = joined(each, engine.head.sample_names)
        return held_against({name: part.cpu().numpy() for name, part in told.items()}, drawn)

    @cached_property
    def walk(self) -> Propagation:
        """The walk with mean and variance of every element."""
        return Propagation(*self._parts)

    @cached_property
    def linearised(self) -> Linearisation:
        """The gradients by the draws."""
        return Linearisation(*self._parts)

    @cached_property
    def _parts(
        self,
    ) -> tuple[Program, Sequence[Site], str, Mapping[str, Tensor], torch.device]:
        bundle, device = self.engine.bundle, self.engine.device
        weights = on_device((bundle.sampling,), bundle.weights, device)
        return bundle.sampling, bundle.sites, self.engine.manifest.output, weights, device


def held_against(told: Columns, drawn: Columns) -> str | None:
    """Why columns that were told are not those that were drawn; None: they are.

    Args:
        told: of moments.
        drawn: of masked passes over the same rows.
    """
    name = "epistemic_variance" if "epistemic_variance" in drawn else "variance"
    by_output = 0 if "epistemic_variance" in drawn else None  # outputs have units of their own
    of_drawn = np.asarray(drawn[name].mean(by_output))
    if not (of_drawn > 0).all():
        return "the outputs of made-up rows do not vary"
    ratio = float(np.sqrt((told[name].mean(by_output) / of_drawn).mean()))
    apart_BD = np.square(told["mean"] - drawn["mean"])
    apart = float(np.sqrt((apart_BD.mean(by_output) / of_drawn).mean()))
    if _LEAST <= ratio <= _MOST and apart <= _FARTHEST:
        return None
    return (
        f"the spread of made-up rows is {ratio:.2f} times that of {TRIAL.num_samples} passes"
        f" (expects {_LEAST} to {_MOST}) and their mean {apart:.2f} spreads off (expects at most"
        f" {_FARTHEST})"
    )
