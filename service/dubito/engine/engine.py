"""The engine: a bundle on a device, ready to be asked.

Its job: tie the parts together. inputs → prefix once per row → chunks of samples → head → sums →
columns.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from dubito.engine.additivity import left_over
from dubito.engine.arguments import as_device, as_sampling, check_load, check_temperature
from dubito.engine.choice import options
from dubito.engine.clock import Clock
from dubito.engine.execution import Execution
from dubito.engine.features import features
from dubito.engine.inputs import Inputs, read_inputs
from dubito.engine.layout import look
from dubito.engine.passes import BUDGET_PARTS, Passes
from dubito.engine.placement import Placed, on_device, placed
from dubito.engine.plan import make_plan
from dubito.engine.positions import most_rows
from dubito.engine.prediction import Prediction, as_prediction
from dubito.engine.products import run
from dubito.engine.proof import (
    check_apart,
    check_features,
    check_output,
    check_rows,
    check_sound,
    fitting_size,
    made_up_rows,
    refusing,
)
from dubito.engine.propagation import OutputMoments, Propagation
from dubito.engine.rates import rates
from dubito.engine.sampling import Draw, Masks, Sampling
from dubito.engine.scaling import Scaling
from dubito.engine.sizes import Limits, warm_up
from dubito.engine.streaming import Columns, Tally, joined, until
from dubito.errors import BundleRefusedError, InputError
from dubito_nn import Bundle, BundleError, Manifest, load_bundle
from dubito_nn.program import Node, Value

_ALWAYS_ALLOWED_BYTES = 256 * 2**20  # of one value on two rows, however small the budget
_TIMED = 64  # samples at most, when forms are timed at load
_MAX_PLANNED = 16  # shapes of rows that stay planned, where dimensions are free


@dataclass(eq=False)
class Engine:
    """A lifted network on a device.

    Args:
        bundle: the lifted network.
        device: where it runs.
        placed: its programs and weights there.
        defaults: sampling where a call names none.
        memory_budget_bytes: bound of what one call keeps alive beside weights and result.
    """

    bundle: Bundle
    device: torch.device
    placed: Placed
    defaults: Sampling
    memory_budget_bytes: int
    _planned: dict[tuple[Masks, tuple[object, ...]], Passes] = field(default_factory=dict)
    _clock: Clock = field(default_factory=lambda: Clock(None))
    _free: int = 8
    _sound: set[tuple[object, ...]] = field(default_factory=set)

    @classmethod
    def load(
        cls,
        source: str | Path | bytes | Bundle,
        device: str = "cpu",
        num_samples: int = 64,
        seed: int = 0,
        masks: Masks = "shared",
        draw: Draw = "stratified",
        memory_budget_bytes: int = 512 * 2**20,
        proof_limit_s: float | None = None,
    ) -> Engine:
        """Read a bundle, bring it to a device, plan it, and try it on one made-up row.

        Args:
            source: path, bytes, or a bundle already read.
            device: as torch names it.
            num_samples: default T.
            seed: default key of the masks.
            masks: default, `shared` or `independent`.
            draw: default, `stratified` or `iid`.
            memory_budget_bytes: for the values of one chunk.
            proof_limit_s: processor time that showing that a small bundle runs may take, of a
                bundle that is loaded to be proved and not to answer; None: no limit.

        Raises:
            InputError: an argument is out of its bounds.
            BundleRefusedError: where the bundle is unsound or does not run.
        """
        defaults = Sampling(num_samples, seed, masks, draw)
        place = as_device(device)
        check_load(source, memory_budget_bytes)
        try:
            bundle = source if isinstance(source, Bundle) else load_bundle(source)
        except BundleError as error:
            raise BundleRefusedError(str(error)) from error
        warm_up()
        clock = Clock(proof_limit_s, bundle.size_bytes)
        free = fitting_size(bundle, Limits(_allowed_bytes(memory_budget_bytes), clock))
        with refusing():
            engine = cls(
                bundle,
                place,
                placed(bundle, place),
                defaults,
                memory_budget_bytes,
                _clock=clock,
                _free=free,
            )
            rows = engine.made_up_rows()
            engine._sound.add(shapes(rows))
            engine._try_out(rows)
            if proof_limit_s is None:
                engine._prepare(rows)
        engine._clock = Clock(None)
        return engine

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    def read_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Check rows against the network's inputs; see `dubito.engine.inputs`."""
        return read_inputs(inputs, self.manifest.inputs)

    def sample(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        check: Callable[[], None] | None = None,
    ) -> Tensor:
        """The declared outputs of all num_samples passes, whatever the tolerance.

        Args:
            inputs: rows first.
            sampling: where other than the default.
            check: called between chunks; whatever it raises ends the sampling.

        Returns:
            Shape (T, B, C) or (T, B, D), for `mean_and_log_variance` (T, B, 2, D), on the CPU. With
            method `moments` T fixed points that have the moments of the outputs.
        """
        sampling = as_sampling(sampling, self.defaults, self.manifest)
        read = self.read_inputs(inputs)
        with self._running():
            by_rows = [
                torch.cat([raw.cpu() for raw in passes])
                for passes in self._passes(read, sampling, check)
            ]
        return torch.cat(by_rows, dim=1)

    def predict(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Prediction:
        """Mean, spread and measures over T passes.

        Args:
            inputs: rows first.
            sampling: where other than the default.
            temperature: on each pass's logits (`dubito.engine.scaling`); classification only.
            keep_samples: return every pass as well, which takes memory in proportion to T.
            check: called between chunks; whatever it raises ends the prediction.

        Raises:
            InputError: for rows that the network does not take, a temperature not above 0, or all
                passes with a tolerance.
        """
        sampling = as_sampling(sampling, self.defaults, self.manifest)
        check_temperature(temperature, self.manifest)
        read = self.read_inputs(inputs)
        if keep_samples and sampling.tolerance is not None:
            raise InputError(
                "all passes were asked for with a `tolerance`, where rows take different numbers"
                " of them: leave one of the two out"
            )
        with self._running():
            parts = list(self._parts(read, sampling, temperature, keep_samples, check))
        return as_prediction(joined(parts), self.manifest, sampling)

    def features(self, inputs: Inputs, *, check: Callable[[], None] | None = None) -> Tensor:
        """The feature vector of each row, (B, F), on the CPU, in one pass without draws.

        The output of the module that the export named, in the point graph; where none was named,
        the last value that is computed from x alone and crosses into a part with draws.

        Raises:
            InputError: for rows that the network does not take, or where there is no such value.
        """
        read = self.read_inputs(inputs)
        pieces = self.pieces("shared", read)
        with self._running():
            return features(self.placed, pieces, read, check)

    def output_moments(self, inputs: Inputs) -> OutputMoments:
        """Mean and variance of the declared outputs by moment propagation, on the CPU.

        Args:
            inputs: rows first.

        Raises:
            InputError: for rows that the network does not take, or an operator without a rule.
        """
        read = self.read_inputs(inputs)
        with self._running():
            return OutputMoments.joined(list(self._moments(read, None)))

    def _moments(
        self, read: Mapping[str, Tensor], check: Callable[[], None] | None
    ) -> Iterator[OutputMoments]:
        self.pieces("shared", read)  # checks the sizes
        return self._propagation.blocks(read, self.memory_budget_bytes, check)

    @cached_property
    def _propagation(self) -> Propagation:
        bundle, output = self.bundle, self.manifest.output
        weights = on_device((bundle.sampling,), bundle.weights, self.device)
        return Propagation(bundle.sampling, bundle.sites, output, weights, self.device)

    def _parts(
        self,
        read: Mapping[str, Tensor],
        sampling: Sampling,
        temperature: Scaling,
        keep_samples: bool,
        check: Callable[[], None] | None,
    ) -> Iterator[Columns]:
        """The columns of some rows after the others."""
        if sampling.method == "moments":
            for moments in self._moments(read, check):
                yield moments.columns(self.manifest, temperature, keep_nodes=keep_samples)
            return
        left = self._left if sampling.draw == "stratified" and sampling.method == "mc" else None
        empty = partial(Tally, self.manifest, temperature, left, keep_samples)
        if sampling.tolerance is not None:
            tiles = self.pieces(sampling.masks, read).tiles(read, sampling, check)
            for tile in tiles:
                yield until(tile, empty(), sampling.num_samples, sampling.tolerance)
            return
        for passes in self._passes(read, sampling, check):
            tally = empty()
            for raw in passes:
                tally.add(raw)
            yield tally.columns()

    def _passes(
        self,
        read: Mapping[str, Tensor],
        sampling: Sampling,
        check: Callable[[], None] | None,
    ) -> Iterator[Iterator[Tensor]]:
        """For one block of rows after the other, the raw outputs of its passes in order of t."""
        if sampling.method == "ensemble":
            raise InputError("method `ensemble` expects several networks, got one: use `Ensemble`")
        if sampling.method == "moments":
            for moments in self._moments(read, check):
                yield iter([moments.at_nodes(self.manifest.output)])
            return
        pieces = self.pieces(sampling.masks, read)
        if sampling.method == "mc":
            yield from pieces.blocks(read, sampling, check)
            return
        for rows in pieces.rows(read):
            if check is not None:
                check()
            yield iter([self._point(rows)])

    def _point(self, rows: Mapping[str, Tensor]) -> Tensor:
        return run(self.placed.point, rows, self.placed.weights, self.device).unsqueeze(0)

    def pieces(self, masks: Masks, read: Mapping[str, Tensor]) -> Passes:
        """The plan for rows of that shape, made at the first call and kept.

        Args:
            masks: `shared` or `independent`.
            read: rows by input name.
        """
        key = masks, shapes(read)
        if key not in self._planned:
            execution = self._plan(masks, read)
            found = options(execution, rates(self.device), self.defaults.num_samples)
            shape = execution.layouts.shape[execution.program.outputs["output"]]
            budget = self.memory_budget_bytes
            most = most_rows(self.manifest, shape, budget // BUDGET_PARTS)
            self._planned[key] = Passes(execution, budget, self.defaults.key, found, most_rows=most)
            while len(self._planned) > _MAX_PLANNED:
                self._planned.pop(next(iter(self._planned)))
        return self._planned[key]

    def _plan(self, masks: Masks, read: Mapping[str, Tensor]) -> Execution:
        if shapes(read) not in self._sound:
            limits = Limits(_allowed_bytes(self.memory_budget_bytes), self._clock)
            check_sound(self.bundle, read, limits)
        one = {name: tensor[:1].to(self.device) for name, tensor in read.items()}
        sites, program, weights = self.bundle.sites, self.placed.sampling, self.placed.weights
        with self._running():
            layouts = look(program, one, weights, self.device, self._watch)
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
            )

    @contextmanager
    def _running(self) -> Iterator[None]:
        """Without gradients, and in full float32 also where cuDNN would round to TF32."""
        on_cuda = self.device.type == "cuda"
        exact = torch.backends.cudnn.flags(allow_tf32=False) if on_cuda else nullcontext()
        try:
            with torch.no_grad(), exact:
                yield
        except IndexError as error:
            raise InputError(
                f"the network looks up an entry that it does not have ({error}): send indices"
                " within its tables, for instance tokens below the size of the vocabulary"
            ) from error

    @cached_property
    def _left(self) -> float:
        """What a stratified draw leaves of a nearly normal output, measured once."""
        rows = {name: tensor.to(self.device) for name, tensor in self.made_up_rows().items()}
        return left_over(self.bundle, self.placed, self.device, rows)

    def made_up_rows(self, count: int = 2) -> dict[str, Tensor]:
        """Rows of numbers that the network takes; free dimensions as long as it needs."""
        return made_up_rows(self.manifest.inputs, self._free, count)

    def _try_out(self, rows: Mapping[str, Tensor]) -> None:
        """Plan, and run made-up rows, so that a bundle that does not run is refused now."""
        self.pieces(self.defaults.masks, rows)
        three = {name: tensor[[0, 1, 0]].to(self.device) for name, tensor in rows.items()}
        point, weights = self.placed.point, self.placed.weights
        with self._running():
            made = point.run(three, weights, device=self.device, watch=self._watch)
        check_output(made["output"], self.manifest, rows=3)
        check_features(made.get("features"), rows=3)
        two = Sampling(2, self.defaults.seed)
        raw = self.sample(rows, sampling=two)
        check_output(raw[0], self.manifest, rows=2)
        each = ({name: tensor[at : at + 1] for name, tensor in rows.items()} for at in (0, 1))
        check_apart(raw, torch.cat([self.sample(row, sampling=two) for row in each], dim=1))

    def _prepare(self, rows: Mapping[str, Tensor]) -> None:
        """Measure now what the first request would else wait for."""
        self._time_forms(rows)
        if self.defaults.draw == "stratified":
            self._left  # noqa: B018

    def _watch(self, node: Node, value: Value) -> None:
        self._clock.check(f"node `{node.name}`")

    def _time_forms(self, rows: Mapping[str, Tensor]) -> None:
        sampling = replace(self.defaults, num_samples=min(self.defaults.num_samples, _TIMED))
        if sampling.num_samples > 1:
            planned = self.pieces("shared", rows)
            with self._running():
                self._planned["shared", shapes(rows)] = planned.timed(rows, sampling)


def _allowed_bytes(budget_bytes: int) -> int:
    return max(budget_bytes, _ALWAYS_ALLOWED_BYTES)


def shapes(read: Mapping[str, Tensor]) -> tuple[object, ...]:
    """The shape of one row of every input."""
    return tuple(tuple(tensor.shape[1:]) for tensor in read.values())
