"""The same records and reports as before, for every kind of head (`golden_records`)."""

from __future__ import annotations

import json

import pytest

from .golden_records import CASES, RECORDS, found
from .http import agree
from .test_golden import TOLERANCE


@pytest.mark.parametrize("name", CASES)
def test_a_fit_still_comes_to_the_same_record_and_report(name: str) -> None:
    known = json.loads(RECORDS.read_text())[name]
    agree(known, found(name), name, **TOLERANCE)
