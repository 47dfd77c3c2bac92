/* What tables.c and sums.c share. */

#ifndef DOUBTMAP_SUMS_H
#define DOUBTMAP_SUMS_H

#include <stdint.h>

#include "pixels.h"

/* The k-th of float64 numbers, or of unsigned ones of so many bytes. */
static inline double number_at(const void *numbers, int64_t bytes, int64_t k) {
    switch (bytes) {
    case 1: return ((const uint8_t *)numbers)[k];
    case 2: return ((const uint16_t *)numbers)[k];
    case 4: return ((const uint32_t *)numbers)[k];
    default: return ((const double *)numbers)[k];
    }
}

#endif
