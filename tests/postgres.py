"""A PostgreSQL server of the tests: Debian's program, a temporary folder, a free loopback port."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_ATTEMPTS = 5  # another process may take the free port before the server does
_OPTIONS = "-c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=150 -k ''"


def find_programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`: on the PATH, else the newest of Debian's."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    complete = [
        folder for folder in folders if all((folder / n).exists() for n in ("initdb", "postgres"))
    ]
    return complete[0] if complete else None


class Postgres:
    """A running server; `url` names one of its databases."""

    def __init__(self, port: int) -> None:
        self._port = port

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://dubito@127.0.0.1:{self._port}/{database}"

    @contextmanager
    def fresh(self, like: str = "template1") -> Iterator[str]:
        """The URL of a new database, a copy of the one of that name; dropped at the end."""
        import psycopg

        name = f"test_{uuid.uuid4().hex}"
        with psycopg.connect(self.url(), autocommit=True) as connection:
            connection.execute(f'CREATE DATABASE "{name}" TEMPLATE "{like}"'.encode())
            yield self.url(name)
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)'.encode())


@contextmanager
def running(programs: Path) -> Iterator[Postgres]:
    """A server for the time of the block."""
    folder = Path(tempfile.mkdtemp(prefix="dubito-postgres-"))
    data = folder / "data"
    user = _other_user()
    if user is not None:
        shutil.chown(folder, user)

    def run(program: str, *words: str) -> subprocess.CompletedProcess[str]:
        # Not root: PostgreSQL refuses to run as root.
        identity = {} if user is None else {"user": user, "group": _group(user), "extra_groups": []}
        return subprocess.run(
            [str(programs / program), *words],
            cwd=folder,
            stdout=subprocess.PIPE if program == "initdb" else subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            **identity,  # type: ignore[call-overload]
        )

    try:
        made = run("initdb", "-D", str(data), "-U", "dubito", "-A", "trust", "-E", "UTF8", "-N")
        assert made.returncode == 0, made.stdout
        yield Postgres(_start(run, data))
        run("pg_ctl", "stop", "-D", str(data), "-m", "immediate", "-w")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _start(run, data: Path) -> int:  # type: ignore[no-untyped-def]
    log = data / "log"
    for _ in range(_ATTEMPTS):
        with socket.create_server(("127.0.0.1", 0)) as free:
            port: int = free.getsockname()[1]
        started = run(
            *("pg_ctl", "start", "-D", str(data), "-l", str(log), "-w"),
            *("-o", f"-p {port} {_OPTIONS}"),
        )
        if started.returncode == 0:
            return port
    raise AssertionError(log.read_text())


def _other_user() -> str | None:
    """Whom to run as where we are root."""
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next(name for name in ("postgres", "nobody") if name in names)


def _group(user: str) -> int:
    return pwd.getpwnam(user).pw_gid
