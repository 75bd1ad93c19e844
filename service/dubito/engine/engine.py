"""The engine: a bundle on a device, ready to be asked.

Its job: tie the parts together. inputs → prefix once per row → chunks of samples → head → sums →
columns.

Dimensions: T samples, B rows, C classes, D outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from dubito.engine.execution import Chunk, Execution
from dubito.engine.heads import log_probabilities, logits, mean_and_variance
from dubito.engine.inputs import Inputs, read_inputs
from dubito.engine.layout import look
from dubito.engine.placement import on_device
from dubito.engine.plan import Plan, make_plan
from dubito.engine.prediction import Classification, Prediction, Regression
from dubito.engine.propagation import OutputMoments, Propagation
from dubito.engine.sampling import Draw, Masks, Sampling
from dubito.engine.sizes import check_sizes
from dubito.engine.statistics import ClassificationSums, RegressionSums
from dubito.errors import BundleRefusedError, InputError
from dubito_nn import Bundle, BundleError, Manifest, load_bundle
from dubito_nn.program import DTYPES

_CPU_CHUNK_BYTES = 8 * 2**20  # what a chunk may keep alive and still stay near the cache
_MASK_SHARE = 4  # of the budget, one part in so many may hold masks between requests
_ALWAYS_ALLOWED_BYTES = 256 * 2**20  # of one value on two rows, however small the budget
_MAX_EXECUTIONS = 16  # shapes of rows that stay planned, where dimensions are free


@dataclass(eq=False)
class Engine:
    """A lifted network on a device.

    Args:
        bundle: the lifted network.
        device: where it runs.
        defaults: sampling where a call names none.
        memory_budget_bytes: bound of what one call keeps alive beside weights and result.
    """

    bundle: Bundle
    device: torch.device
    defaults: Sampling
    memory_budget_bytes: int
    weights: dict[str, Tensor] = field(default_factory=dict)
    _executions: dict[tuple[Masks, tuple[object, ...]], Execution] = field(default_factory=dict)

    @classmethod
    def load(
        cls,
        source: str | Path | bytes | Bundle,
        device: str = "cpu",
        num_samples: int = 64,
        seed: int = 0,
        masks: Masks = "shared",
        draw: Draw = "iid",
        memory_budget_bytes: int = 512 * 2**20,
    ) -> Engine:
        """Read a bundle, bring it to a device, plan it, and try it on one made-up row.

        Args:
            source: path, bytes, or a bundle already read.
            device: as torch names it.
            num_samples: default T.
            seed: default key of the masks.
            masks: default, `shared` or `independent`.
            draw: default, `iid`.
            memory_budget_bytes: for the values of one chunk.

        Raises:
            BundleRefusedError: where the bundle is unsound or does not run.
        """
        try:
            bundle = source if isinstance(source, Bundle) else load_bundle(source)
        except BundleError as error:
            raise BundleRefusedError(str(error)) from error
        engine = cls(
            bundle,
            torch.device(device),
            Sampling(num_samples, seed, masks, draw),
            memory_budget_bytes,
        )
        engine.weights = on_device(bundle, engine.device)
        if engine._has_fixed_shape:
            engine._try_out()
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
        """The declared outputs of every pass.

        Args:
            inputs: rows first.
            sampling: where other than the default.
            check: called between chunks; whatever it raises ends the sampling.

        Returns:
            Shape (T, B, C) or (T, B, D), for `mean_and_log_variance` (T, B, 2, D), on the CPU. With
            method `moments` T fixed points that have the moments of the outputs.
        """
        sampling = sampling or self.defaults
        read = self.read_inputs(inputs)
        if sampling.method == "moments":
            found = [part.at_nodes(self.manifest.output) for part in self._moments(read, check)]
            return torch.cat([raw.cpu() for raw in found], dim=1)
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
        temperature: float = 1.0,
        keep_samples: bool = False,
        check: Callable[[], None] | None = None,
    ) -> Prediction:
        """Mean, spread and measures over T passes.

        Args:
            inputs: rows first.
            sampling: where other than the default.
            temperature: divides each pass's logits before the softmax; classification only.
            keep_samples: return every pass as well, which takes memory in proportion to T.
            check: called between chunks; whatever it raises ends the prediction.

        Raises:
            InputError: for rows that the network does not take, or a temperature not above 0.
        """
        sampling = sampling or self.defaults
        if not 0 < temperature < float("inf"):
            raise InputError(f"`temperature` expects a number above 0, got {temperature}")
        read = self.read_inputs(inputs)
        if sampling.method == "moments":
            parts = [
                moments.columns(self.manifest, temperature, keep_nodes=keep_samples)
                for moments in self._moments(read, check)
            ]
        else:
            parts = [
                self._summed(passes, sampling, temperature, keep_samples)
                for passes in self._passes(read, sampling, check)
            ]
        columns = {
            key: torch.cat([part[key] for part in parts], dim=1 if "samples" in key else 0)
            .cpu()
            .numpy()
            for key in parts[0]
        }
        return self._prediction(columns, sampling)

    def output_moments(self, inputs: Inputs) -> OutputMoments:
        """Mean and variance of the declared outputs by moment propagation, on the CPU.

        Args:
            inputs: rows first.

        Raises:
            InputError: for rows that the network does not take, or an operator without a rule.
        """
        return OutputMoments.joined(list(self._moments(self.read_inputs(inputs), None)))

    def _moments(
        self, read: Mapping[str, Tensor], check: Callable[[], None] | None
    ) -> Iterator[OutputMoments]:
        layouts = self.execution("shared", read).layouts
        blocks = self._propagation.blocks(read, layouts, self.memory_budget_bytes, check)
        while True:
            with self._running():
                moments = next(blocks, None)
            if moments is None:
                return
            yield moments

    @cached_property
    def _propagation(self) -> Propagation:
        bundle, output = self.bundle, self.manifest.output
        return Propagation(bundle.sampling, bundle.sites, output, self.weights, self.device)

    def _summed(
        self,
        passes: Iterator[Tensor],
        sampling: Sampling,
        temperature: float,
        keep_samples: bool,
    ) -> dict[str, Tensor]:
        kept: dict[str, list[Tensor]] = {}
        sums: ClassificationSums | RegressionSums
        if self.manifest.task == "classification":
            sums = ClassificationSums(sampling.passes)
            for raw in passes:
                log_probs = log_probabilities(raw, self.manifest.output, temperature)
                sums.add(log_probs, logits(raw, self.manifest.output))
                if keep_samples:
                    kept.setdefault("samples", []).append(log_probs.exp())
        else:
            sums = RegressionSums()
            for raw in passes:
                mean, noise = mean_and_variance(raw, self.manifest)
                sums.add(mean, noise)
                if keep_samples:
                    kept.setdefault("samples", []).append(mean)
                    kept.setdefault("noise_samples", []).append(noise)
        return sums.measures() | {key: torch.cat(chunks) for key, chunks in kept.items()}

    def _prediction(
        self,
        columns: dict[str, np.ndarray[tuple[int, ...], np.dtype[np.float64]]],
        sampling: Sampling,
    ) -> Prediction:
        used = np.full(len(columns["mean"]), sampling.passes)
        if self.manifest.task == "regression":
            return Regression(sampling=sampling, num_samples_used=used, **columns)
        return Classification(
            sampling=sampling,
            classes=self.manifest.classes or (),
            label_index=columns["mean"].argmax(-1),
            num_samples_used=used,
            **columns,
        )

    def _passes(
        self,
        read: Mapping[str, Tensor],
        sampling: Sampling,
        check: Callable[[], None] | None,
    ) -> Iterator[Iterator[Tensor]]:
        """For one block of rows after the other, the raw outputs of its passes in order of t."""
        if sampling.method == "ensemble":
            raise InputError("method `ensemble` expects several networks, got one: use `Ensemble`")
        total = len(next(iter(read.values())))
        execution = self.execution(sampling.masks, read)
        per_chunk = self._folded_rows(execution.plan)
        single = execution.plan.one_at_a_time and sampling.masks == "independent"
        in_prefix = max(1, self.memory_budget_bytes // execution.plan.prefix_row_bytes)
        at_once = 1 if single else min(total, per_chunk, in_prefix)
        for first in range(0, total, at_once):
            rows = range(first, min(first + at_once, total))
            own = {
                name: tensor[rows.start : rows.stop].to(self.device)
                for name, tensor in read.items()
            }
            if sampling.method == "point":
                yield iter([self._point(own)])
            else:
                samples = 1 if execution.plan.one_at_a_time else max(1, per_chunk // len(rows))
                yield self._block(execution, own, rows, samples, sampling, check)

    def _block(
        self,
        execution: Execution,
        own: Mapping[str, Tensor],
        rows: range,
        samples_at_once: int,
        sampling: Sampling,
        check: Callable[[], None] | None,
    ) -> Iterator[Tensor]:
        with self._running():
            before = execution.prefix(own)
        for first in range(0, sampling.num_samples, samples_at_once):
            if check is not None:
                check()
            samples = range(first, min(first + samples_at_once, sampling.num_samples))
            with self._running():
                raw = execution.run(Chunk(samples, rows), own, before, sampling.seed)
            yield raw

    def _point(self, own: Mapping[str, Tensor]) -> Tensor:
        with self._running():
            raw = self.bundle.point.run(own, self.weights, device=self.device)["output"]
        return raw.unsqueeze(0)

    def execution(self, masks: Masks, read: Mapping[str, Tensor]) -> Execution:
        """The plan for rows of that shape, made at the first call and kept."""
        shapes = tuple(tuple(tensor.shape[1:]) for tensor in read.values())
        if (masks, shapes) not in self._executions:
            limit = max(self.memory_budget_bytes, _ALWAYS_ALLOWED_BYTES)
            for program in (self.bundle.sampling, self.bundle.point):
                two = {name: tensor[:1].repeat_interleave(2, 0) for name, tensor in read.items()}
                check_sizes(program, two, self.bundle.weights, limit)
            one = {name: tensor[:1].to(self.device) for name, tensor in read.items()}
            sites = self.bundle.sites
            with self._running():
                layouts = look(self.bundle.sampling, one, self.weights, self.device)
                plan = make_plan(self.bundle.sampling, sites, layouts, shared=masks == "shared")
                self._executions[masks, shapes] = Execution(
                    self.bundle.sampling,
                    sites,
                    self.weights,
                    layouts,
                    plan,
                    self.device,
                    masks,
                    self.memory_budget_bytes // _MASK_SHARE,
                )
            while len(self._executions) > _MAX_EXECUTIONS:
                self._executions.pop(next(iter(self._executions)))
        return self._executions[masks, shapes]

    def _folded_rows(self, plan: Plan) -> int:
        """How many samples x rows a chunk may hold.

        Raises:
            InputError: where the budget does not hold one.
        """
        row_bytes = max(plan.prefix_row_bytes, plan.suffix_row_bytes)
        if row_bytes > self.memory_budget_bytes:
            raise InputError(
                f"the memory budget of {self.memory_budget_bytes} bytes expects one row to fit,"
                f" which takes {row_bytes}: raise memory_budget_bytes"
            )
        fit = self.memory_budget_bytes // plan.suffix_row_bytes
        near = max(1, _CPU_CHUNK_BYTES // plan.suffix_row_bytes)
        return fit if self.device.type == "cuda" else min(fit, near)

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
    def _has_fixed_shape(self) -> bool:
        return all(isinstance(size, int) for spec in self.manifest.inputs for size in spec.shape)

    def made_up_rows(self) -> dict[str, Tensor]:
        """Two rows of numbers that the network takes; free dimensions are 8 long."""
        generator = torch.Generator().manual_seed(0)
        rows = {}
        for spec in self.manifest.inputs:
            size = (2, *(part if isinstance(part, int) else 8 for part in spec.shape))
            dtype = DTYPES[spec.dtype]
            if dtype.is_floating_point:
                drawn = torch.randn(size, generator=generator)
            else:
                high = 1 if spec.high is None else spec.high
                drawn = torch.randint(spec.low or 0, high + 1, size, generator=generator)
            rows[spec.name] = drawn.to(dtype)
        return rows

    def _try_out(self) -> None:
        """Plan, and run made-up rows, so that a bundle that does not run is refused now."""
        try:
            rows = self.made_up_rows()
            self.sample(rows, sampling=Sampling(1, method="point"))
            raw = self.sample(rows, sampling=Sampling(2, self.defaults.seed))
        except (RuntimeError, TypeError, ValueError, IndexError, KeyError, AssertionError) as error:
            raise BundleRefusedError(
                f"the graph does not run on one row: {str(error).splitlines()[0][:200]}:"
                " export the network again"
            ) from error
        self._check_output(raw)

    def _check_output(self, raw: Tensor) -> None:
        columns = 1 if self.manifest.output == "sigmoid_logits" else self.manifest.num_outputs
        pair = (2,) if self.manifest.output == "mean_and_log_variance" else ()
        if tuple(raw.shape[2:]) != (*pair, columns):
            raise BundleRefusedError(
                f"the graph returns rows of shape {tuple(raw.shape[2:])}, the manifest states"
                f" {(*pair, columns)}: export the network again"
            )
