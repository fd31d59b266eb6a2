/* scaled_dot_product_attention: softmax(query . key^T / sqrt(e) + mask) . value, never holding all scores.

   A block of queries goes through the keys in blocks of KC, keeping per query the largest score so far, the
   sum of exponentials under it, and the output so far (the online softmax). Scores are held as [keys][queries]:
   both products then read key and value as they lie, and every step of the softmax is a loop over queries side
   by side. Few queries, as when a text is generated, are done one at a time, at the speed of reading key and value. */
#include "axes.h"
#include "gemm.h"
#include "vmath.h"

#include <math.h>

enum {
    QUERIES = 64, /* most in a block: a multiple of NR */
    FEW = NR / 8,   /* so many are done one at a time */
    FEW_STRICT = 2, /* and so many in a strict plan, on every instruction set: the other way has other rounding */
};

typedef struct attention {
    int64_t batch, length, keys, e, ev; /* query [batch, length, e], key [batch, keys, e], value [batch, keys, ev] */
    int32_t batch_rank;
    int64_t shape[ANEX_MAX_RANK], mask_step[ANEX_MAX_RANK]; /* of the batch axes, in the mask 0 where broadcast */
    int64_t mask_row;                                       /* from query to query */
    int64_t queries, blocks;                                /* in a block; blocks of a batch */
    gemm scores, values;                                    /* for a whole block of keys */
    size_t score_bytes, query_bytes, out_bytes, mask_bytes; /* scratch, before that of the products */
    float scale;
} attention;

typedef struct part { /* what one task reads and writes */
    gemm_matrix query, key, value;
    const anex_tensor *mask;
    int64_t mask_at;
    char *out;
    anex_dtype out_dtype;
} part;

static part part_of(const attention *a, const anex_node *node, int64_t batch) {
    enum { QUERY, KEY, VALUE, MASK };
    const anex_tensor *q = node->in[QUERY], *k = node->in[KEY], *v = node->in[VALUE];
    part p = {.mask = node->in[MASK], .out_dtype = node->out[0]->dtype};
    p.query =
        (gemm_matrix){(const char *)q->data + batch * a->length * a->e * (int64_t)anex_itemsize(q), a->e, 1, q->dtype};
    p.key =
        (gemm_matrix){(const char *)k->data + batch * a->keys * a->e * (int64_t)anex_itemsize(k), a->e, 1, k->dtype};
    p.value =
        (gemm_matrix){(const char *)v->data + batch * a->keys * a->ev * (int64_t)anex_itemsize(v), a->ev, 1, v->dtype};
    p.out = (char *)node->out[0]->data + batch * a->length * a->ev * (int64_t)anex_itemsize(node->out[0]);
    for (int32_t d = a->batch_rank; d-- > 0; batch /= a->shape[d]) p.mask_at += batch % a->shape[d] * a->mask_step[d];
    return p;
}

/* n elements of a mask as what is added to the scores: a bool says whether the key takes part */
static void widen_mask(float *restrict to, const anex_tensor *mask, int64_t at, int64_t n) {
    if (mask->dtype != ANEX_BOOL) {
        gemm_widen(to, mask->data, mask->dtype, at, n);
        return;
    }
    const uint8_t *from = (const uint8_t *)mask->data + at;
    for (int64_t i = 0; i < n; i++) to[i] = from[i] ? 0 : -INFINITY;
}

/* Of `n` masked keys from `at` on, how many come before a tail that takes no part: -inf, or false */
static int64_t before_tail(const anex_tensor *mask, int64_t at, int64_t n) {
    if (mask->dtype == ANEX_BOOL) {
        const uint8_t *row = (const uint8_t *)mask->data + at;
        for (uint64_t last; n >= 8; n -= 8) {
            memcpy(&last, row + n - 8, sizeof last);
            if (last) break;
        }
        while (n && !row[n - 1]) n--;
    } else if (mask->dtype == ANEX_F16) {
        const uint64_t four = 0xfc00fc00fc00fc00;
        const half *row = (const half *)mask->data + at;
        for (uint64_t last; n >= 4; n -= 4) {
            memcpy(&last, row + n - 4, sizeof last);
            if (last != four) break;
        }
        while (n && anex_half_to_float(row[n - 1]) == -INFINITY) n--;
    } else {
        const uint64_t two = 0xff800000ff800000;
        const float *row = (const float *)mask->data + at;
        for (uint64_t last; n >= 2; n -= 2) {
            memcpy(&last, row + n - 2, sizeof last);
            if (last != two) break;
        }
        while (n && row[n - 1] == -INFINITY) n--;
    }
    return n;
}

/* The same for the queries l0 .. l0+lanes-1 together: most of a causal mask's blocks need not be computed */
static int64_t visible(const attention *a, const part *p, int64_t l0, int64_t lanes, int64_t s0, int64_t n) {
    if (!p->mask) return n;
    int64_t most = 0;
    for (int64_t l = a->mask_row ? lanes : 1; l-- > 0 && most < n;) { /* the last sees most, if it is causal */
        const int64_t at = p->mask_at + (l0 + l) * a->mask_row + s0;
        most += before_tail(p->mask, at + most, n - most);
    }
    return most;
}

#define ANY_BIT(type)                                              \
    do {                                                           \
        const type *row = (const type *)mask->data + at;           \
        for (int64_t s = 0; s < n; s++) any |= row[s];             \
    } while (0)

/* Whether a mask leaves `n` keys from s0 on to all of the queries l0 .. l0+lanes-1, as most blocks of a causal one do */
static bool shows_all(const attention *a, const part *p, int64_t l0, int64_t lanes, int64_t s0, int64_t n) {
    const anex_tensor *mask = p->mask;
    uint32_t any = 0; /* bit of a number to be added, or key left out */
    for (int64_t l = 0; l < (a->mask_row ? lanes : 1) && !any; l++) {
        const int64_t at = p->mask_at + (l0 + l) * a->mask_row + s0;
        if (mask->dtype == ANEX_F16)
            ANY_BIT(uint16_t);
        else if (mask->dtype == ANEX_F32)
            ANY_BIT(uint32_t);
        else
            for (int64_t s = 0; s < n; s++) any |= !((const uint8_t *)mask->data)[at + s];
    }
    return !any;
}

static void store_row(const part *p, int64_t at, const float *x, int64_t n) {
    if (p->out_dtype == ANEX_F16)
        anex_narrow((half *)p->out + at, x, n);
    else
        memcpy((float *)p->out + at, x, (size_t)n * sizeof *x);
}

/* ---- blocks of queries ---------------------------------------------------------------------- */

typedef struct state { /* of one panel of NR queries */
    float max[NR], sum[NR], decay[NR];
} state;

/* scores [n][NR] += mask, for the queries l0 .. l0+lanes-1 and the keys s0 .. s0+n-1 */
static void add_mask(const attention *a, const part *p, float *restrict scores, int64_t l0, int64_t lanes, int64_t s0,
                     int64_t n, float *restrict rows, float *restrict columns) {
    int64_t many = a->mask_row ? lanes : 1;
    for (int64_t l = 0; l < many; l++) widen_mask(rows + l * KC, p->mask, p->mask_at + (l0 + l) * a->mask_row + s0, n);
    if (many == 1) {
        for (int64_t s = 0; s < n; s++)
            for (int64_t l = 0; l < NR; l++) scores[s * NR + l] += rows[s];
        return;
    }
    gemm_matrix matrix = {rows, 1, KC, ANEX_F32};
    gemm_pack_matrix(&matrix, columns, NR, 0, n, 0, many);
    for (int64_t i = 0; i < n * NR; i++) scores[i] += columns[i];
}

/* Scores [n][NR] become exponentials under the new maximum; `decay` is what older ones must shrink by. */
static inline __attribute__((always_inline)) void soften(const bool fast, float *restrict scores, int64_t n,
                                                         state *restrict z) {
    enum { STEP = 64 }; /* keys in one partial sum */
    float max[NR], part[NR], total[NR];
    for (int64_t l = 0; l < NR; l++) max[l] = z->max[l], total[l] = 0;
    for (int64_t s = 0; s < n; s++)
        for (int64_t l = 0; l < NR; l++) max[l] = anex_greater(max[l], scores[s * NR + l]);
    float base[NR]; /* nothing but -inf so far: e^-inf under any base */
    for (int64_t l = 0; l < NR; l++) base[l] = max[l] == -INFINITY ? 0 : max[l];
    for (int64_t at = 0; at < n; at += STEP) {
        for (int64_t l = 0; l < NR; l++) part[l] = 0;
        for (int64_t s = at; s < anex_min(n, at + STEP); s++) {
            float *restrict row = scores + s * NR;
            for (int64_t l = 0; l < NR; l++) {
                float e = vm_exp_if(fast, row[l] - base[l]);
                row[l] = e;
                part[l] += e;
            }
        }
        for (int64_t l = 0; l < NR; l++) total[l] += part[l];
    }
    for (int64_t l = 0; l < NR; l++) {
        z->decay[l] = vm_exp(z->max[l] - base[l]);
        z->sum[l] = z->sum[l] * z->decay[l] + total[l];
        z->max[l] = max[l];
    }
}

/* out [ev][NR] *= decay */
static void shrink(float *restrict out, const float *restrict decay, int64_t ev) {
    for (int64_t i = 0; i < ev; i++)
        for (int64_t l = 0; l < NR; l++) out[i * NR + l] *= decay[l];
}

/* out [ev][NR] / sum, as rows of the output */
static void store_queries(const attention *a, const part *p, const float *out, const state *z, int64_t l0,
                          int64_t lanes, float *row) {
    for (int64_t l = 0; l < lanes; l++) {
        float scale = 1 / z->sum[l];
        for (int64_t i = 0; i < a->ev; i++) row[i] = out[i * NR + l] * scale;
        store_row(p, (l0 + l) * a->ev, row, a->ev);
    }
}

static void attend_block(const attention *a, const part *p, int64_t l0, char *scratch) {
    float *scores = (float *)scratch, *query = (float *)(scratch += a->score_bytes),
          *out = (float *)(scratch += a->query_bytes);
    float *mask_rows = (float *)(scratch += a->out_bytes), *mask_columns = mask_rows + (a->mask_bytes ? NR * KC : 0);
    scratch += a->mask_bytes;
    int64_t n = anex_min(a->queries, a->length - l0), panels = (n + NR - 1) / NR;
    state z[QUERIES / NR];
    gemm_matrix query_columns = {p->query.data, 1, a->e, p->query.dtype};
    for (int64_t i = 0; i < panels; i++) {
        float *to = query + i * NR * a->e;
        memset(to, 0, (size_t)(NR * a->e) * sizeof *to);
        gemm_pack_matrix(&query_columns, to, NR, 0, a->e, l0 + i * NR, anex_min(NR, n - i * NR));
        for (int64_t k = 0; k < NR * a->e; k++) to[k] *= a->scale;
        for (int64_t l = 0; l < NR; l++) z[i].max[l] = -INFINITY, z[i].sum[l] = 0;
    }
    memset(out, 0, (size_t)(panels * NR * a->ev) * sizeof *out);
    for (int64_t s0 = 0; s0 < a->keys; s0 += KC) {
        int64_t keys = visible(a, p, l0, n, s0, anex_min(KC, a->keys - s0));
        if (!keys) continue;
        gemm g = a->scores;
        g.m = keys, g.n = panels * NR;
        gemm_side key = {.matrix = p->key}, queries = {.panels = query, .matrix = {.dtype = ANEX_F32}};
        key.matrix.data = (const char *)p->key.data + s0 * a->e * (p->key.dtype == ANEX_F16 ? 2 : 4);
        gemm_output to_scores = {.data = scores, .row = NR, .col = 1, .dtype = ANEX_F32, .panel = keys * NR};
        gemm_tile(&g, &key, &queries, &to_scores, 0, scratch);
        for (int64_t i = 0; i < panels; i++) {
            float *panel = scores + i * keys * NR;
            const int64_t first = l0 + i * NR, lanes = anex_min(NR, n - i * NR);
            if (p->mask && !shows_all(a, p, first, lanes, s0, keys))
                add_mask(a, p, panel, first, lanes, s0, keys, mask_rows, mask_columns);
            if (a->scores.strict)
                soften(false, panel, keys, &z[i]);
            else
                soften(true, panel, keys, &z[i]);
            shrink(out + i * NR * a->ev, z[i].decay, a->ev);
        }
        g = a->values;
        g.n = panels * NR, g.k = keys;
        gemm_side value = {.matrix = gemm_transposed(p->value)},
                  weights = {.panels = scores, .matrix = {.dtype = ANEX_F32}};
        value.matrix.data = (const char *)p->value.data + s0 * a->ev * (p->value.dtype == ANEX_F16 ? 2 : 4);
        gemm_output to_out = {
            .data = out, .row = NR, .col = 1, .dtype = ANEX_F32, .panel = a->ev * NR, .accumulate = true};
        gemm_tile(&g, &value, &weights, &to_out, 0, scratch);
    }
    for (int64_t i = 0; i < panels; i++)
        store_queries(a, p, out + i * NR * a->ev, &z[i], l0 + i * NR, anex_min(NR, n - i * NR), query);
}

/* task: a block of queries of a batch */
static void attend_blocks(const anex_node *node, const anex_slice *slice) {
    const attention *a = node->state;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        part p = part_of(a, node, task / a->blocks);
        attend_block(a, &p, task % a->blocks * a->queries, slice->scratch);
    }
}

/* ---- one query ------------------------------------------------------------------------------ */

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

/* scores[s] = query . row s of key, while value comes from memory, and key before it is asked for */
static inline void score(const attention *a, const part *p, const anex_dtype dtype, bool strict, const float *query,
                         int64_t keys, float *scores) {
    enum { ROWS = 16, LINE = 64 }; /* of key ahead */
    const int64_t key = a->e * (dtype == ANEX_F16 ? 2 : 4), value = a->ev * (p->value.dtype == ANEX_F16 ? 2 : 4);
    for (int64_t s = 0; s < keys; s++) {
        for (int64_t at = 0; at < key; at += LINE)
            __builtin_prefetch((const char *)p->key.data + (s + ROWS) * key + at);
        for (int64_t at = 0; at < value; at += LINE) __builtin_prefetch((const char *)p->value.data + s * value + at);
        scores[s] = gemm_dot(strict, query, p->key.data, dtype, s * a->e, a->e);
    }
}

/* task: a query of a batch */
static void attend_one(const anex_node *node, const anex_slice *slice) {
    const attention *a = node->state;
    float *query = slice->scratch, *out = query + a->e, *scores = out + a->ev, *mask = scores + a->keys;
    bool strict = node->strict && !FUSED;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t l = task % a->length;
        part p = part_of(a, node, task / a->length);
        int64_t keys = visible(a, &p, l, 1, 0, a->keys);
        if (!keys) keys = a->keys; /* NaN, as it should be */
        gemm_widen(query, p.query.data, p.query.dtype, l * a->e, a->e);
        for (int64_t i = 0; i < a->e; i++) query[i] *= a->scale;
        if (p.key.dtype == ANEX_F16)
            score(a, &p, ANEX_F16, strict, query, keys, scores);
        else
            score(a, &p, ANEX_F32, strict, query, keys, scores);
        if (p.mask) {
            widen_mask(mask, p.mask, p.mask_at + l * a->mask_row, keys);
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
        store_row(&p, l * a->ev, out, a->ev);
    }
}

/* ---- plan ----------------------------------------------------------------------------------- */

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

static anex_status read_mask(anex_node *node, attention *a, const anex_tensor *query, const anex_tensor *mask,
                             anex_error *error) {
    if (mask->dtype != ANEX_BOOL && mask->dtype != ANEX_F16 && mask->dtype != ANEX_F32)
        return anex_node_fail(node, error, ANEX_DTYPE, "attn_mask is %s; it must be bool or a float",
                              anex_dtypes[mask->dtype].name);
    int64_t step = 1;
    bool fits = mask->rank >= 1 && mask->rank <= query->rank && mask->shape[mask->rank - 1] == a->keys;
    for (int32_t i = 0; fits && i < mask->rank; i++) {
        int32_t axis = query->rank - 1 - i;
        int64_t n = mask->shape[mask->rank - 1 - i];
        fits = i == 0 || n == 1 || n == query->shape[axis];
        if (i == 1 && n > 1) a->mask_row = step;
        if (i > 1 && n > 1) a->mask_step[axis] = step;
        step *= n;
    }
    return fits ? ANEX_OK
                : anex_node_fail(node, error, ANEX_SHAPE, "attn_mask does not broadcast to the scores [.., %lld, %lld]",
                                 (long long)a->length, (long long)a->keys);
}

static void plan_blocks(anex_node *node, attention *a) {
    a->queries = anex_min(QUERIES, round_up(a->length, NR));
    if (a->batch * a->length / a->queries < 16) a->queries = NR; /* more blocks, for more threads */
    a->blocks = (a->length + a->queries - 1) / a->queries;
    int64_t keys = anex_min(KC, a->keys);
    bool strict = node->strict;
    a->scores = (gemm){.strict = strict, .block = KC, .m = keys, .n = a->queries, .k = a->e, .tile_m = round_up(keys, MR), .tile_n = a->queries};
    a->values = (gemm){.strict = strict, .block = KC, .m = a->ev, .n = a->queries, .k = keys, .tile_m = round_up(a->ev, MR), .tile_n = a->queries};
    a->scores.tiles_m = a->scores.tiles_n = a->values.tiles_m = a->values.tiles_n = 1;
    a->score_bytes = anex_align((size_t)(keys * a->queries) * sizeof(float));
    a->query_bytes =
        anex_align((size_t)(anex_max(a->e, a->ev) * a->queries) * sizeof(float)); /* in the end, a row of the output */
    a->out_bytes = anex_align((size_t)(a->ev * a->queries) * sizeof(float));
    a->mask_bytes = node->in[3] ? anex_align((size_t)(2 * NR * KC) * sizeof(float)) : 0;
    size_t one = gemm_scratch(&a->scores), other = gemm_scratch(&a->values);
    node->scratch = a->score_bytes + a->query_bytes + a->out_bytes + a->mask_bytes + (one > other ? one : other);
    double cost = 0.3 * (double)(a->queries * a->keys) * ((double)(a->e + a->ev) / (2 * VF) + 3);
    anex_add_stage(node, attend_blocks, a->batch * a->blocks, cost);
}

ANEX_KERNEL(scaled_dot_product_attention) {
    enum { QUERY, KEY, VALUE, MASK };
    const anex_tensor *q = node->in[QUERY], *k = node->in[KEY], *v = node->in[VALUE];
    int32_t rank = q->rank;
    bool fits = rank >= 2 && k->rank == rank && v->rank == rank && k->shape[rank - 1] == q->shape[rank - 1] &&
                k->shape[rank - 2] == v->shape[rank - 2] && k->shape[rank - 2] > 0;
    for (int32_t i = 0; fits && i < rank - 2; i++) fits = q->shape[i] == k->shape[i] && q->shape[i] == v->shape[i];
    if (!fits)
        return anex_node_fail(
            node, error, ANEX_SHAPE,
            "query [.., l, e], key [.., s, e] and value [.., s, ev] must agree in s, e and all before");
    for (int32_t i = KEY; i <= VALUE; i++)
        if (node->in[i]->dtype != ANEX_F16 && node->in[i]->dtype != ANEX_F32)
            return anex_node_fail(node, error, ANEX_DTYPE, "key and value must be float16 or float32");
    attention *a = anex_node_state(node, sizeof *a, error);
    if (!a) return ANEX_MEMORY;
    a->length = q->shape[rank - 2], a->keys = k->shape[rank - 2], a->e = q->shape[rank - 1], a->ev = v->shape[rank - 1];
    a->batch = anex_span(q, 0, rank - 2), a->batch_rank = rank - 2;
    for (int32_t i = 0; i < a->batch_rank; i++) a->shape[i] = q->shape[i];
    a->scale = (float)(1 / sqrt((double)a->e));
    if (node->in[MASK]) {
        anex_status status = read_mask(node, a, q, node->in[MASK], error);
        if (status) return status;
    }
    if (a->length > (node->strict ? FEW_STRICT : FEW)) {
        plan_blocks(node, a);
    } else {
        node->scratch = (size_t)(a->e + a->ev + 2 * a->keys) * sizeof(float);
        anex_add_stage(node, attend_one, a->batch * a->length, 0.1 * (double)(a->keys * (a->e + a->ev)));
    }
    return ANEX_OK;
}
