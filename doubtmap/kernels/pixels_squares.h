/* Softmax of a tile, means over squares, and islands; included by pixels_tile.h once per
 * instruction set. */

/* Probabilities, in a block of the thread's own; their entropy, where that is asked for. */
static TARGET void VARIANT(softmax)(const float *values, ptrdiff_t stride, int classes, int n,
                                    float *restrict block, float *restrict entropy) {
    float first[TILE], total[TILE], weighted[TILE];
    EACH_PIXEL {
        first[x] = values[x];
        total[x] = weighted[x] = 0.0f;
    }
    EACH_CLASS {
        const float *a = values + k * stride;
        EACH_PIXEL first[x] = fmax_(first[x], a[x]);
    }
    EACH_CLASS {
        const float *a = values + k * stride;
        float *restrict odds = block + k * TILE_STRIDE(n);
        EACH_PIXEL {
            float below = fmax_(a[x] - first[x], -87.5f); /* finite: 0 * inf is not 0 */
            odds[x] = VARIANT(exponential)(below);
            total[x] += odds[x];
            weighted[x] += odds[x] * below;
        }
    }
    EACH_PIXEL {
        float share = 1.0f / total[x];
        if (entropy)
            entropy[x] = VARIANT(logarithm_of_normal)(total[x]) - weighted[x] * share;
        total[x] = share;
    }
    EACH_CLASS {
        float *restrict odds = block + k * TILE_STRIDE(n);
        EACH_PIXEL odds[x] *= total[x];
    }
}

/* to[x] += from[x] */
static TARGET void VARIANT(add_row)(const float *restrict from, int n, float *restrict to) {
    EACH_PIXEL to[x] += from[x];
}

/* Sums of a class over windows that begin with each cell of a row: what is added to them by the row
 * that comes in below, and taken by the one that goes out. */
static TARGET void VARIANT(slide)(const float *restrict in, const float *restrict out, int64_t n,
                                  double *restrict sums) {
    if (out)
        SIMD for (int64_t x = 0; x < n; x++) sums[x] += (double)in[x] - (double)out[x];
    else
        SIMD for (int64_t x = 0; x < n; x++) sums[x] += in[x];
}

/* One row of one class and one window. before[x] sums the row up to x, its ends repeated; sums are
 * double, so that what is next to nothing stays it when its root is taken. */
static TARGET void VARIANT(island_row)(const float *restrict p, const double *restrict before,
                                       const double *restrict down, int64_t n, int64_t reach,
                                       int geometric, float *restrict best) {
    const double *restrict ahead = before + reach + 1, *restrict behind = before - reach;
    const float unit = 1.0f / (float)reach;
    if (geometric)
        SIMD for (int64_t x = 0; x < n; x++) {
            float right = (float)(ahead[x] - before[x]), left = (float)(before[x + 1] - behind[x]);
            float sides = right * unit * (left * unit) * ((float)down[x] * unit);
            float other = 1.0f - p[x], least = 1e-9f * unit * unit * unit;
            float found = fmax_(sides, least) * other * other * other;
            best[x] = fmax_(best[x], found);
        }
    else
        SIMD for (int64_t x = 0; x < n; x++) {
            float sides = (float)(ahead[x] - before[x] + (before[x + 1] - behind[x]) + down[x]);
            best[x] = fmax_(best[x], sides * (1.0f - p[x]) * (unit / 3.0f));
        }
}

/* What was found, within 0 and 1; of a product of three sides, its cube root. */
static TARGET void VARIANT(island_end)(int64_t n, int geometric, float *restrict best) {
    if (geometric)
        SIMD for (int64_t x = 0; x < n; x++)
            best[x] = VARIANT(exponential)(fmax_(VARIANT(logarithm)(best[x]), -270.0f) / 3.0f);
    SIMD for (int64_t x = 0; x < n; x++) best[x] = fmin_(fmax_(best[x], 0.0f), 1.0f);
}
