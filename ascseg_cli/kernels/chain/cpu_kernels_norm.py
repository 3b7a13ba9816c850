"""Batch norms with the activation after them, and the gradients of these and of layer norms, in numba.

A task of a batch norm is one channel of all images: what is read twice, the caches still hold the second time.
Arrays are flat; `t, ts` is a tensor's memory and its strides; a channel of an image has `rows` rows of `count`
numbers.
"""

# mypy: allow-untyped-defs
from __future__ import annotations

import numpy as np

from ascseg_cli.kernels.blocks import WIDTH
from ascseg_cli.kernels.chain.codes import AFFINE, GELU, RELU
from ascseg_cli.kernels.chain.cpu_kernels import copy_row
from ascseg_cli.kernels.elementary import gelu, gelu_slope, larger, sigmoid
from ascseg_cli.kernels.jit import compiled
from ascseg_cli.kernels.lanes import fma, load, part, root, spread, spread_at, store, total, where_less

_SEGMENT = 1024  # numbers that are summed in float32, sixteen sums at a time; such sums are added in float64


@part
def _activated(v, kind):
    if kind == RELU:
        return larger(v, spread(0.0))
    if kind == GELU:
        return gelu(v)
    if kind == AFFINE:
        return v
    return sigmoid(v)


@part
def _handed_back(g, v, kind):
    """g times the activation's slope at v."""
    if kind == RELU:
        return where_less(spread(0.0), v, g, spread(0.0))
    if kind == GELU:
        return g * gelu_slope(v)
    if kind == AFFINE:
        return g
    s = sigmoid(v)
    return g * s * (1.0 - s)


@part
def _copy_rest(t, at, count, scratch):
    """The numbers at `at` in scratch, and zeros after them up to sixteen."""
    store(scratch, 0, spread(0.0))
    for i in range(count):
        scratch[i] = t[at + i]


@part
def _deviations(x, at, count, pivot):
    """Σ (x - pivot) and Σ (x - pivot)² of a row, in float64."""
    first, second = 0.0, 0.0
    for begin in range(0, count, _SEGMENT):
        end = min(begin + _SEGMENT, count)
        a, b, a2, b2 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        for i in range(at + begin, at + end - 2 * WIDTH + 1, 2 * WIDTH):
            v, v2 = load(x, i) - pivot, load(x, i + WIDTH) - pivot
            a, a2 = a + v, a2 + v2
            b, b2 = fma(v, v, b), fma(v2, v2, b2)
        first += total(a + a2)
        second += total(b + b2)
        for i in range(at + begin + (end - begin) // (2 * WIDTH) * 2 * WIDTH, at + end):
            d = x[i] - pivot
            first += d
            second += d * d
    return first, second


@part
def _statistics(x, xs, c, images, rows, count, eps):
    """A channel's mean, biased variance, and 1 / √(variance + eps)."""
    pivot, some = np.float32(0.0), min(count, 64)
    for i in range(some):
        pivot += x[c * xs[1] + rows // 2 * xs[2] + count // 2 - some // 2 + i] / np.float32(some)
    first, second = 0.0, 0.0
    for image in range(images):
        for row in range(rows):
            a, b = _deviations(x, image * xs[0] + c * xs[1] + row * xs[2], count, pivot)
            first += a
            second += b
    numbers = images * rows * count
    first /= numbers
    variance = max(second / numbers - first * first, 0.0)
    return pivot + first, variance, 1.0 / np.sqrt(variance + eps)


@compiled
def normalise(first, last, x, xs, y, weight, bias, eps, statistics, kind, images, channels, rows, count):
    """Channels first … last - 1 of y = act(weight · (x - mean) / √(variance + eps) + bias), which is dense.

    weight, bias, eps  (channels,), (channels,), (1,) float64
    statistics         (3, channels)  means, variances without bias, and 1 / √(variance + eps): written
    kind               the activation's code; AFFINE for none
    """
    scratch, numbers = np.zeros(WIDTH, np.float32), images * rows * count
    for c in range(first, last):
        mean, variance, scale = _statistics(x, xs, c, images, rows, count, eps[0])
        statistics[c] = mean
        statistics[channels + c] = variance * (numbers / (numbers - 1))
        statistics[2 * channels + c] = scale
        centre, shift = np.float32(mean), spread(bias[c])
        slope = spread(np.float32(scale) * weight[c])
        for image in range(images):
            for row in range(rows):
                at, to = image * xs[0] + c * xs[1] + row * xs[2], ((image * channels + c) * rows + row) * count
                for i in range(0, count - WIDTH + 1, WIDTH):
                    store(y, to + i, _activated(fma(load(x, at + i) - centre, slope, shift), kind))
                done = count // WIDTH * WIDTH
                if done < count:
                    _copy_rest(x, at + done, count - done, scratch)
                    store(scratch, 0, _activated(fma(load(scratch, 0) - centre, slope, shift), kind))
                    for i in range(done, count):
                        y[to + i] = scratch[i - done]


@compiled
def normalise_backward(
    first, last, x, xs, gy, gs, weight, bias, statistics, gx, sums, kind, images, channels, rows, count
):
    """What `normalise` hands back to channels first … last - 1 of x, and to their weights and biases.

    gx    of x, dense: written
    sums  (2, channels)  of weights, of biases: written
    """
    scratch, other = np.zeros(WIDTH, np.float32), np.zeros(WIDTH, np.float32)
    numbers = images * rows * count
    for c in range(first, last):
        centre, scale = statistics[c], statistics[2 * channels + c]
        slope, shift = spread(scale * weight[c]), spread(bias[c])
        of_g, of_products = 0.0, 0.0
        for image in range(images):
            for row in range(rows):
                at, here = image * xs[0] + c * xs[1] + row * xs[2], image * gs[0] + c * gs[1] + row * gs[2]
                to = ((image * channels + c) * rows + row) * count
                for begin in range(0, count, _SEGMENT):
                    end = min(begin + _SEGMENT, count)
                    a, b, a2, b2 = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
                    for i in range(begin, end - 2 * WIDTH + 1, 2 * WIDTH):
                        v, v2 = load(x, at + i) - centre, load(x, at + i + WIDTH) - centre
                        g = _handed_back(load(gy, here + i), fma(v, slope, shift), kind)
                        g2 = _handed_back(load(gy, here + i + WIDTH), fma(v2, slope, shift), kind)
                        store(gx, to + i, g)
                        store(gx, to + i + WIDTH, g2)
                        a, a2, b, b2 = a + g, a2 + g2, fma(g, v, b), fma(g2, v2, b2)
                    done = begin + (end - begin) // (2 * WIDTH) * 2 * WIDTH
                    for i in range(done, end, WIDTH):
                        _copy_rest(x, at + i, min(WIDTH, end - i), scratch)
                        _copy_rest(gy, here + i, min(WIDTH, end - i), other)
                        v = load(scratch, 0) - centre
                        g = _handed_back(load(other, 0), fma(v, slope, shift), kind)
                        a, b = a + g, fma(g, v, b)
                        store(other, 0, g)
                        for j in range(i, min(i + WIDTH, end)):
                            gx[to + j] = other[j - i]
                    of_g += total(a + a2)
                    of_products += total(b + b2)
        sums[c] = of_products * scale
        sums[channels + c] = of_g
        mean_g = np.float32(of_g / numbers)
        share = np.float32(of_products / numbers * scale * scale)
        for image in range(images):
            for row in range(rows):
                at, to = image * xs[0] + c * xs[1] + row * xs[2], ((image * channels + c) * rows + row) * count
                for i in range(0, count - WIDTH + 1, WIDTH):
                    v = load(x, at + i) - centre
                    store(gx, to + i, (load(gx, to + i) - mean_g - v * share) * slope)
                for i in range(count // WIDTH * WIDTH, count):
                    gx[to + i] = (gx[to + i] - mean_g - (x[at + i] - centre) * share) * (scale * weight[c])


@part
def _back_through_norm(x, g, length, channels, numbers, w, acts):
    """Rows of x become what layer normalisation hands back to them; acts += g times the normalised x, then g."""
    share = np.float32(1.0) / np.float32(channels)
    for j in range(0, w, WIDTH):
        total_x, squares, sums, products = spread(0.0), spread(0.0), spread(0.0), spread(0.0)
        for c in range(channels):
            total_x = total_x + load(x, c * length + j)
        mean = total_x * share
        for c in range(channels):
            v = load(x, c * length + j) - mean
            squares = fma(v, v, squares)
        scale = spread(1.0) / root(squares * share + spread_at(numbers, 0))
        for c in range(channels):
            v, given = (load(x, c * length + j) - mean) * scale, load(g, c * length + j)
            weighted = given * spread_at(numbers, 1 + 2 * c)
            sums, products = sums + weighted, fma(weighted, v, products)
            store(x, c * length + j, v)
            store(acts, 2 * c * WIDTH, fma(given, v, load(acts, 2 * c * WIDTH)))
            store(acts, (2 * c + 1) * WIDTH, load(acts, (2 * c + 1) * WIDTH) + given)
        sums, products = sums * share, products * share
        for c in range(channels):
            v, given = load(x, c * length + j), load(g, c * length + j)
            rest = given * spread_at(numbers, 1 + 2 * c) - sums - v * products
            store(x, c * length + j, rest * scale)


@compiled
def layer_norm_backward(first, last, x, xs, gy, gs, numbers, gx, sums, channels, h, w, strips):
    """What layer normalisation over the channels hands back to x and, in float64, to weights and biases.

    Strips of rows first … last - 1. numbers: eps, then weight and bias of each channel; gx is dense; sums
    (strips of all images, channels, 2)
    """
    length = (w + WIDTH - 1) // WIDTH * WIDTH
    line, g = np.zeros(channels * length, np.float32), np.zeros(channels * length, np.float32)
    acts = np.zeros(2 * channels * WIDTH, np.float32)
    for task in range(first, last):
        image, strip = task // strips, task % strips
        for row in range(h * strip // strips, h * (strip + 1) // strips):
            for c in range(channels):
                copy_row(x, image * xs[0] + c * xs[1] + row * xs[2], line, c * length, w)
                copy_row(gy, image * gs[0] + c * gs[1] + row * gs[2], g, c * length, w)
            acts[:] = 0
            _back_through_norm(line, g, length, channels, numbers, w, acts)
            for c in range(channels):
                copy_row(line, c * length, gx, ((image * channels + c) * h + row) * w, w)
                for of in range(2):
                    sums[(task * channels + c) * 2 + of] += total(load(acts, (2 * c + of) * WIDTH))
