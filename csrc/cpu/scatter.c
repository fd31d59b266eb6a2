/* Combining rows or elements into a tensor at indices. One task owns a block of the result and goes
   through all updates in order, so each element is combined in the order of the updates, whatever
   the number of threads. float16 is combined in float and rounded once. An update whose index is outside
   changes nothing: MIL leaves it undefined, and no element is written that was not named. */
#include "../half.h"
#include "index.h"

#include <string.h>

enum { BLOCK = ANEX_INDEX_BLOCK, COLUMNS = 1024, NOWHERE = -1 };

typedef enum mode { ADD, DIV, MAX, MIN, MUL, SUB, UPDATE } mode;

/* data, y [outer, rows, inner], updates [outer, count, inner]; a task takes `columns` of inner */
typedef struct scatter {
    int64_t outer, rows, count, inner, columns, blocks;
    int64_t size[ANEX_MAX_RANK], step[ANEX_MAX_RANK]; /* of the indexed axes: elements, rows */
    int32_t depth;
    mode mode;
    bool validate, elements; /* elements: indices [outer, count, inner] instead of [count, depth] */
    bool from_end;           /* negative indices count from the end */
} scatter;

/* ---- combining ------------------------------------------------------------------------------------ */

static void combine_float(float *restrict y, const float *restrict u, int64_t n, mode m) {
    switch (m) {
    case ADD: for (int64_t i = 0; i < n; i++) y[i] += u[i]; break;
    case SUB: for (int64_t i = 0; i < n; i++) y[i] -= u[i]; break;
    case MUL: for (int64_t i = 0; i < n; i++) y[i] *= u[i]; break;
    case DIV: for (int64_t i = 0; i < n; i++) y[i] /= u[i]; break;
    case MAX: for (int64_t i = 0; i < n; i++) y[i] = u[i] > y[i] ? u[i] : y[i]; break;
    case MIN: for (int64_t i = 0; i < n; i++) y[i] = u[i] < y[i] ? u[i] : y[i]; break;
    case UPDATE: for (int64_t i = 0; i < n; i++) y[i] = u[i]; break;
    }
}

static int32_t divide(int32_t a, int32_t b) { /* towards 0; x / 0 is 0 and the one overflow wraps */
    return b == 0 ? 0 : b == -1 ? (int32_t)(0u - (uint32_t)a) : a / b;
}

static void combine_int(int32_t *restrict y, const int32_t *restrict u, int64_t n, mode m) {
    switch (m) {
    case ADD: for (int64_t i = 0; i < n; i++) y[i] = (int32_t)((uint32_t)y[i] + (uint32_t)u[i]); break;
    case SUB: for (int64_t i = 0; i < n; i++) y[i] = (int32_t)((uint32_t)y[i] - (uint32_t)u[i]); break;
    case MUL: for (int64_t i = 0; i < n; i++) y[i] = (int32_t)((uint32_t)y[i] * (uint32_t)u[i]); break;
    case DIV: for (int64_t i = 0; i < n; i++) y[i] = divide(y[i], u[i]); break;
    case MAX: for (int64_t i = 0; i < n; i++) y[i] = u[i] > y[i] ? u[i] : y[i]; break;
    case MIN: for (int64_t i = 0; i < n; i++) y[i] = u[i] < y[i] ? u[i] : y[i]; break;
    case UPDATE: for (int64_t i = 0; i < n; i++) y[i] = u[i]; break;
    }
}

/* n elements of the update into the result; `y` is float for float16 */
static void combine(const scatter *s, anex_dtype dtype, size_t item, char *y, const char *u, int64_t n,
                    float *scratch) {
    if (s->mode == UPDATE) {
        memcpy(y, u, (size_t)n * item);
    } else if (dtype == ANEX_F16) {
        anex_widen(scratch, (const half *)u, n);
        combine_float((float *)y, scratch, n, s->mode);
    } else if (dtype == ANEX_F32) {
        combine_float((float *)y, (const float *)u, n, s->mode);
    } else {
        combine_int((int32_t *)y, (const int32_t *)u, n, s->mode);
    }
}

/* ---- the work ------------------------------------------------------------------------------------- */

/* row[i] = where update i goes along an axis of `size`, NOWHERE if its index is outside */
static void resolve(const scatter *s, const anex_node *node, const anex_slice *slice, int64_t *restrict row,
                    int64_t first, int64_t step, int64_t n, int64_t size) {
    enum { DATA, INDICES };
    anex_read_indices(row, node->in[INDICES], first, step, n);
    if (s->validate) anex_validate(node, slice, row, n, size);
    for (int64_t i = 0; i < n; i++) {
        int64_t r = row[i] + (s->from_end && row[i] < 0 ? size : 0);
        row[i] = r < 0 || r >= size ? NOWHERE : r;
    }
}

static void scatter_rows(const scatter *s, const anex_node *node, const anex_slice *slice, char *y, const char *updates,
                         int64_t width, int64_t y_item) {
    enum { DATA };
    const size_t item = anex_itemsize(node->in[DATA]);
    int64_t row[BLOCK], part[BLOCK];
    for (int64_t at = 0; at < s->count; at += BLOCK) {
        int64_t n = anex_min(BLOCK, s->count - at);
        memset(row, 0, sizeof row);
        for (int32_t k = 0; k < s->depth; k++) {
            resolve(s, node, slice, part, at * s->depth + k, s->depth, n, s->size[k]);
            for (int64_t i = 0; i < n; i++)
                row[i] = row[i] == NOWHERE || part[i] == NOWHERE ? NOWHERE : row[i] + part[i] * s->step[k];
        }
        for (int64_t i = 0; i < n; i++)
            if (row[i] != NOWHERE)
                combine(s, node->in[DATA]->dtype, item, y + row[i] * s->inner * y_item,
                        updates + (at + i) * s->inner * (int64_t)item, width, slice->scratch);
    }
}

static void scatter_elements(const scatter *s, const anex_node *node, const anex_slice *slice, char *y,
                             const char *updates, int64_t first, int64_t width, int64_t y_item) {
    enum { DATA };
    const size_t item = anex_itemsize(node->in[DATA]);
    float *wide = slice->scratch; /* one element of update */
    int64_t row[BLOCK];
    for (int64_t k = 0; k < s->count; k++)
        for (int64_t at = 0; at < width; at += BLOCK) {
            int64_t n = anex_min(BLOCK, width - at);
            resolve(s, node, slice, row, first + k * s->inner + at, 1, n, s->rows);
            for (int64_t i = 0; i < n; i++) {
                if (row[i] == NOWHERE) continue;
                combine(s, node->in[DATA]->dtype, item, y + (row[i] * s->inner + at + i) * y_item,
                        updates + (k * s->inner + at + i) * (int64_t)item, 1, wide);
            }
        }
}

static void scatter_work(const anex_node *node, const anex_slice *slice) {
    enum { DATA, INDICES, UPDATES };
    const scatter *s = node->state;
    const anex_tensor *data = node->in[DATA];
    const int64_t item = (int64_t)anex_itemsize(data);
    const bool wide = data->dtype == ANEX_F16 && s->mode != UPDATE;
    const int64_t y_item = wide ? 4 : item;
    for (int64_t t = slice->begin; t < slice->end; t++) {
        int64_t outer = t / s->blocks, column = t % s->blocks * s->columns;
        int64_t width = anex_min(s->columns, s->inner - column), base = outer * s->rows * s->inner + column;
        bool whole = width == s->inner;
        int64_t lines = whole ? 1 : s->rows, line = whole ? s->rows * width : width;
        const char *x = (const char *)data->data + base * item;
        char *y = (char *)node->out[0]->data + base * item, *target = wide ? (char *)slice->shared + base * y_item : y;
        for (int64_t r = 0; r < lines; r++) {
            int64_t at = r * s->inner;
            if (wide)
                anex_widen((float *)target + at, (const half *)x + at, line);
            else
                memcpy(y + at * item, x + at * item, (size_t)(line * item));
        }
        int64_t first = outer * s->count * s->inner + column;
        const char *updates = (const char *)node->in[UPDATES]->data + first * item;
        if (s->elements)
            scatter_elements(s, node, slice, target, updates, first, width, y_item);
        else
            scatter_rows(s, node, slice, target, updates, width, y_item);
        for (int64_t r = 0; wide && r < lines; r++)
            anex_narrow((half *)y + r * s->inner, (float *)target + r * s->inner, line);
    }
}

/* ---- planning ------------------------------------------------------------------------------------- */

static anex_status plan_scatter(anex_node *node, anex_error *error, int32_t axis, int32_t depth, bool elements,
                                const anex_tensor *mode_name, const anex_tensor *validate) {
    enum { DATA, INDICES, UPDATES };
    const anex_tensor *data = node->in[DATA], *indices = node->in[INDICES], *updates = node->in[UPDATES];
    static const char *const names[] = {"add", "div", "max", "min", "mul", "sub", "update"};
    const char *name = anex_text(mode_name, "add");
    int m = 0;
    while (m < 7 && strcmp(names[m], name)) m++;
    if (m == 7)
        return anex_node_fail(node, error, ANEX_INVALID, "mode \"%s\" is none of add, div, max, min, mul, sub, update",
                              name);
    if (m != UPDATE && data->dtype != ANEX_F16 && data->dtype != ANEX_F32 && data->dtype != ANEX_I32)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                              "mode %s works on float16, float32 and int32, not %s; cast data first", name,
                              anex_dtypes[data->dtype].name);
    if (updates->dtype != data->dtype)
        return anex_node_fail(node, error, ANEX_DTYPE, "updates are %s, data %s", anex_dtypes[updates->dtype].name,
                              anex_dtypes[data->dtype].name);
    if (axis < 0 || depth < 1 || axis + depth > data->rank)
        return anex_node_fail(node, error, ANEX_INVALID, "data of rank %d has no %d axes from axis %d on", data->rank,
                              depth, axis);
    scatter *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    s->outer = anex_span(data, 0, axis), s->rows = anex_span(data, axis, axis + depth);
    s->inner = anex_span(data, axis + depth, data->rank);
    s->count = elements ? indices->shape[axis] : anex_tensor_size(indices) / depth;
    s->depth = depth, s->mode = (mode)m, s->elements = elements, s->validate = anex_int(validate, 0);
    s->from_end = !validate; /* the input came with iOS17, which calls negative indices out of bounds */
    for (int32_t k = 0; k < depth; k++) {
        s->size[k] = data->shape[axis + k];
        s->step[k] = anex_span(data, axis + k + 1, axis + depth);
    }
    anex_status status = anex_check_indices(node, indices, s->rows, error);
    if (status) return status;
    if (anex_tensor_size(updates) != s->outer * s->count * s->inner)
        return anex_node_fail(node, error, ANEX_SHAPE, "updates have %lld elements, indices and data ask for %lld",
                              (long long)anex_tensor_size(updates), (long long)(s->outer * s->count * s->inner));
    /* columns: as many tasks as pay, but lines long enough to go fast; several outers are tasks already */
    s->columns = s->outer >= 8 ? anex_min(s->inner, COLUMNS) : anex_min(s->inner, 128);
    s->columns = anex_max(s->columns, 1);
    s->blocks = (s->inner + s->columns - 1) / s->columns;
    node->scratch = sizeof(float) * COLUMNS;
    if (data->dtype == ANEX_F16 && s->mode != UPDATE) node->shared = sizeof(float) * (size_t)anex_tensor_size(data);
    double moved = (double)(s->rows + s->count) * (double)s->columns;
    anex_add_stage(node, scatter_work, s->outer * s->blocks,
                   moved * 0.2 + (double)s->count * (elements ? 3 * (double)s->columns : 5));
    return ANEX_OK;
}

ANEX_KERNEL(scatter) {
    enum { DATA, INDICES, UPDATES, AXIS, MODE, VALIDATE_INDICES };
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << MODE | 1u << VALIDATE_INDICES, error);
    if (status) return status;
    int32_t axis = anex_axis(anex_int(node->in[AXIS], 0), node->in[DATA]->rank);
    return plan_scatter(node, error, axis, 1, false, node->in[MODE], node->in[VALIDATE_INDICES]);
}

ANEX_KERNEL(scatter_along_axis) {
    enum { DATA, INDICES, UPDATES, AXIS, MODE, VALIDATE_INDICES };
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << MODE | 1u << VALIDATE_INDICES, error);
    if (status) return status;
    const anex_tensor *data = node->in[DATA], *indices = node->in[INDICES];
    int32_t axis = anex_axis(anex_int(node->in[AXIS], 0), data->rank);
    for (int32_t i = 0; i < data->rank; i++)
        if (indices->rank != data->rank || (i != axis && indices->shape[i] != data->shape[i]))
            return anex_node_fail(node, error, ANEX_SHAPE, "data and indices must agree except along axis %d", axis);
    return plan_scatter(node, error, axis, 1, true, node->in[MODE], node->in[VALIDATE_INDICES]);
}

ANEX_KERNEL(scatter_nd) {
    enum { DATA, INDICES, UPDATES, MODE, VALIDATE_INDICES };
    anex_status status = anex_need_constants(node, 1u << MODE | 1u << VALIDATE_INDICES, error);
    if (status) return status;
    const anex_tensor *indices = node->in[INDICES];
    if (indices->rank < 1) return anex_node_fail(node, error, ANEX_SHAPE, "indices must have an axis");
    int64_t depth = indices->shape[indices->rank - 1];
    return plan_scatter(node, error, 0, (int32_t)anex_min(depth, ANEX_MAX_RANK + 1), false, node->in[MODE],
                        node->in[VALIDATE_INDICES]);
}
