/* x . codes of 4 bits, in integers: an instruction multiplies four codes at a time where floats need several for one.

   Each UNIT of x becomes whole numbers of 24 bits, multiples of a power of two that its largest magnitude gives: what a
   float of that magnitude has, and x itself is no finer than a sixth of it on average. They are kept as three signed
   digits of base 256; products of each digit with codes 0 .. 15 are summed exactly, and the three sums make a float.
   An offset of the codes becomes a term of the sum of the unit's numbers, which is known before any row is read.

   Four bytes along x or a row are one lane of a vector. A group of two vectors holds VF / 2 units, two lanes of each,
   so that sums of a unit meet its scale, and its power of two, in its own lanes; one vector may follow, of VF / 4. */
#ifndef ANEX_DIGITS_H
#define ANEX_DIGITS_H

#include "dot.h"
#include "few.h"

enum { UNIT = 32, DIGITS = 3, QUARTER = VF / 4, HALF = VF / 2 };

/* The units that a row of k codes takes */
static inline int64_t digits_units(int64_t k) { return ((k + UNIT - 1) / UNIT + QUARTER - 1) / QUARTER * QUARTER; }
static inline int64_t digits_groups(int64_t units) { return (units + HALF - 1) / HALF; }

typedef struct digits {
    const int8_t *digits;           /* [vectors][2: for lower and upper halves of bytes][DIGITS][VF][4] */
    const float *powers, *totals;   /* [groups][VF]: what 1 stands for; sum of the numbers of a lane, times `offset` */
    bool finite;                    /* else there are none */
} digits;

static inline size_t digits_bytes(int64_t units) {
    return anex_align(sizeof(digits)) + anex_align((size_t)(units * UNIT * DIGITS)) +
           anex_align((size_t)(digits_groups(units) * VF * 2) * sizeof(float));
}

/* Where part c of the eight of unit u is: in a row that vector, upper or lower half of its bytes, and lane. */
typedef struct digits_place {
    int64_t group, vector, lane;
    int32_t upper;
} digits_place;

static inline digits_place digits_at(int64_t units, int64_t u, int32_t c) {
    int64_t group = u / HALF, first = group * HALF;
    int32_t vectors = first + HALF <= units ? 2 : 1, pair = c / 2;
    return (digits_place){.group = group,
                          .vector = group * 2 + pair % vectors,
                          .lane = pair / vectors * (vectors * QUARTER) + u - first,
                          .upper = c % 2};
}

/* 2^exponent, normal */
static inline float digits_two_to(int32_t exponent) {
    uint32_t bits = (uint32_t)(127 + exponent) << 23;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

/* Of a unit whose largest magnitude has these bits: what brings it just below 0x7f7f7f, the most that three digits
   hold, as two factors, since of the smallest numbers one is no float; returns what 1 stands for then. */
static inline float digits_power(uint32_t most, float *factors) {
    enum { ALMOST_TWO = 0x10200 };
    int32_t exponent = (int32_t)((most + ALMOST_TWO) >> 23), up = 149 - (exponent < 1 ? 1 : exponent), half = up / 2;
    factors[0] = digits_two_to(half), factors[1] = digits_two_to(up - half);
    return digits_two_to(-half) * digits_two_to(half - up);
}

enum { PARTS = UNIT / 4 }; /* of a unit: lanes of four */
typedef struct digits_unit { /* of x */
    int32_t sum[PARTS];
    uint32_t packed[DIGITS][PARTS];
    float power;
} digits_unit;

/* false: not all of x is finite */
static inline bool digits_of(const float *x, digits_unit *made) {
    enum { INFINITE = 0x7f800000, SIGNED = 0x808080 };
    int32_t bits[UNIT], number[UNIT], most = 0;
    float factors[2];
    memcpy(bits, x, sizeof bits);
    for (int i = 0; i < UNIT; i++) bits[i] &= INT32_MAX, most = bits[i] > most ? bits[i] : most;
    if (most >= INFINITE) return false;
    made->power = digits_power((uint32_t)most, factors);
    for (int i = 0; i < UNIT; i++) {
        float real = x[i] * factors[0] * factors[1];
        number[i] = (int32_t)(real + (real < 0 ? -0.5f : 0.5f));
    }
    for (int c = 0; c < PARTS; c++)
        made->sum[c] = (number[4 * c] + number[4 * c + 1]) + (number[4 * c + 2] + number[4 * c + 3]);
    for (int i = 0; i < UNIT; i++) number[i] = (number[i] + SIGNED) ^ SIGNED;
    uint8_t *bytes = (uint8_t *)made->packed;
#pragma GCC unroll 3
    for (int d = 0; d < DIGITS; d++)
        for (int i = 0; i < UNIT; i++) bytes[d * UNIT + i] = (uint8_t)(number[i] >> 8 * d);
    return true;
}

/* Unit `at` of a group of so many vectors to where digits_at has its parts */
static inline __attribute__((always_inline)) void digits_put(const digits_unit *unit, const int vectors, int64_t at,
                                                             float offset, uint32_t *to, float *powers, float *totals) {
#pragma GCC unroll 4
    for (int p = 0; p < 4 / vectors; p++) {
        const int64_t lane = p * (vectors * QUARTER) + at;
        int32_t total = 0;
#pragma GCC unroll 4
        for (int v = 0; v < 2 * vectors; v++) {
            const int c = p * 2 * vectors + v;
            for (int d = 0; d < DIGITS; d++) to[(v * DIGITS + d) * VF + lane] = unit->packed[d][c];
            total += unit->sum[c];
        }
        powers[lane] = unit->power, totals[lane] = (float)total * offset;
    }
}

/* x [units * UNIT] into `room`; `offset`: of all codes, or 1 where each row has its own */
static inline void digits_make(int64_t units, const float *x, float offset, char *room) {
    digits *made = (digits *)room;
    uint32_t *to = (uint32_t *)(room + anex_align(sizeof *made));
    float *powers = (float *)((char *)to + anex_align((size_t)(units * UNIT * DIGITS)));
    float *totals = powers + digits_groups(units) * VF;
    *made = (digits){(const int8_t *)to, powers, totals, true};
    for (int64_t u = 0; u < units; u++) {
        const int64_t group = u / HALF, first = group * HALF;
        digits_unit unit;
        if (!digits_of(x + u * UNIT, &unit)) {
            made->finite = false;
            return;
        }
        uint32_t *there = to + group * (2 * 2 * DIGITS * VF);
        if (first + HALF <= units)
            digits_put(&unit, 2, u - first, offset, there, powers + group * VF, totals + group * VF);
        else
            digits_put(&unit, 1, u - first, offset, there, powers + group * VF, totals + group * VF);
    }
}

/* Codes [k], a byte each, `flip` to make them 0 .. 15, as a row of `units`, that is clear */
static inline void digits_pack(int64_t units, const uint8_t *codes, int64_t k, uint8_t flip, uint8_t *row) {
    for (int64_t i = 0; i < k; i++) {
        digits_place at = digits_at(units, i / UNIT, (int32_t)(i % UNIT / 4));
        row[(at.vector * VF + at.lane) * 4 + i % 4] |= (uint8_t)(((codes[i] & 15) ^ flip) << (at.upper ? 4 : 0));
    }
}

/* The code of column i */
static inline int32_t digits_code(int64_t units, const uint8_t *row, int64_t i) {
    digits_place at = digits_at(units, i / UNIT, (int32_t)(i % UNIT / 4));
    return row[(at.vector * VF + at.lane) * 4 + i % 4] >> (at.upper ? 4 : 0) & 15;
}

/* The first n = VF / 2 or VF / 4 elements of p, float16 or float, over and over */
static inline __attribute__((always_inline)) vf digits_repeat(const void *p, const bool halves, const int n) {
#if defined(__AVX512F__)
    if (!halves)
        return n == HALF ? _mm512_broadcast_f32x8(_mm256_loadu_ps(p)) : _mm512_broadcast_f32x4(_mm_loadu_ps(p));
    return _mm512_cvtph_ps(n == HALF ? _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p))
                                     : _mm256_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)p)));
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
    double two;
    memcpy(&two, p, halves && n != HALF ? sizeof two / 2 : sizeof two);
    if (!halves) return n == HALF ? _mm256_broadcast_ps((const __m128 *)p) : _mm256_castpd_ps(_mm256_set1_pd(two));
    int32_t one;
    memcpy(&one, p, sizeof one);
    return _mm256_cvtph_ps(n == HALF ? _mm_castpd_si128(_mm_set1_pd(two)) : _mm_set1_epi32(one));
#else
    float lanes[VF];
    for (int i = 0; i < VF; i++)
        lanes[i] = halves ? anex_half_to_float(((const half *)p)[i % n]) : ((const float *)p)[i % n];
    return vf_load(lanes);
#endif
}

typedef struct digits_affine { /* of rows */
    bool each, halves, zeros;    /* by units, in float16; rows have their own zeros */
    const void *scale, *zero;    /* [units] or [1] */
} digits_affine;

/* sum + what one group of a row, `vectors` of them, gives, times the scales of its units if they have some */
static inline __attribute__((always_inline)) vf digits_group(const bool dot, const bool past, const int vectors,
                                                             const digits *x, const uint8_t *row, int64_t group,
                                                             const digits_affine *a, vf sum) {
    enum { LINE = 64, BYTES = VF * 4, STEP = 2 * DIGITS * BYTES };
    vq sums[DIGITS];
    for (int d = 0; d < DIGITS; d++) sums[d] = vq_set(0);
#pragma GCC unroll 2
    for (int v = 0; v < vectors; v++) {
        const int64_t vector = group * 2 + v;
        const uint8_t *codes = row + vector * BYTES;
        const int8_t *with = x->digits + vector * STEP;
        if (vector * BYTES % LINE == 0) few_prefetch(past, codes);
        vq both = vq_load_line(codes), lower = vq_low_nibbles(both), upper = vq_high_nibbles(both);
#pragma GCC unroll 3
        for (int d = 0; d < DIGITS; d++) {
            sums[d] = vq_dot_codes(dot, sums[d], lower, with + d * BYTES);
            sums[d] = vq_dot_codes(dot, sums[d], upper, with + (DIGITS + d) * BYTES);
        }
    }
    /* of at most 16 codes and digits up to 128: two of them make 24 bits, which a float has */
    vf low = vq_to_float(vq_add(sums[0], vq_shift_up(sums[1], 8)));
    vf all = vf_fma(vq_to_float(sums[2]), vf_set(65536), low);
    vf total = vf_load(x->totals + group * VF), power = vf_load(x->powers + group * VF);
    const int n = vectors * QUARTER;
    const int64_t at = group * HALF * (int64_t)(a->halves ? sizeof(half) : sizeof(float));
    if (!a->zeros)
        all = all - total;
    else if (!a->each)
        all = all - total * vf_set(*(const float *)a->zero);
    else
        all = all - total * digits_repeat((const char *)a->zero + at, a->halves, n);
    if (!a->each) return vf_fma(all, power, sum);
    return vf_fma(all * power, digits_repeat((const char *)a->scale + at, a->halves, n), sum);
}

/* x . row, but for the scale of a row that has one */
static inline __attribute__((always_inline)) float digits_dot(const bool dot, const bool past, int64_t units,
                                                              const digits *x, const uint8_t *row,
                                                              const digits_affine *a) {
    vf sum = vf_zero();
    int64_t group = 0;
    for (; (group + 1) * HALF <= units; group++) sum = digits_group(dot, past, 2, x, row, group, a, sum);
    if (group * HALF < units) sum = digits_group(dot, past, 1, x, row, group, a, sum);
    return few_total(sum);
}

#endif
