"""Processes of the tests begin with all that they need imported, which takes each seconds else."""

from __future__ import annotations

import json
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from dubito.api import create_app
from dubito.application import Application
from dubito.settings import Settings
from dubito_nn import load_bundle

from . import preloaded, victim
from .processes import Forked, environment

if TYPE_CHECKING:
    from .conftest import Bundles  # which a forked process does not need


def work(path: Path) -> None:
    """Serve, upload and calibrate, and write the modules that were imported for that."""
    create_app(Settings())
    with Application(Settings()).running() as application:
        victim.calibrate(application, victim.upload(application, load_bundle(path), "one"))
    victim.write(json.dumps(sorted(sys.modules.keys() - preloaded.IMPORTED - {__name__})))


def test_a_forked_process_imports_nothing_of_its_own(bundles: Bundles, tmp_path: Path) -> None:
    forked = Forked(partial(work, bundles("first")), environment(tmp_path / "data", {}), 1)
    with forked.written as written:
        *_, imported = map(json.loads, written)
    forked.kill()
    assert imported == []
