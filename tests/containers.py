"""A Dockerfile, read and carried out without Docker: its steps in order, in a folder of their own.

One folder is the root of the stage that is being made, so that the paths that a stage writes down
hold in the next: a stage that is done is put aside, and the next begins with an empty root.
Absolute paths below `TOPS` mean that root; programs and the interpreter are the machine's, and so
is what is copied from other images. Settings of pip and npm come from the environment, as a
container has its proxies from its daemon.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from string import Template

TOPS = ("opt", "data", "build", "tmp")
_ABSOLUTE = re.compile(rf"(?<![\w./-])/(?=(?:{'|'.join(TOPS)})\b)")
_SETTINGS = ("PIP_", "npm_config_")
_FLAG = re.compile(r"--([a-z-]+)=(\S+) +")


@dataclass(frozen=True)
class Step:
    """An instruction and what stands behind it."""

    word: str
    rest: str


@dataclass(frozen=True)
class Image:
    """What a stage has come to."""

    variables: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)  # of what COPY wrote, by path
    folder: str = "/"
    user: str = "0:0"
    volume: str = ""
    port: str = ""
    check: tuple[str, ...] = ()
    command: tuple[str, ...] = ()


def stages(text: str) -> dict[str, list[Step]]:
    """The steps of each stage, by its name; those before the first by the empty name."""
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    found: dict[str, list[Step]] = {"": []}
    for line in re.sub(r"\\\n\s*", "", "\n".join(lines)).splitlines():
        if line.strip():
            step = Step(*line.split(maxsplit=1))
            if step.word == "FROM":
                found[step.rest.split()[-1]] = []
            found[list(found)[-1]].append(step)
    return found


def let_through(context: Path, to: Path) -> None:
    """Copy what `.dockerignore` lets through: it shuts all out, then names what comes in."""
    written = (context / ".dockerignore").read_text().splitlines()
    first, *others = [line for line in written if not line.startswith("#")]
    assert first == "*"
    left_out = [line.removeprefix("**/") for line in others if not line.startswith("!")]
    for line in others:
        if line.startswith("!"):
            _copy(context / line[1:], to / line[1:], left_out=left_out)


class Builder:
    """Carries out a Dockerfile.

    Args:
        folder: an empty one; `root` in it is that of the stage which was made last.
        context: the folder that files are copied from.
        given: arguments of the build.
        after_run: called with the root after every RUN.
    """

    def __init__(
        self, folder: Path, context: Path, given: dict[str, str], after_run: Callable[[Path], None]
    ) -> None:
        self.root = folder / "root"
        self._folder, self._context, self._given = folder, context, given
        self._after_run = after_run
        self._programs = folder / "programs"
        self._programs.mkdir()
        for name, words in (("python", ""), ("pip", "-m pip ")):
            program = self._programs / name
            program.write_text(f'#!/bin/sh\nexec "{sys.executable}" {words}"$@"\n')
            program.chmod(0o755)

    def build(self, text: str, target: str) -> Image:
        """Make a stage, and before it, in their order, those that it needs."""
        every = stages(text)
        self._arguments = {}
        for step in every.pop(""):
            self._take(step.rest)
        made: dict[str, Image] = {}
        for name in _needed(every, target):
            above = Template(every[name][0].rest.split()[0]).substitute(self._arguments)
            if made and above != list(made)[-1]:
                self.root.rename(self._folder / list(made)[-1])
            self.root.joinpath("tmp").mkdir(parents=True, exist_ok=True)
            image = made.get(above, Image())
            for step in every[name][1:]:
                image = self._carried_out(image, step)
            made[name] = image
        return made[target]

    def environment(self, image: Image) -> dict[str, str]:
        """What a program of an image finds, with the paths of `root`."""
        inside = {name: self.inside(value) for name, value in image.variables.items()}
        path = f"{self._programs}:/usr/bin:/bin"
        return inside | {"PATH": inside.get("PATH", "$PATH").replace("$PATH", path)}

    def inside(self, text: str) -> str:
        """A text in which absolute paths of the image are those of `root`."""
        return _ABSOLUTE.sub(f"{self.root}/", text)

    def _carried_out(self, image: Image, step: Step) -> Image:
        match step.word:
            case "ARG":
                self._take(step.rest)
            case "ENV":
                return replace(image, variables=image.variables | _pairs(step.rest))
            case "LABEL":
                return replace(image, labels=image.labels | _pairs(step.rest))
            case "WORKDIR":
                Path(self.inside(step.rest)).mkdir(parents=True, exist_ok=True)
                return replace(image, folder=step.rest)
            case "COPY":
                return self._copied(image, step.rest)
            case "RUN":
                self._run(image, step.rest)
            case "USER" | "VOLUME" | "EXPOSE":
                place = {"USER": "user", "VOLUME": "volume", "EXPOSE": "port"}[step.word]
                return replace(image, **{place: step.rest})
            case "HEALTHCHECK":
                return replace(image, check=tuple(json.loads(step.rest.partition("CMD ")[2])))
            case "CMD":
                return replace(image, command=tuple(json.loads(step.rest)))
            case other:
                raise AssertionError(f"{other}: say in `tests/containers.py` what it does")
        return image

    def _take(self, argument: str) -> None:
        name, _, default = argument.partition("=")
        self._arguments[name] = self._given.get(name, default.strip('"'))

    def _run(self, image: Image, command: str) -> None:
        of_daemon = {name: os.environ[name] for name in os.environ if name.startswith(_SETTINGS)}
        done = subprocess.run(
            ["/bin/sh", "-ec", self.inside(command)],
            cwd=self.inside(image.folder) if image.folder != "/" else self.root,
            env=of_daemon | self._arguments | self.environment(image),
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"RUN {command}\n{done.stdout}{done.stderr}"
        self._after_run(self.root)

    def _copied(self, image: Image, rest: str) -> Image:
        flags = dict(_FLAG.findall(rest))
        if ":" in flags.get("from", ""):  # another image
            return image
        *sources, to = _FLAG.sub("", rest).split()
        above = self._folder / flags["from"] if "from" in flags else self._context
        target = Path(self.inside(to) if to[0] == "/" else self.inside(f"{image.folder}/{to}"))
        for source in sources:
            path = above / source.lstrip("/")
            goes_below = path.is_file() and to.endswith("/")
            _copy(path, target / path.name if goes_below else target)
        return replace(image, owners=image.owners | {to: flags.get("chown", "0:0")})


def _copy(path: Path, to: Path, left_out: list[str] | None = None) -> None:
    """Copy a file or what a folder holds; files are linked, since nobody writes into them."""
    to.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        ignore = shutil.ignore_patterns(*left_out or ())
        shutil.copytree(
            path, to, symlinks=True, ignore=ignore, copy_function=_link, dirs_exist_ok=True
        )
    else:
        _link(path, to)


def _link(path: str | Path, to: str | Path) -> None:
    try:
        os.link(path, to, follow_symlinks=False)
    except OSError:  # another disk
        shutil.copy2(path, to, follow_symlinks=False)


def _needed(every: dict[str, list[Step]], target: str) -> list[str]:
    """The stages that one is made of, in the order of the file, itself last."""
    wanted = {target}
    for name in reversed(every):
        if name in wanted:
            wanted |= set(every[name][0].rest.split()) & every.keys()
            wanted |= {
                source
                for step in every[name]
                for flag, source in _FLAG.findall(step.rest)
                if step.word == "COPY" and flag == "from"
            }
    return [name for name in every if name in wanted]


def _pairs(text: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in re.findall(r'(\S+?)=("[^"]*"|\S+)', text)}
