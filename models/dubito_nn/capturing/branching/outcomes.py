"""Which draws a network makes where its decisions fall in a certain way.

Its job: from the lifted graph, tell which sites belong to a way that a decision takes, and draws by
which every decision falls as it is told to, so that the proof can run the eager network on every
way by itself, on all turned ways at once, and on some.

    site of a way      an output reads it only through one side of the choices of a decision
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dubito_nn.flow import base
from dubito_nn.manifest import Site
from dubito_nn.program import Node, Program, Ref, SiteSource, pruned, sites_in

_TRIED = (0.5, 1e-3, 1 - 1e-3, 1e-6, 1 - 1e-6, *((k + 0.5) / 64 for k in range(64)))
_SHAPED = frozenset(["view", "reshape", "alias", "clone", "expand", "unsqueeze", "_unsafe_view"])
_MIXED = 4  # ways in which some decisions are turned, at random


@dataclass(frozen=True)
class Decision:
    """One decision of a lifted graph.

    Args:
        draws: for a truth value, a number that the draws of its sites stand at where it falls so.
        sites: of its condition.
        guarded: sites that are drawn where it falls one way alone, and which one.
    """

    draws: Mapping[bool, float]
    sites: tuple[int, ...]
    guarded: Mapping[int, bool]


def decisions(
    program: Program,
    conditions: Sequence[str],
    inputs: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
    sites: Sequence[Site],
) -> list[Decision]:
    """The decisions of a lifted graph.

    Args:
        program: with all its nodes.
        conditions: names of the truth values that choose.
        inputs: the example.
        weights: of the graph.
        sites: of the graph.
    """
    found = []
    for name in conditions:
        condition = pruned(Program(program.nodes, {"condition": name}))
        seen: dict[bool, float] = {}
        for number in _TRIED:
            value = condition.run(inputs, weights, _standing(number, sites))["condition"]
            seen.setdefault(bool(value.flatten()[0]), number)
        deciding = tuple(sites_in(condition.nodes))
        found.append(Decision(seen, deciding, _guarded(program, name)))
    return found


def _standing(number: float, sites: Sequence[Site]) -> SiteSource:
    """All draws at one number; those of 0 and 1 at the nearer."""

    def draw(index: int, size: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.full(size, standing(number, sites[index]), dtype=dtype)

    return draw


def standing(number: float, site: Site) -> float:
    """What a site draws where it is told a number between 0 and 1."""
    if site.distribution == "bernoulli":
        return float(number >= 0.5)
    if site.distribution == "normal":
        return float(torch.special.ndtri(torch.tensor(number, dtype=torch.float64)))
    return number


def ways(found: Sequence[Decision]) -> Iterator[tuple[bool, ...]]:
    """How decisions may fall together: each turned alone, all, and some; the likely way first."""
    likely = tuple(next(iter(one.draws)) for one in found)
    can = [len(one.draws) == 2 for one in found]
    yield likely
    for number, possible in enumerate(can):
        if possible:
            yield tuple(way != (at == number) for at, way in enumerate(likely))
    if sum(can) > 1:
        yield tuple(way != possible for way, possible in zip(likely, can, strict=True))
        for _ in range(_MIXED):
            turned = (torch.rand(len(found)) < 0.5).tolist()
            yield tuple(
                way != (turn and possible)
                for way, turn, possible in zip(likely, turned, can, strict=True)
            )


def drawn_in(
    found: Sequence[Decision], way: Sequence[bool], sites: Sequence[Site]
) -> tuple[list[int], dict[int, float]]:
    """The sites that are drawn where decisions fall in a way, and the numbers of those that decide.

    A site that nothing reads goes with the one before it.
    """
    gone = {
        site
        for one, falls in zip(found, way, strict=True)
        for site, needed in one.guarded.items()
        if needed != falls
    }
    drawn = [site for site in range(len(sites)) if site not in gone]
    told = {
        site: standing(one.draws[falls], sites[site])
        for one, falls in zip(found, way, strict=True)
        for site in one.sites
    }
    return drawn, told


def _guarded(program: Program, condition: str) -> dict[int, bool]:
    """Sites that an output reads through one side of a condition's choices alone."""
    masks = {condition}
    for node in program.nodes:
        if base(node) in _SHAPED and not masks.isdisjoint(node.references()):
            masks.add(node.name)
    chosen = {
        node.name: node
        for node in program.nodes
        if node.op == "aten.where.self"
        and isinstance(node.args[0], Ref)
        and node.args[0].name in masks
    }
    every = _read(program, chosen, None)
    guarded = {
        site: side for side in (True, False) for site in every - _read(program, chosen, not side)
    }
    inherited: bool | None = None
    for site in sites_in(program.nodes):
        inherited = guarded.get(site) if site in every else inherited
        if site not in every and inherited is not None:
            guarded[site] = inherited
    return guarded


def _read(program: Program, chosen: Mapping[str, Node], side: bool | None) -> set[int]:
    """Sites that are read, of some choices one side alone."""
    read = set(program.outputs.values())
    for node in reversed(program.nodes):
        if node.name not in read:
            continue
        if node.name in chosen and side is not None:
            kept = node.args[1 if side else 2]
            read |= {ref.name for ref in (node.args[0], kept) if isinstance(ref, Ref)}
        else:
            read.update(node.references())
    return set(sites_in([node for node in program.nodes if node.name in read]))
