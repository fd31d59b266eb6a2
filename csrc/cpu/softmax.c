/* softmax along any axis: e^(x - max) / sum of them. */
#include "axes.h"
#include "quick.h"
#include "vmath.h"

/* ---- as float ------------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void softmax_row(const bool fast, float *restrict x, int64_t n) {
    float max = anex_row_max(x, n);
    float lane[ANEX_LANES] = {0}; /* summed as anex_row_sum does */
    int64_t i = 0;
    for (; i + ANEX_LANES <= n; i += ANEX_LANES)
        for (int32_t j = 0; j < ANEX_LANES; j++) {
            float e = vm_exp_if(fast, x[i + j] - max);
            x[i + j] = e;
            lane[j] += e;
        }
    for (int32_t j = 0; i + j < n; j++) lane[j] += x[i + j] = vm_exp_if(fast, x[i + j] - max);
    ANEX_FOLD_LANES(ANEX_ADD);
    float scale = 1 / lane[0];
    for (i = 0; i < n; i++) x[i] *= scale;
}

static void rows_work(const anex_node *node, const anex_slice *slice) {
    const anex_panels *p = node->state;
    int64_t n = p->axes.n;
    for (int64_t row = slice->begin; row < slice->end; row++) {
        float *x = slice->scratch;
        ANEX_LOCAL(load)(x, node->in[0], row * n, n);
        if (node->strict)
            softmax_row(false, x, n);
        else
            softmax_row(true, x, n);
        ANEX_LOCAL(store)(node->out[0], row * n, x, n);
    }
}

/* x [n, w] */
static inline __attribute__((always_inline)) void softmax_columns(const bool fast, float *restrict x, int64_t n, int64_t w, float *restrict max, float *restrict sum) {
    enum { STEP = 64 }; /* rows of one partial sum */
    for (int64_t j = 0; j < w; j++) max[j] = x[j], sum[j] = 0;
    for (int64_t i = 1; i < n; i++)
        for (int64_t j = 0; j < w; j++) max[j] = anex_greater(max[j], x[i * w + j]);
    float *restrict part = max + w;
    for (int64_t at = 0; at < n; at += STEP) {
        for (int64_t j = 0; j < w; j++) part[j] = 0;
        for (int64_t i = at; i < anex_min(n, at + STEP); i++) {
            float *restrict row = x + i * w;
            for (int64_t j = 0; j < w; j++) {
                float e = vm_exp_if(fast, row[j] - max[j]);
                row[j] = e;
                part[j] += e;
            }
        }
        for (int64_t j = 0; j < w; j++) sum[j] += part[j];
    }
    for (int64_t j = 0; j < w; j++) sum[j] = 1 / sum[j];
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < w; j++) x[i * w + j] *= sum[j];
}

static void columns_work(const anex_node *node, const anex_slice *slice) {
    const anex_panels *p = node->state;
    float *max = slice->scratch, *sum = max + 2 * p->width;
    float *panel = (float *)((char *)max + anex_align(12 * (size_t)p->width));
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t w = ANEX_LOCAL(panel_load)(p, node->in[0], task, panel);
        if (node->strict)
            softmax_columns(false, panel, p->axes.n, w, max, sum);
        else
            softmax_columns(true, panel, p->axes.n, w, max, sum);
        ANEX_LOCAL(panel_store)(p, node->out[0], task, panel);
    }
}

/* ---- float16, in plans that may be quick ---------------------------------------------------- */

/* 2^((x - max) * log2 e): with the product of max rounded, which changes numerator and sum alike */
static inline vf powers(vf x, vf max) { return quick_exp2(vf_fma(x, vf_set(QUICK_LOG2E), max * vf_set(-QUICK_LOG2E))); }

/* `e` has room for n floats and the rest of four vectors. Lanes beyond the row are -infinity. Which maximum a row with
   a NaN has does not matter: its sum is a NaN. */
static void quick_row(const half *x, half *y, int64_t n, float *e) {
    enum { FOUR = 4 * VF };
    half rest[FOUR];
    int64_t whole = n / FOUR * FOUR;
    for (int32_t j = 0; j < FOUR; j++) rest[j] = whole + j < n ? x[whole + j] : 0xfc00;
    vf max[4], sum[4];
    for (int32_t v = 0; v < 4; v++) max[v] = vf_load_half(rest + v * VF), sum[v] = vf_zero();
    for (int64_t i = 0; i < whole; i += FOUR)
        for (int32_t v = 0; v < 4; v++) max[v] = vf_max(max[v], vf_load_half(x + i + v * VF));
    vf most = vf_set(vf_max_of_four(max));
    for (int64_t i = 0; i < n; i += FOUR) {
        const half *from = i < whole ? x + i : rest;
        for (int32_t v = 0; v < 4; v++) {
            vf power = powers(vf_load_half(from + v * VF), most);
            sum[v] += power;
            vf_store(e + i + v * VF, power);
        }
    }
    vf scale = vf_set(1 / vf_sum_of_four(sum));
    for (int64_t i = 0; i < whole; i += VF) vf_store_half(y + i, vf_load(e + i) * scale);
    for (int32_t v = 0; v < 4; v++) vf_store_half(rest + v * VF, vf_load(e + whole + v * VF) * scale);
    memcpy(y + whole, rest, (size_t)(n - whole) * sizeof *y);
}

static void quick_rows_work(const anex_node *node, const anex_slice *slice) {
    const anex_panels *p = node->state;
    int64_t n = p->axes.n;
    for (int64_t row = slice->begin; row < slice->end; row++)
        quick_row((const half *)node->in[0]->data + row * n, (half *)node->out[0]->data + row * n, n, slice->scratch);
}

/* x and y [n, w], rows `step` apart, w <= GROUP: max and sum of every column stay in registers */
enum { GROUP = 8 * VF, AHEAD = 8 };
static inline __attribute__((always_inline)) void quick_columns(const int32_t vectors, const half *x, half *y,
                                                                int64_t n, int64_t step, float *e) {
    vf max[8], sum[8];
    for (int32_t v = 0; v < vectors; v++) max[v] = vf_set(-INFINITY), sum[v] = vf_zero();
    for (int64_t i = 0; i < n; i++) {
        const half *row = x + i * step, *later = x + anex_min(i + AHEAD, n - 1) * step;
        for (int32_t v = 0; v < vectors; v += 32 / VF) __builtin_prefetch(later + v * VF);
        for (int32_t v = 0; v < vectors; v++) max[v] = vf_max(max[v], vf_load_half(row + v * VF));
    }
    for (int64_t i = 0; i < n; i++)
        for (int32_t v = 0; v < vectors; v++) {
            vf power = powers(vf_load_half(x + i * step + v * VF), max[v]);
            sum[v] += power;
            vf_store(e + i * vectors * VF + v * VF, power);
        }
    for (int32_t v = 0; v < vectors; v++) sum[v] = vf_set(1) / sum[v];
    for (int64_t i = 0; i < n; i++) {
        half *row = y + i * step, *later = y + anex_min(i + AHEAD, n - 1) * step;
        for (int32_t v = 0; v < vectors; v += 32 / VF) __builtin_prefetch(later + v * VF, 1);
        for (int32_t v = 0; v < vectors; v++)
            vf_store_half(row + v * VF, vf_load(e + (i * vectors + v) * VF) * sum[v]);
    }
}

/* task: GROUP columns, or what is left of them */
static int64_t groups_of(const anex_axes *a) { return (a->inner + GROUP - 1) / GROUP; }
static void quick_columns_work(const anex_node *node, const anex_slice *slice) {
    const anex_panels *p = node->state;
    const anex_axes *a = &p->axes;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t column = task % groups_of(a) * GROUP, at = task / groups_of(a) * a->n * a->inner + column;
        const half *x = (const half *)node->in[0]->data + at;
        half *y = (half *)node->out[0]->data + at;
        int64_t left = anex_min(GROUP, a->inner - column);
        if (left == GROUP)
            quick_columns(8, x, y, a->n, a->inner, slice->scratch);
        else
            for (; left > 0; left -= VF, x += VF, y += VF) quick_columns(1, x, y, a->n, a->inner, slice->scratch);
    }
}

/* ---- planning ------------------------------------------------------------------------------- */

ANEX_KERNEL(softmax) {
    enum { X, AXIS };
    const anex_tensor *x = node->in[X];
    int32_t axis;
    anex_status status = anex_need_constants(node, 1u << AXIS, error);
    if (!status) status = ANEX_LOCAL(axis_read)(node, node->in[AXIS], -1, x->rank, &axis, error);
    if (status) return status;
    anex_panels *p = anex_node_state(node, sizeof *p, error);
    if (!p) return ANEX_MEMORY;
    *p = ANEX_LOCAL(panels_of)(ANEX_LOCAL(axes_along)(x, axis));
    bool quick = !node->strict && x->dtype == ANEX_F16;
    if (quick && anex_by_rows(&p->axes)) {
        node->scratch = 4 * (size_t)(p->axes.n + 4 * VF);
        anex_add_stage(node, quick_rows_work, p->axes.outer, 20 + 0.2 * (double)p->axes.n);
    } else if (quick && p->axes.inner % VF == 0) {
        node->scratch = 4 * (size_t)(p->axes.n * GROUP);
        anex_add_stage(node, quick_columns_work, p->axes.outer * groups_of(&p->axes),
                       0.2 * (double)(p->axes.n * anex_min(GROUP, p->axes.inner)));
    } else if (anex_by_rows(&p->axes)) {
        node->scratch = 4 * (size_t)p->axes.n;
        anex_add_stage(node, rows_work, p->axes.outer, 20 + 0.6 * (double)p->axes.n);
    } else {
        node->scratch = p->scratch + anex_align(12 * (size_t)p->width);
        anex_add_stage(node, columns_work, p->tasks, 0.8 * (double)(p->axes.n * p->width));
    }
    return ANEX_OK;
}
