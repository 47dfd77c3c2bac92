/* doubtmap_pixels.h: how far to trust each pixel, from a network's logits at its own resolution.
 *
 * A plain interface in C (from C99 on) and C++: it needs no Python, keeps no state, and may be
 * called from several threads at once. A network's native logits go in; the class of every pixel
 * of the image and its doubts come out, without the logits of full size in between.
 *
 *     python -m doubtmap.runtime --include    the folder of this header
 *     python -m doubtmap.runtime --library    the library that comes with doubtmap
 *     python -m doubtmap.runtime --sources    or the files to compile into a program of one's own
 *
 * See docs/deploy.md.
 */

#ifndef DOUBTMAP_PIXELS_H
#define DOUBTMAP_PIXELS_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32) && !defined(DOUBTMAP_PIXELS_STATIC)
#ifdef DOUBTMAP_PIXELS_BUILDING
#define DOUBTMAP_PIXELS_API __declspec(dllexport)
#else
#define DOUBTMAP_PIXELS_API __declspec(dllimport)
#endif
#elif defined(__GNUC__)
#define DOUBTMAP_PIXELS_API __attribute__((visibility("default")))
#else
#define DOUBTMAP_PIXELS_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Of this interface. Later versions add to the end of the structure and of the enumerations. */
#define DOUBTMAP_PIXELS_VERSION 1

/* The doubts of a pixel whose class scores are x: higher is more doubt. p = softmax(x). */
enum {
    DOUBTMAP_MAX_SOFTMAX = 0, /* 1 - max p, in [0, 1] */
    DOUBTMAP_MARGIN = 1,      /* 1 - largest + second-largest p, in [0, 1] */
    DOUBTMAP_ENTROPY = 2,     /* of p, in nats, in [0, log C] */
    DOUBTMAP_MAX_LOGIT = 3,   /* - max x */
    DOUBTMAP_ENERGY = 4,      /* - log sum exp x */
    DOUBTMAP_DIVERGENCE = 5,  /* - Jensen-Shannon of softmax(x / 2) to uniform, in [-log 2, 0] */
    DOUBTMAP_DOUBTS = 6       /* how many there are */
};

/* What a call gives back. */
enum {
    DOUBTMAP_OK = 0,
    DOUBTMAP_BAD_STRUCTURE = 1,   /* `bytes` is not sizeof (struct doubtmap_call) */
    DOUBTMAP_BAD_SHAPE = 2,       /* a side below 1, fewer than 2 classes, more than memory has */
    DOUBTMAP_BAD_PLACEMENT = 3,   /* the logits stand for less than the image */
    DOUBTMAP_BAD_TEMPERATURE = 4, /* not above 0, or beyond what float holds */
    DOUBTMAP_BAD_OUTPUT = 5,      /* a type of classes that does not hold them all, or bad steps */
    DOUBTMAP_NOT_FINITE = 6,      /* a logit is infinite or no number: the network is at fault */
    DOUBTMAP_NO_MEMORY = 7
};

/* One doubt of every pixel: as numbers, as bytes, as flags, or as several of them. */
struct doubtmap_doubt {
    float *values;  /* (images, height, width); NULL: not wanted */
    uint8_t *bytes; /* the same as low + step * byte, to the nearest; NULL: not wanted */
    uint8_t *flags; /* 1 where the doubt is above the threshold, else 0; NULL: not wanted */
    float low, step, threshold;
};

/* A call. Set all of it to 0, `bytes` with sizeof, and then what the call is about. */
struct doubtmap_call {
    size_t bytes; /* sizeof (struct doubtmap_call) */

    /* Class scores before softmax: logits[image][class][row][column], at the network's resolution.
     * Strides are in numbers; 0 where nothing lies in between. Columns are adjacent. Classes may
     * be masked with the lowest float. */
    const float *logits;
    int64_t images, classes, rows, columns;
    int64_t image_stride, class_stride, row_stride;

    /* Of the results, in pixels: the image's size. The logits stand for an area of covered pixels,
     * larger than the image where it was filled up at the right and below; 0: for the image. */
    int64_t height, width;
    double covered_height, covered_width;
    int32_t align_corners; /* as PyTorch has it: 0, or 1 */

    float temperature;   /* of calibration: x = logits / temperature; 0: 1 */
    int32_t threads;     /* 0: OMP_NUM_THREADS, else one a processor */
    int32_t class_bytes; /* 1, 2, 4 or 8: uint8_t, uint16_t, int32_t or int64_t; 0: 1 */
    void *class_map;     /* (images, height, width), the first of the largest; NULL: not wanted */
    struct doubtmap_doubt doubts[DOUBTMAP_DOUBTS];
};

/* DOUBTMAP_PIXELS_VERSION of the library that is loaded. */
DOUBTMAP_PIXELS_API int32_t doubtmap_pixels_version(void);

/* Compute what is wanted. DOUBTMAP_OK, or why nothing was computed. */
DOUBTMAP_PIXELS_API int32_t doubtmap_pixels(const struct doubtmap_call *call);

/* What such a number means, in English. */
DOUBTMAP_PIXELS_API const char *doubtmap_pixels_message(int32_t code);

#ifdef __cplusplus
}
#endif

#endif
