"""A request's sampling choices over the version's defaults, within the bounds of the settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from types import MappingProxyType

from dubito.asked import SamplingOptions
from dubito.engine import Sampling
from dubito.engine.calling.sampling import FITTED, OF_A_CALL
from dubito.errors import InputError

_DEFAULTS = MappingProxyType(
    {name: value for name, value in asdict(Sampling()).items() if name not in OF_A_CALL}
)


def merge_sampling(
    order: SamplingOptions, defaults: Mapping[str, object], *, max_num_samples: int
) -> Sampling:
    """The sampling of a request.

    Args:
        order: what the request says.
        defaults: what the version says, for all that the request leaves open.
        max_num_samples: largest T, in passes.

    Raises:
        InputError: out of bounds or unknown.
    """
    asked = {name: getattr(order, name, None) for name in (*_DEFAULTS, "fallback")}
    asked = {name: value for name, value in asked.items() if value is not None}
    chosen = {**_DEFAULTS, **defaults, **asked}
    if (chosen["method"] == "ensemble") != (order.members is not None):
        raise InputError(
            f"method `ensemble` and `members` expect each other, got method `{chosen['method']}`"
            f" and members {_shown(order.members)}: give both or neither"
        )
    if chosen["method"] != "mc":  # a tolerance of the version's own is no choice of the request
        chosen["tolerance"] = order.tolerance
    is_learned = chosen["method"] == "distilled" and order.fallback is None
    if is_learned or chosen["method"] in ("point", "moments"):
        chosen["num_samples"] = 1  # one pass is all there is to them
    if chosen["method"] in ("point", *FITTED):  # nor are sites of the version's own
        chosen["sites"] = order.sites or "all"
    sampling = Sampling(**chosen)
    if sampling.num_samples > max_num_samples:
        raise InputError(
            f"`num_samples` expects at most {max_num_samples}, got {sampling.num_samples}: "
            "ask for fewer masked passes"
        )
    return sampling


def _shown(members: Sequence[object] | None) -> str:
    return "none" if members is None else ", ".join(map(str, members[:8]))[:100] or "none"
