"""Formulas of single numbers that vectorise: polynomials in place of calls.

Source: Moshier, Cephes, for exp; the series of the inverse hyperbolic tangent for log.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from dubito.engine.summing.compiled.compiling import in_order

F = np.float32
_LOWEST = F(-87.3)  # whose exponential is about the least normal number
NEAR = F(0.15)  # of `divergence`, below which its series is enough
_I32, _F32 = ir.IntType(32), ir.FloatType()


def _typed_power_of_two(_context: Any, _number: Any) -> Any:
    """2^n, of n + 1.5 · 2^23."""

    def make(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        bits = builder.shl(builder.bitcast(arguments[0], _I32), _I32(23))
        return builder.bitcast(builder.add(bits, _I32(0x3F800000)), _F32)

    return types.float32(types.float32), make


def _typed_exponent(_context: Any, _number: Any) -> Any:
    """N of x = m · 2^n with m in [1/√2, √2)."""

    def make(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        bits = builder.sub(builder.bitcast(arguments[0], _I32), _I32(0x3F3504F3))
        return builder.sitofp(builder.ashr(bits, _I32(23)), _F32)

    return types.float32(types.float32), make


def _typed_mantissa(_context: Any, _number: Any) -> Any:
    """M of x = m · 2^n with m in [1/√2, √2)."""

    def make(_: Any, builder: Any, __: Any, arguments: Any) -> Any:
        bits = builder.bitcast(arguments[0], _I32)
        whole = builder.ashr(builder.sub(bits, _I32(0x3F3504F3)), _I32(23))
        return builder.bitcast(builder.sub(bits, builder.shl(whole, _I32(23))), _F32)

    return types.float32(types.float32), make


_power_of_two: Any = intrinsic(_typed_power_of_two)
_exponent: Any = intrinsic(_typed_exponent)
_mantissa: Any = intrinsic(_typed_mantissa)


@in_order
def exponential(x: Any) -> Any:
    """Exp x of x ≤ 0, to a unit in the last place; 0 below -87.3."""
    is_gone = x < _LOWEST
    x = _LOWEST if is_gone else x
    shifted = x * F(1.44269504) + F(12582912)
    n = shifted - F(12582912)
    r = n * F(2.12194440e-4) + (n * F(-0.693359375) + x)
    y = F(1.9875691500e-4) * r + F(1.3981999507e-3)
    y = y * r + F(8.3334519073e-3)
    y = y * r + F(4.1665795894e-2)
    y = y * r + F(1.6666665459e-1)
    y = y * r + F(5.0000001201e-1)
    power = (y * r * r + r + F(1)) * _power_of_two(shifted)
    return F(0) if is_gone else power


@in_order
def logarithm(x: Any) -> Any:
    """Log x of a float32, to 1e-14, in float64."""
    m = np.float64(_mantissa(x))
    t = (m - 1.0) / (m + 1.0)
    s = t * t
    y = s * (1 / 15) + 1 / 13
    y = y * s + 1 / 11
    y = y * s + 1 / 9
    y = y * s + 1 / 7
    y = y * s + 1 / 5
    y = y * s + 1 / 3
    y = y * s + 1.0
    is_nan = x - x  # whose bits are no number's
    return np.float64(_exponent(x)) * 0.6931471805599453 + (2.0 * t * y + is_nan)


@in_order
def divergence(x: Any) -> Any:
    """(1 + x) log(1 + x) - x of x ≥ -1, to 1e-6 of itself."""
    u = x + F(1)
    u = F(1e-37) if u < F(1e-37) else u
    m = _mantissa(u) - F(1)  # log(1 + m) to 3.7e-8: least squares, weighted towards the largest
    z = F(-0.10034637) * m + F(0.16335649)
    z = z * m - F(0.17325989)
    z = z * m + F(0.19888276)
    z = z * m - F(0.24961466)
    z = z * m + F(0.33335261)
    z = z * m - F(0.50000584)
    far = u * (_exponent(u) * F(0.69314718) + (z * m * m + m)) - x
    return near_divergence(x) if abs(x) < NEAR else far


@in_order
def near_divergence(x: Any) -> Any:
    """The same of |x| < 0.15."""
    y = F(-1 / 42) * x + F(1 / 30)
    y = y * x - F(1 / 20)
    y = y * x + F(1 / 12)
    y = y * x - F(1 / 6)
    y = y * x + F(1 / 2)
    return y * x * x


@in_order
def ordered(a: Any, b: Any) -> Any:
    """Return the smaller and the larger."""
    return (a if a < b else b), (b if a < b else a)


@in_order
def ordered2(a: Any, b: Any, c: Any, d: Any) -> Any:
    """Order each of two pairs."""
    return (*ordered(a, b), *ordered(c, d))


@in_order
def ordered4(a: Any, b: Any, c: Any, d: Any, e: Any, f: Any, g: Any, h: Any) -> Any:
    """Order each of four pairs."""
    return (*ordered2(a, b, c, d), *ordered2(e, f, g, h))
