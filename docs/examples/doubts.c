/* Native logits in, classes and doubts out.
 *
 *     cc -std=c99 doubts.c -I$(python -m doubtmap.runtime --include) \
 *         $(python -m doubtmap.runtime --library) -o doubts
 *     ./doubts logits.f32 19 256 512 1024 2048 > classes.u8
 *
 * The file holds float32 numbers [class][row][column]. Per class, the number of its pixels and how
 * many of them are to be looked at are told on the standard error. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "doubtmap_pixels.h"

int main(int count, char **words) {
    if (count != 7) {
        fprintf(stderr, "expected: LOGITS CLASSES ROWS COLUMNS HEIGHT WIDTH\n");
        return 2;
    }
    struct doubtmap_call call;
    memset(&call, 0, sizeof call);
    call.bytes = sizeof call;
    call.images = 1;
    call.classes = atoll(words[2]);
    call.rows = atoll(words[3]);
    call.columns = atoll(words[4]);
    call.height = atoll(words[5]);
    call.width = atoll(words[6]);
    const size_t pixels = (size_t)(call.height * call.width);
    const size_t numbers = (size_t)(call.classes * call.rows * call.columns);
    float *logits = malloc(numbers * sizeof *logits);
    uint8_t *classes = malloc(pixels), *look = malloc(pixels);
    FILE *file = fopen(words[1], "rb");
    if (!logits || !classes || !look || !file ||
        fread(logits, sizeof *logits, numbers, file) != numbers) {
        fprintf(stderr, "%s: expected %zu float32 numbers\n", words[1], numbers);
        return 1;
    }
    fclose(file);

    call.logits = logits;
    call.class_map = classes;
    call.doubts[DOUBTMAP_MAX_SOFTMAX].flags = look; /* less sure than 0.7 */
    call.doubts[DOUBTMAP_MAX_SOFTMAX].threshold = 0.3f;
    const int32_t code = doubtmap_pixels(&call);
    if (code != DOUBTMAP_OK) {
        fprintf(stderr, "%s\n", doubtmap_pixels_message(code));
        return 1;
    }

    for (int64_t number = 0; number < call.classes; number++) {
        size_t all = 0, doubtful = 0;
        for (size_t i = 0; i < pixels; i++)
            if (classes[i] == number) all++, doubtful += look[i];
        fprintf(stderr, "%d %zu %zu\n", (int)number, all, doubtful);
    }
    fwrite(classes, 1, pixels, stdout);
    free(logits);
    free(classes);
    free(look);
    return 0;
}
