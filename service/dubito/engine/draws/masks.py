"""The draws ω: numbers that depend on (seed, site, t, place) and on nothing else.

Its job: give ω of any site for any range of samples, from numpy's Philox, a counter-based
generator: the key is (seed, site), the counter starts at (0, 0, t, kind). So the first 32 of 64
samples are the 32, whatever the chunk, the batch or the device.

    place     position in the flattened draw of one row; for `independent` masks row r of a request
              takes the places r·E to (r + 1)·E - 1 of a stream of its own kind
    uniform   u = floor(raw / 2^11) · 2^-53, for 32-bit floats cut to 24 bits so that u < 1 holds
    bernoulli 1[u < P(ω = 1)]
    normal    Φ⁻¹(u + 2^-54); of whole maps √2 erf⁻¹(2 (k + 1/2) 2^-24 - 1), k the upper 24 bits

A `stratified` draw takes the place of `iid` raw numbers by those of `strata.py`; all that follows
is the same, so that one sample alone has the same distribution.

Source: Salmon, Moraes, Dror, Shaw 2011, "Parallel random numbers: as easy as 1, 2, 3".
"""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import ndtri
from torch import Tensor

from dubito.engine.calling.sampling import Draw, Masks
from dubito.engine.draws.strata import Places, bernoulli, words
from dubito.engine.draws.streams import raw_words
from dubito_nn import Site

_KIND = {"shared": 0, "independent": 1}


def draw(
    site: Site,
    seed: int,
    samples: range,
    size: tuple[int, ...],
    *,
    masks: Masks = "shared",
    rows: range = range(1),
    kind: Draw = "iid",
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """ω of one site for some samples, on the CPU.

    Args:
        site: whose distribution is drawn from.
        seed: the key.
        samples: indices t.
        size: of one row's draw.
        masks: `shared`: one draw for all rows; `independent`: one for every row of `rows`.
        rows: places of the rows in their request; read for `independent` only.
        kind: `iid`, or `stratified` over t.
        dtype: of the result.

    Returns:
        Shape (T, *size) for `shared`, (T, B, *size) for `independent`.
    """
    per_row = math.prod(size)
    start, count = (
        (0, per_row) if masks == "shared" else (rows.start * per_row, len(rows) * per_row)
    )
    shape = (len(samples), *size) if masks == "shared" else (len(samples), len(rows), *size)
    places = Places(seed, site.index, masks == "shared", start, count)
    if kind == "stratified" and site.distribution == "bernoulli":
        bits = bernoulli(places, samples, site.bernoulli_mean)
        return torch.from_numpy(bits).to(dtype).reshape(shape)
    return _distributed(site, _raw(places, samples, kind), dtype).reshape(shape)


def normals(site: int, seed: int, samples: range, places: range, *, kind: Draw = "iid") -> Tensor:
    """Standard normals in 32 bits that all rows share, (T, E): a fourth of the time of `draw`.

    They end at 5.4 standard deviations, beyond which lies one in fifteen million.

    Args:
        site: index of the site.
        seed: the key.
        samples: indices t.
        places: in the flattened draw, E of them.
        kind: `iid`, or `stratified` over t.
    """
    some = Places(seed, site, True, places.start, len(places))
    raw = _raw(some, samples, kind)
    raw >>= np.uint64(40)
    odd = torch.from_numpy(raw.view(np.int64)).float()  # below 2^24: all of this is exact
    return odd.sub_(2.0**23 - 0.5).mul_(2.0**-23).erfinv_().mul_(math.sqrt(2))


def _raw(places: Places, samples: range, kind: Draw) -> NDArray[np.uint64]:
    """Words of some places, (T, E)."""
    if kind == "stratified":
        return words(places, samples)
    raw = np.empty((len(samples), places.count), dtype=np.uint64)
    for position, t in enumerate(samples):
        stream = (0, t, _KIND["shared" if places.is_shared else "independent"])
        raw[position] = raw_words(places.seed, places.site, stream, places.start, places.count)
    return raw


def _distributed(site: Site, raw: NDArray[np.uint64], dtype: torch.dtype) -> Tensor:
    if site.distribution == "uniform" and dtype.itemsize <= 4:
        return torch.from_numpy((raw >> np.uint64(40)) * 2.0**-24).to(dtype)
    uniform = (raw >> np.uint64(11)) * 2.0**-53
    if site.distribution == "bernoulli":
        return torch.from_numpy(uniform < site.bernoulli_mean).to(dtype)
    if site.distribution == "normal":
        return torch.from_numpy(ndtri(uniform + 2.0**-54)).to(dtype)
    return torch.from_numpy(uniform).to(dtype)
