/* Sparse tables of sums by bin, on the CPU: numbers are sorted once, and counted into any of them.
 *
 * Built into one library with pixels.c; tables.py is the door, compiled_sums.py calls it.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "sums.h"

#define FINEST 20
#define BLOCK 6 /* bits of a bin within its block, at most */
#define PAGES 4096
#define EMPTY (-1)
#define MIXED (-2)

/* `SumsTable` of compiled.py. Bins lie in blocks of 2^block, which are there once they are touched. */
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

static uint32_t key_of(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    bits = bits == 0x80000000u ? 0 : bits; /* -0.0 and 0.0 are one number */
    return bits ^ ((uint32_t)((int32_t)bits >> 31) | 0x80000000u);
}

/* Numbers as entries: of each its key, and in the lower 32 bits where it stood; page by page, and
 * within a page as they stood. How many each page has, 0 before. How many are not finite. `spare`
 * has room for n. */
EXPORT int64_t doubtmap_sort(const float *values, int64_t n, uint64_t *entries, uint64_t *spare,
                             uint32_t *pages) {
    uint32_t places[PAGES], next = 0;
    int64_t bad = 0;
    for (int64_t i = 0; i < n; i++) {
        const uint32_t key = key_of(values[i]);
        bad += key >= 0xFF800000u || key <= 0x007FFFFFu;
        spare[i] = (uint64_t)key << 32 | (uint32_t)i;
    }
    for (int64_t i = 0; i < n; i++) pages[spare[i] >> (32 + FINEST)]++;
    for (int page = 0; page < PAGES; page++) {
        places[page] = next;
        next += pages[page];
    }
    for (int64_t i = 0; i < n; i++) entries[places[spare[i] >> (32 + FINEST)]++] = spare[i];
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
#define AHEAD 64 /* bins that are on their way from memory together */

/* What is counted of entries, as compiled_sums.py has it: `weight` in the channel of each (or in `channel`), and of
 * `more`, of so many bytes, its number in channel `more_channel`. */
struct counted {
    const uint64_t *entries;
    int64_t n;
    const uint8_t *channels;
    int64_t channel;
    double weight;
    const void *more;
    int64_t more_bytes, more_channel;
};

/* Add an entry to the sums of its bin. */
static inline void count_one(const struct counted *what, uint64_t entry, double *sums) {
    const uint32_t at = (uint32_t)entry;
    sums[what->channels ? what->channels[at] : what->channel] += what->weight;
    if (what->more)
        sums[what->more_channel] += what->more_bytes == 4 ? ((const float *)what->more)[at]
                                                          : ((const double *)what->more)[at];
}

/* Count entries from `start` on. The index reached: below n where there was no room. */
EXPORT int64_t doubtmap_count(struct table *t, const struct counted *what, int64_t start) {
    const int low = FINEST - t->level;
    const uint32_t rest = ((uint32_t)1 << low) - 1, inside = ((uint32_t)1 << t->block) - 1;
    int64_t at[AHEAD];
    while (start < what->n) {
        const int64_t wanted = what->n - start < AHEAD ? what->n - start : AHEAD;
        int64_t found = 0;
        for (; found < wanted; found++) {
            const uint32_t key = (uint32_t)(what->entries[start + found] >> 32);
            const uint32_t bin = (key & (((uint32_t)1 << FINEST) - 1)) >> low;
            const int64_t place = place_of(t, key >> FINEST, bin >> t->block);
            if (place < 0) break;
            at[found] = (place << t->block) | (bin & inside);
            FETCH(t->counts + at[found] * t->channels);
            FETCH(t->only + at[found]);
        }
        for (int64_t i = 0; i < found; i++, start++) {
            const uint64_t entry = what->entries[start];
            count_one(what, entry, t->counts + at[i] * t->channels);
            t->only[at[i]] = joined(t->only[at[i]], (int32_t)((uint32_t)(entry >> 32) & rest));
        }
        if (found < wanted) break;
    }
    return start;
}

/* The bins of entries at a level, ascending: their numbers, sums (bins, channels), and only values.
 * `page_sums` (2^level, channels) and `page_only` are scratch. How many. */
EXPORT int64_t doubtmap_bins_of(const struct counted *what, int64_t level, int64_t channels,
                                double *page_sums, int32_t *page_only, int64_t *numbers,
                                double *sums, int32_t *only) {
    const int low = FINEST - (int)level;
    const int64_t bins = (int64_t)1 << level;
    const uint32_t rest = ((uint32_t)1 << low) - 1;
    int64_t found = 0;
    for (int64_t i = 0; i < what->n;) {
        const uint64_t page = what->entries[i] >> (32 + FINEST);
        memset(page_sums, 0, (size_t)(bins * channels) * sizeof *page_sums);
        for (int64_t bin = 0; bin < bins; bin++) page_only[bin] = EMPTY;
        for (; i < what->n && what->entries[i] >> (32 + FINEST) == page; i++) {
            const uint32_t key = (uint32_t)(what->entries[i] >> 32);
            const uint32_t bin = (key & (((uint32_t)1 << FINEST) - 1)) >> low;
            count_one(what, what->entries[i], page_sums + bin * channels);
            page_only[bin] = joined(page_only[bin], (int32_t)(key & rest));
        }
        for (int64_t bin = 0; bin < bins; bin++) {
            if (page_only[bin] == EMPTY) continue;
            numbers[found] = (int64_t)page << level | bin;
            only[found] = page_only[bin];
            memcpy(sums + found * channels, page_sums + bin * channels,
                   (size_t)channels * sizeof *sums);
            found++;
        }
    }
    return found;
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

/* Add bins from `start` on, of pages that `to` has at no finer a level: n of them, each with its
 * number at its own level, its counts (rows of so many numbers, of so many bytes), of which the
 * first are taken, and its only value. The bin reached: below n where there was no room. */
EXPORT int64_t doubtmap_add(struct table *to, const int64_t *numbers, const void *counts,
                            const int32_t *only, int64_t start, int64_t n, int64_t columns,
                            int64_t bytes, int64_t level) {
    const int64_t d = level - to->level, mine = ((int64_t)1 << to->block) - 1;
    const int shift = to->level - to->block;
    int64_t at[AHEAD], before = -1, place = -1;
    int32_t within[AHEAD];
    while (start < n) {
        const int64_t wanted = n - start < AHEAD ? n - start : AHEAD;
        int64_t found = 0;
        for (; found < wanted; found++) {
            const int64_t number = numbers[start + found];
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
                sums[c] += number_at(counts, bytes, start * columns + c);
        }
        if (found < wanted) break;
    }
    return start;
}

/* Bins (n, columns), ascending, at a level that is coarser by `steps`: of their first `channels`
 * columns, and but for those that hold nothing there. `low` is how many bits of a key the fine bins
 * leave. How many. */
EXPORT int64_t doubtmap_wider(const int64_t *numbers, const double *counts, const int32_t *only,
                              int64_t n, int64_t columns, int64_t channels, int64_t steps,
                              int64_t low, int64_t *wide, double *sums, int32_t *single) {
    int64_t found = 0;
    for (int64_t i = 0; i < n; i++) {
        const double *own = counts + i * columns;
        int any = 0;
        for (int64_t c = 0; c < channels; c++) any |= own[c] != 0.0;
        if (!any) continue;
        const int64_t number = numbers[i] >> steps, within = numbers[i] & (((int64_t)1 << steps) - 1);
        const int32_t value = only[i] < 0 ? only[i] : only[i] | (int32_t)(within << low);
        if (found && wide[found - 1] == number) {
            double *to = sums + (found - 1) * channels;
            for (int64_t c = 0; c < channels; c++) to[c] += own[c];
            single[found - 1] = joined(single[found - 1], value);
        } else {
            memcpy(sums + found * channels, own, (size_t)channels * sizeof *own);
            wide[found] = number;
            single[found++] = value;
        }
    }
    return found;
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

