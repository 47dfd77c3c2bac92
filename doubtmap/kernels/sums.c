/* Sums over pixels on the CPU: curves, bins of probabilities, components of a mask.
 *
 * Built into one library with pixels.c; counted.py is the door, compiled_sums.py calls it. Figures
 * are those of NumPy to the last digit: sums are made in its order, or of numbers whose sums are
 * exact.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"

/* Add columns of numbers of so many bytes, (rows, columns), to those of (rows, width) at places. */
EXPORT void doubtmap_add_columns(double *sums, int64_t width, const int64_t *at, const void *more,
                                 int64_t bytes, int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < columns; k++)
            sums[row * width + at[k]] += number_at(more, bytes, row * columns + k);
}

/* The sum of n numbers in NumPy's order. */
static double pairwise(const double *x, int64_t n) {
    double r[8], sum = 0.0;
    if (n < 8) {
        for (int64_t i = 0; i < n; i++) sum += x[i];
        return sum;
    }
    if (n > 128) {
        const int64_t half = n / 2 - n / 2 % 8;
        return pairwise(x, half) + pairwise(x + half, n - half);
    }
    int64_t i = 8;
    for (int j = 0; j < 8; j++) r[j] = x[j];
    for (; i < n - n % 8; i += 8)
        for (int j = 0; j < 8; j++) r[j] += x[i + j];
    sum = ((r[0] + r[1]) + (r[2] + r[3])) + ((r[4] + r[5]) + (r[6] + r[7]));
    for (; i < n; i++) sum += x[i];
    return sum;
}

/* figures[row]: average precision, AUROC, and the false-positive rate where `tpr` is reached, of
 * positives and negatives (rows, n) by ascending score; NaN where one of them is missing. `scratch`
 * has room for 3 n. */
EXPORT void doubtmap_curves(const double *positives, const double *negatives, int64_t rows,
                            int64_t n, double tpr, double missing, double *scratch,
                            double *figures) {
    for (int64_t row = 0; row < rows; row++) {
        const double *positive = positives + row * n, *negative = negatives + row * n;
        double *tied = scratch, *ordered = scratch + n, *within = scratch + 2 * n;
        double *to = figures + row * 3, all = 0.0, others = 0.0, tp = 0.0, fp = 0.0, rate = -1.0;
        for (int64_t i = 0; i < n; i++) {
            all += positive[i];
            others += negative[i];
        }
        if (!(all > 0.0 && others > 0.0)) {
            to[0] = to[1] = to[2] = missing;
            continue;
        }
        const double pairs = all * others;
        int64_t held = 0;
        for (int64_t i = n - 1; i >= 0; i--) {
            const double p = positive[i], m = negative[i];
            if (p + m == 0.0) continue;
            tp += p;
            fp += m;
            tied[held] = p * tp / (tp + fp);
            ordered[held] = m * (tp - p);
            within[held++] = p * m / pairs;
            if (rate < 0.0 && tp / all >= tpr) rate = fp / others;
        }
        to[0] = pairwise(tied, held) / all;
        to[1] = pairwise(ordered, held) / pairs + pairwise(within, held) / 2;
        to[2] = rate;
    }
}

/* Of bins by ascending value, those with positives or negatives, the highest first: positives,
 * negatives and their sums so far (4, n), lowest values, and whether they hold one number. Their
 * number. */
EXPORT int64_t doubtmap_ranked(const double *positives, const double *negatives,
                               const float *lowest, const uint8_t *single, int64_t n,
                               double *ranked, float *low, uint8_t *one) {
    double tp = 0.0, fp = 0.0;
    int64_t held = 0;
    for (int64_t i = n - 1; i >= 0; i--) {
        if (positives[i] + negatives[i] == 0.0) continue;
        ranked[held] = positives[i];
        ranked[n + held] = negatives[i];
        ranked[2 * n + held] = tp += positives[i];
        ranked[3 * n + held] = fp += negatives[i];
        low[held] = lowest[i];
        one[held++] = single[i];
    }
    return held;
}

#define AREAS 6
#define LEAF 128

/* What `ranked` has left, from which the sums are made. */
struct ranked {
    const double *positives, *negatives, *tp, *fp;
    const uint8_t *single;
    double pairs;
};

/* Of n bins from `start` on: what average precision and AUROC sum, and their bounds. */
static void leaf_areas(const struct ranked *r, int64_t start, int64_t n, double *sums) {
    double terms[AREAS][LEAF];
    for (int64_t k = 0; k < n; k++) {
        const int64_t i = start + k;
        const double p = r->positives[i], m = r->negatives[i], tp = r->tp[i], fp = r->fp[i];
        const double tied = p * tp / (tp + fp), within = p * m / r->pairs;
        double lower = tied, upper = tied;
        if (p > 0.0 && !r->single[i]) {
            const double best = p * tp / (tp + fp - m);
            const double worst = p > 1.0 ? p - fp * log1p(p / (tp - p + fp + 0.5)) : tied;
            lower = worst < tied ? worst : tied;
            upper = best > tied ? best : tied;
        }
        terms[0][k] = tied;
        terms[1][k] = lower;
        terms[2][k] = upper;
        terms[3][k] = m * (tp - p);
        terms[4][k] = within;
        terms[5][k] = r->single[i] ? 0.0 : within;
    }
    for (int area = 0; area < AREAS; area++) sums[area] = pairwise(terms[area], n);
}

/* `pairwise` of terms that are made as they are needed. */
static void pairwise_areas(const struct ranked *r, int64_t start, int64_t n, double *sums) {
    if (n <= LEAF) {
        leaf_areas(r, start, n, sums);
        return;
    }
    const int64_t half = n / 2 - n / 2 % 8;
    double rest[AREAS];
    pairwise_areas(r, start, half, sums);
    pairwise_areas(r, start + half, n - half, rest);
    for (int area = 0; area < AREAS; area++) sums[area] += rest[area];
}

/* sums[6]: of what `ranked` wrote, for average precision p tp / (tp + fp) with its lower and upper
 * bounds, and for AUROC ordered pairs, tied ones and those of bins of several numbers. */
EXPORT void doubtmap_areas(const double *positives, const double *negatives, const double *tp,
                           const double *fp, const uint8_t *single, int64_t n, double *sums) {
    const struct ranked r = {positives, negatives, tp, fp, single, tp[n - 1] * fp[n - 1]};
    pairwise_areas(&r, 0, n, sums);
}

/* sums[k][bin]: pixels, those whose `truth` is k, and the sum of their p, of p (count, n); bins
 * `(m / bins, (m + 1) / bins]`, 0 in the first. Two k at a time, whose sums do not wait for each
 * other. */
static int64_t bin_of(float p, int64_t bins) {
    const float scaled = p * (float)bins;
    int64_t at = (int64_t)scaled;
    at -= (float)at == scaled; /* the ceiling less one */
    return at < 0 ? 0 : at >= bins ? bins - 1 : at;
}

EXPORT void doubtmap_bins(const float *p, int64_t count, int64_t n, const int32_t *truth,
                          int64_t bins, double *sums) {
    for (int64_t k = 0; k < count; k += 2) {
        const float *own = p + k * n, *next = own + n;
        double *to = sums + k * bins * 3, *beside = to + bins * 3;
        const int both = k + 1 < count;
        for (int64_t i = 0; i < n; i++) {
            double *sum = to + bin_of(own[i], bins) * 3;
            sum[0] += 1.0;
            sum[1] += truth[i] == k;
            sum[2] += own[i];
            if (!both) continue;
            sum = beside + bin_of(next[i], bins) * 3;
            sum[0] += 1.0;
            sum[1] += truth[i] == k + 1;
            sum[2] += next[i];
        }
    }
}

/* means[y][x] of the whole squares of a map (rows, columns), `size` pixels wide, in float32 as
 * PyTorch's average pooling has them, where `whole` says so; one after the other. Their number. */
EXPORT int64_t doubtmap_means(const float *map, int64_t rows, int64_t columns, int64_t size,
                              const uint8_t *whole, float *means) {
    int64_t found = 0;
    for (int64_t y = 0; y + size <= rows; y += size)
        for (int64_t x = 0; x + size <= columns; x += size) {
            if (!*whole++) continue;
            float sum = 0.0f;
            for (int64_t row = y; row < y + size; row++)
                for (int64_t at = x; at < x + size; at++) sum += map[row * columns + at];
            means[found++] = sum / (float)(size * size);
        }
    return found;
}

static int32_t root(int32_t *parent, int32_t label) {
    while (parent[label] != label) {
        parent[label] = parent[parent[label]];
        label = parent[label];
    }
    return label;
}

/* labels[y][x]: 0 outside of the mask, else the number, from 1, of the 8-connected component in
 * reading order of first pixels. Their number, or -1 where memory ran out. */
EXPORT int64_t doubtmap_label(const uint8_t *mask, int64_t rows, int64_t columns,
                              int32_t *labels) {
    /* A row begins at most every second pixel, and every second row, a component of its own. */
    const int64_t most = ((rows + 1) / 2) * ((columns + 1) / 2) + 1;
    int32_t *parent = malloc((size_t)most * sizeof *parent), made = 1;
    if (!parent) return -1;
    parent[0] = 0;
    for (int64_t y = 0; y < rows; y++) {
        const uint8_t *own = mask + y * columns;
        int32_t *to = labels + y * columns;
        const int32_t *up = y ? to - columns : NULL;
        for (int64_t x = 0; x < columns; x++) {
            int32_t label = 0;
            if (own[x]) {
                const int32_t left = x ? to[x - 1] : 0, above = up ? up[x] : 0;
                const int32_t before = up && x ? up[x - 1] : 0;
                const int32_t after = up && x + 1 < columns ? up[x + 1] : 0;
                label = above ? above : left ? left : before;
                /* The pixel above touches all the others, which were joined to it before. */
                if (!above && after) {
                    if (!label) {
                        label = after;
                    } else {
                        int32_t a = root(parent, label), b = root(parent, after);
                        label = a < b ? a : b;
                        parent[a < b ? b : a] = label;
                    }
                }
                if (!label) {
                    parent[made] = made;
                    label = made++;
                }
            }
            to[x] = label;
        }
    }
    int32_t count = 0;
    for (int32_t label = 1; label < made; label++)
        parent[label] = parent[label] == label ? ++count : parent[parent[label]];
    for (int64_t i = 0; i < rows * columns; i++) labels[i] = parent[labels[i]];
    free(parent);
    return count;
}
