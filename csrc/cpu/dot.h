/* Vectors of VF sums of int8 products: each takes four products more at a time, exactly.

   One operand holds activations, the other weights, four along k to a lane. Weights are int8 as they are;
   activations are stored with DOT_ZERO added, as the instructions here want them: unsigned on x86. Sums wrap
   modulo 2^32, so the term that DOT_ZERO adds goes again with what it is known to be (gemm_int8.c).
   `dot`: the processor has an instruction for it, which no build of the kernels takes for granted: the assembler is
   asked for it, and the plan says whether it may run. */
#ifndef ANEX_DOT_H
#define ANEX_DOT_H

#include "simd.h"

#if defined(__AVX512F__)
typedef __m512i vq;
static inline vq vq_load(const void *p) { return _mm512_loadu_si512(p); }
static inline void vq_store(int32_t *p, vq x) { _mm512_storeu_si512(p, x); }
static inline vq vq_set(int32_t x) { return _mm512_set1_epi32(x); }
static inline vq vq_add(vq a, vq b) { return _mm512_add_epi32(a, b); }
static inline vq vq_sub(vq a, vq b) { return _mm512_sub_epi32(a, b); }
static inline vf vq_to_float(vq x) { return _mm512_cvtepi32_ps(x); }
static inline vq vq_shift_up(vq x, int bits) { return _mm512_slli_epi32(x, (unsigned)bits); }
static inline vq vq_dot_one(vq sum, vq activation, vq weight) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(activation), "v"(weight));
    return sum;
}
static inline vq vq_dot_one_at(vq sum, vq activation, const void *weights) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(activation), "m"(*(const vq *)weights));
    return sum;
}
/* A line of memory in two loads, which a compiler would make one: Zen 5 reads memory a quarter slower where each line
   is touched but once. */
static inline vq vq_load_line(const void *p) {
    const __m256i *halves = p;
    vq x = _mm512_castsi256_si512(_mm256_loadu_si256(halves));
    __asm__("vinserti64x4 $1, %1, %0, %0" : "+v"(x) : "m"(halves[1]));
    return x;
}
static inline vq vq_low_nibbles(vq x) { return _mm512_and_si512(x, _mm512_set1_epi8(15)); }
static inline vq vq_high_nibbles(vq x) { return vq_low_nibbles(_mm512_srli_epi16(x, 4)); }
static inline vq vq_dot_codes_pairs(vq sum, vq codes, vq weight) {
    return vq_add(sum, _mm512_madd_epi16(_mm512_maddubs_epi16(codes, weight), _mm512_set1_epi16(1)));
}
/* as 16-bit pairs, which fit: even and odd bytes apart */
static inline vq vq_dot_pairs(vq sum, vq activation, vq weight) {
    vq even = _mm512_madd_epi16(_mm512_and_si512(activation, _mm512_set1_epi16(0xff)),
                                _mm512_srai_epi16(_mm512_slli_epi16(weight, 8), 8));
    vq odd = _mm512_madd_epi16(_mm512_srli_epi16(activation, 8), _mm512_srai_epi16(weight, 8));
    return vq_add(sum, vq_add(even, odd));
}
#elif defined(__AVX2__)
typedef __m256i vq;
static inline vq vq_load(const void *p) { return _mm256_loadu_si256(p); }
static inline void vq_store(int32_t *p, vq x) { _mm256_storeu_si256((__m256i *)p, x); }
static inline vq vq_set(int32_t x) { return _mm256_set1_epi32(x); }
static inline vq vq_add(vq a, vq b) { return _mm256_add_epi32(a, b); }
static inline vq vq_sub(vq a, vq b) { return _mm256_sub_epi32(a, b); }
static inline vf vq_to_float(vq x) { return _mm256_cvtepi32_ps(x); }
static inline vq vq_shift_up(vq x, int bits) { return _mm256_slli_epi32(x, bits); }
static inline vq vq_load_line(const void *p) { return vq_load(p); }
static inline vq vq_low_nibbles(vq x) { return _mm256_and_si256(x, _mm256_set1_epi8(15)); }
static inline vq vq_high_nibbles(vq x) { return vq_low_nibbles(_mm256_srli_epi16(x, 4)); }
static inline vq vq_dot_codes_pairs(vq sum, vq codes, vq weight) {
    return vq_add(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(codes, weight), _mm256_set1_epi16(1)));
}
static inline vq vq_dot_one(vq sum, vq activation, vq weight) {
    __asm__("%{vex%} vpdpbusd %2, %1, %0" : "+x"(sum) : "x"(activation), "x"(weight));
    return sum;
}
static inline vq vq_dot_pairs(vq sum, vq activation, vq weight) {
    vq even = _mm256_madd_epi16(_mm256_and_si256(activation, _mm256_set1_epi16(0xff)),
                                _mm256_srai_epi16(_mm256_slli_epi16(weight, 8), 8));
    vq odd = _mm256_madd_epi16(_mm256_srli_epi16(activation, 8), _mm256_srai_epi16(weight, 8));
    return vq_add(sum, vq_add(even, odd));
}
#elif defined(__aarch64__)
typedef int32x4_t vq;
static inline vq vq_load(const void *p) { return vreinterpretq_s32_u8(vld1q_u8(p)); }
static inline void vq_store(int32_t *p, vq x) { vst1q_s32(p, x); }
static inline vq vq_set(int32_t x) { return vdupq_n_s32(x); }
static inline vq vq_add(vq a, vq b) { return vaddq_s32(a, b); }
static inline vq vq_sub(vq a, vq b) { return vsubq_s32(a, b); }
static inline vf vq_to_float(vq x) { return vcvtq_f32_s32(x); }
static inline vq vq_shift_up(vq x, int bits) { return vshlq_s32(x, vdupq_n_s32(bits)); }
static inline vq vq_load_line(const void *p) { return vq_load(p); }
static inline vq vq_low_nibbles(vq x) { return vandq_s32(x, vdupq_n_s32(0x0f0f0f0f)); }
static inline vq vq_high_nibbles(vq x) { return vreinterpretq_s32_u8(vshrq_n_u8(vreinterpretq_u8_s32(x), 4)); }
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC) /* the build that such processors use: anex_isa_dot_neon */
static inline vq vq_dot_one(vq sum, vq activation, vq weight) {
    __asm__(".arch_extension dotprod\n\tsdot %0.4s, %1.16b, %2.16b" : "+w"(sum) : "w"(activation), "w"(weight));
    return sum;
}
#endif
static inline vq vq_dot_pairs(vq sum, vq activation, vq weight) {
    int8x16_t a = vreinterpretq_s8_s32(activation), w = vreinterpretq_s8_s32(weight);
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(w)));
    int32x4_t high = vpaddlq_s16(vmull_s8(vget_high_s8(a), vget_high_s8(w)));
    return vaddq_s32(sum, vpaddq_s32(low, high));
}
#else
typedef int32_t vq __attribute__((vector_size(16)));
typedef uint32_t vq_bits __attribute__((vector_size(16)));
static inline vq vq_load(const void *p) {
    vq x;
    memcpy(&x, p, sizeof x);
    return x;
}
static inline void vq_store(int32_t *p, vq x) { memcpy(p, &x, sizeof x); }
static inline vq vq_set(int32_t x) { return (vq){x, x, x, x}; }
static inline vq vq_add(vq a, vq b) { return (vq)((vq_bits)a + (vq_bits)b); }
static inline vq vq_sub(vq a, vq b) { return (vq)((vq_bits)a - (vq_bits)b); }
static inline vf vq_to_float(vq x) { return __builtin_convertvector(x, vf); }
static inline vq vq_shift_up(vq x, int bits) { return (vq)((vq_bits)x << bits); }
static inline vq vq_load_line(const void *p) { return vq_load(p); }
static inline vq vq_low_nibbles(vq x) { return x & 0x0f0f0f0f; }
static inline vq vq_high_nibbles(vq x) { return (vq)((vq_bits)x >> 4) & 0x0f0f0f0f; }
static inline vq vq_dot_pairs(vq sum, vq activation, vq weight) {
    vq_bits a = (vq_bits)activation, w = (vq_bits)weight;
    vq_bits total = (vq_bits)sum;
    for (int byte = 0; byte < 4; byte++) {
        vq one = (vq)(w << (24 - 8 * byte)) >> 24;
        total += (a >> 8 * byte & 255) * (vq_bits)one;
    }
    return (vq)total;
}
#endif
#if !defined(__AVX2__) && !defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
static inline vq vq_dot_one(vq sum, vq activation, vq weight) { return vq_dot_pairs(sum, activation, weight); }
#endif
#if !defined(__AVX512F__)
static inline vq vq_dot_one_at(vq sum, vq activation, const void *weights) {
    return vq_dot_one(sum, activation, vq_load(weights));
}
#endif
#if !defined(__AVX2__)
static inline vq vq_dot_codes_pairs(vq sum, vq codes, vq weight) { return vq_dot_pairs(sum, codes, weight); }
#endif

#if defined(__aarch64__)
enum { DOT_ZERO = 0 };
#else
enum { DOT_ZERO = 128 };
#endif

static inline vq vq_dot(bool dot, vq sum, vq activation, vq weight) {
    return dot ? vq_dot_one(sum, activation, weight) : vq_dot_pairs(sum, activation, weight);
}
/* The same with codes 0 .. 15, which are alike with a sign and without, for the activation, and weights in memory */
static inline vq vq_dot_codes(bool dot, vq sum, vq codes, const void *weights) {
    return dot ? vq_dot_one_at(sum, codes, weights) : vq_dot_codes_pairs(sum, codes, vq_load(weights));
}

#endif
