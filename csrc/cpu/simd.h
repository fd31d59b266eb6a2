/* Vectors of float as wide as this build's registers: load, store, multiply-add and exp. */
#ifndef ANEX_SIMD_H
#define ANEX_SIMD_H

#include "../half.h"

#include <stdint.h>

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
static inline vf vf_load_half(const half *p) {
    return (vf){anex_half_to_float(p[0]), anex_half_to_float(p[1]), anex_half_to_float(p[2]), anex_half_to_float(p[3])};
}
static inline void vf_store(float *p, vf x) { memcpy(p, &x, sizeof x); }
static inline vf vf_set(float x) { return (vf){x, x, x, x}; }
static inline vf vf_fma(vf a, vf b, vf c) { return a * b + c; }
#endif

typedef int32_t vi __attribute__((vector_size(VF * 4)));

static inline vf vf_zero(void) { return vf_set(0); }
/* where `mask` is all ones x, where it is zero y */
static inline vf vf_select(vi mask, vf x, vf y) { return (vf)(((vi)x & mask) | ((vi)y & ~mask)); }
/* a NaN in x stays, so that it is seen in the end */
static inline vf vf_max(vf x, vf y) { return vf_select((vi)(x < y), y, x); }

/* e^x for x <= 0, within 2 units of the last place; below -87 zero */
static inline vf vf_exp(vf x) {
    const vf magic = vf_set(12582912.0f); /* 1.5 * 2^23: adding it rounds to an integer in the low bits */
    vf low = vf_set(-87.0f), clamped = vf_max(x, low);
    vf rounded = vf_fma(clamped, vf_set(1.44269504f), magic), n = rounded - magic;
    vf r = vf_fma(n, vf_set(-0.693359375f), clamped);
    r = vf_fma(n, vf_set(2.12194440e-4f), r);
    vf p = vf_set(1.9875691500e-4f);
    p = vf_fma(p, r, vf_set(1.3981999507e-3f));
    p = vf_fma(p, r, vf_set(8.3334519073e-3f));
    p = vf_fma(p, r, vf_set(4.1665795894e-2f));
    p = vf_fma(p, r, vf_set(1.6666665459e-1f));
    p = vf_fma(p, r, vf_set(5.0000001201e-1f));
    p = vf_fma(p, r * r, r) + vf_set(1.0f);
    vf power = (vf)(((vi)rounded << 23) + 0x3f800000);
    return vf_select((vi)(x < low), vf_zero(), p * power);
}

#endif
