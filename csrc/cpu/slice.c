/* Boxes of a tensor: slices with strides, their update, crops, windows. */
#include "move.h"

/* Where a box with strides begins in x. `begin` may be an input of the run; whatever it says is
   moved into the range that keeps the whole box inside x. */
typedef struct window {
    int32_t rank;
    bool from_begin[ANEX_MAX_RANK]; /* begin counts; otherwise the axis starts at one end */
    int64_t size[ANEX_MAX_RANK], step[ANEX_MAX_RANK];   /* of x: elements and bytes */
    int64_t lowest[ANEX_MAX_RANK], highest[ANEX_MAX_RANK];
    int64_t start[ANEX_MAX_RANK]; /* when begin does not count */
} window;

typedef struct box {
    window window;
    anex_move copy, move; /* copy: slice_update's first stage */
} box;

static int64_t window_offset(const window *w, const anex_tensor *begin) {
    int64_t offset = 0;
    for (int32_t i = 0; i < w->rank; i++) {
        int64_t start = w->start[i];
        if (w->from_begin[i]) {
            start = anex_item(begin, i);
            if (start < 0) start += w->size[i];
        }
        offset += anex_max(w->lowest[i], anex_min(start, w->highest[i])) * w->step[i];
    }
    return offset;
}

static bool flag(const anex_tensor *t, int32_t i) { return t && anex_item(t, i); }

/* Fill the window and the axes of the move between `whole` (x) and `part` (the slice, packed). */
static anex_status plan_box(anex_node *node, box *b, const anex_tensor *whole, const anex_tensor *part, bool inwards,
                            const anex_tensor *begin, const anex_tensor *stride, const anex_tensor *begin_mask,
                            const anex_tensor *squeeze_mask, anex_error *error) {
    window *w = &b->window;
    w->rank = whole->rank;
    if (anex_tensor_size(begin) != whole->rank)
        return anex_node_fail(node, error, ANEX_SHAPE, "begin has %lld elements for an x of rank %d",
                              (long long)anex_tensor_size(begin), whole->rank);
    if (part->dtype != whole->dtype)
        return anex_node_fail(node, error, ANEX_DTYPE, "a part of %s does not fit a tensor of %s",
                              anex_dtypes[part->dtype].name, anex_dtypes[whole->dtype].name);
    b->move = (anex_move){.run = (int64_t)anex_itemsize(whole)};
    int32_t axis = 0; /* of part */
    for (int32_t i = 0; i < whole->rank; i++) {
        bool squeezed = flag(squeeze_mask, i);
        if (!squeezed && axis >= part->rank) axis = part->rank + 1; /* reported below */
        if (axis > part->rank) break;
        int64_t step = stride ? anex_item(stride, i) : 1, n = squeezed ? 1 : part->shape[axis];
        int64_t reach = (n - 1) * (step < 0 ? -step : step);
        w->size[i] = whole->shape[i], w->step[i] = anex_step(whole, i);
        if (!step || reach >= whole->shape[i])
            return anex_node_fail(node, error, ANEX_SHAPE,
                                  "%lld elements at stride %lld do not fit the %lld of axis %d",
                                  (long long)n, (long long)step, (long long)whole->shape[i], i);
        w->lowest[i] = step < 0 ? anex_max(reach, 0) : 0;
        w->highest[i] = step < 0 ? whole->shape[i] - 1 : whole->shape[i] - 1 - anex_max(reach, 0);
        w->from_begin[i] = squeezed || !flag(begin_mask, i);
        w->start[i] = step < 0 ? whole->shape[i] - 1 : 0;
        int64_t in_whole = w->step[i] * step, in_part = squeezed ? 0 : anex_step(part, axis);
        anex_move_axis(&b->move, n, inwards ? in_part : in_whole, inwards ? in_whole : in_part);
        axis += !squeezed;
    }
    if (axis != part->rank)
        return anex_node_fail(node, error, ANEX_SHAPE, "the slice has rank %d, but x's axes give another", part->rank);
    ANEX_LOCAL(move_plan)(&b->move);
    return ANEX_OK;
}

/* ---- slices ----------------------------------------------------------------------------------- */

static void run_slice(const anex_node *node, const anex_slice *slice) {
    enum { X, BEGIN };
    const box *b = node->state;
    const char *x = node->in[X]->data;
    ANEX_LOCAL(move_run)(&b->move, x + window_offset(&b->window, node->in[BEGIN]), node->out[0]->data, slice->begin,
                         slice->end);
}

static anex_status slice_box(anex_node *node, const anex_tensor *stride, const anex_tensor *begin_mask,
                             const anex_tensor *squeeze_mask, anex_error *error) {
    enum { X, BEGIN };
    const anex_tensor *x = node->in[X], *y = node->out[0];
    bool forwards = true;
    for (int32_t i = 0; i < x->rank; i++) forwards = forwards && (!stride || anex_item(stride, i) > 0);
    if (forwards && anex_tensor_size(x) == anex_tensor_size(y)) { /* all of x */
        node->view = true;
        return ANEX_OK;
    }
    box *b = anex_node_state(node, sizeof *b, error);
    if (!b) return ANEX_MEMORY;
    anex_status status = plan_box(node, b, x, y, false, node->in[BEGIN], stride, begin_mask, squeeze_mask, error);
    if (!status && b->move.tasks) anex_add_stage(node, run_slice, b->move.tasks, b->move.cost);
    return status;
}

/* `end` only says how large the output is, which is known. */
ANEX_KERNEL(slice_by_index) {
    enum { X, BEGIN, END, STRIDE, BEGIN_MASK, END_MASK, SQUEEZE_MASK };
    anex_status status = anex_need_constants(node, 1u << STRIDE | 1u << BEGIN_MASK | 1u << SQUEEZE_MASK, error);
    if (status) return status;
    return slice_box(node, node->in[STRIDE], node->in[BEGIN_MASK], node->in[SQUEEZE_MASK], error);
}

ANEX_KERNEL(slice_by_size) { return slice_box(node, NULL, NULL, NULL, error); }

static void run_copy(const anex_node *node, const anex_slice *slice) {
    enum { X };
    const box *b = node->state;
    ANEX_LOCAL(move_run)(&b->copy, node->in[X]->data, node->out[0]->data, slice->begin, slice->end);
}

static void run_update(const anex_node *node, const anex_slice *slice) {
    enum { X, UPDATE, BEGIN };
    const box *b = node->state;
    char *y = node->n_out ? node->out[0]->data : node->in[X]->data;
    ANEX_LOCAL(move_run)(&b->move, node->in[UPDATE]->data, y + window_offset(&b->window, node->in[BEGIN]), slice->begin,
                         slice->end);
}

/* Without an output it writes x itself, which is a state (devices/states.py). */
ANEX_KERNEL(slice_update) {
    enum { X, UPDATE, BEGIN, END, STRIDE, BEGIN_MASK, END_MASK, SQUEEZE_MASK };
    anex_status status = anex_need_constants(node, 1u << STRIDE | 1u << BEGIN_MASK | 1u << SQUEEZE_MASK, error);
    if (status) return status;
    box *b = anex_node_state(node, sizeof *b, error);
    if (!b) return ANEX_MEMORY;
    status = plan_box(node, b, node->in[X], node->in[UPDATE], true, node->in[BEGIN], node->in[STRIDE],
                      node->in[BEGIN_MASK], node->in[SQUEEZE_MASK], error);
    if (status) return status;
    node->impure = !node->n_out;
    b->copy = (anex_move){.run = 1};
    anex_move_axis(&b->copy, anex_tensor_nbytes(node->in[X]), 1, 1);
    ANEX_LOCAL(move_plan)(&b->copy);
    if (node->n_out && b->copy.tasks) anex_add_stage(node, run_copy, b->copy.tasks, b->copy.cost);
    if (b->move.tasks) anex_add_stage(node, run_update, b->move.tasks, b->move.cost);
    return ANEX_OK;
}

/* ---- crop, windows ------------------------------------------------------------------------------ */

ANEX_KERNEL(crop) {
    enum { X, CROP_HEIGHT, CROP_WIDTH };
    const anex_tensor *x = node->in[X], *y = node->out[0];
    anex_status status = anex_need_constants(node, 1u << CROP_HEIGHT | 1u << CROP_WIDTH, error);
    if (status) return status;
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, 1, error);
    if (!pieces) return ANEX_MEMORY;
    anex_piece *piece = ANEX_LOCAL(pieces_add)(pieces, 0, X, 0, (int64_t)anex_itemsize(x));
    for (int32_t i = 0; i < x->rank; i++) {
        const anex_tensor *crop = i == x->rank - 1   ? node->in[CROP_WIDTH]
                                  : i == x->rank - 2 ? node->in[CROP_HEIGHT]
                                                     : NULL;
        int64_t before = crop ? anex_item(crop, 0) : 0;
        if (before < 0 || before + y->shape[i] > x->shape[i])
            return anex_node_fail(node, error, ANEX_SHAPE, "a crop from %lld on leaves axis %d of %lld elements",
                                  (long long)before, i, (long long)x->shape[i]);
        piece->from += before * anex_step(x, i);
        anex_move_axis(&piece->move, y->shape[i], anex_step(x, i), anex_step(y, i));
    }
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

/* y [.., windows, size, ..] from x [.., n, ..] */
ANEX_KERNEL(sliding_windows) {
    enum { X, AXIS, SIZE, STRIDE };
    const anex_tensor *x = node->in[X], *y = node->out[0];
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << SIZE | 1u << STRIDE, error);
    if (status) return status;
    int32_t axis = anex_axis(anex_int(node->in[AXIS], 0), x->rank);
    int64_t size = anex_int(node->in[SIZE], 1), stride = anex_int(node->in[STRIDE], 1);
    if (axis < 0 || axis >= x->rank || y->rank != x->rank + 1 || y->shape[axis + 1] != size || stride < 1 ||
        (y->shape[axis] - 1) * stride + size > x->shape[axis])
        return anex_node_fail(node, error, ANEX_SHAPE, "windows of %lld, %lld apart, do not fit axis %d",
                              (long long)size,
                              (long long)stride, axis);
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, 1, error);
    if (!pieces) return ANEX_MEMORY;
    anex_move *move = &ANEX_LOCAL(pieces_add)(pieces, 0, X, 0, (int64_t)anex_itemsize(x))->move;
    for (int32_t i = 0; i < y->rank; i++) {
        int64_t step = anex_step(x, i > axis ? i - 1 : i);
        anex_move_axis(move, y->shape[i], i == axis ? step * stride : step, anex_step(y, i));
    }
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}
