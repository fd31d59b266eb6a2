/* Taking rows or elements by index. */
#include "index.h"

#include <string.h>

enum { BLOCK = ANEX_INDEX_BLOCK };

/* ---- rows: gather, gather_nd --------------------------------------------------------------------- */

/* y [batch, outer, count, run bytes] = rows of x [batch, outer, rows, run bytes]; indices [batch, count, depth],
   the `depth` numbers of one index select a row of x's axes size[0..depth-1] */
typedef struct gather {
    int64_t batch, outer, rows, count, run;
    int64_t blocks; /* of one (batch, outer): tasks */
    int64_t size[ANEX_MAX_RANK], step[ANEX_MAX_RANK];
    int32_t depth;
    bool validate;
} gather;

/* y[i] = x[row[i]], elements of `run` bytes */
static void copy_rows(char *restrict y, const char *restrict x, const int64_t *restrict row, int64_t n, int64_t run) {
    switch (run) {
    case 1:
        for (int64_t i = 0; i < n; i++) y[i] = x[row[i]];
        return;
    case 2:
        for (int64_t i = 0; i < n; i++) memcpy(y + i * 2, x + row[i] * 2, 2);
        return;
    case 4:
        for (int64_t i = 0; i < n; i++) memcpy(y + i * 4, x + row[i] * 4, 4);
        return;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(y + i * run, x + row[i] * run, (size_t)run);
    }
}

static void gather_rows(const anex_node *node, const anex_slice *slice) {
    enum { X, INDICES };
    const gather *g = node->state;
    const char *x = node->in[X]->data;
    char *y = node->out[0]->data;
    int64_t row[BLOCK], part[BLOCK];
    for (int64_t t = slice->begin; t < slice->end; t++) {
        int64_t plane = t / g->blocks, at = t % g->blocks * BLOCK, n = anex_min(BLOCK, g->count - at);
        int64_t first = (plane / g->outer * g->count + at) * g->depth;
        memset(row, 0, sizeof row);
        for (int32_t k = 0; k < g->depth; k++) {
            anex_resolve(node, slice, part, node->in[INDICES], first + k, g->depth, n, g->size[k], g->validate);
            for (int64_t i = 0; i < n; i++) row[i] += part[i] * g->step[k];
        }
        copy_rows(y + (plane * g->count + at) * g->run, x + plane * g->rows * g->run, row, n, g->run);
    }
}

/* batch and outer are x's axes 0..batch_axes-1 and batch_axes..first-1; `depth` axes are indexed from `first` on */
static anex_status plan_rows(anex_node *node, anex_error *error, int32_t batch_axes, int32_t first, int32_t depth,
                             bool validate) {
    enum { X, INDICES };
    const anex_tensor *x = node->in[X], *indices = node->in[INDICES], *y = node->out[0];
    if (batch_axes < 0 || first < batch_axes || first + depth > x->rank)
        return anex_node_fail(node, error, ANEX_INVALID, "x of rank %d has no %d axes from axis %d on", x->rank, depth,
                              first);
    gather *g = anex_node_state(node, sizeof *g, error);
    if (!g) return ANEX_MEMORY;
    g->batch = anex_span(x, 0, batch_axes), g->outer = anex_span(x, batch_axes, first);
    g->rows = anex_span(x, first, first + depth);
    g->run = anex_span(x, first + depth, x->rank) * (int64_t)anex_itemsize(x);
    g->depth = depth, g->validate = validate;
    g->count = g->batch && depth ? anex_tensor_size(indices) / g->batch / depth : 0;
    for (int32_t k = 0; k < depth; k++) {
        g->size[k] = x->shape[first + k];
        g->step[k] = anex_span(x, first + k + 1, first + depth);
    }
    anex_status status = anex_check_indices(node, indices, g->rows, error);
    if (status) return status;
    if (g->batch * g->outer * g->count * g->run != anex_tensor_nbytes(y) || y->dtype != x->dtype)
        return anex_node_fail(node, error, ANEX_SHAPE, "indices, x and the result do not fit together");
    g->blocks = (g->count + BLOCK - 1) / BLOCK;
    anex_add_stage(node, gather_rows, g->batch * g->outer * g->blocks,
                   (double)anex_min(BLOCK, g->count) * ((double)depth + 1 + (double)g->run * 0.03));
    return ANEX_OK;
}

ANEX_KERNEL(gather) {
    enum { X, INDICES, AXIS, BATCH_DIMS, VALIDATE_INDICES };
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << BATCH_DIMS | 1u << VALIDATE_INDICES, error);
    if (status) return status;
    return plan_rows(node, error, (int32_t)anex_int(node->in[BATCH_DIMS], 0),
                     anex_axis(anex_int(node->in[AXIS], 0), node->in[X]->rank), 1, anex_int(node->in[VALIDATE_INDICES],
                                                                                            0));
}

ANEX_KERNEL(gather_nd) {
    enum { X, INDICES, BATCH_DIMS, VALIDATE_INDICES };
    anex_status status = anex_need_constants(node, 1u << BATCH_DIMS | 1u << VALIDATE_INDICES, error);
    if (status) return status;
    const anex_tensor *indices = node->in[INDICES];
    if (indices->rank < 1) return anex_node_fail(node, error, ANEX_SHAPE, "indices must have an axis");
    int64_t batch = anex_int(node->in[BATCH_DIMS], 0), depth = indices->shape[indices->rank - 1];
    if (depth < 1 || depth > node->in[X]->rank)
        return anex_node_fail(node, error, ANEX_SHAPE, "an index of %lld numbers does not fit x of rank %d",
                              (long long)depth,
                              node->in[X]->rank);
    return plan_rows(node, error, (int32_t)batch, (int32_t)batch, (int32_t)depth,
                     anex_int(node->in[VALIDATE_INDICES], 0));
}

/* ---- elements: gather_along_axis ------------------------------------------------------------------ */

/* y [outer, count, inner] = x [outer, rows, inner] at indices [outer, count, inner]. Lines are rows of
   `inner` elements, or, along the last axis, of `count`. */
typedef struct along {
    int64_t rows, inner, lines, line, blocks; /* lines of one outer; blocks of one line */
    bool validate;
} along;

static void gather_elements(const anex_node *node, const anex_slice *slice) {
    enum { X, INDICES };
    const along *g = node->state;
    const int64_t item = (int64_t)anex_itemsize(node->in[X]);
    const char *x = node->in[X]->data;
    char *y = node->out[0]->data;
    int64_t row[BLOCK];
    for (int64_t t = slice->begin; t < slice->end; t++) {
        int64_t line = t / g->blocks, at = t % g->blocks * BLOCK, n = anex_min(BLOCK, g->line - at);
        int64_t first = line * g->line + at;
        anex_resolve(node, slice, row, node->in[INDICES], first, 1, n, g->rows, g->validate);
        if (g->inner > 1)
            for (int64_t i = 0; i < n; i++) row[i] = row[i] * g->inner + at + i;
        copy_rows(y + first * item, x + line / g->lines * g->rows * g->inner * item, row, n, item);
    }
}

ANEX_KERNEL(gather_along_axis) {
    enum { X, INDICES, AXIS, VALIDATE_INDICES };
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << VALIDATE_INDICES, error);
    if (status) return status;
    const anex_tensor *x = node->in[X], *indices = node->in[INDICES];
    int32_t axis = anex_axis(anex_int(node->in[AXIS], 0), x->rank);
    if (axis < 0 || axis >= x->rank || indices->rank != x->rank)
        return anex_node_fail(node, error, ANEX_INVALID, "indices of rank %d cannot go along axis %d of x of rank %d",
                              indices->rank, axis, x->rank);
    for (int32_t i = 0; i < x->rank; i++)
        if (i != axis && indices->shape[i] != x->shape[i])
            return anex_node_fail(node, error, ANEX_SHAPE, "x and indices have %lld and %lld elements along axis %d",
                                  (long long)x->shape[i], (long long)indices->shape[i], i);
    status = anex_check_indices(node, indices, x->shape[axis], error);
    if (status) return status;
    along *g = anex_node_state(node, sizeof *g, error);
    if (!g) return ANEX_MEMORY;
    int64_t outer = anex_span(x, 0, axis), count = indices->shape[axis];
    *g = (along){.rows = x->shape[axis], .inner = anex_span(x, axis + 1, x->rank)};
    g->validate = anex_int(node->in[VALIDATE_INDICES], 0);
    g->line = g->inner > 1 ? g->inner : count;
    g->lines = g->inner > 1 ? count : 1;
    g->blocks = (g->line + BLOCK - 1) / BLOCK;
    anex_add_stage(node, gather_elements, outer * g->lines * g->blocks, (double)anex_min(BLOCK, g->line) * 2);
    return ANEX_OK;
}
