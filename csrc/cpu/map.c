/* The broadcasting engine under every elementwise op.

   Axes that all operands step through alike are merged. The inner ones, as many as make a row of a few
   hundred lanes, are done a piece at a time; the others are rows. Within a row each operand is one of
   four kinds, so a piece is loaded in bulk: nothing is divided, and no index computed, per element.
   What is in a buffer stays there while the next piece needs the same: a bias is widened once. */
#include "map.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { SHORT_ROW = 256 }; /* lanes: below, the next axis out becomes part of the row */

typedef enum map_kind {
    PACKED,  /* lane after lane, as the output's */
    VALUE,   /* one for the row */
    SPREAD,  /* one for each index of the row's outermost axis */
    PATTERN, /* lane i of a piece is `pattern[i]` elements past its first */
} map_kind;

typedef struct map_operand {
    anex_dtype dtype;
    int64_t item;                /* bytes */
    int64_t step[ANEX_MAX_RANK]; /* elements, along each merged axis; 0 where broadcast */
    int64_t span;                /* PATTERN: elements of one index of the row's outermost axis */
    map_kind kind;
    uint16_t pattern[ANEX_MAP_LANES];
} map_operand;

typedef struct map {
    anex_chain chain;
    int32_t n;                     /* chain.n_operands */
    int32_t axis;                  /* outermost of the row's */
    int64_t extent[ANEX_MAX_RANK]; /* merged axes, up to `axis` */
    int64_t lanes;                 /* at one index of `axis` */
    int64_t chunk;                 /* indices of `axis` in a piece */
    int64_t pieces;                /* of a row */
    anex_dtype out;
    int64_t out_item;
    int64_t width; /* bytes of a lane: 4, or 2 in the half form */
    map_operand x[];
} map;

/* One worker's walk over the pieces. */
typedef struct walk {
    const map *m;
    int64_t index[ANEX_MAX_RANK];      /* of the row, along the axes outside it */
    int64_t offset[ANEX_CHAIN_OPERANDS]; /* of the row, elements */
    const char *from[ANEX_CHAIN_OPERANDS];
    const void *x[ANEX_CHAIN_OPERANDS]; /* the piece's lanes */
    void *buffer[ANEX_CHAIN_OPERANDS];
    int64_t have[ANEX_CHAIN_OPERANDS];       /* the element that the buffer's first lane is, */
    int64_t have_lanes[ANEX_CHAIN_OPERANDS]; /* and how many lanes it holds */
    void *y, *values;
    char *to;
} walk;

/* ---- lanes ---------------------------------------------------------------------------------- */

/* Lanes moved without looking at them, floats or integers: they may alias both. Spreading writes whole
   vectors of 16; the next value mends what that spills, and buffers have room for the last one's. */
enum { SLACK = 16, BUFFER = (ANEX_MAP_LANES + SLACK) * 4 };
#define MOVES(bits)                                                                                              \
    typedef uint##bits##_t lane##bits __attribute__((may_alias));                                                \
    static void splat##bits(lane##bits *restrict y, const lane##bits *restrict value, int64_t n) {               \
        lane##bits v = *value;                                                                                   \
        for (int64_t i = 0; i < n; i++) y[i] = v;                                                                \
    }                                                                                                            \
    static void spread##bits(lane##bits *restrict y, const lane##bits *restrict values, int64_t n, int64_t lanes) { \
        if (lanes == 2)                                                                                          \
            for (int64_t i = 0; i < n; i++) y[2 * i] = y[2 * i + 1] = values[i];                                 \
        else                                                                                                     \
            for (int64_t i = 0; i < n; i++, y += lanes)                                                          \
                for (int64_t at = 0; at < lanes; at += SLACK)                                                    \
                    for (int64_t k = 0; k < SLACK; k++) y[at + k] = values[i];                                   \
    }                                                                                                            \
    static void gather##bits(lane##bits *restrict y, const lane##bits *restrict values, const uint16_t *pattern, \
                             int64_t n) {                                                                        \
        for (int64_t i = 0; i < n; i++) y[i] = values[pattern[i]];                                               \
    }
MOVES(16)
MOVES(32)

/* ---- pieces --------------------------------------------------------------------------------- */

/* The lanes of operand k for a piece that starts at its element `at` and has `count` indices of the row's axis. */
static const void *fetch(walk *w, int32_t k, int64_t at, int64_t count) {
    const map *m = w->m;
    const map_operand *x = &m->x[k];
    int64_t n = count * m->lanes;
    const char *from = w->from[k] + at * x->item;
    bool as_is = x->item == m->width;
    if (x->kind == PACKED && as_is) return from;
    void *y = w->buffer[k];
    if (w->have[k] == at && w->have_lanes[k] >= n) return y;
    w->have[k] = at, w->have_lanes[k] = n;
    if (x->kind == PACKED) {
        anex_lanes_load(y, m->width, x->dtype, from, n);
        return y;
    }
    const void *values = from;
    if (!as_is) {
        int64_t several = x->kind == VALUE ? 1 : x->kind == SPREAD ? count : (count - 1) * x->step[m->axis] + x->span;
        anex_lanes_load(w->values, m->width, x->dtype, from, several);
        values = w->values;
    }
    bool wide = m->width == 4;
    switch (x->kind) {
    case VALUE: wide ? splat32(y, values, n) : splat16(y, values, n); break;
    case SPREAD: wide ? spread32(y, values, count, m->lanes) : spread16(y, values, count, m->lanes); break;
    default: wide ? gather32(y, values, x->pattern, n) : gather16(y, values, x->pattern, n);
    }
    return y;
}

static void compute(const walk *w, int64_t element, int64_t n) {
    const map *m = w->m;
    char *to = w->to + element * m->out_item;
    bool in_place = m->out_item == m->width;
    const void *through = w->x[0];
    for (int32_t i = 0; i < m->chain.n_steps; i++) {
        const anex_step *step = &m->chain.step[i];
        const void *x[ANEX_MAP_OPERANDS];
        for (int32_t k = 0; k < step->n; k++) x[k] = step->x[k] == ANEX_THROUGH ? through : w->x[step->x[k]];
        void *y = in_place ? to : w->y;
        (m->width == 2 ? step->block.half : step->block.lanes)(y, x, step->p, n);
        through = y;
    }
    if (through != to) anex_lanes_store(to, m->out, through, n);
}

/* On to the next row: the axes outside it turn like an odometer. */
static void next_row(walk *w) {
    const map *m = w->m;
    for (int32_t axis = m->axis - 1; axis >= 0; axis--) {
        for (int32_t k = 0; k < m->n; k++) w->offset[k] += m->x[k].step[axis];
        if (++w->index[axis] < m->extent[axis]) return;
        for (int32_t k = 0; k < m->n; k++) w->offset[k] -= m->extent[axis] * m->x[k].step[axis];
        w->index[axis] = 0;
    }
}

static void seek(walk *w, int64_t row) {
    const map *m = w->m;
    for (int32_t axis = m->axis - 1; axis >= 0 && row; axis--) {
        w->index[axis] = row % m->extent[axis];
        row /= m->extent[axis];
        for (int32_t k = 0; k < m->n; k++) w->offset[k] += w->index[axis] * m->x[k].step[axis];
    }
}

/* One op whose tensors are all read and written where they are, in one row: its pieces follow one another. */
static bool is_straight(const map *m) {
    bool straight = m->axis == 0 && m->chain.n_steps == 1 && m->out_item == m->width;
    for (int32_t k = 0; straight && k < m->n; k++) straight = m->x[k].kind == PACKED && m->x[k].item == m->width;
    return straight;
}
static void straight_work(const anex_node *node, const anex_slice *slice) {
    const map *m = node->state;
    const anex_step *step = &m->chain.step[0];
    int64_t piece = m->chunk * m->lanes, begin = slice->begin * piece;
    int64_t end = anex_min(slice->end * piece, m->extent[0] * m->lanes);
    anex_block *block = m->width == 2 ? step->block.half : step->block.lanes;
    for (int64_t at = begin; at < end; at += 4 * ANEX_MAP_LANES) { /* some ops look at their lanes twice */
        const void *x[ANEX_MAP_OPERANDS];
        for (int32_t k = 0; k < step->n; k++)
            x[k] = (const char *)node->in[m->chain.operand[step->x[k]].slot]->data + at * m->width;
        block((char *)node->out[0]->data + at * m->width, x, step->p, anex_min(4 * ANEX_MAP_LANES, end - at));
    }
}

/* A task is one piece of one row. */
static void map_work(const anex_node *node, const anex_slice *slice) {
    const map *m = node->state;
    walk w = {.m = m, .to = node->out[0]->data};
    char *scratch = slice->scratch;
    for (int32_t k = 0; k < m->n; k++, scratch += BUFFER)
        w.from[k] = node->in[m->chain.operand[k].slot]->data, w.buffer[k] = scratch;
    w.y = scratch, w.values = scratch + BUFFER;
    int64_t row = slice->begin ? slice->begin / m->pieces : 0, piece = slice->begin - row * m->pieces;
    int64_t along = m->extent[m->axis];
    seek(&w, row);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t at = piece * m->chunk, count = anex_min(along - at, m->chunk);
        for (int32_t k = 0; k < m->n; k++) w.x[k] = fetch(&w, k, w.offset[k] + at * m->x[k].step[m->axis], count);
        compute(&w, (row * along + at) * m->lanes, count * m->lanes);
        if (++piece == m->pieces) {
            piece = 0, row++;
            next_row(&w);
        }
    }
}

/* ---- planning ------------------------------------------------------------------------------- */

static const char *shape_text(const anex_tensor *t, char *text, size_t room) {
    size_t at = (size_t)snprintf(text, room, "(");
    for (int32_t i = 0; i < t->rank && at < room; i++)
        at += (size_t)snprintf(text + at, room - at, i ? ", %lld" : "%lld", (long long)t->shape[i]);
    if (at < room) snprintf(text + at, room - at, ")");
    return text;
}

static anex_status check_broadcast(const anex_node *node, const anex_tensor *x, anex_error *error) {
    int64_t step[ANEX_MAX_RANK];
    char from[160], to[160];
    if (anex_broadcast(x, node->out[0], step)) return ANEX_OK;
    return anex_node_fail(node, error, ANEX_SHAPE, "an operand of shape %s does not broadcast to the result's shape %s",
                          shape_text(x, from, sizeof from), shape_text(node->out[0], to, sizeof to));
}

typedef int64_t steps[ANEX_MAX_RANK];

/* Merge the axes that every operand steps through as if they were one; extents of 1 vanish. */
static int32_t merge(map *m, const anex_tensor *y, steps *step) {
    int32_t rank = 0;
    for (int32_t axis = 0; axis < y->rank; axis++) {
        int64_t extent = y->shape[axis];
        if (extent == 1) continue;
        bool alike = rank > 0;
        for (int32_t k = 0; alike && k < m->n; k++) alike = m->x[k].step[rank - 1] == step[k][axis] * extent;
        if (!alike) m->extent[rank++] = 1;
        m->extent[rank - 1] *= extent;
        for (int32_t k = 0; k < m->n; k++) m->x[k].step[rank - 1] = step[k][axis];
    }
    if (!rank) m->extent[rank++] = 1;
    return rank;
}

/* Which kind an operand is in a row of the axes from m->axis on. */
static void classify(const map *m, map_operand *x, int32_t rank) {
    int64_t inner[ANEX_MAX_RANK], packed = 1;
    bool is_packed = true, is_value = true, is_spread = x->step[m->axis] == 1;
    x->span = 1;
    for (int32_t i = rank - 1; i >= m->axis; i--) {
        is_packed = is_packed && (x->step[i] == packed || m->extent[i] == 1);
        is_value = is_value && x->step[i] == 0;
        is_spread = is_spread && (i == m->axis || x->step[i] == 0);
        if (i > m->axis) x->span += (m->extent[i] - 1) * x->step[i];
        inner[i] = packed;
        packed *= m->extent[i];
    }
    x->kind = is_packed ? PACKED : is_value ? VALUE : is_spread ? SPREAD : PATTERN;
    for (int64_t lane = 0; x->kind == PATTERN && lane < m->chunk * m->lanes; lane++) {
        int64_t at = 0, rest = lane;
        for (int32_t i = m->axis; i < rank; i++) at += rest / inner[i] * x->step[i], rest %= inner[i];
        x->pattern[lane] = (uint16_t)at; /* a piece is at most ANEX_MAP_LANES, and so is what it reads */
    }
}

/* Float16 as it is in memory: a single op that has a form for it, and nothing of another dtype. */
static bool takes_half_form(const anex_chain *chain) {
    bool fits = chain->n_steps == 1 && chain->step[0].block.half && chain->out == ANEX_F16;
    for (int32_t k = 0; k < chain->n_operands; k++) fits = fits && chain->operand[k].form.dtype == ANEX_F16;
    return fits;
}

/* Plan `chain` with the result y as the only stage of `node`, in place of what it had. */
static anex_status plan_chain(anex_node *node, const anex_chain *chain, const anex_tensor *y, anex_error *error) {
    steps step[ANEX_CHAIN_OPERANDS] = {{0}};
    void *state = node->state;
    size_t bytes = node->state_bytes;
    map *m = anex_node_state(node, sizeof *m + (size_t)chain->n_operands * sizeof m->x[0], error);
    if (!m) {
        node->state = state, node->state_bytes = bytes;
        return ANEX_MEMORY;
    }
    anex_node_drop(node, state, bytes);
    m->chain = *chain;
    m->n = chain->n_operands, m->out = chain->out, m->width = takes_half_form(chain) ? 2 : 4;
    bool moves = chain->n_steps == 1 && chain->step[0].moves && m->out == ANEX_F16;
    if (moves) m->out = ANEX_U16;
    m->out_item = anex_dtypes[m->out].bits / 8;
    for (int32_t k = 0; k < m->n; k++) anex_broadcast(&chain->operand[k].form, y, step[k]);
    int32_t rank = merge(m, y, step);
    m->axis = rank - 1, m->lanes = 1;
    while (m->axis > 0 && m->lanes * m->extent[m->axis] < SHORT_ROW) m->lanes *= m->extent[m->axis--];
    int64_t along = m->extent[m->axis], rows = 1;
    m->chunk = anex_min(along, ANEX_MAP_LANES / m->lanes);
    m->pieces = (along + m->chunk - 1) / m->chunk;
    for (int32_t i = 0; i < m->axis; i++) rows *= m->extent[i];
    double cost = chain->cost + (m->out_item == m->width ? 0.03 : 0.06);
    for (int32_t k = 0; k < m->n; k++) {
        map_operand *x = &m->x[k];
        anex_dtype dtype = chain->operand[k].form.dtype;
        x->dtype = moves && dtype == ANEX_F16 ? ANEX_U16 : dtype, x->item = anex_dtypes[x->dtype].bits / 8;
        classify(m, x, rank);
        cost += x->kind == PATTERN || x->kind == SPREAD ? 0.2 : x->item == m->width ? 0.02 : 0.06;
    }
    node->scratch = (size_t)(m->n + 2) * BUFFER;
    node->n_stages = 0;
    anex_add_stage(node, is_straight(m) ? straight_work : map_work, rows * m->pieces, 5 + cost * (double)(m->chunk * m->lanes));
    return ANEX_OK;
}

/* Become the last step of the node before; it stays as it was if that cannot be. */
static anex_status join(anex_node *node, const anex_map_op *op, anex_error *error) {
    anex_node *onto = node->onto;
    if (onto->ends_float) return anex_epilogue_add(node, op, error);
    bool is_map = onto->n_stages == 1 && (onto->stage[0].work == map_work || onto->stage[0].work == straight_work);
    if (!is_map) return ANEX_OK;
    anex_chain chain = ((const map *)onto->state)->chain;
    if (!anex_chain_add(&chain, node, op)) return ANEX_OK;
    anex_status status = plan_chain(onto, &chain, node->out[0], error);
    node->joined = !status;
    return status;
}

anex_status ANEX_LOCAL(map)(anex_node *node, const anex_map_op *op, anex_error *error) {
    anex_status status = ANEX_OK;
    for (int32_t k = 0; !status && k < op->n; k++) status = check_broadcast(node, &op->x[k], error);
    if (!status && node->onto) status = join(node, op, error);
    if (status || node->joined) return status;
    anex_chain chain = {0};
    anex_node alone = *node;
    alone.onto = NULL;
    anex_chain_add(&chain, &alone, op);
    return plan_chain(node, &chain, node->out[0], error);
}
