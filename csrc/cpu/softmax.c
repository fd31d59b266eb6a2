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

/* The greatest of a few elements stands in for the maximum. The quotient is the same as long as the sum of the powers is
   far from infinity, and what is lost below is nothing beside a sum of 1 or more: one of the few has the power 2^0.
   Where the sum is not such a number, the true maximum is looked for after all. */
#define TOO_GREAT 0x1p60f
#define LEAST_HALF (-65504.0f) /* in place of -infinity, from which nothing can be taken away */

/* 2^((x - max) * log2 e): with the product of max rounded, which changes numerator and sum alike */
static inline vf powers(vf x, vf max) {
    return quick_exp2(vf_fma(x, vf_set(QUICK_LOG2E), max * vf_set(-QUICK_LOG2E)));
}

enum { FOUR = 4 * VF };

/* A row is x[0 .. whole - 1] and `rest`, whose lanes beyond the row are -infinity. */
typedef struct quick_line {
    const half *x;
    half *y;
    float *e; /* n floats, and the rest of four vectors: its powers */
    int64_t whole;
    vf most;
    half rest[FOUR];
} quick_line;

static inline const half *four_of(const quick_line *r, int64_t i) { return i < r->whole ? r->x + i : r->rest; }

static void begin_line(quick_line *r, const half *x, half *y, float *e, int64_t n) {
    r->x = x, r->y = y, r->e = e, r->whole = n / FOUR * FOUR;
    for (int32_t j = 0; j < FOUR; j++) r->rest[j] = r->whole + j < n ? x[r->whole + j] : 0xfc00;
    vf some[4]; /* of here and there: what stands at one end may be masked */
    for (int32_t v = 0; v < 4; v++) some[v] = vf_load_half(four_of(r, v * r->whole / 4 / FOUR * FOUR) + v * VF);
    r->most = vf_max(vf_set(vf_max_of_four(some)), vf_set(LEAST_HALF));
}

/* The powers of `r` and their sum. Meanwhile, of `last`, whose powers are there, the quotients but those of its rest. */
static inline __attribute__((always_inline)) float quick_powers(const quick_line *r, int64_t n, const quick_line *last,
                                                                vf scale) {
    vf sum[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (int64_t i = 0; i < n; i += FOUR) {
        const half *from = four_of(r, i);
        for (int32_t v = 0; v < 4; v++) {
            vf power = powers(vf_load_half(from + v * VF), r->most);
            sum[v] += power;
            vf_store(r->e + i + v * VF, power);
        }
        if (last && i < last->whole)
            for (int32_t v = 0; v < 4; v++)
                vf_store_half(last->y + i + v * VF, vf_load(last->e + i + v * VF) * scale);
    }
    return vf_sum_of_four(sum);
}

static void end_line(quick_line *r, int64_t n, vf scale, bool whole) {
    for (int64_t i = 0; whole && i < r->whole; i += VF) vf_store_half(r->y + i, vf_load(r->e + i) * scale);
    if (n == r->whole) return;
    for (int32_t v = 0; v < 4; v++) vf_store_half(r->rest + v * VF, vf_load(r->e + r->whole + v * VF) * scale);
    memcpy(r->y + r->whole, r->rest, (size_t)(n - r->whole) * sizeof *r->y);
}

/* With the maximum; of a row with a NaN any will do, as its sum is one. */
static float powers_again(quick_line *r, int64_t n) {
    vf max[4];
    for (int32_t v = 0; v < 4; v++) max[v] = vf_load_half(r->rest + v * VF);
    for (int64_t i = 0; i < r->whole; i += FOUR)
        for (int32_t v = 0; v < 4; v++) max[v] = vf_max(max[v], vf_load_half(r->x + i + v * VF));
    r->most = vf_set(vf_max_of_four(max));
    return quick_powers(r, n, NULL, r->most);
}

/* Each row's quotients with the next row's powers: the one waits for loads and stores, the other for the arithmetic. */
static void quick_rows_work(const anex_node *node, const anex_slice *slice) {
    const anex_panels *p = node->state;
    int64_t n = p->axes.n, room = n + FOUR;
    quick_line lines[2];
    vf scale = vf_zero();
    for (int64_t row = slice->begin; row < slice->end; row++) {
        quick_line *r = &lines[row % 2], *last = row > slice->begin ? &lines[1 - row % 2] : NULL;
        begin_line(r, (const half *)node->in[0]->data + row * n, (half *)node->out[0]->data + row * n,
                   (float *)slice->scratch + row % 2 * room, n);
        float sum = last ? quick_powers(r, n, last, scale) : quick_powers(r, n, NULL, scale);
        if (last) end_line(last, n, scale, false);
        if (!(sum + 1 / sum < TOO_GREAT)) sum = powers_again(r, n);
        scale = vf_set(1 / sum);
    }
    if (slice->end > slice->begin) end_line(&lines[(slice->end - 1) % 2], n, scale, true);
}

/* x and y [n, w], rows `step` apart, w <= GROUP: max and sum of every column stay in registers */
enum { GROUP = 8 * VF, AHEAD = 16 };
static inline __attribute__((always_inline)) void fetch_row(const int32_t vectors, const half *row, const bool writes) {
    for (int32_t v = 0; v < vectors; v += 32 / VF)
        if (writes)
            __builtin_prefetch(row + v * VF, 1);
        else
            __builtin_prefetch(row + v * VF);
}

static inline __attribute__((always_inline)) void column_powers(const int32_t vectors, const half *x, int64_t n,
                                                                int64_t step, const vf *max, vf *sum, float *e) {
    for (int32_t v = 0; v < vectors; v++) sum[v] = vf_zero();
    for (int64_t i = 0; i < n; i++) {
        fetch_row(vectors, x + anex_min(i + AHEAD, n - 1) * step, false);
        for (int32_t v = 0; v < vectors; v++) {
            vf power = powers(vf_load_half(x + i * step + v * VF), max[v]);
            sum[v] += power;
            vf_store(e + (i * vectors + v) * VF, power);
        }
    }
}

static inline __attribute__((always_inline)) void quick_columns(const int32_t vectors, const half *x, half *y,
                                                                int64_t n, int64_t step, float *e) {
    vf max[8], sum[8];
    for (int32_t v = 0; v < vectors; v++) max[v] = vf_set(LEAST_HALF);
    for (int64_t i = 0; i < 4; i++)
        for (int32_t v = 0; v < vectors; v++)
            max[v] = vf_max(max[v], vf_load_half(x + i * (n - 1) / 3 * step + v * VF));
    column_powers(vectors, x, n, step, max, sum, e);
    vf total[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (int32_t v = 0; v < vectors; v++) total[v % 4] += sum[v] + vf_set(1) / sum[v];
    if (!(vf_sum_of_four(total) < TOO_GREAT)) {
        for (int32_t v = 0; v < vectors; v++) max[v] = vf_set(-INFINITY);
        for (int64_t i = 0; i < n; i++)
            for (int32_t v = 0; v < vectors; v++) max[v] = vf_max(max[v], vf_load_half(x + i * step + v * VF));
        column_powers(vectors, x, n, step, max, sum, e);
    }
    for (int32_t v = 0; v < vectors; v++) sum[v] = vf_set(1) / sum[v];
    for (int64_t i = 0; i < n; i++) {
        fetch_row(vectors, y + anex_min(i + AHEAD, n - 1) * step, true);
        for (int32_t v = 0; v < vectors; v++)
            vf_store_half(y + i * step + v * VF, vf_load(e + (i * vectors + v) * VF) * sum[v]);
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
        node->scratch = 8 * (size_t)(p->axes.n + FOUR);
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
