/* The per-pixel pass on the CPU: native-resolution logits or features in, full-size maps out.
 *
 * Plain C11 without Python, loaded through ctypes (compiled.py). Work is cut into tiles of pixels
 * that stay in the cache with all their classes; the bilinear resize fills a tile as it is
 * needed, so that the full-size C x H x W array never exists. Every pixel is computed alone, by
 * the same tile whatever the number of threads.
 */

#include <float.h>
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "pixels.h"
#include "pixels_threads.h"

#define SIMD _Pragma("omp simd")

#define TILE 1024 /* most pixels of a tile */
#define CHUNK 32  /* output rows for which a thread keeps its resampled source rows */
#define SHARE 16384 /* numbers that are worth a thread. Measured */
#define OWN ((MAPS + 1) * TILE) /* a tile of every map, and of classes */
#define TILE_STRIDE(n) (((n) + 15) & ~15)

/* Where a tile's results go: into the maps themselves, or into memory of the thread's own. */
struct tile {
    float *maps[MAPS];
    int32_t *classes;
    double *sums; /* of the group */
};

typedef void tile_function(const struct job *, const float *, ptrdiff_t, int, ptrdiff_t,
                           const struct tile *, float *restrict);

struct instructions {
    const char *name;
    tile_function *statistics, *norm, *weight, *shares, *observe;
    void (*softmax)(const float *, ptrdiff_t, int, int, float *restrict, float *restrict);
    void (*add_row)(const float *restrict, int, float *restrict);
    void (*slide)(const float *restrict, const float *restrict, int64_t, double *restrict);
    void (*island_row)(const float *restrict, const double *restrict, const double *restrict,
                       int64_t, int64_t, int, float *restrict);
    void (*island_end)(int64_t, int, float *restrict);
    void (*resample_row)(const float *restrict, ptrdiff_t, const int32_t *restrict,
                         const float *restrict, int, float, float *restrict, float *restrict);
    void (*blend_rows)(const float *, const float *, float, ptrdiff_t, int, int, float *restrict);
    void (*store)(const struct job *, const struct tile *, int, ptrdiff_t);
    void (*functions)(const float *, int64_t, float *restrict, float *restrict);
};

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#else
#define INLINE static inline
#endif

INLINE uint32_t to_bits(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE float to_float(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* As the instructions have them; fmaxf has rules for NaN that cost. */
INLINE float fmax_(float a, float b) { return a > b ? a : b; }
INLINE float fmin_(float a, float b) { return a < b ? a : b; }

INLINE int64_t parts(int64_t total, int64_t part) { return (total + part - 1) / part; }
INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

/* The bin `(m / bins, (m + 1) / bins]` of a probability; 0 goes into the first. */
INLINE int bin_of(float p, int bins) {
    const float scaled = p * (float)bins;
    int at = (int)scaled;
    at -= (float)at == scaled; /* the ceiling less one */
    return at < 0 ? 0 : at >= bins ? bins - 1 : at;
}

#define INFINITE 0x7f800000u /* the bits of infinity; of NaN, more */
#define MINUS_INFINITY 0xff800000u

#define VARIANT(name) name##_any
#define VARIANT_NAME "baseline"
#define TARGET
#include "pixels_tile.h"

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86_VARIANTS
#define VARIANT(name) name##_avx2
#define VARIANT_NAME "avx2"
#ifndef __clang__
#define LANES 8
#endif
#define TARGET __attribute__((target("avx2,fma")))
#include "pixels_tile.h"

#define VARIANT(name) name##_avx512
#define VARIANT_NAME "avx512"
#ifndef __clang__
#define LANES 16
#endif
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")))
#include "pixels_tile.h"
#endif

/* The widest instructions of this processor, or those asked for by name where it has them. */
static const struct instructions *choose(const char *name) {
#ifdef HAVE_X86_VARIANTS
    __builtin_cpu_init();
    if ((!name || !strcmp(name, "avx512")) && __builtin_cpu_supports("avx512f") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return &instructions_avx512;
    if ((!name || !strcmp(name, "avx2")) && __builtin_cpu_supports("avx2") &&
        __builtin_cpu_supports("fma"))
        return &instructions_avx2;
#endif
    return !name || !strcmp(name, "baseline") ? &instructions_any : NULL;
}

/* Name of the instructions that serve where `name` is asked for (NULL: the widest), or NULL. */
EXPORT const char *doubtmap_instructions(const char *name) {
    const struct instructions *found = choose(name);
    return found ? found->name : NULL;
}

/* So that compiled.py never hands its structure to a library of other sources. */
EXPORT int64_t doubtmap_build(void) { return BUILD; }
EXPORT int64_t doubtmap_job_bytes(void) { return sizeof(struct job); }

/* Pixels of a tile: as many as stay in the first-level cache with all their classes; resized
 * tiles are larger, since each brings its own beginning and end. Measured. */
static int tile_of(const struct job *job, int resized) {
    int64_t pixels = (resized ? 8192 : 3072) / job->channels / 16 * 16;
    return pixels < 64 ? 64 : pixels > TILE ? TILE : (int)pixels;
}

/* The pass of one thread: what it was asked for, its instructions, and memory of its own. */
struct pass {
    const struct job *job;
    const struct instructions *use;
    tile_function *function;
    int tile;
    float *scratch, *own; /* of the tiles' values, and of results that are not kept as they are */
    double *sums;         /* of the group of tiles */
};

/* Compute one tile, and write what was asked for. */
static void one_tile(const struct pass *pass, const float *values, ptrdiff_t stride, int n,
                     ptrdiff_t pixel) {
    const struct job *job = pass->job;
    struct tile to;
    for (int map = 0; map < MAPS; map++)
        to.maps[map] = job->maps[map] ? job->maps[map] + pixel : pass->own + (map + 1) * TILE;
    to.classes = (int32_t *)(void *)pass->own;
    to.sums = pass->sums;
    pass->function(job, values, stride, n, pixel, &to, pass->scratch);
    if (job->operation == STATISTICS) pass->use->store(job, &to, n, pixel);
}

/* One tile straight from the input. */
static void same_grid(const struct pass *pass, int64_t item) {
    const struct job *job = pass->job;
    const int64_t tiles = parts(job->width, pass->tile);
    const int64_t x = item % tiles * pass->tile, y = item / tiles % job->height;
    const int64_t image = item / tiles / job->height;
    const float *values = job->values + image * job->image_stride + y * job->row_stride + x;
    one_tile(pass, values, (ptrdiff_t)job->channel_stride, (int)least(pass->tile, job->width - x),
             (ptrdiff_t)((image * job->height + y) * job->width + x));
}

/* One column of tiles, CHUNK rows high. Source rows are resampled once and kept while needed. */
static void other_grid(const struct pass *pass, int64_t item) {
    const struct job *job = pass->job;
    const struct instructions *use = pass->use;
    const int tile = pass->tile;
    float *scratch = pass->scratch;
    const int64_t tiles = parts(job->width, tile), chunks = parts(job->height, CHUNK);
    const int64_t x = item % tiles * tile, start = item / tiles % chunks * CHUNK;
    const int64_t image = item / tiles / chunks;
    const int n = (int)least(tile, job->width - x);
    const ptrdiff_t stride = TILE_STRIDE(n), block = stride * job->channels;
    float *kept[2] = {scratch + block, scratch + 2 * block}, *blended = scratch + 3 * block;
    float *samples = scratch + 4 * block;
    int64_t held[2] = {-1, -1};
    for (int64_t y = start; y < least(start + CHUNK, job->height); y++) {
        const float weight = job->row_weight[y];
        const int64_t last = job->row_below[y] + (weight > 0.0f);
        for (int64_t row = job->row_below[y]; row <= last; row++) {
            if (held[row & 1] == row) continue;
            held[row & 1] = row;
            const float *from = job->values + image * job->image_stride + row * job->row_stride;
            for (int k = 0; k < job->channels; k++)
                use->resample_row(from + k * job->channel_stride, job->columns,
                                  job->column_below + x, job->column_weight + x, n, job->factor,
                                  samples, kept[row & 1] + k * stride);
        }
        const float *tile_values = kept[job->row_below[y] & 1];
        if (weight > 0.0f) {
            use->blend_rows(tile_values, kept[last & 1], weight, stride, job->channels, n, blended);
            tile_values = blended;
        }
        one_tile(pass, tile_values, stride, n,
                 (ptrdiff_t)((image * job->height + y) * job->width + x));
    }
}

/* A row of squares, or as much of it as a tile holds: means of the softmax and of its entropy. */
static void some_squares(const struct pass *pass, int64_t item) {
    const struct job *job = pass->job;
    const int side = job->square, classes = job->channels;
    const int64_t wide = pass->tile / side, tiles = parts(job->width, wide);
    const int64_t left = item % tiles * wide, y = item / tiles % job->height;
    const int64_t image = item / tiles / job->height, plane = job->height * job->width;
    const int64_t x = left * side, below = least((y + 1) * side, job->rows);
    const int n = (int)least(wide * side, job->columns - x), stride = TILE_STRIDE(n);
    float *block = pass->scratch, *sums = block + (ptrdiff_t)stride * classes;
    float *entropy = pass->own, *entropies = pass->own + TILE;
    for (int64_t row = y * side; row < below; row++) {
        const int only = row == y * side;
        const float *values = job->values + image * job->image_stride + row * job->row_stride + x;
        pass->use->softmax(values, (ptrdiff_t)job->channel_stride, classes, n,
                           only ? sums : block, only ? entropies : entropy);
        if (only) continue;
        pass->use->add_row(block, (int)stride * classes, sums);
        pass->use->add_row(entropy, n, entropies);
    }
    const float rows = (float)(below - y * side);
    for (int k = 0; k <= classes; k++) {
        const float *from = k < classes ? sums + (ptrdiff_t)k * stride : entropies;
        float *to = k < classes ? job->probabilities + (image * classes + k) * plane
                                : job->maps[ENTROPY] + image * plane;
        to += y * job->width + left;
        for (int start = 0, end; start < n; start = end) {
            float sum = 0.0f;
            end = start + side < n ? start + side : n;
            for (int i = start; i < end; i++) sum += from[i];
            *to++ = sum / (rows * (float)(end - start));
        }
    }
}

/* A call: what its threads share. */
struct run {
    struct pass pass; /* without memory */
    size_t floats;    /* of a thread's memory */
    int64_t items, step, next; /* tiles or columns of tiles, how many a thread takes, and from where */
};

/* What each thread does: take items and compute them, until there are no more. */
static void some_items(void *shared) {
    struct run *run = shared;
    float *memory = malloc((run->floats + OWN + 32) * sizeof *memory);
    if (!memory) return; /* the others take them all */
    struct pass pass = run->pass;
    pass.own = memory + (16 - ((uintptr_t)memory / sizeof *memory) % 16) % 16;
    pass.scratch = pass.own + OWN;
    int64_t item;
    while ((item = take(&run->next, run->step)) < run->items) {
        const struct job *job = pass.job;
        if (job->operation == OBSERVE)
            pass.sums = job->observed + item / run->step * OBSERVED(job->channels, job->bins);
        for (const int64_t end = least(item + run->step, run->items); item < end; item++) {
            if (job->operation == SQUARES) some_squares(&pass, item);
            else if (job->row_below) other_grid(&pass, item);
            else same_grid(&pass, item);
        }
    }
    free(memory);
}

EXPORT int doubtmap_run(const struct job *given) {
    struct job job = *given;
    const struct instructions *use = choose(job.instructions);
    if (!use) use = choose(NULL);
    tile_function *function = job.operation == STATISTICS ? use->statistics
                              : job.operation == NORM     ? use->norm
                              : job.operation == WEIGHT   ? use->weight
                              : job.operation == OBSERVE  ? use->observe
                                                          : use->shares;
    const int resized = job.row_below != NULL, squares = job.operation == SQUARES;
    const int tile = tile_of(&job, resized || squares);
    if (!resized && !squares && job.row_stride == job.columns) { /* rows without gaps are one long row */
        job.width *= job.height;
        job.height = 1;
    }
    struct run run = {
        .pass = {.job = &job, .use = use, .function = function, .tile = tile},
        .floats = (size_t)TILE_STRIDE(tile) * (size_t)job.channels * (resized ? 4 : squares ? 2 : 1) +
                  (resized ? (size_t)job.columns : 0),
        .items = job.images * parts(job.width, squares ? tile / job.square : tile) *
                 (resized ? parts(job.height, CHUNK) : job.height),
        .step = resized ? 1 : 8,
    };
    if (job.operation == OBSERVE) /* the same groups, whatever the number of threads */
        run.step = parts(run.items, job.groups);
    const int64_t pixels = squares ? job.rows * job.columns : job.height * job.width;
    const int64_t worth = job.images * pixels / (SHARE / job.channels + 1);
    const int64_t most = least(worth, parts(run.items, run.step));
    doubtmap_together(some_items, &run, (int)least(job.threads, most));
    return run.next < run.items; /* no thread had memory */
}

#define BAND 64     /* rows that one thread looks for islands in at once */
#define WINDOWS 3

/* Islands: what the threads share. */
struct islands {
    const struct instructions *use;
    const float *p; /* p[image][channel][row][column] */
    int64_t images, channels, rows, columns;
    const int64_t *reaches; /* of the windows, in cells */
    int geometric;
    float *found; /* found[image][row][column] */
    int64_t widest, next;
};

/* The rows of a band, from below, one class: sums of the windows below slide along. */
static void class_of_band(const struct islands *job, const float *p, int64_t first, int64_t end,
                          double *restrict before, double *restrict down, float *found) {
    const struct instructions *use = job->use;
    const int64_t columns = job->columns;
    for (int window = 0; window < WINDOWS; window++) {
        double *sums = down + window * columns;
        memset(sums, 0, (size_t)columns * sizeof *sums);
        for (int64_t y = end; y < least(end + job->reaches[window] + 1, job->rows); y++)
            use->slide(p + y * columns, NULL, columns, sums);
    }
    for (int64_t y = end - 1; y >= first; y--) {
        const float *row = p + y * columns;
        double sum = 0.0;
        for (int64_t x = 0; x < columns; x++) before[x + 1] = sum += row[x];
        for (int64_t x = columns + 1; x <= columns + job->widest; x++) before[x] = sum;
        for (int window = 0; window < WINDOWS; window++) {
            const int64_t reach = job->reaches[window], gone = y + reach + 1;
            double *sums = down + window * columns;
            use->slide(row, gone < job->rows ? p + gone * columns : NULL, columns, sums);
            use->island_row(row, before, sums, columns, reach, job->geometric,
                            found + y * columns);
        }
    }
}

static void some_bands(void *shared) {
    struct islands *job = shared;
    const int64_t bands = parts(job->rows, BAND), columns = job->columns;
    const size_t sums = (size_t)(columns + 1 + 2 * job->widest);
    double *memory = calloc(sums + WINDOWS * (size_t)columns, sizeof *memory);
    if (!memory) return; /* the others take them all */
    int64_t band;
    while ((band = take(&job->next, 1)) < job->images * bands) {
        const int64_t image = band / bands, first = band % bands * BAND;
        const int64_t end = least(first + BAND, job->rows);
        float *found = job->found + image * job->rows * columns;
        memset(found + first * columns, 0, (size_t)((end - first) * columns) * sizeof *found);
        for (int64_t k = 0; k < job->channels; k++)
            class_of_band(job, job->p + (image * job->channels + k) * job->rows * columns, first,
                          end, memory + job->widest, memory + sums, found);
        job->use->island_end((end - first) * columns, job->geometric, found + first * columns);
    }
    free(memory);
}

/* How much each cell is an island in another class; 0, or 1 where memory ran out. */
EXPORT int doubtmap_islands(const char *name, const float *p, int64_t images, int64_t channels,
                            int64_t rows, int64_t columns, const int64_t *reaches,
                            int32_t geometric, float *found, int32_t threads) {
    const struct instructions *use = choose(name);
    struct islands job = {use ? use : choose(NULL), p, images, channels, rows, columns, reaches,
                          geometric, found, 1, 0};
    for (int window = 0; window < WINDOWS; window++)
        if (reaches[window] > job.widest) job.widest = reaches[window];
    const int64_t bands = images * parts(rows, BAND), worth = rows * columns * channels / SHARE + 1;
    doubtmap_together(some_bands, &job, (int)least(threads, least(bands, worth * images)));
    return job.next < bands;
}

/* exp and log of n numbers by the pass's own approximations, for the tests. */
EXPORT void doubtmap_functions(const char *name, const float *x, int64_t n, float *exponentials, float *logarithms) {
    choose(name)->functions(x, n, exponentials, logarithms);
}
