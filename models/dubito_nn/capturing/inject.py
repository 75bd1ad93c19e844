"""Put dropout where a network has none, or change how much it drops.

Its job: on a private copy, set p of the named modules, or add a dropout behind their output, so
that a network trained with p = 0 can be doubted as well. Of a layer that is not torch's, a number
under a likely name is taken for its p only if the network, run with another number there, drops
with what was asked and is the same in evaluation mode.
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase
from functools import partial

from torch import Tensor, nn
from torch.nn import functional

from dubito_nn.capturing.capture import Captured
from dubito_nn.capturing.observe import Observed, observe
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


def inject_dropout(captured: Captured, drop_prob: Mapping[str, float]) -> Injection:
    """Apply the overrides in place.

    Of nested matches of a pattern the innermost count; of patterns that match one module the last.

    Raises:
        ExportError: for a pattern that matches no module, a p outside (0, 1), or a layer that
            drops, but not with a number that could be set.
    """
    done = Injection()
    wanted = _wanted(captured.module.network, drop_prob)
    modules = dict(captured.module.network.named_modules())
    before: Observed | None = None
    for path, probability in wanted.items():
        module = modules[path]
        if _is_set(module, probability):
            continue
        before = before or observe(captured)
        if not _governs(captured, path, probability, before):
            _refuse_own(path, module, before)
            done.silent.add(path)
            module.register_forward_hook(partial(done.drop_output, probability, path))
    done.paths = tuple(wanted)
    return done


def _wanted(network: nn.Module, drop_prob: Mapping[str, float]) -> dict[str, float]:
    """The p that is asked of each module, by its path."""
    wanted: dict[str, float] = {}
    if not isinstance(drop_prob, Mapping) or not all(isinstance(name, str) for name in drop_prob):
        raise ExportError(
            f"drop_prob expects patterns of module paths with a probability each, got"
            f" {str(drop_prob)[:100]}: write it as {{'encoder.*': 0.1}}"
        )
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
        wanted.update(dict.fromkeys(paths, float(probability)))
    return wanted


def _innermost(paths: list[str], modules: Mapping[str, nn.Module]) -> list[str]:
    holders = [path for path in paths if isinstance(modules[path], _HOLDS_DROPOUT)]
    outside = [p for p in paths if not any(p.startswith(f"{holder}.") for holder in holders)]
    return [p for p in outside if not any(other.startswith(f"{p}.") for other in outside)]


def _is_set(module: nn.Module, probability: float) -> bool:
    """Set p of a layer of torch, whose meaning is known; False for any other layer."""
    if isinstance(module, nn.modules.dropout._DropoutNd):
        module.p = probability
        return True
    several = isinstance(module, nn.RNNBase) and module.num_layers > 1
    if several or isinstance(module, nn.MultiheadAttention):
        vars(module)["dropout"] = probability
        return True
    return False


def _governs(captured: Captured, path: str, probability: float, before: Observed) -> bool:
    """Set the number that a layer drops with, if it has one under a likely name."""
    module = captured.module.network.get_submodule(path)
    if isinstance(module, nn.RNNBase):  # one layer has nothing between layers
        return False
    learned = getattr(module, "drop_prob", None)
    if isinstance(learned, Tensor):
        raise ExportError(
            f"drop_prob: module `{path}` learned its p, {float(learned.detach().mean()):.3g} on"
            " average, which is not overridden: leave it out of the pattern"
        )
    held = {name: getattr(module, name, None) for name in _PROBABILITIES}
    numbers = {name: value for name, value in held.items() if isinstance(value, float)}
    for old in dict.fromkeys(numbers.values()):
        names = [name for name, value in numbers.items() if value == old]
        for name in names:
            setattr(module, name, probability)
        if before.becomes(observe(captured), path, old, probability):
            return True
        for name in names:
            setattr(module, name, old)
    return False


def _refuse_own(path: str, module: nn.Module, before: Observed) -> None:
    """Put no second dropout behind a layer that drops by itself.

    Raises:
        ExportError: naming the module.
    """
    if not any(where == path for where, _ in before.rates):
        return
    names = [name for name in _PROBABILITIES if isinstance(getattr(module, name, None), float)]
    tried = f"its {' and '.join(f'`{name}`' for name in names)} did not change what it drops"
    raise ExportError(
        f"drop_prob: module `{path}` draws random numbers itself, and"
        f" {tried if names else 'holds its p under no known name'}: set p in the module before the"
        " export, or name a module inside it or behind it"
    )
