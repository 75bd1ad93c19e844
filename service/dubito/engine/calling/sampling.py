"""What one prediction is drawn with: the ten settings that a calibration is bound to.

Its job: name T, seed, masks, draw, method, tolerance, sites, precision, fit and fallback once,
check and compare them.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from numbers import Integral, Real
from typing import Literal, TypeAlias, get_args

from dubito.errors import InputError

Masks = Literal["shared", "independent"]
Draw = Literal["iid", "stratified"]
Method = Literal["mc", "point", "moments", "ensemble", "laplace", "distilled"]
Precision = Literal["float32", "bfloat16", "tf32"]
_ALLOWED = (
    *(("masks", get_args(Masks)), ("draw", get_args(Draw)), ("method", get_args(Method))),
    ("precision", get_args(Precision)),
)
SitesName = Literal["all", "last"]
Sites: TypeAlias = SitesName | tuple[int | str, ...]

SEED_LIMIT = 2**63
SAMPLES_LIMIT = 2**31
MAX_NAMED_SITES = 1000
NUM_NODES = 256
"""Fixed points that stand in for passes with method `moments`."""
NUM_LEARNED = 64
"""Fixed points that stand in for passes with method `distilled`."""
FITTED: tuple[Method, ...] = ("laplace", "distilled")
"""Methods that answer from a fit."""
OF_A_CALL = frozenset({"fit", "fallback"})
"""Settings that no version has a default of."""


@dataclass(frozen=True, slots=True)
class Key:
    """What the draws of a prediction depend on beside t and place.

    Args:
        seed: key of the counter-based generator.
        draw: `iid` or `stratified`.
    """

    seed: int
    draw: Draw = "iid"


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the T thinned networks of one prediction are drawn.

    Args:
        num_samples: T, the number of masked passes; at least 2 for `mc` (a spread needs two).
        seed: key of the counter-based generator, in [0, 2**63).
        masks: `shared` (one ω_t for all rows) or `independent` (keyed by the row's place too).
        draw: `stratified`, spread evenly in blocks of 16, or `iid`, T independent draws.
        method: `mc` (Monte Carlo), `point` (weight scaling, one pass), `moments` (mean and
            variance propagated in one pass), `ensemble` (T passes of each of several networks),
            `laplace` (one pass, then T last linear maps drawn from what was fitted) or `distilled`
            (one pass, and a small head that has learned what T passes say).
        tolerance: a row stops when the standard error of all its outputs is at most this, with T
            the most; in probabilities or in target units; None: every row takes T samples.
        sites: that are sampled: `all`, `last` (from which no other site can be reached), or site
            numbers and patterns of module paths; the masks of the others stand at their means.
        precision: of the passes; an engine has one, which holds where this says `float32`.
        fit: number of the fit that methods `laplace` and `distilled` answer from; else None.
        fallback: share of rows like those that `distilled` has learned from which `mc` answers in
            its place, the strangest ones, and with them all rows that are stranger; None: no row.

    Raises:
        InputError: where a setting is out of its bounds.
    """

    num_samples: int = 64
    seed: int = 0
    masks: Masks = "shared"
    draw: Draw = "stratified"
    method: Method = "mc"
    tolerance: float | None = None
    sites: Sites = "all"
    precision: Precision = "float32"
    fit: int | None = None
    fallback: float | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", as_sites(self.sites))
        for name, allowed in _ALLOWED:
            value = getattr(self, name)
            if value not in allowed:
                choices = " or ".join(f"`{choice}`" for choice in allowed)
                raise InputError(f"`{name}` expects {choices}, got `{value}`: choose one of them")
        fewest = 1 if self._is_one_pass else 2
        if not _is_integer(self.num_samples) or not fewest <= self.num_samples < SAMPLES_LIMIT:
            raise InputError(
                f"`num_samples` expects an integer of at least {fewest} and below 2**31 for method"
                f" `{self.method}`, got {_shown(self.num_samples)}: choose one in it"
            )
        if not _is_integer(self.seed) or not 0 <= self.seed < SEED_LIMIT:
            raise InputError(
                f"`seed` expects an integer in [0, 2**63), got {_shown(self.seed)}: choose one in"
                " it"
            )
        self._check_tolerance()
        if self.sites != "all" and self.method in ("point", *FITTED):
            raise InputError(
                "`sites` expects a method that samples or propagates draws, got"
                f" `{self.method}`, in which all masks stand at their means: leave one out"
            )
        self._check_fitted()

    def _check_fitted(self) -> None:
        if self.masks != "shared" and self.method in FITTED:
            raise InputError(
                f"method `{self.method}` expects masks `shared`, got `independent`: all rows are"
                " answered from the same fit, so ask for `shared` or leave it out"
            )
        if self.fit is not None and self.method not in FITTED:
            raise InputError(
                f"`fit` expects method `laplace` or `distilled`, got `{self.method}`: leave one of"
                " them out"
            )
        if self.fallback is None:
            return
        if self.method != "distilled":
            raise InputError(
                f"`fallback` expects method `distilled`, got `{self.method}`: leave one of them out"
            )
        if not _is_real(self.fallback) or not 0 < self.fallback < 1:
            raise InputError(
                f"`fallback` expects a share of rows between 0 and 1, got {_shown(self.fallback)}:"
                " such as 0.05"
            )

    def _check_tolerance(self) -> None:
        if self.tolerance is None:
            return
        if not _is_real(self.tolerance) or not 0 < self.tolerance < sys.float_info.max:
            raise InputError(
                f"`tolerance` expects a number above 0, got {_shown(self.tolerance)}: such as 0.01,"
                " or leave it out and every row takes num_samples passes"
            )
        if self.method != "mc":
            is_many = self.method == "ensemble"
            why = "whose members take equally many passes" if is_many else "which has no such error"
            raise InputError(
                f"`tolerance` expects method `mc`, got `{self.method}`, {why}: leave one out"
            )

    @classmethod
    def fewest(cls, method: Method, seed: int) -> Sampling:
        """The fewest passes that show that a network runs: two, or one where all are equal."""
        return cls(2 if method == "mc" else 1, seed, method=method)

    @property
    def key(self) -> Key:
        """What the draws depend on beside t and place."""
        return Key(self.seed, self.draw)

    def to_json(self) -> dict[str, object]:
        """The settings as plain JSON values, but for a fit, sites or precision as usual.

        Records of builds that had no others are so, and are read as those.
        """
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in OF_A_CALL:
            if values[name] is None:
                del values[name]
        if self.precision == "float32":
            del values["precision"]
        if self.sites == "all":
            del values["sites"]
        elif isinstance(self.sites, tuple):
            values["sites"] = list(self.sites)
        return values

    @property
    def is_plain(self) -> bool:
        """Whether all rows take T passes with the same masks."""
        return self.method == "mc" and self.masks == "shared" and self.tolerance is None

    @property
    def passes(self) -> int:
        """How often a row goes through the network at most, or through each of an ensemble's."""
        return 1 if self._is_one_pass else self.num_samples

    @property
    def num_returned(self) -> int:
        """Samples that `Engine.sample` returns: the passes, or the fixed points in their place.

        Where some rows have passes and others fixed points, each as often as makes both equal.
        """
        if self.method == "distilled":
            return NUM_LEARNED if self.fallback is None else math.lcm(NUM_LEARNED, self.num_samples)
        return NUM_NODES if self.method == "moments" else self.passes

    @property
    def in_its_place(self) -> Sampling:
        """How `mc` answers the rows that `distilled` leaves to it."""
        return replace(self, method="mc", fit=None, fallback=None)

    @property
    def _is_one_pass(self) -> bool:
        is_learned = self.method == "distilled" and self.fallback is None
        return is_learned or self.method in ("point", "moments")


def as_sites(sites: object) -> Sites:
    """The sites that are sampled, as a setting.

    Args:
        sites: `all`, `last`, or numbers and patterns of module paths in any order.

    Raises:
        InputError: anything else, or a choice of none.
    """
    if isinstance(sites, str) and sites in get_args(SitesName):
        return sites  # type: ignore[return-value]
    named = tuple(sites) if isinstance(sites, Sequence) and not isinstance(sites, str) else ()
    if not 0 < len(named) <= MAX_NAMED_SITES:
        got = (
            f"{len(named)} of them" if isinstance(sites, Sequence) and len(named) else _shown(sites)
        )
        raise InputError(
            f"`sites` expects `all`, `last`, or 1 to {MAX_NAMED_SITES} site numbers and patterns of"
            f" module paths, got {got}: such as last, or [3]"
        )
    return tuple(_as_site(one) for one in named)


def read_sites(text: str) -> str | list[int | str]:
    """The sites that a text names: `all`, `last`, or numbers and patterns with commas.

    More digits than any number of a site has are a pattern, which names none.
    """
    if text in get_args(SitesName):
        return text
    parts = text.split(",")
    return [int(part) if re.fullmatch("[0-9]{1,18}", part) else part for part in parts]


def shown_sites(sites: Sites) -> str:
    """The sites as a text that `read_sites` reads."""
    return sites if isinstance(sites, str) else ",".join(map(str, sites))


def _as_site(one: object) -> int | str:
    if isinstance(one, str) and one:
        return one
    if isinstance(one, Integral) and _is_integer(one):
        return int(one)
    raise InputError(
        f"`sites` expects site numbers and patterns of module paths, got {_shown(one)}: such as 3,"
        " or layers.11.*"
    )


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_real(value: object) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool)


def _shown(value: object) -> str:
    return repr(value)[:40]
