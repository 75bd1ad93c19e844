"""The engine: a bundle on a device, ready to be asked.

Its job: tie the parts together. inputs → prefix once per row → chunks of samples → parts of the
head → sums → columns.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from torch import Tensor

from dubito.engine import loading, proof
from dubito.engine.additivity import CURVED, left_over
from dubito.engine.answering.call import EngineCall
from dubito.engine.answering.features import features, of_tile
from dubito.engine.answering.learned import learned_columns
from dubito.engine.answering.passing import passes, propagated, tally_of, tiles
from dubito.engine.answering.propagating import Propagating
from dubito.engine.answering.recording import Recordings, filled_rows
from dubito.engine.answering.streaming import joined, until
from dubito.engine.calling.arguments import Check, as_device, as_sampling, budget_bytes, check_load
from dubito.engine.calling.columns import Columns, Figures
from dubito.engine.calling.inputs import Inputs, read_rows
from dubito.engine.calling.lookups import check_lookups
from dubito.engine.calling.prediction import Prediction
from dubito.engine.calling.sampling import Draw, Masks, Precision, Sampling, Sites
from dubito.engine.deviation import MAX_DEVIATION, Deviation
from dubito.engine.distilled import Students
from dubito.engine.findings import NOTHING_KEPT, Findings
from dubito.engine.heads import OutputHead, head_of
from dubito.engine.heads.scaling import Scaling
from dubito.engine.kernels.precision import running
from dubito.engine.laplace import Fits
from dubito.engine.planning.placement import Placed
from dubito.engine.plans import Plans, shapes
from dubito.engine.running.passes import Passes
from dubito.engine.some_sites import SomeSites
from dubito.engine.summing.sheet import Sheet
from dubito_nn import Bundle, Manifest
from dubito_nn.program import sites_in
from dubito_nn.trial import made_up_rows


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
        whole: the engine with all sites; None: it is this one.
        deviation: of its figures from those in float32; None in float32.
    """

    bundle: Bundle
    device: torch.device
    placed: Placed
    defaults: Sampling
    memory_budget_bytes: int
    plans: Plans
    _free: int = 8
    whole: Engine | None = None
    deviation: Deviation | None = None

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
        sites: Sites = "all",
        findings: Findings = NOTHING_KEPT,
        timing_limit_s: float | None = 1.0,
        precision: Precision = "float32",
        max_deviation: float = MAX_DEVIATION,
    ) -> Engine:
        """Read a bundle, bring it to a device, plan it, and try it on one made-up row.

        Args:
            source: path, bytes, or a bundle already read.
            device: as torch names it.
            num_samples: default, as of a `Sampling`; so seed, masks, draw and sites.
            seed: key of the masks.
            masks: `shared` or `independent`.
            draw: `stratified` or `iid`.
            memory_budget_bytes: of one chunk; None: 512 MiB, on a GPU a sixteenth of its memory.
            proof_limit_s: processor time of its proof, where it is loaded for that alone; or None.
            sites: those that are sampled.
            findings: of earlier loads.
            timing_limit_s: on the wall, for finding out which forms pay; None: no limit.
            precision: of the passes; `tf32` needs a GPU.
            max_deviation: of its figures from those in float32; see `engine/deviation.py`.

        Raises:
            InputError: an argument is out of its bounds, or the figures deviate by more.
            BundleRefusedError: it is unsound or does not run.
        """
        defaults = Sampling(num_samples, seed, masks, draw, sites=sites, precision=precision)
        on = as_device(device)
        budget = budget_bytes(on) if memory_budget_bytes is None else memory_budget_bytes
        check_load(source, budget, proof_limit_s)
        bundle = source if isinstance(source, Bundle) else loading.read(source)
        defaults = replace(defaults, method=bundle.manifest.default_method)
        bounds = proof_limit_s, max_deviation
        engine = loading.proved(cls, bundle, on, defaults, budget, findings, *bounds)
        if proof_limit_s is None:
            loading.prepare(engine, findings, timing_limit_s)
        engine.of_sites(defaults.sites)
        return engine

    @property
    def manifest(self) -> Manifest:
        """What the bundle says of the network."""
        return self.bundle.manifest

    @cached_property
    def head(self) -> OutputHead:
        """The head that says what the outputs mean."""
        return head_of(self.manifest)

    @property
    def members(self) -> tuple[Engine, ...]:
        """The engines that answer: itself."""
        return (self,)

    @property
    def shares_features(self) -> bool:
        """Whether a row has one feature vector, where it has any."""
        return True

    def drawn(self, sampling: Sampling) -> list[tuple[Engine, Sampling]]:
        """Return every member with its own sampling; here the engine with this one."""
        return [(self, sampling)]

    def with_members(self, members: Sequence[Engine]) -> Engine:
        """Return the same kind of network made of other engines; here of one."""
        return members[0]

    def read_inputs(self, inputs: Inputs) -> dict[str, Tensor]:
        """Check rows against the network's inputs; see `dubito.engine.calling.inputs`."""
        return check_lookups(read_rows(inputs, self.manifest), self.bundle)

    def position_shape(self, rows: Mapping[str, Tensor] | None = None) -> tuple[int, ...]:
        """The axes of positions of a row; of labels (L,), of one distribution per row ().

        Args:
            rows: of the shape in question; None: as made-up rows are.
        """
        return self.head.position_shape(
            lambda: proof.output_shape(self.bundle, self.made_up_rows() if rows is None else rows)
        )

    def numbers_per_row(self, rows: Mapping[str, Tensor] | None = None) -> int:
        """Probabilities, or means, that one pass makes of one row; argument as above."""
        return self.head.per_position * math.prod(self.position_shape(rows))

    def sample(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        check: Check | None = None,
    ) -> Tensor:
        """The declared outputs of all num_samples passes, whatever the tolerance.

        Args:
            inputs: rows first.
            sampling: where other than the default.
            check: called between chunks; whatever it raises ends the sampling.

        Returns:
            Shape (T, B, C) or (T, B, D), for `mean_and_log_variance` (T, B, 2, D), on the CPU. With
            methods `moments` and `distilled` T fixed points with the moments of the outputs.
        """
        sampling = self._sampling(sampling)
        engine = self.of_sites(sampling.sites)
        rows = self.read_inputs(inputs)
        call = EngineCall(rows, sampling, check, outputs=self.fitting_outputs(rows))
        with running(self.device, self.defaults.precision):
            by_rows = [torch.cat([raw.cpu() for raw in block]) for block in passes(engine, call)]
        return torch.cat(by_rows, dim=1)

    def predict(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Check | None = None,
        outputs: Collection[str] | None = None,
    ) -> Prediction:
        """Mean, spread and measures over T passes.

        Args:
            inputs: rows first.
            sampling: where other than the default.
            temperature: on each pass's logits (`heads/scaling.py`); classes only.
            keep_samples: return every pass as well, which takes memory in proportion to T.
            check: called between chunks; whatever it raises ends the prediction.
            outputs: columns that are wanted, by their names in a reply; None: all. Where none needs
                the spread over the passes (`lean_columns` of heads), those that do are nan.

        Raises:
            InputError: for rows that the network does not take, a temperature not above 0, or all
                passes with a tolerance.
        """
        rows, sampling = self.read_inputs(inputs), self._sampling(sampling)
        call = EngineCall(rows, sampling, check, temperature, keep_samples, outputs=outputs)
        return self._predicted(call)

    def predict_with_features(
        self,
        inputs: Inputs,
        *,
        sampling: Sampling | None = None,
        temperature: Scaling = 1.0,
        keep_samples: bool = False,
        check: Check | None = None,
    ) -> tuple[Prediction, Tensor]:
        """Return what `predict` and `feature_maps` return, the prefix being computed once."""
        rows, sampling = self.read_inputs(inputs), self._sampling(sampling)
        call, parts = EngineCall(rows, sampling, check, temperature, keep_samples), list[Tensor]()
        if self._makes_features(call):
            call = replace(call, seen=lambda tile: parts.append(of_tile(tile).cpu()))
        prediction = self._predicted(call)
        return prediction, torch.cat(parts) if parts else self.feature_maps(rows, check=check)

    def features(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """The feature vector of each row, (B, F), on the CPU: `feature_maps` laid out flat."""
        return self.feature_maps(inputs, check=check).flatten(1)

    def feature_maps(self, inputs: Inputs, *, check: Check | None = None) -> Tensor:
        """The features of each row, (B, ...), on the CPU, in one pass without draws.

        The output of the module that the export named, in the point graph; where none was named,
        the last value that is computed from x alone and crosses into a part with draws, or where
        there is none the numbers of the inputs.

        Raises:
            InputError: for rows that the network does not take, or where there is no such value.
        """
        rows = self.read_inputs(inputs)
        pieces = (self.whole or self).pieces("shared", rows)
        with running(self.device, self.defaults.precision):
            return features(self.placed, pieces, rows, check)

    def of_sites(self, sites: Sites) -> Engine:
        """The engine that samples some sites; see `dubito.engine.some_sites`."""
        whole = self.whole or self
        return whole if sites == "all" else whole._some_sites.engine(sites, asked=self)

    @cached_property
    def sampled(self) -> tuple[int, ...]:
        """Numbers of the sites that it samples, in ascending order."""
        return tuple(sorted(set(sites_in(self.bundle.sampling.nodes))))

    @cached_property
    def _some_sites(self) -> SomeSites:
        return SomeSites(self)

    def _predicted(self, call: EngineCall) -> Prediction:
        self.head.check_scaling(call.scaling)
        engine = self.of_sites(call.sampling.sites)
        columns = engine._recorded(call)
        if columns is None:
            with running(self.device, self.defaults.precision):
                columns = joined(list(engine.columns_of(call)), self.head.sample_names)
        return self.head.prediction(columns, call.sampling)

    def _makes_features(self, call: EngineCall) -> bool:
        """Whether the passes of a call compute the features on their way."""
        if self.placed.features is not None or call.sampling.method != "mc":
            return False
        if self.whole is not None or self.of_sites(call.sampling.sites) is not self:
            return False  # what is computed before its first draw is more than the features
        shared, used = (self.pieces(m, call.rows) for m in ("shared", call.sampling.masks))
        return used is shared or used.execution.crossing == shared.execution.crossing

    def _sampling(self, sampling: object) -> Sampling:
        """Return the sampling of a call, or the default for None, checked against the head."""
        chosen = as_sampling(sampling, self.defaults)
        self.head.check_method(chosen.method)
        return chosen

    def _recorded(self, call: EngineCall) -> Columns | None:
        """All columns from a CUDA graph; None where the call is not of that kind."""
        if self._recordings is None or call.keep_samples or not call.sampling.is_plain:
            return None
        pieces = self.pieces("shared", call.rows)
        if not pieces.is_repeatable(filled_rows(call.num_rows), call.sampling):
            return None
        if call.check is not None:
            call.check()

        def answer(rows: Mapping[str, Tensor]) -> tuple[Sheet, Figures]:
            with running(self.device, self.defaults.precision):
                (block,) = passes(self, replace(call, rows=rows, check=None, seen=None))
                tally = tally_of(self, call, block)
                return tally.sheet(), tally.figures

        kind = shapes(call.rows), call.sampling, call.scaling
        held = partial(pieces.held, call.sampling)
        return self._recordings.columns(call.rows, kind, answer, held)

    @cached_property
    def _recordings(self) -> Recordings | None:
        return Recordings(self.device) if self.device.type == "cuda" else None

    def passes_of(self, call: EngineCall) -> Iterator[Iterator[Tensor]]:
        """The raw passes of a call, block of rows by block."""
        return passes(self, call)

    def columns_of(self, call: EngineCall) -> Iterator[Columns]:
        """The columns of a call, of some rows after the others."""
        sampling = call.sampling
        if sampling.method == "distilled":
            yield learned_columns(self, call)
        elif sampling.method == "moments":
            assert self.head.moments is not None
            for moments in propagated(self, call):
                columns = self.head.moments.columns(
                    moments, call.scaling, keep_nodes=call.keep_samples
                )
                yield {name: column.cpu().numpy() for name, column in columns.items()}
        elif sampling.tolerance is not None:
            for tile in tiles(self, call):
                yield until(tile, tally_of(self, call), sampling.num_samples, sampling.tolerance)
        else:
            for block in passes(self, call):
                yield tally_of(self, call, block).columns()

    @cached_property
    def fits(self) -> Fits:
        """What method `laplace` draws from."""
        if self.whole is not None:
            return self.whole.fits
        return Fits(self.placed, self.manifest, self.device, self.memory_budget_bytes)

    @cached_property
    def students(self) -> Students:
        """What method `distilled` answers by."""
        if self.whole is not None:
            return self.whole.students
        return Students(self.placed, self.manifest, self.device, self.made_up_rows)

    def fits_of(self, method: str) -> Fits | Students:
        """What was fitted for a method."""
        return self.students if method == "distilled" else self.fits

    def has_fit(self, number: int) -> bool:
        """Whether a fit of that number is on the device."""
        return number in self.fits.held or number in self.students.held

    @cached_property
    def propagating(self) -> Propagating:
        """What method `moments` answers with."""
        return Propagating(self)

    def pieces(self, masks: Masks, rows: Mapping[str, Tensor]) -> Passes:
        """The plan for rows of that shape; see `dubito.engine.plans`."""
        return self.plans.pieces(masks, rows)

    @cached_property
    def left(self) -> float:
        """What a stratified draw leaves of a nearly normal output, measured once."""
        rows = {name: tensor.to(self.device) for name, tensor in self.made_up_rows().items()}
        return left_over(self.bundle, self.placed, self.device, rows)

    def left_of(self, sampling: Sampling) -> float | None:
        """What a stratified draw leaves of the outputs; None where nothing is drawn so."""
        if sampling.draw == "stratified" and sampling.method == "laplace":  # sums of normals
            left = self.fits.held.get(sampling.fit).left
            return 1 - (1 - left) * (1 - CURVED * self.head.is_curved)
        return self.left if (sampling.draw, sampling.method) == ("stratified", "mc") else None

    def fitting_outputs(self, rows: Mapping[str, Tensor]) -> Collection[str] | None:
        """What to ask for where nothing is read: all columns, or where they do not fit none."""
        return None if self.pieces("shared", rows).has_room else ()

    def made_up_rows(self, count: int = 2) -> dict[str, Tensor]:
        """Rows of numbers that the network takes; free dimensions as long as it needs."""
        return made_up_rows(self.manifest, self._free, count)
