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
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
enum { VF = 8 };
typedef __m256 vf;
static inline vf vf_load(const float *p) { return _mm256_loadu_ps(p); }
static inline vf vf_load_half(const half *p) { return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p)); }
static inline void vf_store(float *p, vf x) { _mm256_storeu_ps(p, x); }
static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return _mm256_fmadd_ps(a, b, c); }
#elif defined(__aarch64__)
enum { VF = 4 };
typedef float32x4_t vf;
static inline vf vf_load(const float *p) { return vld1q_f32(p); }
static inline vf vf_load_half(const half *p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p))); }
static inline void vf_store(float *p, vf x) { vst1q_f32(p, x); }
static inline vf vf_set(float x) { return vdupq_n_f32(x); }
static inline vf vf_fma(vf a, vf b, vf c) { return vfmaq_f32(c, a, b); }
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
#endif

static inline vf vf_zero(void) { return vf_set(0); }

static inline float fma_if(bool once, float a, float b, float c) { return FUSED || once ? fmaf(a, b, c) : a * b + c; }
static inline vf vf_fma_if(bool once, vf a, vf b, vf c) {
    if (FUSED || !once) return vf_fma(a, b, c);
    float x[VF], y[VF], z[VF];
    vf_store(x, a), vf_store(y, b), vf_store(z, c);
    for (int i = 0; i < VF; i++) z[i] = fmaf(x[i], y[i], z[i]);
    return vf_load(z);
}

#endif
