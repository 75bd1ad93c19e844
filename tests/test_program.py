"""A graph as data: JSON round trip, the allow-list, pruning."""

import json
import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dubito_nn import BundleError
from dubito_nn.operators import ALLOWED, name_of, resolve
from dubito_nn.program import DTYPES, Node, OnDevice, Program, Ref, from_json, pruned, to_json

FIRST = Node("x", "input", ("x",))

atoms = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63) + 1, 2**63 - 1),
    st.floats(),
    st.text(min_size=1, max_size=20),
    st.just(Ref("x")),
    st.just(OnDevice()),
    st.sampled_from(list(DTYPES.values())),
    st.just(torch.strided),
    st.sampled_from([torch.contiguous_format, torch.preserve_format, torch.channels_last]),
)
arguments = st.recursive(atoms, lambda inner: st.lists(inner, max_size=4).map(tuple), max_leaves=6)


def depth(argument: object) -> int:
    return 1 + max(map(depth, argument), default=0) if isinstance(argument, tuple) else 0


def same(one: object, two: object) -> bool:
    if isinstance(one, tuple) and isinstance(two, tuple):
        return len(one) == len(two) and all(map(same, one, two))
    if isinstance(one, float) and isinstance(two, float):
        if math.isnan(one) or math.isnan(two):
            return math.isnan(one) and math.isnan(two)
        return one == two and math.copysign(1, one) == math.copysign(1, two)
    return type(one) is type(two) and one == two


@given(st.lists(arguments, max_size=4), st.dictionaries(st.text("abc", min_size=1), arguments))
def test_arguments_come_back_from_json_as_they_were(args, kwargs):
    program = Program((FIRST, Node("y", "aten.relu.default", tuple(args), kwargs)), {"output": "y"})
    text = json.dumps(to_json(program), allow_nan=False)
    if max(map(depth, (*args, *kwargs.values())), default=0) > 4:
        with pytest.raises(BundleError, match="nested deeper"):
            from_json(json.loads(text), where="graph")
        return
    again = from_json(json.loads(text), where="graph")
    assert again.outputs == program.outputs
    assert same(again.nodes[1].args, program.nodes[1].args)
    assert again.nodes[1].kwargs.keys() == kwargs.keys()
    assert all(same(again.nodes[1].kwargs[key], value) for key, value in kwargs.items())


def test_every_allowed_operator_is_there_and_is_functional_and_deterministic():
    fused = {f"aten.{rnn}.input" for rnn in ("lstm", "gru", "rnn_tanh", "rnn_relu")}
    fused.add("aten.scaled_dot_product_attention.default")  # their dice are refused by argument
    for name in ALLOWED:
        assert callable(resolve(name))
        if name.startswith("operator."):
            continue
        _, packet, overload = name.split(".")
        function = getattr(getattr(torch.ops.aten, packet), overload)
        assert name_of(function) == name
        assert not function._schema.is_mutable, name
        is_random = torch.Tag.nondeterministic_seeded in function.tags
        assert is_random == (name in fused), name


@pytest.mark.parametrize(
    "name",
    ["aten.empty.memory_format", "aten.dropout.default", "os.system", "aten.relu", "eval", ""],
)
def test_nothing_off_the_allow_list_is_looked_up(name):
    with pytest.raises(KeyError):
        resolve(name)


def test_operators_on_sizes_take_numbers_only():
    assert resolve("operator.mul")(3, 4) == 12
    assert resolve("operator.getitem")([torch.zeros(2), 5], 1) == 5
    with pytest.raises(TypeError, match="expects sizes"):
        resolve("operator.mul")([1, 2], 10**12)
    with pytest.raises(TypeError, match="several values"):
        resolve("operator.getitem")({"a": 1}, "a")


def test_pruning_keeps_the_answer_and_the_inputs_and_nothing_idle():
    nodes = (
        FIRST,
        Node("unread", "input", ("unread",)),
        Node("w", "weight", ("w",)),
        Node("idle", "site", (0, (2,), torch.float32)),
        Node("omega", "site", (1, (2,), torch.float32)),
        Node("masked", "aten.mul.Tensor", (Ref("x"), Ref("omega"))),
        Node("lost", "aten.relu.default", (Ref("idle"),)),
        Node("y", "aten.add.Tensor", (Ref("masked"), Ref("w"))),
    )
    program = Program(nodes, {"output": "y"})
    inputs, weights = {"x": torch.ones(2), "unread": torch.ones(2)}, {"w": torch.ones(2)}

    def draws(index, size, dtype):
        return torch.full(size, float(index + 1), dtype=dtype)

    smaller = pruned(program)
    names = [node.name for node in smaller.nodes]
    assert names == ["x", "unread", "w", "omega", "masked", "y"]
    one, two = (p.run(inputs, weights, draws)["output"] for p in (program, smaller))
    assert torch.equal(one, two)
    assert torch.equal(one, torch.full((2,), 3.0))


def test_a_graph_that_draws_wants_a_source_of_draws():
    program = Program((FIRST, Node("w", "site", (0, (1,), torch.float32))), {"output": "w"})
    with pytest.raises(ValueError, match="no source of draws"):
        program.run({"x": torch.ones(1)}, {})


def test_running_shows_every_node_in_order_and_frees_what_is_done():
    program = Program(
        (
            FIRST,
            Node("a", "aten.relu.default", (Ref("x"),)),
            Node("b", "aten.neg.default", (Ref("a"),)),
        ),
        {"output": "b", "features": "a"},
    )
    seen: list[str] = []
    result = program.run({"x": torch.ones(1)}, {}, watch=lambda node, value: seen.append(node.name))
    assert seen == ["x", "a", "b"]
    assert {key: float(value) for key, value in result.items()} == {"output": -1.0, "features": 1.0}


Json = dict[str, Any]


def small_graph() -> Json:
    nodes = [
        {"name": "x", "op": "input", "args": ["input"]},
        {"name": "omega", "op": "site", "args": [0, [3], {"dtype": "float32"}]},
        {"name": "relu", "op": "aten.relu.default", "args": [{"ref": "x"}]},
    ]
    return {"nodes": nodes, "outputs": {"output": "relu"}}


def relu_of(table: Json) -> Json:
    return next(node for node in table["nodes"] if node["op"] == "aten.relu.default")


AGAIN = object()  # stands for the first argument once more


def with_operator(op: str, *args: object, **kwargs: object) -> Callable[[Json], object]:
    def change(table: Json) -> None:
        first = relu_of(table)["args"][0]
        given = [first if argument is AGAIN else argument for argument in args]
        relu_of(table).update(op=op, args=[first, *given], kwargs=kwargs)

    return change


def append(node: object) -> Callable[[Json], object]:
    return lambda table: table["nodes"].append(node)


def nested(levels: int) -> object:
    value: object = 1
    for _ in range(levels):
        value = [value]
    return value


HOSTILE_GRAPHS: dict[str, tuple[Callable[[Json], object], str]] = {
    **{
        op: (with_operator(op), rf"`{re.escape(op)}`, which is not on the allow-list")
        for op in (
            *("aten.empty.memory_format", "aten.from_file.default", "aten.relu_.default"),
            *("aten.rand.default", "aten.dropout.default", "aten.as_strided.default"),
            *("aten.item.default", "os.system", "builtins.eval", "operator.attrgetter"),
            *("aten.__class__.default", "aten.relu.__call__", "aten.relu", "__import__"),
        )
    },
    "attention that drops": (
        with_operator("aten.scaled_dot_product_attention.default", dropout_p=0.1),
        r"expects dropout_p in \[0\], got 0.1",
    ),
    "attention that drops by position": (
        with_operator("aten.scaled_dot_product_attention.default", AGAIN, 1, None, 0.1),
        r"expects dropout_p in \[0\], got 0.1",
    ),
    "a recurrent network that drops": (
        with_operator("aten.lstm.input", [], [], True, 2, 0.5, True, False, True),
        r"expects dropout in \[0\], got 0.5",
    ),
    "a recurrent network that drops by keyword": (
        with_operator("aten.gru.input", None, [], True, 2, dropout=0.5),
        r"expects dropout in \[0\], got 0.5",
    ),
    "batch-norm in training": (
        with_operator("aten.batch_norm.default", None, None, None, None, True, 0.1, 1e-5, False),
        r"expects training in \[False\], got True",
    ),
    "instance-norm that writes": (
        with_operator(
            *("aten.instance_norm.default", None, None, AGAIN, AGAIN, True),
            *(0.1, 1e-5, False),
        ),
        r"expects use_input_stats false",
    ),
    "a grid sampler beyond its modes": (
        with_operator("aten.grid_sampler.default", AGAIN, 77, 0, True),
        r"expects interpolation_mode in \[0, 1, 2\], got 77",
    ),
    "a node named twice": (
        append({"name": "x", "op": "input", "args": ["input"]}),
        r"node `x` is defined twice",
    ),
    "a reference to a later node": (
        lambda table: table["nodes"].insert(
            0, {"name": "early", "op": "aten.relu.default", "args": [{"ref": "relu"}]}
        ),
        r"node `early` refers to `relu`, which no earlier node defines",
    ),
    "a reference to itself": (
        append({"name": "loop", "op": "aten.relu.default", "args": [{"ref": "loop"}]}),
        r"node `loop` refers to `loop`",
    ),
    "a site of a nonsensical size": (
        append({"name": "more", "op": "site", "args": [1, ["3"], {"dtype": "float32"}]}),
        r"a site's size expects integers",
    ),
    "a site without a type": (
        append({"name": "more", "op": "site", "args": [1, [3]]}),
        r"`site` expects \['int', 'tuple', 'dtype'\]",
    ),
    "a deep argument": (
        append({"name": "more", "op": "aten.relu.default", "args": [nested(30)]}),
        r"nested deeper than",
    ),
    "a huge integer": (
        append({"name": "more", "op": "aten.relu.default", "args": [10**30]}),
        r"integers of at most 64 bits",
    ),
    "an attribute walk": (
        append({"name": "more", "op": "aten.relu.default", "args": [{"attr": "__globals__"}]}),
        r"unknown argument \{'attr': '__globals__'\}",
    ),
    "a type that is none": (
        append({"name": "more", "op": "aten.relu.default", "args": [{"dtype": "load"}]}),
        r"unknown argument \{'dtype': 'load'\}",
    ),
    "a node that is a list": (append(["input"]), r"a node: expects an object, got list"),
    "a node with more fields": (
        append({"name": "more", "op": "input", "args": ["x"], "code": "1"}),
        r"expects the fields name, op, args and maybe kwargs",
    ),
    "an output that is not there": (
        lambda table: table["outputs"].update(output="nowhere"),
        r"outputs name `nowhere`, which no node defines",
    ),
    "an output of another kind": (
        lambda table: table["outputs"].update(more="input"),
        r"outputs expects `output` and at most `features`",
    ),
    "no nodes": (lambda table: table["nodes"].clear(), r"expects 1 to 20000 nodes"),
    "a million nodes": (
        lambda table: table.update(nodes=[{"name": "x"}] * 10**6),
        r"expects 1 to 20000 nodes",
    ),
}


@pytest.mark.parametrize("name", HOSTILE_GRAPHS)
def test_a_hostile_graph_is_refused_naming_the_first_reason(name):
    change, expected = HOSTILE_GRAPHS[name]
    table = small_graph()
    assert from_json(table, where="graph").of_kind("site")
    change(table)
    with pytest.raises(BundleError, match=expected) as raised:
        from_json(table, where="graph")
    assert str(raised.value).startswith("graph")


@pytest.mark.parametrize(
    "name",
    [
        *(f"upsample_{kind}" for kind in ("nearest1d", "nearest2d", "bilinear2d", "bicubic2d")),
        *(f"_upsample_nearest_exact{axes}d" for axes in (1, 2, 3)),
    ],
)
def test_upsampling_is_allowed_only_with_scales_that_follow_from_the_sizes(name):
    """With scales of their own the kernels read outside the image."""
    assert f"aten.{name}.vec" in ALLOWED
    assert f"aten.{name}.default" not in ALLOWED


@pytest.mark.parametrize("overload", ["Tensor_mode", "Scalar_mode"])
def test_a_division_cut_towards_zero_is_refused_and_a_floored_one_is_not(overload):
    """The least integer cut by -1 ends the process."""

    def graph(mode: str) -> dict[str, object]:
        ref = {"ref": "x"}
        divide = {
            "name": "quotient",
            "op": f"aten.div.{overload}",
            "args": [ref, 2 if overload == "Scalar_mode" else ref],
            "kwargs": {"rounding_mode": mode},
        }
        nodes = [{"name": "x", "op": "input", "args": ["x"]}, divide]
        return {"nodes": nodes, "outputs": {"output": "quotient"}}

    assert from_json(graph("floor"), where="graph").outputs == {"output": "quotient"}
    with pytest.raises(BundleError, match="rounding_mode"):
        from_json(graph("trunc"), where="graph")


def test_a_tensor_is_not_cut_into_more_parts_than_a_graph_could_use():
    whole = torch.zeros(20_000, 1)
    for name, arguments in (
        ("aten.unbind.int", (0,)),
        ("aten.split.Tensor", (1, 0)),
        ("aten.chunk.default", (20_000, 0)),
        ("aten.tensor_split.sections", (20_000, 0)),
    ):
        with pytest.raises(ValueError, match="more than 10000"):
            resolve(name)(whole, *arguments)
    assert len(resolve("aten.split.Tensor")(whole, 5_000)) == 4
    assert len(resolve("aten.unbind.int")(torch.zeros(2, 3), dim=1)) == 3
    assert len(resolve("aten.chunk.default")(torch.zeros(2, 3), chunks=3, dim=1)) == 3
