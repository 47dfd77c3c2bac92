/* One tile of pixels, classes outside and pixels inside, so that every loop over x vectorises.
 *
 * Included by pixels.c once per instruction set, with VARIANT(name) giving the functions their
 * names and TARGET their attribute. A tile is `values[class * stride + x]`, 0 <= x < n <= TILE.
 *
 * exponential: relative error at most 8.7e-8 on [-87, 88]; 0 below -87.
 * logarithm:   relative error at most 8.8e-8 for finite x > 0, subnormals too.
 * Measured over every float32 (AVX-512; every 7th for the others' logarithm) in float64.
 */

#define EACH_PIXEL SIMD for (int x = 0; x < n; x++)
#define EACH_CLASS for (int k = 0; k < classes; k++)

#ifdef LANES
typedef float VARIANT(numbers) __attribute__((vector_size(4 * LANES)));
typedef int32_t VARIANT(integers) __attribute__((vector_size(4 * LANES)));
#endif

INLINE TARGET float VARIANT(exponential)(float x) {
    float inside = x < -87.0f ? -87.0f : x;
    float shifted = inside * 1.44269504f + 12582912.0f; /* the integer n in the low bits */
    float n = shifted - 12582912.0f;
    float r = (inside - n * 0.693359375f) - n * -2.12194440e-4f; /* |r| <= log(2) / 2 */
    float q = 0.00138145394f;
    q = q * r + 0.00836874545f;
    q = q * r + 0.041668389f;
    q = q * r + 0.166665211f;
    q = q * r + 0.49999994f;
    q = (q * r) * r + r;
    q = q + 1.0f;
    float result = to_float(to_bits(q) + (to_bits(shifted) << 23));
    return x < -87.0f ? 0.0f : result;
}

/* Of a positive, normal x. */
INLINE TARGET float VARIANT(logarithm_of_normal)(float x) {
    uint32_t bits = to_bits(x);
    int32_t exponent = (int32_t)(bits - 0x3f3504f3u) >> 23; /* x / 2^exponent in [.7071, 1.414) */
    float f = to_float(bits - ((uint32_t)exponent << 23)) - 1.0f;
    float e = (float)exponent;
    float q = 7.0376836292e-2f;
    q = q * f - 1.1514610310e-1f;
    q = q * f + 1.1676998740e-1f;
    q = q * f - 1.2420140846e-1f;
    q = q * f + 1.4249322787e-1f;
    q = q * f - 1.6668057665e-1f;
    q = q * f + 2.0000714765e-1f;
    q = q * f - 2.4999993993e-1f;
    q = q * f + 3.3333331174e-1f;
    float square = f * f;
    float small = square * f * q + e * -2.12194440e-4f - 0.5f * square;
    return (f + small) + e * 0.693359375f;
}

/* Of any finite x >= 0; of 0, the lowest float. */
INLINE TARGET float VARIANT(logarithm)(float x) {
    int tiny = x < FLT_MIN;
    float log_x = VARIANT(logarithm_of_normal)(tiny ? x * 16777216.0f : x);
    log_x = tiny ? log_x - 16.6355323f : log_x;
    return x > 0.0f ? log_x : -FLT_MAX;
}

/* log(1 + x) of x >= 0, with the relative precision of x. */
INLINE TARGET float VARIANT(logarithm_1p)(float x) {
    float sum = 1.0f + x;
    float lost = x - (sum - 1.0f);
    return VARIANT(logarithm_of_normal)(sum) + lost / sum;
}

/* Largest and second-largest value and the first class among equals. */
static TARGET void VARIANT(two_largest)(const float *values, ptrdiff_t stride, int classes, int n,
                                        float *restrict first, float *restrict second,
                                        int32_t *restrict chosen) {
    EACH_PIXEL {
        first[x] = values[x];
        second[x] = -FLT_MAX;
        chosen[x] = 0;
    }
    int k = 1;
    for (; k + 1 < classes; k += 2) {
        const float *a = values + k * stride, *b = a + stride;
        EACH_PIXEL {
            float top = first[x], next = second[x];
            int32_t which = chosen[x];
            which = a[x] > top ? k : which;
            next = fmin_(top, fmax_(next, a[x]));
            top = fmax_(top, a[x]);
            which = b[x] > top ? k + 1 : which;
            next = fmin_(top, fmax_(next, b[x]));
            first[x] = fmax_(top, b[x]);
            second[x] = next;
            chosen[x] = which;
        }
    }
    for (; k < classes; k++) {
        const float *a = values + k * stride;
        EACH_PIXEL {
            chosen[x] = a[x] > first[x] ? k : chosen[x];
            second[x] = fmin_(first[x], fmax_(second[x], a[x]));
            first[x] = fmax_(first[x], a[x]);
        }
    }
}

/* Class and stateless scores; the divergence to uniform where a temperature is given. */
static TARGET void VARIANT(statistics_tile)(const struct job *job, const float *values,
                                            ptrdiff_t stride, int n, ptrdiff_t pixel,
                                            const struct tile *to, float *restrict block) {
    float first[TILE], second[TILE], rest[TILE], weighted[TILE], sum[TILE];
    int32_t *restrict chosen = to->classes;
    const int classes = job->channels;
    (void)pixel;
    VARIANT(two_largest)(values, stride, classes, n, first, second, chosen);
    const float inverse = job->inverse_temperature;
    /* At temperature 2, the paper's, the tempered odds are the roots that the pass has anyway. */
    const int shared = job->scores && inverse == 0.5f;
    if (job->scores) {
        EACH_PIXEL rest[x] = weighted[x] = sum[x] = 0.0f;
        EACH_CLASS {
            const float *a = values + k * stride;
            float *restrict odds = block + (shared ? k * TILE_STRIDE(n) : 0);
            EACH_PIXEL {
                float below = fmax_(a[x] - first[x], -175.0f); /* finite: 0 * inf is not 0 */
                float root = VARIANT(exponential)(0.5f * below);
                float others = chosen[x] == k ? 0.0f : root * root;
                rest[x] += others;
                weighted[x] += others * below;
                sum[x] += root;
                odds[x] = root;
            }
        }
        float *to_max_softmax = to->maps[MAX_SOFTMAX], *to_margin = to->maps[MARGIN];
        float *to_entropy = to->maps[ENTROPY], *to_max_logit = to->maps[MAX_LOGIT];
        float *to_energy = to->maps[ENERGY];
        EACH_PIXEL {
            float all = 1.0f + rest[x];
            float log_sum = VARIANT(logarithm_1p)(rest[x]);
            float odds = VARIANT(exponential)(fmax_(second[x] - first[x], -175.0f));
            to_max_softmax[x] = rest[x] / all;
            to_margin[x] = (odds + rest[x]) / all;
            to_entropy[x] = log_sum - weighted[x] / all;
            to_max_logit[x] = -first[x];
            to_energy[x] = -(first[x] + log_sum);
        }
    }
    if (inverse <= 0.0f) return;
    /* With the ratios a = C softmax(x / T) to uniform, z = log a:
     * JS = 1 / (2 C) sum_k a z - (1 + a) log((1 + a) / 2). */
    if (!shared) {
        EACH_PIXEL sum[x] = 0.0f;
        EACH_CLASS {
            const float *a = values + k * stride;
            float *restrict odds = block + k * TILE_STRIDE(n);
            EACH_PIXEL {
                odds[x] = VARIANT(exponential)((a[x] - first[x]) * inverse);
                sum[x] += odds[x];
            }
        }
    }
    float *restrict log_scale = weighted;
    float *restrict scale = second, *restrict total = to->maps[DIVERGENCE];
    EACH_PIXEL {
        scale[x] = (float)classes / sum[x];
        log_scale[x] = VARIANT(logarithm_of_normal)(scale[x]);
        total[x] = 0.0f;
    }
    EACH_CLASS {
        const float *a = values + k * stride;
        const float *odds = block + k * TILE_STRIDE(n);
        EACH_PIXEL {
            float ratio = odds[x] * scale[x];
            float z = fmax_((a[x] - first[x]) * inverse, -100.0f) + log_scale[x];
            float both = 1.0f + ratio;
            total[x] += ratio * z - both * VARIANT(logarithm_of_normal)(0.5f * both);
        }
    }
    const float share = 0.5f / (float)classes;
    EACH_PIXEL total[x] = fmax_(total[x] * share, 0.0f) * job->sign;
}

/* log of the p-norm over the channels; -inf where all are 0, inf or NaN where one is.
 * This file is compiled for finite numbers, so that infinities go by their bits. */
static TARGET void VARIANT(norm_tile)(const struct job *job, const float *values,
                                      ptrdiff_t stride, int n, ptrdiff_t pixel,
                                      const struct tile *to, float *restrict block) {
    uint32_t largest[TILE];
    float scale[TILE], sum[TILE];
    const int classes = job->channels;
    const float p = job->p;
    float *restrict out = to->maps[LOG_NORM];
    (void)block, (void)pixel;
    EACH_PIXEL largest[x] = 0;
    EACH_CLASS { /* as integers, so that infinity and NaN come out on top */
        const float *a = values + k * stride;
        EACH_PIXEL {
            int32_t size = (int32_t)(to_bits(a[x]) & 0x7fffffffu);
            largest[x] = (uint32_t)(size > (int32_t)largest[x] ? size : (int32_t)largest[x]);
        }
    }
    EACH_PIXEL {
        float unit = fmin_(fmax_(to_float(largest[x]), FLT_MIN), 8e37f);
        scale[x] = 1.0f / unit;
        out[x] = VARIANT(logarithm_of_normal)(unit);
        sum[x] = 0.0f;
    }
    if (p == 0.0f)
        EACH_PIXEL out[x] = VARIANT(logarithm)(to_float(largest[x]));
    else if (p == 1.0f)
        EACH_CLASS {
            const float *a = values + k * stride;
            EACH_PIXEL sum[x] += fabsf(a[x]) * scale[x];
        }
    else if (p == 2.0f)
        EACH_CLASS {
            const float *a = values + k * stride;
            EACH_PIXEL {
                float t = a[x] * scale[x];
                sum[x] += t * t;
            }
        }
    else if (p == 0.5f)
        EACH_CLASS {
            const float *a = values + k * stride;
            EACH_PIXEL sum[x] += sqrtf(fabsf(a[x]) * scale[x]);
        }
    else
        EACH_CLASS {
            const float *a = values + k * stride;
            EACH_PIXEL {
                float t = fabsf(a[x]) * scale[x];
                float power = fmin_(p * VARIANT(logarithm)(t), 87.0f);
                sum[x] += VARIANT(exponential)(power);
            }
        }
    const float root = p == 0.0f ? 0.0f : 1.0f / p;
    EACH_PIXEL {
        float log_norm = out[x] + root * VARIANT(logarithm_of_normal)(fmax_(sum[x], FLT_MIN));
        uint32_t bits = largest[x] == 0u ? MINUS_INFINITY : to_bits(log_norm);
        largest[x] = largest[x] >= INFINITE ? largest[x] : bits;
    }
    memcpy(out, largest, (size_t)n * sizeof *out);
}

/* log of || S - y ||_p, or of the authors' || S (1 - y) ||_p. */
static TARGET void VARIANT(weight_tile)(const struct job *job, const float *values,
                                        ptrdiff_t stride, int n, ptrdiff_t pixel,
                                        const struct tile *to, float *restrict block) {
    float first[TILE], second[TILE], rest[TILE], powered[TILE];
    int32_t chosen[TILE];
    const int classes = job->channels;
    const float p = job->p == 0.0f ? 1.0f : job->p;
    const float root = job->p == 0.0f ? 0.0f : 1.0f / job->p;
    float *restrict out = to->maps[LOG_NORM];
    VARIANT(two_largest)(values, stride, classes, n, first, second, chosen);
    /* Odds against the likeliest other class for the predicted label, against the predicted
     * class for the uniform one: the largest is then 1, and no sum underflows. */
    const float *restrict unit = job->uniform ? first : second;
    EACH_PIXEL rest[x] = powered[x] = 0.0f;
    EACH_CLASS {
        const float *a = values + k * stride;
        float *restrict odds = block + k * TILE_STRIDE(n);
        EACH_PIXEL {
            float below = fmin_(a[x] - unit[x], 0.0f);
            float odd = VARIANT(exponential)(below);
            odds[x] = odd;
            rest[x] += chosen[x] == k ? 0.0f : odd;
            powered[x] += chosen[x] == k ? 0.0f : VARIANT(exponential)(p * below);
        }
    }
    if (!job->uniform) {
        EACH_PIXEL {
            float gap = first[x] - second[x];
            float log_z = VARIANT(logarithm_1p)(rest[x] * VARIANT(exponential)(-gap));
            float others = VARIANT(logarithm)(powered[x]);
            float own = VARIANT(logarithm)(rest[x]);
            float big = fmax_(others, p * own), small = fmin_(others, p * own);
            float all = big + VARIANT(logarithm_1p)(VARIANT(exponential)(small - big));
            all = root == 0.0f ? own : all * root;
            out[x] = (job->published ? others * root : all) - gap - log_z;
        }
    } else if (job->published) {
        const float factor = log1pf(-1.0f / (float)classes);
        EACH_PIXEL out[x] = root * VARIANT(logarithm_1p)(powered[x]) + factor -
                            VARIANT(logarithm_1p)(rest[x]);
    } else {
        EACH_PIXEL first[x] = (float)classes / (1.0f + rest[x]);
        EACH_CLASS {
            float *restrict odds = block + k * TILE_STRIDE(n);
            EACH_PIXEL odds[x] = odds[x] * first[x] - 1.0f;
        }
        VARIANT(norm_tile)(job, block, TILE_STRIDE(n), n, pixel, to, NULL);
        const float factor = logf((float)classes);
        EACH_PIXEL out[x] -= factor;
    }
}

#include "pixels_squares.h"
#include "pixels_observed.h"

/* Probabilities, added to the sums of the segments that the pixels lie in. */
static TARGET void VARIANT(shares_tile)(const struct job *job, const float *values,
                                        ptrdiff_t stride, int n, ptrdiff_t pixel,
                                        const struct tile *to, float *restrict block) {
    const int classes = job->channels;
    const int32_t *segments = job->segments + pixel;
    (void)to;
    VARIANT(softmax)(values, stride, classes, n, block, NULL);
    for (int start = 0, end; start < n; start = end) {
        for (end = start + 1; end < n && segments[end] == segments[start]; end++) {}
        if (segments[start] < 0) continue;
        int64_t *sums = job->sums + (int64_t)segments[start] * classes;
        EACH_CLASS {
            const float *odds = block + k * TILE_STRIDE(n);
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (int x = start; x < end; x++) sum += odds[x];
            take(sums + k, (int64_t)((double)sum * 4294967296.0 + 0.5));
        }
    }
}

/* A row of the native grid at the image's columns. `samples` holds the part of the row that the
 * tile needs, its end repeated, and masks (the lowest float) made interpolable. */
static TARGET void VARIANT(resample_row)(const float *restrict row, ptrdiff_t columns,
                                         const int32_t *restrict lower,
                                         const float *restrict weight, int n, float factor,
                                         float *restrict samples, float *restrict out) {
    const int start = lower[0];
    const int count = (int)least(lower[n - 1] + 2, columns) - start;
    SIMD for (int i = 0; i < count; i++) {
        float sample = fmin_(fmax_(row[start + i], -1e37f), 1e37f) * factor;
        samples[i] = fmin_(fmax_(sample, -1e37f), 1e37f);
    }
    for (int i = count; i < count + 16; i++) samples[i] = samples[count - 1];
    int done = 0;
#ifdef LANES
    for (; done + LANES <= n; done += LANES) { /* enlarging: a shuffle is cheaper than a gather */
        const int base = lower[done] - start;
        if (lower[done + LANES - 1] - start - base >= LANES) break;
        VARIANT(integers) at;
        VARIANT(numbers) a, b, w;
        memcpy(&at, lower + done, sizeof at);
        memcpy(&a, samples + base, sizeof a);
        memcpy(&b, samples + base + 1, sizeof b);
        memcpy(&w, weight + done, sizeof w);
        at -= base + start;
        a = __builtin_shuffle(a, at);
        a += w * (__builtin_shuffle(b, at) - a);
        memcpy(out + done, &a, sizeof a);
    }
#endif
    SIMD for (int x = done; x < n; x++) {
        float a = samples[lower[x] - start], b = samples[lower[x] - start + 1];
        out[x] = a + weight[x] * (b - a);
    }
}

/* Between two such rows, for all classes. */
static TARGET void VARIANT(blend_rows)(const float *above, const float *below, float weight,
                                       ptrdiff_t stride, int classes, int n,
                                       float *restrict out) {
    EACH_CLASS {
        const float *a = above + k * stride, *b = below + k * stride;
        float *restrict to = out + k * stride;
        EACH_PIXEL to[x] = a[x] + weight * (b[x] - a[x]);
    }
}

/* Classes as the type that was asked for, and of the maps bytes and flags. */
static TARGET void VARIANT(store)(const struct job *job, const struct tile *from, int n,
                                  ptrdiff_t pixel) {
    const int32_t *restrict chosen = from->classes;
    if (job->class_map && job->class_bytes == 8) {
        int64_t *restrict to = (int64_t *)job->class_map + pixel;
        EACH_PIXEL to[x] = chosen[x];
    } else if (job->class_map && job->class_bytes == 4) {
        memcpy((int32_t *)job->class_map + pixel, chosen, (size_t)n * sizeof *chosen);
    } else if (job->class_map && job->class_bytes == 2) {
        uint16_t *restrict to = (uint16_t *)job->class_map + pixel;
        EACH_PIXEL to[x] = (uint16_t)chosen[x];
    } else if (job->class_map) {
        uint8_t *restrict to = (uint8_t *)job->class_map + pixel;
        EACH_PIXEL to[x] = (uint8_t)chosen[x];
    }
    for (int map = 0; map < MAPS; map++) {
        const float *restrict values = from->maps[map];
        if (job->bytes[map]) {
            uint8_t *restrict to = job->bytes[map] + pixel;
            const float low = job->low[map], steps = job->steps[map];
            EACH_PIXEL {
                float step = fmin_(fmax_((values[x] - low) * steps, 0.0f), 255.0f);
                to[x] = (uint8_t)(int32_t)(step + 0.5f);
            }
        }
        if (job->flags[map]) {
            uint8_t *restrict to = job->flags[map] + pixel;
            const float limit = job->limit[map];
            EACH_PIXEL to[x] = values[x] > limit;
        }
    }
}

static TARGET void VARIANT(functions)(const float *x, int64_t n, float *restrict exponentials,
                                      float *restrict logarithms) {
    SIMD for (int64_t i = 0; i < n; i++) {
        exponentials[i] = VARIANT(exponential)(x[i]);
        logarithms[i] = VARIANT(logarithm)(x[i]);
    }
}

static const struct instructions VARIANT(instructions) = {
    VARIANT_NAME,
    VARIANT(statistics_tile),
    VARIANT(norm_tile),
    VARIANT(weight_tile),
    VARIANT(shares_tile),
    VARIANT(observe_tile),
    VARIANT(softmax),
    VARIANT(add_row),
    VARIANT(slide),
    VARIANT(island_row),
    VARIANT(island_end),
    VARIANT(resample_row),
    VARIANT(blend_rows),
    VARIANT(store),
    VARIANT(functions),
};

#undef EACH_PIXEL
#undef EACH_CLASS
#undef VARIANT
#undef VARIANT_NAME
#undef TARGET
#undef LANES
