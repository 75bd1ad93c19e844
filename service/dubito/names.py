"""Names and references: what a model, a version and an alias may be called."""

from __future__ import annotations

import re

from dubito.errors import InputError

NAME = "[a-z][a-z0-9._-]{0,63}"
NAME_PATTERN = f"^{NAME}$"
NUMBER = "[1-9][0-9]{0,8}"
DEFAULT_ALIAS = "default"
ANONYMOUS = "anonymous"  # who comes without a key, where none is asked
SETTINGS_KEY = "key"  # who comes with the key of the settings, which has no other name
RESERVED_ACTORS = frozenset({ANONYMOUS, SETTINGS_KEY, "local"})  # names that no key may have


def check_name(kind: str, name: str) -> str:
    """Return the name if it follows the one pattern.

    Args:
        kind: what is named, for the message: `model`, `alias`.
        name: what the caller wrote.

    Raises:
        InputError: the name does not match `NAME_PATTERN`.
    """
    if not re.fullmatch(NAME, name):
        raise InputError(
            f"{kind} name: expected {NAME_PATTERN}, got {name[:80]!r}: "
            "use lower-case letters, digits, '.', '_' and '-', a letter first"
        )
    return name


def version_number(reference: str) -> int | None:
    """The number that a reference writes, or None where it can only be an alias."""
    return int(reference) if re.fullmatch(NUMBER, reference) else None
