"""Calibration records as they are asked for, read once.

A record may hold a megabyte of features, and every prediction needs its record.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from threading import Lock

from cachetools import LRUCache

from dubito.calibration.record import Calibration
from dubito.registry import CalibrationFact

_MAX_RECORDS = 32


@dataclass
class Calibrations:
    """The calibration records that were used last."""

    _records: LRUCache[tuple[object, ...], Calibration] = field(
        default_factory=lambda: LRUCache(_MAX_RECORDS)
    )
    _lock: Lock = field(default_factory=Lock)

    def known(self, fact: CalibrationFact) -> Calibration | None:
        """The record of a calibration where it is kept; None where it would have to be read."""
        with self._lock:
            return self._records.get(_key(fact))

    def of(self, fact: CalibrationFact) -> Calibration:
        """Return the record of a calibration.

        Raises:
            InputError: it cannot be read.
        """
        calibration = self.known(fact)
        if calibration is None:  # read without the lock: the worker must not wait for a megabyte
            calibration = Calibration.from_json(fact.document)
            with self._lock:
                self._records[_key(fact)] = calibration
        return calibration


def _key(fact: CalibrationFact) -> tuple[object, ...]:
    return fact.model, fact.version, fact.number, fact.created_at
