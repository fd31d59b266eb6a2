/* The broadcasting engine under every elementwise op.

   Axes that all operands step through alike are merged. The inner ones, as many as make a row of a few
   hundred lanes, are done a piece at a time; the others are rows. Within a row each operand is one of
   four kinds, so a piece is loaded in bulk: nothing is divided, and no index computed, per element.
   What is in a buffer stays there while the next piece needs the same: a bias is widened once. */
#include "map.h"

#include <stdio.h>
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
    anex_block *block;
    anex_lane p[ANEX_MAP_PARAMETERS];
    int32_t n;
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
    int64_t offset[ANEX_MAP_OPERANDS]; /* of the row, elements */
    const char *from[ANEX_MAP_OPERANDS];
    const void *x[ANEX_MAP_OPERANDS]; /* the piece's lanes */
    void *buffer[ANEX_MAP_OPERANDS];
    int64_t have[ANEX_MAP_OPERANDS];   /* the element that the buffer's first lane is, */
    int64_t have_lanes[ANEX_MAP_OPERANDS]; /* and how many lanes it holds */
    void *y, *values;
    char *to;
} walk;

/* ---- lanes ---------------------------------------------------------------------------------- */

#define WIDEN(type, value)                                     \
    {                                                          \
        const type *x = from;                                  \
        for (int64_t i = 0; i < n; i++) y[i] = (int32_t)value; \
        break;                                                 \
    }
/* n elements into lanes of `width` bytes */
static void load(void *to, int64_t width, anex_dtype dtype, const void *from, int64_t n) {
    int32_t *restrict y = to;
    switch (dtype) {
    case ANEX_F16:
        if (width == 4)
            anex_widen(to, from, n);
        else
            memcpy(to, from, (size_t)n * 2);
        break;
    case ANEX_I8: WIDEN(int8_t, x[i])
    case ANEX_U8: WIDEN(uint8_t, x[i])
    case ANEX_I16: WIDEN(int16_t, x[i])
    case ANEX_U16: WIDEN(uint16_t, x[i])
    case ANEX_BOOL: WIDEN(uint8_t, (x[i] != 0))
    default: memcpy(to, from, (size_t)n * 4);
    }
}

#define NARROW(type, value)                                 \
    {                                                       \
        type *restrict y = to;                              \
        for (int64_t i = 0; i < n; i++) y[i] = (type)value; \
        break;                                              \
    }
static void store(void *to, anex_dtype dtype, const void *from, int64_t n) {
    const int32_t *x = from;
    switch (dtype) {
    case ANEX_F16: anex_narrow(to, from, n); break;
    case ANEX_I8: NARROW(int8_t, x[i])
    case ANEX_U8: NARROW(uint8_t, x[i])
    case ANEX_I16: NARROW(int16_t, x[i])
    case ANEX_U16: NARROW(uint16_t, x[i])
    case ANEX_BOOL: NARROW(uint8_t, (x[i] != 0))
    default: memcpy(to, from, (size_t)n * 4);
    }
}

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
        load(y, m->width, x->dtype, from, n);
        return y;
    }
    const void *values = from;
    if (!as_is) {
        int64_t several = x->kind == VALUE ? 1 : x->kind == SPREAD ? count : (count - 1) * x->step[m->axis] + x->span;
        load(w->values, m->width, x->dtype, from, several);
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
    if (m->block && m->out_item == m->width) {
        m->block(to, w->x, m->p, n);
        return;
    }
    if (m->block) m->block(w->y, w->x, m->p, n);
    store(to, m->out, m->block ? w->y : w->x[0], n);
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

/* A task is one piece of one row. */
static void map_work(const anex_node *node, const anex_slice *slice) {
    const map *m = node->state;
    walk w = {.m = m, .to = node->out[0]->data};
    char *scratch = slice->scratch;
    for (int32_t k = 0; k < m->n; k++, scratch += BUFFER) w.from[k] = node->in[k]->data, w.buffer[k] = scratch;
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

/* Steps of an operand along the output's axes. */
static anex_status broadcast(const anex_node *node, const anex_tensor *x, int64_t *step, anex_error *error) {
    const anex_tensor *y = node->out[0];
    int64_t packed = 1;
    bool fits = x->rank <= y->rank;
    for (int32_t i = y->rank - 1, j = x->rank - 1; fits && i >= 0; i--, j--) {
        int64_t extent = j < 0 ? 1 : x->shape[j];
        fits = extent == y->shape[i] || extent == 1;
        step[i] = extent == 1 ? 0 : packed;
        packed *= extent;
    }
    if (fits) return ANEX_OK;
    char from[160], to[160];
    return anex_node_fail(node, error, ANEX_SHAPE, "an operand of shape %s does not broadcast to the result's shape %s",
                          shape_text(x, from, sizeof from), shape_text(y, to, sizeof to));
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

anex_status ANEX_LOCAL(map)(anex_node *node, const anex_map_op *op, anex_error *error) {
    steps step[ANEX_MAP_OPERANDS] = {{0}};
    bool half_form = op->block.half && op->out == ANEX_F16;
    for (int32_t k = 0; k < op->n; k++) {
        anex_status status = broadcast(node, &op->x[k], step[k], error);
        if (status) return status;
        half_form = half_form && op->x[k].dtype == ANEX_F16;
    }
    map *m = anex_node_state(node, sizeof *m + (size_t)op->n * sizeof m->x[0], error);
    if (!m) return ANEX_MEMORY;
    m->block = half_form ? op->block.half : op->block.lanes;
    memcpy(m->p, op->p, sizeof m->p);
    m->n = op->n, m->out = op->out, m->out_item = anex_dtypes[op->out].bits / 8, m->width = half_form ? 2 : 4;
    int32_t rank = merge(m, node->out[0], step);
    m->axis = rank - 1, m->lanes = 1;
    while (m->axis > 0 && m->lanes * m->extent[m->axis] < SHORT_ROW) m->lanes *= m->extent[m->axis--];
    int64_t along = m->extent[m->axis], rows = 1;
    m->chunk = anex_min(along, ANEX_MAP_LANES / m->lanes);
    m->pieces = (along + m->chunk - 1) / m->chunk;
    for (int32_t i = 0; i < m->axis; i++) rows *= m->extent[i];
    double cost = op->cost + (m->out_item == m->width ? 0.03 : 0.06);
    for (int32_t k = 0; k < m->n; k++) {
        map_operand *x = &m->x[k];
        x->dtype = op->x[k].dtype, x->item = anex_dtypes[x->dtype].bits / 8;
        classify(m, x, rank);
        cost += x->kind == PATTERN || x->kind == SPREAD ? 0.2 : x->item == m->width ? 0.02 : 0.06;
    }
    node->scratch = (size_t)(op->n + 2) * BUFFER;
    anex_add_stage(node, map_work, rows * m->pieces, 5 + cost * (double)(m->chunk * m->lanes));
    return ANEX_OK;
}
