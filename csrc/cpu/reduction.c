/* reduce_sum and its kin over any axes.

   Elements are folded into `lanes` independent totals: the positions of `inner`, or, when those are
   few, several copies of them, which are folded together at the end. Floats are added in float for a
   chunk of rows, and chunks in double; integers in int64, kept modulo 2^64. When there are few results
   and many elements the rows are cut into a number of splits that depends on the shape alone; their
   totals lie in `shared` and a second stage merges them. log_sum_exp takes the maximum first. */
#include "axes.h"
#include "vmath.h"

typedef enum kind { SUM, MEAN, SQUARE, L1, L2, LOG_SUM, LOG_SUM_EXP, PROD, MAX, MIN } kind;

enum { LANES = 64, BLOCK = 256, CHUNK = 4096, SPLIT = 1 << 15, MOST_SPLITS = 64 };

/* Totals are double for floats and log_sum_exp, int64 for integers: TOTAL bytes either way. */
enum { TOTAL = 8 };
typedef union total_block {
    double f[BLOCK];
    int64_t i[BLOCK];
} total_block;

typedef struct reduction {
    kind kind;
    bool whole;         /* x is an integer */
    anex_panels panels; /* its axes are the reduction's */
    int64_t lanes;
    int64_t blocks;  /* tasks along inner */
    int64_t rows;    /* rows of lanes in a slab; the last one may be cut short */
    int64_t splits;
    int64_t results; /* outer * inner */
} reduction;

/* ---- folding rows --------------------------------------------------------------------------- */

/* acc[j] = fold of acc[j] and x[i][j] for all rows i */
#define FOLD_LOOPS(acc_type, expression, columns)         \
    for (int64_t i = 0; i < rows; i++)                    \
        for (int64_t j = 0; j < columns; j++) {           \
            acc_type a = acc[j], v = x[i * step + j];     \
            acc[j] = expression;                          \
        }
#define FOLD(name, type, acc_type, expression)                                                                \
    static void name(acc_type *restrict acc, const type *restrict x, int64_t rows, int64_t step, int64_t w) { \
        if (w == LANES) { /* a known number of columns makes for shorter code */                              \
            FOLD_LOOPS(acc_type, expression, LANES)                                                           \
        } else {                                                                                              \
            FOLD_LOOPS(acc_type, expression, w)                                                               \
        }                                                                                                     \
    }
#define WRAP(a, op, b) (int64_t)((uint64_t)(a)op(uint64_t)(b))
FOLD(sum_f, float, float, a + v)
FOLD(square_f, float, float, a + v *v)
FOLD(abs_f, float, float, a + vm_abs(v))
FOLD(prod_f, float, float, a *v)
FOLD(max_f, float, float, v > a || v != v ? v : a) /* NaN wins */
FOLD(min_f, float, float, v < a || v != v ? v : a)
FOLD(sum_i, int32_t, int64_t, WRAP(a, +, v))
FOLD(square_i, int32_t, int64_t, WRAP(a, +, WRAP(v, *, v)))
FOLD(abs_i, int32_t, int64_t, WRAP(a, +, (v < 0 ? -v : v)))
FOLD(prod_i, int32_t, int64_t, WRAP(a, *, v))
FOLD(max_i, int32_t, int64_t, v > a ? v : a)
FOLD(min_i, int32_t, int64_t, v < a ? v : a)

static void exp_f(float *restrict acc, const float *restrict x, int64_t rows, int64_t step, int64_t w,
                  const float *restrict shift) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < w; j++) acc[j] += vm_exp(x[i * step + j] - shift[j]);
}
static void exp_i(float *restrict acc, const int32_t *restrict x, int64_t rows, int64_t step, int64_t w,
                  const double *restrict shift) {
    for (int64_t i = 0; i < rows; i++)
        for (int64_t j = 0; j < w; j++) acc[j] += vm_exp((float)((double)x[i * step + j] - shift[j]));
}

static double identity_f(kind k) { return k == PROD ? 1 : k == MAX ? -INFINITY : k == MIN ? INFINITY : 0; }
static int64_t identity_i(kind k) { return k == PROD ? 1 : k == MAX ? INT64_MIN : k == MIN ? INT64_MAX : 0; }

static inline double merge_f(kind k, double a, double b) {
    if (k == PROD) return a * b;
    if (k == MAX) return b > a || b != b ? b : a;
    if (k == MIN) return b < a || b != b ? b : a;
    return a + b;
}
static inline int64_t merge_i(kind k, int64_t a, int64_t b) {
    if (k == PROD) return WRAP(a, *, b);
    if (k == MAX) return b > a ? b : a;
    if (k == MIN) return b < a ? b : a;
    return WRAP(a, +, b);
}
/* a[j] = merge of a[j] and b[j]; a loop for each kind, so that each vectorises */
#define MERGE(name, type, b_type, merge_one)                                                  \
    static void name(kind k, type *restrict a, const b_type *restrict b, int64_t n) {         \
        if (k == PROD)                                                                        \
            for (int64_t j = 0; j < n; j++) a[j] = merge_one(PROD, a[j], b[j]);               \
        else if (k == MAX)                                                                    \
            for (int64_t j = 0; j < n; j++) a[j] = merge_one(MAX, a[j], b[j]);                \
        else if (k == MIN)                                                                    \
            for (int64_t j = 0; j < n; j++) a[j] = merge_one(MIN, a[j], b[j]);                \
        else                                                                                  \
            for (int64_t j = 0; j < n; j++) a[j] = merge_one(SUM, a[j], b[j]);                \
    }
MERGE(merge_doubles, double, double, merge_f)
MERGE(merge_floats, double, float, merge_f)
MERGE(merge_integers, int64_t, int64_t, merge_i)
static void merge(kind k, bool whole, void *a, const void *b, int64_t n) {
    if (whole)
        merge_integers(k, a, b, n);
    else
        merge_doubles(k, a, b, n);
}

typedef void fold_f(float *restrict, const float *restrict, int64_t, int64_t, int64_t);
typedef void fold_i(int64_t *restrict, const int32_t *restrict, int64_t, int64_t, int64_t);
static fold_f *const folds_f[] = {sum_f, sum_f, square_f, abs_f, square_f, sum_f, NULL, prod_f, max_f, min_f};
static fold_i *const folds_i[] = {sum_i, sum_i, square_i, abs_i, square_i, sum_i, NULL, prod_i, max_i, min_i};

/* A pass over the elements of some lanes: what to fold, where its totals are. */
typedef struct pass {
    kind kind;
    bool whole;
    int64_t lanes;
    void *totals;
    const double *shift; /* LOG_SUM_EXP: of each lane */
    float *shift_f;
    float *acc_f; /* of a chunk */
    int64_t *acc_i;
} pass;

static void begin_pass(pass *p, kind k, int64_t lanes, void *totals) {
    p->kind = k, p->lanes = lanes, p->totals = totals;
    double *f = totals, start_f = identity_f(k);
    int64_t *i = totals, start_i = identity_i(k);
    if (p->whole && k != LOG_SUM_EXP)
        for (int64_t j = 0; j < lanes; j++) i[j] = start_i;
    else
        for (int64_t j = 0; j < lanes; j++) f[j] = start_f;
}

/* Fold `rows` rows of w elements, `step` apart, and then `rest` more elements in the row after them. */
static void fold_chunk(pass *p, const void *x, int64_t rows, int64_t step, int64_t w, int64_t rest) {
    float start_f = (float)identity_f(p->kind);
    int64_t used = rows ? w : rest, start_i = identity_i(p->kind);
    const float *xf = x;
    const int32_t *xi = x;
    if (p->kind == LOG_SUM_EXP) {
        for (int64_t j = 0; j < used; j++) p->acc_f[j] = 0;
        if (p->whole) {
            exp_i(p->acc_f, xi, rows, step, w, p->shift);
            if (rest) exp_i(p->acc_f, xi + rows * step, 1, step, rest, p->shift);
        } else {
            exp_f(p->acc_f, xf, rows, step, w, p->shift_f);
            if (rest) exp_f(p->acc_f, xf + rows * step, 1, step, rest, p->shift_f);
        }
        merge_floats(SUM, p->totals, p->acc_f, used);
    } else if (p->whole) {
        for (int64_t j = 0; j < used; j++) p->acc_i[j] = start_i;
        folds_i[p->kind](p->acc_i, xi, rows, step, w);
        if (rest) folds_i[p->kind](p->acc_i, xi + rows * step, 1, step, rest);
        merge_integers(p->kind, p->totals, p->acc_i, used);
    } else {
        for (int64_t j = 0; j < used; j++) p->acc_f[j] = start_f;
        folds_f[p->kind](p->acc_f, xf, rows, step, w);
        if (rest) folds_f[p->kind](p->acc_f, xf + rows * step, 1, step, rest);
        merge_floats(p->kind, p->totals, p->acc_f, used);
    }
}

/* ---- the elements of a task ------------------------------------------------------------------ */

typedef struct part { /* of x: rows begin..end of all slabs of one outer position, columns of one block */
    int64_t base, column, columns;
    int64_t begin, end;
} part;

static void fold_part(const reduction *r, const anex_tensor *x, const part *t, pass *p, void *wide) {
    const anex_axes *a = &r->panels.axes;
    bool in_place = x->dtype == ANEX_F32 || x->dtype == ANEX_I32, narrow = r->lanes != a->inner && r->blocks == 1;
    int64_t w = narrow ? r->lanes : t->columns, most = anex_max(1, CHUNK / w);
    for (int64_t at = t->begin; at < t->end;) {
        int64_t slab = at / r->rows, row = at % r->rows;
        int64_t rows = anex_min(anex_min(r->rows - row, t->end - at), most), rest = 0;
        int64_t step = narrow || w == a->inner ? w : a->inner;
        int64_t first = t->base + anex_slab_offset(a, slab) + t->column + row * (narrow ? w : a->inner);
        at += rows;
        if (narrow) {
            int64_t left = anex_min(rows * w, a->axis * a->inner - row * w);
            rows = left / w, rest = left % w;
        }
        const char *data = (const char *)x->data + 4 * first;
        if (in_place) {
            fold_chunk(p, data, rows, step, w, rest);
            continue;
        }
        if (step == w)
            ANEX_LOCAL(load)(wide, x, first, rows * w + rest);
        else
            for (int64_t i = 0; i < rows; i++) ANEX_LOCAL(load)((float *)wide + i * w, x, first + i * a->inner, w);
        fold_chunk(p, wide, rows, w, w, rest);
    }
}

/* Fold the copies of the `inner` positions together, the upper half into the lower one. */
static void fold_lanes(const pass *p, int64_t results) {
    for (int64_t copies = p->lanes / results, upper; copies > 1; copies -= upper) {
        upper = copies / 2;
        merge(p->kind, p->whole && p->kind != LOG_SUM_EXP, p->totals,
              (char *)p->totals + TOTAL * (copies - upper) * results, upper * results);
    }
}

/* What log_sum_exp takes away before e^: the maximum, unless that is infinite. */
static double shift_of(const void *max, int64_t j, bool whole) {
    double m = whole ? (double)((const int64_t *)max)[j] : ((const double *)max)[j];
    return isinf(m) ? 0 : m;
}

/* ---- results -------------------------------------------------------------------------------- */

/* at most BLOCK of them */
static void finish(const reduction *r, int64_t n, const void *totals, const void *max, double *restrict v) {
    const int64_t *restrict i = totals;
    if (r->whole && r->kind != LOG_SUM_EXP)
        for (int64_t j = 0; j < n; j++) v[j] = (double)i[j];
    else
        memcpy(v, totals, (size_t)n * sizeof *v);
    double elements = (double)r->panels.axes.n;
    if (r->kind == MEAN)
        for (int64_t j = 0; j < n; j++) v[j] /= elements;
    if (r->kind == L2)
        for (int64_t j = 0; j < n; j++) v[j] = sqrt(v[j]);
    if (r->kind == LOG_SUM || r->kind == LOG_SUM_EXP)
        for (int64_t j = 0; j < n; j++) v[j] = log(v[j]);
    if (r->kind == LOG_SUM_EXP)
        for (int64_t j = 0; j < n; j++) v[j] += shift_of(max, j, r->whole);
}

static int32_t clamped(double v) {
    return v != v || v <= INT32_MIN ? INT32_MIN : v >= INT32_MAX ? INT32_MAX : (int32_t)v;
}

static void write_results(const reduction *r, const anex_tensor *y, int64_t first, int64_t n, const void *totals,
                          const void *max) {
    bool exact = r->whole && r->kind != MEAN && r->kind != L2 && r->kind != LOG_SUM && r->kind != LOG_SUM_EXP;
    double v[BLOCK];
    float f[BLOCK];
    int32_t i[BLOCK];
    if (exact) { /* modulo 2^32 */
        const int64_t *restrict t = totals;
        for (int64_t j = 0; j < n; j++) i[j] = (int32_t)(uint32_t)(uint64_t)t[j];
        ANEX_LOCAL(store)(y, first, i, n);
        return;
    }
    finish(r, n, totals, max, v);
    if (r->whole)
        for (int64_t j = 0; j < n; j++) i[j] = clamped(v[j]);
    else
        for (int64_t j = 0; j < n; j++) f[j] = (float)v[j];
    ANEX_LOCAL(store)(y, first, r->whole ? (const void *)i : f, n);
}

/* shared: totals [splits, results], and for log_sum_exp the maxima [splits, results] */
static void put_results(const anex_node *node, const anex_slice *slice, int64_t split, int64_t first, int64_t n,
                        const void *totals, const void *max) {
    const reduction *r = node->state;
    if (r->splits == 1) {
        write_results(r, node->out[0], first, n, totals, max);
        return;
    }
    char *partial = (char *)slice->shared + TOTAL * (split * r->results + first);
    memcpy(partial, totals, TOTAL * (size_t)n);
    if (r->kind == LOG_SUM_EXP) memcpy(partial + TOTAL * r->splits * r->results, max, TOTAL * (size_t)n);
}

/* One task is BLOCK results. */
static void merge_work(const anex_node *node, const anex_slice *slice) {
    const reduction *r = node->state;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t first = task * BLOCK, n = anex_min(BLOCK, r->results - first);
        int64_t step = TOTAL * r->results; /* bytes from split to split */
        const char *partial = (const char *)slice->shared + TOTAL * first, *maxima = partial + r->splits * step;
        total_block t, max = {.i = {0}};
        memcpy(&t, partial, TOTAL * (size_t)n);
        if (r->kind == LOG_SUM_EXP) {
            memcpy(&max, maxima, TOTAL * (size_t)n);
            for (int64_t s = 1; s < r->splits; s++) merge(MAX, r->whole, &max, maxima + s * step, n);
            for (int64_t j = 0; j < n; j++) t.f[j] = 0;
            for (int64_t s = 0; s < r->splits; s++)
                for (int64_t j = 0; j < n; j++) {
                    double sum = ((const double *)(const void *)(partial + s * step))[j];
                    t.f[j] += sum * exp(shift_of(maxima + s * step, j, r->whole) - shift_of(&max, j, r->whole));
                }
        } else {
            for (int64_t s = 1; s < r->splits; s++) merge(r->kind, r->whole, &t, partial + s * step, n);
        }
        write_results(r, node->out[0], first, n, &t, &max);
    }
}

/* ---- work ----------------------------------------------------------------------------------- */

/* scratch: totals, maxima and shifts of BLOCK lanes, accumulators, then a chunk or a panel */
typedef struct room {
    total_block totals, max;
    double shift[BLOCK];
    float shift_f[BLOCK], acc_f[BLOCK];
    int64_t acc_i[BLOCK];
} room;

static pass pass_in(room *m, bool whole) {
    return (pass){.whole = whole, .shift = m->shift, .shift_f = m->shift_f, .acc_f = m->acc_f, .acc_i = m->acc_i};
}

/* The maxima of `results` positions become the shifts of all lanes. */
static void set_shifts(room *m, bool whole, int64_t lanes, int64_t results) {
    for (int64_t j = 0; j < lanes; j++) {
        m->shift[j] = shift_of(&m->max, j % results, whole);
        m->shift_f[j] = (float)m->shift[j];
    }
}

static void fold_work(const anex_node *node, const anex_slice *slice) {
    const reduction *r = node->state;
    const anex_axes *a = &r->panels.axes;
    room *m = slice->scratch;
    void *wide = (char *)slice->scratch + anex_align(sizeof *m);
    int64_t total_rows = a->slabs * r->rows;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t split = task % r->splits, block = task / r->splits % r->blocks, outer = task / r->splits / r->blocks;
        part t = {.base = anex_kept_offset(a, outer), .column = r->blocks > 1 ? block * BLOCK : 0};
        t.columns = anex_min(r->blocks > 1 ? BLOCK : a->inner, a->inner - t.column);
        t.begin = total_rows * split / r->splits, t.end = total_rows * (split + 1) / r->splits;
        int64_t lanes = r->blocks > 1 ? t.columns : r->lanes;
        pass p = pass_in(m, r->whole);
        if (r->kind == LOG_SUM_EXP) {
            begin_pass(&p, MAX, lanes, &m->max);
            fold_part(r, node->in[0], &t, &p, wide);
            fold_lanes(&p, t.columns);
            set_shifts(m, r->whole, lanes, t.columns);
        }
        begin_pass(&p, r->kind, lanes, &m->totals);
        fold_part(r, node->in[0], &t, &p, wide);
        fold_lanes(&p, t.columns);
        put_results(node, slice, split, outer * a->inner + t.column, t.columns, &m->totals, &m->max);
    }
}

static void fold_panel(pass *p, const float *panel, int64_t n, int64_t w) {
    for (int64_t i = 0; i < n; i += LANES) fold_chunk(p, panel + i * w, anex_min(LANES, n - i), w, w, 0);
}

static void panel_work(const anex_node *node, const anex_slice *slice) {
    const reduction *r = node->state;
    room *m = slice->scratch;
    float *panel = (float *)((char *)slice->scratch + anex_align(sizeof *m));
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t w = ANEX_LOCAL(panel_load)(&r->panels, node->in[0], task, panel), n = r->panels.axes.n;
        pass p = pass_in(m, r->whole);
        if (r->kind == LOG_SUM_EXP) {
            begin_pass(&p, MAX, w, &m->max);
            fold_panel(&p, panel, n, w);
            set_shifts(m, r->whole, w, w);
        }
        begin_pass(&p, r->kind, w, &m->totals);
        fold_panel(&p, panel, n, w);
        put_results(node, slice, 0, anex_panel_position(&r->panels, task), w, &m->totals, &m->max);
    }
}

static anex_status plan(anex_node *node, kind k, anex_error *error) {
    enum { X, AXES, KEEP_DIMS };
    const anex_tensor *x = node->in[X];
    uint32_t mask;
    anex_status status = anex_need_constants(node, 1u << AXES, error);
    if (!status) status = ANEX_LOCAL(axes_mask)(node, node->in[AXES], x->rank, &mask, error);
    if (status) return status;
    reduction *r = anex_node_state(node, sizeof *r, error);
    if (!r) return ANEX_MEMORY;
    anex_axes a = ANEX_LOCAL(axes_of)(x, mask);
    r->kind = k, r->whole = !anex_is_float(x), r->panels = ANEX_LOCAL(panels_of)(a);
    r->results = a.outer * a.inner, r->splits = 1;
    if (r->results != anex_tensor_size(node->out[0]))
        return anex_node_fail(node, error, ANEX_SHAPE, "the output has %lld elements, not %lld",
                              (long long)anex_tensor_size(node->out[0]), (long long)r->results);
    double per_element = k == LOG_SUM_EXP ? 0.8 : 0.15;
    if (a.inner * a.axis < ANEX_SHORT_ROW && a.outer >= 8 && r->panels.gather > 1) {
        node->scratch = anex_align(sizeof(room)) + r->panels.scratch;
        anex_add_stage(node, panel_work, r->panels.tasks, (1 + per_element) * (double)(a.n * r->panels.width));
        return ANEX_OK;
    }
    r->lanes = a.inner < LANES ? LANES / a.inner * a.inner : anex_min(a.inner, BLOCK);
    r->blocks = (a.inner + BLOCK - 1) / BLOCK;
    r->rows = a.inner < LANES ? (a.axis * a.inner + r->lanes - 1) / r->lanes : a.axis;
    int64_t tasks = a.outer * r->blocks;
    if (tasks < MOST_SPLITS) {
        int64_t elements = anex_tensor_size(x) / tasks;
        r->splits = anex_max(1, anex_min(MOST_SPLITS / tasks, anex_min(elements / SPLIT, a.slabs * r->rows)));
    }
    node->scratch = anex_align(sizeof(room)) + sizeof(float) * (CHUNK + BLOCK);
    double elements = (double)(anex_tensor_size(x) / (tasks * r->splits));
    anex_add_stage(node, fold_work, tasks * r->splits, 50 + per_element * elements);
    if (r->splits > 1) {
        node->shared = TOTAL * (size_t)(r->splits * r->results) * (k == LOG_SUM_EXP ? 2 : 1);
        double merged = (double)(r->splits * anex_min(BLOCK, r->results));
        anex_add_stage(node, merge_work, (r->results + BLOCK - 1) / BLOCK, merged);
    }
    return ANEX_OK;
}

ANEX_KERNEL(reduce_sum) { return plan(node, SUM, error); }
ANEX_KERNEL(reduce_mean) { return plan(node, MEAN, error); }
ANEX_KERNEL(reduce_sum_square) { return plan(node, SQUARE, error); }
ANEX_KERNEL(reduce_l1_norm) { return plan(node, L1, error); }
ANEX_KERNEL(reduce_l2_norm) { return plan(node, L2, error); }
ANEX_KERNEL(reduce_log_sum) { return plan(node, LOG_SUM, error); }
ANEX_KERNEL(reduce_log_sum_exp) { return plan(node, LOG_SUM_EXP, error); }
ANEX_KERNEL(reduce_prod) { return plan(node, PROD, error); }
ANEX_KERNEL(reduce_max) { return plan(node, MAX, error); }
ANEX_KERNEL(reduce_min) { return plan(node, MIN, error); }
