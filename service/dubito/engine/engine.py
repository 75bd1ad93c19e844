"""The engine: a bundle on a device, ready to be asked.

Its job: tie the parts together. inputs → prefix once per row → chunks of samples → head → sums →
columns.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from dubito.engine.additivity import left_over
from dubito.engine.answering.features import features
from dubito.engine.answering.recording import RECORDED_AT_LOAD, Recordings, filled_rows
from dubito.engine.answering.streaming import Tally, joined, until
from dubito.engine.calling.arguments import (
    as_device,
    as_sampling,
    budget_bytes,
    check_load,
    check_temperature,
)
from dubito.engine.calling.columns import Columns, Figures
from dubito.engine.calling.inputs import Inputs, read_inputs
from dubito.engine.calling.prediction import Prediction, as_prediction
from dubito.engine.calling.sampling import Draw, Masks, Sampling
from dubito.engine.heads.scaling import Scaling
from dubito.engine.kernels.products import run
from dubito.engine.moments import OutputMoments, Propagation
from dubito.engine.planning.placement import Placed, on_device, placed
from dubito.engine.plans import Plans, allowed_bytes, running, shapes
from dubito.engine.proof import (
    check_apart,
    check_features,
    check_head,
    check_output,
    fitting_size,
    made_up_rows,
    passes_in_double,
    refusing,
)
from dubito.engine.proving.clock import Clock
from dubito.engine.proving.sizes import GraphLimits, warm_up
from dubito.engine.running.fold import repeated_each
from dubito.engine.running.passes import Passes
from dubito.engine.summing.sheet import Sheet
from dubito.errors import BundleRefusedError, InputError
from dubito_nn import Bundle, BundleError, Manifest, load_bundle
from dubito_nn.program import SiteSource


@dataclass(eq=False)
class Engine:
    """A lifted network on a device.

    Args:
        bundle: the lifted network.
        device: where it runs.
        placed: its programs and weights there.
        defaults: sampling where a call names none.
        memory_budget_bytes: bound of what one call keeps alive beside weights and result.
        plans: for the shapes of rows that it was asked about.
    """

    bundle: Bundle
    device: torch.device
    placed: Placed
    defaults: Sampling
    memory_budget_bytes: int
    plans: Plans
    _free: int = 8

    @classmethod
    def load(
        cls,
        source: str | Path | bytes | Bundle,
        device: str = "cpu",
        num_samples: int = 64,
        seed: int = 0,
        masks: Masks = "shared",
        draw: Draw = "stratified",
        memory_budget_bytes: int | None = None,
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
            memory_budget_bytes: for the values of one chunk; None: 512 MiB on a CPU, a sixteenth
                of its memory on a GPU.
            proof_limit_s: processor time that showing that a small bundle runs may take, of a
                bundle that is loaded to be proved and not to answer; None: no limit.

        Raises:
            InputError: an argument is out of its bounds.
            BundleRefusedError: where the bundle is unsound or does not run.
        """
        defaults = Sampling(num_samples, seed, masks, draw)
        place = as_device(device)
        budget = budget_bytes(place) if memory_budget_bytes is None else memory_budget_bytes
        check_load(source, budget, proof_limit_s)
        try:
            bundle = source if isinstance(source, Bundle) else load_bundle(source)
        except BundleError as error:
            raise BundleRefusedError(str(error)) from error
        check_head(bundle.manifest)
        warm_up()
        clock = Clock(proof_limit_s, bundle.size_bytes)
        free = fitting_size(bundle, GraphLimits(allowed_bytes(budget), clock))
        with refusing():
            here = placed(bundle, place)
            plans = Plans(bundle, here, place, defaults, budget, clock)
            engine = cls(bundle, place, here, defaults, budget, plans, free)
            rows = engine.made_up_rows()
            plans.trust(rows)
            engine._try_out(rows)
            if proof_limit_s is None:
                engine._prepare(rows)
        plans.clock = Clock(None)
        return engine

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of itself."""
        return self.bundle.manifest

    def read_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Check rows against the network's inputs; see `dubito.engine.calling.inputs`."""
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
        with running(self.device):
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
            temperature: on each pass's logits (`summing/scaling.py`); classification only.
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
        columns = self._columns(read, sampling, temperature, keep_samples, check)
        return as_prediction(columns, self.manifest, sampling)

    def features(self, inputs: Inputs, *, check: Callable[[], None] | None = None) -> Tensor:
        """The feature vector of each row, (B, F), on the CPU, in one pass without draws.

        The output of the module that the export named, in the point graph; where none was named,
        the last value that is computed from x alone and crosses into a part with draws.

        Raises:
            InputError: for rows that the network does not take, or where there is no such value.
        """
        read = self.read_inputs(inputs)
        pieces = self.pieces("shared", read)
        with running(self.device):
            return features(self.placed, pieces, read, check)

    def output_moments(self, inputs: Inputs) -> OutputMoments:
        """Mean and variance of the declared outputs by moment propagation, on the CPU.

        Args:
            inputs: rows first.

        Raises:
            InputError: for rows that the network does not take, or an operator without a rule.
        """
        read = self.read_inputs(inputs)
        with running(self.device):
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

    def _columns(
        self,
        read: Mapping[str, Tensor],
        sampling: Sampling,
        temperature: Scaling,
        keep_samples: bool,
        check: Callable[[], None] | None,
    ) -> Columns:
        """All columns on the host; on a GPU from a recording, where the call is of that kind."""
        passes = None
        if self._recordings is not None and not keep_samples and sampling.is_plain:
            passes = self.pieces("shared", read)
        total = len(next(iter(read.values())))
        if passes is None or not passes.is_repeatable(filled_rows(total), sampling):
            with running(self.device):
                return joined(list(self._parts(read, sampling, temperature, keep_samples, check)))
        if check is not None:
            check()
        assert self._recordings is not None

        def answer(rows: Mapping[str, Tensor]) -> tuple[Sheet, Figures]:
            with running(self.device):
                (tally,) = self._tallies(rows, sampling, self._empty(sampling, temperature), None)
                return tally.sheet(), tally.figures

        kind = shapes(read), sampling, temperature
        return self._recordings.columns(read, kind, answer, partial(passes.held, sampling))

    @cached_property
    def _recordings(self) -> Recordings | None:
        return Recordings(self.device) if self.device.type == "cuda" else None

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
                found = moments.columns(self.manifest, temperature, keep_nodes=keep_samples)
                yield {name: column.cpu().numpy() for name, column in found.items()}
            return
        empty = self._empty(sampling, temperature, keep_samples)
        if sampling.tolerance is not None:
            tiles = self.pieces(sampling.masks, read).tiles(read, sampling, check)
            for tile in tiles:
                yield until(tile, empty(), sampling.num_samples, sampling.tolerance)
            return
        for tally in self._tallies(read, sampling, empty, check):
            yield tally.columns()

    def _empty(
        self, sampling: Sampling, temperature: Scaling, keep_samples: bool = False
    ) -> Callable[[], Tally]:
        left = self._left if sampling.draw == "stratified" and sampling.method == "mc" else None
        return partial(Tally, self.manifest, temperature, left, keep_samples)

    def _tallies(
        self,
        read: Mapping[str, Tensor],
        sampling: Sampling,
        empty: Callable[[], Tally],
        check: Callable[[], None] | None,
    ) -> Iterator[Tally]:
        """What the passes of some rows after the others say."""
        for passes in self._passes(read, sampling, check):
            tally = empty()
            for raw in passes:
                tally.add(raw)
            yield tally

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
        """The plan for rows of that shape; see `dubito.engine.plans`."""
        return self.plans.pieces(masks, read)

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
        with running(self.device):
            made = point.run(three, weights, device=self.device, watch=self.plans.watch)
        check_output(made["output"], self.manifest, rows=3)
        check_features(made.get("features"), rows=3)
        two = Sampling(2, self.defaults.seed)
        raw = self.sample(rows, sampling=two)
        check_output(raw[0], self.manifest, rows=2)
        each = ({name: tensor[at : at + 1] for name, tensor in rows.items()} for at in (0, 1))
        alone = torch.cat([self.sample(row, sampling=two) for row in each], dim=1)
        check_apart(raw, alone, partial(passes_in_double, self.bundle, rows, self._draws(two)))

    def _draws(self, sampling: Sampling) -> Callable[[int], SiteSource]:
        """The draws of the first pass over so many rows, on the CPU."""
        execution = self.pieces("shared", self.made_up_rows()).execution

        def draws(count: int) -> SiteSource:
            source = execution.draws(range(1), range(count), sampling.key, per_row=True)
            return lambda index, size, dtype: source(index, size, dtype).cpu()

        return draws

    def _prepare(self, rows: Mapping[str, Tensor]) -> None:
        """Measure and record now what the first request would else wait for."""
        self.plans.time_forms(rows)
        if self.defaults.draw == "stratified":
            self._left  # noqa: B018
        if self._recordings is not None:
            for count in RECORDED_AT_LOAD * 2:  # the second call records
                self.predict({name: repeated_each(x[:1], count, 0) for name, x in rows.items()})
