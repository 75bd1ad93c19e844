"""Which strategies read which option: one that would be passed over in silence is refused."""

from __future__ import annotations

from dataclasses import fields

from dubito.acquisition.order import Acquisition
from dubito.errors import InputError

_IMPROVEMENTS = ("expected_improvement", "probability_of_improvement")
_BOUND = "upper_confidence_bound"
_OPTIMISING = (*_IMPROVEMENTS, _BOUND, "thompson")
_READ_BY = {
    "maximize": _OPTIMISING,
    "incumbent": _OPTIMISING,  # a fact of the search, which a loop may state whatever it tries
    "beta": (_BOUND, "power_bald"),
    "xi": _IMPROVEMENTS,
    "noise_variance": ("bald", "batchbald", "epig"),
}
_REMEDY = {"maximize": "leave it out, or `true`"}


def check_options(acquisition: Acquisition, task: str) -> None:
    """Refuse an option that the strategy does not read.

    Args:
        acquisition: what is asked.
        task: of the network; only a regression's labels have a `noise_variance`.

    Raises:
        InputError: naming the option and the strategies that read it.
    """
    defaults = {field.name: field.default for field in fields(Acquisition)}
    name = acquisition.strategy
    for option, readers in _READ_BY.items():
        if getattr(acquisition, option) == defaults[option]:
            continue
        is_read = name in readers and (option != "noise_variance" or task == "regression")
        if not is_read:
            known = " or ".join(f"`{reader}`" for reader in readers)
            of = " of a regression" if option == "noise_variance" else ""
            raise InputError(
                f"`{option}` expects strategy {known}{of}, got `{name}`, which does not read it:"
                f" {_REMEDY.get(option, 'leave it out')}"
            )
