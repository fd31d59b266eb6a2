/* reduce_argmax and reduce_argmin: the first of the greatest (least) elements; a NaN is beyond both. */
#include "axes.h"

#include <math.h>

enum { LANES = 64, BLOCK = 256, CHUNK = 4096 };

typedef struct arg {
    anex_panels panels;
    bool least, whole; /* whole: x is an integer */
    int64_t lanes;  /* positions of inner, or several copies of them */
    int64_t blocks; /* tasks along inner */
} arg;

/* at[j] = which row holds the best of x[i][j]; rows are numbered from `first` */
#define BEST(name, type, is_better)                                                                              \
    static void name(type *restrict best, int32_t *restrict at, const type *restrict x, int64_t rows, int64_t step, \
                     int64_t w, int32_t first) {                                                                 \
        for (int32_t i = 0; i < rows; i++)                                                                       \
            for (int64_t j = 0; j < w; j++) {                                                                    \
                type v = x[i * step + j], b = best[j];                                                           \
                int32_t take = is_better;                                                                        \
                best[j] = take ? v : b;                                                                          \
                at[j] = take ? first + i : at[j];                                                                \
            }                                                                                                    \
    }
BEST(greatest_f, float, (v > b) | ((v != v) & (b == b)))
BEST(least_f, float, (v < b) | ((v != v) & (b == b)))
BEST(greatest_i, int32_t, v > b)
BEST(least_i, int32_t, v < b)

/* scratch: the best of each lane, its row, then a chunk of x or a panel */
typedef struct room {
    union {
        float f[BLOCK];
        int32_t i[BLOCK];
    } best;
    int32_t at[BLOCK];
} room;

static void begin(const arg *s, room *m, int64_t lanes) {
    for (int64_t j = 0; j < lanes; j++) m->at[j] = 0;
    if (s->whole)
        for (int64_t j = 0; j < lanes; j++) m->best.i[j] = s->least ? INT32_MAX : INT32_MIN;
    else
        for (int64_t j = 0; j < lanes; j++) m->best.f[j] = s->least ? INFINITY : -INFINITY;
}

static void look(const arg *s, room *m, const void *x, int64_t rows, int64_t step, int64_t w, int64_t first) {
    if (s->whole)
        (s->least ? least_i : greatest_i)(m->best.i, m->at, x, rows, step, w, (int32_t)first);
    else
        (s->least ? least_f : greatest_f)(m->best.f, m->at, x, rows, step, w, (int32_t)first);
}

/* -1: lane a is to be preferred to b, 1: b to a, 0: neither */
static int32_t compare(const arg *s, const room *m, int64_t a, int64_t b) {
    if (s->whole) {
        int32_t x = m->best.i[a], y = m->best.i[b];
        return x == y ? 0 : (x < y) == s->least ? -1 : 1;
    }
    float x = m->best.f[a], y = m->best.f[b];
    if (x != x || y != y) return (y != y) - (x != x);
    return x == y ? 0 : (x < y) == s->least ? -1 : 1;
}

/* Turn rows of lanes into elements, and choose among the copies of each position. */
static void choose(const arg *s, room *m, int64_t lanes, int64_t positions) {
    int64_t copies = s->lanes / positions;
    for (int64_t j = 0; j < lanes; j++) m->at[j] = (int32_t)(m->at[j] * copies + j / positions);
    for (int64_t j = positions; j < lanes; j++) {
        int64_t k = j % positions;
        int32_t order = compare(s, m, k, j);
        if (order < 0 || (order == 0 && m->at[k] < m->at[j])) continue;
        m->best.i[k] = m->best.i[j], m->at[k] = m->at[j];
    }
}

static void lanes_work(const anex_node *node, const anex_slice *slice) {
    const arg *s = node->state;
    const anex_axes *a = &s->panels.axes;
    const anex_tensor *x = node->in[0];
    room *m = slice->scratch;
    float *wide = (float *)((char *)slice->scratch + anex_align(sizeof *m));
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t outer = task / s->blocks, column = task % s->blocks * BLOCK, base = outer * a->axis * a->inner + column;
        int64_t w = s->blocks > 1 ? anex_min(BLOCK, a->inner - column) : s->lanes;
        bool packed = w == s->lanes && s->blocks == 1; /* rows follow one another; the last may be short */
        int64_t slab = a->axis * a->inner, rows = packed ? slab / w : a->axis, most = anex_max(1, CHUNK / w);
        begin(s, m, w);
        for (int64_t i = 0; i < rows; i += most) {
            int64_t n = anex_min(most, rows - i);
            if (packed)
                ANEX_LOCAL(load)(wide, x, base + i * w, n * w);
            else
                for (int64_t r = 0; r < n; r++) ANEX_LOCAL(load)(wide + r * w, x, base + (i + r) * a->inner, w);
            look(s, m, wide, n, w, w, i);
        }
        if (packed && slab > rows * w) {
            ANEX_LOCAL(load)(wide, x, base + rows * w, slab - rows * w);
            look(s, m, wide, 1, w, slab - rows * w, rows);
        }
        if (packed) choose(s, m, anex_min(w, slab), a->inner);
        ANEX_LOCAL(store)(node->out[0], outer * a->inner + column, m->at, packed ? a->inner : w);
    }
}

static void panel_work(const anex_node *node, const anex_slice *slice) {
    const arg *s = node->state;
    room *m = slice->scratch;
    void *panel = (char *)slice->scratch + anex_align(sizeof *m);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t w = ANEX_LOCAL(panel_load)(&s->panels, node->in[0], task, panel);
        begin(s, m, w);
        look(s, m, panel, s->panels.axes.n, w, w, 0);
        ANEX_LOCAL(store)(node->out[0], anex_panel_position(&s->panels, task), m->at, w);
    }
}

static anex_status plan(anex_node *node, bool least, anex_error *error) {
    enum { X, AXIS, KEEP_DIMS, OUTPUT_DTYPE };
    const anex_tensor *x = node->in[X];
    int32_t axis;
    anex_status status = anex_need_constants(node, 1u << AXIS, error);
    if (!status) status = ANEX_LOCAL(axis_read)(node, node->in[AXIS], -1, x->rank, &axis, error);
    if (status) return status;
    arg *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    anex_axes a = ANEX_LOCAL(axes_along)(x, axis);
    int64_t limit = node->out[0]->dtype == ANEX_U16 ? 65536 : INT32_MAX;
    if (a.axis > limit)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                              "axis %d has %lld elements, but %s indices count only %lld; use output_dtype=\"int32\"",
                              axis, (long long)a.axis, anex_dtypes[node->out[0]->dtype].name, (long long)limit);
    *s = (arg){.panels = ANEX_LOCAL(panels_of)(a), .least = least, .whole = !anex_is_float(x)};
    node->scratch = anex_align(sizeof(room));
    if (a.inner * a.axis < ANEX_SHORT_ROW && s->panels.gather > 1) {
        node->scratch += s->panels.scratch;
        anex_add_stage(node, panel_work, s->panels.tasks, 1.2 * (double)(a.n * s->panels.width));
        return ANEX_OK;
    }
    s->lanes = a.inner < LANES ? LANES / a.inner * a.inner : anex_min(a.inner, BLOCK);
    s->blocks = (a.inner + BLOCK - 1) / BLOCK;
    node->scratch += CHUNK * sizeof(float);
    anex_add_stage(node, lanes_work, a.outer * s->blocks, 60 + 0.3 * (double)(a.n * anex_min(a.inner, BLOCK)));
    return ANEX_OK;
}

ANEX_KERNEL(reduce_argmax) { return plan(node, false, error); }
ANEX_KERNEL(reduce_argmin) { return plan(node, true, error); }
