"""Where in a network a site stands.

Its job: name the operators that matter, and say of a site what its data come from and go to:
the inputs, a convolution, the weights of an attention, a batch-norm, the output.

A *map* mixes units by weights (a linear map, a convolution, a recurrence, an embedding) or by other
units (a product of matrices); activations, norms, pooling and sums lie between maps.
"""

from __future__ import annotations

from dataclasses import dataclass

from dubito_nn.flow import Flow, names
from dubito_nn.manifest import Site

CONVOLUTIONS = names(
    "conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution"
)
PRODUCTS = names("matmul mm bmm baddbmm einsum scaled_dot_product_attention")
CELLS = names("lstm_cell gru_cell rnn_tanh_cell rnn_relu_cell")
MAPS = (
    CONVOLUTIONS
    | PRODUCTS
    | CELLS
    | names("lstm gru rnn_tanh rnn_relu embedding linear addmm bilinear tensordot")
    | names("mv dot vdot addmv inner outer")
)
BATCH_NORM = frozenset({"batch_norm"})
ROW_NORMS = names("layer_norm native_layer_norm group_norm native_group_norm rms_norm")
SOFTMAX = names("softmax _softmax _safe_softmax")
_ENDS_THE_MAP = names(
    "view _unsafe_view reshape flatten unflatten permute transpose t movedim mean sum amax amin"
    " adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d"
    " adaptive_max_pool2d adaptive_max_pool3d"
)
"""Behind these the numbers of a convolution are features, not a map over places."""
_MULTIPLIES = names("mul div where masked_fill")
_ON_UNITS = ("element", "channel", "token", "time")


@dataclass(frozen=True)
class Place:
    """What lies around one site.

    Args:
        is_drop: whether it multiplies units by a mask and does nothing else to them: not alpha
            dropout, which keeps mean and variance, nor paths, weights or Gaussian noise.
        is_input: whether its data come straight from a floating-point input.
        is_attention: whether its data are weights of an attention.
        convolution: the convolution whose map it works on, by node name.
        batch_norms: those that read or feed it with no map between, by node name.
        later_batch_norm: the next one that reads it, through whatever is not normalised by row.
        reaches_output: whether its data are the output, with no map between.
    """

    is_drop: bool
    is_input: bool
    is_attention: bool
    convolution: str | None
    batch_norms: tuple[str, ...]
    later_batch_norm: str | None
    reaches_output: bool


def place_of(site: Site, flow: Flow, integer_inputs: frozenset[str]) -> Place:
    """Look at the data above and below the nodes where a site's draw meets them."""
    meetings = flow.meetings.get(site.index, [])
    data = [name for meeting in meetings for name in meeting.data]
    nodes = [meeting.node for meeting in meetings]
    _, sources = flow.above(data, MAPS | SOFTMAX)
    _, beside_above = flow.above(data, MAPS | BATCH_NORM)
    passed, below = flow.below(nodes, MAPS)
    _, beside_below = flow.below(nodes, MAPS | BATCH_NORM)
    _, later = flow.below(nodes, BATCH_NORM | ROW_NORMS)
    beside = [*beside_above, *beside_below]
    kinds = {flow.kind(name) for name in sources}
    named = {str(flow.nodes[n].args[0]) for n in sources if flow.kind(n) == "input"}
    return Place(
        is_drop=site.granularity in _ON_UNITS
        and site.drop_prob is not None
        and site.distribution != "normal"
        and bool(nodes)
        and all(flow.kind(name) in _MULTIPLIES for name in nodes),
        is_input=kinds == {"input"} and not named <= integer_inputs,
        is_attention=bool(kinds) and kinds <= SOFTMAX and _any(flow, below, PRODUCTS),
        convolution=_convolution(site, data, flow),
        batch_norms=tuple(name for name in beside if flow.kind(name) in BATCH_NORM),
        later_batch_norm=next((n for n in later if flow.kind(n) in BATCH_NORM), None),
        reaches_output=flow.output in (*passed, *nodes),
    )


def _convolution(site: Site, data: list[str], flow: Flow) -> str | None:
    """The convolution whose map a site works on, if it works on more than one place of it."""
    if site.granularity not in _ON_UNITS or len(site.shape) < 2:
        return None
    _, ends = flow.above(data, MAPS | SOFTMAX | _ENDS_THE_MAP)
    return next((name for name in ends if flow.kind(name) in CONVOLUTIONS), None)


def _any(flow: Flow, values: list[str], kinds: frozenset[str]) -> bool:
    return any(flow.kind(name) in kinds for name in values)
