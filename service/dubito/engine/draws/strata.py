"""Uniforms stratified over the samples: a Latin hypercube in blocks of 16.

Its job: cut [0, 1) into 16 strata and give the 16 samples of a block, for every unit on its own,
one number in each stratum, in a random order.

    u_t = (s_t + j_t) / 16       s: a random permutation of 0..15      j: uniform on [0, 1)

One u_t alone is exactly uniform, and units are independent, so one ω_t alone is exactly the
product distribution; only the numbers of one unit within one block depend on each other. The mean
over a block is then free of all that is additive over the units, but for what the 16 steps leave.
Blocks are independent. Of a block that is cut short (T not a multiple of 16) the first samples are
used: still unbiased, and negatively dependent, but the strata that they miss are left out, so the
gain for them grows from none at one sample to all of it at 16.

Streams of (seed, site): a permutation takes one word per unit, from the counter (·, 0, block,
kind); j_t one word per unit and sample, from (·, t mod 16, block, kind). A Bernoulli unit needs
its place in one stratum only, that which 1 - p cuts, and so one j for the 16 samples.

A permutation comes from one word: a turn r of 4 bits, added modulo 16, which alone makes every
s_t uniform; and 15 - 1 swaps (Fisher and Yates) by the digits of the upper 60 bits in base 15, 14,
..., 2, whose law is within 15!/2^60 = 1.2e-6 of the uniform one in total variation.

Dimensions: T samples, E units (places).

Source: McKay, Beckman, Conover 1979; Stein 1987, "Large sample properties of simulations using
Latin hypercube sampling"; Durstenfeld 1964, "Algorithm 235: random permutation".
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from cachetools import LRUCache, cached
from numpy.typing import NDArray

from dubito.engine.draws.streams import raw_words
from dubito_nn import Site

BLOCK = 16
_ORDERS = {True: 2, False: 3}  # kinds of streams: of shared masks, of independent ones
_PLACES = {True: 4, False: 5}
_REMEMBERED_BYTES = 32 * 2**20
_NORMAL_REMAINDER = 0.0222  # 1 - mean over the strata of (the mean of the normal in it)²


@dataclass(frozen=True, slots=True)
class Places:
    """Some units of a site.

    Args:
        seed: the key.
        site: index of the site.
        is_shared: by all rows.
        start: of the first place.
        count: E, of the places.
    """

    seed: int
    site: int
    is_shared: bool
    start: int
    count: int


def words(places: Places, samples: range) -> NDArray[np.uint64]:
    """Stratified raw words, of which the upper 53 bits are u · 2^53, shape (T, E)."""
    raw = np.empty((len(samples), places.count), dtype=np.uint64)
    for block, at, inside in _blocks(samples):
        raw[at] = _order(places, block)[inside]
        for position, t in zip(range(at.start, at.stop), inside, strict=True):
            raw[position] <<= np.uint64(60)
            raw[position] |= _jitter(places, block, int(t)) >> np.uint64(4)
    return raw


def bernoulli(places: Places, samples: range, keep_prob: float) -> NDArray[np.bool_]:
    """1[u < keep_prob] for stratified u, shape (T, E)."""
    bits = np.empty((len(samples), places.count), dtype=np.bool_)
    cut = int(keep_prob * BLOCK)  # the stratum that is kept in part
    share = keep_prob * BLOCK - cut
    for block, at, inside in _blocks(samples):
        order = _order(places, block)[inside]
        np.less(order, cut, out=bits[at])
        if share > 0:
            lower = (_jitter(places, block, 0) >> np.uint64(15)) * 2.0**-49 < share
            bits[at] |= (order == cut) & lower
    return bits


def remainder(site: Site) -> float:
    """Share of an additive effect's variance that a block leaves in its mean.

    For a Bernoulli unit the number of drops in a block is one of the two integers around 16 p:

        f (1 - f) / (16 p (1 - p)),  f = 16 p - floor(16 p)

    For uniform and normal numbers that of a linear effect.
    """
    if site.distribution == "uniform":
        return 1 / BLOCK**2
    if site.distribution == "normal":
        return _NORMAL_REMAINDER
    drop_prob = 1 - site.bernoulli_mean
    spread = BLOCK * drop_prob * (1 - drop_prob)
    fraction = BLOCK * drop_prob % 1
    return fraction * (1 - fraction) / spread if spread > 0 else 0.0


def _blocks(samples: range) -> list[tuple[int, slice, NDArray[np.intp]]]:
    """Return, for every block met, its number, where its samples go, and their places in it."""
    blocks, at = [], 0
    for block, members in groupby(samples, lambda t: t // BLOCK):
        inside = np.array([t % BLOCK for t in members], dtype=np.intp)
        blocks.append((block, slice(at, at + len(inside)), inside))
        at += len(inside)
    return blocks


def _jitter(places: Places, block: int, t: int) -> NDArray[np.uint64]:
    stream = (t, block, _PLACES[places.is_shared])
    return raw_words(places.seed, places.site, stream, places.start, places.count)


def permutations(word_E: NDArray[np.uint64]) -> NDArray[np.uint8]:
    """A random permutation of 0..15 for every word, shape (16, E)."""
    units = np.arange(len(word_E))
    order = np.empty((BLOCK, len(word_E)), dtype=np.uint8)
    order[:] = np.arange(BLOCK, dtype=np.uint8)[:, None]
    flat = order.reshape(-1)
    rest = word_E >> np.uint64(4)
    for last in range(BLOCK - 1, 1, -1):  # among the places 1..last; place 0 is the turn's
        base = np.uint64(last)
        quotient = rest // base
        chosen = (rest - quotient * base + np.uint64(1)).view(np.int64) * len(word_E) + units
        rest = quotient
        moved = flat[chosen]
        flat[chosen] = order[last]
        order[last] = moved
    order += (word_E & np.uint64(15)).astype(np.uint8)
    order &= np.uint8(15)
    return order


@cached(LRUCache(_REMEMBERED_BYTES, getsizeof=lambda order: order.nbytes), lock=threading.Lock())
def _order(places: Places, block: int) -> NDArray[np.uint8]:
    """Return the permutations of a block, (16, E), not to be written to.

    The last are remembered: chunks may cut through a block, or ask for it again.
    """
    stream = (0, block, _ORDERS[places.is_shared])
    order = permutations(raw_words(places.seed, places.site, stream, places.start, places.count))
    order.setflags(write=False)
    return order
