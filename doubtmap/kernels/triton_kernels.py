"""The per-pixel pass in Triton: what `pixels.c` does, written for a GPU.

A program takes a block of an image's pixels and goes through the channels one after the other; the
bilinear resize is done where a number is read, so that the full-size C x H x W array never exists.
What is read twice comes from the cache. Launched by `triton_pass.py`, which trusts its arguments.
"""

# The language of kernels has types of its own.
# ruff: noqa: ANN001, ANN201, ANN202
# mypy: ignore-errors

from __future__ import annotations

import triton
import triton.language as tl

LOWEST = tl.constexpr(-3.4028234663852886e38)
SMALLEST = tl.constexpr(1.1754943508222875e-38)
"""The smallest normal float32."""
LARGEST = tl.constexpr(8e37)
INFINITE = tl.constexpr(0x7F800000)
"""The bits of infinity; of NaN, more."""


@triton.jit
def statistics_kernel(
    values,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    rows,
    columns,
    row_below,
    row_weight,
    column_below,
    column_weight,
    pixels,
    width,
    tiles,
    channels,
    classes,
    max_softmax,
    margin,
    entropy,
    max_logit,
    energy,
    divergence,
    inverse_temperature,
    RESIZED: tl.constexpr,
    STATISTICS: tl.constexpr,
    DIVERGENCE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """The maps of `PixelStatistics`, in one reading of the logits, two with the divergence."""
    start, pixel, inside, out = _block(image_stride, pixels, tiles, BLOCK)
    a, b, c, d, right, down = _corners(
        pixel, inside, width, rows, columns, row_stride, column_stride,
        row_below, row_weight, column_below, column_weight, RESIZED,
    )  # fmt: skip
    first = _value(values + start, a, b, c, d, right, down, inside, RESIZED)
    second = tl.full((BLOCK,), LOWEST, tl.float32)
    chosen = tl.zeros((BLOCK,), tl.int32)
    rest = tl.zeros((BLOCK,), tl.float32)
    weighted = tl.zeros((BLOCK,), tl.float32)
    total = tl.full((BLOCK,), 1.0, tl.float32)
    at = start
    for k in range(1, channels):
        at += channel_stride
        value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
        higher = value > first
        apart = -tl.abs(value - first)
        if STATISTICS:
            below = tl.maximum(apart, -175.0)  # finite: 0 * inf is not 0
            odds = tl.exp(below)
            # A new largest logit brings the sums, and the class that led, to its own scale.
            weighted = tl.where(
                higher, (weighted + below * (rest + 1.0)) * odds, weighted + below * odds
            )
            rest = tl.where(higher, (rest + 1.0) * odds, rest + odds)
            second = tl.where(higher, first, tl.maximum(second, value))
            chosen = tl.where(higher, k, chosen)
        if DIVERGENCE:
            odds = tl.exp(apart * inverse_temperature)
            total = tl.where(higher, total * odds + 1.0, total + odds)
        first = tl.maximum(first, value)
    if STATISTICS:
        log_sum = _logarithm_1p(rest)
        every = 1.0 + rest  # divided exactly, so that ties have a margin of 1
        tl.store(classes + out, chosen.to(tl.int64), mask=inside)
        tl.store(max_softmax + out, tl.div_rn(rest, every), mask=inside)
        tl.store(margin + out, tl.div_rn(tl.exp(second - first) + rest, every), mask=inside)
        tl.store(entropy + out, log_sum - weighted / every, mask=inside)
        tl.store(max_logit + out, -first, mask=inside)
        tl.store(energy + out, -(first + log_sum), mask=inside)
    if DIVERGENCE:
        # With the ratios r = C softmax(x / T) to uniform, z = log r:
        # JS = 1 / (2 C) sum_k r z - (1 + r) log((1 + r) / 2).
        scale = channels / total
        log_scale = _logarithm(scale)
        both = tl.zeros((BLOCK,), tl.float32)
        at = start
        for _ in range(channels):
            value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
            at += channel_stride
            tempered = (value - first) * inverse_temperature
            ratio = tl.exp(tempered) * scale
            z = tl.maximum(tempered, -100.0) + log_scale
            both += ratio * z - (1.0 + ratio) * _logarithm(0.5 * (1.0 + ratio))
        tl.store(divergence + out, tl.maximum(both * (0.5 / channels), 0.0), mask=inside)


@triton.jit
def norm_kernel(
    values,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    rows,
    columns,
    row_below,
    row_weight,
    column_below,
    column_weight,
    pixels,
    width,
    tiles,
    channels,
    log_norm,
    p,
    MAXIMUM: tl.constexpr,
    RESIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Log of the p-norm over the channels; -inf where all are 0, inf or NaN where one is."""
    start, pixel, inside, out = _block(image_stride, pixels, tiles, BLOCK)
    a, b, c, d, right, down = _corners(
        pixel, inside, width, rows, columns, row_stride, column_stride,
        row_below, row_weight, column_below, column_weight, RESIZED,
    )  # fmt: skip
    largest = tl.zeros((BLOCK,), tl.int32)  # as integers, infinity and NaN come out on top
    at = start
    for _ in range(channels):
        value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
        at += channel_stride
        largest = tl.maximum(largest, _size_bits(value))
    size = largest.to(tl.float32, bitcast=True)
    if MAXIMUM:
        norm = _logarithm_of_any(size)
    else:
        unit = tl.minimum(tl.maximum(size, SMALLEST), LARGEST)
        powered = tl.zeros((BLOCK,), tl.float32)
        at = start
        for _ in range(channels):
            value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
            at += channel_stride
            powered += _power(tl.abs(value) / unit, p)
        norm = _logarithm(unit) + _logarithm(tl.maximum(powered, SMALLEST)) / p
    norm = tl.where(largest == 0, float("-inf"), norm)
    norm = tl.where(largest >= INFINITE, size, norm)
    tl.store(log_norm + out, norm, mask=inside)


@triton.jit
def weight_kernel(
    values,
    image_stride,
    channel_stride,
    row_stride,
    column_stride,
    rows,
    columns,
    row_below,
    row_weight,
    column_below,
    column_weight,
    pixels,
    width,
    tiles,
    channels,
    log_norm,
    p,
    uniform_factor,
    MAXIMUM: tl.constexpr,
    UNIFORM: tl.constexpr,
    PUBLISHED: tl.constexpr,
    RESIZED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Log of `|| S - y ||_p`, or of the authors' `|| S (1 - y) ||_p`.

    `uniform_factor` is log(1 - 1/C) for the published weights of the uniform label, log C for the
    exact ones.
    """
    start, pixel, inside, out = _block(image_stride, pixels, tiles, BLOCK)
    a, b, c, d, right, down = _corners(
        pixel, inside, width, rows, columns, row_stride, column_stride,
        row_below, row_weight, column_below, column_weight, RESIZED,
    )  # fmt: skip
    first = _value(values + start, a, b, c, d, right, down, inside, RESIZED)
    second = tl.full((BLOCK,), LOWEST, tl.float32)
    chosen = tl.zeros((BLOCK,), tl.int32)
    at = start
    for k in range(1, channels):
        at += channel_stride
        value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
        chosen = tl.where(value > first, k, chosen)
        second = tl.minimum(first, tl.maximum(second, value))
        first = tl.maximum(first, value)
    # Odds against the likeliest other class for the predicted label, against the predicted class
    # for the uniform one: the largest is then 1, and no sum underflows.
    unit = first if UNIFORM else second
    rest = tl.zeros((BLOCK,), tl.float32)
    powered = tl.zeros((BLOCK,), tl.float32)
    at = start
    for k in range(channels):
        value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
        at += channel_stride
        below = tl.minimum(value - unit, 0.0)
        rest += tl.where(chosen == k, 0.0, tl.exp(below))
        powered += tl.where(chosen == k, 0.0, tl.exp(below if MAXIMUM else p * below))
    if not UNIFORM:
        gap = first - second
        log_sum = _logarithm_1p(rest * tl.exp(-gap))
        others = _logarithm_of_any(powered)
        own = _logarithm_of_any(rest)
        if PUBLISHED:
            norm = tl.zeros((BLOCK,), tl.float32) if MAXIMUM else others / p
        elif MAXIMUM:
            norm = own
        else:
            large = tl.maximum(others, p * own)
            small = tl.minimum(others, p * own)
            norm = (large + _logarithm_1p(tl.exp(small - large))) / p
        norm = norm - gap - log_sum
    elif PUBLISHED:
        norm = tl.zeros((BLOCK,), tl.float32) if MAXIMUM else _logarithm_1p(powered) / p
        norm = norm + uniform_factor - _logarithm_1p(rest)
    else:
        scale = tl.div_rn(channels.to(tl.float32), 1.0 + rest)
        largest = tl.zeros((BLOCK,), tl.float32)
        at = start
        for _ in range(channels):
            value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
            at += channel_stride
            largest = tl.maximum(largest, tl.abs(tl.exp(value - first) * scale - 1.0))
        if MAXIMUM:
            norm = _logarithm_of_any(largest)
        else:
            size = tl.maximum(largest, SMALLEST)
            summed = tl.zeros((BLOCK,), tl.float32)
            at = start
            for _ in range(channels):
                value = _value(values + at, a, b, c, d, right, down, inside, RESIZED)
                at += channel_stride
                weight = tl.abs(tl.exp(value - first) * scale - 1.0)
                summed += _power(weight / size, p)
            norm = _logarithm(size) + _logarithm(tl.maximum(summed, SMALLEST)) / p
        norm = tl.where(largest == 0.0, float("-inf"), norm - uniform_factor)
    tl.store(log_norm + out, norm, mask=inside)


@triton.jit
def _block(image_stride, pixels, tiles, BLOCK: tl.constexpr):
    """The image's place in `values`, its pixels in this block, and theirs in the maps."""
    image = (tl.program_id(0) // tiles).to(tl.int64)
    pixel = tl.program_id(0) % tiles * BLOCK + tl.arange(0, BLOCK)
    return image * image_stride, pixel, pixel < pixels, image * pixels + pixel


@triton.jit
def _corners(
    pixel,
    inside,
    width,
    rows,
    columns,
    row_stride,
    column_stride,
    row_below,
    row_weight,
    column_below,
    column_weight,
    RESIZED: tl.constexpr,
):
    """Places of the four native samples around each pixel, and the weights of right and below."""
    y, x = pixel // width, pixel % width
    if RESIZED:
        top = tl.load(row_below + y, mask=inside, other=0)
        left = tl.load(column_below + x, mask=inside, other=0)
        down = tl.load(row_weight + y, mask=inside, other=0.0)
        right = tl.load(column_weight + x, mask=inside, other=0.0)
        above = top.to(tl.int64) * row_stride
        under = tl.minimum(top + 1, rows - 1).to(tl.int64) * row_stride
        near = left.to(tl.int64) * column_stride
        far = tl.minimum(left + 1, columns - 1).to(tl.int64) * column_stride
        return above + near, above + far, under + near, under + far, right, down
    else:
        here = y.to(tl.int64) * row_stride + x.to(tl.int64) * column_stride
        return here, here, here, here, x, x


@triton.jit
def _value(channel, a, b, c, d, right, down, inside, RESIZED: tl.constexpr):
    """One channel's float32 value at every pixel; masks (the lowest float) made interpolable."""
    if RESIZED:
        upper, upper_right = _sample(channel, a, inside), _sample(channel, b, inside)
        lower, lower_right = _sample(channel, c, inside), _sample(channel, d, inside)
        upper += right * (upper_right - upper)
        lower += right * (lower_right - lower)
        return upper + down * (lower - upper)
    else:
        return tl.load(channel + a, mask=inside, other=0.0).to(tl.float32)


@triton.jit
def _sample(channel, place, inside):
    value = tl.load(channel + place, mask=inside, other=0.0).to(tl.float32)
    return tl.minimum(tl.maximum(value, -1e37), 1e37)


@triton.jit
def _size_bits(value):
    """Bits of |value|, whose order is that of the numbers."""
    return value.to(tl.int32, bitcast=True) & 0x7FFFFFFF


@triton.jit
def _logarithm(x):
    """Of a positive, normal x, to 1e-7 of itself, near 1 too: the polynomial of pixels_tile.h."""
    bits = x.to(tl.int32, bitcast=True)
    exponent = (bits - 0x3F3504F3) >> 23  # x / 2^exponent in [.7071, 1.414)
    f = (bits - (exponent << 23)).to(tl.float32, bitcast=True) - 1.0
    e = exponent.to(tl.float32)
    q = f * 7.0376836292e-2 - 1.1514610310e-1
    q = q * f + 1.1676998740e-1
    q = q * f - 1.2420140846e-1
    q = q * f + 1.4249322787e-1
    q = q * f - 1.6668057665e-1
    q = q * f + 2.0000714765e-1
    q = q * f - 2.4999993993e-1
    q = q * f + 3.3333331174e-1
    square = f * f
    small = square * f * q + e * -2.12194440e-4 - 0.5 * square
    return (f + small) + e * 0.693359375


@triton.jit
def _logarithm_of_any(x):
    """Of any finite x >= 0; of 0, the lowest float."""
    tiny = x < SMALLEST
    logarithm = _logarithm(tl.where(tiny, x * 16777216.0, x))
    return tl.where(x > 0.0, tl.where(tiny, logarithm - 16.6355323, logarithm), LOWEST)


@triton.jit
def _logarithm_1p(x):
    """log(1 + x) of x >= 0, with the relative precision of x."""
    total = 1.0 + x
    lost = x - (total - 1.0)
    return _logarithm(total) + lost / total


@triton.jit
def _power(x, p):
    """x^p of finite x >= 0."""
    return tl.exp(tl.minimum(p * tl.maximum(_logarithm_of_any(x), -1e30), 87.0))
