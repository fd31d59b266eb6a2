/* cumsum: running sums along an axis, in double (integers modulo 2^32). */
#include "axes.h"

enum { CHUNK = 4096 };

typedef struct cumsum {
    anex_panels panels;
    bool exclusive, reverse, whole;
} cumsum;

/* In place on n elements, from one end to the other. */
#define SCAN(name, type, sum_type)                                                        \
    static sum_type name(const cumsum *s, type *x, int64_t n, sum_type sum) {             \
        type *at = s->reverse ? x + n - 1 : x;                                            \
        int64_t step = s->reverse ? -1 : 1;                                               \
        for (int64_t i = 0; i < n; i++, at += step) {                                     \
            sum_type before = sum;                                                        \
            sum += (sum_type)*at;                                                         \
            *at = (type)(s->exclusive ? before : sum);                                    \
        }                                                                                 \
        return sum;                                                                       \
    }
SCAN(scan_f, float, double)
SCAN(scan_i, int32_t, uint32_t)

static void rows_work(const anex_node *node, const anex_slice *slice) {
    const cumsum *s = node->state;
    int64_t n = s->panels.axes.n, chunks = (n + CHUNK - 1) / CHUNK;
    for (int64_t row = slice->begin; row < slice->end; row++) {
        double sum_f = 0;
        uint32_t sum_i = 0;
        for (int64_t i = 0; i < chunks; i++) {
            int64_t from = (s->reverse ? chunks - 1 - i : i) * CHUNK, m = anex_min(CHUNK, n - from);
            ANEX_LOCAL(load)(slice->scratch, node->in[0], row * n + from, m);
            if (s->whole)
                sum_i = scan_i(s, slice->scratch, m, sum_i);
            else
                sum_f = scan_f(s, slice->scratch, m, sum_f);
            ANEX_LOCAL(store)(node->out[0], row * n + from, slice->scratch, m);
        }
    }
}

#define SCAN_COLUMNS(name, type, sum_type)                                                                     \
    static void name(const cumsum *s, type *restrict x, int64_t n, int64_t w, sum_type *restrict sum) {        \
        for (int64_t j = 0; j < w; j++) sum[j] = 0;                                                            \
        for (int64_t i = 0; i < n; i++) {                                                                      \
            type *restrict row = x + (s->reverse ? n - 1 - i : i) * w;                                         \
            if (s->exclusive)                                                                                  \
                for (int64_t j = 0; j < w; j++) {                                                              \
                    type v = row[j];                                                                           \
                    row[j] = (type)sum[j];                                                                     \
                    sum[j] += (sum_type)v;                                                                     \
                }                                                                                              \
            else                                                                                               \
                for (int64_t j = 0; j < w; j++) {                                                              \
                    sum[j] += (sum_type)row[j];                                                                \
                    row[j] = (type)sum[j];                                                                     \
                }                                                                                              \
        }                                                                                                      \
    }
SCAN_COLUMNS(scan_columns_f, float, double)
SCAN_COLUMNS(scan_columns_i, int32_t, uint32_t)

static void columns_work(const anex_node *node, const anex_slice *slice) {
    const cumsum *s = node->state;
    void *sum = slice->scratch, *panel = (char *)sum + anex_align(8 * (size_t)s->panels.width);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t w = ANEX_LOCAL(panel_load)(&s->panels, node->in[0], task, panel);
        if (s->whole)
            scan_columns_i(s, panel, s->panels.axes.n, w, sum);
        else
            scan_columns_f(s, panel, s->panels.axes.n, w, sum);
        ANEX_LOCAL(panel_store)(&s->panels, node->out[0], task, panel);
    }
}

ANEX_KERNEL(cumsum) {
    enum { X, AXIS, EXCLUSIVE, REVERSE };
    int32_t axis;
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << EXCLUSIVE | 1u << REVERSE, error);
    if (!status) status = ANEX_LOCAL(axis_read)(node, node->in[AXIS], 0, node->in[X]->rank, &axis, error);
    if (status) return status;
    cumsum *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    anex_axes axes = ANEX_LOCAL(axes_along)(node->in[X], axis);
    *s = (cumsum){.panels = ANEX_LOCAL(panels_of)(axes), .exclusive = anex_int(node->in[EXCLUSIVE], 0),
                  .reverse = anex_int(node->in[REVERSE], 0), .whole = !anex_is_float(node->in[X])};
    if (anex_by_rows(&axes)) {
        node->scratch = CHUNK * sizeof(float);
        anex_add_stage(node, rows_work, axes.outer, 10 + 1.2 * (double)axes.n);
    } else {
        node->scratch = s->panels.scratch + anex_align(8 * (size_t)s->panels.width);
        anex_add_stage(node, columns_work, s->panels.tasks, 0.6 * (double)(axes.n * s->panels.width));
    }
    return ANEX_OK;
}
