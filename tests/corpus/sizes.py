"""Hostile graphs that would take memory or time without end."""

from __future__ import annotations

from .cases import hostile
from .parts import F32, ON, Json, Parts, node, ref, zeros

TOO_LARGE = "bytes|does not run|operations"
HUGE = 10**6


def _grown(title: str, *nodes: Json, reason: str = TOO_LARGE) -> None:
    """The last node becomes one number and is added to the output."""
    one = node("one", "aten.amax.default", nodes[-1])

    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        return parts.grown(*nodes, one)

    @hostile(reason, title + ", in the point graph")
    def build_point(parts: Parts) -> bytes:
        return parts.grown(*nodes, one, in_point=True)


def _alone(title: str, *nodes: Json, reason: str = TOO_LARGE) -> None:
    one = node("one", "aten.amax.default", nodes[-1])

    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        return parts.grown(*nodes, one)


LONG = node("long", "aten.arange.default", HUGE, dtype=F32, **ON)
_grown("zeros of terabytes", zeros("a", HUGE, HUGE))
_grown("an endless arange", node("a", "aten.arange.default", 10**12, **ON))
_grown("an endless repeat", LONG, node("a", "aten.repeat.default", LONG, [HUGE]))
_alone("an endless arange of small steps", node("a", "aten.arange.start_step", 0, 1, 1e-12, **ON))
_alone("an endless linspace", node("a", "aten.linspace.default", 0, 1, 10**12, **ON))
_alone("an endless eye", node("a", "aten.eye.default", 10**6, **ON))
_alone("an endless expand", zeros("z", 1), node("a", "aten.expand.default", ref("z"), [10**12]))
_alone("an endless outer product", LONG, node("a", "aten.outer.default", LONG, LONG))
_alone(
    "an endless broadcast",
    zeros("p", HUGE, 1),
    zeros("q", HUGE),
    node("a", "aten.add.Tensor", ref("p"), ref("q")),
)
_alone("an endless pad", node("a", "aten.constant_pad_nd.default", ref("x"), [10**11, 10**11]))
_alone("an endless repeat of items", LONG, node("a", "aten.repeat_interleave.self_int", LONG, HUGE))
_alone("an endless diagonal", LONG, node("a", "aten.diag_embed.default", LONG))
_alone("a size of 2^62", zeros("a", 2**62))
_grown("gigabytes without a device", node("a", "aten.full.default", [2**34], 1.0))
_grown("gigabytes on no device", node("a", "aten.arange.default", 2**34, device=None))
_grown(
    "a product of integers, without a device, that takes minutes",
    node("p", "aten.ones.default", [3000, 3000], dtype={"dtype": "int64"}),
    node("a", "aten.mm.default", ref("p"), ref("p")),
    reason="operations",
)
_alone("sizes whose product overflows", zeros("a", 2**32, 2**32, 4))
_alone("a negative size", zeros("a", -5))
_alone(
    "a million million channels",
    zeros("i", 1, 1, 4, 4),
    zeros("k", 1, 1, 1, 1),
    node("a", "aten.conv2d.default", ref("i"), ref("k"), None, [1, 1], [10**6, 10**6]),
)
_alone(
    "a picture scaled up by a million",
    zeros("i", 1, 1, 4, 4),
    node("a", "aten.upsample_nearest2d.vec", ref("i"), None, [1e6, 1e6]),
)
_alone(
    "windows without end",
    zeros("i", 1, 1, 2000, 2000),
    node("a", "aten.im2col.default", ref("i"), [900, 900], [1, 1], [0, 0], [1, 1]),
)
_alone(
    "a tensor in 10^8 parts",
    zeros("z", 0, 3),
    node("p", "aten.chunk.default", ref("z"), 10**8),
    node("a", "operator.getitem", ref("p"), 0),
)
_alone(
    "a tensor unbound to 10^8 parts",
    zeros("z", 10**8, 0),
    node("p", "aten.unbind.int", ref("z")),
    node("a", "operator.getitem", ref("p"), 0),
)
_alone(
    "a tensor that doubles forty times",
    zeros("d0", 1000),
    *(node(f"d{i + 1}", "aten.cat.default", [ref(f"d{i}")] * 2) for i in range(40)),
)
_alone(
    "a size that squares itself for ever",
    node("s0", "operator.add", ref("rows"), 7),
    *(node(f"s{i + 1}", "operator.mul", ref(f"s{i}"), ref(f"s{i}")) for i in range(60)),
    zeros("a", 1) | {"name": "a"},
)
_alone("a size of lists", node("s", "operator.mul", [1, 2], 10**12), zeros("a", 1))
_alone(
    "a product that takes an hour",
    zeros("p", 6000, 6000),
    *(node(f"p{i}", "aten.matmul.default", ref("p"), ref("p")) for i in range(1000)),
    reason="operations",
)
_alone(
    "one product that takes an hour",
    zeros("p", 3, 3 * 10**7),
    node("q", "aten.view.default", ref("p"), [9000, 10000]),
    node("r", "aten.einsum.default", "ij,ik,jl,im->klm", [ref("q")] * 4),
)
_alone(
    "a pool that takes an hour",
    zeros("i", 1, 1, 5000, 5000),
    node("a", "aten.max_pool2d.default", ref("i"), [2500, 2500], [1, 1]),
    reason="operations",
)
_alone(
    "a mean of windows that takes an hour",
    zeros("i", 1, 1, 5000, 5000),
    node("a", "aten.avg_pool2d.default", ref("i"), [2500, 2500], [1, 1]),
    reason="operations",
)
_alone(
    "a convolution that takes an hour",
    zeros("i", 1, 1, 3000, 3000),
    zeros("k", 1, 1, 1500, 1500),
    node("a", "aten.conv2d.default", ref("i"), ref("k")),
    reason="operations",
)
_alone(
    "a convolution that keeps a terabyte of windows",
    node("i", "aten.zeros.default", [1, 1, 1000, 1000], dtype={"dtype": "float64"}, **ON),
    node("k", "aten.zeros.default", [1, 1, 200, 200], dtype={"dtype": "float64"}, **ON),
    node("a", "aten.conv2d.default", ref("i"), ref("k")),
    reason="operations|bytes",
)
_alone(
    "a recurrence of a million steps",
    zeros("i", HUGE, 1, 1),
    zeros("h", 1, 1, 1),
    zeros("w", 4, 1),
    node(
        "l",
        "aten.lstm.input",
        ref("i"),
        [ref("h"), ref("h")],
        [ref("w"), ref("w")],
        False,
        1,
        0.0,
        False,
        False,
        False,
    ),
    node("a", "operator.getitem", ref("l"), 0),
    reason="operations",
)
_alone(
    "a recurrence of a million layers",
    zeros("i", 1, 1, 1),
    zeros("h", HUGE, 1, 1),
    zeros("w", 4, 1),
    node(
        "l",
        "aten.lstm.input",
        ref("i"),
        [ref("h"), ref("h")],
        [ref("w")] * 4,
        False,
        HUGE,
        0.0,
        False,
        False,
        False,
    ),
    node("a", "operator.getitem", ref("l"), 0),
)
_alone(
    "many sorts of a large tensor",
    zeros("z", 20 * 2**20),
    *(
        made
        for i in range(200)
        for made in (
            node(f"s{i}", "aten.sort.default", ref("z")),
            node(f"v{i}", "operator.getitem", ref(f"s{i}"), 0),
        )
    ),
    reason="operations",
)
_alone(
    "many passes over a large tensor",
    zeros("z", 20 * 2**20),
    *(node(f"e{i}", "aten.lgamma.default", ref("z")) for i in range(3000)),
    reason="operations",
)
_alone(
    "many values that stay",
    *(zeros(f"k{i}", 2**20) for i in range(3000)),
    node("all", "aten.stack.default", [ref(f"k{i}") for i in range(3000)]),
    reason="bytes",
)


_alone(
    "a transform to a tensor of a terabyte",
    zeros("z", 8),
    node("c", "aten.complex.default", ref("z"), ref("z")),
    node("a", "aten._fft_c2r.default", ref("c"), [0], 0, 2**38),
    reason="bytes",
)
_alone(
    "many inverses of a large matrix",
    zeros("z", 3000, 3000),
    *(
        made
        for i in range(50)
        for made in (
            node(f"i{i}", "aten.linalg_inv_ex.default", ref("z")),
            node(f"v{i}", "operator.getitem", ref(f"i{i}"), 0),
        )
    ),
    reason="operations",
)
_alone(
    "an exponential of a large matrix",
    zeros("z", 8000, 8000),
    node("a", "aten.linalg_matrix_exp.default", ref("z")),
    reason="operations|bytes",
)
_alone(
    "distances of all pairs",
    zeros("z", 20_000, 2000),
    node("a", "aten._cdist_forward.default", ref("z"), ref("z"), 3.0, None),
    reason="operations|bytes",
)


def _many(count: int) -> list[Json]:
    return [
        node(f"n{i}", "aten.relu.default", ref("x" if not i else f"n{i - 1}")) for i in range(count)
    ]


@hostile("expects 1 to")
def fifty_thousand_nodes(parts: Parts) -> bytes:
    return parts.appended(*_many(50_000))


@hostile("larger than it may be")
def ten_million_nodes(parts: Parts) -> bytes:
    nodes = b'{"nodes":[' + b"{}," * 10**7 + b'{}],"outputs":{"output":"y"}}'
    return parts.sealed(sampling=nodes)


@hostile("operations|longer")
def nodes_of_a_second_each(parts: Parts) -> bytes:
    return parts.grown(
        zeros("z", 4000, 4000),
        *(node(f"m{i}", "aten.matmul.default", ref("z"), ref("z")) for i in range(30)),
        node("one", "aten.amax.default", ref("m29")),
    )
