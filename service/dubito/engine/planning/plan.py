"""Which part of the graph runs how often.

Its job: sort the nodes of f(x, ω) by what they depend on, so that nothing is computed twice:

    static    neither x nor ω            once, when the engine is loaded
    prefix    x alone                    once per row
    masks     ω alone (shared masks)     once per sample, kept between requests
    suffix    x and ω                    once per row and sample, both folded into the row axis

A value of the prefix or of the masks may be handed to the suffix only where repeating it along its
row axis is right (`RowAxis.tileable`); otherwise the nodes that make it are repeated in the suffix.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from dubito.engine.planning.layout import Layouts, RowAxis, Size, peak_row_bytes
from dubito_nn import Site
from dubito_nn.program import Node, Program, sites_in


@dataclass(frozen=True)
class Plan:
    """The nodes of each part, in order of execution, and what each part hands on.

    Args:
        static: nodes that depend on nothing.
        prefix: nodes that depend on x alone and that the suffix or the output needs.
        masks: nodes that depend on ω alone.
        suffix: the rest.
        from_prefix: names that the suffix reads from the prefix.
        from_masks: names that the suffix reads from the masks.
        one_at_a_time: a site's draw has no row axis, so samples cannot be folded together.
        prefix_row_bytes: greatest number of bytes alive at once in the prefix, per row.
        suffix_row_bytes: the same in the suffix, per row and sample.
    """

    static: tuple[Node, ...]
    prefix: tuple[Node, ...]
    masks: tuple[Node, ...]
    suffix: tuple[Node, ...]
    from_prefix: frozenset[str]
    from_masks: frozenset[str]
    one_at_a_time: bool
    prefix_row_bytes: int
    suffix_row_bytes: int


def make_plan(program: Program, sites: tuple[Site, ...], layouts: Layouts, *, shared: bool) -> Plan:
    """Sort the nodes by how often each has to run.

    Args:
        program: the lifted graph.
        sites: its random operations.
        layouts: how its values hold their rows.
        shared: whether all rows share the draws; otherwise nothing depends on ω alone.
    """
    on_x, on_draw = _dependencies(program, layouts)
    one_at_a_time = any(sites[index].batch_dim is None for index in sites_in(program.nodes))
    names = [node.name for node in program.nodes]
    by_name = {node.name: node for node in program.nodes}
    alive = _alive(program, layouts)
    suffix = {name for name in alive if on_draw[name] and (on_x[name] or not shared)}
    suffix.add(program.outputs["output"])
    from_prefix, from_masks = set[str](), set[str]()
    queue = list(suffix)
    while queue:
        for name in by_name[queue.pop()].references():
            if name in suffix or isinstance(layouts.of[name], Size):
                continue
            if not on_x[name] and not on_draw[name]:
                continue
            if _can_hand_on(layouts, name, single=one_at_a_time and on_draw[name]):
                (from_masks if on_draw[name] else from_prefix).add(name)
            else:
                suffix.add(name)
                queue.append(name)
    sizes = {name for name in names if isinstance(layouts.of[name], Size)}
    static = {name for name in names if not on_x[name] and not on_draw[name]} - sizes
    others = set(names) - static
    from_prefix, from_masks = from_prefix - suffix, from_masks - suffix
    prefix_nodes = _needed(program, _closure(by_name, from_prefix, layouts) & others)
    suffix_nodes = _needed(program, suffix)
    output = {program.outputs["output"]}
    return Plan(
        static=_needed(program, static),
        prefix=prefix_nodes,
        masks=_needed(program, _closure(by_name, from_masks, layouts) & others),
        suffix=suffix_nodes,
        from_prefix=frozenset(from_prefix),
        from_masks=frozenset(from_masks),
        one_at_a_time=one_at_a_time,
        prefix_row_bytes=peak_row_bytes(prefix_nodes, layouts.row_bytes, from_prefix),
        suffix_row_bytes=peak_row_bytes(suffix_nodes, layouts.row_bytes, output),
    )


def _dependencies(
    program: Program, layouts: Layouts
) -> tuple[Mapping[str, bool], Mapping[str, bool]]:
    """Whether each node depends on the input's values or rows, and on a draw."""
    on_x, on_draw = dict[str, bool](), dict[str, bool]()
    for node in program.nodes:
        reads = list(node.references())
        if isinstance(layouts.of[node.name], Size):
            on_x[node.name], on_draw[node.name] = False, False
            continue
        on_draw[node.name] = node.op == "site" or any(on_draw[name] for name in reads)
        on_x[node.name] = node.op == "input" or any(on_x[name] for name in reads)
        if node.op != "site" and not on_x[node.name] and not on_draw[node.name]:
            layout = layouts.of[node.name]
            # made of sizes alone, but as long as the rows: belongs to the rows
            on_x[node.name] = any(
                isinstance(layouts.of[name], Size) and layouts.of[name].slope  # type: ignore[union-attr]
                for name in reads
            ) or (isinstance(layout, RowAxis) and layout.axis is not None)
    return on_x, on_draw


def _can_hand_on(layouts: Layouts, name: str, *, single: bool) -> bool:
    layout = layouts.of[name]
    if not isinstance(layout, RowAxis):
        return False
    return layout.tileable or (single and layout.axis is None and not layout.positional)


def _alive(program: Program, layouts: Layouts) -> set[str]:
    """Nodes that an output needs, not counting those of which only a size is read."""
    alive = set(program.outputs.values())
    for node in reversed(program.nodes):
        if node.name in alive and not isinstance(layouts.of[node.name], Size):
            alive.update(node.references())
    return alive


def _closure(by_name: Mapping[str, Node], names: Iterable[str], layouts: Layouts) -> set[str]:
    """The nodes that the named ones need; sizes are known without running anything."""
    closure, queue = set(names), list(names)
    while queue:
        for name in by_name[queue.pop()].references():
            if name not in closure and not isinstance(layouts.of[name], Size):
                closure.add(name)
                queue.append(name)
    return closure


def _needed(program: Program, names: Collection[str]) -> tuple[Node, ...]:
    return tuple(node for node in program.nodes if node.name in names)
