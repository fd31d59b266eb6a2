/* Lines of elements of any small dtype as float, for the quantisation kernels. */
#ifndef ANEX_QUANTIZE_H
#define ANEX_QUANTIZE_H

#include "../half.h"
#include "kernel.h"

/* y[i] = elements first.. of a packed F16, F32, I8, U8 (or BOOL) tensor */
static inline void anex_load_line(float *restrict y, const anex_tensor *t, int64_t first, int64_t n) {
    switch (t->dtype) {
    case ANEX_F16: anex_widen(y, (const half *)t->data + first, n); return;
    case ANEX_F32: memcpy(y, (const float *)t->data + first, (size_t)n * sizeof *y); return;
    case ANEX_I8: {
        const int8_t *x = (const int8_t *)t->data + first;
        for (int64_t i = 0; i < n; i++) y[i] = x[i];
        return;
    }
    default: {
        const uint8_t *x = (const uint8_t *)t->data + first;
        for (int64_t i = 0; i < n; i++) y[i] = x[i];
    }
    }
}

/* elements first.. of a packed F16 or F32 tensor = y[i] */
static inline void anex_store_line(const anex_tensor *t, int64_t first, const float *restrict y, int64_t n) {
    if (t->dtype == ANEX_F16)
        anex_narrow((half *)t->data + first, y, n);
    else
        memcpy((float *)t->data + first, y, (size_t)n * sizeof *y);
}

/* y = scale * (y - zero); scale and zero are one number or, when `each`, one per element */
static inline void anex_dequantize_line(float *restrict y, const float *restrict scale, const float *restrict zero,
                                        int64_t n,
                                        bool each) {
    if (each)
        for (int64_t i = 0; i < n; i++) y[i] = scale[i] * (y[i] - zero[i]);
    else
        for (int64_t i = 0; i < n; i++) y[i] = *scale * (y[i] - *zero);
}

#endif
