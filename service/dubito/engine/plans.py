"""The plans of a network for the shapes of rows that it was asked about.

Its job: plan a shape at the first call that has it, and keep the last few plans.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

import torch
from torch import Tensor

from dubito.engine.calling.sampling import Masks, Sampling
from dubito.engine.choice import options, timed_passes
from dubito.engine.findings import Findings, Timings
from dubito.engine.heads import head_of
from dubito.engine.kernels.machine import arithmetic, processor
from dubito.engine.kernels.precision import running
from dubito.engine.kernels.rates import rates
from dubito.engine.planning.layout import look
from dubito.engine.planning.placement import Placed
from dubito.engine.planning.plan import make_plan
from dubito.engine.proof import check_rows, check_sound
from dubito.engine.proving.clock import Clock
from dubito.engine.proving.sizes import GraphLimits
from dubito.engine.running.execution import Execution
from dubito.engine.running.passes import BUDGET_PARTS, Passes
from dubito.engine.summing.compiled import is_compiled
from dubito_nn import Bundle
from dubito_nn.program import Node, Value, sites_in

ALWAYS_ALLOWED_BYTES = 256 * 2**20  # of one value on two rows, however small the budget
_TIMED = 64  # samples at most, when forms are timed at load
_MAX_PLANNED = 16  # shapes of rows that stay planned, where dimensions are free
_MAX_TIMINGS = 256  # bundles whose timings are remembered
_TIMINGS: dict[tuple[object, ...], Timings] = {}


@dataclass(eq=False)
class Plans:
    """What is planned of a network on a device.

    Args:
        bundle: the lifted network.
        placed: its programs and weights there.
        device: where it runs.
        defaults: sampling whose gathered weights are kept.
        memory_budget_bytes: of one call.
        clock: ends a proof that takes too long.
    """

    bundle: Bundle
    placed: Placed
    device: torch.device
    defaults: Sampling
    memory_budget_bytes: int
    clock: Clock
    _planned: dict[tuple[Masks, tuple[object, ...]], Passes] = field(default_factory=dict)
    _sound: set[tuple[object, ...]] = field(default_factory=set)

    def trust(self, rows: Mapping[str, Tensor]) -> None:
        """Take the sizes of these rows for shown to be sound."""
        self._sound.add(shapes(rows))

    def pieces(self, masks: Masks, rows: Mapping[str, Tensor]) -> Passes:
        """The plan for rows of that shape, made at the first call and kept.

        Args:
            masks: `shared` or `independent`.
            rows: by input name.
        """
        key = masks, shapes(rows)
        if key not in self._planned:
            execution = self._plan(masks, rows)
            allowed = []
            if not self.placed.is_lowered:  # whose products in float32 forms would be
                allowed = options(execution, rates(self.device), self.defaults.num_samples)
            shape = execution.layouts.shape[execution.program.outputs["output"]]
            budget, head = self.memory_budget_bytes, head_of(self.bundle.manifest)
            full = head.sum_bytes(shape, is_lean=False)
            lean = head.sum_bytes(shape, is_lean=True) if is_compiled(self.device) else full
            self._planned[key] = Passes(
                execution, budget, self.defaults.key, allowed, sum_bytes=(full, lean)
            )
            while len(self._planned) > _MAX_PLANNED:
                self._planned.pop(next(iter(self._planned)))
        return self._planned[key]

    def known(self) -> Passes | None:
        """The first plan of shared masks that is kept; None: there is none yet."""
        return next(
            (one for (masks, _), one in list(self._planned.items()) if masks == "shared"), None
        )

    def only(self, masks: Masks, rows: Mapping[str, Tensor], passes: Passes) -> Plans:
        """Return the plans with one only, made elsewhere, for rows of that shape."""
        return replace(self, _planned={(masks, shapes(rows)): passes})

    def forget(self) -> None:
        """Plan again at the next call, without what was timed."""
        self._planned.clear()

    def time_forms(
        self, rows: Mapping[str, Tensor], findings: Findings, limit_s: float | None
    ) -> None:
        """Check the forms against the clock, for rows of that shape.

        Once in a process: a bundle that is loaded again answers with the same bits. What was kept
        of another process is not timed again; what it had no time for is.

        Args:
            rows: made up.
            findings: where timings are kept.
            limit_s: on the wall; 0: nothing is timed, but what is kept counts; None: no limit.
        """
        sampling = replace(self.defaults, num_samples=min(self.defaults.num_samples, _TIMED))
        if sampling.num_samples < 2 or sampling.method != "mc":
            return
        planned, budget = self.pieces("shared", rows), self.memory_budget_bytes
        drawn = tuple(sites_in(self.bundle.sampling.nodes))
        kind = tuple(arithmetic(self.device).items())  # devices of one kind take the same forms
        same = (self.bundle.digest, drawn, kind, sampling, budget)
        if (known := _TIMINGS.get(same)) is None:
            known = self._timed(planned, rows, sampling, findings, limit_s)
            if known is None:
                return
            _TIMINGS[same] = known
            while len(_TIMINGS) > _MAX_TIMINGS:
                _TIMINGS.pop(next(iter(_TIMINGS)), None)
        pairs = zip(planned.options, known.forms, strict=True)
        options = [replace(option, timings=timings) for option, timings in pairs]
        share = 1.0 if known.chunk_share is None else known.chunk_share
        self._planned["shared", shapes(rows)] = replace(planned, options=options, chunk_share=share)

    def _timed(
        self,
        planned: Passes,
        rows: Mapping[str, Tensor],
        sampling: Sampling,
        findings: Findings,
        limit_s: float | None,
    ) -> Timings | None:
        """What is kept of timings, with what can be added in the time; None: nothing at all."""
        about = {
            "found": "timings",
            "bundle": self.bundle.digest,
            "sampling": asdict(sampling),
            "budget": self.memory_budget_bytes,
            "processor": processor(),
            **arithmetic(self.device),
        }
        known = Timings.from_json(findings.get(about), len(planned.options))
        if limit_s == 0 or (known is not None and known.is_whole):
            return known
        with running(self.device, self.defaults.precision):
            passes = planned if planned.has_room else planned.lean
            timed = timed_passes(passes, rows, sampling, known, limit_s)
        findings.put(about, timed.to_json())
        return timed

    def watch(self, node: Node, value: Value) -> None:
        """Look at the clock between two nodes, which may end the proof."""
        self.clock.check(f"node `{node.name}`")

    def _plan(self, masks: Masks, rows: Mapping[str, Tensor]) -> Execution:
        if shapes(rows) not in self._sound:
            limits = GraphLimits(allowed_bytes(self.memory_budget_bytes), self.clock)
            check_sound(self.bundle, rows, limits)
        row = {name: tensor[:1].to(self.device) for name, tensor in rows.items()}
        sites, program, weights = self.bundle.sites, self.placed.sampling, self.placed.weights
        with running(self.device):
            layouts = look(program, row, weights, self.device, self.watch)
            check_rows(layouts.of[program.outputs["output"]])
            plan = make_plan(program, sites, layouts, shared=masks == "shared")
            return Execution(
                program,
                sites,
                weights,
                layouts,
                plan,
                self.device,
                masks,
                self.memory_budget_bytes // BUDGET_PARTS,
                self.placed.compute,
            )


def allowed_bytes(budget_bytes: int) -> int:
    """Return the bytes that one value may take on two rows."""
    return max(budget_bytes, ALWAYS_ALLOWED_BYTES)


def shapes(rows: Mapping[str, Tensor]) -> tuple[object, ...]:
    """The shape of one row of every input."""
    return tuple(tuple(tensor.shape[1:]) for tensor in rows.values())
