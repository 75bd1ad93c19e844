"""The network with one output picked, in the shape that a bundle states.

Its job: a wrapper around the user's module that takes its inputs in a fixed order and returns
`output` as (rows, C), (rows, D), (rows, 2, D) or (rows, D, Q), with axes of positions where they
were declared, or (rows, 2, L) of tokens, and `features` as (rows, F) where asked.

Dimensions: C classes, D outputs, Q quantiles, L tokens, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from dubito_nn.capturing.declared import Declared
from dubito_nn.errors import ExportError

PREFIX = "network."


class Selected(nn.Module):
    """The network with one output picked and brought to the shape that a bundle states.

    Args:
        network: the user's module.
        keywords: names of its inputs, where it takes them by keyword.
        declared: what the numbers of its output are.
        output_name: which output of a structured return to take.
        features: path of the module whose output is returned as well.
    """

    def __init__(
        self,
        network: nn.Module,
        *,
        keywords: tuple[str, ...],
        declared: Declared,
        output_name: str | None,
        features: str | None,
    ) -> None:
        super().__init__()
        self.network = network
        self.output_name = output_name
        self._keywords = keywords
        self._declared = declared
        self._seen: list[Tensor] = []
        self.conditions: Callable[[], Sequence[Tensor]] = list
        self.features = features
        if features is not None:
            _submodule(network, features).register_forward_hook(self._remember)

    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Run the network: `output`, `features` where asked, and what drawn numbers decide by."""
        self._seen.clear()
        if self._keywords:
            returned = self.network(**dict(zip(self._keywords, inputs, strict=True)))
        else:
            returned = self.network(*inputs)
        result = {"output": self._shaped(self._picked(returned))}
        if self.features is not None:
            result["features"] = self._feature_rows(inputs[0].shape[0])
        for number, condition in enumerate(self.conditions()):
            result[f"condition_{number}"] = condition
        return result

    def _remember(self, module: nn.Module, args: object, result: object) -> None:
        if not isinstance(result, Tensor):
            raise ExportError(
                f"features `{self.features}` returns {_describe(result)}, expected one tensor:"
                " name a module that returns one"
            )
        self._seen.append(result)

    def _feature_rows(self, rows: int) -> Tensor:
        """The features of the last call of the module that was named, (rows, F)."""
        if not self._seen:
            raise ExportError(
                f"features `{self.features}` did not run in the forward pass: name a module that"
                " the network calls"
            )
        features = self._seen[-1]
        if features.ndim < 2 or features.shape[0] != rows:
            raise ExportError(
                f"features `{self.features}` has the shape {tuple(features.shape)}, expected the"
                " rows first: name a module that keeps them there"
            )
        return features.flatten(1)

    def _picked(self, returned: object) -> Tensor | tuple[Tensor, Tensor]:
        """The output to serve, or the pair of mean and log-variance, or of tokens and mask."""
        is_alone = isinstance(returned, Tensor) and not self.training  # heads for training alone
        if self.output_name is not None and not is_alone:
            returned = _item(returned, self.output_name)
        if isinstance(returned, Tensor):
            return returned
        takes_two = self._declared.is_pair or self._declared.is_of_tokens
        if takes_two and isinstance(returned, (tuple, list)):
            halves = [half for half in returned if isinstance(half, Tensor)]
            if len(halves) == len(returned) == 2:
                return halves[0], halves[1]
        if takes_two:
            raise ExportError(
                f"the network returns {_describe(returned)}, expected one tensor or a pair of them:"
                " return those two alone, if need be from a module around it"
            )
        raise ExportError(
            f"the network returns {_describe(returned)}, expected one tensor: name the output to"
            " serve with output_name=..."
        )

    def _shaped(self, picked: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        if self._declared.is_pair:
            return self._paired(picked)
        if self._declared.is_of_tokens:
            return _tokens(picked)
        assert isinstance(picked, Tensor)
        levels = self._declared.quantile_levels
        return _as_columns(picked) if levels is None else _as_quantiles(picked, len(levels))

    def _paired(self, picked: Tensor | tuple[Tensor, Tensor]) -> Tensor:
        """Means and log-variances behind each other on a new axis 1."""
        axis = self._declared.output_axis
        if isinstance(picked, tuple):
            mean, log_variance = (_as_columns(half) for half in picked)
            if mean.shape == log_variance.shape:
                return torch.stack([mean, log_variance], dim=1)
            got = f"{_shape(mean)} and {_shape(log_variance)}"
        elif _is_double(picked, axis):
            return torch.stack(list(picked.chunk(2, dim=axis or 1)), dim=1)
        else:
            got = _shape(picked)
        at_positions = "" if axis is None else f", with positions 2 D on the output_axis {axis},"
        raise ExportError(
            "output `mean_and_log_variance` expects a pair of (rows, D) tensors or one (rows, 2 D)"
            f" tensor,{at_positions} got {got}: return one log-variance for each mean"
        )


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
    """One output of a structured return, by key, position or attribute."""
    if isinstance(returned, Mapping) and name in returned:
        return returned[name]
    if isinstance(returned, (tuple, list)) and name.isdecimal() and int(name) < len(returned):
        return returned[int(name)]
    item = getattr(returned, name, None) if name.isidentifier() else None
    if item is None or isinstance(returned, Tensor):
        raise ExportError(
            f"output_name names `{name}`, but the network returns {_describe(returned)}: choose"
            " one of its outputs, or leave output_name out for a single tensor"
        )
    return item


def _describe(returned: object) -> str:
    if isinstance(returned, Mapping):
        return f"the outputs {sorted(str(key) for key in returned)}"
    if isinstance(returned, (tuple, list)):
        return f"{len(returned)} outputs, named `0` to `{len(returned) - 1}`"
    return "one tensor" if isinstance(returned, Tensor) else f"a {type(returned).__name__}"


def _as_columns(tensor: Tensor) -> Tensor:
    return tensor.unsqueeze(1) if tensor.ndim == 1 else tensor


def _is_double(tensor: Tensor, output_axis: int | None) -> bool:
    """Whether an axis of outputs, 1 where there are no positions, falls into two equal halves."""
    if output_axis is None:
        return tensor.ndim == 2 and tensor.shape[1] % 2 == 0
    is_axis = -tensor.ndim < output_axis < tensor.ndim and output_axis != 0
    return is_axis and tensor.shape[output_axis] % 2 == 0


def _as_quantiles(tensor: Tensor, num_levels: int) -> Tensor:
    """Quantiles of D outputs, (rows, D, Q), of which one output may leave its axis out."""
    quantiles = tensor.unsqueeze(1) if tensor.ndim == 2 else tensor
    if quantiles.ndim != 3 or quantiles.shape[2] != num_levels:
        raise ExportError(
            f"output `quantiles` expects the shape (rows, Q), or (rows, D, Q) for D outputs, with"
            f" the Q = {num_levels} quantile_levels last, got {_shape(tensor)}: return"
            f" .view(-1, D, {num_levels}), or declare the levels that the network returns"
        )
    return quantiles


def _tokens(picked: Tensor | tuple[Tensor, Tensor]) -> Tensor:
    """Log-probabilities of the tokens, 0 where there is none, and their mask: (rows, 2, L)."""
    log_probs, mask = picked if isinstance(picked, tuple) else (picked, torch.ones_like(picked))
    if log_probs.ndim != 2 or mask.shape != log_probs.shape:
        got = _shape(log_probs)
        if isinstance(picked, tuple):
            got += f" and {_shape(mask)}"
        raise ExportError(
            "output `token_log_probs` expects the log-probability of each given token, (rows,"
            " length), alone or with a mask of that shape that is 1 at tokens and 0 at padding, got"
            f" {got}: return log_probs.gather(-1, tokens.unsqueeze(-1)).squeeze(-1), mask"
        )
    counted = torch.where(mask != 0, log_probs, torch.zeros_like(log_probs))
    return torch.stack([counted, mask.to(log_probs.dtype)], dim=1)


def _shape(tensor: Tensor) -> str:
    """A shape without the number of rows, which is a symbol while the network is recorded."""
    return f"({', '.join(['rows', *map(str, tensor.shape[1:])])})"
