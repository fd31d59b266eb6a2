/* Seconds since some moment; never goes back. */
#ifndef ANEX_CLOCK_H
#define ANEX_CLOCK_H

#if !defined(_POSIX_C_SOURCE) && !defined(_GNU_SOURCE)
#define _POSIX_C_SOURCE 200809L /* include this header first */
#endif
#include <time.h>

static inline double anex_clock(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#endif
