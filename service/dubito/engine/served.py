"""Whether a bundle can be served, asked by `dubito_nn` where it is exported (`dubito_nn.trial`).

Its job: what a server does with an upload, with every form in turn, since which of them a server
uses is found out by its own clock. No bound that is a setting counts, and nothing is timed.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import torch

from dubito.engine.calling.sampling import Key, Sampling
from dubito.engine.engine import Engine
from dubito.engine.kernels.precision import running
from dubito.engine.proof import is_same
from dubito.engine.running.fold import Form, Packs
from dubito.errors import BundleRefusedError
from dubito_nn import Bundle

_NO_LIMIT = sys.maxsize // 2
_SAMPLES = 4
_FAULT = "the form `{}` of it {}: this is a fault of Dubito, so please report it"


def check_served(bundle: Bundle) -> None:
    """Load a bundle as an upload is loaded, and try every form against dense execution.

    Raises:
        BundleRefusedError: it cannot be served.
    """
    sampling = Sampling(_SAMPLES)
    engine = Engine.load(
        bundle,
        num_samples=_SAMPLES,
        memory_budget_bytes=_NO_LIMIT,
        proof_limit_s=float(_NO_LIMIT),
    )
    rows = engine.made_up_rows()
    passes = engine.pieces("shared", rows)

    def run(*forms: Form, key: Key | None = passes.key) -> torch.Tensor:
        trial = replace(passes, forced=forms, packs=Packs(is_kept=True), key=key)
        tiles = trial.tiles(rows, sampling, None)
        chunks = [torch.cat(list(tile.passes(range(_SAMPLES)))) for tile in tiles]
        return torch.cat(chunks, dim=1)

    with running(engine.device):
        dense = run() if passes.options else None
        for option in passes.options:
            assert dense is not None
            name = type(option.form).__name__
            try:
                keys = (passes.key, None) if option.packed_bytes else (None,)
                is_right = all(is_same(run(option.form, key=key), dense) for key in keys)
            except RuntimeError as error:
                raise BundleRefusedError(_FAULT.format(name, f"does not run: {error}")) from error
            if not is_right:
                raise BundleRefusedError(_FAULT.format(name, "answers otherwise than the graph"))
