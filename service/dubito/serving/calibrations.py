"""Calibration records as they are asked for, read once.

A record may hold a megabyte of features, and every prediction needs its record.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from dubito.calibration.record import Calibration
from dubito.registry import CalibrationFact

_MAX_KEPT = 32


@dataclass
class Calibrations:
    """The records used last; for one thread, that of the worker."""

    _kept: OrderedDict[tuple[object, ...], Calibration] = field(default_factory=OrderedDict)

    def of(self, fact: CalibrationFact) -> Calibration:
        """The record of a calibration.

        Raises:
            InputError: it cannot be read.
        """
        key = fact.model, fact.version, fact.number, fact.created_at
        if key not in self._kept:
            self._kept[key] = Calibration.from_json(fact.document)
        self._kept.move_to_end(key)
        while len(self._kept) > _MAX_KEPT:
            self._kept.popitem(last=False)
        return self._kept[key]
