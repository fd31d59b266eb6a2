/* What the types of results follow from, for the ops that have shapes of their own: images, products by equation,
   attention, recurrent layers and searches. */
#include "mil_check.h"

#include <ctype.h>
#include <string.h>

static bool is_made(const mil_op *op, int32_t i, anex_dtype dtype, int32_t rank, const int64_t *shape) {
    const anex_tensor *made = &op->results[i]->tensor;
    return made->dtype == dtype && made->rank == rank && !memcmp(made->shape, shape, (size_t)rank * sizeof *shape);
}

/* Labels up to the next ',', '-' or the end give axes of t their sizes; each label is as long everywhere, or 1. */
static const char *read_labels(const char *at, const anex_tensor *t, int64_t *size) {
    int32_t i = 0;
    for (; *at && *at != ',' && *at != '-'; at++) {
        if (*at == ' ') continue;
        if (!isalpha((unsigned char)*at) || i == t->rank) return NULL;
        int64_t *known = &size[(unsigned char)*at], n = t->shape[i++];
        if (*known > 1 && n > 1 && *known != n) return NULL;
        if (n > *known) *known = n;
    }
    return i == t->rank ? at : NULL;
}

mil_verdict mil_of_einsum(const mil_op *op, anex_tensor *y) {
    const mil_argument *list = op->arguments;
    const char *at = mil_type_of(op, "equation")->data;
    int64_t size[256] = {0};
    while (strcmp(list->name, "values")) list = list->next;
    *y = list->values[0]->tensor;
    for (int32_t i = 0; i < list->n && at; i++) {
        const anex_tensor *x = &list->values[i]->tensor;
        at = x->dtype == y->dtype ? read_labels(at, x, size) : NULL;
        if (at && i + 1 < list->n) at = *at == ',' ? at + 1 : NULL;
    }
    if (!at || at[0] != '-' || at[1] != '>') return MIL_WRONG;
    y->rank = 0;
    for (at += 2; *at; at++) {
        if (*at == ' ') continue;
        int64_t n = size[(unsigned char)*at];
        if (!n || y->rank == ANEX_MAX_RANK) return MIL_WRONG;
        y->shape[y->rank++] = n;
    }
    return MIL_KNOWN;
}

/* query [.., l, e], key [.., s, e], value [.., s, v]: [.., l, v] */
mil_verdict mil_of_attention(const mil_op *op, anex_tensor *y) {
    anex_tensor key = *mil_type_of(op, "key"), value = *mil_type_of(op, "value");
    const anex_tensor *mask = mil_type_of(op, "attn_mask");
    int32_t l = y->rank - 2, e = y->rank - 1;
    if (y->rank < 3 || key.rank != y->rank || value.rank != y->rank || key.dtype != y->dtype || value.dtype != y->dtype)
        return MIL_WRONG;
    if (key.shape[e] != y->shape[e] || key.shape[l] != value.shape[l]) return MIL_WRONG;
    if (mask && mask->dtype != ANEX_BOOL && mask->dtype != y->dtype) return MIL_WRONG;
    int64_t rows = y->shape[l], columns = value.shape[e];
    y->shape[l] = y->shape[e] = key.shape[l] = key.shape[e] = value.shape[l] = value.shape[e] = 1;
    if (!mil_broadcast(y, &key) || !mil_broadcast(y, &value)) return MIL_WRONG;
    y->shape[l] = rows, y->shape[e] = columns;
    return MIL_KNOWN;
}

/* ---- images, [n, c, h, w] --------------------------------------------------------------------- */

mil_verdict mil_of_shuffle(const mil_op *op, anex_tensor *y, bool to_space) {
    static const char *const names[] = {"block_size", "upscale_factor", "downscale_factor"};
    int64_t b = 0;
    for (int32_t i = 0; i < 3; i++) b = mil_type_of(op, names[i]) ? mil_number(op, names[i], 0) : b;
    int64_t *s = y->shape;
    if (y->rank != 4 || b < 1 || b > MIL_MOST_BLOCK) return MIL_WRONG;
    if (to_space ? s[1] % (b * b) : s[2] % b || s[3] % b) return MIL_WRONG;
    s[1] = to_space ? s[1] / (b * b) : s[1] * b * b;
    s[2] = to_space ? s[2] * b : s[2] / b;
    s[3] = to_space ? s[3] * b : s[3] / b;
    return MIL_KNOWN;
}

mil_verdict mil_of_blocks(const mil_op *op, anex_tensor *y, bool to_space) {
    const anex_tensor *block = mil_type_of(op, "block_shape");
    const anex_tensor *margin = mil_type_of(op, to_space ? "crops" : "paddings");
    if (y->rank != 4 || !mil_is_list(block, 2) || !mil_is_list(margin, 4)) return MIL_WRONG;
    for (int32_t i = 0; i < 2; i++) {
        int64_t b = mil_item(block, i), before = mil_item(margin, 2 * i), after = mil_item(margin, 2 * i + 1);
        int64_t *n = &y->shape[2 + i], more = before + after;
        if (b < 1 || b > MIL_MOST_BLOCK || before < 0 || after < 0) return MIL_WRONG;
        if (to_space ? y->shape[0] % b : (*n + more) % b) return MIL_WRONG;
        y->shape[0] = to_space ? y->shape[0] / b : y->shape[0] * b;
        *n = to_space ? *n * b - more : (*n + more) / b;
    }
    return MIL_KNOWN;
}

mil_verdict mil_of_sample(const mil_op *op, anex_tensor *y) {
    const anex_tensor *at = mil_type_of(op, "coordinates"), *matrix = mil_type_of(op, "transform_matrix");
    if (y->rank != 4) return MIL_WRONG;
    if (at) {
        if (at->rank != 4 || at->shape[0] != y->shape[0] || at->shape[3] != 2) return MIL_WRONG;
        y->shape[2] = at->shape[1], y->shape[3] = at->shape[2];
        return MIL_KNOWN;
    }
    bool fits = matrix->rank == 2 && matrix->shape[1] == 6 && matrix->dtype == y->dtype;
    if (!fits || (matrix->shape[0] != 1 && matrix->shape[0] != y->shape[0])) return MIL_WRONG;
    y->shape[2] = mil_number(op, "output_height", 0), y->shape[3] = mil_number(op, "output_width", 0);
    return MIL_KNOWN;
}

mil_verdict mil_of_windows(const mil_op *op, anex_tensor *y) {
    int32_t axis;
    int64_t size = mil_number(op, "size", 0), stride = mil_number(op, "stride", 1);
    if (y->rank == ANEX_MAX_RANK || !mil_axis(op, "axis", 0, y->rank, &axis)) return MIL_WRONG;
    if (size < 1 || stride < 1 || size > y->shape[axis]) return MIL_WRONG;
    y->shape[axis] = (y->shape[axis] - size) / stride + 1;
    memmove(y->shape + axis + 2, y->shape + axis + 1, (size_t)(y->rank - axis - 1) * sizeof *y->shape);
    y->shape[axis + 1] = size;
    y->rank++;
    return MIL_KNOWN;
}

/* ---- searches ----------------------------------------------------------------------------------- */

mil_verdict mil_of_gather_along(const mil_op *op, anex_tensor *y) {
    const anex_tensor *indices = mil_type_of(op, "indices");
    int32_t axis;
    if (indices->rank != y->rank || !mil_axis(op, "axis", 0, y->rank, &axis)) return MIL_WRONG;
    for (int32_t i = 0; i < y->rank; i++)
        if (i != axis && indices->shape[i] != y->shape[i]) return MIL_WRONG;
    y->shape[axis] = indices->shape[axis];
    return MIL_KNOWN;
}

mil_verdict mil_of_topk(const mil_op *op, anex_tensor *y) {
    int32_t axis;
    int64_t k = mil_number(op, "k", 1);
    if (op->n_results > 2 || !y->rank || !mil_axis(op, "axis", -1, y->rank, &axis)) return MIL_WRONG;
    if (k == -1) k = y->shape[axis];
    if (k < 1 || k > y->shape[axis]) return MIL_WRONG;
    y->shape[axis] = k;
    const anex_tensor *indices = &op->results[op->n_results - 1]->tensor;
    bool is_index = op->n_results == 1 || (indices->dtype >= ANEX_I8 && indices->dtype <= ANEX_U32);
    return is_index && is_made(op, op->n_results - 1, indices->dtype, y->rank, y->shape) ? MIL_KNOWN : MIL_WRONG;
}

/* boxes [b, n, 4] and scores [b, n, k], and how many were found; from iOS17 on turned, and without the number */
mil_verdict mil_of_suppression(const mil_op *op, anex_tensor *y) {
    const anex_tensor *scores = mil_type_of(op, "scores");
    int64_t most = mil_number(op, "max_boxes", 0), b = y->shape[0];
    bool old = op->n_results == 4;
    if (y->rank != 3 || scores->rank != 3 || scores->dtype != y->dtype || most < 1 || (!old && op->n_results != 3))
        return MIL_WRONG;
    int32_t n = old ? 1 : 2, k = 3 - n;
    if (y->shape[k] != 4 || scores->shape[0] != b || scores->shape[n] != y->shape[n]) return MIL_WRONG;
    int64_t found[3] = {b, scores->shape[k], scores->shape[k]};
    found[n] = most;
    y->shape[n] = most;
    bool fits = is_made(op, 1, y->dtype, 3, found) && is_made(op, 2, ANEX_I32, 2, (int64_t[]){b, most}) &&
                (!old || is_made(op, 3, ANEX_I32, 1, &b));
    return fits ? MIL_KNOWN : MIL_WRONG;
}

mil_verdict mil_of_shape(const mil_op *op, anex_tensor *y) {
    (void)op;
    y->shape[0] = y->rank;
    y->rank = 1, y->dtype = ANEX_I32;
    return y->shape[0] ? MIL_KNOWN : MIL_WRONG;
}

/* x [s, b, i] gives [s or 1, b, h], and the last states [b, h]; h is both directions' */
mil_verdict mil_of_recurrent(const mil_op *op, anex_tensor *y) {
    const anex_tensor *state = mil_type_of(op, "initial_h");
    if (y->rank != 3 || state->rank != 2 || state->dtype != y->dtype) return MIL_WRONG;
    if (state->shape[0] != y->shape[1]) return MIL_WRONG;
    if (!mil_number(op, "output_sequence", 0)) y->shape[0] = 1;
    y->shape[2] = state->shape[1];
    for (int32_t i = 1; i < op->n_results; i++)
        if (!is_made(op, i, y->dtype, 2, state->shape)) return MIL_WRONG;
    return MIL_KNOWN;
}
