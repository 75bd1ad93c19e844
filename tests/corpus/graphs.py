"""Hostile graphs: operators, references and arguments."""

from __future__ import annotations

from collections.abc import Callable

from .cases import hostile
from .parts import F32, ON, Json, Parts, node, ref, zeros

OFF_THE_LIST = "not on the allow-list"

for _title, _op in {
    "an operator that reads files": "aten.from_file.default",
    "an operator that reads old memory": "aten.empty.memory_format",
    "an operator that writes in place": "aten.add_.Tensor",
    "an operator that writes to an argument": "aten.add.out",
    "an operator that sets memory": "aten.set_.source_Tensor",
    "an operator that rolls dice": "aten.bernoulli.p",
    "a strided view": "aten.as_strided.default",
    "an operator that resizes": "aten.resize_.default",
    "an operator of values": "aten.item.default",
    "a shape that depends on values": "aten.nonzero.default",
    "an operator of another namespace": "prims.add.default",
    "an operator that compiles": "higher_order.cond",
    "a walk to a class": "aten.add.Tensor.__class__",
    "a walk to the globals": "aten.add.Tensor.__init__.__globals__",
    "a walk by an empty part": "aten..default",
    "a module of Python": "os.system",
    "a builtin": "builtins.eval",
    "an operator of Python that walks": "operator.attrgetter",
    "an operator of Python that writes": "operator.setitem",
    "an operator with a space": "aten.add.Tensor ",
    "an operator in capitals": "ATEN.ADD.TENSOR",
    "an operator with look-alike letters": "\u0430ten.add.Tensor",
    "an operator of half a name": "aten.add",
    "one of our own in capitals": "Weight",
}.items():

    @hostile(OFF_THE_LIST, _title)
    def _operator(parts: Parts, op: str = _op) -> bytes:
        return parts.appended(node("evil", op, ref("x"), f"touch '{parts.canary}'"))


def _appended(title: str, reason: str, *nodes: Json) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        return parts.appended(*nodes)


def _grown(title: str, reason: str, *nodes: Json) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        return parts.grown(*nodes)


relu = "aten.relu.default"
_appended("a node without an operator", "expects the fields", {"name": "a", "args": []})
_appended("a node that is a list", "expects an object", ["a", relu, []])  # type: ignore[arg-type]
_appended("a node with a field too many", "expects the fields", node("a", relu) | {"code": "1"})
_appended("arguments that are an object", "args expects a list", node("a", relu) | {"args": {}})
_appended("a node that reads a later one", "no earlier node", node("a", relu, ref("b")))
_appended("a node that reads itself", "no earlier node", node("a", relu, ref("a")))
_appended(
    *("two nodes that read each other", "no earlier node"),
    node("a", relu, ref("b")),
    node("b", relu, ref("a")),
)
_appended("a node defined twice", "defined twice", node("x", relu, ref("x")))
_appended("a node of an empty name", "1 to 256 characters", node("", relu, ref("x")))
_appended("a node of a long name", "1 to 256 characters", node("a" * 257, relu, ref("x")))
_appended("an integer of 2^64", "64 bits", node("a", "aten.add.Scalar", ref("x"), 2**64))
_appended("an integer of 4,000 digits", "64 bits", node("a", "aten.add.Scalar", ref("x"), 10**3999))
_appended(
    *("arguments nested five deep", "nested deeper"), node("a", "aten.cat.default", [[[[[[1]]]]]])
)
_appended("a list of a million", "list too long", node("a", "aten.cat.default", [1] * 200_000))
_appended("an argument of two marks", "one key", node("a", relu, {"ref": "x", "dtype": "float32"}))
_appended(
    "an argument of Python's", "unknown argument", node("a", relu, {"py/object": "os.system"})
)
_appended("a reference that is a list", "text of 1", node("a", relu, {"ref": ["x"]}))
_appended(
    *("a device by name", "text of 1|unknown argument"),
    node("a", "aten.zeros.default", [2], device={"device": "cuda:0"}),
)
_appended(
    "a type nobody knows",
    "unknown argument",
    node("a", "aten.to.dtype", ref("x"), {"dtype": "object"}),
)
_appended(
    *("a layout of compressed rows", "unknown argument"),
    node("a", "aten.zeros.default", [2], layout={"layout": "sparse_csr"}),
)
_appended(
    *("a number for a type", "expects dtype as a dtype"),
    node("a", "aten.to.dtype", ref("x"), 2**63 - 1),
)
_appended(
    *("a small number for a type", "expects dtype as a dtype"),
    node("a", "aten.log_softmax.int", ref("x"), 0, -1),
)
_appended(
    *("a size for a type", "expects dtype as a dtype"),
    node("a", "aten.sum.default", ref("x"), dtype=ref("rows")),
)
_appended(
    *("a number for a memory format", "expects memory_format as a memory_format"),
    node("a", "aten.clone.default", ref("x"), memory_format=99),
)
_appended(
    *("a number for a layout", "expects layout as a layout"),
    node("a", "aten.zeros.default", [2], layout=77),
)
_appended("an unknown weight", "is not declared", node("a", "weight", "../../etc/passwd"))
_appended("an unknown input", "is not declared", node("a", "input", "y"))
_appended("an input that is a reference", "`input` expects", node("a", "input", ref("x")))
_appended("a site with a text for its size", "site", node("a", "site", 1, "8", F32))
_appended("a site drawn twice", "every site", node("a", "site", 0, [8], F32))
_appended("a site of an unknown index", "every site", node("a", "site", 1, [8], F32))
_appended("a site of a negative index", "every site", node("a", "site", -1, [8], F32))
_appended(
    *("attention that rolls dice", "dropout_p"),
    node("a", "aten.scaled_dot_product_attention.default", *[ref("x")] * 3, None, 0.5),
)
_appended(
    *("batch-norm that writes its statistics", "training"),
    node("a", "aten.batch_norm.default", ref("x"), *[None] * 4, True, 0.1, 1e-5, False),
)

_grown(
    *("a dimension that is an expression of Python", "does not run"),
    node("a", "aten.reshape.default", ref("x"), ["__import__('os').system('true')", -1]),
)
_grown(
    "a dimension out of range", "does not run", node("a", "aten.sum.dim_IntList", ref("x"), [99])
)
_grown("too many arguments", "does not run", node("a", relu, ref("x"), ref("x"), ref("x")))
_grown("no arguments", "does not run", node("a", relu))
_grown("an argument nobody knows", "does not run", node("a", relu, ref("x"), evil=1))
_grown("a text for a tensor", "does not run", node("a", relu, "x"))
_grown("a size for a tensor", "does not run", node("a", relu, ref("rows")))
_grown(
    *("an einsum of nonsense", "does not run"),
    node("a", "aten.einsum.default", "a..,%%->", [ref("x")]),
)
_grown("shapes that do not fit", "does not run", zeros("a", 5, 7))
_grown(*("an item of a tensor", "does not run"), node("a", "operator.getitem", ref("x"), 0))
_grown("a size divided by zero", "does not run", node("a", "operator.floordiv", ref("rows"), 0))
_grown(
    *("an index out of range", "does not run"),
    node("i", "aten.full.default", [1], 10**6, dtype={"dtype": "int64"}, **ON),
    node("a", "aten.index_select.default", ref("w3b"), 0, ref("i")),
)
_grown(
    *("a negative index of a table", "does not run"),
    node("i", "aten.full.default", [1], -7, dtype={"dtype": "int64"}, **ON),
    node("e", "aten.embedding.default", ref("w3w"), ref("i")),
    node("a", "aten.sum.default", ref("e")),
)
_grown(
    *("a scatter out of range", "does not run"),
    node("i", "aten.full.default", [3], 10**9, dtype={"dtype": "int64"}, **ON),
    node("a", "aten.scatter_add.default", ref("w3b"), 0, ref("i"), ref("w3b")),
)


_grown(
    *("a transform along no axis of the tensor", "does not run"),
    node("a", "aten._fft_r2c.default", ref("x"), [7], 0, True),
)
_appended(
    *("a transform scaled by nobody's rule", "normalization"),
    node("a", "aten._fft_r2c.default", ref("x"), [1], 7, True),
)
_appended(
    *("a transform scaled by a size", "normalization"),
    node("a", "aten._fft_r2c.default", ref("x"), [1], ref("rows"), True),
)
_grown(
    *("distances of a negative order", "does not run"),
    node("a", "aten._cdist_forward.default", ref("w3w"), ref("w3w"), -1.0, None),
)
_grown(
    *("the inverse of what is not square", "does not run"),
    node("i", "aten.linalg_inv_ex.default", ref("w3w")),
    node("a", "operator.getitem", ref("i"), 0),
)
_grown(
    *("a smallest of none", "does not run"),
    node("k", "aten.kthvalue.default", ref("w3b"), 99),
    node("a", "operator.getitem", ref("k"), 0),
)
_grown(
    *("a reduction nobody knows", "does not run"),
    node("i", "aten.full.default", [3], 0, dtype={"dtype": "int64"}, **ON),
    node("a", "aten.scatter_reduce.two", ref("w3b"), 0, ref("i"), ref("w3b"), "evil"),
)
_grown(
    *("a reduction out of range", "does not run"),
    node("i", "aten.full.default", [3], 10**9, dtype={"dtype": "int64"}, **ON),
    node("a", "aten.scatter_reduce.two", ref("w3b"), 0, ref("i"), ref("w3b"), "amax"),
)
_grown(
    *("a search by an order out of range", "does not run"),
    node("i", "aten.full.default", [3], 10**9, dtype={"dtype": "int64"}, **ON),
    node("a", "aten.searchsorted.Tensor", ref("w3b"), ref("w3b"), sorter=ref("i")),
)
_grown(
    *("a derivative of a negative order", "does not run"),
    node("a", "aten.polygamma.default", -1, ref("w3b")),
)


def _of_integers(op: str, by: int) -> tuple[Json, ...]:
    """-2^63 divided in a way that a processor answers with a trap."""
    return (
        node("i", "aten.full.default", [3], -(2**63) + 1, dtype={"dtype": "int64"}, **ON),
        node("j", "aten.sub.Scalar", ref("i"), 1),
        node("k", "aten.full.default", [3], by, dtype={"dtype": "int64"}, **ON),
        node("a", op, ref("j"), ref("k")),
    )


for _op in ("aten.floor_divide.default", "aten.remainder.Tensor", "aten.fmod.Tensor"):
    _grown(
        f"{_op.split('.')[1]} of integers by zero", "does not run|integers", *_of_integers(_op, 0)
    )


def _returning(title: str, reason: str, change: Callable[[Json], object]) -> None:
    @hostile(reason, title)
    def build(parts: Parts) -> bytes:
        change(parts.sampling)
        change(parts.point)
        return parts.sealed()


def _ends_in(*nodes: Json) -> Callable[[Json], object]:
    def change(graph: Json) -> None:
        graph["nodes"] += nodes
        graph["outputs"]["output"] = nodes[-1]["name"]

    return change


def _without_outputs(graph: Json) -> None:
    graph["outputs"] = {}


def _other_outputs(graph: Json) -> None:
    graph["outputs"] = {"output": "y", "__class__": "y"}


def _unknown_output(graph: Json) -> None:
    graph["outputs"] = {"output": "nobody"}


_returning("no output", "outputs expects", _without_outputs)
_returning("outputs of other names", "outputs expects", _other_outputs)
_returning("an output that no node defines", "no node defines", _unknown_output)
_returning(
    "an output that is a size", "returns", _ends_in(node("a", "operator.add", ref("rows"), 1))
)
_returning(
    *("an output that is a list", "returns"), _ends_in(node("a", "aten.unbind.int", ref("y")))
)
_returning(
    *("an output without rows", "returns"),
    _ends_in(node("a", "aten.sum.dim_IntList", ref("y"), [0])),
)
_returning("an output of two rows always", "returns", _ends_in(zeros("a", 2, 3)))
_returning("an output of three rows always", "returns", _ends_in(zeros("a", 3, 3)))
_returning(
    *("an output of rows on its last axis", "returns"),
    _ends_in(node("a", "aten.t.default", ref("y"))),
)
_returning(
    *("an output of integers", "returns"),
    _ends_in(node("a", "aten.to.dtype", ref("y"), {"dtype": "int64"})),
)
_returning(
    *("an output of truth values", "returns"), _ends_in(node("a", "aten.gt.Scalar", ref("y"), 0))
)
_returning(
    *("an output of an empty tensor", "returns"),
    _ends_in(node("a", "aten.slice.Tensor", ref("y"), 1, 0, 0)),
)


@hostile("expects a list|expects 1 to")
def a_graph_without_nodes(parts: Parts) -> bytes:
    parts.sampling["nodes"] = []
    return parts.sealed()


@hostile("expects an object")
def a_graph_that_is_a_list(parts: Parts) -> bytes:
    return parts.sealed(sampling=b"[]")


@hostile("draws nothing")
def a_point_graph_that_draws(parts: Parts) -> bytes:
    parts.point = parts.sampling
    return parts.sealed()


def _mixed(title: str, make: Callable[[str], list[Json]]) -> None:
    """Rows that interact, by nodes that read the output and are added to it."""

    @hostile("rows interact", title)
    def build(parts: Parts) -> bytes:
        return parts.grown(*make(parts.sampling["outputs"]["output"]))


_mixed("a softmax over the rows", lambda out: [node("a", "aten.softmax.int", ref(out), 0)])
_mixed("a mean over the rows", lambda out: [node("a", "aten.mean.dim", ref(out), [0], True)])
_mixed("rows in another order", lambda out: [node("a", "aten.flip.default", ref(out), [0])])
_mixed("sums of the rows so far", lambda out: [node("a", "aten.cumsum.default", ref(out), 0)])
_mixed(
    "the number of rows in the result",
    lambda out: [
        node("n", "aten.sym_size.int", ref(out), 0),
        node("a", "aten.mul.Scalar", ref(out), ref("n")),
    ],
)
