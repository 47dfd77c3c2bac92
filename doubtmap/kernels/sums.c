/* Sums over pixels on the CPU: sparse histograms, bins of probabilities, components of a mask.
 *
 * Built into one library with pixels.c; counted.py is the door, compiled.py calls it. Figures are
 * those of NumPy to the last digit: sums are made in its order, or of numbers whose sums are exact.
 */

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define FINEST 20
#define BLOCK 6 /* bits of a bin within its block, at most */
#define PAGES 4096
#define EMPTY (-1)
#define MIXED (-2)

/* `_Table` of compiled.py. Bins lie in blocks of 2^block, which are there once they are touched. */
struct table {
    const int32_t *row_of_page; /* (PAGES,), -1 where a page is not in use */
    int32_t *directory;         /* (rows << (level - block)), the block's place, or -1 */
    int64_t *blocks;            /* (capacity,), which block lies at a place */
    double *counts;             /* (capacity << block, channels) */
    int32_t *only;              /* (capacity << block,) */
    int64_t used, capacity, channels;
    int32_t level, block;
};

EXPORT int64_t doubtmap_table_bytes(void) { return sizeof(struct table); }

/* Keys in the order of the numbers, and which pages they fall into. How many are not finite. */
EXPORT int64_t doubtmap_keys(const float *values, int64_t n, uint32_t *keys, uint8_t *pages) {
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, values + i, sizeof bits);
        bits = bits == 0x80000000u ? 0 : bits; /* -0.0 and 0.0 are one number */
        bad += (bits & 0x7F800000u) == 0x7F800000u;
        keys[i] = bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
    }
    for (int64_t i = 0; i < n; i++) pages[keys[i] >> FINEST] = 1;
    return bad;
}

/* The place of a block, made where it is not there yet; -1 where there is no room. */
static int64_t place_of(struct table *t, int64_t page, int64_t within) {
    const int shift = t->level - t->block;
    int32_t *entry = t->directory + (((int64_t)t->row_of_page[page] << shift) | within);
    if (*entry >= 0) return *entry;
    if (t->used == t->capacity) return -1;
    const int64_t bins = (int64_t)1 << t->block, start = t->used << t->block;
    memset(t->counts + start * t->channels, 0, (size_t)(bins * t->channels) * sizeof(double));
    for (int64_t bin = 0; bin < bins; bin++) t->only[start + bin] = EMPTY;
    t->blocks[t->used] = (page << shift) | within;
    *entry = (int32_t)t->used;
    return t->used++;
}

static int32_t joined(int32_t a, int32_t b) {
    if (a == EMPTY || a == b) return b;
    return b == EMPTY ? a : MIXED;
}

#if defined(__GNUC__)
#define FETCH(place) __builtin_prefetch((place), 1)
#else
#define FETCH(place) ((void)(place))
#endif
#define AHEAD 64 /* values whose bins are on their way from memory together */

/* Count values from `start` on: `weight` in the channel of each (or in `channel`), and of `more`
 * its number in channel `more_channel`. The index reached: below n where there was no room. */
EXPORT int64_t doubtmap_count(struct table *t, const uint32_t *keys, int64_t start, int64_t n,
                              const uint8_t *channels, int64_t channel, double weight,
                              const double *more, int64_t more_channel) {
    const int low = FINEST - t->level;
    const uint32_t rest = ((uint32_t)1 << low) - 1, inside = ((uint32_t)1 << t->block) - 1;
    int64_t at[AHEAD];
    while (start < n) {
        const int64_t wanted = n - start < AHEAD ? n - start : AHEAD;
        int64_t found = 0;
        for (; found < wanted; found++) {
            const uint32_t key = keys[start + found];
            const uint32_t bin = (key & (((uint32_t)1 << FINEST) - 1)) >> low;
            const int64_t place = place_of(t, key >> FINEST, bin >> t->block);
            if (place < 0) break;
            at[found] = (place << t->block) | (bin & inside);
            FETCH(t->counts + at[found] * t->channels);
            FETCH(t->only + at[found]);
        }
        for (int64_t i = 0; i < found; i++, start++) {
            double *counts = t->counts + at[i] * t->channels;
            counts[channels ? channels[start] : channel] += weight;
            if (more) counts[more_channel] += more[start];
            t->only[at[i]] = joined(t->only[at[i]], (int32_t)(keys[start] & rest));
        }
        if (found < wanted) break;
    }
    return start;
}

/* Add the blocks of `from` from `start` on, of which `to` has all pages at no finer a level, and
 * at most 2^6 bins of `from` in one of its own; of the channels of `from` the first. The block
 * reached. */
EXPORT int64_t doubtmap_absorb(struct table *to, const struct table *from, int64_t start) {
    const int d = from->level - to->level, shift = from->level - from->block;
    const int64_t bins = (int64_t)1 << (from->block - d), wide = (int64_t)1 << d;
    const int64_t channels = from->channels;
    for (int64_t block = start; block < from->used; block++) {
        const int64_t id = from->blocks[block], page = id >> shift;
        const int64_t first = ((id & (((int64_t)1 << shift) - 1)) << from->block) >> d;
        const int64_t place = place_of(to, page, first >> to->block);
        if (place < 0) return block;
        const int64_t offset = first & (((int64_t)1 << to->block) - 1);
        for (int64_t bin = 0; bin < bins; bin++) {
            const int64_t at = (block << from->block) + bin * wide;
            const int64_t mine = (place << to->block) + offset + bin;
            int32_t only = EMPTY;
            for (int64_t k = 0; k < wide; k++) {
                const int32_t held = from->only[at + k];
                only = joined(only, held < 0 ? held : held | (int32_t)(k << (FINEST - from->level)));
            }
            if (only == EMPTY) continue;
            to->only[mine] = joined(to->only[mine], only);
            for (int64_t c = 0; c < to->channels; c++)
                for (int64_t k = 0; k < wide; k++)
                    to->counts[mine * to->channels + c] += from->counts[(at + k) * channels + c];
        }
    }
    return from->used;
}

/* The k-th of float64 numbers, or of unsigned ones of so many bytes. */
static double number_at(const void *numbers, int64_t bytes, int64_t k) {
    switch (bytes) {
    case 1: return ((const uint8_t *)numbers)[k];
    case 2: return ((const uint16_t *)numbers)[k];
    case 4: return ((const uint32_t *)numbers)[k];
    default: return ((const double *)numbers)[k];
    }
}

/* Add bins from `start` on, that lie in these blocks, of which `to` has all pages at no finer a
 * level: n of them, each with its counts (numbers of so many bytes) and its only value. The bin
 * reached: below n where there was no room. */
EXPORT int64_t doubtmap_add(struct table *to, const int64_t *blocks, const int32_t *held,
                            const void *counts, const int32_t *only, int64_t start, int64_t n,
                            int64_t bytes, int64_t level) {
    const int64_t block = level < BLOCK ? level : BLOCK, d = level - to->level;
    const int64_t inside = ((int64_t)1 << block) - 1, mine = ((int64_t)1 << to->block) - 1;
    const int shift = to->level - to->block;
    int64_t at[AHEAD], before = -1, place = -1;
    int32_t within[AHEAD];
    while (start < n) {
        const int64_t wanted = n - start < AHEAD ? n - start : AHEAD;
        int64_t found = 0;
        for (; found < wanted; found++) {
            const int64_t one = held[start + found];
            const int64_t number = (blocks[one >> block] << block) | (one & inside);
            const int64_t bin = number >> d, of = bin >> to->block;
            if (of != before) {
                place = place_of(to, of >> shift, of & (((int64_t)1 << shift) - 1));
                if (place < 0) break;
                before = of;
            }
            at[found] = (place << to->block) | (bin & mine);
            within[found] = (int32_t)(number & (((int64_t)1 << d) - 1)) << (FINEST - level);
            FETCH(to->counts + at[found] * to->channels);
            FETCH(to->only + at[found]);
        }
        for (int64_t i = 0; i < found; i++, start++) {
            double *sums = to->counts + at[i] * to->channels;
            const int32_t own = only[start] < 0 ? only[start] : only[start] | within[i];
            to->only[at[i]] = joined(to->only[at[i]], own);
            for (int64_t c = 0; c < to->channels; c++)
                sums[c] += number_at(counts, bytes, start * to->channels + c);
        }
        if (found < wanted) break;
    }
    return start;
}

/* Add columns of numbers of so many bytes, (rows, columns), to those of (rows, width) at places. */
EXPORT void doubtmap_add_columns(double *sums, int64_t width, const int64_t *at, const void *more,
                                 int64_t bytes, int64_t rows, int64_t columns) {
    for (int64_t row = 0; row < rows; row++)
        for (int64_t k = 0; k < columns; k++)
            sums[row * width + at[k]] += number_at(more, bytes, row * columns + k);
}

/* Write the bins that hold anything, blocks in the given order: keys, counts (channels, n), and
 * whether they hold one number only. Their number, at most n. */
EXPORT int64_t doubtmap_held(const struct table *t, const int64_t *order, int64_t n,
                             uint32_t *keys, double *counts, uint8_t *single) {
    const int64_t inside = (int64_t)1 << t->block;
    int64_t held = 0;
    for (int64_t i = 0; i < t->used; i++) {
        const int64_t place = order[i];
        for (int64_t bin = 0; bin < inside; bin++) {
            const int64_t at = (place << t->block) + bin;
            if (t->only[at] == EMPTY) continue;
            const double *own = t->counts + at * t->channels;
            int any = 0;
            for (int64_t c = 0; c < t->channels; c++) any |= own[c] != 0.0;
            if (!any) continue;
            keys[held] = (uint32_t)(((t->blocks[place] << t->block) + bin) << (FINEST - t->level));
            single[held] = t->only[at] != MIXED;
            for (int64_t c = 0; c < t->channels; c++) counts[c * n + held] = own[c];
            held++;
        }
    }
    return held;
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
