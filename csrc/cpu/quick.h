/* Functions for results that become float16, in plans that need not give the same bits on every instruction set.

   Relative errors stay below 1e-4, a fifth of what rounding to float16 may add, over the whole range and with the
   infinities and NaN of the functions in vmath.h, which are right to the last bits of a float. */
#ifndef ANEX_QUICK_H
#define ANEX_QUICK_H

#include "simd.h"

#define QUICK_LOG2E 0x1.715476p+0f

/* 2^x: a polynomial of what is above the whole part, times two to the whole part */
static inline vf quick_exp2(vf x) {
#if defined(__AVX512DQ__)
    vf rest = _mm512_reduce_ps(x, _MM_FROUND_TO_NEG_INF);
#else
    typedef int32_t bits __attribute__((vector_size(VF * 4)));
    const vf magic = vf_set(0x1.8p23f);
    x = vf_min(vf_set(128), vf_max(vf_set(-126.75f), x)); /* infinity, and 0: k = -127 */
    vf shifted = (x - vf_set(0.5f)) + magic, k = shifted - magic, rest = x - k;
#endif
    vf y = vf_fma(vf_set(0x1.3f96a4p-4f), rest, vf_set(0x1.cefc4cp-3f));
    y = vf_fma(y, rest, vf_set(0x1.64444cp-1f));
    y = vf_fma(y, rest, vf_set(0x1.fff632p-1f));
#if defined(__AVX512DQ__)
    return _mm512_scalef_ps(y, x);
#else
    return y * (vf)(((bits)shifted + 127) << 23);
#endif
}

static inline vf quick_inverse(vf x) {
#if defined(__AVX512F__)
    return _mm512_rcp14_ps(x);
#else
    return vf_set(1) / x;
#endif
}

/* 1 / (1 + 2^x) */
static inline vf quick_logistic(vf x) { return quick_inverse(quick_exp2(x) + vf_set(1)); }

static inline vf quick_sigmoid(vf x) { return quick_logistic(x * vf_set(-QUICK_LOG2E)); }
static inline vf quick_silu(vf x) { return x * quick_sigmoid(x); }

static inline vf quick_gelu_sigmoid(vf x) { return x * quick_logistic(x * vf_set(-1.702f * QUICK_LOG2E)); }
static inline vf quick_gelu_tanh(vf x) { /* (1 + tanh z) / 2 = 1 / (1 + e^-2z) */
    vf z = vf_fma(x * x, vf_set(-0x1.a5a7dp-4f), vf_set(-0x1.26aec2p+1f));
    return x * quick_logistic(x * z);
}
/* x times the normal distribution up to x: beyond |x| lies a tail whose logarithm is close to a parabola. x stays the
   last factor, for the sign of zeros and for what is half a step of float16's smallest. */
static inline vf quick_gelu_exact(vf x) {
    typedef int32_t bits __attribute__((vector_size(VF * 4)));
    vf a = vf_min(vf_abs(x), vf_set(64)); /* the tail beyond that is 0 */
    vf q = vf_fma(vf_set(-0x1.ec89bp-20f), a, vf_set(0x1.025d66p-14f));
    q = vf_fma(q, a, vf_set(-0x1.e7dda0p-11f));
    q = vf_fma(q, a, vf_set(0x1.16c986p-7f));
    q = vf_fma(q, a, vf_set(-0x1.ba0a8ap-5f));
    q = vf_fma(q, a, vf_set(-0x1.d577aep-2f));
    q = vf_fma(q, a, vf_set(-0x1.26b864p+0f));
    q = vf_fma(q, a, vf_set(-1));
    vf tail = quick_exp2(q), rest = vf_set(1) - tail;
    bits below = x < vf_set(0);
    return x * (vf)((below & (bits)tail) | (~below & (bits)rest));
}

#endif
