/* Rearrangements of all elements: transposes and block shuffles, each one strided move. */
#include "move.h"

#include <string.h>

ANEX_KERNEL(transpose) {
    enum { X, PERM };
    const anex_tensor *x = node->in[X], *y = node->out[0];
    anex_status status = anex_need_constants(node, 1u << PERM, error);
    if (status) return status;
    bool seen[ANEX_MAX_RANK] = {false};
    anex_move move = {.run = (int64_t)anex_itemsize(x)};
    int32_t previous = -1;
    bool in_order = true; /* only axes of size 1 move: the bytes stay */
    for (int32_t i = 0; i < x->rank; i++) {
        int32_t axis = anex_axis(anex_item(node->in[PERM], i), x->rank);
        if (axis < 0 || axis >= x->rank || seen[axis] || x->shape[axis] != y->shape[i])
            return anex_node_fail(node, error, ANEX_INVALID, "perm is not a permutation of the %d axes of x", x->rank);
        seen[axis] = true;
        anex_move_axis(&move, x->shape[axis], anex_step(x, axis), anex_step(y, i));
        if (x->shape[axis] == 1) continue;
        in_order = in_order && axis > previous;
        previous = axis;
    }
    if (in_order) {
        node->view = true;
        return ANEX_OK;
    }
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, 1, error);
    if (!pieces) return ANEX_MEMORY;
    ANEX_LOCAL(pieces_add)(pieces, 0, X, 0, move.run)->move = move;
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

/* ---- blocks of pixels <-> channels ------------------------------------------------------------ */

/* Between deep [N, C*b*b, H, W] and wide [N, C, H*b, W*b]. `channel_first`: the channel c*b*b + i*b + j
   of `deep` holds pixel (i, j) of each block (torch); otherwise it is (i*b + j)*C + c (TensorFlow). */
static anex_status shuffle(anex_node *node, anex_error *error, bool to_wide, bool channel_first) {
    enum { X, BLOCK };
    anex_status status = anex_need_constants(node, 1u << BLOCK, error);
    if (status) return status;
    const anex_tensor *x = node->in[X], *y = node->out[0], *deep = to_wide ? x : y, *wide = to_wide ? y : x;
    int64_t b = anex_int(node->in[BLOCK], 1);
    if (x->rank != 4) return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d instead of 4", x->rank);
    if (b < 1 || deep->shape[1] != wide->shape[1] * b * b || wide->shape[2] != deep->shape[2] * b ||
        wide->shape[3] != deep->shape[3] * b)
        return anex_node_fail(node, error, ANEX_SHAPE, "the shape of x does not divide into blocks of %lld",
                              (long long)b);
    int64_t channels = wide->shape[1], item = (int64_t)anex_itemsize(x), channel = anex_step(deep, 1);
    int64_t row = anex_step(wide, 2);
    struct { int64_t size, deep, wide; } axis[6] = {
        {deep->shape[0], anex_step(deep, 0), anex_step(wide, 0)},
        {channels, channel * (channel_first ? b * b : 1), anex_step(wide, 1)},
        {deep->shape[2], anex_step(deep, 2), row * b},
        {b, channel * b * (channel_first ? 1 : channels), row},
        {deep->shape[3], item, item * b},
        {b, channel * (channel_first ? 1 : channels), item},
    };
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, 1, error);
    if (!pieces) return ANEX_MEMORY;
    anex_move *move = &ANEX_LOCAL(pieces_add)(pieces, 0, X, 0, item)->move;
    for (int i = 0; i < 6; i++)
        anex_move_axis(move, axis[i].size, to_wide ? axis[i].deep : axis[i].wide,
                       to_wide ? axis[i].wide : axis[i].deep);
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

ANEX_KERNEL(depth_to_space) { return shuffle(node, error, true, false); }
ANEX_KERNEL(space_to_depth) { return shuffle(node, error, false, false); }
ANEX_KERNEL(pixel_shuffle) { return shuffle(node, error, true, true); }
ANEX_KERNEL(pixel_unshuffle) { return shuffle(node, error, false, true); }

/* ---- blocks of pixels <-> batch ---------------------------------------------------------------- */

/* The positions p of 0..n-1 with 0 <= p * block + shift < size: first and count */
static int64_t inside(int64_t n, int64_t block, int64_t shift, int64_t size, int64_t *first) {
    *first = shift < 0 ? (-shift + block - 1) / block : 0;
    int64_t stop = size > shift ? (size - shift + block - 1) / block : 0;
    return anex_max(0, anex_min(stop, n) - *first);
}

/* Between blocks [(i*b1 + j)*N + n, C, H, W] and space [N, C, H*b0 - margins, W*b1 - margins] */
static anex_status batch_blocks(anex_node *node, anex_error *error, bool to_space) {
    enum { X, BLOCK_SHAPE, MARGINS };
    anex_status status = anex_need_constants(node, 1u << BLOCK_SHAPE | 1u << MARGINS, error);
    if (status) return status;
    const anex_tensor *x = node->in[X], *y = node->out[0], *blocks = to_space ? x : y, *space = to_space ? y : x;
    if (x->rank != 4 || anex_tensor_size(node->in[BLOCK_SHAPE]) != 2 || anex_tensor_size(node->in[MARGINS]) != 4)
        return anex_node_fail(node, error, ANEX_SHAPE, "x must have rank 4, and two of its axes are cut into blocks");
    int64_t block[2], before[2];
    for (int i = 0; i < 2; i++) {
        block[i] = anex_item(node->in[BLOCK_SHAPE], i);
        before[i] = anex_item(node->in[MARGINS], 2 * i);
        int64_t both = before[i] + anex_item(node->in[MARGINS], 2 * i + 1);
        if (block[i] < 1 || before[i] < 0 || blocks->shape[2 + i] * block[i] != space->shape[2 + i] + both)
            return anex_node_fail(node, error, ANEX_SHAPE, "axis %d does not divide into blocks of %lld", 2 + i,
                                  (long long)block[i]);
    }
    if (blocks->shape[0] != space->shape[0] * block[0] * block[1])
        return anex_node_fail(node, error, ANEX_SHAPE, "a batch of %lld does not divide into %lld x %lld blocks",
                              (long long)blocks->shape[0], (long long)block[0], (long long)block[1]);
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, (int32_t)(block[0] * block[1]) + 1, error);
    if (!pieces) return ANEX_MEMORY;
    int64_t item = (int64_t)anex_itemsize(x);
    int32_t stage = 0;
    if (anex_tensor_size(y) > anex_tensor_size(x)) { /* padding: zeros everywhere first */
        anex_move_axis(&ANEX_LOCAL(pieces_add)(pieces, 0, ANEX_MOVE_FILL, 0, item)->move, anex_tensor_size(y), 0, item);
        stage = 1;
    }
    for (int64_t i = 0; i < block[0]; i++)
        for (int64_t j = 0; j < block[1]; j++) {
            int64_t h, w, rows = inside(blocks->shape[2], block[0], i - before[0], space->shape[2], &h);
            int64_t columns = inside(blocks->shape[3], block[1], j - before[1], space->shape[3], &w);
            int64_t in_blocks = (i * block[1] + j) * space->shape[0] * anex_step(blocks, 0) +
                                h * anex_step(blocks, 2) + w * item;
            int64_t in_space = (h * block[0] + i - before[0]) * anex_step(space, 2) +
                               (w * block[1] + j - before[1]) * item;
            struct { int64_t size, blocks, space; } axis[4] = {
                {space->shape[0], anex_step(blocks, 0), anex_step(space, 0)},
                {space->shape[1], anex_step(blocks, 1), anex_step(space, 1)},
                {rows, anex_step(blocks, 2), anex_step(space, 2) * block[0]},
                {columns, item, item * block[1]},
            };
            anex_piece *piece = ANEX_LOCAL(pieces_add)(pieces, stage, X, 0, item);
            piece->from = to_space ? in_blocks : in_space, piece->to = to_space ? in_space : in_blocks;
            for (int k = 0; k < 4; k++)
                anex_move_axis(&piece->move, axis[k].size, to_space ? axis[k].blocks : axis[k].space,
                               to_space ? axis[k].space : axis[k].blocks);
        }
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

ANEX_KERNEL(batch_to_space) { return batch_blocks(node, error, true); }
ANEX_KERNEL(space_to_batch) { return batch_blocks(node, error, false); }

/* ---- reversal --------------------------------------------------------------------------------- */

ANEX_KERNEL(reverse) {
    enum { X, AXES };
    const anex_tensor *x = node->in[X];
    anex_status status = anex_need_constants(node, 1u << AXES, error);
    if (status) return status;
    bool reversed[ANEX_MAX_RANK] = {false};
    int64_t n = node->in[AXES] ? anex_tensor_size(node->in[AXES]) : x->rank;
    for (int64_t i = 0; i < n; i++) {
        int32_t axis = node->in[AXES] ? anex_axis(anex_item(node->in[AXES], i), x->rank) : (int32_t)i;
        if (axis < 0 || axis >= x->rank)
            return anex_node_fail(node, error, ANEX_INVALID, "x has no axis %d, its rank is %d", axis, x->rank);
        reversed[axis] = !reversed[axis]; /* numpy flips once per mention */
    }
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, 1, error);
    if (!pieces) return ANEX_MEMORY;
    anex_piece *piece = ANEX_LOCAL(pieces_add)(pieces, 0, X, 0, (int64_t)anex_itemsize(x));
    for (int32_t i = 0; i < x->rank; i++) {
        int64_t step = anex_step(x, i);
        if (reversed[i]) piece->from += (x->shape[i] - 1) * step;
        anex_move_axis(&piece->move, x->shape[i], reversed[i] ? -step : step, step);
    }
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

typedef struct reversal {
    int64_t first, between, second, run; /* x seen as [outer, first, between, second] of `run` bytes */
    bool sequence_first;                 /* the sequence is `first`, the batch `second`, or the other way */
} reversal;

static void reverse_rows(const anex_node *node, const anex_slice *slice) {
    enum { X, LENGTHS };
    const reversal *s = node->state;
    const char *x = node->in[X]->data;
    char *y = node->out[0]->data;
    int64_t plane = s->between * s->second, time = s->sequence_first ? s->first : s->second;
    for (int64_t t = slice->begin; t < slice->end; t++) {
        int64_t outer = t / s->first, i = t % s->first;
        for (int64_t k = 0; k < s->second; k++) {
            int64_t batch = s->sequence_first ? k : i, at = s->sequence_first ? i : k;
            int64_t length = anex_max(0, anex_min(anex_item(node->in[LENGTHS], batch), time)); /* keeps memory safe */
            int64_t source = at < length ? length - 1 - at : at;
            int64_t from = s->sequence_first ? (outer * s->first + source) * plane + k : t * plane + source;
            for (int64_t j = 0; j < s->between; j++)
                memcpy(y + (t * plane + j * s->second + k) * s->run, x + (from + j * s->second) * s->run,
                       (size_t)s->run);
        }
    }
}

ANEX_KERNEL(reverse_sequence) {
    enum { X, LENGTHS, SEQ_AXIS, BATCH_AXIS };
    const anex_tensor *x = node->in[X];
    anex_status status = anex_need_constants(node, 1u << SEQ_AXIS | 1u << BATCH_AXIS, error);
    if (status) return status;
    int32_t sequence = anex_axis(anex_int(node->in[SEQ_AXIS], 0), x->rank);
    int32_t batch = anex_axis(anex_int(node->in[BATCH_AXIS], 0), x->rank);
    if (sequence < 0 || batch < 0 || sequence >= x->rank || batch >= x->rank || sequence == batch)
        return anex_node_fail(node, error, ANEX_INVALID, "seq_axis and batch_axis must be two axes of x, not %d and %d",
                              sequence, batch);
    if (anex_tensor_size(node->in[LENGTHS]) != x->shape[batch])
        return anex_node_fail(node, error, ANEX_SHAPE, "lengths has %lld elements for a batch of %lld",
                              (long long)anex_tensor_size(node->in[LENGTHS]), (long long)x->shape[batch]);
    reversal *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    int32_t first = sequence < batch ? sequence : batch, second = sequence < batch ? batch : sequence;
    *s = (reversal){x->shape[first], anex_span(x, first + 1, second), x->shape[second], anex_step(x, second),
                    sequence < batch};
    int64_t outer = anex_span(x, 0, first);
    anex_add_stage(node, reverse_rows, outer * s->first,
                   (double)(s->between * s->second) * (5 + (double)s->run / 8));
    return ANEX_OK;
}
