"""Exponential, softplus and sigmoid of `Lanes`, to the last bit and for any argument.

numba's own `np.exp` isn't vectorised in the wheels of PyPI: with it the whole scan takes three times as long.
"""

from __future__ import annotations

from ascseg_cli.kernels.lanes import Lanes, absolute, fma, part, power_of_two, spread, where_less

_ROUND = 12582912.0  # 1.5 · 2^23: adding it leaves no bits below one, so it rounds to nearest


@part
def exp(x: Lanes) -> Lanes:
    """e^x to 1e-7 of its value; 0 below -88, infinity above 89.

    x = k ln 2 + r with |r| <= ½ ln 2; e^r by the polynomial of degree 6 that begins with 1 + r and errs least.
    """
    x = where_less(x, spread(-88.0), spread(-88.0), x)
    x = where_less(spread(89.0), x, spread(89.0), x)
    # rounded to nearest: a floor would double the range, and its error repeats at each step of a slow decay
    shifted = fma(x, spread(1.44269504), spread(_ROUND))
    k = shifted - _ROUND
    r = fma(k, spread(-0.693359375), x)  # nine bits of ln 2: times k it is exact, with or without a fused multiply
    r = fma(k, spread(2.1219444e-4), r)
    p = fma(spread(0.0013818296138197184), r, spread(0.008368532173335552))
    p = fma(p, r, spread(0.04166829213500023))
    p = fma(p, r, spread(0.1666652262210846))
    p = fma(p, r, spread(0.4999999403953552))
    p = fma(p, r, spread(1.0))
    return fma(p, r, spread(1.0)) * power_of_two(shifted)


@part
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


@part
def sigmoid(x: Lanes) -> Lanes:
    """1 / (1 + e^-x), for any x."""
    u = exp(spread(0.0) - absolute(x))
    return where_less(x, spread(0.0), u, spread(1.0)) / (u + 1.0)


@part
def larger(a: Lanes, b: Lanes) -> Lanes:
    """The larger of two; NaN where a is NaN."""
    return where_less(a, b, b, a)


@part
def gelu(x: Lanes) -> Lanes:
    """x Φ(x), Φ the normal distribution: to 4e-7, for any x.

    Φ(-a) = e^-(a²/2 + G(a)), with G by the polynomial of degree 8 that errs least on 0 … 6, beyond which Φ is 0.
    """
    a = absolute(x)
    s = where_less(a, spread(6.0), a, spread(6.0))
    p = fma(spread(9.836851404543268e-07), s, spread(-1.554330810904503e-05))
    p = fma(p, s, spread(7.312629895750433e-05))
    p = fma(p, s, spread(0.00023056776262819767))
    p = fma(p, s, spread(-0.005074623040854931))
    p = fma(p, s, spread(0.03651299700140953))
    p = fma(p, s, spread(-0.18174366652965546))
    p = fma(p, s, spread(0.7978907227516174))
    p = fma(p, s, spread(0.6931470632553101))
    below = exp(spread(0.0) - fma(a * 0.5, a, p))
    return x * where_less(x, spread(0.0), below, spread(1.0) - below)


@part
def without_denormals(x: Lanes) -> Lanes:
    """0 in place of what is too small for full precision, where arithmetic is far slower; NaN stays."""
    return where_less(absolute(x), spread(1.1754944e-38), spread(0.0), x)
