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

    def of(self, fact: CalibrationFact) -> Calibration:
        """Return the record of a calibration.

        Raises:
            InputError: it cannot be read.
        """
        key = fact.model, fact.version, fact.number, fact.created_at
        with self._lock:
            calibration = self._records.get(key)
        if calibration is None:  # read without the lock: the worker must not wait for a megabyte
            calibration = Calibration.from_json(fact.document)
            with self._lock:
                self._records[key] = calibration
        return calibration
