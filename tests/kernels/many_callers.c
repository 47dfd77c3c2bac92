/* Calls of the pass from several threads at once, each in several threads of its own, and from a
 * child that is forked in between: every result is that of one thread alone.
 *
 *     many_callers ROUNDS [fork]
 */

#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "doubtmap_pixels.h"
#include "pixels.h"

enum { CLASSES = 11, ROWS = 24, COLUMNS = 48, HEIGHT = 96, WIDTH = 192, CALLERS = 4, PARTS = 7 };
#define PIXELS (HEIGHT * WIDTH)

static float logits[CLASSES * PIXELS];
static int32_t segments[PIXELS];
static int rounds;

struct results {
    uint8_t classes[PIXELS];
    float entropy[PIXELS], resized[PIXELS];
    int64_t sums[PARTS * CLASSES];
};

static struct results alone;

static int compute(struct results *to, int threads) {
    struct doubtmap_call call = {
        .bytes = sizeof call, .logits = logits, .images = 1, .classes = CLASSES,
        .rows = HEIGHT, .columns = WIDTH, .height = HEIGHT, .width = WIDTH, .threads = threads,
        .class_map = to->classes};
    call.doubts[DOUBTMAP_ENTROPY].values = to->entropy;
    int failed = doubtmap_pixels(&call);
    call.rows = ROWS, call.columns = COLUMNS, call.class_map = NULL;
    call.doubts[DOUBTMAP_ENTROPY].values = to->resized;
    failed |= doubtmap_pixels(&call);
    const struct job job = {
        .values = logits, .images = 1, .rows = HEIGHT, .columns = WIDTH, .image_stride = 0,
        .channel_stride = PIXELS, .row_stride = WIDTH, .height = HEIGHT, .width = WIDTH,
        .segments = segments, .sums = to->sums, .factor = 1.0f, .operation = SHARES,
        .channels = CLASSES, .threads = threads};
    memset(to->sums, 0, sizeof to->sums);
    return failed | doubtmap_run(&job);
}

static void *caller(void *given) {
    struct results *to = calloc(1, sizeof *to);
    long wrong = 0;
    for (int round = 0; round < rounds; round++)
        wrong += compute(to, 3) || memcmp(to, &alone, sizeof *to);
    free(to);
    (void)given;
    return (void *)wrong;
}

int main(int count, char **words) {
    rounds = atoi(words[1]);
    for (int i = 0; i < CLASSES * PIXELS; i++) logits[i] = (float)(i * 7919L % 997) / 99.0f - 5.0f;
    for (int i = 0; i < PIXELS; i++) segments[i] = i / 50 % PARTS;
    long wrong = compute(&alone, 1);
    pthread_t callers[CALLERS];
    for (int i = 0; i < CALLERS; i++) pthread_create(callers + i, NULL, caller, NULL);
    for (int i = 0; count > 2 && i < rounds; i++) {
        const pid_t child = fork();
        if (!child) {
            alarm(20);
            struct results own;
            memset(&own, 0, sizeof own);
            _exit(compute(&own, 3) || memcmp(&own, &alone, sizeof own));
        }
        int status = 1;
        waitpid(child, &status, 0);
        wrong += status != 0;
    }
    for (int i = 0; i < CALLERS; i++) {
        void *found;
        pthread_join(callers[i], &found);
        wrong += (long)found;
    }
    printf("%ld\n", wrong);
    return wrong != 0;
}
