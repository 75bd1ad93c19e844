"""The sites that a choice names.

    all     every site
    last    the sites from which no other site can be reached
    a list  sites by number, or those of the modules whose path a pattern matches

A site reaches another where its draw has changed the data that the other's draw is brought to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from graphlib import TopologicalSorter

import numpy as np

from dubito.engine.calling.sampling import Sites
from dubito.errors import InputError
from dubito_nn import Program, Site
from dubito_nn.flow import Flow
from dubito_nn.manifest import named_modules
from dubito_nn.program import sites_in


def settled(sites: Sites, table: Sequence[Site]) -> Sites:
    """The one way to write a choice: `all`, `last`, or the numbers in ascending order.

    Args:
        sites: as they were asked for.
        table: all sites of the network.

    Raises:
        InputError: a number or pattern that names none.
    """
    if sites == "all":
        return sites
    if not table:
        raise InputError("`sites` expects a network that draws, got one without sites: ask for all")
    if sites == "last":
        return sites
    numbers = sorted({number for one in sites for number in _named(one, table)})
    return "all" if len(numbers) == len(table) else tuple(numbers)


def chosen(sites: Sites, table: Sequence[Site], program: Program) -> tuple[int, ...]:
    """Numbers of the sites that are sampled, in ascending order.

    Args:
        sites: as they were asked for.
        table: all sites of the network.
        program: its lifted graph.

    Raises:
        InputError: a number or pattern that names none, or a network without sites.
    """
    if sites == "all":
        return tuple(site.index for site in table)
    one_way = settled(sites, table)
    if one_way == "last":
        return _last(program)
    return tuple(range(len(table))) if one_way == "all" else tuple(map(int, one_way))


def _named(one: int | str, table: Sequence[Site]) -> list[int]:
    """The sites of a number or pattern."""
    if isinstance(one, str):
        found = [site.index for site in table if fnmatchcase(site.module_path, one)]
    else:
        found = [one] if 0 <= one < len(table) else []
    if found:
        return found
    listed = named_modules([f"{site.index} (`{site.module_path}`)" for site in table])
    got, remedy = f"`{one[:80]}`" if isinstance(one, str) else str(one), ""
    if isinstance(one, int) and any(site.module_path == got for site in table):
        remedy = f"; digits are a number, and the module `{got}` is the pattern [{got[0]}]{got[1:]}"
    raise InputError(
        f"`sites` expects site numbers from 0 to {len(table) - 1} and patterns of module paths, got"
        f" {got}, which names no site: choose among {listed}{remedy}"
    )


def _last(program: Program) -> tuple[int, ...]:
    """The sites that reach none, or only such as reach them back, as over the steps of a loop."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    flow, sites = Flow.of(program), sites_in(program.nodes)
    places = {key: place for place, key in enumerate((*sites, *flow.data))}
    edges = [(places[one], places[other]) for one, other in _edges(flow)]
    ones, others = np.array(edges, dtype=np.int64).reshape(-1, 2).T
    shape = (len(places), len(places))
    graph = coo_array((np.ones(len(edges), dtype=np.int8), (ones, others)), shape=shape)
    _, loop_of = connected_components(graph, directed=True, connection="strong")
    following: dict[int, set[int]] = {int(loop): set() for loop in loop_of}
    for one, other in zip(loop_of[ones].tolist(), loop_of[others].tolist(), strict=True):
        following[one] |= {other} - {one}
    with_site = {int(loop_of[places[site]]) for site in sites}
    reaching = set[int]()
    for loop in TopologicalSorter(following).static_order():  # what follows comes first
        if any(after in with_site or after in reaching for after in following[loop]):
            reaching.add(loop)
    return tuple(site for site in sites if int(loop_of[places[site]]) not in reaching)


def _edges(flow: Flow) -> Iterator[tuple[int | str, int | str]]:
    """From a value to those made of it, to a site that it meets, and from a site to what it meets.

    Two sites that meet the data at one node do not reach each other there.
    """
    for name, data in flow.data.items():
        yield from ((source, name) for source in data)
        reads = flow.nodes[name].references()
        for site in {draw.site for read in reads for draw in flow.noise.get(read, ())}:
            yield site, name
            yield from ((source, site) for source in data)
