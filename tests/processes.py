"""Processes of their own, such as servers as a person starts them.

They are forked from one process that has imported Dubito and warmed torch up (`preloaded`), which
takes seconds otherwise; from there on nothing is shared.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import socket
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from multiprocessing.reduction import DupFd
from pathlib import Path

from dubito.cli import main

from .holding import holding_jobs

_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.preloaded"])


class Forked:
    """A process that runs a function, and what it writes.

    Args:
        work: what it runs; picklable.
        variables: its environment.
        descriptor: 1 or 2, which `written` reads.
    """

    def __init__(
        self, work: Callable[[], None], variables: Mapping[str, str], descriptor: int
    ) -> None:
        reading, writing = os.pipe()
        self._process = _FORKS.Process(
            target=_run, args=(work, variables, DupFd(writing), descriptor)
        )
        self._process.start()
        os.close(writing)
        self.written = os.fdopen(reading)

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self._process.kill()
        self._process.join()

    def terminate(self) -> None:
        """Ask it to end, as `kill` does."""
        self._process.terminate()

    def ended(self, within_s: float) -> bool:
        """Whether it has ended, or does within a time."""
        self._process.join(within_s)
        return self._process.exitcode is not None


def _run(
    work: Callable[[], None], variables: Mapping[str, str], pipe: DupFd, descriptor: int
) -> None:
    os.dup2(pipe.detach(), descriptor)
    os.environ.clear()
    os.environ.update(variables)
    work()


class ServerProcess:
    """`dubito serve` on a free port; `url` is where it answers.

    Args:
        data_dir: where its state lies.
        settings: by the names of their variables.
        holds_jobs: whether its jobs stand still at a known block, as `holding` says.
    """

    def __init__(
        self, data_dir: Path, settings: Mapping[str, str], *, holds_jobs: bool = False
    ) -> None:
        self.process = Forked(partial(_serve, holds_jobs), environment(data_dir, settings), 2)
        first = self.process.written.readline()
        found = re.search(r"https?://127\.0\.0\.1:\d+", first)
        self.lines = [first]
        self._has_written = threading.Condition()
        self._drain = threading.Thread(target=self._read)
        self._drain.start()
        if found is None:
            self.kill()
        assert found is not None, "".join(self.lines)
        self.url = found[0]

    def kill(self) -> None:
        """End it as `kill -9` does."""
        self.process.kill()
        self._drain.join()
        self.process.written.close()

    def tells(self, word: str, within_s: float) -> bool:
        """Whether a line that it has written, or writes within a time, has a word in it."""
        with self._has_written:
            return self._has_written.wait_for(
                lambda: any(word in line for line in self.lines), within_s
            )

    def _read(self) -> None:
        for line in self.process.written:
            with self._has_written:
                self.lines.append(line)
                self._has_written.notify_all()


def _serve(holds_jobs: bool) -> None:
    sys.argv = ["dubito", "serve", "--port", "0"]
    with holding_jobs() if holds_jobs else nullcontext():
        main()


_ASK = """#!{python} -IS
import json, os, socket, sys
asked = [sys.argv[1:], os.getcwd(), dict(os.environ)]
with socket.socket(socket.AF_UNIX) as to:
    to.connect({address!r})
    socket.send_fds(to, [b"."], [0, 1, 2])
    to.sendall(json.dumps(asked).encode())
    to.shutdown(socket.SHUT_WR)
    sys.exit(int(to.recv(8)))
"""


@contextmanager
def command(path: Path, run: Callable[[], None] = main) -> Iterator[None]:
    """An executable file that is `dubito` for the time of the block, each call a fork of its own.

    Args:
        path: the file; `PATH.socket` beside it is how it asks for a fork.
        run: what it is, if not `dubito`; picklable.
    """
    address = f"{path}.socket"
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(address)
        listening.listen()
        path.write_text(_ASK.format(python=sys.executable, address=address))
        path.chmod(0o755)
        answering = threading.Thread(target=_answer, args=(listening, run))
        answering.start()
        try:
            yield
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            answering.join()


def _answer(listening: socket.socket, run: Callable[[], None]) -> None:
    while True:
        try:
            asking, _ = listening.accept()
        except OSError:  # the block has ended
            return
        with asking:
            _, descriptors, _, _ = socket.recv_fds(asking, 1, 3)
            with asking.makefile() as said:
                words, folder, variables = json.load(said)
            work = partial(_command, run, words, folder, variables)
            process = _FORKS.Process(target=work, args=(list(map(DupFd, descriptors)),))
            process.start()
            for descriptor in descriptors:
                os.close(descriptor)
            process.join()
            asking.sendall(str(process.exitcode).encode())


def _command(
    run: Callable[[], None],
    words: list[str],
    folder: str,
    variables: Mapping[str, str],
    descriptors: list[DupFd],
) -> None:
    for place, descriptor in enumerate(descriptors):
        os.dup2(descriptor.detach(), place)
    sys.stdin = open(0)  # noqa: SIM115, which multiprocessing closed
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(variables)
    sys.argv = ["dubito", *words]
    run()


def piped_code() -> None:
    """Run what is piped in, as `python -W error -` does."""
    warnings.simplefilter("error")
    exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})


def environment(data_dir: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """What a process of Dubito reads."""
    return {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry),
        "OMP_NUM_THREADS": "1",
        "DUBITO_DATA_DIR": str(data_dir),
        "DUBITO_NUM_SAMPLES": "16",
        **settings,
    }


@contextmanager
def serving(
    data_dir: Path, settings: Mapping[str, str], *, holds_jobs: bool = False
) -> Iterator[ServerProcess]:
    """A server for the time of the block; arguments as of `ServerProcess`."""
    server = ServerProcess(data_dir, settings, holds_jobs=holds_jobs)
    try:
        yield server
    finally:
        server.kill()
