"""Leave out of a lifted graph what no output depends on."""

from __future__ import annotations

from dataclasses import replace

from dubito_nn.lifting.lift import Lifted
from dubito_nn.program import Program, pruned, sites_in


def without_unserved(lifted: Lifted) -> Lifted:
    """Drop what no output depends on, and number the sites that are left."""
    program = pruned(lifted.program)
    new = {old: position for position, old in enumerate(sites_in(program.nodes))}
    nodes = tuple(
        replace(node, args=(new[int(str(node.args[0]))], *node.args[1:]))
        if node.op == "site"
        else node
        for node in program.nodes
    )
    sites = [replace(lifted.sites[old], index=position) for old, position in new.items()]
    kept = {site.module_path for site in sites}
    gone = dict.fromkeys(
        f"{'a draw of ' * (site.module_path in kept)}module `{site.module_path}` feeds no served"
        " output: left out"
        for site in lifted.sites
        if site.index not in new
    )
    program = Program(nodes, program.outputs)
    return replace(lifted, program=program, sites=sites, notices=(*lifted.notices, *gone))
