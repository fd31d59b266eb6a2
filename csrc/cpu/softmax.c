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
    int64_t whole;
    vf most;
    half rest[FOUR]; /* of x, then of y */
} quick_line;

static inline const half *four_of(const quick_line *r, int64_t i) { return i < r->whole ? r->x + i : r->rest; }

static void begin_line(quick_line *r, const half *x, half *y, int64_t n) {
    r->x = x, r->y = y, r->whole = n / FOUR * FOUR;
    if (r->whole < n)
        for (int32_t j = 0; j < FOUR; j++) r->rest[j] = r->whole + j < n ? x[r->whole + j] : 0xfc00;
    vf some[4]; /* of here and there: what stands at one end may be masked */
    for (int32_t v = 0; v < 4; v++) some[v] = vf_load_half(four_of(r, v * r->whole / 4 / FOUR * FOUR) + v * VF);
    r->most = vf_max(vf_set(vf_max_of_four(some)), vf_set(LEAST_HALF));
}

/* The powers of `now` into e, and their sum. Just before each is written, the quotient of the power of `last` that was
   there, so that the arithmetic of the one row fills the time in which the other waits for memory. Either may be NULL. */
static inline __attribute__((always_inline)) float quick_line_pass(const quick_line *now, quick_line *last, vf scale,
                                                                   int64_t n, float *e) {
    vf sum[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()}, quotient[4];
    for (int64_t i = 0; i < n; i += FOUR, e += FOUR) {
        for (int32_t v = 0; last && v < 4; v++) quotient[v] = vf_load(e + v * VF) * scale;
        const half *from = now ? four_of(now, i) : NULL;
        for (int32_t v = 0; now && v < 4; v++) {
            vf power = powers(vf_load_half(from + v * VF), now->most);
            sum[v] += power;
            vf_store(e + v * VF, power);
        }
        half *to = !last ? NULL : i < last->whole ? last->y + i : last->rest;
        for (int32_t v = 0; last && v < 4; v++) vf_store_half(to + v * VF, quotient[v]);
    }
    if (last && last->whole < n) memcpy(last->y + last->whole, last->rest, (size_t)(n - last->whole) * sizeof *last->y);
    return vf_sum_of_four(sum);
}

/* With the maximum; of a row with a NaN any will do, as its sum is one. */
static float powers_again(quick_line *r, int64_t n, float *e) {
    vf max[4];
    for (int32_t v = 0; v < 4; v++) max[v] = r->whole < n ? vf_load_half(r->rest + v * VF) : r->most;
    for (int64_t i = 0; i < r->whole; i += FOUR)
        for (int32_t v = 0; v < 4; v++) max[v] = vf_max(max[v], vf_load_half(r->x + i + v * VF));
    r->most = vf_set(vf_max_of_four(max));
    return quick_line_pass(r, NULL, vf_zero(), n, e);
}

static void quick_rows_work(const anex_node *node, const anex_slice *slice) {
    const anex_panels *p = node->state;
    const int64_t n = p->axes.n;
    const half *x = node->in[0]->data;
    half *y = node->out[0]->data;
    float *e = slice->scratch;
    quick_line lines[3]; /* the last one, this, and the next, whose first look at memory is early */
    vf scale = vf_zero();
    int64_t row = slice->begin;
    if (row < slice->end) begin_line(&lines[row % 3], x + row * n, y + row * n, n);
    for (; row < slice->end; row++) {
        quick_line *now = &lines[row % 3], *last = row > slice->begin ? &lines[(row + 2) % 3] : NULL;
        if (row + 1 < slice->end) begin_line(&lines[(row + 1) % 3], x + (row + 1) * n, y + (row + 1) * n, n);
        float sum = last ? quick_line_pass(now, last, scale, n, e) : quick_line_pass(now, NULL, scale, n, e);
        if (!(sum + 1 / sum < TOO_GREAT)) sum = powers_again(now, n, e);
        scale = vf_set(1 / sum);
    }
    if (slice->begin < slice->end) quick_line_pass(NULL, &lines[(row + 2) % 3], scale, n, e);
}

/* Columns [n, GROUP] at a time, or one vector of them: each one's maximum and sum stay in registers. */
enum { VECTORS = 4, GROUP = VECTORS * VF };

typedef struct quick_group {
    const half *x;
    half *y;
    int64_t n, step; /* rows, and from one to the next */
    vf most[VECTORS], sum[VECTORS];
} quick_group;

static inline __attribute__((always_inline)) void fetch_row(const int32_t vectors, const half *row, const bool writes) {
    for (int32_t v = 0; v < vectors; v += 32 / VF)
        if (writes)
            __builtin_prefetch(row + v * VF, 1);
        else
            __builtin_prefetch(row + v * VF);
}

/* As of rows: powers of `now` and its sums, quotients of `last`, whose sums are inverse; either may be NULL. */
static inline __attribute__((always_inline)) void quick_group_pass(const int32_t vectors, quick_group *now,
                                                                   const quick_group *last, float *e) {
    enum { AHEAD = 8 };
    const int64_t n = now ? now->n : last->n, step = now ? now->step : last->step;
    vf sum[VECTORS], most[VECTORS], scale[VECTORS], quotient[VECTORS];
    for (int32_t v = 0; v < vectors; v++) {
        sum[v] = vf_zero();
        if (now) most[v] = now->most[v];
        if (last) scale[v] = last->sum[v];
    }
    for (int64_t i = 0; i < n; i++, e += vectors * VF) {
        const int64_t later = anex_min(i + AHEAD, n - 1) * step;
        if (last) fetch_row(vectors, last->y + later, true);
        if (now) fetch_row(vectors, now->x + later, false);
        for (int32_t v = 0; last && v < vectors; v++) quotient[v] = vf_load(e + v * VF) * scale[v];
        for (int32_t v = 0; now && v < vectors; v++) {
            vf power = powers(vf_load_half(now->x + i * step + v * VF), most[v]);
            sum[v] += power;
            vf_store(e + v * VF, power);
        }
        for (int32_t v = 0; last && v < vectors; v++) vf_store_half(last->y + i * step + v * VF, quotient[v]);
    }
    for (int32_t v = 0; now && v < vectors; v++) now->sum[v] = sum[v];
}

/* The greatest of `least` and of so many rows, here and there */
static inline __attribute__((always_inline)) void most_of_rows(const int32_t vectors, quick_group *g, int64_t rows,
                                                               const float least) {
    for (int32_t v = 0; v < vectors; v++) g->most[v] = vf_set(least);
    for (int64_t i = 0; i < rows; i++) {
        const half *row = g->x + (rows < g->n ? i * (g->n - 1) / (rows - 1) : i) * g->step;
        for (int32_t v = 0; v < vectors; v++) g->most[v] = vf_max(g->most[v], vf_load_half(row + v * VF));
    }
}

static inline __attribute__((always_inline)) void quick_columns(const int32_t vectors, quick_group *now,
                                                                const quick_group *last, float *e) {
    most_of_rows(vectors, now, anex_min(4, now->n), LEAST_HALF);
    if (last)
        quick_group_pass(vectors, now, last, e);
    else
        quick_group_pass(vectors, now, NULL, e);
    vf total[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (int32_t v = 0; v < vectors; v++) total[v % 4] += now->sum[v] + vf_set(1) / now->sum[v];
    if (!(vf_sum_of_four(total) < TOO_GREAT)) {
        most_of_rows(vectors, now, now->n, -INFINITY);
        quick_group_pass(vectors, now, NULL, e);
    }
    for (int32_t v = 0; v < vectors; v++) now->sum[v] = vf_set(1) / now->sum[v];
}

/* task: GROUP columns, or what is left of them */
static int64_t groups_of(const anex_axes *a) { return (a->inner + GROUP - 1) / GROUP; }
static void quick_columns_work(const anex_node *node, const anex_slice *slice) {
    const anex_panels *p = node->state;
    const anex_axes *a = &p->axes;
    quick_group groups[2], *last = NULL; /* `last`: all but its quotients is done */
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t column = task % groups_of(a) * GROUP, at = task / groups_of(a) * a->n * a->inner + column;
        int64_t left = anex_min(GROUP, a->inner - column);
        quick_group *now = &groups[task % 2];
        *now = (quick_group){.n = a->n, .step = a->inner};
        now->x = (const half *)node->in[0]->data + at, now->y = (half *)node->out[0]->data + at;
        if (left == GROUP) {
            quick_columns(VECTORS, now, last, slice->scratch);
            last = now;
            continue;
        }
        if (last) quick_group_pass(VECTORS, NULL, last, slice->scratch);
        for (last = NULL; left > 0; left -= VF, now->x += VF, now->y += VF) {
            quick_columns(1, now, NULL, slice->scratch);
            quick_group_pass(1, NULL, now, slice->scratch);
        }
    }
    if (last) quick_group_pass(VECTORS, NULL, last, slice->scratch);
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
        node->scratch = 4 * (size_t)(p->axes.n + FOUR);
        anex_add_stage(node, quick_rows_work, p->axes.outer, 20 + 0.15 * (double)p->axes.n);
    } else if (quick && p->axes.inner % VF == 0) {
        node->scratch = 4 * (size_t)(p->axes.n * GROUP);
        anex_add_stage(node, quick_columns_work, p->axes.outer * groups_of(&p->axes),
                       0.15 * (double)(p->axes.n * anex_min(GROUP, p->axes.inner)));
        node->stage[node->n_stages - 1].linked = true;
    } else if (anex_by_rows(&p->axes)) {
        node->scratch = 4 * (size_t)p->axes.n;
        anex_add_stage(node, rows_work, p->axes.outer, 20 + 0.6 * (double)p->axes.n);
    } else {
        node->scratch = p->scratch + anex_align(12 * (size_t)p->width);
        anex_add_stage(node, columns_work, p->tasks, 0.8 * (double)(p->axes.n * p->width));
    }
    return ANEX_OK;
}
