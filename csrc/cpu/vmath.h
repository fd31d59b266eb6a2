/* Functions of one float that gcc turns into vector code: no branches, no tables, no calls.

   Each is within a few units in the last place of the true value over its whole range, and gives for
   infinities, NaN, zeros and subnormals what C's libm gives, unless its comment says otherwise. The
   polynomials are minimax fits made for this file (weighted least squares in 40 digits); test_vmath.py
   holds every function against a float64 reference. Selections are written so that a NaN passes. */
#ifndef ANEX_VMATH_H
#define ANEX_VMATH_H

#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t vm_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline float vm_float(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}
static inline uint64_t vm_bits64(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}
static inline double vm_double(uint64_t u) {
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}
static inline float vm_abs(float x) { return vm_float(vm_bits(x) & 0x7fffffff); }
/* |x| with the sign of s; x must not be negative */
static inline float vm_with_sign(float x, float s) { return vm_float(vm_bits(x) | (vm_bits(s) & 0x80000000)); }

/* ---- rounding ------------------------------------------------------------------------------- */

/* To nearest, halves to even. Instruction sets without the instruction round by adding 2^23. */
static inline float vm_rint(float x) {
#if defined(__SSE4_1__) || defined(__aarch64__)
    return rintf(x);
#else
    float a = vm_abs(x), r = (a + 0x1p23f) - 0x1p23f;
    return a < 0x1p23f ? vm_with_sign(r, x) : x;
#endif
}
static inline float vm_floor(float x) {
    float r = vm_rint(x);
    return r > x ? r - 1 : r;
}
static inline float vm_ceil(float x) {
    float r = vm_rint(x);
    return r < x ? vm_with_sign(vm_abs(r + 1), x) : r; /* ceil(-0.7) is -0 */
}
static inline float vm_trunc(float x) { return vm_with_sign(vm_floor(vm_abs(x)), x); }

/* ---- exponentials --------------------------------------------------------------------------- */

#define VM_LOG2E 0x1.715476p+0f
#define VM_LN2_HI 0x1.62e4p-1f /* 16 bits: exact times any exponent */
#define VM_LN2_LO 0x1.7f7d1cp-20f
#define VM_MAGIC 0x1.8p23f /* adding it leaves the nearest integer in the low bits */

/* x = k ln 2 + r with |r| <= ln 2 / 2; the low bits of `shifted` are k */
typedef struct vm_reduced {
    float r;
    uint32_t k;
    float k_float;
} vm_reduced;
static inline vm_reduced vm_reduce(float x) {
    float shifted = x * VM_LOG2E + VM_MAGIC, k = shifted - VM_MAGIC;
    return (vm_reduced){(x - k * VM_LN2_HI) - k * VM_LN2_LO, vm_bits(shifted) - 0x4b400000u, k};
}
/* e^r - 1 for |r| <= 0.347 */
static inline float vm_expm1_near(float r) {
    float q = 0x1.6db47ap-10f;
    q = q * r + 0x1.123b92p-7f;
    q = q * r + 0x1.55545ep-5f;
    q = q * r + 0x1.55548ep-3f;
    q = q * r + 0.5f;
    return r + r * r * q;
}
/* (1 + p) 2^k for -252 <= k <= 254, rounded once where the result is subnormal */
static inline float vm_scale(float p, uint32_t k) {
    uint32_t half = (uint32_t)((int32_t)k >> 1);
    return ((1 + p) * vm_float((half + 127) << 23)) * vm_float((k - half + 127) << 23);
}
/* e^x 2^j for a small j */
static inline float vm_exp_times(float x, int32_t j) {
    x = x < -105 ? -105 : x;
    x = x > 90 ? 90 : x;
    vm_reduced v = vm_reduce(x);
    return vm_scale(vm_expm1_near(v.r), v.k + (uint32_t)j);
}
static inline float vm_exp(float x) { return vm_exp_times(x, 0); }

/* For fast plans: rounds once per multiply-add where the hardware does. */
static inline float vm_fma(float a, float b, float c) {
#if defined(__FMA__) || defined(__aarch64__)
    return __builtin_fmaf(a, b, c);
#else
    return a * b + c;
#endif
}
/* e^x for x <= 0, for fast plans: half the work of vm_exp; what would be subnormal is 0 */
static inline float vm_exp_below(float x) {
    x = x < -88 ? -88 : x; /* k = -127, whose scale is 0 */
    float shifted = vm_fma(x, VM_LOG2E, VM_MAGIC), k = shifted - VM_MAGIC;
    float r = vm_fma(k, -VM_LN2_LO, vm_fma(k, -VM_LN2_HI, x)), q = 0x1.6db47ap-10f;
    q = vm_fma(q, r, 0x1.123b92p-7f);
    q = vm_fma(q, r, 0x1.55545ep-5f);
    q = vm_fma(q, r, 0x1.55548ep-3f);
    q = vm_fma(q, r, 0.5f);
    float scale = vm_float((vm_bits(shifted) + 127) << 23);
    return vm_fma(vm_fma(r * r, q, r), scale, scale);
}
/* 1 / (1 + e^-x), for fast plans */
static inline float vm_sigmoid_fast(float x) {
    float e = vm_exp_below(-vm_abs(x));
    return (x < 0 ? e : 1) / (1 + e);
}
static inline float vm_exp_if(bool fast, float x) { return fast ? vm_exp_below(x) : vm_exp(x); }

static inline float vm_exp2(float x) {
    x = x < -152 ? -152 : x;
    x = x > 130 ? 130 : x;
    float shifted = x + VM_MAGIC, k = shifted - VM_MAGIC;
    return vm_scale(vm_expm1_near((x - k) * 0x1.62e43p-1f), vm_bits(shifted) - 0x4b400000u);
}

static inline float vm_expm1(float x) {
    float c = x < -25 ? -25 : x;
    c = c > 89 ? 89 : c;
    vm_reduced v = vm_reduce(c);
    float s = vm_float((v.k + 126) << 23); /* 2^(k-1): 2^k itself may overflow */
    float y = 2 * (s * vm_expm1_near(v.r) + (s - 0.5f));
    return vm_abs(x) < 0x1p-25f ? x : y;
}

static inline float vm_tanh(float x) {
    float c = x < -10 ? -10 : x;
    c = c > 10 ? 10 : c;
    float e = vm_expm1(2 * c);
    return e / (e + 2);
}
static inline float vm_sigmoid(float x) {
    float e = vm_exp(-vm_abs(x));
    return (x < 0 ? e : 1) / (1 + e);
}
static inline float vm_cosh(float x) {
    float e = vm_exp_times(vm_abs(x), -1);
    return e + 0.25f / e;
}
static inline float vm_sinh(float x) {
    float a = vm_abs(x), e = vm_exp_times(a, -1), small = vm_expm1(a < 1 ? a : 1);
    float y = a < 1 ? 0.5f * (small + small / (small + 1)) : e - 0.25f / e;
    return vm_with_sign(vm_abs(y), x);
}

/* ---- logarithms ----------------------------------------------------------------------------- */

static inline float vm_log(float x) {
    float normal = x < 0x1p-126f ? x * 0x1p24f : x;
    uint32_t u = vm_bits(normal) - 0x3f3504f3u; /* relative to sqrt(1/2) */
    float e = (float)((int32_t)u >> 23) - (x < 0x1p-126f ? 24.0f : 0.0f);
    float f = vm_float((u & 0x7fffff) + 0x3f3504f3u) - 1;
    float q = 0x1.14573ep-4f;
    q = q * f - 0x1.de3bf8p-4f;
    q = q * f + 0x1.e6f08cp-4f;
    q = q * f - 0x1.fc220ep-4f;
    q = q * f + 0x1.233766p-3f;
    q = q * f - 0x1.555c4ep-3f;
    q = q * f + 0x1.99a4b6p-3f;
    q = q * f - 0x1.000006p-2f;
    q = q * f + 0x1.555548p-2f;
    float ff = f * f;
    float y = (f + ((ff * f * q + e * VM_LN2_LO) - 0.5f * ff)) + e * VM_LN2_HI;
    y = x < INFINITY ? y : x;
    return x > 0 ? y : (x == 0 ? -INFINITY : NAN);
}
static inline float vm_log1p(float x) {
    float u = 1 + x, lost = (x - (u - 1)) / u;
    float y = vm_log(u) + (x > -1 && x < INFINITY ? lost : 0);
    return x == 0 ? x : y;
}
/* log(1 + e^x) without overflow */
static inline float vm_softplus(float x) {
    float e = vm_exp(-vm_abs(x)), u = 1 + e;
    return (vm_log(u) + (e - (u - 1)) / u) + (x < 0 ? 0 : x);
}
static inline float vm_atanh(float x) {
    float a = vm_abs(x);
    return vm_with_sign(vm_abs(0.5f * vm_log1p(2 * a / (1 - a))), x);
}

/* ---- the error function --------------------------------------------------------------------- */

static inline float vm_erf(float x) {
    float a = vm_abs(x), u = x * x;
    float near = 0x1.496a28p-14f;
    near = near * u - 0x1.a3f6fcp-11f;
    near = near * u + 0x1.5405b2p-8f;
    near = near * u - 0x1.b7f90cp-6f;
    near = near * u + 0x1.ce2cf8p-4f;
    near = near * u - 0x1.81273ep-2f;
    near = near * u + 0x1.20dd74p+0f;
    /* 1 - erf(a) = e^-q(a); from 3.95 on that is nothing beside 1 */
    float b = a > 3.95f ? 3.95f : a;
    float q = -0x1.896ffep-13f;
    q = q * b + 0x1.83fd36p-9f;
    q = q * b - 0x1.66a3fp-6f;
    q = q * b + 0x1.a6c832p-4f;
    q = q * b + 0x1.46a988p-1f;
    q = q * b + 0x1.208e52p+0f;
    q = q * b + 0x1.5022f6p-12f;
    vm_reduced v = vm_reduce(-q);
    float far = 1 - vm_scale(vm_expm1_near(v.r), v.k);
    return a < 1 ? x * near : vm_with_sign(far, x);
}

/* ---- trigonometry --------------------------------------------------------------------------- */

#define VM_TRIGONOMETRIC_LIMIT 0x1p20f /* sine, cosine and tangent below are for |x| up to this */

/* sin and cos of the rest of x after taking away the nearest multiple of pi/2, and which multiple */
typedef struct vm_quadrant {
    float sin, cos;
    uint32_t k;
} vm_quadrant;
static inline vm_quadrant vm_quarter(float x) {
    double shifted = (double)x * 0x1.45f306dc9c883p-1 + 0x1.8p52, k = shifted - 0x1.8p52;
    /* pi/2 in two parts, the first of 33 bits: k times it is exact */
    float r = (float)(((double)x - k * 0x1.921fb544p+0) - k * 0x1.0b4611a626331p-34);
    float u = r * r;
    float s = ((0x1.6cd732p-19f * u - 0x1.a00f98p-13f) * u + 0x1.111108p-7f) * u - 0x1.555556p-3f;
    float c = ((-0x1.2429fcp-22f * u + 0x1.a0111cp-16f) * u - 0x1.6c16b8p-10f) * u + 0x1.555556p-5f;
    return (vm_quadrant){r + r * u * s, 1 - (0.5f * u - u * u * c), (uint32_t)vm_bits64(shifted)};
}
static inline float vm_sin(float x) {
    vm_quadrant q = vm_quarter(x);
    float y = q.k & 1 ? q.cos : q.sin;
    y = vm_float(vm_bits(y) ^ (q.k & 2) << 30);
    return x == 0 ? x : y;
}
static inline float vm_cos(float x) {
    vm_quadrant q = vm_quarter(x);
    float y = q.k & 1 ? q.sin : q.cos;
    return vm_float(vm_bits(y) ^ ((q.k + 1) & 2) << 30);
}
static inline float vm_tan(float x) {
    vm_quadrant q = vm_quarter(x);
    float y = (q.k & 1 ? q.cos : q.sin) / (q.k & 1 ? q.sin : q.cos);
    y = vm_float(vm_bits(y) ^ (q.k & 1) << 31);
    return x == 0 ? x : y;
}

static inline float vm_atan(float x) {
    float a = vm_abs(x), z = (a > 1 ? 1 : a) / (a > 1 ? a : 1), u = z * z;
    float q = 0x1.298066p-10f;
    q = q * u - 0x1.e67332p-8f;
    q = q * u + 0x1.74e7cap-6f;
    q = q * u - 0x1.703388p-5f;
    q = q * u + 0x1.14df4p-4f;
    q = q * u - 0x1.693854p-4f;
    q = q * u + 0x1.c50712p-4f;
    q = q * u - 0x1.247504p-3f;
    q = q * u + 0x1.9997fep-3f;
    q = q * u - 0x1.555552p-2f;
    float y = z + z * u * q;
    y = a > 1 ? 0x1.921fb6p+0f - (y + 0x1.777a5cp-25f) : y; /* pi/2 - y, in two parts */
    return vm_with_sign(vm_abs(y), x);
}
/* asin(z) for 0 <= z <= 1/2, u = z^2 */
static inline float vm_asin_near(float z, float u) {
    float q = 0x1.33bbe8p-5f;
    q = q * u + 0x1.d7f1e4p-7f;
    q = q * u + 0x1.04a65cp-5f;
    q = q * u + 0x1.6cac3cp-5f;
    q = q * u + 0x1.33388ep-4f;
    q = q * u + 0x1.55554cp-3f;
    return z + z * u * q;
}
static inline float vm_asin(float x) {
    float a = vm_abs(x), u = a > 0.5f ? 0.5f * (1 - a) : a * a, z = a > 0.5f ? sqrtf(u) : a;
    float p = vm_asin_near(z, u);
    return vm_with_sign(vm_abs(a > 0.5f ? 0x1.921fb6p+0f - (2 * p + 0x1.777a5cp-25f) : p), x);
}
static inline float vm_acos(float x) {
    float a = vm_abs(x), u = a > 0.5f ? 0.5f * (1 - a) : a * a, z = a > 0.5f ? sqrtf(u) : a;
    float p = vm_asin_near(z, u), far = x > 0 ? 2 * p : 0x1.921fb6p+1f - (2 * p + 0x1.777a5cp-24f);
    return a > 0.5f ? far : 0x1.921fb6p+0f - (vm_with_sign(p, x) + 0x1.777a5cp-25f);
}

/* ---- powers --------------------------------------------------------------------------------- */

/* log2 of a float widened to double, with more digits than the float has; a >= 0 */
static inline double vm_log2_double(double a) {
    uint64_t u = vm_bits64(a) - 0x3fe6a09e667f3bcdu; /* relative to sqrt(1/2) */
    /* the exponent becomes a double by or-ing it into 2^52: no 64-bit conversion needed */
    double e = vm_double(((u + 0x3ff0000000000000u) >> 52) | 0x4330000000000000u) - (0x1p52 + 1023);
    double f = vm_double((u & 0xfffffffffffffu) + 0x3fe6a09e667f3bcdu) - 1;
    double s = f / (2 + f), v = s * s;
    double q = 0x1.9118394ebe637p-4;
    q = q * v + 0x1.c62ae868d0b28p-4;
    q = q * v + 0x1.2494126b42318p-3;
    q = q * v + 0x1.999996a837aafp-3;
    q = q * v + 0x1.555555561e9f7p-2;
    double y = e + 0x1.71547652b82fep+1 * (s + s * v * q);
    y = a < INFINITY ? y : a;
    return a == 0 ? -INFINITY : y;
}
static inline float vm_pow(float x, float y) {
    float a = vm_abs(x);
    double t = (double)y * vm_log2_double(a);
    t = t < -160 ? -160 : t;
    t = t > 130 ? 130 : t;
    double shifted = t + 0x1.8p52, r = t - (shifted - 0x1.8p52);
    double q = 0x1.00f1ba43d5941p-16;
    q = q * r + 0x1.445f19c133919p-13;
    q = q * r + 0x1.5d8722cc5cc03p-10;
    q = q * r + 0x1.3b29f032a468dp-7;
    q = q * r + 0x1.c6b08df5249cfp-5;
    q = q * r + 0x1.ebfbe07b81b6dp-3;
    q = q * r + 0x1.62e42fef7b13fp-1;
    float p = (float)((1 + r * q) * vm_double((vm_bits64(shifted) + 1023) << 52));
    uint32_t whole = vm_rint(y) == y ? 1 : 0, even = vm_rint(0.5f * y) == 0.5f * y ? 1 : 0;
    p = vm_float(vm_bits(p) ^ (vm_bits(x) & (whole & (even ^ 1)) << 31));
    p = ((x < 0) & (x > -INFINITY) & (whole == 0)) ? NAN : p;
    p = ((a == 1) & (vm_abs(y) == INFINITY)) ? 1 : p;
    return ((x == 1) | (y == 0)) ? 1 : p;
}

#endif
