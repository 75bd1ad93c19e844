"""Tell what one number of a draw acts on.

Its job: look at the node that brings a site's draw to the data, with the shapes that both have on
the example, and find which axis of the data holds the features: the last one for what linear maps
and layer-norms read or give, the second for convolutions, batch-norms and pooling.

    weight     the draw is an operand of a map, in the place of its weights
    token      one place with all its features: a time step, a position, a pixel; or a word that
               the data look up in a table of draws
    time       one feature at all steps: a mask with a single step, or one used step after step
    channel    one feature of a map at all its places
    path       all of a row
    batch      all of every row
    element    one number of the data, whatever else

Dimensions: B rows on the first axis; the example has B ≥ 2.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from dubito_nn.flow import Flow, Meeting, names
from dubito_nn.lifting.draws import random_draws
from dubito_nn.lifting.lift import Lifted
from dubito_nn.manifest import Granularity, Site
from dubito_nn.program import Node, Value

_MULTIPLIES = names("mul div where masked_fill")
_LOOKS_UP = names("gather index index_select embedding take take_along_dim")
_HOLDS_WEIGHTS = names(
    "linear addmm matmul mm bmm baddbmm einsum bilinear tensordot mv conv1d conv2d conv3d"
    " conv_transpose1d conv_transpose2d conv_transpose3d convolution"
)
_FEATURES_SECOND = names(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"
    " batch_norm group_norm native_group_norm instance_norm max_pool1d max_pool2d max_pool3d"
    " max_pool2d_with_indices avg_pool1d avg_pool2d avg_pool3d adaptive_avg_pool1d"
    " adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d"
)
_FEATURES_LAST = names("linear addmm embedding layer_norm native_layer_norm rms_norm")


@dataclass
class Seen:
    """A lifted graph and what its values looked like on the example.

    Args:
        flow: of the graph.
        shapes: of the values that are tensors, by name.
        integers: names of those that hold integers.
    """

    flow: Flow
    shapes: dict[str, tuple[int, ...]] = field(default_factory=dict)
    integers: set[str] = field(default_factory=set)

    def note(self, node: Node, value: Value) -> None:
        """Take note of a value."""
        if isinstance(value, Tensor):
            self.shapes[node.name] = tuple(value.shape)
            if not value.is_floating_point() and value.dtype != torch.bool:
                self.integers.add(node.name)


def with_granularity(lifted: Lifted, inputs: Mapping[str, Tensor]) -> Lifted:
    """The lifted graph with sites that say what one number of their draw acts on.

    Args:
        lifted: its weights, and sites whose `batch_dim` is known.
        inputs: the example.
    """
    seen = Seen(Flow.of(lifted.program))
    with torch.no_grad():
        lifted.program.run(inputs, lifted.weights, random_draws(lifted.sites), watch=seen.note)
    return replace(
        lifted, sites=[replace(s, granularity=_granularity(s, seen)) for s in lifted.sites]
    )


def _granularity(site: Site, seen: Seen) -> Granularity:
    """What one number of a draw acts on, by its shape and by the operator that brings it in."""
    if all(size == 1 for size in site.shape):
        return "batch" if site.batch_dim is None else "path"
    meetings = seen.flow.meetings.get(site.index, [])
    scaled = [m for m in meetings if seen.flow.kind(m.node) in _MULTIPLIES]
    if not meetings:
        return _by_shape(site.shape)
    meeting = (scaled or meetings)[0]
    kind = seen.flow.kind(meeting.node)
    if kind in _LOOKS_UP and seen.integers.issuperset(meeting.data):
        return "token" if sum(size != 1 for size in site.shape) == 1 else "weight"
    if kind in _HOLDS_WEIGHTS:
        return "weight"
    if meeting.node in seen.integers:
        return "token"
    if _used_step_after_step(site, scaled, seen):
        return "time"
    return _by_axes(site, meeting, seen)


def _used_step_after_step(site: Site, scaled: Sequence[Meeting], seen: Seen) -> bool:
    """Whether the same mask scales a value, and later one that follows from the result."""
    users: dict[str, list[str]] = {}
    for meeting in scaled:
        for name in _noise_of(site, meeting, seen):
            users.setdefault(name, []).append(meeting.node)
    return any(seen.flow.reaches(nodes[0], nodes[-1]) for nodes in users.values() if len(nodes) > 1)


def _by_axes(site: Site, meeting: Meeting, seen: Seen) -> Granularity:
    """What a number acts on by the axes along which the mask differs from place to place."""
    whole = seen.shapes.get(meeting.node)
    if whole is None:  # a recurrent layer, which returns several: the draw is its first state
        return _by_shape(site.shape)
    mask = max((_mask_of(site, name, seen) for name in _noise_of(site, meeting, seen)), key=len)
    is_as_drawn = len(mask) == len(site.shape) + (site.batch_dim is not None)
    if not is_as_drawn and 1 in site.shape:  # the axes of one number were dropped on the way
        return _by_shape(site.shape)
    rows = (site.batch_dim or 0) if is_as_drawn else 0
    mask = (1,) * (len(whole) - len(mask)) + mask
    axes = [axis for axis, size in enumerate(whole) if axis != rows and size > 1]
    varies = {axis for axis in axes if mask[axis] > 1}
    if len(varies) == len(axes):
        return "element"
    features = Axes(seen).features(meeting)
    if features is None:
        return _by_shape(mask[1:])
    if varies == {features}:
        is_sequence = len(whole) == 3 and features == len(whole) - 1
        return "time" if is_sequence else "channel"
    return "token" if varies == set(axes) - {features} else _by_shape(mask[1:])


def _noise_of(site: Site, meeting: Meeting, seen: Seen) -> list[str]:
    """The operands of a meeting that are made of a site's draw."""
    operands = dict.fromkeys(seen.flow.nodes[meeting.node].references())
    noise = seen.flow.noise
    return [n for n in operands if any(draw.site == site.index for draw in noise.get(n, ()))]


def _mask_of(site: Site, name: str, seen: Seen) -> tuple[int, ...]:
    """The shape of a mask, with 1 along the axes that its draw has 1 number for."""
    shape = seen.shapes[name]
    drawn_sizes = list[int | str](site.shape)
    if site.batch_dim is not None:
        drawn_sizes.insert(site.batch_dim, "rows")
    if len(drawn_sizes) != len(shape):
        return shape
    return tuple(1 if drawn == 1 else size for drawn, size in zip(drawn_sizes, shape, strict=True))


def _by_shape(shape: Sequence[int | str]) -> Granularity:
    """What is most likely where the features' axis is not known: that of torch's own layers."""
    if all(size == 1 for size in shape):
        return "path"
    if shape[-1] == 1:
        return "channel"
    return "time" if shape[0] == 1 else "element"


@dataclass
class Axes:
    """Follows the axis of the features through a graph, up and down from a meeting.

    Args:
        seen: the graph.
        visited: values looked at so far, in either direction.
    """

    seen: Seen
    visited: set[tuple[str, bool]] = field(default_factory=set)

    def features(self, meeting: Meeting) -> int | None:
        """The axis of a meeting's value that holds the features; None where nothing tells."""
        for axis in self._along(meeting.node):
            return axis
        return self._below(meeting.node)

    def _along(self, name: str) -> Iterator[int]:
        """The axis by what lies above, for values made one number from one number."""
        shape = self.seen.shapes.get(name)
        for source in self.seen.flow.data[name]:
            if self.seen.shapes.get(source) == shape:
                axis = self._above(source)
                if axis is not None:
                    yield axis

    def _above(self, name: str) -> int | None:
        """The axis of a value, by what made it."""
        if (name, True) in self.visited:
            return None
        self.visited.add((name, True))
        kind, rank = self.seen.flow.kind(name), len(self.seen.shapes.get(name, ()))
        if kind in _FEATURES_LAST:
            return rank - 1
        if kind in _FEATURES_SECOND:
            return 1
        order = _order(self.seen.flow.nodes[name], rank)
        if order is None:
            return next(self._along(name), None)
        before = self._above(self.seen.flow.data[name][0])
        return None if before is None else order.index(before)

    def _below(self, name: str) -> int | None:
        """The axis of a value, by what reads it."""
        if (name, False) in self.visited:
            return None
        self.visited.add((name, False))
        shape = self.seen.shapes.get(name, ())
        for reader in self.seen.flow.readers.get(name, ()):
            kind = self.seen.flow.kind(reader)
            if kind in _FEATURES_LAST:
                return len(shape) - 1
            if kind in _FEATURES_SECOND:
                return 1
            order = _order(self.seen.flow.nodes[reader], len(shape))
            if order is None and self.seen.shapes.get(reader) != shape:
                continue
            after = self._below(reader)
            if after is not None:
                return after if order is None else order[after]
        return None


def _order(node: Node, rank: int) -> list[int] | None:
    """Where a node takes its axes from, for one that does nothing but reorder them."""
    kind = node.op.split(".")[1] if node.op.startswith("aten.") else node.op
    order = list(range(rank))
    if kind in ("transpose", "t"):
        first, second = (
            (int(str(axis)) for axis in node.args[1:3]) if kind == "transpose" else (0, 1)
        )
        order[first], order[second] = order[second], order[first]
        return order
    if kind == "permute":
        axes = node.args[1]
        assert isinstance(axes, tuple)
        return [int(str(axis)) % rank for axis in axes]
    return None
