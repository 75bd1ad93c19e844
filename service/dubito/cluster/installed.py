"""Whether Ray is installed; it is looked for, and imported, only where `--ray` asks for it."""

from __future__ import annotations

from importlib.util import find_spec

from dubito.errors import InputError

_NEEDED = ("ray", "pyarrow")  # those of ray[serve,data] that the base install lacks


def check_installed() -> None:
    """Refuse `--ray` without what it needs.

    Raises:
        InputError: Ray, or what its parts Serve and Data need, is not installed.
    """
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise InputError(
            f"--ray: expected Ray with Serve and Data, found no {' and no '.join(missing)}: "
            "pip install 'dubito[ray]' (in a clone `.venv/bin/pip install -c constraints.txt "
            "'.[ray]'`), or leave --ray out"
        )
