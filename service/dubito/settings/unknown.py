"""Variables of the environment that look like settings and are none: most are misspelt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

_PREFIX = "DUBITO_"
_OTHERS = re.compile(r"DUBITO_(TEST_.*|SERVICE_(HOST|PORT).*|PORT_[0-9]+_.*)")
"""Of the tests, and what Kubernetes sets for a service that is named `dubito`."""


def unknown_settings(environment: Mapping[str, str], fields: Iterable[str]) -> list[str]:
    """A line for each variable that starts like a setting and is none, without its value.

    Args:
        environment: variables by name.
        fields: names of the settings.
    """
    known = [field.upper() for field in fields]
    lines = []
    for name in sorted(environment):
        upper = name.upper()  # settings are read in either case
        rest = upper.removeprefix(_PREFIX)
        if rest == upper or rest in known or _OTHERS.fullmatch(upper):
            continue
        near = get_close_matches(rest, known, n=1)
        remedy = f"perhaps {_PREFIX}{near[0]} is meant" if near else "remove it"
        lines.append(f"expected a setting, got {name[:80]}, which is none and is ignored: {remedy}")
    return lines
