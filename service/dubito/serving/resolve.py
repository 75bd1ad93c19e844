"""What an order means now: the version, the networks that answer, the sampling, the calibration.

Flow: order → version of the alias → sampling over its defaults → members → networks, loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace

from dubito.asked import (
    CalibratedOptions,
    CalibrateOptions,
    CalibrateOrder,
    EvaluateOrder,
    PredictOrder,
    SelectOrder,
)
from dubito.engine import Sampling
from dubito.engine.calling.sampling import FITTED
from dubito.engine.heads import head_of as output_head
from dubito.engine.network import Network
from dubito.engine.sites.chosen import settled
from dubito.errors import ConflictError, InputError
from dubito.models.library import AtHand, Library
from dubito.models.members import find_members, predictor
from dubito.models.sampling import merge_sampling
from dubito.registry import CalibrationFact, VersionFact
from dubito.serving.turns.rates import Kind
from dubito.serving.ways import AGREEMENT, ChosenWay, MeasuredWays, check_auto, choose
from dubito_nn.manifest_reader import manifest_from_json

AnyOrder = PredictOrder | CalibrateOrder | EvaluateOrder | SelectOrder


@dataclass(frozen=True)
class Named:
    """The versions that an order names, before anything is loaded.

    Args:
        version: of its path.
        sampling: all choices, made.
        members: versions of an ensemble, by their numbers; empty where one network answers.
        active: number of the calibration whose figures are asked for; None: raw ones.
    """

    version: VersionFact
    sampling: Sampling
    members: tuple[VersionFact, ...]
    active: int | None

    @property
    def numbers(self) -> tuple[int, ...] | None:
        """Numbers of the members; None where there are none."""
        return tuple(member.number for member in self.members) or None


@dataclass(frozen=True)
class Resolved(Named):
    """The versions that an order names, ready to be run.

    Args:
        network: of the version, or of its members.
        calibration: the active one; None for raw figures.
    """

    network: Network
    calibration: CalibrationFact | None

    @property
    def passes(self) -> int:
        """Passes that a row takes through all networks together."""
        return self.sampling.passes * len(self.network.members)

    def is_of(self, held: AtHand) -> bool:
        """Whether it is what its order means still, with what is in memory now."""
        fact, fit = self.calibration, self.sampling.fit
        is_same = held.version is self.version and held.engine is self.network
        return (
            is_same
            and fact in (None, held.calibration)
            and (fit is None or held.engine.has_fit(fit))
        )

    def kind(self, action: str, *how: Hashable) -> Kind:
        """What work of an action is measured as: time goes by rows x samples, not by the seed.

        Args:
            action: what is done.
            how: what else its time depends on.
        """
        version, sampling = self.version, self.sampling
        drawn = sampling.method, sampling.masks, sampling.tolerance, sampling.sites
        of_model = action, version.model, version.number, self.numbers
        return of_model, (*drawn, sampling.fallback, *how)


@dataclass(frozen=True)
class Resolver:
    """Looks up what orders mean.

    Args:
        library: the models.
        max_num_samples: largest T, in passes.
    """

    library: Library
    max_num_samples: int

    def name(self, order: AnyOrder, allow: Callable[[Sampling], None] | None = None) -> Named:
        """The versions that an order names, and its sampling.

        Args:
            order: what is asked.
            allow: refuses a sampling that this kind of order does not take.

        Raises:
            NotFoundError: a version does not exist.
            InputError: a choice is out of its bounds, or the members do not agree.
        """
        version = self.library.version(order.model, order.version)
        return self._named(order, version, allow)

    def _named(
        self,
        order: AnyOrder,
        version: VersionFact,
        allow: Callable[[Sampling], None] | None = None,
    ) -> Named:
        if isinstance(order, PredictOrder):
            check_auto(order.method, order.tolerance, order.budget_ms)
            if order.method == "auto":  # chosen once the rows are known; until then
                order = replace(order, method="mc", tolerance=None)
        sampling = merge_sampling(order, version.defaults, max_num_samples=self.max_num_samples)
        if allow is not None:
            allow(sampling)
        if isinstance(order, CalibrateOptions):
            _check_share("alpha", order.alpha)
        if isinstance(order, CalibrateOptions | CalibratedOptions):
            _check_share("coverage", order.coverage)
        if sampling.method in FITTED:
            sampling = replace(sampling, fit=_active_fit(version, sampling.method))
        is_raw = not isinstance(order, CalibratedOptions) or order.calibration == "none"
        members = find_members(self.library, order.model, order.members)
        if sampling.sites != "all":
            sampling = _settled(sampling, members or (version,))
        return Named(version, sampling, members, None if is_raw else version.active_calibration)

    def resolve(self, order: AnyOrder, allow: Callable[[Sampling], None] | None = None) -> Resolved:
        """Return what `name` returns, with the networks loaded and the calibration read.

        Raises:
            ConflictError: a version is retired.
            DubitoError: as `name`, or a network cannot be loaded; the class says why.
        """
        named = self.name(order, allow)
        network = predictor(self.library, named.version, named.members)
        self.library.bring_fit(named.version, named.sampling.fit, network)
        fact = None
        if named.active is not None:
            fact = self.library.calibration(named.version, named.active)
        return Resolved(**vars(named), network=network, calibration=fact)

    def at_hand(self, order: PredictOrder) -> Resolved | None:
        """Return what `resolve` returns, from memory alone.

        Returns:
            None where something has to be read or loaded for it, or several networks answer.

        Raises:
            InputError: a choice is out of its bounds.
        """
        is_told = not order.members and order.method != "auto"  # which reads what was measured
        held = None if not is_told else self.library.at_hand(order.model, order.version)
        if held is None:
            return None
        version, engine, active, _ = held
        named = self._named(order, version)
        fact = None if named.active is None else active
        fit = named.sampling.fit
        if fit is not None and not engine.has_fit(fit):
            return None
        return Resolved(**vars(named), network=engine, calibration=fact)

    def chosen(
        self, order: PredictOrder, asked: Resolved, num_rows: int
    ) -> tuple[Resolved, ChosenWay]:
        """How a request of method `auto` is answered.

        Args:
            order: what is asked.
            asked: with method `mc`.
            num_rows: B.
        """
        version = asked.version
        number = version.active_fits.get(AGREEMENT)
        agreement = None
        if number is not None:
            agreement = MeasuredWays.of(number, self.library.fit(version, number).document)
        choice = choose(
            agreement,
            asked.sampling,
            version.active_fits,
            num_rows=num_rows,
            tolerance=order.tolerance,
            budget_ms=order.budget_ms,
            with_samples="samples" in (order.outputs or ()),
        )
        self.library.bring_fit(version, choice.sampling.fit, asked.network)
        return replace(asked, sampling=choice.sampling), choice


def _settled(sampling: Sampling, versions: Sequence[VersionFact]) -> Sampling:
    """The sampling with its sites by number; of an ensemble as asked, since numbers differ.

    Raises:
        InputError: a number or pattern that names no site of a version.
    """
    tables = [manifest_from_json(version.manifest).sites for version in versions]
    ways = [settled(sampling.sites, table) for table in tables]
    return replace(sampling, sites=ways[0]) if len(ways) == 1 else sampling


def _active_fit(version: VersionFact, method: str) -> int:
    """The fit that a method answers from.

    Raises:
        InputError: the head makes nothing of one.
        ConflictError: there is none.
    """
    output_head(manifest_from_json(version.manifest)).check_method(method)
    number = version.active_fits.get(method)
    if number is None:
        at = f"/v1/models/{version.model}/versions/{version.number}/fit"
        raise ConflictError(
            f"method `{method}` expects an active fit of version {version.number} of"
            f' `{version.model}`, got none: POST {{"method": "{method}", "inputs": [...]}} to {at},'
            f" or run `dubito fit {version.model} --data rows.npy --method {method}`; PUT to its"
            " `fits` makes an earlier one active"
        )
    return number


def _check_share(name: str, value: float | None) -> None:
    """Refuse a rate that is not inside (0, 1)."""
    if value is not None and not 0.0 < value < 1.0:
        example = 0.1 if name == "alpha" else 0.9
        raise InputError(
            f"`{name}` expects a number between 0 and 1, got {value}: such as {example}"
        )
