/* The interface of doubtmap_pixels.h: it checks a call, and makes a job for the pass of it. */

#define DOUBTMAP_PIXELS_BUILDING
#include "doubtmap_pixels.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "pixels.h"
#include "pixels_threads.h"

#define LONGEST ((int64_t)1 << 30)
#define MOST ((int64_t)1 << 46) /* numbers of one array: far below what int64_t counts in bytes */

int32_t doubtmap_pixels_version(void) { return DOUBTMAP_PIXELS_VERSION; }

const char *doubtmap_pixels_message(int32_t code) {
    static const char *const messages[] = {
        "all is well",
        "expected `bytes` to be sizeof (struct doubtmap_call); set it, or compile again with "
        "the header of this library",
        "expected at least 2 classes, and at least 1 image, row and column",
        "expected logits that stand for the image or more, with covered 0 or not below the image",
        "expected a temperature above 0, between 1e-30 and 1e30",
        "expected class_bytes of 1, 2, 4 or 8 that hold all classes, finite thresholds, and steps "
        "above 0",
        "expected finite logits; check the network's weights, or run it in float32",
        "no memory left for the pixel pass",
    };
    const int known = code >= 0 && code < (int32_t)(sizeof messages / sizeof *messages);
    return known ? messages[code] : "unknown code; it is of a later version of the library";
}

/* Whether it is a number; by its bits, since pixels.c is compiled for finite numbers. */
static int is_finite(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000u) != 0x7f800000u;
}

static int finite_double(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits >> 52 & 0x7ff) != 0x7ff;
}

static int all_finite(const struct job *job) {
    for (int64_t image = 0; image < job->images; image++)
        for (int64_t channel = 0; channel < job->channels; channel++)
            for (int64_t row = 0; row < job->rows; row++) {
                const float *values = job->values + image * job->image_stride +
                                      channel * job->channel_stride + row * job->row_stride;
                uint32_t bad = 0;
                for (int64_t i = 0; i < job->columns; i++) {
                    uint32_t bits;
                    memcpy(&bits, values + i, sizeof bits);
                    bad |= (bits & 0x7f800000u) + 0x00800000u; /* the top bit of those not finite */
                }
                if (bad & 0x80000000u) return 0;
            }
    return 1;
}

static int holds(int64_t side) { return side >= 1 && side <= LONGEST; }

/* Whether the product of three sides can be counted. */
static int countable(int64_t a, int64_t b, int64_t c) {
    return holds(a) && holds(b) && holds(c) && a <= MOST / b && a * b <= MOST / c;
}

/* Whether logits that stand for `covered` (0: `pixels`) stand for all `pixels`. */
static int placed(double *covered, int64_t pixels) {
    if (!finite_double(*covered)) return 0;
    if (*covered == 0.0) *covered = (double)pixels;
    return *covered >= (double)pixels && *covered <= 1e12;
}

static int32_t shaped(const struct doubtmap_call *call) {
    const int64_t maps = call->images > 0 ? call->images : 0;
    if (!call->logits || call->classes < 2 || call->classes > 1 << 20 || call->threads < 0 ||
        !countable(maps, call->height, call->width) ||
        !countable(maps, call->rows, call->columns) ||
        maps * call->rows * call->columns > MOST / call->classes)
        return DOUBTMAP_BAD_SHAPE;
    if (call->image_stride < 0 || call->class_stride < 0 || call->row_stride < 0)
        return DOUBTMAP_BAD_SHAPE;
    if (call->row_stride && call->row_stride < call->columns) return DOUBTMAP_BAD_SHAPE;
    const float t = call->temperature;
    if (!is_finite(t) || t < 0.0f || (t != 0.0f && (t < 1e-30f || t > 1e30f)))
        return DOUBTMAP_BAD_TEMPERATURE;
    const int32_t size = call->class_bytes;
    if (size && size != 1 && size != 2 && size != 4 && size != 8) return DOUBTMAP_BAD_OUTPUT;
    const int64_t most = size == 2 ? 1 << 16 : size >= 4 ? (int64_t)1 << 31 : 1 << 8;
    if (call->class_map && call->classes > most) return DOUBTMAP_BAD_OUTPUT;
    for (int doubt = 0; doubt < DOUBTMAP_DOUBTS; doubt++) {
        const struct doubtmap_doubt *to = call->doubts + doubt;
        if (to->bytes && !(is_finite(to->low) && is_finite(to->step) && to->step > 1e-30f))
            return DOUBTMAP_BAD_OUTPUT;
        if (to->flags && !is_finite(to->threshold)) return DOUBTMAP_BAD_OUTPUT;
    }
    return DOUBTMAP_OK;
}

/* What is wanted of each doubt; whether anything is. */
static int outputs(const struct doubtmap_call *call, struct job *job) {
    int any = 0;
    for (int doubt = 0; doubt < DOUBTMAP_DOUBTS; doubt++) {
        const struct doubtmap_doubt *to = call->doubts + doubt;
        job->maps[doubt] = to->values;
        job->bytes[doubt] = to->bytes;
        job->flags[doubt] = to->flags;
        job->low[doubt] = to->low;
        job->steps[doubt] = to->bytes ? 1.0f / to->step : 0.0f;
        job->limit[doubt] = to->threshold;
        if (!to->values && !to->bytes && !to->flags) continue;
        any = 1;
        if (doubt == DOUBTMAP_DIVERGENCE) job->inverse_temperature = 0.5f;
        else job->scores = 1;
    }
    job->class_map = call->class_map;
    job->class_bytes = call->class_bytes ? call->class_bytes : 1;
    return any || call->class_map;
}

/* The native samples between which each pixel centre of an axis lies, as PyTorch has them. */
static void neighbours(int64_t pixels, int64_t samples, double covered, int align_corners,
                       int32_t *below, float *weight) {
    for (int64_t pixel = 0; pixel < pixels; pixel++) {
        const double span = covered > 2.0 ? covered - 1.0 : 1.0;
        double at = align_corners ? (double)pixel * (double)(samples - 1) / span
                                  : ((double)pixel + 0.5) * (double)samples / covered - 0.5;
        at = at > 0.0 ? at : 0.0;
        at = at < (double)(samples - 1) ? at : (double)(samples - 1);
        below[pixel] = (int32_t)floor(at);
        weight[pixel] = (float)(at - floor(at));
    }
}

int32_t doubtmap_pixels(const struct doubtmap_call *call) {
    if (!call || call->bytes != sizeof *call) return DOUBTMAP_BAD_STRUCTURE;
    const int32_t wrong = shaped(call);
    if (wrong) return wrong;
    double area[2] = {call->covered_height, call->covered_width};
    if (!placed(area, call->height) || !placed(area + 1, call->width))
        return DOUBTMAP_BAD_PLACEMENT;
    const int64_t row = call->row_stride ? call->row_stride : call->columns;
    const int64_t channel = call->class_stride ? call->class_stride : row * call->rows;
    struct job job = {
        .values = call->logits,
        .images = call->images,
        .rows = call->rows,
        .columns = call->columns,
        .row_stride = row,
        .channel_stride = channel,
        .image_stride = call->image_stride ? call->image_stride : channel * call->classes,
        .height = call->height,
        .width = call->width,
        .factor = call->temperature > 0.0f ? 1.0f / call->temperature : 1.0f,
        .sign = -1.0f,
        .operation = STATISTICS,
        .channels = (int32_t)call->classes,
        .threads = call->threads ? call->threads : doubtmap_threads(),
    };
    if (!outputs(call, &job)) return DOUBTMAP_OK;
    if (!all_finite(&job)) return DOUBTMAP_NOT_FINITE;
    const int same = job.rows == job.height && job.columns == job.width &&
                     area[0] == (double)job.height && area[1] == (double)job.width;
    if (same && job.factor == 1.0f) return doubtmap_run(&job) ? DOUBTMAP_NO_MEMORY : DOUBTMAP_OK;
    const size_t sides = (size_t)(job.height + job.width);
    int32_t *below = malloc(sides * sizeof *below);
    float *weight = malloc(sides * sizeof *weight);
    int failed = !below || !weight;
    if (!failed) {
        neighbours(job.height, job.rows, area[0], call->align_corners, below, weight);
        neighbours(job.width, job.columns, area[1], call->align_corners, below + job.height,
                   weight + job.height);
        job.row_below = below;
        job.column_below = below + job.height;
        job.row_weight = weight;
        job.column_weight = weight + job.height;
        failed = doubtmap_run(&job);
    }
    free(below);
    free(weight);
    return failed ? DOUBTMAP_NO_MEMORY : DOUBTMAP_OK;
}
