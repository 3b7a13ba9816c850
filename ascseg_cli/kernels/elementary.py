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
def _normal(x: Lanes) -> Lanes:
    """The normal distribution Φ(x) = ½ + x P(x²) / Q(x²), to 2e-7, for |x| < 5.5 and as there beyond.

    P and Q of degree 5, P / Q erring by 7.2e-09 at most: a third of the arithmetic of one exponential and more.
    """
    c = where_less(x, spread(-5.5), spread(-5.5), x)
    c = where_less(spread(5.5), c, spread(5.5), c)
    t = c * c
    p = fma(spread(2.2749357952989158e-08), t, spread(6.352070158754941e-06))
    p = fma(p, t, spread(0.00016882354975678027))
    p = fma(p, t, spread(0.004677248187363148))
    p = fma(p, t, spread(0.0338524729013443))
    p = fma(p, t, spread(0.398942232131958))
    q = fma(spread(1.197500068883528e-06), t, spread(7.364663179032505e-05))
    q = fma(q, t, spread(0.001884433557279408))
    q = fma(q, t, spread(0.028645766898989677))
    q = fma(q, t, spread(0.2515214681625366))
    q = fma(q, t, spread(1.0))
    return fma(c, p / q, spread(0.5))


@part
def gelu(x: Lanes) -> Lanes:
    """x Φ(x), Φ the normal distribution: to 2e-7 of |x| or of 1, for any x."""
    return where_less(x, spread(-5.5), spread(0.0), x * _normal(x))


@part
def gelu_slope(x: Lanes) -> Lanes:
    """The derivative of x Φ(x), which is Φ(x) + x φ(x): to 2.5e-7, for any finite x."""
    density = spread(0.3989422804014327) * exp(spread(-0.5) * x * x)
    return fma(x, density, _normal(x))


@part
def without_denormals(x: Lanes) -> Lanes:
    """0 in place of what is too small for full precision, where arithmetic is far slower; NaN stays."""
    return where_less(absolute(x), spread(1.1754944e-38), spread(0.0), x)
