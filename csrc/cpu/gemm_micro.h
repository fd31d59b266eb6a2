/* The loops of gemm.c that multiply: up to MR rows of A, which are float by then, times a panel of B. */
#ifndef ANEX_GEMM_MICRO_H
#define ANEX_GEMM_MICRO_H

#include "gemm.h"

enum { ROW = KC + 16 /* floats from row to row of A; not a power of two, so that rows spread over the cache */ };
enum { VECTORS = NR / VF };
_Static_assert(VECTORS == 2, "a byte of nibbles has a code for either vector");

static inline vf decode(bool nibbles, const uint8_t *codes, const float *table, int v) {
    return nibbles ? vf_look_up(table, codes, 4 * v) : vf_load_i8(codes + v * VF);
}

enum { PIECE = 16 /* steps along k, between which other work is done */ };

/* Work beside a product, for units that have no part in multiplying and would wait. */
typedef struct beside {
    /* memory asked for: `pace` bytes further with each step along k. Asked for in bursts some of it would be
       forgotten, and the hardware alone begins anew on each page. */
    const char *ask;
    int64_t pace;
    /* B that lies in rows, so many bytes apart, becomes a panel while it is multiplied for the first time */
    float *panel;
    int64_t step;
    /* rows of A that follow become float, PIECE at a time; those that follow them are asked for */
    const char *from, *later;
    int64_t from_step, later_step; /* bytes */
    bool halves;
    float *to;
    int64_t rows, depth; /* of them; `depth` is a multiple of PIECE */
} beside;

static inline __attribute__((always_inline)) void prepare(const beside *next, int64_t k) {
    const bool halves = next->halves;
    const char *from = next->from + k * (halves ? 2 : 4), *later = next->later + k * (halves ? 2 : 4);
    float *to = next->to + k;
    for (int64_t r = 0; r < next->rows; r++, from += next->from_step, later += next->later_step, to += ROW) {
        __builtin_prefetch(later, 0, 2);
#pragma GCC unroll 4
        for (int i = 0; i < PIECE; i += VF) vf_store(to + i, vf_load_as(from, halves, i));
    }
}

/* to [m][NR] = prior + A [m, depth] . B [depth, NR]; `prior` may be NULL or `to` */
typedef void micro_kernel(int64_t depth, const float *a, const void *b, const float *prior, float *to,
                          const beside *next);

/* `soon`: what is asked for is for this very product, so it is to come nearest. `pack`: B is in rows, not in a panel. */
static inline __attribute__((always_inline)) void micro(const int m, const int vectors, const bool half_b,
                                                        const bool by_row, const bool once, const bool soon,
                                                        const bool pack, int64_t depth, const float *a, const void *b,
                                                        const float *prior, float *to, const beside *next) {
    enum { AHEAD = 8 }; /* rows of B */
    vf sum[MR][VECTORS];
    const char *ask = next->ask, *row = b;
    const int64_t pace = next->pace, step = next->step, rows_end = next->rows ? next->depth : 0;
    float *panel = next->panel;
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vf_zero();
    for (int64_t k = 0; k < depth;) {
        const int64_t end = anex_min(depth, k + PIECE);
        if (k < rows_end && k + PIECE <= depth) prepare(next, k);
        for (; k < end; k++) {
            vf y[VECTORS];
            if (pack) {
                __builtin_prefetch(row + AHEAD * step);
                if (!half_b) __builtin_prefetch(row + AHEAD * step + NR * sizeof(float) - 1);
            } else if (soon) {
                __builtin_prefetch(ask, 0, 3);
            } else {
                __builtin_prefetch(ask, 0, 2);
            }
            ask += pace;
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) {
                y[v] = pack ? vf_load_as(row, half_b, v * VF)
                     : half_b ? vf_load_half((const half *)b + k * NR + v * VF)
                              : vf_load((const float *)b + k * NR + v * VF);
                if (pack) vf_store(panel + k * NR + v * VF, y[v]);
            }
            row += step;
#pragma GCC unroll 16
            for (int i = 0; i < m; i++) {
                vf x = vf_set(by_row ? a[i * ROW + k] : a[k * MR + i]);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++) sum[i][v] = vf_fma_if(once, x, y[v], sum[i][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (prior) sum[i][v] = vf_load(prior + i * NR + v * VF) + sum[i][v];
            vf_store(to + i * NR + v * VF, sum[i][v]);
        }
}

#define MICRO(m, pack, half_b, by_row)                                                                         \
    static void micro_##m##_##pack##half_b##by_row(int64_t depth, const float *a, const void *b,               \
                                                   const float *prior, float *to, const beside *next) {        \
        micro(m < MR ? m : MR, VECTORS, half_b, by_row, false, false, pack, depth, a, b, prior, to, next);     \
    }
#define MICROS(m) \
    MICRO(m, 0, 0, 0) MICRO(m, 0, 0, 1) MICRO(m, 0, 1, 0) MICRO(m, 0, 1, 1) MICRO(m, 1, 0, 1) MICRO(m, 1, 1, 1)
#define MICRO_ROW(m)                                                                                   \
    {{{micro_##m##_000, micro_##m##_001}, {micro_##m##_010, micro_##m##_011}},                         \
     {{NULL, micro_##m##_101}, {NULL, micro_##m##_111}}},

#if defined(__AVX512F__)
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif defined(__AVX2__)
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#elif defined(__aarch64__)
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#else
#define EACH_ROWS(X) X(1) X(2) X(3) X(4)
#endif
EACH_ROWS(MICROS)
static micro_kernel *const micro_kernels[MR][2][2][2] = {EACH_ROWS(MICRO_ROW)}; /* [rows - 1][pack][half_b][by_row] */

/* The same of codes: `affine` the scales and zeros of these columns, of all of depth */
typedef void codes_kernel(int64_t depth, const float *a, const uint8_t *codes, const float *table, const float *affine,
                          bool zeros, const float *prior, float *to);

static inline __attribute__((always_inline)) void micro_codes(const int m, const bool nibbles, const bool by_row,
                                                              int64_t depth, const float *a, const uint8_t *codes,
                                                              const float *table, const float *affine, bool zeros,
                                                              const float *prior, float *to) {
    enum { AHEAD = 4096 }; /* bytes: of the next block of these columns at last */
    const int several = m == 1 ? 4 : m == 2 ? 2 : 1; /* sums of few rows would wait for the adder */
    vf sum[4][MR][VECTORS], zero[VECTORS];
    const int64_t row = nibbles ? NR / 2 : NR;
    for (int v = 0; v < VECTORS; v++) zero[v] = zeros ? vf_load(affine + NR + v * VF) : vf_zero();
#pragma GCC unroll 4
    for (int s = 0; s < several; s++)
#pragma GCC unroll 16
        for (int i = 0; i < m; i++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[s][i][v] = vf_zero();
    for (int64_t k = 0; k < depth; k += several) {
#pragma GCC unroll 4
        for (int s = 0; s < several; s++) {
            if (s && k + s >= depth) break;
            if (s * row % 64 == 0) __builtin_prefetch(codes + (k + s) * row + AHEAD); /* each line of the cache */
            vf y[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) y[v] = decode(nibbles, codes + (k + s) * row, table, v) - zero[v];
#pragma GCC unroll 16
            for (int i = 0; i < m; i++) {
                vf x = vf_set(by_row ? a[i * ROW + k + s] : a[(k + s) * MR + i]);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sum[s][i][v] = vf_fma(x, y[v], sum[s][i][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            vf scale = vf_load(affine + v * VF), total = sum[0][i][v];
            if (several == 4) total = (total + sum[1][i][v]) + (sum[2][i][v] + sum[3][i][v]);
            if (several == 2) total = total + sum[1][i][v];
            vf_store(to + i * NR + v * VF,
                     vf_fma(total, scale, prior ? vf_load(prior + i * NR + v * VF) : vf_zero()));
        }
}

#define CODES(m, nibbles, by_row)                                                                               \
    static void codes_##m##_##nibbles##by_row(int64_t depth, const float *a, const uint8_t *codes,              \
                                              const float *table, const float *affine, bool zeros,              \
                                              const float *prior, float *to) {                                  \
        micro_codes(m < MR ? m : MR, nibbles, by_row, depth, a, codes, table, affine, zeros, prior, to);        \
    }
#define CODES_OF(m) CODES(m, 0, 0) CODES(m, 0, 1) CODES(m, 1, 0) CODES(m, 1, 1)
#define CODES_ROW(m) {{codes_##m##_00, codes_##m##_01}, {codes_##m##_10, codes_##m##_11}},
EACH_ROWS(CODES_OF)
static codes_kernel *const codes_kernels[MR][2][2] = {EACH_ROWS(CODES_ROW)}; /* [rows - 1][nibbles][by_row] */

/* For builds that do not fuse, in strict plans: only as fast as it must be. */
static void micro_once(int64_t m, bool half_b, bool by_row, int64_t depth, const float *a, const void *b,
                       const float *prior, float *to) {
    for (int64_t i = 0; i < m; i++) {
        const float *x = by_row ? a + i * ROW : a + i, *before = prior ? prior + i * NR : NULL;
        const beside none = {.ask = (const char *)x};
        if (half_b && by_row)
            micro(1, VECTORS, true, true, true, false, false, depth, x, b, before, to + i * NR, &none);
        else if (half_b)
            micro(1, VECTORS, true, false, true, false, false, depth, x, b, before, to + i * NR, &none);
        else if (by_row)
            micro(1, VECTORS, false, true, true, false, false, depth, x, b, before, to + i * NR, &none);
        else
            micro(1, VECTORS, false, false, true, false, false, depth, x, b, before, to + i * NR, &none);
    }
}

#endif
