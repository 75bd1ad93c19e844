"""The findings: what the literature warns of, by the place of every site.

Its job: one function for each kind of finding, which yields the modules concerned; `advise` puts
those of one kind into one line, so that a network of a hundred equal layers is not a hundred lines.

Sources:
    variance-shift, batch-norm-rate: Li, Chen, Hu, Yang 2019, Understanding the Disharmony between
        Dropout and Batch Normalization by Variance Shift, arXiv:1801.05134; Ioffe and Szegedy 2015,
        arXiv:1502.03167, for less dropout beside batch-norm.
    output-dropout, very-high-rate, input-rate: Srivastava, Hinton, Krizhevsky, Sutskever,
        Salakhutdinov 2014, Dropout, section 7.3 and appendix A.4 (p of 0.5 to 0.2 for hidden units,
        0.2 for real inputs).
    recurrent-state: Zaremba, Sutskever, Vinyals 2014, arXiv:1409.2329; Gal and Ghahramani 2016,
        arXiv:1512.05287; Semeniuta, Severyn, Barth 2016, arXiv:1603.05118.
    element-after-convolution: Tompson, Goroshin, Jain, LeCun, Bregler 2015, arXiv:1411.4280;
        Ghiasi, Lin, Le 2018, arXiv:1810.12890.
    no-dropout-at-the-end: Gal and Ghahramani 2016, arXiv:1506.02142: a Bernoulli variable for
        every unit that a weight layer reads; where there is none, its weights are a point estimate.
    convolution-rate: Park and Kwak 2016, Analysis on the Dropout Effect in Convolutional Neural
        Networks, ACCV; Srivastava et al. 2014, section 6.1.
    attention-rate: Vaswani et al. 2017, arXiv:1706.03762 (0.1); Zehui, Liu, Huang, Chen, Qiu, Huang
        2019, DropAttention, arXiv:1907.11065.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, product

from torch import nn

from dubito_nn.advice.places import CELLS, MAPS, Place, place_of
from dubito_nn.advice.texts import (
    ATTENTION_RATE,
    BATCH_NORM_RATE,
    CONVOLUTION_RATE,
    INPUT_RATE,
    TEXTS,
    VERY_HIGH_RATE,
)
from dubito_nn.flow import Draw, Flow, names
from dubito_nn.manifest import Site, named_modules
from dubito_nn.program import Node, Program

_SLACK = 1e-6  # rates come from single precision too
_STEPS = 3  # weights used less often are shared layers, not a recurrence
_PROBABILITIES = ("p", "drop_prob")
_SPREADS = names("max_pool1d max_pool2d max_pool2d_with_indices max_pool3d")


@dataclass(frozen=True)
class LiftedNetwork:
    """What the rules look at.

    Args:
        flow: of the sampling graph.
        sites: its table.
        places: of the sites, in the same order.
        paths: module path by node name.
        modules: of the network, by path.
    """

    flow: Flow
    sites: tuple[Site, ...]
    places: tuple[Place, ...]
    paths: Mapping[str, str]
    modules: Mapping[str, nn.Module]

    @cached_property
    def uses(self) -> dict[Draw, list[str]]:
        """Names of the nodes that bring a draw, or a part of one, to the data."""
        uses: dict[Draw, list[str]] = {}
        for meetings in self.flow.meetings.values():
            for meeting in meetings:
                for draw in meeting.draws:
                    uses.setdefault(draw, []).append(meeting.node)
        return uses


Finding = tuple[str, str]
"""A code of `TEXTS`, and the module with what matters about it."""


def advise(
    program: Program,
    sites: tuple[Site, ...],
    *,
    paths: Mapping[str, str],
    modules: Mapping[str, nn.Module],
    integer_inputs: frozenset[str] = frozenset(),
    held_by: str | None = None,
) -> tuple[str, ...]:
    """One line for each kind of finding, in the order of `TEXTS`; none for a sound network.

    Args:
        program: the lifted graph, without what no output needs.
        sites: its table.
        paths: module path by node name.
        modules: of the network, by path, as it was exported.
        integer_inputs: names of inputs that are not measured but counted or looked up.
        held_by: the operator and module that keep scores on one side of 0 or in [-1, 1], where
            they do.
    """
    flow = Flow.of(program)
    places = tuple(place_of(site, flow, integer_inputs) for site in sites)
    network = LiftedNetwork(flow, sites, places, paths, modules)
    findings: dict[str, dict[str, None]] = {}
    for rule in (_by_site, _recurrent_state, _no_dropout_at_the_end, _idle):
        for code, where in rule(network):
            findings.setdefault(code, {})[where] = None
    if held_by is not None:
        findings["held-scores"] = {held_by: None}
    return tuple(
        f"{text.title}: {named_modules(list(findings[code]))}: {text.remedy}"
        for code, text in TEXTS.items()
        if code in findings
    )


def _by_site(network: LiftedNetwork) -> Iterator[Finding]:
    """Findings that follow from one site and its place."""
    for site, place in zip(network.sites, network.places, strict=True):
        here = _described(site)
        if place.is_drop and place.later_batch_norm is not None:
            norm = network.paths.get(place.later_batch_norm, "")
            yield "variance-shift", _described(site, f"before `{norm}`")
        if place.is_drop and place.reaches_output:
            yield "output-dropout", here
        if place.is_drop and place.convolution is not None and _is_element_wise(network, site):
            yield "element-after-convolution", here
        code = _rate(site, place)
        if code is not None:
            yield code, here


def _is_element_wise(network: LiftedNetwork, site: Site) -> bool:
    """Whether every number of a map is dropped by itself: not so where masks are spread out."""
    made_by = network.flow.made_by.get(site.index, set())
    return site.granularity == "element" and not made_by & _SPREADS


def _rate(site: Site, place: Place) -> str | None:
    """Where p is above the usual: the code of the narrowest place."""
    if site.drop_prob is None:
        return None
    if site.drop_prob >= VERY_HIGH_RATE - _SLACK:
        return "very-high-rate"
    if site.learned or not place.is_drop:
        return None
    for is_here, limit, code in (
        (place.is_input, INPUT_RATE, "input-rate"),
        (place.is_attention, ATTENTION_RATE, "attention-rate"),
        (bool(place.batch_norms), BATCH_NORM_RATE, "batch-norm-rate"),
        (place.convolution is not None, CONVOLUTION_RATE, "convolution-rate"),
    ):
        if is_here:
            return code if site.drop_prob > limit + _SLACK else None
    return None


def _recurrent_state(network: LiftedNetwork) -> Iterator[Finding]:
    """Recurrences whose state passes a fresh mask on every way to the state of the next step.

    A recurrence is seen where the same weights are used three times or more, each use reading
    what the one before it gave. A draw, or a part of one, that is used in one step only is fresh;
    one that is used in all steps is the variational mask, which is right.
    """
    flow = network.flow
    for steps in _recurrences(flow):
        fresh_in_every_step = set[int]()
        for step, following in pairwise(steps):
            fresh = _fresh(network, step, following)
            meetings = frozenset(node for draw in fresh for node in network.uses[draw])
            states = product(_state_of(flow, step), _state_of(flow, following))
            if any(flow.reaches(before, after, meetings) for before, after in states):
                break
            fresh_in_every_step |= {draw.site for draw in fresh}
        else:
            for index in sorted(fresh_in_every_step):
                yield "recurrent-state", _described(network.sites[index])


def _recurrences(flow: Flow) -> Iterator[list[Node]]:
    """Uses of the same weights, each of which reads the one before it."""
    users: dict[str, list[Node]] = {}
    for node in flow.nodes.values():
        if node.name in flow.data and flow.kind(node.name) in MAPS:
            for weight in flow.weights_of(node):
                users.setdefault(weight, []).append(node)
    yielded = set[tuple[str, ...]]()
    for steps in users.values():
        key = tuple(node.name for node in steps)
        if len(steps) >= _STEPS and key not in yielded:
            yielded.add(key)
            pairs = list(pairwise(steps))
            if all(flow.reaches(step.name, following.name) for step, following in pairs):
                yield steps


def _state_of(flow: Flow, step: Node) -> tuple[str, ...]:
    """What a step reads of the steps before: of a fused cell its output, not its memory."""
    if flow.kind(step.name) in CELLS and isinstance(step.args[1], tuple):
        step = Node("state", "state", step.args[1][:1])
    elif flow.kind(step.name) in CELLS:
        step = Node("state", "state", step.args[1:2])
    return tuple(name for name in step.references() if name in flow.data)


def _fresh(network: LiftedNetwork, step: Node, following: Node) -> list[Draw]:
    """Draws that meet the data between two nodes and nowhere else."""
    order = network.flow.order
    start, end = order[step.name], order[following.name]
    return [
        draw
        for draw, nodes in network.uses.items()
        if all(start < order[node] < end for node in nodes)
    ]


def _no_dropout_at_the_end(network: LiftedNetwork) -> Iterator[Finding]:
    """The last maps, where no draw meets what they read, their weights or what they give."""
    flow = network.flow
    meetings = {m.node for of_site in flow.meetings.values() for m in of_site}
    passed, last = flow.above([flow.output], MAPS)
    last = [name for name in last if flow.kind(name) != "input"]
    for name in last:
        passed += flow.above(flow.data[name], MAPS)[0]
    if last and not meetings.intersection((*passed, *last)):
        for name in last:
            yield "no-dropout-at-the-end", f"`{network.paths.get(name, '')}`"


def _idle(network: LiftedNetwork) -> Iterator[Finding]:
    """Modules without weights whose p is 0, but for the first of a schedule that rises from 0."""
    rates = {
        path: rate
        for path, module in network.modules.items()
        if (rate := _probability(module)) is not None
    }
    for path, rate in rates.items():
        kind = type(network.modules[path])
        rises = not isinstance(network.modules[path], nn.modules.dropout._DropoutNd) and any(
            rates[other] > 0 for other in rates if isinstance(network.modules[other], kind)
        )
        if rate == 0 and not rises:
            yield "idle-dropout", f"`{path}`"


def _probability(module: nn.Module) -> float | None:
    """The drop probability that a module without weights and parts holds as a plain number."""
    if next(module.parameters(), None) is not None or next(module.children(), None) is not None:
        return None
    for name in _PROBABILITIES:
        value = vars(module).get(name)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
    return None


def _described(site: Site, also: str = "") -> str:
    rate = "" if site.drop_prob is None else f"p = {site.drop_prob:.4g}"
    facts = ", ".join(fact for fact in (rate, also) if fact)
    return f"`{site.module_path}`" + (f" ({facts})" if facts else "")
