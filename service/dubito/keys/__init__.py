"""Who asks, and what they may: keys, their scopes and limits.

    caller.py      who asks: a name, a scope, models, what they may see
    allowance.py   requests per second and at once
    ring.py        from a header to its caller, without a query

The records of keys are the registry's; what a route needs is declared at the route.
"""

from dubito.keys.caller import NOBODY, Caller, KeyScope
from dubito.keys.ring import Keyring

__all__ = ["NOBODY", "Caller", "KeyScope", "Keyring"]
