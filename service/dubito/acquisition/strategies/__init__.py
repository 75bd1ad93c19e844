"""The strategies, one file each; a new one is its file and one line in `EVERY`.

What those of optimisation have in common is in `optimising`.
"""

from __future__ import annotations

from dataclasses import fields

from dubito.acquisition.order import Acquisition
from dubito.acquisition.strategies.badge import BADGE
from dubito.acquisition.strategies.bald import BALD, BALD_OF_NUMBERS
from dubito.acquisition.strategies.batchbald import BATCHBALD, BATCHBALD_OF_NUMBERS
from dubito.acquisition.strategies.coreset import CORESET, CORESET_OF_NUMBERS
from dubito.acquisition.strategies.entropy import ENTROPY
from dubito.acquisition.strategies.epig import EPIG, EPIG_OF_NUMBERS
from dubito.acquisition.strategies.expected_improvement import EXPECTED_IMPROVEMENT
from dubito.acquisition.strategies.least_confidence import LEAST_CONFIDENCE
from dubito.acquisition.strategies.margin import MARGIN
from dubito.acquisition.strategies.mean_std import MEAN_STD
from dubito.acquisition.strategies.power_bald import POWER_BALD
from dubito.acquisition.strategies.probability_of_improvement import PROBABILITY_OF_IMPROVEMENT
from dubito.acquisition.strategies.random_rows import RANDOM
from dubito.acquisition.strategies.thompson import THOMPSON
from dubito.acquisition.strategies.upper_confidence_bound import UPPER_CONFIDENCE_BOUND
from dubito.acquisition.strategies.variance import VARIANCE, VARIANCE_OF_SEQUENCES
from dubito.acquisition.strategies.variation_ratio import VARIATION_RATIO
from dubito.acquisition.strategy import ONE_CLASS, Strategy
from dubito.errors import InputError

EVERY: tuple[Strategy, ...] = (
    VARIANCE,
    VARIANCE_OF_SEQUENCES,
    BALD_OF_NUMBERS,
    BATCHBALD_OF_NUMBERS,
    CORESET_OF_NUMBERS,
    EXPECTED_IMPROVEMENT,
    PROBABILITY_OF_IMPROVEMENT,
    UPPER_CONFIDENCE_BOUND,
    EPIG_OF_NUMBERS,
    THOMPSON,
    ENTROPY,
    MARGIN,
    LEAST_CONFIDENCE,
    VARIATION_RATIO,
    MEAN_STD,
    BALD,
    POWER_BALD,
    BATCHBALD,
    RANDOM,
    CORESET,
    BADGE,
    EPIG,
)
"""In the order in which messages name them."""

_OPTIONS = frozenset().union(*(strategy.options for strategy in EVERY))
_REMEDY = {"maximize": "leave it out, or `true`"}


def find(acquisition: Acquisition, head: str) -> Strategy:
    """The strategy that is asked for, with its options.

    Args:
        acquisition: what is asked.
        head: what the network's output means.

    Raises:
        InputError: there is none of that name, it is not for that head, or an option is not for it.
    """
    name = acquisition.strategy
    named = [strategy for strategy in EVERY if strategy.name == name]
    mine = [strategy for strategy in named if head in strategy.heads]
    if not mine:
        known = f"one of a {head}: {', '.join(names(head))}"
        got = f"`{name[:40]}`" + ("" if not named else f", which is for a {_main_head(named)}")
        raise InputError(f"`strategy` expects {known}; got {got}: choose one of them")
    _check_options(acquisition, mine[0])
    if acquisition.per_class is not None and head not in ONE_CLASS:
        raise InputError(
            f"`per_class` expects a classification with one class per row, got a {head}: leave it"
            " out"
        )
    return mine[0].with_options(acquisition)


def names(head: str) -> tuple[str, ...]:
    """Names of the strategies for a kind of output."""
    return tuple(strategy.name for strategy in EVERY if head in strategy.heads)


def _main_head(named: list[Strategy]) -> str:
    is_for_classes = any(strategy.heads >= ONE_CLASS for strategy in named)
    return "classification" if is_for_classes else "regression"


def _check_options(acquisition: Acquisition, strategy: Strategy) -> None:
    """Refuse an option that the strategy does not read, and that would be passed over in silence.

    Raises:
        InputError: naming the option and the strategies that read it.
    """
    defaults = {field.name: field.default for field in fields(Acquisition)}
    for option in sorted(_OPTIONS - strategy.options):
        if getattr(acquisition, option) == defaults[option]:
            continue
        readers = dict.fromkeys(each.name for each in EVERY if option in each.options)
        known = " or ".join(f"`{reader}`" for reader in readers)
        is_shared = any(
            each.name in readers and option not in each.options for each in EVERY
        )  # by name with strategies of other heads, which do not read it
        raise InputError(
            f"`{option}` expects strategy {known}{' of a regression' if is_shared else ''}, got"
            f" `{strategy.name}`, which does not read it: {_REMEDY.get(option, 'leave it out')}"
        )
