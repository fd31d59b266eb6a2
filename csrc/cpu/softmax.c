/* softmax along any axis: e^(x - max) / sum of them. */
#include "axes.h"
#include "vmath.h"

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
    if (anex_by_rows(&p->axes)) {
        node->scratch = 4 * (size_t)p->axes.n;
        anex_add_stage(node, rows_work, p->axes.outer, 20 + 0.6 * (double)p->axes.n);
    } else {
        node->scratch = p->scratch + anex_align(12 * (size_t)p->width);
        anex_add_stage(node, columns_work, p->tasks, 0.8 * (double)(p->axes.n * p->width));
    }
    return ANEX_OK;
}
