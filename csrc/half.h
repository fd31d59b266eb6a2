/* float16 is a storage format here: it is widened to float to compute and narrowed once, to nearest
   even, to store. Hardware converts where the build allows it; the plain form gives the same bits. */
#ifndef ANEX_HALF_H
#define ANEX_HALF_H

#include <stdint.h>
#include <string.h>

#if defined(__F16C__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

typedef uint16_t half;

#if defined(__F16C__)
static inline float anex_half_to_float(half h) { return _cvtsh_ss(h); }
static inline half anex_float_to_half(float f) { return _cvtss_sh(f, _MM_FROUND_TO_NEAREST_INT); }
#elif defined(__aarch64__)
static inline float anex_half_to_float(half h) {
    __fp16 v;
    memcpy(&v, &h, sizeof v);
    return (float)v;
}
static inline half anex_float_to_half(float f) {
    __fp16 v = (__fp16)f;
    half h;
    memcpy(&h, &v, sizeof h);
    return h;
}
#else
/* Without branches, so that loops over these vectorise: every case is computed and one is kept. */
static inline float anex_half_to_float(half h) {
    int32_t magnitude = h & 0x7fff, bits, tiny;
    float value = (float)magnitude * 0x1p-24f; /* subnormal: an exact integer times 2^-24 */
    memcpy(&tiny, &value, sizeof tiny);
    bits = (magnitude << 13) + (112 << 23);
    bits += magnitude >= 0x7c00 ? 112 << 23 : 0;    /* infinity, */
    bits |= magnitude > 0x7c00 ? 0x400000 : 0;      /* or a NaN made quiet */
    bits = magnitude < 0x400 ? tiny : bits;
    uint32_t all = (uint32_t)bits | (uint32_t)(h & 0x8000) << 16;
    memcpy(&value, &all, sizeof value);
    return value;
}
static inline half anex_float_to_half(float f) {
    int32_t bits, tiny;
    memcpy(&bits, &f, sizeof bits);
    int32_t sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
    memcpy(&f, &magnitude, sizeof f);
    f += 0.5f; /* 0.5 has its last bit at 2^-24: the float adder rounds what is below 2^-14 */
    memcpy(&tiny, &f, sizeof tiny);
    int32_t odd = magnitude >> 13 & 1, narrow = (magnitude - (112 << 23) + 0xfff + odd) >> 13;
    narrow = magnitude < 0x38800000 ? tiny - 0x3f000000 : narrow;
    narrow = magnitude >= 0x477ff000 ? 0x7c00 : narrow;                                  /* 65520 and above: infinity */
    narrow = magnitude > 0x7f800000 ? 0x7e00 | (magnitude >> 13 & 0x3ff) : narrow; /* NaN keeps its payload */
    return (half)(sign | narrow);
}
#endif

static inline void anex_widen(float *y, const half *x, int64_t n) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16) _mm512_storeu_ps(y + i, _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(x + i))));
    if (i < n) { /* rows of fewer than 16 are common enough */
        __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
        _mm512_mask_storeu_ps(y + i, rest, _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(rest, x + i)));
        return;
    }
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8) _mm256_storeu_ps(y + i, _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(x + i))));
#elif defined(__aarch64__)
    for (; i + 8 <= n; i += 8) {
        float16x8_t v = vreinterpretq_f16_u16(vld1q_u16(x + i));
        vst1q_f32(y + i, vcvt_f32_f16(vget_low_f16(v)));
        vst1q_f32(y + i + 4, vcvt_high_f32_f16(v));
    }
#endif
    for (; i < n; i++) y[i] = anex_half_to_float(x[i]);
}

static inline void anex_narrow(half *y, const float *x, int64_t n) {
    int64_t i = 0;
#if defined(__AVX512F__)
    for (; i + 16 <= n; i += 16)
        _mm256_storeu_si256((__m256i *)(y + i), _mm512_cvtps_ph(_mm512_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
    if (i < n) {
        __mmask16 rest = (__mmask16)((1u << (n - i)) - 1);
        _mm256_mask_storeu_epi16(y + i, rest,
                                 _mm512_cvtps_ph(_mm512_maskz_loadu_ps(rest, x + i), _MM_FROUND_TO_NEAREST_INT));
        return;
    }
#elif defined(__F16C__)
    for (; i + 8 <= n; i += 8)
        _mm_storeu_si128((__m128i *)(y + i), _mm256_cvtps_ph(_mm256_loadu_ps(x + i), _MM_FROUND_TO_NEAREST_INT));
#elif defined(__aarch64__)
    for (; i + 8 <= n; i += 8) {
        float16x4_t low = vcvt_f16_f32(vld1q_f32(x + i));
        vst1q_u16(y + i, vreinterpretq_u16_f16(vcvt_high_f16_f32(low, vld1q_f32(x + i + 4))));
    }
#endif
    for (; i < n; i++) y[i] = anex_float_to_half(x[i]);
}

#endif
