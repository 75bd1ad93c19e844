"""Note down what an eager network draws, as the ω of its sites.

Its job: a dispatch mode that runs every random operator of a network as it is, and keeps the draw
that explains its result, so that the lifted graph can be fed the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from dubito_nn.capturing.paths import WHOLE
from dubito_nn.lifting.tabulated import (
    QuantileTable,
    binomial_table,
    count_of,
    gamma_of,
    gamma_table,
    poisson_table,
)
from dubito_nn.operators import name_of


class DrawRecorder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes down ω of every random operator that an eager network runs, in order.

    Args:
        running: paths of the modules whose forward pass is under way, kept by the caller.
        told: what ω is to be, by the number of the draw.
    """

    def __init__(
        self, running: Sequence[str] = (), told: Mapping[int, float] | None = None
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._told = told or {}
        self.draws: list[Tensor] = []
        self.paths: list[str] = []
        self._running = running

    def __torch_dispatch__(
        self,
        func: torch._ops.OpOverload,
        types: Sequence[type],
        args: Sequence[object] = (),
        kwargs: Mapping[str, object] | None = None,
    ) -> object:
        """Run the operator; where it rolls dice, keep the ω that explains its result."""
        kwargs = kwargs or {}
        if torch.Tag.nondeterministic_seeded not in func.tags:
            return func(*args, **kwargs)
        name, overload = name_of(func).split(".")[1:]
        base = name.removesuffix("_")
        arguments = _with_defaults(func, args, kwargs)
        if base == "bernoulli" and overload in ("default", "Tensor"):
            return self._bernoulli(arguments, in_place=name.endswith("_"))
        if base == "normal" and "Tensor" in overload:
            return self._normal(arguments)
        if base in _DRAWN_HERE:
            draw, result = _DRAWN_HERE[base](arguments)
            self._keep(draw)
            return args[0].copy_(result) if name.endswith("_") else result  # type: ignore[attr-defined]
        result = func(*args, **kwargs)
        told = self._told.get(len(self.draws))
        if told is not None and base in _TOLD:
            result.copy_(_TOLD[base](told, arguments))
        if base == "native_dropout":
            self._keep(result[1].to(result[0].dtype))
        elif base == "bernoulli":
            if arguments[1] != 1:  # keeps everything: no site
                self._keep(result)
        elif base in _INVERSES:
            self._keep(_INVERSES[base](result, arguments))
        return result  # of any other no draw is in the graph: what an output reads was refused

    def _keep(self, draw: Tensor) -> None:
        self.draws.append(draw.detach().clone())
        self.paths.append(self._running[-1] if self._running else WHOLE)

    def _bernoulli(self, arguments: Sequence[object], *, in_place: bool) -> Tensor:
        """1[ω < P]: the operator does not tell its ω, so it is drawn here."""
        like, probability = arguments[0], arguments[1] if len(arguments) > 1 else arguments[0]
        assert isinstance(like, Tensor)
        assert isinstance(probability, Tensor)
        uniform = torch.rand(like.shape, dtype=probability.dtype)
        if len(self.draws) in self._told:
            uniform.fill_(self._told[len(self.draws)])
        self._keep(uniform)
        result = (uniform < probability).to(like.dtype)
        return like.copy_(result) if in_place else result

    def _normal(self, arguments: Sequence[object]) -> Tensor:
        """μ + σ ω: where σ is 0 the result does not tell ω, so it is drawn here."""
        mean, deviation = (torch.as_tensor(part) for part in arguments[:2])
        like = mean + deviation
        draw = torch.randn(like.shape, dtype=like.dtype)
        self._keep(draw)
        return mean + deviation * draw


def _with_defaults(
    func: torch._ops.OpOverload, args: Sequence[object], kwargs: Mapping[str, object]
) -> list[object]:
    """Positional arguments with the schema's defaults, which callers may leave out."""
    rest = [a for a in func._schema.arguments if not a.kwarg_only][len(args) :]
    return [*args, *(kwargs.get(argument.name, argument.default_value) for argument in rest)]


def _floats(args: Sequence[object]) -> list[float]:
    return [float(part) for part in args if isinstance(part, (int, float))]


def _as_drawn(result: Tensor, args: Sequence[object]) -> Tensor:
    return result


def _between(told: float, args: Sequence[object]) -> Tensor:
    low, high = _floats(args)[:2]
    return torch.tensor(low + (high - low) * told, dtype=torch.float64)


def _around(told: float, args: Sequence[object]) -> Tensor:
    mean, deviation = _floats(args)[:2]
    return torch.tensor(mean + deviation * told, dtype=torch.float64)


def _itself(told: float, args: Sequence[object]) -> Tensor:
    return torch.tensor(told, dtype=torch.float64)


def _uniform(result: Tensor, args: Sequence[object]) -> Tensor:
    low, high = _floats(args)[:2]
    return (result - low) / (high - low)


def _normal(result: Tensor, args: Sequence[object]) -> Tensor:
    mean, deviation = _floats(args)[:2]
    return (result - mean) / deviation


def _integer(result: Tensor, args: Sequence[object]) -> Tensor:
    low, high = (0.0, *_floats(args))[-2:]
    return (result.double() - low + 0.5) / (high - low)


def _exponential(result: Tensor, args: Sequence[object]) -> Tensor:
    return -torch.expm1(-result * _floats(args)[0])


def _log_normal(result: Tensor, args: Sequence[object]) -> Tensor:
    mean, deviation = _floats(args)[:2]
    return (result.log() - mean) / deviation


def _cauchy(result: Tensor, args: Sequence[object]) -> Tensor:
    median, scale = _floats(args)[:2]
    return torch.atan((result - median) / scale) / math.pi + 0.5


def _rrelu(result: object, args: Sequence[object]) -> Tensor:
    x, slopes, low, high = args[:4]
    assert isinstance(x, Tensor)
    assert isinstance(slopes, Tensor)
    assert isinstance(low, float)
    assert isinstance(high, float)
    return torch.where(x > 0, 0.5, (slopes - low) / (high - low))


def _geometric(args: Sequence[object]) -> tuple[Tensor, Tensor]:
    like, probability = args[:2]
    assert isinstance(like, Tensor)
    assert isinstance(probability, float)
    draw = torch.rand(like.shape, dtype=torch.float64)
    trials = torch.log1p(-draw) / math.log1p(-probability)
    return draw, trials.ceil().clamp(min=1).to(like.dtype)


def _multinomial(args: Sequence[object]) -> tuple[Tensor, Tensor]:
    weights, count, replacement = args[:3]
    assert isinstance(weights, Tensor)
    assert isinstance(count, int)
    wide = weights.double()
    if count != 1 and not replacement:
        draw = torch.rand(wide.shape, dtype=torch.float64)
        return draw, (wide.log() - (-draw.log()).log()).topk(count, -1).indices
    draw = torch.rand((*wide.shape[:-1], count), dtype=torch.float64)
    sums = wide.cumsum(-1)
    passed = sums[..., :-1].unsqueeze(-2) <= (draw * sums[..., -1:]).unsqueeze(-1)
    return draw, passed.sum(-1)


def _randperm(args: Sequence[object]) -> tuple[Tensor, Tensor]:
    count = args[0]
    assert isinstance(count, int)
    draw = torch.rand(count, dtype=torch.float64)
    return draw, draw.argsort()


def _gamma(args: Sequence[object]) -> tuple[Tensor, Tensor]:
    draw, log, like = _log_gamma(args)
    return draw, log.exp().clamp_min(torch.finfo(like.dtype).tiny).to(like.dtype)


def _dirichlet(args: Sequence[object]) -> tuple[Tensor, Tensor]:
    draw, log, like = _log_gamma(args)
    kind = torch.finfo(like.dtype)
    return draw, log.softmax(-1).clamp(kind.tiny, 1 - kind.eps).to(like.dtype)


def _log_gamma(args: Sequence[object]) -> tuple[Tensor, Tensor, Tensor]:
    (concentration,) = [part for part in args if isinstance(part, Tensor)]
    draw = torch.randn(concentration.shape, dtype=torch.float64)
    return draw, gamma_of(gamma_table(concentration), draw), concentration


def _poisson(args: Sequence[object]) -> tuple[Tensor, Tensor]:
    return _counted(poisson_table, args)


def _binomial(args: Sequence[object]) -> tuple[Tensor, Tensor]:
    return _counted(binomial_table, args)


def _counted(make: Callable[..., QuantileTable], args: Sequence[object]) -> tuple[Tensor, Tensor]:
    given = [part for part in args if isinstance(part, Tensor)]
    draw = torch.rand(sum(given).shape, dtype=torch.float64)  # type: ignore[union-attr]
    return draw, count_of(make(*given), draw).to(given[0].dtype)


_DRAWN_HERE: dict[str, Callable[[Sequence[object]], tuple[Tensor, Tensor]]] = {
    "geometric": _geometric,
    "multinomial": _multinomial,
    "randperm": _randperm,
    "_standard_gamma": _gamma,
    "_sample_dirichlet": _dirichlet,
    "poisson": _poisson,
    "binomial": _binomial,
}
"""ω and the result, of operators whose result does not tell its ω."""

_TOLD: dict[str, Callable[[float, Sequence[object]], Tensor]] = {
    **dict.fromkeys(("rand", "rand_like", "randn", "randn_like", "bernoulli"), _itself),
    "uniform": _between,
    "normal": _around,
}
"""The result of an operator that is told its ω."""

_INVERSES: dict[str, Callable[[Tensor, Sequence[object]], Tensor]] = {
    "rand": _as_drawn,
    "rand_like": _as_drawn,
    "randn": _as_drawn,
    "randn_like": _as_drawn,
    "uniform": _uniform,
    "normal": _normal,
    "randint": _integer,
    "randint_like": _integer,
    "exponential": _exponential,
    "log_normal": _log_normal,
    "cauchy": _cauchy,
    "rrelu_with_noise": _rrelu,
}
