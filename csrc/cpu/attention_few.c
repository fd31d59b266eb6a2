/* Attention of few queries, as when a text is generated: one at a time, at the speed of reading key and value, whose
   rows lie together. */
#include "attention.h"
#include "axes.h"
#include "vmath.h"

/* out [ev] = sum over s of weight[s] * value[s], in partial sums of KC */
static inline void mix(const attention *a, int64_t keys, const float *weight, const void *value, anex_dtype dtype,
                       const bool once, float *out) {
    enum { WIDE = 4 };
    for (int64_t i = 0; i < a->ev; i++) out[i] = 0;
    for (int64_t s0 = 0; s0 < keys; s0 += KC) {
        int64_t s1 = anex_min(s0 + KC, keys), i = 0;
        for (; i + WIDE * VF <= a->ev; i += WIDE * VF) {
            vf sum[WIDE];
            for (int32_t v = 0; v < WIDE; v++) sum[v] = vf_zero();
            for (int64_t s = s0; s < s1; s++)
                for (int32_t v = 0; v < WIDE; v++)
                    sum[v] = vf_fma_if(once, vf_set(weight[s]), gemm_load(value, dtype, s * a->ev + i + v * VF), sum[v]);
            for (int32_t v = 0; v < WIDE; v++) vf_store(out + i + v * VF, vf_load(out + i + v * VF) + sum[v]);
        }
        for (; i + VF <= a->ev; i += VF) {
            vf sum = vf_zero();
            for (int64_t s = s0; s < s1; s++)
                sum = vf_fma_if(once, vf_set(weight[s]), gemm_load(value, dtype, s * a->ev + i), sum);
            vf_store(out + i, vf_load(out + i) + sum);
        }
        for (; i < a->ev; i++) {
            float sum = 0;
            for (int64_t s = s0; s < s1; s++) sum = fma_if(once, weight[s], gemm_one(value, dtype, s * a->ev + i), sum);
            out[i] += sum;
        }
    }
}

/* The rows of key and value from `s` on that are to be read soon: value comes from memory while key is multiplied. */
static inline void fetch(const attention *a, const attention_part *p, const anex_dtype dtype, int64_t s) {
    enum { ROWS = 16, LINE = 64 }; /* of key ahead */
    const int64_t key = a->e * (dtype == ANEX_F16 ? 2 : 4), value = a->ev * (p->value.dtype == ANEX_F16 ? 2 : 4);
    for (int64_t at = 0; at < key; at += LINE) __builtin_prefetch((const char *)p->key.data + (s + ROWS) * key + at);
    for (int64_t at = 0; at < value; at += LINE) __builtin_prefetch((const char *)p->value.data + s * value + at);
}

/* scores[0 .. VF-1] = query . each of VF rows: their lanes are added up together, two rows a vector, then four, .. */
static inline void score_rows(const float *query, const void *key, const anex_dtype dtype, int64_t e, float *scores) {
    vf sum[VF];
#pragma GCC unroll 16
    for (int r = 0; r < VF; r++) {
        sum[r] = vf_zero();
        for (int64_t i = 0; i < e; i += VF)
            sum[r] = vf_fma(vf_load(query + i), gemm_load(key, dtype, r * e + i), sum[r]);
    }
#pragma GCC unroll 4
    for (int rows = VF / 2; rows; rows /= 2)
#pragma GCC unroll 8
        for (int r = 0; r < rows; r++)
            sum[r] = vf_even(sum[2 * r], sum[2 * r + 1]) + vf_odd(sum[2 * r], sum[2 * r + 1]);
    vf_store(scores, sum[0]);
}

/* scores[s] = query . row s of key; `alike`: as every instruction set adds them up */
static inline void score(const attention *a, const attention_part *p, const anex_dtype dtype, bool alike, bool strict,
                         const float *query, int64_t keys, float *scores) {
    int64_t s = 0;
    if (!alike && a->e % VF == 0)
        for (; s + VF <= keys; s += VF) {
            for (int r = 0; r < VF; r++) fetch(a, p, dtype, s + r);
            const char *rows = (const char *)p->key.data + s * a->e * (dtype == ANEX_F16 ? 2 : 4);
            score_rows(query, rows, dtype, a->e, scores + s);
        }
    for (; s < keys; s++) {
        fetch(a, p, dtype, s);
        scores[s] = gemm_dot(strict, query, p->key.data, dtype, s * a->e, a->e);
    }
}

static void store_row(const attention_part *p, int64_t at, const float *x, int64_t n) {
    if (p->out_dtype == ANEX_F16)
        anex_narrow((half *)p->out + at, x, n);
    else
        memcpy((float *)p->out + at, x, (size_t)n * sizeof *x);
}

/* task: a query of a batch */
static void attend_one(const anex_node *node, const anex_slice *slice) {
    const attention *a = node->state;
    float *query = slice->scratch, *out = query + a->e, *scores = out + a->ev, *mask = scores + a->keys;
    bool strict = node->strict && !FUSED;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t l = task % a->length;
        const attention_part p = attention_part_of(a, node, task / a->length);
        const int64_t mask_at = p.mask_at + l * a->mask.row;
        int64_t keys = p.mask ? attention_reach_of(p.mask, mask_at, a->keys).end : a->keys;
        if (!keys) keys = a->keys; /* NaN, as it should be */
        gemm_widen(query, p.query.data, p.query.dtype, l * a->query.row, a->e);
        for (int64_t i = 0; i < a->e; i++) query[i] *= a->scale;
        if (p.key.dtype == ANEX_F16)
            score(a, &p, ANEX_F16, node->strict, strict, query, keys, scores);
        else
            score(a, &p, ANEX_F32, node->strict, strict, query, keys, scores);
        if (p.mask) {
            attention_widen_mask(mask, p.mask, mask_at, keys);
            for (int64_t s = 0; s < keys; s++) scores[s] += mask[s];
        }
        float max = anex_row_max(scores, keys);
        if (node->strict)
            for (int64_t s = 0; s < keys; s++) scores[s] = vm_exp(scores[s] - max);
        else
            for (int64_t s = 0; s < keys; s++) scores[s] = vm_exp_below(scores[s] - max);
        float scale = 1 / anex_row_sum(scores, keys);
        if (strict)
            mix(a, keys, scores, p.value.data, p.value.dtype, true, out);
        else if (p.value.dtype == ANEX_F16)
            mix(a, keys, scores, p.value.data, ANEX_F16, false, out);
        else
            mix(a, keys, scores, p.value.data, ANEX_F32, false, out);
        for (int64_t i = 0; i < a->ev; i++) out[i] *= scale;
        store_row(&p, l * a->out.row, out, a->ev);
    }
}

void attention_plan_few(anex_node *node, attention *a) {
    node->scratch = (size_t)(a->e + a->ev + 2 * a->keys) * sizeof(float);
    anex_add_stage(node, attend_one, a->batch * a->length, 0.1 * (double)(a->keys * (a->e + a->ev)));
}
