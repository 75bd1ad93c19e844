"""What the tests of crashes kill: a process that uploads, moves aliases and calibrates.

It writes a line of JSON for every change that was acknowledged, and `ready` after the first.
"""

from __future__ import annotations

import json
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np

from dubito.application import Application
from dubito.asked import CalibrateOrder
from dubito.settings import Settings
from dubito_nn import Bundle, load_bundle
from dubito_nn.bundle import bundle_bytes

MODEL = "animals"
ALIASES = ("default", "best", "next")
ROWS = np.random.default_rng(0).normal(size=(120, 4)).astype(np.float32)
LABELS = np.random.default_rng(1).integers(0, 3, 120)


def write(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def work(path: Path, seed: int) -> None:
    """Change the registry until killed."""
    bundle = load_bundle(path)
    with Application(Settings()).running() as application:
        draw = random.Random(seed)
        versions = [upload(application, bundle, f"{seed} first")]
        write("ready")
        turn = 0
        while True:
            turn += 1
            change = draw.choice(("upload", "alias", "calibrate"))
            if change == "upload":
                versions.append(upload(application, bundle, f"{seed} {turn}"))
            elif change == "alias":
                alias, number = draw.choice(ALIASES), draw.choice(versions)
                fact = application.library.set_alias(MODEL, alias, number)
                acknowledge("alias", alias=alias, version=number, revision=fact.revision)
            else:
                calibrate(application, draw.choice(versions))


def upload(application: Application, bundle: Bundle, notes: str) -> int:
    """Upload a bundle like no other; its number."""
    manifest = replace(bundle.manifest, notes=notes)
    content = bundle_bytes(manifest, bundle.sampling, bundle.point, bundle.weights)
    with application.library.incoming() as path:
        path.write_bytes(content)
        fact = application.library.register(MODEL, path)
    acknowledge("upload", version=fact.number, digest=fact.digest)
    return fact.number


def calibrate(application: Application, number: int) -> None:
    order = CalibrateOrder(model=MODEL, version=str(number), inputs=ROWS, labels=LABELS)
    reply = application.ask(order).future.result()
    acknowledge("calibrate", version=number, calibration=reply.calibration)


def acknowledge(change: str, **what: object) -> None:
    write(json.dumps({"change": change, **what}))
