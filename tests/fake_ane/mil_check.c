/* Types of results. The kernels believe the types they are given, so those that an op makes are worked out here
   for the ops that programs are mostly made of, and compared with the declared ones; the kernels' own checks
   have the last word on the others. */
#include "mil_check.h"

#include <stdio.h>
#include <string.h>

/* ---- arguments ------------------------------------------------------------------------------ */

const anex_tensor *mil_type_of(const mil_op *op, const char *name) {
    const mil_value *value = mil_argument_of(op, name);
    return value ? &value->tensor : NULL;
}

/* Element i of a constant tensor of integers or bools */
int64_t mil_item(const anex_tensor *t, int64_t i) {
    switch (t->dtype) {
    case ANEX_I8: return ((const int8_t *)t->data)[i];
    case ANEX_U16: return ((const uint16_t *)t->data)[i];
    case ANEX_I16: return ((const int16_t *)t->data)[i];
    case ANEX_U32:
    case ANEX_I32: return ((const int32_t *)t->data)[i];
    default: return ((const uint8_t *)t->data)[i];
    }
}

bool mil_is_list(const anex_tensor *t, int64_t n) {
    return !t || (t->data && t->dtype != ANEX_F16 && t->dtype != ANEX_F32 && anex_tensor_size(t) == n);
}

int64_t mil_number(const mil_op *op, const char *name, int64_t otherwise) {
    const anex_tensor *t = mil_type_of(op, name);
    return t && t->data && mil_is_list(t, 1) ? mil_item(t, 0) : otherwise;
}

bool mil_axis(const mil_op *op, const char *name, int64_t otherwise, int32_t rank, int32_t *axis) {
    int64_t i = mil_number(op, name, otherwise);
    *axis = (int32_t)(i < 0 ? i + rank : i);
    return i >= -rank && i < rank;
}

/* ---- shapes --------------------------------------------------------------------------------- */

static bool is_same_shape(const anex_tensor *a, const anex_tensor *b) {
    return a->rank == b->rank && !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
}

bool mil_broadcast(anex_tensor *to, const anex_tensor *with) {
    int32_t rank = to->rank > with->rank ? to->rank : with->rank;
    anex_tensor all = {.dtype = to->dtype, .rank = rank};
    for (int32_t i = 0; i < rank; i++) {
        int32_t a = i - (rank - to->rank), b = i - (rank - with->rank);
        int64_t m = a < 0 ? 1 : to->shape[a], n = b < 0 ? 1 : with->shape[b];
        if (m != n && m != 1 && n != 1) return false;
        all.shape[i] = m == 1 ? n : m;
    }
    *to = all;
    return true;
}

static mil_verdict of_pair(const mil_op *op, anex_tensor *y, bool is_truth) {
    const anex_tensor *other = mil_type_of(op, "y");
    if (other->dtype != y->dtype || !mil_broadcast(y, other)) return MIL_WRONG;
    if (is_truth) y->dtype = ANEX_BOOL;
    return MIL_KNOWN;
}

static mil_verdict of_select(const mil_op *op, anex_tensor *y) {
    const anex_tensor *a = mil_type_of(op, "a"), *b = mil_type_of(op, "b");
    if (a->dtype != b->dtype || !mil_broadcast(y, a) || !mil_broadcast(y, b)) return MIL_WRONG;
    y->dtype = a->dtype;
    return MIL_KNOWN;
}

static mil_verdict of_reduction(const mil_op *op, anex_tensor *y, const char *name) {
    const anex_tensor *axes = mil_type_of(op, name);
    bool reduced[ANEX_MAX_RANK], keep = mil_number(op, "keep_dims", 0);
    bool is_one = !strcmp(name, "axis"); /* -1 unless given; several: all */
    for (int32_t i = 0; i < y->rank; i++) reduced[i] = is_one ? !axes && i == y->rank - 1 : !axes;
    int64_t n = axes ? anex_tensor_size(axes) : 0;
    if (!mil_is_list(axes, n)) return MIL_WRONG;
    for (int64_t i = 0; i < n; i++) {
        int64_t axis = mil_item(axes, i);
        if (axis < -y->rank || axis >= y->rank) return MIL_WRONG;
        reduced[axis < 0 ? axis + y->rank : axis] = true;
    }
    int32_t rank = 0;
    for (int32_t i = 0; i < y->rank; i++)
        if (!reduced[i] || keep) y->shape[rank++] = reduced[i] ? 1 : y->shape[i];
    y->rank = rank;
    return MIL_KNOWN;
}

/* From iOS17 on weights may be of another dtype than x. */
static bool is_weight(const anex_tensor *t) {
    return t->dtype == ANEX_F16 || t->dtype == ANEX_F32 || t->dtype == ANEX_I32;
}

static mil_verdict of_matmul(const mil_op *op, anex_tensor *y) {
    anex_tensor b = *mil_type_of(op, "y");
    if (!is_weight(&b)) return MIL_WRONG;
    if (y->rank < 2 || b.rank < 2) return MIL_UNKNOWN;
    bool turn_x = mil_number(op, "transpose_x", 0), turn_y = mil_number(op, "transpose_y", 0);
    int64_t *x_tail = y->shape + y->rank - 2, *y_tail = b.shape + b.rank - 2;
    int64_t rows = x_tail[turn_x], columns = y_tail[!turn_y];
    if (x_tail[!turn_x] != y_tail[turn_y]) return MIL_WRONG;
    x_tail[0] = x_tail[1] = y_tail[0] = y_tail[1] = 1;
    if (!mil_broadcast(y, &b)) return MIL_WRONG;
    y->shape[y->rank - 2] = rows, y->shape[y->rank - 1] = columns;
    return MIL_KNOWN;
}

static mil_verdict of_linear(const mil_op *op, anex_tensor *y) {
    const anex_tensor *weight = mil_type_of(op, "weight"), *bias = mil_type_of(op, "bias");
    if (y->rank < 1 || weight->rank != 2 || !is_weight(weight) || weight->shape[1] != y->shape[y->rank - 1])
        return MIL_WRONG;
    if (bias && (!is_weight(bias) || anex_tensor_size(bias) != weight->shape[0])) return MIL_WRONG;
    y->shape[y->rank - 1] = weight->shape[0];
    return MIL_KNOWN;
}

/* How many windows of `size` fit along spatial axis i, and whether there is one */
static bool slide(const mil_op *op, int32_t i, int32_t n, int64_t *extent, int64_t size) {
    const anex_tensor *type = mil_type_of(op, "pad_type"), *strides = mil_type_of(op, "strides");
    const anex_tensor *pad = mil_type_of(op, "pad"), *dilations = mil_type_of(op, "dilations");
    if (!mil_is_list(strides, n) || !mil_is_list(dilations, n) || !mil_is_list(pad, 2 * n)) return false;
    int64_t stride = strides ? mil_item(strides, i) : 1, dilation = dilations ? mil_item(dilations, i) : 1;
    if (stride < 1 || dilation < 1 || dilation > MIL_MOST || size < 1) return false;
    const char *kind = type ? type->data : "valid";
    if (!strcmp(kind, "same") || !strcmp(kind, "same_lower")) {
        *extent = (*extent + stride - 1) / stride;
        return true;
    }
    bool is_custom = !strcmp(kind, "custom") && pad;
    int64_t padding = is_custom ? mil_item(pad, 2 * i) + mil_item(pad, 2 * i + 1) : 0;
    int64_t room = *extent + padding - dilation * (size - 1) - 1;
    if (room < 0) return false;
    *extent = (mil_number(op, "ceil_mode", 0) ? room + stride - 1 : room) / stride + 1;
    return true;
}

static mil_verdict of_conv(const mil_op *op, anex_tensor *y) {
    const anex_tensor *weight = mil_type_of(op, "weight"), *bias = mil_type_of(op, "bias");
    int64_t groups = mil_number(op, "groups", 1);
    if (y->rank < 3 || y->rank > 5 || weight->rank != y->rank || !is_weight(weight)) return MIL_WRONG;
    if (groups < 1 || y->shape[1] % groups || y->shape[1] / groups != weight->shape[1] || weight->shape[0] % groups)
        return MIL_WRONG;
    if (bias && (!is_weight(bias) || anex_tensor_size(bias) != weight->shape[0])) return MIL_WRONG;
    y->shape[1] = weight->shape[0];
    for (int32_t i = 2; i < y->rank; i++)
        if (!slide(op, i - 2, y->rank - 2, &y->shape[i], weight->shape[i])) return MIL_WRONG;
    return MIL_KNOWN;
}

static mil_verdict of_pool(const mil_op *op, anex_tensor *y) {
    const anex_tensor *sizes = mil_type_of(op, "kernel_sizes");
    if (y->rank < 3 || y->rank > 5 || !mil_is_list(sizes, y->rank - 2)) return MIL_WRONG;
    const anex_tensor *made = &op->results[0]->tensor;
    bool is_ceil = mil_number(op, "ceil_mode", 0);
    for (int32_t i = 2; i < y->rank; i++) {
        if (!slide(op, i - 2, y->rank - 2, &y->shape[i], mil_item(sizes, i - 2))) return MIL_WRONG;
        /* a last window that would begin in the padding is left out */
        if (is_ceil && made->rank == y->rank && made->shape[i] == y->shape[i] - 1) y->shape[i]--;
    }
    return MIL_KNOWN;
}

/* ---- moving ---------------------------------------------------------------------------------- */

static mil_verdict of_reshape(const mil_op *op, anex_tensor *y) {
    const anex_tensor *made = &op->results[0]->tensor, *shape = mil_type_of(op, "shape");
    if (anex_tensor_size(made) != anex_tensor_size(y)) return MIL_WRONG;
    if (shape && shape->data) {
        if (!mil_is_list(shape, made->rank)) return MIL_WRONG;
        for (int32_t i = 0; i < made->rank; i++)
            if (mil_item(shape, i) > 0 && mil_item(shape, i) != made->shape[i]) return MIL_WRONG;
    }
    y->rank = made->rank;
    memcpy(y->shape, made->shape, sizeof y->shape);
    return MIL_KNOWN;
}

static mil_verdict of_transpose(const mil_op *op, anex_tensor *y) {
    const anex_tensor x = *y, *perm = mil_type_of(op, "perm");
    if (!mil_is_list(perm, x.rank)) return MIL_WRONG;
    for (int32_t i = 0; i < x.rank; i++) {
        int64_t axis = mil_item(perm, i) + (mil_item(perm, i) < 0 ? x.rank : 0);
        if (axis < 0 || axis >= x.rank) return MIL_WRONG;
        y->shape[i] = x.shape[axis];
    }
    return MIL_KNOWN;
}

static mil_verdict of_join(const mil_op *op, anex_tensor *y, bool is_stack) {
    const mil_argument *list = op->arguments;
    int32_t axis;
    while (strcmp(list->name, "values")) list = list->next;
    *y = list->values[0]->tensor;
    if (y->rank + is_stack > ANEX_MAX_RANK || !mil_axis(op, "axis", 0, y->rank + is_stack, &axis)) return MIL_WRONG;
    int64_t along = 0;
    for (int32_t i = 0; i < list->n; i++) {
        const anex_tensor *x = &list->values[i]->tensor;
        if (x->dtype != y->dtype || x->rank != y->rank) return MIL_WRONG;
        for (int32_t k = 0; k < x->rank; k++)
            if (x->shape[k] != y->shape[k] && (is_stack || k != axis)) return MIL_WRONG;
        along += is_stack ? 1 : x->shape[axis];
    }
    if (is_stack) {
        memmove(y->shape + axis + 1, y->shape + axis, (size_t)(y->rank - axis) * sizeof *y->shape);
        y->rank++;
    }
    y->shape[axis] = along;
    return MIL_KNOWN;
}

/* The parts are the results' shapes; together they are the axis. */
static mil_verdict of_split(const mil_op *op, const anex_tensor *x) {
    int32_t axis;
    int64_t along = 0;
    if (!mil_axis(op, "axis", 0, x->rank, &axis)) return MIL_WRONG;
    for (int32_t i = 0; i < op->n_results; i++) {
        anex_tensor part = op->results[i]->tensor;
        if (part.rank != x->rank || part.dtype != x->dtype) return MIL_WRONG;
        along += part.shape[axis];
        part.shape[axis] = x->shape[axis];
        if (!is_same_shape(&part, x)) return MIL_WRONG;
    }
    return along == x->shape[axis] ? MIL_UNKNOWN : MIL_WRONG;
}

static bool mask_at(const mil_op *op, const char *name, int32_t i) {
    const anex_tensor *mask = mil_type_of(op, name);
    return mask && mil_item(mask, i);
}

static mil_verdict of_slice_by_index(const mil_op *op, anex_tensor *y) {
    const anex_tensor x = *y, *begin = mil_type_of(op, "begin"), *end = mil_type_of(op, "end");
    const anex_tensor *stride = mil_type_of(op, "stride");
    if (anex_tensor_size(begin) != x.rank || anex_tensor_size(end) != x.rank) return MIL_WRONG;
    static const char *const lists[] = {"stride", "begin_mask", "end_mask", "squeeze_mask"};
    for (int32_t i = 0; i < 4; i++)
        if (!mil_is_list(mil_type_of(op, lists[i]), x.rank)) return MIL_WRONG;
    if (!begin->data || !end->data) return MIL_UNKNOWN;
    if (!mil_is_list(begin, x.rank) || !mil_is_list(end, x.rank)) return MIL_WRONG;
    y->rank = 0;
    for (int32_t i = 0; i < x.rank; i++) {
        int64_t n = x.shape[i], from = mil_item(begin, i), to = mil_item(end, i);
        int64_t step = stride ? mil_item(stride, i) : 1;
        if (mask_at(op, "squeeze_mask", i)) continue;
        if (step < 1) return MIL_UNKNOWN; /* backwards */
        from = mask_at(op, "begin_mask", i) ? 0 : from < 0 ? from + n : from;
        to = mask_at(op, "end_mask", i) ? n : to < 0 ? to + n : to > n ? n : to;
        if (from < 0 || to <= from) return MIL_WRONG;
        y->shape[y->rank++] = (to - from + step - 1) / step;
    }
    return MIL_KNOWN;
}

static mil_verdict of_slice_by_size(const mil_op *op, anex_tensor *y) {
    const anex_tensor *begin = mil_type_of(op, "begin"), *size = mil_type_of(op, "size");
    if (anex_tensor_size(begin) != y->rank || anex_tensor_size(size) != y->rank) return MIL_WRONG;
    if (!begin->data || !size->data) return MIL_UNKNOWN;
    if (!mil_is_list(begin, y->rank) || !mil_is_list(size, y->rank)) return MIL_WRONG;
    for (int32_t i = 0; i < y->rank; i++) {
        int64_t from = mil_item(begin, i) + (mil_item(begin, i) < 0 ? y->shape[i] : 0), n = mil_item(size, i);
        if (n < 0) n = y->shape[i] - from;
        if (from < 0 || n < 1 || from + n > y->shape[i]) return MIL_WRONG;
        y->shape[i] = n;
    }
    return MIL_KNOWN;
}

static mil_verdict of_pad(const mil_op *op, anex_tensor *y) {
    const anex_tensor *pad = mil_type_of(op, "pad");
    int64_t n = anex_tensor_size(pad) / 2;
    if (!pad->data || !mil_is_list(pad, 2 * n) || n > y->rank) return MIL_WRONG;
    for (int64_t i = 0; i < n; i++) {
        if (mil_item(pad, 2 * i) < 0 || mil_item(pad, 2 * i + 1) < 0) return MIL_WRONG;
        y->shape[y->rank - n + i] += mil_item(pad, 2 * i) + mil_item(pad, 2 * i + 1);
    }
    return MIL_KNOWN;
}

static mil_verdict of_tile(const mil_op *op, anex_tensor *y) {
    const anex_tensor *reps = mil_type_of(op, "reps");
    if (!reps->data) return MIL_UNKNOWN;
    if (!mil_is_list(reps, y->rank)) return MIL_WRONG;
    for (int32_t i = 0; i < y->rank; i++) {
        if (mil_item(reps, i) < 1 || mil_item(reps, i) > MIL_MOST) return MIL_WRONG;
        y->shape[i] *= mil_item(reps, i);
    }
    return MIL_KNOWN;
}

/* ---- all of it ------------------------------------------------------------------------------- */

/* `y` comes as the first argument's type, and leaves as the first result's. */
static mil_verdict work_out(const mil_op *op, mil_rule rule, anex_tensor *y) {
    switch (rule) {
    case MIL_SAME: return MIL_KNOWN;
    case MIL_PAIR: return of_pair(op, y, false);
    case MIL_TRUTH: return of_pair(op, y, true);
    case MIL_SELECT: return of_select(op, y);
    case MIL_SHAPED: y->dtype = op->results[0]->tensor.dtype; return MIL_KNOWN;
    case MIL_AXES: return of_reduction(op, y, "axes");
    case MIL_AXIS: y->dtype = op->results[0]->tensor.dtype; return of_reduction(op, y, "axis");
    case MIL_PRODUCT: return of_matmul(op, y);
    case MIL_LINEAR: return of_linear(op, y);
    case MIL_CONV: return of_conv(op, y);
    case MIL_POOL: return of_pool(op, y);
    case MIL_VIEW: return of_reshape(op, y);
    case MIL_TURN: return of_transpose(op, y);
    case MIL_CONCAT: return of_join(op, y, false);
    case MIL_STACK: return of_join(op, y, true);
    case MIL_SPLIT: return of_split(op, y);
    case MIL_INDEX: return of_slice_by_index(op, y);
    case MIL_SIZE: return of_slice_by_size(op, y);
    case MIL_PAD: return of_pad(op, y);
    case MIL_TILE: return of_tile(op, y);
    case MIL_EINSUM: return mil_of_einsum(op, y);
    case MIL_ATTEND: return mil_of_attention(op, y);
    case MIL_TO_SPACE: return mil_of_shuffle(op, y, true);
    case MIL_TO_DEPTH: return mil_of_shuffle(op, y, false);
    case MIL_FROM_BATCH: return mil_of_blocks(op, y, true);
    case MIL_TO_BATCH: return mil_of_blocks(op, y, false);
    case MIL_SAMPLE: return mil_of_sample(op, y);
    case MIL_WINDOWS: return mil_of_windows(op, y);
    case MIL_ALONG: return mil_of_gather_along(op, y);
    case MIL_TOPK: return mil_of_topk(op, y);
    case MIL_SUPPRESS: return mil_of_suppression(op, y);
    case MIL_RANK: return mil_of_shape(op, y);
    case MIL_RECURRENT: return mil_of_recurrent(op, y);
    case MIL_KERNEL: break;
    }
    return MIL_UNKNOWN;
}

static const char *shown(const anex_tensor *t, char *text, size_t room) {
    size_t n = (size_t)snprintf(text, room, "%s [", anex_dtypes[t->dtype].name);
    for (int32_t i = 0; i < t->rank && n < room; i++)
        n += (size_t)snprintf(text + n, room - n, "%s%lld", i ? ", " : "", (long long)t->shape[i]);
    if (n < room) snprintf(text + n, room - n, "]");
    return text;
}

void mil_check_op(mil_parser *p, const mil_op *op, mil_rule rule, const char *first, int32_t results) {
    if (results >= 0 && op->n_results != results) {
        mil_fail(p, "%.100s '%.200s' has %d results, not %d", op->type, op->name, (int)results, (int)op->n_results);
        return;
    }
    if (!op->n_results) {
        if (rule == MIL_SPLIT) mil_fail(p, "%.100s '%.200s' has no result", op->type, op->name);
        return;
    }
    char word[32];
    snprintf(word, sizeof word, "%.*s", (int)strcspn(first, " ?!$"), first);
    const anex_tensor *x = mil_type_of(op, word), *made = &op->results[0]->tensor;
    anex_tensor y = x ? *x : *made;
    mil_verdict found = work_out(op, rule, &y);
    char left[160], right[160];
    if (found == MIL_WRONG)
        mil_fail(p, "%.100s '%.200s': the shapes or dtypes of its arguments do not fit together or its result, %s",
                 op->type, op->name, shown(made, left, sizeof left));
    else if (found == MIL_KNOWN && (y.dtype != made->dtype || !is_same_shape(&y, made)))
        mil_fail(p, "%.100s '%.200s' makes %s; its result is declared as %s", op->type, op->name,
                 shown(&y, left, sizeof left), shown(made, right, sizeof right));
}
