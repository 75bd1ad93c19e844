"""How each random operator's result follows from its draw ω.

native_dropout(x, p)      x · (ω / (1 - p))         ω ~ Bernoulli(1 - p)
bernoulli(p)              ω                         ω ~ Bernoulli(p)
bernoulli(P), P a tensor  1[ω < P]                  ω ~ Uniform[0, 1)
rand, uniform(a, b)       a + (b - a) ω             ω ~ Uniform[0, 1)
randint(a, b)             a + floor((b - a) ω)      ω ~ Uniform[0, 1)
exponential(λ)            -log(1 - ω) / λ           ω ~ Uniform[0, 1)
randn, normal(μ, σ)       μ + σ ω                   ω ~ Normal(0, 1)
log_normal(μ, σ)          exp(μ + σ ω)              ω ~ Normal(0, 1)
cauchy(m, s)              m + s tan(π (ω - 1/2))    ω ~ Uniform[0, 1)
geometric(p)              ⌈log(1 - ω) / log(1 - p)⌉ ω ~ Uniform[0, 1), at least 1
rrelu(x; a, b)            x, or x (a + (b - a) ω)   ω ~ Uniform[0, 1), where x ≤ 0
multinomial(P)            #{c: Σ_{j ≤ c} P_j ≤ ω Σ P} ω ~ Uniform[0, 1), one number a choice
the same, n different     the n largest of P_c^(-1 / log ω_c), as log P_c - log(-log ω_c)
randperm(n)               the order of ω_1 ... ω_n  ω ~ Uniform[0, 1)
gamma(a), Dirichlet(a)    exp y_a(ω), its share     ω ~ Normal(0, 1), y_a from a table
poisson(λ), binomial(n,p) #{k: F(k) ≤ ω}            ω ~ Uniform[0, 1), F from a table

The last two take parameters that follow from weights and numbers alone (`tabulated`). Source of
several different classes: Efraimidis and Spirakis 2006, https://doi.org/10.1016/j.ipl.2005.11.003.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import fx

from dubito_nn.capturing.paths import module_path
from dubito_nn.errors import ExportError
from dubito_nn.lifting.tabulated import TableError, count_rule, dirichlet_rule, gamma_rule
from dubito_nn.manifest import Distribution
from dubito_nn.operators import name_of
from dubito_nn.program import Ref

if TYPE_CHECKING:
    from dubito_nn.lifting.lift import Lifter

Rule: TypeAlias = "Callable[[Lifter, fx.Node], None]"
aten = torch.ops.aten
_RNNS = (aten.lstm.input, aten.gru.input, aten.rnn_tanh.input, aten.rnn_relu.input)
EMPTY = (aten.empty_like.default, aten.new_empty.default, aten.empty.memory_format)
_QUIET_RANDOM = (*_RNNS, aten.scaled_dot_product_attention.default)
_SHAPE_ARGUMENT: dict[object, int] = {
    aten.randint.default: 1,
    aten.randint.low: 2,
    aten.normal.float_float: 2,
    aten.normal.float_Tensor: 1,
    aten.new_empty.default: 1,
}


def is_random(node: fx.Node) -> bool:
    """Whether an fx node rolls dice, by torch's own tag."""
    tags = getattr(node.target, "tags", ())
    return torch.Tag.nondeterministic_seeded in tags and node.target not in _QUIET_RANDOM


def operator_called(node: fx.Node) -> str:
    """The operator that the network called, of which the node may be one step."""
    sources = node.meta.get("from_node")
    return (sources[-1].target if sources else "") or name_of(node.target)


def shape_source(node: fx.Node) -> fx.Node | Sequence[object]:
    """Where the shape of a random node is known from: a tensor that lives, or a list of sizes."""
    source: object = node
    while isinstance(source, fx.Node) and (source is node or source.target in EMPTY):
        source = source.args[_SHAPE_ARGUMENT.get(source.target, 0)]
    if isinstance(source, fx.Node):
        return source
    assert isinstance(source, (tuple, list))
    return source


def refuse_certain(node: fx.Node, drop_prob: float) -> None:
    """Refuse a layer that drops everything.

    Raises:
        ExportError: naming the module.
    """
    if not 0 <= drop_prob < 1:
        raise ExportError(
            f"module `{module_path(node)}` drops with probability {drop_prob:g}, which leaves"
            " nothing to chance: set it between 0 and 1, or take the layer out"
        )


def _native_dropout(lifter: Lifter, node: fx.Node) -> None:
    """Scale by a mask, x · m / (1-p); users of the mask itself get it as booleans."""
    x, drop_prob, _ = node.args
    assert isinstance(x, fx.Node)
    result = Ref(lifter.names[x])
    users = {user.args[1]: user for user in node.users}
    assert isinstance(drop_prob, (int, float))
    if drop_prob != 0:
        refuse_certain(node, drop_prob)
        keep_prob = 1 - drop_prob
        mask = lifter.site(node, "bernoulli", keep_prob, None)
        if 1 in users:
            lifter.names[users[1]] = lifter.emit(
                "aten._to_copy.default", mask, dtype=torch.bool
            ).name
        scaled = lifter.emit("aten.mul.Scalar", mask, 1 / keep_prob)  # once per sample, not per row
        result = lifter.emit("aten.mul.Tensor", result, scaled)
    if 0 in users:
        lifter.names[users[0]] = result.name
    lifter.names[node] = result.name


def _bernoulli_p(lifter: Lifter, node: fx.Node) -> None:
    """A mask with a fixed rate; a tensor of rates makes uniform draws that are compared."""
    keep_prob = node.args[1]
    if isinstance(keep_prob, fx.Node):
        _bernoulli(lifter, node)
        return
    assert isinstance(keep_prob, (int, float))
    if keep_prob == 1:  # a layer that keeps everything is no site
        lifter.names[node] = lifter.constant(node, 1.0).name
        return
    refuse_certain(node, 1 - keep_prob)
    mask = lifter.site(node, "bernoulli", float(keep_prob), None)
    lifter.names[node] = mask.name


def _bernoulli(lifter: Lifter, node: fx.Node) -> None:
    probability = node.args[-1]
    assert isinstance(probability, fx.Node)
    if not lifter.draw:
        ones = lifter.constant(node, 1.0, probability.meta["val"].dtype)
        mean = lifter.emit("aten.mul.Tensor", ones, Ref(lifter.names[probability]))
        lifter.names[node] = mean.name
        return
    uniform = lifter.site(node, "uniform", 0.5, probability.meta["val"].dtype)
    smaller = lifter.emit("aten.lt.Tensor", uniform, Ref(lifter.names[probability]))
    result = lifter.emit("aten._to_copy.default", smaller, dtype=node.meta["val"].dtype)
    lifter.names[node] = result.name


def _uniform(lifter: Lifter, node: fx.Node) -> None:
    low, high = _floats(node, 0.0, 1.0)
    _affine(lifter, node, "uniform", low, high - low)


def _rand(lifter: Lifter, node: fx.Node) -> None:
    _affine(lifter, node, "uniform", 0.0, 1.0)


def _randn(lifter: Lifter, node: fx.Node) -> None:
    _affine(lifter, node, "normal", 0.0, 1.0)


def _normal_like(lifter: Lifter, node: fx.Node) -> None:
    mean, deviation = _floats(node, 0.0, 1.0)
    _affine(lifter, node, "normal", mean, deviation)


def _normal(lifter: Lifter, node: fx.Node) -> None:
    mean, deviation = node.args[0], (*node.args, 1.0)[1]
    if isinstance(mean, fx.Node) and isinstance(deviation, fx.Node):
        both = [Ref(lifter.names[part]) for part in (mean, deviation)]
        draw = lifter.site(node, "normal", 0.0, None, like=lifter.emit("aten.add.Tensor", *both))
    else:
        draw = lifter.site(node, "normal", 0.0, None)
    for op, argument in (("mul", deviation), ("add", mean)):
        kind = "Tensor" if isinstance(argument, fx.Node) else "Scalar"
        draw = lifter.emit(f"aten.{op}.{kind}", draw, lifter.argument(argument))
    lifter.names[node] = draw.name


def _floats(node: fx.Node, *defaults: float) -> list[float]:
    """The numbers after the first argument, with defaults for those left out."""
    numbers = [float(part) for part in node.args[1:] if isinstance(part, (int, float))]
    return [*numbers, *defaults[len(numbers) :]]


def _affine(
    lifter: Lifter, node: fx.Node, distribution: Distribution, start: float, factor: float
) -> None:
    draw = lifter.site(node, distribution, 0.5 if distribution == "uniform" else 0.0, None)
    if factor != 1:
        draw = lifter.emit("aten.mul.Scalar", draw, factor)
    if start != 0:
        draw = lifter.emit("aten.add.Scalar", draw, start)
    lifter.names[node] = draw.name
    if distribution == "uniform":
        lifter.resting.uniforms[node] = (start, start + factor)


def _randint(lifter: Lifter, node: fx.Node) -> None:
    bounds = [argument for argument in node.args if isinstance(argument, int)]
    low, high = (0, *bounds)[-2:]
    draw = lifter.site(node, "uniform", 0.5, torch.float64)
    scaled = lifter.emit("aten.mul.Scalar", draw, float(high - low))
    shifted = lifter.emit("aten.add.Scalar", lifter.emit("aten.floor.default", scaled), low)
    result = lifter.emit("aten._to_copy.default", shifted, dtype=node.meta["val"].dtype)
    lifter.names[node] = result.name


def _exponential(lifter: Lifter, node: fx.Node) -> None:
    (rate,) = _floats(node, 1.0)
    draw = lifter.site(node, "uniform", 0.5, None)
    log = lifter.emit("aten.log1p.default", lifter.emit("aten.neg.default", draw))
    lifter.names[node] = lifter.emit("aten.mul.Scalar", log, -1 / rate).name


def _log_normal(lifter: Lifter, node: fx.Node) -> None:
    mean, deviation = _floats(node, 1.0, 2.0)
    _affine(lifter, node, "normal", mean, deviation)
    lifter.names[node] = lifter.emit("aten.exp.default", Ref(lifter.names[node])).name


def _cauchy(lifter: Lifter, node: fx.Node) -> None:
    median, scale = _floats(node, 0.0, 1.0)
    draw = lifter.emit("aten.sub.Scalar", lifter.site(node, "uniform", 0.5, None), 0.5)
    tangent = lifter.emit("aten.tan.default", lifter.emit("aten.mul.Scalar", draw, math.pi))
    scaled = lifter.emit("aten.mul.Scalar", tangent, scale)
    lifter.names[node] = lifter.emit("aten.add.Scalar", scaled, median).name


def _geometric(lifter: Lifter, node: fx.Node) -> None:
    (probability,) = _floats(node, 0.5)
    draw = lifter.emit("aten.neg.default", lifter.site(node, "uniform", 0.5, torch.float64))
    log = lifter.emit("aten.log1p.default", draw)
    trials = lifter.emit("aten.mul.Scalar", log, 1 / math.log1p(-probability))
    least = lifter.emit("aten.clamp_min.default", lifter.emit("aten.ceil.default", trials), 1.0)
    result = lifter.emit("aten._to_copy.default", least, dtype=node.meta["val"].dtype)
    lifter.names[node] = result.name


def _rrelu(lifter: Lifter, node: fx.Node) -> None:
    x, _, low, high = (*node.args, 1 / 8, 1 / 3)[:4]
    assert isinstance(low, float)
    assert isinstance(high, float)
    draw = lifter.site(node, "uniform", 0.5, None)
    slope = lifter.emit("aten.add.Scalar", lifter.emit("aten.mul.Scalar", draw, high - low), low)
    kept = lifter.argument(x)
    turned = lifter.emit("aten.mul.Tensor", kept, slope)
    result = lifter.emit("aten.where.self", lifter.emit("aten.gt.Scalar", kept, 0), kept, turned)
    for user in node.users:
        if user.args[1] == 0:
            lifter.names[user] = result.name
    lifter.names[node] = result.name


def _multinomial(lifter: Lifter, node: fx.Node) -> None:
    """Numbers of classes, by inverse transform; several different ones by the largest keys."""
    weights, count, replacement = (*node.args, False)[:3]
    assert isinstance(weights, fx.Node)
    wide = lifter.emit("aten._to_copy.default", lifter.argument(weights), dtype=torch.float64)
    if count != 1 and not replacement:
        draw = lifter.site(node, "uniform", 0.5, torch.float64, like=wide, drawn=weights)
        spread = lifter.emit("aten.neg.default", lifter.emit("aten.log.default", draw))
        keys = lifter.emit(
            "aten.sub.Tensor",
            lifter.emit("aten.log.default", wide),
            lifter.emit("aten.log.default", spread),
        )
        largest = lifter.emit("aten.topk.default", keys, lifter.argument(count), -1)
        lifter.names[node] = lifter.emit("operator.getitem", largest, 1).name
        return
    draw = lifter.site(node, "uniform", 0.5, torch.float64, like=wide)
    sums = lifter.emit("aten.cumsum.default", wide, -1)
    total = lifter.emit("aten.slice.Tensor", sums, -1, -1, 2**63 - 1)
    bound = lifter.emit("aten.mul.Tensor", draw, total)
    inner = lifter.emit("aten.slice.Tensor", sums, -1, 0, -1)
    passed = lifter.emit(
        "aten.le.Tensor",
        lifter.emit("aten.unsqueeze.default", inner, -2),
        lifter.emit("aten.unsqueeze.default", bound, -1),
    )
    lifter.names[node] = lifter.emit("aten.sum.dim_IntList", passed, (-1,)).name


def _randperm(lifter: Lifter, node: fx.Node) -> None:
    draw = lifter.site(node, "uniform", 0.5, torch.float64)
    order = lifter.emit("aten.argsort.default", draw)
    result = lifter.emit("aten._to_copy.default", order, dtype=node.meta["val"].dtype)
    lifter.names[node] = result.name


def _from_table(rule: Rule) -> Rule:
    """A rule whose refusal names the module."""

    def named(lifter: Lifter, node: fx.Node) -> None:
        try:
            rule(lifter, node)
        except TableError as error:
            raise ExportError(
                f"module `{module_path(node)}` rolls dice with `{operator_called(node)}`, {error}"
            ) from error

    return named


RULES: dict[str, Rule] = {
    "aten.native_dropout.default": _native_dropout,
    "aten.bernoulli.p": _bernoulli_p,
    "aten.bernoulli.Tensor": _bernoulli_p,
    "aten.bernoulli.default": _bernoulli,
    "aten.rand.default": _rand,
    "aten.rand_like.default": _rand,
    "aten.randn.default": _randn,
    "aten.randn_like.default": _randn,
    "aten.uniform.default": _uniform,
    "aten.normal_functional.default": _normal_like,
    "aten.normal.float_float": _normal,
    "aten.normal.Tensor_float": _normal,
    "aten.normal.float_Tensor": _normal,
    "aten.normal.Tensor_Tensor": _normal,
    "aten.randint.default": _randint,
    "aten.randint.low": _randint,
    "aten.randint_like.default": _randint,
    "aten.randint_like.low_dtype": _randint,
    "aten.exponential.default": _exponential,
    "aten.log_normal.default": _log_normal,
    "aten.cauchy.default": _cauchy,
    "aten.geometric.default": _geometric,
    "aten.rrelu_with_noise_functional.default": _rrelu,
    "aten.multinomial.default": _multinomial,
    "aten.randperm.default": _randperm,
    "aten._standard_gamma.default": _from_table(gamma_rule),
    "aten._sample_dirichlet.default": _from_table(dirichlet_rule),
    "aten.poisson.default": _from_table(count_rule),
    "aten.binomial.default": _from_table(count_rule),
    "aten.rand.generator": _rand,
    "aten.randn.generator": _randn,
}
"""The random operators that can be lifted."""
