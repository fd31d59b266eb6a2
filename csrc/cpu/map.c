/* The broadcasting engine under every elementwise op.

   Axes that all operands step through alike are merged, so a tensor is `rows` of `lanes`; an operand
   then either has all lanes of a row or one value for it (every operand is packed: its last step is 1
   or 0). Long rows are cut into pieces of a block; short ones are gathered, many to a block, whole runs
   at a time. Indices advance like an odometer: nothing is divided per element or per row. */
#include "map.h"

#include <stdio.h>
#include <string.h>

enum {
    LONG_ROW = 256,               /* lanes: from here a row is worth a block of its own */
    SLACK = 16,                   /* lanes past a block that spreading may overwrite */
    BUFFER = ANEX_MAP_LANES + SLACK
};

/* A lane moved without looking at it: a float or an integer, so it may alias both. */
typedef int32_t lane __attribute__((may_alias));

typedef struct map_operand {
    anex_dtype dtype;
    int64_t item;                 /* bytes */
    int64_t step[ANEX_MAX_RANK];  /* elements, along each merged axis; the last is 0 or 1 */
    bool dense;                   /* as large as the output: block b of it is block b of the output */
    bool scalar;
} map_operand;

typedef struct map {
    anex_block *block;
    anex_lane p[ANEX_MAP_PARAMETERS];
    int32_t n, rank;
    int64_t extent[ANEX_MAX_RANK]; /* merged; the last is `lanes` */
    int64_t lanes, rows;
    int64_t group;  /* short rows in a block */
    int64_t pieces; /* blocks in a long row; 0: rows are short */
    map_operand x[ANEX_MAP_OPERANDS];
    anex_dtype out;
    int64_t out_item;
} map;

/* ---- lanes ---------------------------------------------------------------------------------- */

#define WIDEN(type, value)                                     \
    {                                                          \
        const type *x = from;                                  \
        for (int64_t i = 0; i < n; i++) y[i] = (int32_t)value; \
        break;                                                 \
    }
static void load(void *to, anex_dtype dtype, const void *from, int64_t n) {
    int32_t *restrict y = to;
    switch (dtype) {
    case ANEX_F16: anex_widen(to, from, n); break;
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

/* ---- blocks --------------------------------------------------------------------------------- */

/* One worker's walk over the blocks. */
typedef struct walk {
    const map *m;
    int64_t index[ANEX_MAX_RANK];      /* of the row, along the outer axes */
    int64_t offset[ANEX_MAP_OPERANDS]; /* of the row, elements */
    const char *from[ANEX_MAP_OPERANDS];
    const void *x[ANEX_MAP_OPERANDS]; /* the block's lanes */
    lane *buffer[ANEX_MAP_OPERANDS];
    lane *y, *values;
    char *to;
} walk;

static void splat(lane *y, lane value, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] = value;
}

/* Each value `lanes` times. Rows are written in whole vectors; the next row mends what that spills. */
static void spread(lane *restrict y, const lane *restrict values, int64_t n, int64_t lanes) {
    for (int64_t r = 0; r < n; r++, y += lanes)
        for (int64_t at = 0; at < lanes; at += SLACK)
            for (int64_t i = 0; i < SLACK; i++) y[at + i] = values[r];
}

/* The same row `n` times: the first is there. */
static void repeat(lane *y, int64_t n, int64_t lanes) {
    for (int64_t have = lanes, all = n * lanes; have < all; have *= 2)
        memcpy(y + have, y, (size_t)anex_min(have, all - have) * 4);
}

/* `n` rows in a run along the last outer axis, from operand k into its buffer at lane `at`. */
static void gather_run(walk *w, int32_t k, int64_t at, int64_t n) {
    const map *m = w->m;
    const map_operand *x = &m->x[k];
    int64_t lanes = m->lanes;
    bool per_lane = x->step[m->rank - 1], per_row = x->step[m->rank - 2];
    const char *from = w->from[k] + w->offset[k] * x->item;
    lane *y = w->buffer[k] + at;
    if (per_lane) {
        load(y, x->dtype, from, per_row ? n * lanes : lanes); /* steps of a packed operand: row on row */
        if (!per_row) repeat(y, n, lanes);
    } else {
        load(w->values, x->dtype, from, per_row ? n : 1);
        if (per_row)
            spread(y, w->values, n, lanes);
        else
            splat(y, w->values[0], n * lanes);
    }
}

/* Move on by `n` rows that stay within the last outer axis. */
static void advance(walk *w, int64_t n) {
    const map *m = w->m;
    int32_t axis = m->rank - 2;
    for (; axis >= 0; axis--, n = 1) {
        w->index[axis] += n;
        for (int32_t k = 0; k < m->n; k++) w->offset[k] += n * m->x[k].step[axis];
        if (w->index[axis] < m->extent[axis]) return;
        for (int32_t k = 0; k < m->n; k++) w->offset[k] -= m->extent[axis] * m->x[k].step[axis];
        w->index[axis] = 0;
    }
}

static void seek(walk *w, int64_t row) {
    const map *m = w->m;
    for (int32_t axis = m->rank - 2; axis >= 0 && row; axis--) {
        w->index[axis] = row % m->extent[axis];
        row /= m->extent[axis];
        for (int32_t k = 0; k < m->n; k++) w->offset[k] += w->index[axis] * m->x[k].step[axis];
    }
}

/* The lanes of a dense or long-rowed operand: where they are, or widened. */
static const void *lanes_at(const walk *w, int32_t k, int64_t element, int64_t n) {
    const map_operand *x = &w->m->x[k];
    const char *from = w->from[k] + element * x->item;
    if (x->item == 4) return from;
    load(w->buffer[k], x->dtype, from, n);
    return w->buffer[k];
}

/* Do the block at `element` of the output, whose operands are in w->x. */
static void finish(const walk *w, int64_t element, int64_t n) {
    const map *m = w->m;
    char *to = w->to + element * m->out_item;
    if (!m->block) {
        store(to, m->out, w->x[0], n);
    } else if (m->out_item == 4) {
        m->block(to, w->x, m->p, n);
    } else {
        m->block(w->y, w->x, m->p, n);
        store(to, m->out, w->y, n);
    }
}

static void long_rows(walk *w, int64_t begin, int64_t end) {
    const map *m = w->m;
    int64_t row = begin ? begin / m->pieces : 0, piece = begin - row * m->pieces;
    bool fresh = true;
    seek(w, row);
    for (; begin < end; begin++) {
        int64_t at = piece * ANEX_MAP_LANES, n = anex_min(m->lanes - at, ANEX_MAP_LANES);
        for (int32_t k = 0; k < m->n; k++) {
            const map_operand *x = &m->x[k];
            if (x->step[m->rank - 1]) {
                w->x[k] = lanes_at(w, k, w->offset[k] + at, n);
            } else if (fresh && !x->scalar) { /* one value for the row */
                lane value;
                load(&value, x->dtype, w->from[k] + w->offset[k] * x->item, 1);
                splat(w->buffer[k], value, anex_min(m->lanes, ANEX_MAP_LANES));
            }
        }
        finish(w, row * m->lanes + at, n);
        fresh = ++piece == m->pieces;
        if (fresh) {
            piece = 0, row++;
            advance(w, 1);
        }
    }
}

static void short_rows(walk *w, int64_t begin, int64_t end) {
    const map *m = w->m;
    int64_t row = begin * m->group, last = anex_min(end * m->group, m->rows), along = m->extent[m->rank - 2];
    bool gathers = false;
    for (int32_t k = 0; k < m->n; k++) gathers |= !m->x[k].dense && !m->x[k].scalar;
    seek(w, row);
    while (row < last) {
        int64_t n = anex_min(last - row, m->group);
        for (int32_t k = 0; k < m->n; k++)
            if (m->x[k].dense) w->x[k] = lanes_at(w, k, row * m->lanes, n * m->lanes);
        for (int64_t done = 0, run; gathers && done < n; done += run) {
            run = anex_min(n - done, along - w->index[m->rank - 2]);
            for (int32_t k = 0; k < m->n; k++)
                if (!m->x[k].dense && !m->x[k].scalar) gather_run(w, k, done * m->lanes, run);
            advance(w, run);
        }
        finish(w, row * m->lanes, n * m->lanes);
        row += n;
    }
}

static void map_work(const anex_node *node, const anex_slice *slice) {
    const map *m = node->state;
    walk w = {.m = m, .to = node->out[0]->data};
    lane *buffer = slice->scratch;
    for (int32_t k = 0; k < m->n; k++, buffer += BUFFER) {
        w.from[k] = node->in[k]->data;
        w.x[k] = w.buffer[k] = buffer;
        if (m->x[k].scalar) {
            lane value;
            load(&value, m->x[k].dtype, w.from[k], 1);
            splat(buffer, value, anex_min(m->rows * m->lanes, ANEX_MAP_LANES));
        }
    }
    w.y = buffer, w.values = buffer + BUFFER;
    if (m->pieces)
        long_rows(&w, slice->begin, slice->end);
    else
        short_rows(&w, slice->begin, slice->end);
}

/* ---- planning ------------------------------------------------------------------------------- */

/* Steps of an operand along the output's axes: 0 where it is broadcast. */
static anex_status broadcast(const anex_node *node, const anex_tensor *x, const anex_tensor *y, int64_t *step,
                             anex_error *error) {
    int64_t packed = 1;
    bool fits = x->rank <= y->rank;
    for (int32_t i = y->rank - 1, j = x->rank - 1; fits && i >= 0; i--, j--) {
        int64_t extent = j < 0 ? 1 : x->shape[j];
        fits = extent == y->shape[i] || extent == 1;
        step[i] = extent == 1 ? 0 : packed;
        packed *= extent;
    }
    if (fits) return ANEX_OK;
    char from[128], to[128];
    const anex_tensor *const shown[] = {x, y};
    char *const text[] = {from, to};
    for (int32_t k = 0; k < 2; k++)
        for (int32_t i = 0, at = 0; i < shown[k]->rank || i == 0; i++)
            at += snprintf(text[k] + at, sizeof from - (size_t)at, i ? ", %lld" : "%lld",
                           shown[k]->rank ? (long long)shown[k]->shape[i] : 1LL);
    return anex_node_fail(node, error, ANEX_SHAPE, "an operand of shape (%s) does not broadcast to the result's shape (%s)",
                          from, to);
}

static bool alike(const map *m, int32_t outer, int64_t inner_extent, const int64_t (*step)[ANEX_MAX_RANK], int32_t axis) {
    for (int32_t k = 0; k < m->n; k++)
        if (m->x[k].step[outer] != step[k][axis] * inner_extent) return false;
    return true;
}

/* Merge the axes that every operand steps through as if they were one; extents of 1 vanish. */
static void merge(map *m, const anex_tensor *y, const int64_t (*step)[ANEX_MAX_RANK]) {
    for (int32_t axis = 0; axis < y->rank; axis++) {
        if (y->shape[axis] == 1) continue;
        bool merged = m->rank && alike(m, m->rank - 1, y->shape[axis], step, axis);
        if (!merged) m->rank++, m->extent[m->rank - 1] = 1;
        m->extent[m->rank - 1] *= y->shape[axis];
        for (int32_t k = 0; k < m->n; k++) m->x[k].step[m->rank - 1] = step[k][axis];
    }
    if (!m->rank) m->rank = 1, m->extent[0] = 1;
    m->lanes = m->extent[m->rank - 1];
    m->rows = 1;
    for (int32_t i = 0; i < m->rank - 1; i++) m->rows *= m->extent[i];
}

anex_status ANEX_LOCAL(map)(anex_node *node, const anex_map_op *op, anex_error *error) {
    const anex_tensor *y = node->out[0];
    int64_t step[ANEX_MAP_OPERANDS][ANEX_MAX_RANK] = {{0}};
    for (int32_t k = 0; k < op->n; k++) {
        anex_status status = broadcast(node, &op->x[k], y, step[k], error);
        if (status) return status;
    }
    map *m = anex_node_state(node, sizeof *m, error);
    if (!m) return ANEX_MEMORY;
    *m = (map){.block = op->block, .n = op->n, .out = op->out, .out_item = anex_dtypes[op->out].bits / 8};
    memcpy(m->p, op->p, sizeof m->p);
    merge(m, y, (const int64_t(*)[ANEX_MAX_RANK])step);
    int64_t size = anex_tensor_size(y);
    double cost = op->cost + (m->out_item == 4 ? 0.03 : 0.06);
    for (int32_t k = 0; k < m->n; k++) {
        map_operand *x = &m->x[k];
        x->dtype = op->x[k].dtype, x->item = anex_dtypes[x->dtype].bits / 8;
        x->dense = anex_tensor_size(&op->x[k]) == size;
        x->scalar = !x->dense && anex_tensor_size(&op->x[k]) == 1;
        cost += x->scalar ? 0 : x->dense && x->item == 4 ? 0.03 : 0.06;
    }
    int64_t tasks, width;
    if (m->lanes >= LONG_ROW || m->rows == 1) {
        m->pieces = (m->lanes + ANEX_MAP_LANES - 1) / ANEX_MAP_LANES;
        tasks = m->rows * m->pieces, width = anex_min(m->lanes, ANEX_MAP_LANES);
    } else {
        m->group = anex_min(ANEX_MAP_LANES / m->lanes, m->rows);
        tasks = (m->rows + m->group - 1) / m->group, width = m->group * m->lanes;
    }
    node->scratch = (size_t)(op->n + 2) * BUFFER * sizeof(lane);
    anex_add_stage(node, map_work, tasks, 5 + cost * (double)width);
    return ANEX_OK;
}
