/* Segments of a label map on the CPU: finding them, their edges, and sums over them.
 *
 * Built into one library with pixels.c; labelled.py is the door, compiled.py calls it.
 */

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "pixels_threads.h"

#ifdef _WIN32
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* The oldest label of a tree, halving the way there. */
static int32_t root(int32_t *parent, int32_t label) {
    while (parent[label] != label) {
        parent[label] = parent[parent[label]];
        label = parent[label];
    }
    return label;
}

/* One tree of two; the older root stays. */
static int32_t join(int32_t *parent, int32_t a, int32_t b) {
    a = root(parent, a);
    b = root(parent, b);
    if (a < b) return parent[b] = a;
    return parent[a] = b;
}

/* labels[y][x]: number of the 8-connected component of equal values, counted in reading order of
 * their first pixels. The number of components, or -1 where memory ran out. */
EXPORT int64_t doubtmap_components(const int32_t *values, int64_t rows, int64_t columns,
                                   int32_t *labels) {
    int32_t *parent = malloc((size_t)(rows * columns + 1) * sizeof *parent), labelled = 0;
    if (!parent) return -1;
    for (int64_t y = 0; y < rows; y++) {
        const int32_t *v = values + y * columns, *above = y ? v - columns : v;
        int32_t *to = labels + y * columns, *up = y ? to - columns : to;
        for (int64_t x = 0; x < columns; x++) {
            const int32_t value = v[x];
            int32_t label = -1;
            if (x && v[x - 1] == value) label = to[x - 1];
            if (y) {
                /* The pixel above touches all the others, which were joined to it before. */
                if (above[x] == value) {
                    label = up[x];
                } else {
                    if (label < 0 && x && above[x - 1] == value) label = up[x - 1];
                    if (x + 1 < columns && above[x + 1] == value)
                        label = label < 0 ? up[x + 1] : join(parent, label, up[x + 1]);
                }
            }
            if (label < 0) {
                label = labelled++;
                parent[label] = label;
            }
            to[x] = label;
        }
    }
    /* A root is older than its tree, so its final number is there when it is asked for. */
    int32_t count = 0;
    for (int32_t label = 0; label < labelled; label++)
        parent[label] = parent[label] == label ? count++ : parent[parent[label]];
    for (int64_t i = 0; i < rows * columns; i++) labels[i] = parent[labels[i]];
    free(parent);
    return count;
}

/* edge[y][x]: 1 where one of the 8 neighbours has another label. */
EXPORT void doubtmap_edges(const int32_t *labels, int64_t rows, int64_t columns, uint8_t *edge) {
    for (int64_t y = 0; y < rows; y++) {
        const int32_t *own = labels + y * columns;
        uint8_t *to = edge + y * columns;
        for (int64_t x = 0; x < columns; x++) to[x] = 0;
        for (int64_t other = y ? y - 1 : 0; other <= y + 1 && other < rows; other++) {
            const int32_t *near = labels + other * columns;
            for (int64_t x = 0; x < columns; x++) to[x] |= near[x] != own[x];
            for (int64_t x = 1; x < columns; x++) to[x] |= near[x - 1] != own[x];
            for (int64_t x = 0; x + 1 < columns; x++) to[x] |= near[x + 1] != own[x];
        }
    }
}

#define GROUP 8 /* maps that are read side by side */

/* One run of pixels of one segment, all inside or all on the edge, of one map. */
static void add_run(const float *map, int64_t start, int64_t end, double *to) {
    double sum = 0.0, squares = 0.0;
#pragma omp simd reduction(+ : sum, squares)
    for (int64_t i = start; i < end; i++) {
        const double value = map[i];
        sum += value;
        squares += value * value;
    }
    to[0] += sum;
    to[1] += squares;
}

/* Sums over the segments: what their threads share. */
struct moments {
    const int32_t *labels;
    const uint8_t *edge;
    int64_t pixels;
    const float *const *maps;
    int64_t count, next; /* of maps, and the first that no thread has taken */
    double *sums;
};

static void some_maps(void *shared) {
    struct moments *job = shared;
    int64_t group;
    while ((group = take(&job->next, GROUP)) < job->count) {
        const int64_t last = group + GROUP < job->count ? group + GROUP : job->count;
        for (int64_t start = 0, end; start < job->pixels; start = end) {
            const int32_t label = job->labels[start];
            const uint8_t on_edge = job->edge[start];
            end = start + 1;
            while (end < job->pixels && job->labels[end] == label && job->edge[end] == on_edge)
                end++;
            if (label < 0) continue;
            double *to = job->sums + ((int64_t)label * 2 + on_edge) * job->count * 2;
            for (int64_t m = group; m < last; m++) add_run(job->maps[m], start, end, to + 2 * m);
        }
    }
}

/* sums[label][on the edge][map][power - 1]. Each map is one thread's, so that their number does
 * not change the result. */
EXPORT void doubtmap_moments(const int32_t *labels, const uint8_t *edge, int64_t pixels,
                             const float *const *maps, int64_t count, double *sums,
                             int32_t threads) {
    struct moments job = {labels, edge, pixels, maps, count, 0, sums};
    const int64_t groups = (count + GROUP - 1) / GROUP;
    doubtmap_together(some_maps, &job, groups < threads ? (int)groups : threads);
}
