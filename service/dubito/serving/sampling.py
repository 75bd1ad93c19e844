"""A request's sampling choices over the version's defaults, within the bounds of the settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict

from dubito.engine import Sampling
from dubito.errors import InputError
from dubito.serving.orders import SamplingOrder


def merge_sampling(
    order: SamplingOrder, defaults: Mapping[str, object], *, max_num_samples: int
) -> Sampling:
    """The sampling of a request.

    Args:
        order: what the request says.
        defaults: what the version says, for all that the request leaves open.
        max_num_samples: largest T, in passes.

    Raises:
        InputError: out of bounds, unknown, or not built yet.
    """
    _refuse_unbuilt(order)
    asked = {key: value for key, value in asdict(order).items() if value is not None}
    chosen = asdict(Sampling()) | dict(defaults) | asked
    if chosen["method"] in ("point", "moments"):
        chosen["num_samples"] = 1  # one pass is all there is to them
    sampling = Sampling(**chosen)
    if sampling.num_samples > max_num_samples:
        raise InputError(
            f"`num_samples` expects at most {max_num_samples}, got {sampling.num_samples}: "
            "ask for fewer masked passes"
        )
    return sampling


def _refuse_unbuilt(order: SamplingOrder) -> None:
    unbuilt = {
        "tolerance": order.tolerance is not None,
        "members": order.members is not None,
        "draw": order.draw == "stratified",
        "method": order.method == "ensemble",
    }
    remedies = {
        "tolerance": "leave it out or null, and choose num_samples",
        "members": "leave it out or null",
        "draw": "use `iid`",
        "method": "use `mc`, `point` or `moments`",
    }
    for name, is_asked in unbuilt.items():
        if is_asked:
            raise InputError(
                f"`{name}`: {getattr(order, name)!r} is not built yet in this version of Dubito: "
                f"{remedies[name]}"
            )
