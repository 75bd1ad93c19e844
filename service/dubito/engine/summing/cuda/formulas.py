"""Formulas of single numbers, those of `compiled/formulas.py` for a GPU.

A GPU's own exponential is off by a unit in the last place for each unit of its argument; these are
to a unit whatever it is, and the same on every device.

Source: Moshier, Cephes, for exp.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def exponential(x: tl.tensor) -> tl.tensor:
    """Exp x of a float32 x ≤ 0, to a unit in the last place; 0 below -87.3."""
    is_gone = x < -87.3
    x = tl.where(is_gone, -87.3, x)
    shifted = x * 1.44269504 + 12582912.0  # rounds to a whole number in the lowest bits
    n = shifted - 12582912.0
    r = n * 2.12194440e-4 + (n * -0.693359375 + x)
    y = 1.9875691500e-4 * r + 1.3981999507e-3
    y = y * r + 8.3334519073e-3
    y = y * r + 4.1665795894e-2
    y = y * r + 1.6666665459e-1
    y = y * r + 5.0000001201e-1
    power_of_two = ((shifted.to(tl.int32, bitcast=True) << 23) + 0x3F800000).to(
        tl.float32, bitcast=True
    )
    power = (y * r * r + r + 1.0) * power_of_two
    return tl.where(is_gone, 0.0, power)


@triton.jit
def divergence(x: tl.tensor) -> tl.tensor:
    """(1 + x) log(1 + x) - x of a float32 x ≥ -1, to 1e-6 of itself."""
    y = x * (-1.0 / 42) + (1.0 / 30)
    y = y * x - 1.0 / 20
    y = y * x + 1.0 / 12
    y = y * x - 1.0 / 6
    y = y * x + 0.5
    near = y * x * x
    u = x + 1.0
    u = tl.where(u < 1e-37, 1e-37, u)
    bits = u.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # of u = m · 2^n with m in [1/√2, √2)
    m = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    z = -0.10034637 * m + 0.16335649
    z = z * m - 0.17325989
    z = z * m + 0.19888276
    z = z * m - 0.24961466
    z = z * m + 0.33335261
    z = z * m - 0.50000584
    far = u * (exponent.to(tl.float32) * 0.69314718 + (z * m * m + m)) - x
    return tl.where(tl.abs(x) < 0.15, near, far)
