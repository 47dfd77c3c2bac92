/* What the pass over the pixels is asked for. Inside the library: programs include
 * doubtmap_pixels.h, Python reads the same structure in compiled.py.
 */

#ifndef DOUBTMAP_JOB_H
#define DOUBTMAP_JOB_H

#include <stdint.h>

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* Grows with every change that Python has to know of: compiled.py refuses other numbers. */
#define BUILD 9

enum { MAX_SOFTMAX, MARGIN, ENTROPY, MAX_LOGIT, ENERGY, DIVERGENCE, LOG_NORM, MAPS };
enum { STATISTICS, NORM, WEIGHT, SHARES, SQUARES, OBSERVE };

/* What to do; compiled.py has the same structure. */
struct job {
    const float *values; /* values[image][channel][row][column], columns adjacent */
    int64_t images, rows, columns;
    int64_t image_stride, channel_stride, row_stride;
    int64_t height, width; /* of the maps */
    /* Where the maps' rows and columns lie on the native grid; NULL: they are the same grid. */
    const int32_t *row_below, *column_below;
    const float *row_weight, *column_weight;
    void *class_map;   /* of class_bytes, NULL: not asked for */
    float *maps[MAPS]; /* NULL: not asked for */
    /* Bytes `(map - low) * steps`, rounded, and whether a map is above its limit. */
    uint8_t *bytes[MAPS], *flags[MAPS];
    float low[MAPS], steps[MAPS], limit[MAPS];
    /* Sums of probabilities: segment of every pixel of the maps, below 0 for none, and 2^32 times
     * the sums[segment][channel], integers so that the order of threads does not matter. */
    const int32_t *segments;
    int64_t *sums;
    /* Means over squares of `square` x `square` of the native grid, of which height x width lie on
     * it: of the entropy in its map, and probabilities[image][channel][row][column]. */
    float *probabilities;
    /* Labels, below 0 for none, and predicted classes of every pixel, what its Brier score is, and of
     * each of the groups of tiles, at most so many, the sums of `observe_tile`. */
    const int64_t *labels, *predicted;
    float *errors;
    double *observed;
    const char *instructions; /* NULL: the widest */
    float factor; /* by which values are multiplied before they are resized */
    float inverse_temperature, p; /* 0: no divergence; p: 0 stands for infinity */
    float sign;                   /* of the divergence */
    int32_t operation, scores, uniform, published, channels, class_bytes, threads, square, bins, groups;
};

/* How many doubles a group of tiles has for its sums. */
#define OBSERVED(channels, bins) (3 * (bins) * (1 + (channels)) + 3 + (channels) * (channels))

/* Do the job; 0, or 1 where memory ran out. */
EXPORT int doubtmap_run(const struct job *job);

#endif
