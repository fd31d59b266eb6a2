/* avg_pool, max_pool and l2_pool over 1 to 3 axes of space.

   A row of the output is made in two steps, both running along rows: the input rows its windows cover
   are folded into one row with room for the padding, and the columns of each window are folded in that. */
#include "axes.h"
#include "text.h"

#include <math.h>

typedef enum kind { AVERAGE, GREATEST, L2 } kind;

/* One axis of space: window o covers elements o * stride - before .. + size - 1. */
typedef struct span {
    int64_t in, out, size, stride, before, after;
} span;

typedef struct pool {
    kind kind;
    bool exclude;    /* padding does not count in an average */
    bool direct;     /* a row of the input is a folded row: one axis, no padding */
    span d, h, w;
    int64_t room;    /* columns of a folded row with its padding */
    int64_t columns; /* of the input that windows cover */
    float count[];   /* elements of each window along w */
} pool;

/* The elements of window o in the input, first .. last - 1, perhaps none. */
static void window(const span *s, int64_t o, int64_t *first, int64_t *last) {
    int64_t from = o * s->stride - s->before;
    *first = anex_max(0, from), *last = anex_min(s->in, from + s->size);
}

/* What counts of a window in an average. As in torch, what ceil_mode adds beyond the padding does not. */
static int64_t count_of(const pool *p, const span *s, int64_t o) {
    int64_t from = o * s->stride - s->before, to = from + s->size;
    from = p->exclude ? anex_max(0, from) : from;
    to = anex_min(s->in + (p->exclude ? 0 : s->after), to);
    return anex_max(0, to - from);
}

/* ---- folding -------------------------------------------------------------------------------- */

static inline float fold(kind k, float a, float b) { return k == GREATEST ? anex_greater(a, b) : a + b; }
static inline float identity(kind k) { return k == GREATEST ? -INFINITY : 0; }

static void fold_row(kind k, float *restrict row, const float *restrict x, int64_t n) {
    if (k == L2)
        for (int64_t i = 0; i < n; i++) row[i] += x[i] * x[i];
    else if (k == GREATEST)
        for (int64_t i = 0; i < n; i++) row[i] = anex_greater(row[i], x[i]);
    else
        for (int64_t i = 0; i < n; i++) row[i] += x[i];
}

static inline void fold_columns(kind k, float *restrict y, const float *restrict row, int64_t n, int64_t size,
                                int64_t stride) {
    for (int64_t j = 0; j < size; j++)
        for (int64_t i = 0; i < n; i++) y[i] = fold(k, y[i], row[i * stride + j]);
}

/* Known strides let the loops vectorise. */
static void fold_windows(kind k, float *restrict y, const float *restrict row, const span *w) {
    enum { FEW = 8 };
    if (w->out < FEW && w->size > w->out) { /* long windows: along each */
        for (int64_t i = 0; i < w->out; i++) {
            const float *x = row + i * w->stride;
            y[i] = k == GREATEST ? anex_row_max(x, w->size) : anex_row_sum(x, w->size);
        }
        return;
    }
    for (int64_t i = 0; i < w->out; i++) y[i] = identity(k);
#define FOLD_COLUMNS(kind, stride) fold_columns(kind, y, row, w->out, w->size, stride)
#define STRIDE(n) (k == GREATEST ? FOLD_COLUMNS(GREATEST, n) : FOLD_COLUMNS(AVERAGE, n))
    switch (w->stride) {
    case 1: STRIDE(1); break;
    case 2: STRIDE(2); break;
    case 3: STRIDE(3); break;
    default: STRIDE(w->stride);
    }
}

static void finish_row(const pool *p, float *restrict y, float rows) {
    const float *restrict count = p->count;
    if (p->kind == AVERAGE)
        for (int64_t i = 0; i < p->w.out; i++) y[i] /= rows * count[i];
    if (p->kind == L2)
        for (int64_t i = 0; i < p->w.out; i++) y[i] = sqrtf(y[i]);
}

/* A task is a row of the output. scratch: a row of the input, a folded row, a row of the output */
static void pool_work(const anex_node *node, const anex_slice *slice) {
    const pool *p = node->state;
    float *x = slice->scratch, *row = x + p->columns, *y = row + p->room;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t h = task % p->h.out, d = task / p->h.out % p->d.out, plane = task / p->h.out / p->d.out;
        int64_t h_first, h_last, d_first, d_last;
        window(&p->h, h, &h_first, &h_last);
        window(&p->d, d, &d_first, &d_last);
        if (p->direct) {
            ANEX_LOCAL(load)(row, node->in[0], plane * p->w.in, p->room);
            if (p->kind == L2)
                for (int64_t i = 0; i < p->room; i++) row[i] *= row[i];
            d_last = d_first;
        }
        for (int64_t i = 0; !p->direct && i < p->room; i++) row[i] = identity(p->kind);
        for (int64_t i = d_first; i < d_last; i++)
            for (int64_t j = h_first; j < h_last; j++) {
                ANEX_LOCAL(load)(x, node->in[0], ((plane * p->d.in + i) * p->h.in + j) * p->w.in, p->columns);
                fold_row(p->kind, row + p->w.before, x, p->columns);
            }
        fold_windows(p->kind, y, row, &p->w);
        finish_row(p, y, (float)anex_max(1, count_of(p, &p->d, d) * count_of(p, &p->h, h)));
        ANEX_LOCAL(store)(node->out[0], task * p->w.out, y, p->w.out);
    }
}

/* ---- planning ------------------------------------------------------------------------------- */

enum { X, KERNEL_SIZES, STRIDES, PAD_TYPE, PAD, CEIL_MODE, EXCLUDE_PADDING_FROM_AVERAGE };

static anex_status read_span(const anex_node *node, int32_t i, int32_t pad_type, span *s, anex_error *error) {
    enum { VALID, SAME, SAME_LOWER, CUSTOM };
    const anex_tensor *strides = node->in[STRIDES], *pad = node->in[PAD];
    s->in = node->in[X]->shape[2 + i], s->out = node->out[0]->shape[2 + i];
    s->size = anex_item(node->in[KERNEL_SIZES], i), s->stride = strides ? anex_item(strides, i) : 1;
    if (s->size < 1 || s->stride < 1)
        return anex_node_fail(node, error, ANEX_INVALID, "kernel_sizes and strides must be at least 1");
    if (pad_type == SAME || pad_type == SAME_LOWER) {
        int64_t all = anex_max(0, (s->in + s->stride - 1) / s->stride * s->stride - s->in + s->size - s->stride);
        s->before = pad_type == SAME ? all / 2 : all - all / 2;
        s->after = all - s->before;
    } else if (pad_type == CUSTOM && pad) {
        s->before = anex_item(pad, 2 * i), s->after = anex_item(pad, 2 * i + 1);
        if (s->before < 0 || s->after < 0) return anex_node_fail(node, error, ANEX_INVALID, "pad must not be negative");
    }
    return ANEX_OK;
}

/* Axes whose one window is all of them become part of the axis before: global pooling is one long row. */
static int32_t merge_spans(span *s, int32_t n) {
    for (; n > 1 && s[n - 1].out == 1 && s[n - 1].size == s[n - 1].in && !s[n - 1].before; n--) {
        span *to = &s[n - 2];
        int64_t by = s[n - 1].in;
        if (s[n - 1].after) break;
        to->in *= by, to->size *= by, to->stride *= by, to->before *= by, to->after *= by;
    }
    return n;
}

static anex_status plan(anex_node *node, kind k, anex_error *error) {
    static const char *const pad_types[] = {"valid", "same", "same_lower", "custom"};
    const anex_tensor *x = node->in[X], *y = node->out[0];
    anex_status status = anex_need_constants(node, ~1u, error);
    if (status) return status;
    int32_t n = x->rank - 2, pad_type = anex_text_in(anex_text(node->in[PAD_TYPE], "valid"), pad_types, 4);
    if (n < 1 || n > 3)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d; pooling is for ranks 3 to 5", x->rank);
    if (pad_type < 0)
        return anex_node_fail(node, error, ANEX_INVALID,
                              "pad_type is \"%s\", not one of valid, same, same_lower, custom",
                              anex_text(node->in[PAD_TYPE], ""));
    for (int32_t i = KERNEL_SIZES; i <= PAD; i++) {
        int64_t size = i == PAD ? 2 * n : n;
        if (i == PAD_TYPE || (i != KERNEL_SIZES && !node->in[i])) continue;
        if (!node->in[i] || anex_tensor_size(node->in[i]) != size)
            return anex_node_fail(node, error, ANEX_SHAPE, "kernel_sizes and strides need %d numbers, pad %d", n,
                                  2 * n);
    }
    span s[3], all[3] = {{1, 1, 1, 1, 0, 0}, {1, 1, 1, 1, 0, 0}, {1, 1, 1, 1, 0, 0}};
    for (int32_t i = 0; i < n; i++) {
        s[i] = (span){0};
        status = read_span(node, i, pad_type, &s[i], error);
        if (status) return status;
    }
    n = merge_spans(s, n);
    memcpy(all + 3 - n, s, (size_t)n * sizeof *s);
    pool *p = anex_node_state(node, sizeof *p + sizeof(float) * (size_t)all[2].out, error);
    if (!p) return ANEX_MEMORY;
    p->kind = k, p->d = all[0], p->h = all[1], p->w = all[2];
    p->exclude = anex_int(node->in[EXCLUDE_PADDING_FROM_AVERAGE], 0);
    for (int64_t i = 0; i < p->w.out; i++) p->count[i] = (float)anex_max(1, count_of(p, &p->w, i));
    int64_t covered = (p->w.out - 1) * p->w.stride + p->w.size;
    p->columns = anex_max(0, anex_min(p->w.in, covered - p->w.before));
    p->room = anex_max(covered, p->w.before + p->columns);
    p->direct = p->columns == p->room && p->d.in == 1 && p->d.out == 1 && p->h.in == 1 && p->h.out == 1;
    node->scratch = sizeof(float) * (size_t)(p->columns + p->room + p->w.out);
    double rows = (double)anex_min(p->d.size, p->d.in) * (double)anex_min(p->h.size, p->h.in);
    double cost = 40 + 0.2 * rows * (double)p->columns + 0.2 * (double)p->w.size * (double)p->w.out;
    anex_add_stage(node, pool_work, anex_tensor_size(y) / p->w.out, cost);
    return ANEX_OK;
}

ANEX_KERNEL(avg_pool) { return plan(node, AVERAGE, error); }
ANEX_KERNEL(max_pool) { return plan(node, GREATEST, error); }
ANEX_KERNEL(l2_pool) { return plan(node, L2, error); }
