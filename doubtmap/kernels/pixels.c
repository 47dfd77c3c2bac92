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

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#define SIMD _Pragma("omp simd")

#define TILE 1024 /* most pixels of a tile */
#define CHUNK 32  /* output rows for which a thread keeps its resampled source rows */
#define TILE_STRIDE(n) (((n) + 15) & ~15)

enum { MAX_SOFTMAX, MARGIN, ENTROPY, MAX_LOGIT, ENERGY, DIVERGENCE, LOG_NORM, MAPS };
enum { STATISTICS, NORM, WEIGHT, SHARES };

/* What to do; compiled.py has the same structure. */
struct job {
    const float *values; /* values[image][channel][row][column], columns adjacent */
    int64_t images, rows, columns;
    int64_t image_stride, channel_stride, row_stride;
    int64_t height, width; /* of the maps */
    /* Where the maps' rows and columns lie on the native grid; NULL: they are the same grid. */
    const int32_t *row_below, *column_below;
    const float *row_weight, *column_weight;
    int64_t *class_map;
    float *maps[MAPS]; /* NULL: not asked for */
    /* Sums of probabilities: segment of every pixel of the maps, below 0 for none, and 2^32 times
     * the sums[segment][channel], integers so that the order of threads does not matter. */
    const int32_t *segments;
    int64_t *sums;
    float inverse_temperature, p; /* p: 0 stands for infinity */
    int32_t operation, uniform, published, channels, threads;
};

typedef void tile_function(const struct job *, const float *, ptrdiff_t, int, ptrdiff_t,
                           float *restrict);

struct instructions {
    const char *name;
    tile_function *statistics, *norm, *weight, *shares;
    void (*resample_row)(const float *restrict, ptrdiff_t, const int32_t *restrict,
                         const float *restrict, int, float *restrict, float *restrict);
    void (*blend_rows)(const float *, const float *, float, ptrdiff_t, int, int, float *restrict);
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

static const struct instructions *chosen_instructions;

/* Name of the instructions in use. `name` chooses others; NULL leaves them, unknown gives NULL. */
EXPORT const char *doubtmap_instructions(const char *name) {
    const struct instructions *wanted = name || !chosen_instructions ? choose(name) : NULL;
    if (wanted) chosen_instructions = wanted;
    else if (name) return NULL;
    return chosen_instructions->name;
}

/* So that compiled.py never hands its structure to a library of another version. */
EXPORT int64_t doubtmap_job_bytes(void) { return sizeof(struct job); }

/* 1 where several threads can be used. */
EXPORT int doubtmap_threaded(void) {
#ifdef _OPENMP
    return 1;
#else
    return 0;
#endif
}

/* Pixels of a tile: as many as stay in the first-level cache with all their classes; resized
 * tiles are larger, since each brings its own beginning and end. Measured. */
static int tile_of(const struct job *job, int resized) {
    int64_t pixels = (resized ? 8192 : 3072) / job->channels / 16 * 16;
    return pixels < 64 ? 64 : pixels > TILE ? TILE : (int)pixels;
}

/* One tile straight from the input. */
static void same_grid(const struct job *job, tile_function *function, int tile, int64_t item,
                      float *scratch) {
    const int64_t tiles = parts(job->width, tile);
    const int64_t x = item % tiles * tile, y = item / tiles % job->height;
    const int64_t image = item / tiles / job->height;
    const float *values = job->values + image * job->image_stride + y * job->row_stride + x;
    function(job, values, (ptrdiff_t)job->channel_stride, (int)least(tile, job->width - x),
             (ptrdiff_t)((image * job->height + y) * job->width + x), scratch);
}

/* One column of tiles, CHUNK rows high. Source rows are resampled once and kept while needed. */
static void other_grid(const struct job *job, const struct instructions *use,
                       tile_function *function, int tile, int64_t item, float *scratch) {
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
                                  job->column_below + x, job->column_weight + x, n, samples,
                                  kept[row & 1] + k * stride);
        }
        const float *tile_values = kept[job->row_below[y] & 1];
        if (weight > 0.0f) {
            use->blend_rows(tile_values, kept[last & 1], weight, stride, job->channels, n, blended);
            tile_values = blended;
        }
        function(job, tile_values, stride, n,
                 (ptrdiff_t)((image * job->height + y) * job->width + x), scratch);
    }
}

/* Do the job; 0, or 1 where memory ran out. */
EXPORT int doubtmap_run(const struct job *given) {
    struct job job = *given;
    doubtmap_instructions(NULL);
    const struct instructions *use = chosen_instructions;
    tile_function *function = job.operation == STATISTICS ? use->statistics
                              : job.operation == NORM     ? use->norm
                              : job.operation == WEIGHT   ? use->weight
                                                          : use->shares;
    const int resized = job.row_below != NULL, tile = tile_of(&job, resized);
    if (!resized && job.row_stride == job.columns) { /* rows without gaps are one long row */
        job.width *= job.height;
        job.height = 1;
    }
    const int64_t items = job.images * parts(job.width, tile) *
                          (resized ? parts(job.height, CHUNK) : job.height);
    const size_t floats = (size_t)TILE_STRIDE(tile) * (size_t)job.channels * (resized ? 4 : 1) +
                          (resized ? (size_t)job.columns : 0);
    int failed = 0;
#ifdef _OPENMP
#pragma omp parallel num_threads(job.threads) reduction(| : failed)
#endif
    {
        float *scratch = malloc((floats + 32) * sizeof(float));
        failed = scratch == NULL;
#ifdef _OPENMP
#pragma omp for schedule(dynamic, resized ? 1 : 8)
#endif
        for (int64_t item = 0; item < items; item++) {
            if (!scratch) continue;
            float *aligned = scratch + (16 - ((uintptr_t)scratch / sizeof(float)) % 16) % 16;
            if (resized) other_grid(&job, use, function, tile, item, aligned);
            else same_grid(&job, function, tile, item, aligned);
        }
        free(scratch);
    }
    return failed;
}

/* exp and log of n numbers by the pass's own approximations, for the tests. */
EXPORT void doubtmap_functions(const float *x, int64_t n, float *exponentials, float *logarithms) {
    doubtmap_instructions(NULL);
    chosen_instructions->functions(x, n, exponentials, logarithms);
}
