/* Products of a few vectors with many, at the speed of reading the many: what linear.c and linear_codes.c do alike.
   Each of the many is read as it lies, once, along memory; a task takes CHUNK of them. */
#ifndef ANEX_FEW_H
#define ANEX_FEW_H

#include "gemm.h"

enum { FEW = 4, CHUNK = 64 };
enum { AHEAD = 8192 }; /* bytes: the hardware's prefetch alone stops at each page */

/* `past`: nothing is gained from keeping the matrix in caches, which lose what others find there again */
static inline void few_prefetch(const bool past, const void *p) {
    if (past)
        __builtin_prefetch((const char *)p + AHEAD, 0, 0);
    else
        __builtin_prefetch((const char *)p + AHEAD);
}
static inline bool few_past(const anex_node *node, int64_t bytes) { return node->streams || bytes > 16 << 20; }

/* The lanes of x added up, by halves */
static inline float few_total(vf x) {
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(x);
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
    __m128 two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    return _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)));
#else
    float lanes[VF];
    vf_store(lanes, x);
    return (lanes[0] + lanes[2]) + (lanes[1] + lanes[3]);
#endif
}

/* A vector of k floats with zeros up to `padded`: itself if it is that already, else in `room` */
static inline const float *few_vector(const gemm_matrix *from, int64_t i, int64_t k, int64_t padded, float *room) {
    if (from->dtype == ANEX_F32 && from->col == 1 && padded == k) return (const float *)from->data + i * from->row;
    if (from->col == 1)
        gemm_widen(room, from->data, from->dtype, i * from->row, k);
    else
        for (int64_t j = 0; j < k; j++) room[j] = gemm_one(from->data, from->dtype, i * from->row + j * from->col);
    for (int64_t j = k; j < padded; j++) room[j] = 0;
    return room;
}

typedef struct few_output { /* of a product: element (i of the few, j of the many) is out[at + i * few + j * many] */
    int64_t at, few, many;
    const anex_tensor *bias; /* of the many, or of the few; NULL: none */
    bool bias_of_few;
} few_output;

/* sums[i] += bias[at + i], n of them */
static inline void few_add(float *sums, const anex_tensor *bias, int64_t at, int64_t n) {
    int64_t i = 0;
    for (; i + VF <= n; i += VF) vf_store(sums + i, vf_load(sums + i) + gemm_load(bias->data, bias->dtype, at + i));
    for (; i < n; i++) sums[i] += gemm_one(bias->data, bias->dtype, at + i);
}

/* sums [n][CHUNK] of n vectors and begin .. end-1 of the many: what follows the product, and to memory */
static inline void few_store(const anex_node *node, float *sums, int64_t n, int64_t begin, int64_t end,
                             const few_output *to) {
    anex_tensor *out = node->out[0];
    int64_t few_at[FEW] = {0}, many_at[CHUNK] = {0};
    for (int64_t i = 0; to->bias && i < n; i++)
        if (to->bias_of_few)
            for (int64_t j = 0; j < end - begin; j++)
                sums[i * CHUNK + j] += gemm_one(to->bias->data, to->bias->dtype, i);
        else
            few_add(sums + i * CHUNK, to->bias, begin, end - begin);
    for (int64_t i = 0; i < n; i++) few_at[i] = to->at + i * to->few;
    if (to->many == 1) {
        for (int64_t i = 0; i < n; i++) anex_epilogue_store(node, sums + i * CHUNK, few_at[i] + begin, end - begin);
        return;
    }
    for (int64_t j = begin; j < end; j++) many_at[j - begin] = j * to->many;
    anex_epilogue_run(node, sums, CHUNK, few_at, n, many_at, end - begin);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = begin; j < end; j++) {
            int64_t at = few_at[i] + many_at[j - begin];
            if (out->dtype == ANEX_F16)
                ((half *)out->data)[at] = anex_float_to_half(sums[i * CHUNK + j - begin]);
            else
                ((float *)out->data)[at] = sums[i * CHUNK + j - begin];
        }
}

static inline double few_cost(int64_t few, int64_t k, int64_t many) {
    return 0.05 * (double)(few * k * anex_min(many, CHUNK)) + 10;
}

#endif
