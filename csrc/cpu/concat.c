/* Putting tensors together and taking them apart: concat, stack, split, tile, pad. */
#include "../half.h"
#include "move.h"

#include <string.h>

/* ---- concat, stack ------------------------------------------------------------------------------ */

static anex_status join(anex_node *node, anex_error *error, int32_t axis, bool stacked, bool interleave) {
    const anex_tensor *y = node->out[0];
    if (axis < 0 || axis >= y->rank)
        return anex_node_fail(node, error, ANEX_INVALID, "the result has no axis %d", axis);
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, node->n_list, error);
    if (!pieces) return ANEX_MEMORY;
    int64_t outer = anex_span(y, 0, axis), item = (int64_t)anex_itemsize(y), inner = anex_step(y, axis) / item, at = 0;
    for (int32_t i = 0; i < node->n_list; i++) {
        const anex_tensor *x = node->list[i];
        int64_t size = stacked || !x->rank ? 1 : x->shape[axis];
        if (x->dtype != y->dtype || anex_tensor_size(x) != outer * size * inner ||
            (interleave && size * node->n_list != y->shape[axis]))
            return anex_node_fail(node, error, ANEX_SHAPE, "value %d does not fit beside the others along axis %d", i,
                                  axis);
        anex_piece *piece = ANEX_LOCAL(pieces_add)(pieces, 0, i, 0, item);
        piece->to = (interleave ? i : at) * inner * item;
        anex_move_axis(&piece->move, outer, size * inner * item, y->shape[axis] * inner * item);
        anex_move_axis(&piece->move, size, inner * item, (interleave ? node->n_list : 1) * inner * item);
        anex_move_axis(&piece->move, inner, item, item);
        at += size;
    }
    if (at != y->shape[axis])
        return anex_node_fail(node, error, ANEX_SHAPE, "the values have %lld elements along axis %d, the result %lld",
                              (long long)at, axis, (long long)y->shape[axis]);
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

ANEX_KERNEL(concat) {
    enum { AXIS, INTERLEAVE };
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << INTERLEAVE, error);
    if (status) return status;
    int32_t axis = anex_axis(anex_int(node->in[AXIS], 0), node->out[0]->rank);
    return join(node, error, axis, false, anex_int(node->in[INTERLEAVE], 0));
}

ANEX_KERNEL(stack) {
    enum { AXIS };
    anex_status status = anex_need_constants(node, 1u << AXIS, error);
    if (status) return status;
    return join(node, error, anex_axis(anex_int(node->in[AXIS], 0), node->out[0]->rank), true, false);
}

/* ---- split -------------------------------------------------------------------------------------- */

/* num_splits and split_sizes only say what the outputs' shapes are, which are known. */
ANEX_KERNEL(split) {
    enum { X, NUM_SPLITS, SPLIT_SIZES, AXIS };
    const anex_tensor *x = node->in[X];
    anex_status status = anex_need_constants(node, 1u << AXIS, error);
    if (status) return status;
    int32_t axis = anex_axis(anex_int(node->in[AXIS], 0), x->rank);
    if (axis < 0 || axis >= x->rank) return anex_node_fail(node, error, ANEX_INVALID, "x has no axis %d", axis);
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, node->n_out, error);
    if (!pieces) return ANEX_MEMORY;
    int64_t outer = anex_span(x, 0, axis), item = (int64_t)anex_itemsize(x), step = anex_step(x, axis), at = 0;
    for (int32_t i = 0; i < node->n_out; i++) {
        const anex_tensor *y = node->out[i];
        if (y->rank != x->rank || at + y->shape[axis] > x->shape[axis] ||
            anex_tensor_size(y) != outer * y->shape[axis] * (step / item))
            return anex_node_fail(node, error, ANEX_SHAPE, "output %d does not fit into axis %d of x", i, axis);
        anex_piece *piece = ANEX_LOCAL(pieces_add)(pieces, 0, X, i, item);
        piece->from = at * step;
        anex_move_axis(&piece->move, outer, x->shape[axis] * step, y->shape[axis] * step);
        anex_move_axis(&piece->move, y->shape[axis] * (step / item), item, item);
        at += y->shape[axis];
    }
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

/* ---- tile --------------------------------------------------------------------------------------- */

ANEX_KERNEL(tile) {
    enum { X, REPS };
    const anex_tensor *x = node->in[X], *y = node->out[0];
    if (anex_tensor_size(x) == anex_tensor_size(y)) {
        node->view = true;
        return ANEX_OK;
    }
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, 1, error);
    if (!pieces) return ANEX_MEMORY;
    anex_move *move = &ANEX_LOCAL(pieces_add)(pieces, 0, X, 0, (int64_t)anex_itemsize(x))->move;
    for (int32_t i = 0; i < x->rank; i++) {
        if (x->shape[i] < 1 || y->shape[i] % x->shape[i])
            return anex_node_fail(node, error, ANEX_SHAPE, "axis %d of %lld is no whole number of repetitions of %lld",
                                  i,
                                  (long long)y->shape[i], (long long)x->shape[i]);
        anex_move_axis(move, y->shape[i] / x->shape[i], 0, x->shape[i] * anex_step(y, i));
        anex_move_axis(move, x->shape[i], anex_step(x, i), anex_step(y, i));
    }
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

/* ---- pad ---------------------------------------------------------------------------------------- */

enum { CONSTANT, REFLECT, REPLICATE };

/* Every axis has three parts, before, x itself and after; each combination of parts is one move. */
static void add_part(const anex_node *node, anex_pieces *pieces, const int64_t *before, const int32_t *part, int mode) {
    const anex_tensor *x = node->in[0], *y = node->out[0];
    int64_t item = (int64_t)anex_itemsize(x);
    bool inside = true;
    for (int32_t i = 0; i < x->rank; i++) inside = inside && part[i] == 1;
    bool fill = mode == CONSTANT && !inside;
    anex_piece *piece = ANEX_LOCAL(pieces_add)(pieces, 0, fill ? ANEX_MOVE_FILL : 0, 0, item);
    for (int32_t i = 0; i < x->rank; i++) {
        int64_t in = anex_step(x, i), out = anex_step(y, i), size = x->shape[i], after = y->shape[i] - before[i] - size;
        int64_t n = part[i] == 0 ? before[i] : part[i] == 1 ? size : after;
        int64_t first = 0, step = 1; /* of x */
        if (part[i] == 0) first = mode == REFLECT ? before[i] : 0, step = mode == REFLECT ? -1 : 0;
        if (part[i] == 2) first = mode == REFLECT ? size - 2 : size - 1, step = mode == REFLECT ? -1 : 0;
        if (!fill) piece->from += first * in;
        piece->to += (part[i] == 0 ? 0 : part[i] == 1 ? before[i] : before[i] + size) * out;
        anex_move_axis(&piece->move, n, fill ? 0 : step * in, out);
    }
}

/* The value in the dtype of x: coremltools' default 0 is float32 whatever x is. */
static void set_fill(anex_pieces *pieces, anex_dtype dtype, double value) {
    float f = (float)value;
    half h = anex_float_to_half(f);
    int32_t i = dtype == ANEX_F16 || dtype == ANEX_F32 ? 0 : (int32_t)(int64_t)value;
    uint8_t b = (uint8_t)i;
    uint16_t s = (uint16_t)i;
    switch (dtype) {
    case ANEX_F16: memcpy(&pieces->fill, &h, sizeof h); return;
    case ANEX_F32: memcpy(&pieces->fill, &f, sizeof f); return;
    case ANEX_I32: case ANEX_U32: memcpy(&pieces->fill, &i, sizeof i); return;
    case ANEX_I16: case ANEX_U16: memcpy(&pieces->fill, &s, sizeof s); return;
    default: memcpy(&pieces->fill, &b, sizeof b);
    }
}

ANEX_KERNEL(pad) {
    enum { X, PAD, MODE, CONSTANT_VAL };
    const anex_tensor *x = node->in[X], *y = node->out[0], *value = node->in[CONSTANT_VAL];
    anex_status status = anex_need_constants(node, 1u << PAD | 1u << MODE | 1u << CONSTANT_VAL, error);
    if (status) return status;
    const char *name = anex_text(node->in[MODE], "constant");
    int mode = !strcmp(name, "constant") ? CONSTANT : !strcmp(name, "reflect") ? REFLECT : REPLICATE;
    if (mode == REPLICATE && strcmp(name, "replicate"))
        return anex_node_fail(node, error, ANEX_INVALID, "mode \"%s\" is none of constant, reflect, replicate", name);
    int64_t before[ANEX_MAX_RANK] = {0};
    int32_t given = (int32_t)anex_tensor_size(node->in[PAD]) / 2, padded = 0, parts = 1;
    if (given > x->rank) return anex_node_fail(node, error, ANEX_SHAPE, "pad names %d axes, x has %d", given, x->rank);
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t k = i - (x->rank - given);
        before[i] = k < 0 ? 0 : anex_item(node->in[PAD], 2 * k);
        int64_t after = y->shape[i] - x->shape[i] - before[i], most = anex_max(before[i], after);
        if (before[i] < 0 || after < 0)
            return anex_node_fail(node, error, ANEX_SHAPE,
                                  "axis %d is padded by %lld and %lld; use slice_by_index to shrink",
                                  i, (long long)before[i], (long long)after);
        if (mode == REFLECT && most >= x->shape[i] && most)
            return anex_node_fail(node, error, ANEX_SHAPE,
                                  "axis %d of %lld cannot reflect %lld elements, at most %lld", i,
                                  (long long)x->shape[i], (long long)most, (long long)x->shape[i] - 1);
        if (most) padded++, parts *= 3;
    }
    if (!padded) {
        node->view = true;
        return ANEX_OK;
    }
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, parts, error);
    if (!pieces) return ANEX_MEMORY;
    if (value) set_fill(pieces, x->dtype, anex_real(value, 0));
    for (int32_t c = 0; c < parts; c++) {
        int32_t part[ANEX_MAX_RANK], rest = c;
        for (int32_t i = 0; i < x->rank; i++) {
            part[i] = y->shape[i] == x->shape[i] ? 1 : rest % 3;
            if (y->shape[i] != x->shape[i]) rest /= 3;
        }
        add_part(node, pieces, before, part, mode);
    }
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}
