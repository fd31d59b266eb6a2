/* Vectors of float as wide as this build's registers: load, store, multiply-add.

   The multiply-add rounds once where the hardware has one, and twice, which is faster there, where it has not.
   In a strict plan it rounds once everywhere (`once`), so that every build gives the same bits. */
#ifndef ANEX_SIMD_H
#define ANEX_SIMD_H

#include "../half.h"

#include <math.h>
#include <stdbool.h>
#include <stdint.h>

#if defined(__FMA__) || defined(__aarch64__)
enum { FUSED = 1 };
#else
enum { FUSED = 0 };
#endif

#if defined(__AVX512F__)
enum { VF = 16 };
typedef __m512 vf;
static inline vf vf_load(const float *p) { return _mm512_loadu_ps(p); }
static inline vf vf_load_half(const half *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p)); }
static inline void vf_store(float *p, vf x) { _mm512_storeu_ps(p, x); }
static inline vf vf_set(float x) { return _mm512_set1_ps(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm512_fmadd_ps(a, b, c); }
/* Of these two b when one is a NaN, or on arm64 the NaN */
static inline vf vf_max(vf a, vf b) { return _mm512_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm512_min_ps(a, b); }
static inline void vf_store_half(half *p, vf x) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf vf_zip_low(vf a, vf b) { /* a[0], b[0], a[1], .. of their lower halves; and of their upper ones */
    const __m512i from = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    return _mm512_permutex2var_ps(a, from, b);
}
static inline vf vf_zip_high(vf a, vf b) {
    const __m512i from = _mm512_setr_epi32(8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    return _mm512_permutex2var_ps(a, from, b);
}
static inline vf vf_load_i8(const void *p) {
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
static inline vf vf_look_up(const float *table, const void *p, int shift) {
    __m512i codes = _mm512_srli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)), (unsigned)shift);
    return _mm512_permutexvar_ps(codes, _mm512_loadu_ps(table)); /* by the lowest four bits */
}
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
enum { VF = 8 };
typedef __m256 vf;
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vf vf_load_half(const half *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
static inline vf vf_max(vf a, vf b) { return _mm256_max_ps(a, b); }
static inline vf vf_min(vf a, vf b) { return _mm256_min_ps(a, b); }
static inline void vf_store_half(half *p, vf x) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
}
static inline vf vf_zip_low(vf a, vf b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
}
static inline vf vf_zip_high(vf a, vf b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
}
static inline vf vf_load_i8(const void *p) {
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
static inline vf vf_look_up(const float *table, const void *p, int shift) {
    __m256i codes = _mm256_srli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), shift);
    vf low = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table), codes); /* by the lowest three bits */
    vf high = _mm256_permutevar8x32_ps(_mm256_loadu_ps(table + 8), codes);
    return _mm256_blendv_ps(low, high, _mm256_castsi256_ps(_mm256_slli_epi32(codes, 28)));
}
#elif defined(__aarch64__)
enum { VF = 4 };
typedef float32x4_t vf;
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline vf vf_load_half(const half *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void vf_store(float *p, vf x) { vst1q_f32(p, x); }
static inline vf vf_set(float x) { return vdupq_n_f32(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
static inline vf vf_max(vf a, vf b) { return vmaxq_f32(a, b); }
static inline vf vf_min(vf a, vf b) { return vminq_f32(a, b); }
static inline void vf_store_half(half *p, vf x) { vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32(x))); }
static inline vf vf_zip_low(vf a, vf b) { return vzip1q_f32(a, b); }
static inline vf vf_zip_high(vf a, vf b) { return vzip2q_f32(a, b); }
static inline uint32x4_t vf_codes(const void *p) { /* four bytes */
    uint32_t four;
    memcpy(&four, p, sizeof four);
    return vmovl_u16(vget_low_u16(vmovl_u8(vcreate_u8(four))));
}
static inline vf vf_load_i8(const void *p) {
    return vcvtq_f32_s32(vshrq_n_s32(vshlq_n_s32(vreinterpretq_s32_u32(vf_codes(p)), 24), 24));
}
static inline vf vf_look_up(const float *table, const void *p, int shift) {
    uint32x4_t codes = vandq_u32(vshlq_u32(vf_codes(p), vdupq_n_s32(-shift)), vdupq_n_u32(15));
    uint32x4_t bytes = vaddq_u32(vmulq_n_u32(codes, 0x04040404), vdupq_n_u32(0x03020100));
    const uint8_t *from = (const uint8_t *)table;
    uint8x16x4_t all = {{vld1q_u8(from), vld1q_u8(from + 16), vld1q_u8(from + 32), vld1q_u8(from + 48)}};
    return vreinterpretq_f32_u8(vqtbl4q_u8(all, vreinterpretq_u8_u32(bytes)));
}
#else
enum { VF = 4 };
typedef float vf __attribute__((vector_size(16)));
static inline vf vf_load(const float *p) {
    vf x;
    memcpy(&x, p, sizeof x);
    return x;
}
typedef int32_t vi __attribute__((vector_size(16)));
static inline vf vf_load_half(const half *p) {
    uint16_t h __attribute__((vector_size(8)));
    memcpy(&h, p, sizeof h);
    vi x = __builtin_convertvector(h, vi), magnitude = (x & 0x7fff) << 13;
    vi y = (vi)((vf)magnitude * 0x1p112f); /* subnormals too */
    return (vf)(y | ((magnitude >= 0x0f800000) & 0x7f800000) | (x & 0x8000) << 16);
}
static inline void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
static inline vf vf_set(float x) { return (vf){x, x, x, x}; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
static inline vf vf_max(vf a, vf b) {
    vi mask = a > b;
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}
static inline vf vf_min(vf a, vf b) {
    vi mask = a < b;
    return (vf)(((vi)a & mask) | ((vi)b & ~mask));
}
static inline vf vf_zip_low(vf a, vf b) { return (vf){a[0], b[0], a[1], b[1]}; }
static inline vf vf_zip_high(vf a, vf b) { return (vf){a[2], b[2], a[3], b[3]}; }
static inline void vf_store_half(half *p, vf x) {
    for (int i = 0; i < VF; i++) p[i] = anex_float_to_half(x[i]);
}
static inline vf vf_load_i8(const void *p) {
    const int8_t *x = p;
    return (vf){x[0], x[1], x[2], x[3]};
}
static inline vf vf_look_up(const float *table, const void *p, int shift) {
    const uint8_t *x = p;
    return (vf){table[x[0] >> shift & 15], table[x[1] >> shift & 15], table[x[2] >> shift & 15],
                table[x[3] >> shift & 15]};
}
#endif

static inline vf vf_zero(void) { return vf_set(0); }
static inline vf vf_load_as(const void *p, bool halves, int64_t at) {
    return halves ? vf_load_half((const half *)p + at) : vf_load((const float *)p + at);
}
/* The first n lanes, 0 < n <= VF, of float16 or float in memory; others are 0 */
static inline vf vf_load_some(const void *p, bool halves, int64_t n) {
#if defined(__AVX512F__)
    __mmask16 some = (__mmask16)((1u << n) - 1);
    return halves ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(some, p)) : _mm512_maskz_loadu_ps(some, p);
#else
    float lanes[VF] = {0};
    for (int64_t i = 0; i < VF && i < n; i++)
        lanes[i] = halves ? anex_half_to_float(((const half *)p)[i]) : ((const float *)p)[i];
    return vf_load(lanes);
#endif
}
static inline void vf_store_some(void *p, bool halves, vf x, int64_t n) {
#if defined(__AVX512F__)
    __mmask16 some = (__mmask16)((1u << n) - 1);
    if (halves)
        _mm256_mask_storeu_epi16(p, some, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
    else
        _mm512_mask_storeu_ps(p, some, x);
#else
    float lanes[VF];
    vf_store(lanes, x);
    for (int64_t i = 0; i < VF && i < n; i++)
        if (halves)
            ((half *)p)[i] = anex_float_to_half(lanes[i]);
        else
            ((float *)p)[i] = lanes[i];
#endif
}
static inline void vf_store_as(void *p, bool halves, int64_t at, vf x) {
    if (halves)
        vf_store_half((half *)p + at, x);
    else
        vf_store((float *)p + at, x);
}
/* The lower half of the lanes to one place, the upper half to another */
static inline void vf_store_halves(float *low, float *high, vf x) {
#if defined(__AVX512F__)
    _mm256_storeu_ps(low, _mm512_castps512_ps256(x));
    _mm256_storeu_ps(high, _mm512_extractf32x8_ps(x, 1));
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    _mm_storeu_ps(low, _mm256_castps256_ps128(x));
    _mm_storeu_ps(high, _mm256_extractf128_ps(x, 1));
#else
    float lanes[VF];
    vf_store(lanes, x);
    memcpy(low, lanes, sizeof lanes / 2);
    memcpy(high, lanes + VF / 2, sizeof lanes / 2);
#endif
}
static inline vf vf_abs(vf x) { return vf_max(x, -x); }

/* x[VF] becomes its transpose: each step brings together what is half of the rows apart. */
static inline __attribute__((always_inline)) void vf_transpose(vf *x) {
    vf y[VF];
#pragma GCC unroll 4
    for (int step = 1; step < VF; step *= 2) {
#pragma GCC unroll 8
        for (int i = 0; i < VF / 2; i++) {
            y[2 * i] = vf_zip_low(x[i], x[i + VF / 2]);
            y[2 * i + 1] = vf_zip_high(x[i], x[i + VF / 2]);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VF; i++) x[i] = y[i];
    }
}

/* Lanes 0, 2, .. of a and then of b; and lanes 1, 3, .. */
static inline vf vf_even(vf a, vf b) {
#if defined(__AVX512F__)
    const __m512i from = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
    return _mm512_permutex2var_ps(a, from, b);
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    __m256 lanes = _mm256_shuffle_ps(a, b, 0x88);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(lanes), 0xd8));
#elif defined(__aarch64__)
    return vuzp1q_f32(a, b);
#else
    return (vf){a[0], a[2], b[0], b[2]};
#endif
}
static inline vf vf_odd(vf a, vf b) {
#if defined(__AVX512F__)
    const __m512i from = _mm512_setr_epi32(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31);
    return _mm512_permutex2var_ps(a, from, b);
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    __m256 lanes = _mm256_shuffle_ps(a, b, 0xdd);
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(lanes), 0xd8));
#elif defined(__aarch64__)
    return vuzp2q_f32(a, b);
#else
    return (vf){a[1], a[3], b[1], b[3]};
#endif
}

/* Of all lanes of x[0 .. 3]: the sum; the greatest, which may be of what is beside a NaN */
static inline float vf_sum_of_four(const vf *x) {
    vf sum = (x[0] + x[1]) + (x[2] + x[3]);
#if defined(__AVX512F__)
    return _mm512_reduce_add_ps(sum);
#else
    float lane[VF];
    vf_store(lane, sum);
    for (int j = 1; j < VF; j++) lane[0] += lane[j];
    return lane[0];
#endif
}
static inline float vf_max_of_four(const vf *x) {
    vf max = vf_max(vf_max(x[0], x[1]), vf_max(x[2], x[3]));
#if defined(__AVX512F__)
    return _mm512_reduce_max_ps(max);
#else
    float lane[VF];
    vf_store(lane, max);
    for (int j = 1; j < VF; j++) lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    return lane[0];
#endif
}

static inline float fma_if(bool once, float a, float b, float c) { return FUSED || once ? fmaf(a, b, c) : a * b + c; }
static inline vf vf_fma_if(bool once, vf a, vf b, vf c) {
    if (FUSED || !once) return vf_fma(a, b, c);
    float x[VF], y[VF], z[VF];
    vf_store(x, a), vf_store(y, b), vf_store(z, c);
    for (int i = 0; i < VF; i++) z[i] = fmaf(x[i], y[i], z[i]);
    return vf_load(z);
}

#endif
