"""Trace a network twice: as it samples, and as it is evaluated.

Its job: take a private copy of the network, put it into sampling or evaluation mode, and record it
with `torch.export` as a functional ATen graph whose first axis, the rows, is free. The caller's
module is never touched and no global generator is advanced.

Sampling mode is training mode with every normalisation that keeps running statistics left in
evaluation mode: an evaluation-mode trace would lose the dropout inside fused attention.
"""

from __future__ import annotations

import copy
import inspect
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from dubito_nn.errors import ExportError

Mode = Literal["sampling", "evaluation"]
Example: TypeAlias = "Tensor | Sequence[Tensor] | Mapping[str, Tensor]"
FreeDims: TypeAlias = "Mapping[str, Mapping[int, str]] | None"
PREFIX = "network."
BATCH = "batch"
_MAX_ROWS = 2**31 - 1


class Selected(nn.Module):
    """The network with one output picked and brought to the shape (rows, C) or (rows, 2, D).

    Args:
        network: the user's module.
        output: what its numbers are.
        output_name: which output of a structured return to take; two names for a pair.
        features: path of the module whose output is returned as well.
    """

    def __init__(
        self, network: nn.Module, output: str, output_name: str | None, features: str | None
    ) -> None:
        super().__init__()
        self.network = network
        self._output = output
        self._output_name = output_name
        self._seen: list[Tensor] = []
        self._features = features
        if features is not None:
            _submodule(network, features).register_forward_hook(self._remember)

    def _remember(self, module: nn.Module, args: object, result: object) -> None:
        if not isinstance(result, Tensor):
            raise ExportError(f"features `{self._features}` returns {type(result).__name__}")
        self._seen.append(result)

    def forward(self, *args: Tensor, **kwargs: Tensor) -> dict[str, Tensor]:
        """Run the network and return `output`, and `features` where asked."""
        self._seen.clear()
        returned = self.network(*args, **kwargs)
        result = {"output": self._shaped(self._picked(returned))}
        if self._features is not None:
            if not self._seen:
                raise ExportError(f"features `{self._features}` did not run in the forward pass")
            result["features"] = self._seen[-1].flatten(1)
        return result

    def _picked(self, returned: object) -> Tensor | tuple[Tensor, Tensor]:
        if self._output_name is not None:
            returned = _item(returned, self._output_name)
        if isinstance(returned, Tensor):
            return returned
        if self._output == "mean_and_log_variance" and isinstance(returned, (tuple, list)):
            if len(returned) == 2 and all(isinstance(half, Tensor) for half in returned):
                return returned[0], returned[1]
        raise ExportError(
            f"the network returns {_describe(returned)}, expected one tensor: name the output to"
            " serve with output_name=..."
        )

    def _shaped(self, picked: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        if self._output == "mean_and_log_variance":
            if isinstance(picked, tuple):
                mean, log_variance = (_as_columns(half) for half in picked)
                return torch.stack([mean, log_variance], dim=1)
            if picked.ndim != 2 or picked.shape[1] % 2:
                raise ExportError(
                    "output `mean_and_log_variance` expects a pair of (rows, D) tensors or one"
                    f" (rows, 2 D) tensor, got {tuple(picked.shape)}"
                )
            return torch.stack(list(picked.chunk(2, dim=1)), dim=1)
        if isinstance(picked, tuple):
            raise ExportError("a pair is expected only for output `mean_and_log_variance`")
        return _as_columns(picked)


@dataclass
class Captured:
    """One network ready to be traced, with its example.

    Args:
        module: private copy, wrapped so that it returns a dictionary of tensors.
        names: of the inputs, in order.
        example: tensors by input name.
        by_keyword: whether the network takes its inputs by keyword.
        free_dims: input name → axis → name of the free dimension.
    """

    module: Selected
    names: tuple[str, ...]
    example: dict[str, Tensor]
    by_keyword: bool
    free_dims: Mapping[str, Mapping[int, str]]
    path: list[str] = field(default_factory=list)

    def run(self, inputs: Mapping[str, Tensor], mode: Mode) -> dict[str, Tensor]:
        """Run the eager network in a mode, without gradients."""
        set_mode(self.module, mode)
        with torch.no_grad():
            result = self.module(**inputs) if self.by_keyword else self.module(*inputs.values())
        return {key: value.detach() for key, value in result.items()}

    def trace(self, mode: Mode) -> ExportedProgram:
        """Record the network as an ATen graph with the rows free.

        Raises:
            ExportError: where the forward pass cannot be recorded, naming the module it stopped in.
        """
        set_mode(self.module, mode)
        example = {name: tensor.clone() for name, tensor in self.example.items()}
        args = () if self.by_keyword else tuple(example.values())
        kwargs = example if self.by_keyword else {}
        with _quiet(), self._watching():
            try:
                return torch.export.export(
                    self.module, args, kwargs, dynamic_shapes=self._shapes(), strict=False
                )
            except ExportError:
                raise
            except Exception as error:
                raise ExportError(_explain(error, self.path)) from error

    def _shapes(self) -> object:
        dims: dict[str, object] = {}
        rows = Dim(BATCH, min=1, max=_MAX_ROWS)
        named = {
            name: Dim(name, min=2, max=2**20)
            for axes in self.free_dims.values()
            for name in axes.values()
        }
        for name in self.names:
            axes = self.free_dims.get(name, {})
            dims[name] = {0: rows, **{axis: named[free] for axis, free in axes.items()}}
        return {"kwargs": dims} if self.by_keyword else {"args": tuple(dims.values())}

    @contextmanager
    def _watching(self) -> Iterator[None]:
        """Keep the path of the module that is running, so that a refusal can name it."""
        hooks = []
        self.path.clear()
        for name, module in self.module.network.named_modules():

            def enter(module: nn.Module, args: object, name: str = name) -> None:
                self.path.append(name or "(the network itself)")

            def leave(module: nn.Module, args: object, result: object) -> None:
                self.path.pop()

            hooks.append(module.register_forward_pre_hook(enter, prepend=True))
            hooks.append(module.register_forward_hook(leave))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()


def capture(
    network: nn.Module,
    example_inputs: Example,
    *,
    output: str,
    output_name: str | None,
    features: str | None,
    free_dims: FreeDims,
) -> Captured:
    """Copy the network to the CPU and name its inputs."""
    if not isinstance(network, nn.Module):
        raise ExportError(f"expects a torch.nn.Module, got {type(network).__name__}")
    try:
        own = copy.deepcopy(network).cpu()
    except Exception as error:
        raise ExportError(
            f"the network cannot be copied ({error}): detach tensors kept as attributes"
        ) from error
    for parameter in own.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    example, by_keyword = _named_example(network, example_inputs)
    selected = Selected(own, output, output_name, features)
    dims = _checked_free_dims(free_dims, example)
    return Captured(selected, tuple(example), example, by_keyword, dims)


def set_mode(module: nn.Module, mode: Mode) -> None:
    """Put a network into sampling or evaluation mode, in place."""
    module.train(mode == "sampling")
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._NormBase) and part.track_running_stats:
            part.eval()


def clean_path(path: str) -> str:
    """A module path as the user knows it."""
    return path.removeprefix(PREFIX).removeprefix("network") or "(the network itself)"


def _named_example(network: nn.Module, example: Example) -> tuple[dict[str, Tensor], bool]:
    if isinstance(example, Mapping):
        named, by_keyword = dict(example), True
    else:
        tensors = [example] if isinstance(example, Tensor) else list(example)
        parameters = list(inspect.signature(network.forward).parameters.values())
        names = [p.name for p in parameters if p.kind == p.POSITIONAL_OR_KEYWORD]
        if len(names) < len(tensors):
            names = [f"input_{position}" for position in range(len(tensors))]
        named, by_keyword = dict(zip(names, tensors, strict=False)), False
    if not named:
        raise ExportError("example_inputs is empty: give one batch as the network takes it")
    rows = set()
    for name, tensor in named.items():
        if not isinstance(tensor, Tensor) or tensor.ndim == 0:
            raise ExportError(f"example input `{name}` expects a tensor with rows first")
        rows.add(len(tensor))
        named[name] = tensor.detach().cpu().clone()
    if len(rows) != 1 or rows == {0}:
        raise ExportError(f"example inputs expect equal numbers of rows, got {sorted(rows)}")
    return {name: _enough_rows(tensor) for name, tensor in named.items()}, by_keyword


def _enough_rows(tensor: Tensor) -> Tensor:
    """Four rows at least, all different where numbers allow it: the proofs compare rows."""
    generator = torch.Generator().manual_seed(len(tensor))
    rows = [tensor]
    while sum(len(part) for part in rows) < 4:
        if tensor.is_floating_point():
            noise = torch.randn(tensor.shape, generator=generator, dtype=torch.float32)
            rows.append((tensor + 0.3 * noise * tensor.float().std().clamp_min(0.1)).to(tensor))
        else:
            order = torch.randperm(tensor[0].numel(), generator=generator)
            rows.append(tensor.reshape(len(tensor), -1)[:, order].reshape(tensor.shape))
    return torch.cat(rows)[: max(4, len(tensor))]


def _checked_free_dims(
    free_dims: FreeDims, example: Mapping[str, Tensor]
) -> dict[str, dict[int, str]]:
    checked: dict[str, dict[int, str]] = {}
    for name, axes in (free_dims or {}).items():
        if name not in example:
            raise ExportError(f"free_dims names `{name}`; the inputs are {list(example)}")
        for axis, free in axes.items():
            if not 1 <= axis < example[name].ndim or not free.isidentifier() or free == BATCH:
                raise ExportError(
                    f"free_dims of `{name}` expects axis numbers from 1 to"
                    f" {example[name].ndim - 1} and plain names, got {{{axis}: {free!r}}}"
                )
        checked[name] = dict(axes)
    return checked


def _submodule(network: nn.Module, path: str) -> nn.Module:
    try:
        return network.get_submodule(path)
    except AttributeError as error:
        paths = [name for name, _ in network.named_modules() if name]
        raise ExportError(
            f"features names `{path}`, which is no module of the network: choose one of"
            f" {paths[:30]}"
        ) from error


def _item(returned: object, name: str) -> object:
    if isinstance(returned, Mapping) and name in returned:
        return returned[name]
    if isinstance(returned, (tuple, list)) and name.isdecimal() and int(name) < len(returned):
        return returned[int(name)]
    found = getattr(returned, name, None) if name.isidentifier() else None
    if found is None:
        raise ExportError(f"output_name `{name}` is not among {_describe(returned)}")
    return found


def _describe(returned: object) -> str:
    if isinstance(returned, Mapping):
        return f"the outputs {sorted(str(key) for key in returned)}"
    if isinstance(returned, (tuple, list)):
        return f"{len(returned)} outputs, named `0` to `{len(returned) - 1}`"
    return f"a {type(returned).__name__}"


def _as_columns(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(1) if tensor.ndim == 1 else tensor


def _explain(error: Exception, path: list[str]) -> str:
    where = f"module `{path[-1]}`" if path else "the network"
    text = str(error)
    if "data-dependent" in text or "Data-dependent" in text or "GuardOnDataDependent" in text:
        return (
            f"{where} decides by the values of a tensor (data-dependent control flow), so one graph"
            " cannot stand for it: replace the `if`, `while`, `.item()` or boolean indexing by"
            f" torch.where or a mask. torch.export said: {_first_line(text)}"
        )
    if BATCH in text and ("pecializ" in text or "onstraint" in text or "equal" in text):
        return (
            f"{where} works for one number of rows only (a fixed size such as view(4, -1), or rows"
            " that are mixed): take the number of rows from x.shape[0]."
            f" torch.export said: {_first_line(text)}"
        )
    return (
        f"{where} cannot be recorded as a graph: {type(error).__name__}: {_first_line(text)}."
        " Use torch operators on tensors only in forward()"
    )


def _first_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0][:300] if lines else "no reason"


@contextmanager
def _quiet() -> Iterator[None]:
    """The recorder's warnings speak of its own inner life; what matters is raised."""
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")
        yield
