"""Put dropout where a network has none, or change how much it drops.

Its job: on a private copy, set p of the named modules, or add a dropout behind their output, so
that a network trained with p = 0 can be doubted as well.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.errors import ExportError

_HOLDS_DROPOUT = (nn.modules.dropout._DropoutNd, nn.MultiheadAttention, nn.RNNBase)
_PROBABILITIES = ("p", "drop_prob", "dropout", "dropout_prob", "attention_dropout")


class Injection:
    """What `drop_prob` changed in a network.

    Args:
        paths: of the modules it touched.
        silent: paths of those with a dropout behind them that has not run yet.
    """

    def __init__(self) -> None:
        self.paths: tuple[str, ...] = ()
        self.silent: set[str] = set()

    def refuse_silent(self) -> None:
        """See, after a pass, that every dropout that was put behind a module has run.

        Raises:
            ExportError: naming the first that has not.
        """
        for path in sorted(self.silent):
            raise ExportError(
                f"drop_prob: module `{path}` is not called in the forward pass, so nothing drops"
                " behind it: name the module that calls it"
            )

    def drop_output(
        self, probability: float, path: str, module: nn.Module, args: object, result: object
    ) -> object:
        """Forward hook: dropout on the output, or on the first tensor of several."""
        self.silent.discard(path)
        first, rest = (result[0], result[1:]) if isinstance(result, tuple) else (result, None)
        if not isinstance(first, Tensor) or not first.is_floating_point():
            raise ExportError(
                f"drop_prob: module `{path}` does not return a tensor to drop from: name a module"
                " that does"
            )
        dropped = functional.dropout(first, probability, module.training)
        return dropped if rest is None else (dropped, *rest)


def inject_dropout(network: nn.Module, drop_prob: Mapping[str, float]) -> Injection:
    """Apply the overrides in place; of nested matches of a pattern the innermost count.

    Raises:
        ExportError: for a pattern that matches no module, or a p outside (0, 1).
    """
    done = Injection()
    modules = {name: module for name, module in network.named_modules() if name}
    for pattern, probability in drop_prob.items():
        is_number = isinstance(probability, (int, float)) and not isinstance(probability, bool)
        if not (is_number and 0 < probability < 1):
            raise ExportError(
                f"drop_prob of `{pattern}` expects a probability in (0, 1), got {probability!r}:"
                " leave out what shall not drop"
            )
        paths = _innermost([name for name in modules if fnmatchcase(name, pattern)], modules)
        if not paths:
            raise ExportError(
                f"drop_prob names `{pattern}`, which matches no module: choose among"
                f" {list(modules)[:30]}"
            )
        for path in paths:
            _set(modules[path], probability, path, done)
        done.paths = tuple(dict.fromkeys((*done.paths, *paths)))
    return done


def _innermost(paths: list[str], modules: Mapping[str, nn.Module]) -> list[str]:
    holders = [path for path in paths if isinstance(modules[path], _HOLDS_DROPOUT)]
    outside = [p for p in paths if not any(p.startswith(f"{holder}.") for holder in holders)]
    return [p for p in outside if not any(other.startswith(f"{p}.") for other in outside)]


def _set(module: nn.Module, probability: float, path: str, done: Injection) -> None:
    one_layer = isinstance(module, nn.RNNBase) and module.num_layers == 1
    for name in _PROBABILITIES:
        present = getattr(module, name, None)
        if isinstance(present, Tensor) and name == "drop_prob":
            raise ExportError(
                f"drop_prob: module `{path}` learned its p, {float(present.detach().mean()):.3g} on"
                " average, which is not overridden: leave it out of the pattern"
            )
        if isinstance(present, float) and not one_layer:
            setattr(module, name, probability)
            return
    done.silent.add(path)
    module.register_forward_hook(partial(done.drop_output, probability, path))
