"""A graph as data: JSON round trip, the allow-list, pruning."""

import json
import math

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
        function = resolve(name)
        if name.startswith("operator."):
            continue
        assert isinstance(function, torch._ops.OpOverload)
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
