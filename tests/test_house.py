"""How the packages hang together: what a change may not undo."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from dubito.settings import Settings

ROOT = Path(__file__).parent.parent
PACKAGES = {
    "dubito": ROOT / "service/dubito",
    "dubito_nn": ROOT / "models/dubito_nn",
    "dubito_client": ROOT / "service/client/dubito_client",
}
KINDS = {"Ensemble", "Classification", "Regression"}
ASKED = {"family", "has_positions", "head", "task"}
MANY = 8
PUBLIC = {  # signatures that people call: there an argument more is kinder than an object more
    "engine/engine.py load",
    "dropout/weights/sparse.py __init__",
    "export.py export",
    "networks/resnet.py __init__",
    "networks/rnn.py __init__",
    "training/loop.py train",
}


@cache
def _modules() -> dict[str, tuple[Path, ast.Module]]:
    """Path and syntax tree of every module, by its dotted name."""
    found = {}
    for name, root in PACKAGES.items():
        for path in sorted(root.rglob("*.py")):
            parts = [name, *path.relative_to(root).with_suffix("").parts]
            dotted = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found[dotted] = (path, ast.parse(path.read_text()))
    return found


def _imported(tree: ast.Module) -> Iterator[str]:
    """The modules of ours that a module imports."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                target = inner if inner in _modules() else node.module
                if target in _modules():
                    yield target


def _folder(dotted: str) -> list[str]:
    path, _ = _modules()[dotted]
    parts = dotted.split(".")
    return parts if path.name == "__init__.py" else parts[:-1]


def test_no_two_folders_side_by_side_import_each_other() -> None:
    arrows: dict[tuple[str, str, str], set[str]] = defaultdict(set)
    for dotted, (_, tree) in _modules().items():
        for target in _imported(tree):
            here, there = _folder(dotted), _folder(target)
            depth = next(
                (d for d, (a, b) in enumerate(zip(here, there, strict=False)) if a != b), 0
            )
            if depth:
                parent = ".".join(here[:depth])
                arrows[parent, here[depth], there[depth]].add(f"{dotted} -> {target}")
    mutual = {
        f"{parent}: {a} and {b}": sorted(arrows[parent, b, a])
        for parent, a, b in arrows
        if len(arrows[parent, a, b]) >= len(arrows.get((parent, b, a), ())) > 0
    }
    assert not mutual, "move what both need below both, or what needs both above"


def _below(package: str) -> set[str]:
    """The modules and folders of a package."""
    parts = [dotted.rpartition(".") for dotted in _modules()]
    return {name for parent, _, name in parts if parent == package}


def _names(entry: str) -> list[str]:
    return [name.removesuffix("/").removesuffix(".py") for name in entry.split()]


def test_a_package_that_lists_its_modules_lists_all_and_no_others() -> None:
    """One without a list says what each of its files is: a strategy, a route, a revision."""
    for dotted, (path, tree) in _modules().items():
        text = ast.get_docstring(tree) if path.name == "__init__.py" else None
        entries = re.findall(r"^ *((?:[a-z]\w*(?:/|\.py)? )+) +\S", text or "", re.MULTILINE)
        listed = [name for entry in entries for name in _names(entry)]
        wrong = set(listed) ^ _below(dotted) if listed else set()
        assert not wrong, f"{path.relative_to(ROOT)}: give each module a line `name  what it is`"
        assert len(listed) == len(set(listed)), path


def test_the_map_names_every_folder_and_nothing_that_is_gone() -> None:
    drawn = (ROOT / "ARCHITECTURE.md").read_text().partition("## Map")[2].split("```")[1]
    for package, root in PACKAGES.items():
        after = drawn.partition(f"{root.relative_to(ROOT)}/")[2]
        own = re.match(r".*\n((?:  .*\n)*)", after)
        assert own, package
        entries = re.findall(r"^  ((?:\w+(?:/|\.py) ?)+)", own[1], re.MULTILINE)
        named = {name for entry in entries for name in _names(entry)}
        folders = {name for name in _below(package) if (root / name).is_dir()}
        assert folders <= named <= _below(package), f"correct the map of `{package}`"


def test_every_setting_is_read() -> None:
    trees = (tree for _, tree in _modules().values())
    read = {n.attr for tree in trees for n in ast.walk(tree) if isinstance(n, ast.Attribute)}
    unread = Settings.model_fields.keys() - read
    assert not unread, "hand them to a part, as `application.py` does"


def test_no_public_class_has_the_name_of_another() -> None:
    places = defaultdict(list)
    for dotted, (_, tree) in _modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                is_clients = dotted.startswith("dubito_client")  # which repeats names by intent
                places[node.name, is_clients].append(dotted)
    assert not {name: where for name, where in places.items() if len(where) > 1}


def _asks_for_a_kind(node: ast.AST) -> bool:
    """Whether a node asks what kind of head or network there is."""
    if isinstance(node, ast.Compare) and isinstance(node.left, ast.Attribute):
        return node.left.attr in ASKED
    if isinstance(node, ast.If | ast.IfExp) and isinstance(node.test, ast.Attribute):
        return node.test.attr == "has_positions"
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "isinstance":
        return any(kind in ast.unparse(node) for kind in KINDS)
    return False


def test_what_kind_of_head_or_network_there_is_is_asked_in_few_places() -> None:
    asks = [
        f"{path.relative_to(ROOT)}:{node.lineno}"  # type: ignore[attr-defined]
        for path, tree in _modules().values()
        if "heads" not in path.parts and path.name != "network.py"
        for node in ast.walk(tree)
        if _asks_for_a_kind(node)
    ]
    assert len(asks) <= 15, f"let a head (in `heads/`) or `network.py` decide it: {asks}"


def _is_kernel(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    """Whether it runs on a GPU, where arguments are addresses and numbers, and no objects."""
    return any(ast.unparse(one).startswith("triton.jit") for one in node.decorator_list)


def test_no_function_takes_more_than_eight_parameters() -> None:
    wide = {
        f"{path.relative_to(PACKAGES[dotted.split('.')[0]])} {node.name}"
        for dotted, (path, tree) in _modules().items()
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len(node.args.posonlyargs + node.args.args + node.args.kwonlyargs) > MANY
        and not _is_kernel(node)
    }
    assert wide - PUBLIC == set(), "put what travels together into one dataclass"
    assert wide == PUBLIC, "take those that are gone out of `PUBLIC`"
