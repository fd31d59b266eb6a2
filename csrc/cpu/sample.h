/* Where an output element of a resized interval lies in the input: MIL's sampling modes. */
#ifndef ANEX_SAMPLE_H
#define ANEX_SAMPLE_H

#include <math.h>
#include <string.h>

#include "kernel.h"

typedef enum anex_sampling {
    ANEX_DEFAULT, ANEX_STRICT_ALIGN_CORNERS, ANEX_ALIGN_CORNERS, ANEX_OFFSET_CORNERS, ANEX_UNALIGN_CORNERS,
    ANEX_SAMPLINGS
} anex_sampling;

/* ANEX_SAMPLINGS: no such mode */
static inline anex_sampling anex_find_sampling(const char *name) {
    static const char *const names[] = {"DEFAULT", "STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "OFFSET_CORNERS",
                                        "UNALIGN_CORNERS"};
    int i = 0;
    while (i < ANEX_SAMPLINGS && strcmp(names[i], name)) i++;
    return (anex_sampling)i;
}

/* Point i of n between the elements `start` and `end` (0 and size - 1 for a whole axis; a box may run
   backwards), never outside them. */
static inline double anex_sample_point(anex_sampling mode, double start, double end, int64_t n, int64_t i) {
    double length = fabs(end - start), direction = end < start ? -1 : 1, at = 0;
    switch (mode) {
    case ANEX_STRICT_ALIGN_CORNERS: at = n > 1 ? length * ((double)i / (double)(n - 1)) : 0; break;
    case ANEX_ALIGN_CORNERS: at = n > 1 ? length * ((double)i / (double)(n - 1)) : length / 2; break;
    case ANEX_OFFSET_CORNERS: at = fmax(1, length) * (((double)i + 0.5) / (double)n); break;
    case ANEX_UNALIGN_CORNERS: at = (length + 1) * (((double)i + 0.5) / (double)n) - 0.5; break;
    default: at = (length + 1) * ((double)i / (double)n);
    }
    return start + direction * fmin(length, fmax(0, at));
}

#endif
