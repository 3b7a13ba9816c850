"""Exponential, softplus and sigmoid of `Lanes`, to the last bit and for any argument.

numba's own `np.exp` isn't vectorised in the wheels of PyPI: with it the whole scan takes three times as long.
"""

from __future__ import annotations

from ascseg_cli.kernels.lanes import Lanes, absolute, fma, njit, power_of_two, spread, where_less

LOG2_E, LOG2_E_REST = 1.44269502162933349609375, 1.925963033500011e-8  # float32, and what it lacks
_ROUND = 12582912.0  # 1.5 · 2^23: adding it leaves no bits below one, so it rounds to nearest


@njit
def _power(f: Lanes) -> Lanes:
    """2^f for |f| <= ½: minimax of degree 6 with 1 as its first coefficient, 3e-9 off before rounding, no bias."""
    p = fma(spread(0.00015326461289077997), f, spread(0.0013390806270763278))
    p = fma(p, f, spread(0.009618505835533142))
    p = fma(p, f, spread(0.05550359934568405))
    p = fma(p, f, spread(0.24022647738456726))
    p = fma(p, f, spread(0.6931471824645996))
    return fma(p, f, spread(1.0))


@njit
def exp(x: Lanes) -> Lanes:
    """e^x to 1e-7 of its value; 0 below -88, infinity above 89."""
    x = where_less(x, spread(-88.0), spread(-88.0), x)
    x = where_less(spread(89.0), x, spread(89.0), x)
    # rounded to nearest: a floor would double the range, and its error repeats at each step of a slow decay
    shifted = fma(x, spread(LOG2_E), spread(_ROUND))
    k = shifted - _ROUND
    f = fma(x, spread(LOG2_E_REST), fma(x, spread(LOG2_E), spread(0.0) - k))
    return _power(f) * power_of_two(shifted)


@njit
def softplus(x: Lanes) -> Lanes:
    """ln(1 + e^x) = max(x, 0) + 2 artanh(u / (2 + u)), u = e^-|x|: to 1.2e-7 of its value, for any x."""
    u = exp(spread(0.0) - absolute(x))
    below = u + 2.0
    s = u / below
    rest = fma(spread(0.0) - s, below, u) - s * (u - (below - 2.0))  # what rounding took from u and from u + 2
    q = s * s
    p = fma(spread(0.14012233912944794), q, spread(0.13999569416046143))
    p = fma(p, q, spread(0.20010849833488464))
    p = fma(p, q, spread(0.3333320617675781))
    twice = s + s
    log1p = twice + fma(twice * q, p, (rest + rest) / below)
    return where_less(x, spread(0.0), spread(0.0), x) + log1p


@njit
def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e^-x), for any x."""
    u = exp(spread(0.0) - absolute(x))
    return where_less(x, spread(0.0), u, spread(1.0)) / (u + 1.0)


@njit
def without_denormals(x: Lanes) -> Lanes:
    """0 in place of what is too small for full precision, where arithmetic is far slower; NaN stays."""
    return where_less(absolute(x), spread(1.1754944e-38), spread(0.0), x)
