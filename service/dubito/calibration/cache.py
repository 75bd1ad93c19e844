"""Calibration records as they are asked for, read once.

A record may hold a megabyte of features, and every prediction needs its record.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from threading import Lock

from dubito.calibration.record import Calibration
from dubito.registry import CalibrationFact

_MAX_KEPT = 32


@dataclass
class Calibrations:
    """The records used last."""

    _kept: OrderedDict[tuple[object, ...], Calibration] = field(default_factory=OrderedDict)
    _lock: Lock = field(default_factory=Lock)

    def of(self, fact: CalibrationFact) -> Calibration:
        """The record of a calibration.

        Raises:
            InputError: it cannot be read.
        """
        key = fact.model, fact.version, fact.number, fact.created_at
        with self._lock:
            found = self._kept.get(key)
        if found is None:  # read without the lock: the worker must not wait for a megabyte
            found = Calibration.from_json(fact.document)
        with self._lock:
            self._kept[key] = found
            self._kept.move_to_end(key)
            while len(self._kept) > _MAX_KEPT:
                self._kept.popitem(last=False)
        return found
