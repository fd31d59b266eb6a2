/* Normalization by statistics of the data: layer_norm, instance_norm, l2_norm.
   y = (x - mean) * scale * gamma + beta, where scale = 1 / sqrt(mean of squares + epsilon). */
#include "axes.h"
#include "simd.h"

#include <math.h>

enum { CHUNK = 4096 }; /* elements of a row looked at at a time */

typedef struct norm {
    anex_panels panels;
    float epsilon;
    bool centred;     /* subtract the mean and divide the sum of squares by n; l2_norm does neither */
    bool affine;      /* gamma and beta are given */
    int64_t channels; /* gamma and beta belong to the position: of `channels` channels; 0: to the element */
    int64_t size;     /* of gamma and of beta */
    float gamma[];    /* then beta */
} norm;

static float scale_of(const norm *s, double square) {
    double variance = s->centred ? square / (double)s->panels.axes.n : square;
    return (float)(1 / sqrt(variance + s->epsilon));
}

/* ---- along rows ----------------------------------------------------------------------------- */

typedef struct row_reader {
    const norm *norm;
    const anex_tensor *x, *y;
    int64_t base, chunks, per_slab;
    float *buffer; /* CHUNK elements */
    int64_t held;  /* the chunk that is in it */
} row_reader;

/* Put chunk `i` into the buffer, if it is not there; returns its length, where it lies and its first element. */
static int64_t row_chunk(row_reader *r, int64_t i, int64_t *at, int64_t *first) {
    const anex_axes *a = &r->norm->panels.axes;
    int64_t slab = i / r->per_slab, part = i % r->per_slab * CHUNK, n = anex_min(CHUNK, a->axis - part);
    *at = r->base + anex_slab_offset(a, slab) + part;
    *first = slab * a->axis + part;
    if (r->held != i) ANEX_LOCAL(load)(r->buffer, r->x, *at, n);
    r->held = i;
    return n;
}

static void apply_elements(float *restrict x, int64_t n, float mean, float scale, const float *restrict gamma,
                           const float *restrict beta) {
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * scale * gamma[i] + beta[i];
}
static void apply_row(float *restrict x, int64_t n, float mean, float scale, float shift) {
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * scale + shift;
}

static void norm_row(row_reader *r, int64_t position) {
    const norm *s = r->norm;
    int64_t at, first;
    double sum = 0, square = 0;
    if (s->centred)
        for (int64_t i = 0; i < r->chunks; i++) {
            int64_t n = row_chunk(r, i, &at, &first);
            sum += anex_row_sum(r->buffer, n);
        }
    float mean = (float)(sum / (double)s->panels.axes.n);
    for (int64_t i = 0; i < r->chunks; i++) {
        int64_t n = row_chunk(r, i, &at, &first);
        square += anex_row_square(r->buffer, n, mean);
    }
    float scale = scale_of(s, square), shift = 0;
    if (s->affine && s->channels) {
        scale *= s->gamma[position % s->channels];
        shift = s->gamma[s->size + position % s->channels];
    }
    for (int64_t i = 0; i < r->chunks; i++) {
        int64_t n = row_chunk(r, i, &at, &first);
        if (s->affine && !s->channels)
            apply_elements(r->buffer, n, mean, scale, s->gamma + first, s->gamma + s->size + first);
        else
            apply_row(r->buffer, n, mean, scale, shift);
        ANEX_LOCAL(store)(r->y, at, r->buffer, n);
        r->held = -1;
    }
}

static void rows_work(const anex_node *node, const anex_slice *slice) {
    const norm *s = node->state;
    const anex_axes *a = &s->panels.axes;
    row_reader r = {.norm = s, .x = node->in[0], .y = node->out[0], .buffer = slice->scratch};
    r.per_slab = (a->axis + CHUNK - 1) / CHUNK;
    r.chunks = a->slabs * r.per_slab;
    for (int64_t position = slice->begin; position < slice->end; position++) {
        r.base = anex_kept_offset(a, position), r.held = -1;
        norm_row(&r, position);
    }
}

/* ---- across columns ------------------------------------------------------------------------- */

/* sum[j] = sum over i of x[i][j] - mean[j], squared or not; partial sums of 64 rows */
static void sum_columns(const float *restrict x, int64_t n, int64_t w, const float *restrict mean, float *restrict part,
                        float *restrict sum) {
    enum { STEP = 64 };
    for (int64_t j = 0; j < w; j++) sum[j] = 0;
    for (int64_t at = 0; at < n; at += STEP) {
        for (int64_t j = 0; j < w; j++) part[j] = 0;
        for (int64_t i = at; i < anex_min(n, at + STEP); i++) {
            const float *restrict row = x + i * w;
            if (mean)
                for (int64_t j = 0; j < w; j++) part[j] += (row[j] - mean[j]) * (row[j] - mean[j]);
            else
                for (int64_t j = 0; j < w; j++) part[j] += row[j];
        }
        for (int64_t j = 0; j < w; j++) sum[j] += part[j];
    }
}

static void norm_columns(const norm *s, float *restrict x, int64_t n, int64_t w, int64_t position, float *restrict mean,
                         float *restrict scale, float *restrict part) {
    if (s->centred) {
        sum_columns(x, n, w, NULL, part, mean);
        for (int64_t j = 0; j < w; j++) mean[j] /= (float)n;
    } else {
        for (int64_t j = 0; j < w; j++) mean[j] = 0;
    }
    sum_columns(x, n, w, mean, part, scale);
    float *restrict shift = part;
    for (int64_t j = 0; j < w; j++) scale[j] = scale_of(s, scale[j]), shift[j] = 0;
    if (s->affine && s->channels)
        for (int64_t j = 0; j < w; j++) {
            scale[j] *= s->gamma[(position + j) % s->channels];
            shift[j] = s->gamma[s->size + (position + j) % s->channels];
        }
    for (int64_t i = 0; i < n; i++) {
        float *restrict row = x + i * w;
        if (s->affine && !s->channels) {
            float gamma = s->gamma[i], beta = s->gamma[s->size + i];
            for (int64_t j = 0; j < w; j++) row[j] = (row[j] - mean[j]) * scale[j] * gamma + beta;
        } else {
            for (int64_t j = 0; j < w; j++) row[j] = (row[j] - mean[j]) * scale[j] + shift[j];
        }
    }
}

static void columns_work(const anex_node *node, const anex_slice *slice) {
    const norm *s = node->state;
    const anex_panels *p = &s->panels;
    float *mean = slice->scratch, *scale = mean + p->width, *part = scale + p->width;
    float *panel = (float *)((char *)mean + anex_align(12 * (size_t)p->width));
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t w = ANEX_LOCAL(panel_load)(p, node->in[0], task, panel);
        norm_columns(s, panel, p->axes.n, w, anex_panel_position(p, task), mean, scale, part);
        ANEX_LOCAL(panel_store)(p, node->out[0], task, panel);
    }
}

/* ---- in plans that may be quick ------------------------------------------------------------- */

enum { MOST_QUICK = 4096, GROUP = 8 * VF, AHEAD = 8, PART = 64 /* elements in a partial sum of a column */ };

/* gamma and beta of a position, or 1 and 0 */
static void of_position(const norm *s, int64_t position, float *gamma, float *beta) {
    bool given = s->affine && s->channels;
    *gamma = given ? s->gamma[position % s->channels] : 1;
    *beta = given ? s->gamma[s->size + position % s->channels] : 0;
}

static inline __attribute__((always_inline)) void quick_row(const bool halves, const norm *s, const char *x, char *y,
                                                            int64_t position, float *wide) {
    const int64_t n = s->panels.axes.n, whole = n / (4 * VF) * (4 * VF);
    vf sum[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()}, square[4] = {vf_zero(), vf_zero(), vf_zero(), vf_zero()};
    for (int64_t i = 0; i < whole; i += 4 * VF)
        for (int32_t v = 0; v < 4; v++) {
            vf value = vf_load_as(x, halves, i + v * VF);
            sum[v] += value;
            vf_store(wide + i + v * VF, value);
        }
    for (int64_t i = whole; i < n; i++)
        wide[i] = halves ? anex_half_to_float(((const half *)x)[i]) : ((const float *)x)[i];
    double total = vf_sum_of_four(sum);
    for (int64_t i = whole; i < n; i++) total += wide[i];
    float mean = s->centred ? (float)(total / (double)n) : 0;
    for (int64_t i = 0; i < whole; i += 4 * VF)
        for (int32_t v = 0; v < 4; v++) {
            vf value = vf_load(wide + i + v * VF) - vf_set(mean);
            square[v] = vf_fma(value, value, square[v]);
        }
    total = vf_sum_of_four(square);
    for (int64_t i = whole; i < n; i++) total += (wide[i] - mean) * (wide[i] - mean);
    float scale = scale_of(s, total), gamma, beta;
    of_position(s, position, &gamma, &beta);
    const float *gammas = s->gamma, *betas = s->gamma + s->size;
    bool by_element = s->affine && !s->channels;
    int64_t i = 0;
    vf factors = vf_set(scale), means = vf_set(mean);
    if (by_element)
        for (; i < whole; i += VF) {
            vf value = (vf_load(wide + i) - means) * factors;
            vf_store_as(y, halves, i, vf_fma(value, vf_load(gammas + i), vf_load(betas + i)));
        }
    else
        for (; i < whole; i += VF) {
            vf value = (vf_load(wide + i) - means) * factors;
            vf_store_as(y, halves, i, vf_fma(value, vf_set(gamma), vf_set(beta)));
        }
    for (; i < n; i++) {
        float factor = by_element ? gammas[i] : gamma, shift = by_element ? betas[i] : beta;
        float value = (wide[i] - mean) * scale * factor + shift;
        if (halves)
            ((half *)y)[i] = anex_float_to_half(value);
        else
            ((float *)y)[i] = value;
    }
}

static void quick_rows_work(const anex_node *node, const anex_slice *slice) {
    const norm *s = node->state;
    const char *x = node->in[0]->data;
    char *y = node->out[0]->data;
    const bool halves = node->in[0]->dtype == ANEX_F16;
    for (int64_t position = slice->begin; position < slice->end; position++) {
        int64_t at = anex_kept_offset(&s->panels.axes, position) * (halves ? 2 : 4);
        if (halves)
            quick_row(true, s, x + at, y + at, position, slice->scratch);
        else
            quick_row(false, s, x + at, y + at, position, slice->scratch);
    }
}

/* x and y [n, vectors of columns], rows `step` apart: what belongs to a column stays in registers */
static inline __attribute__((always_inline)) void quick_columns(const int32_t vectors, const bool halves,
                                                                const norm *s, const char *x, char *y, int64_t step,
                                                                float *wide) {
    const int64_t n = s->panels.axes.n, item = halves ? 2 : 4, line = 64 / item / VF;
    vf mean[8], scale[8], part[8];
    for (int32_t v = 0; v < vectors; v++) mean[v] = scale[v] = vf_zero();
    for (int64_t at = 0; at < n; at += PART) {
        for (int32_t v = 0; v < vectors; v++) part[v] = vf_zero();
        for (int64_t i = at; i < anex_min(n, at + PART); i++) {
            const char *row = x + i * step * item, *later = x + anex_min(i + AHEAD, n - 1) * step * item;
            for (int32_t v = 0; v < vectors; v += line) __builtin_prefetch(later + v * VF * item);
            for (int32_t v = 0; v < vectors; v++) {
                vf value = vf_load_as(row, halves, v * VF);
                part[v] += value;
                vf_store(wide + (i * vectors + v) * VF, value);
            }
        }
        for (int32_t v = 0; v < vectors; v++) mean[v] += part[v];
    }
    for (int32_t v = 0; v < vectors; v++) mean[v] = mean[v] * vf_set(s->centred ? 1 / (float)n : 0);
    for (int64_t at = 0; at < n; at += PART) {
        for (int32_t v = 0; v < vectors; v++) part[v] = vf_zero();
        for (int64_t i = at; i < anex_min(n, at + PART); i++)
            for (int32_t v = 0; v < vectors; v++) {
                vf value = vf_load(wide + (i * vectors + v) * VF) - mean[v];
                part[v] = vf_fma(value, value, part[v]);
            }
        for (int32_t v = 0; v < vectors; v++) scale[v] += part[v];
    }
    for (int32_t v = 0; v < vectors; v++) {
        float lane[VF];
        vf_store(lane, scale[v]);
        for (int32_t j = 0; j < VF; j++) lane[j] = scale_of(s, lane[j]);
        scale[v] = vf_load(lane);
    }
    for (int64_t i = 0; i < n; i++) {
        char *row = y + i * step * item, *later = y + anex_min(i + AHEAD, n - 1) * step * item;
        vf gamma = vf_set(s->affine ? s->gamma[i] : 1), beta = vf_set(s->affine ? s->gamma[s->size + i] : 0);
        for (int32_t v = 0; v < vectors; v += line) __builtin_prefetch(later + v * VF * item, 1);
        for (int32_t v = 0; v < vectors; v++) {
            vf value = (vf_load(wide + (i * vectors + v) * VF) - mean[v]) * scale[v];
            vf_store_as(row, halves, v * VF, vf_fma(value, gamma, beta));
        }
    }
}

/* task: GROUP columns, or what is left of them */
static int64_t groups_of(const anex_axes *a) { return (a->inner + GROUP - 1) / GROUP; }
static inline __attribute__((always_inline)) void quick_groups(const bool halves, const anex_node *node,
                                                               const anex_slice *slice) {
    const norm *s = node->state;
    const anex_axes *a = &s->panels.axes;
    const int64_t item = halves ? 2 : 4;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t column = task % groups_of(a) * GROUP, at = anex_kept_offset(a, task / groups_of(a)) + column;
        const char *x = (const char *)node->in[0]->data + at * item;
        char *y = (char *)node->out[0]->data + at * item;
        int64_t left = anex_min(GROUP, a->inner - column);
        if (left == GROUP)
            quick_columns(8, halves, s, x, y, a->inner, slice->scratch);
        else
            for (; left > 0; left -= VF, x += VF * item, y += VF * item)
                quick_columns(1, halves, s, x, y, a->inner, slice->scratch);
    }
}
static void quick_columns_work(const anex_node *node, const anex_slice *slice) {
    if (node->in[0]->dtype == ANEX_F16)
        quick_groups(true, node, slice);
    else
        quick_groups(false, node, slice);
}

/* False: not by these. */
static bool plan_quick(anex_node *node, const norm *s) {
    const anex_axes *a = &s->panels.axes;
    bool fits = !node->strict && a->slabs == 1 && a->n <= MOST_QUICK;
    if (fits && anex_by_rows(a)) {
        node->scratch = 4 * (size_t)a->n;
        anex_add_stage(node, quick_rows_work, a->outer, 30 + 0.12 * (double)a->n);
        return true;
    }
    if (!fits || a->inner % VF || (s->affine && s->channels)) return false;
    node->scratch = 4 * (size_t)(a->n * GROUP);
    anex_add_stage(node, quick_columns_work, a->outer * groups_of(a), 0.2 * (double)(a->n * anex_min(GROUP, a->inner)));
    return true;
}

/* ---- planning ------------------------------------------------------------------------------- */

static anex_status plan(anex_node *node, uint32_t mask, int32_t gamma, int32_t beta, int64_t channels,
                        const norm *like, anex_error *error) {
    anex_axes axes = ANEX_LOCAL(axes_of)(node->in[0], mask);
    const anex_tensor *g = gamma < 0 ? NULL : node->in[gamma], *b = beta < 0 ? NULL : node->in[beta];
    int64_t size = !g && !b ? 0 : channels ? channels : axes.n;
    if ((g && anex_tensor_size(g) != size) || (b && anex_tensor_size(b) != size))
        return anex_node_fail(node, error, ANEX_SHAPE, "gamma and beta must have %lld elements", (long long)size);
    norm *s = anex_node_state(node, sizeof *s + 8 * (size_t)size, error);
    if (!s) return ANEX_MEMORY;
    *s = *like;
    s->panels = ANEX_LOCAL(panels_of)(axes);
    s->affine = g || b, s->channels = channels, s->size = size;
    for (int64_t i = 0; i < size; i++) {
        s->gamma[i] = g ? (float)anex_real(g, i) : 1;
        s->gamma[size + i] = b ? (float)anex_real(b, i) : 0;
    }
    if (g) node->packed |= 1u << gamma;
    if (b) node->packed |= 1u << beta;
    if (plan_quick(node, s)) return ANEX_OK;
    if (anex_by_rows(&axes)) {
        node->scratch = CHUNK * sizeof(float);
        anex_add_stage(node, rows_work, axes.outer, 30 + 0.3 * (double)axes.n);
    } else {
        node->scratch = s->panels.scratch + anex_align(12 * (size_t)s->panels.width);
        anex_add_stage(node, columns_work, s->panels.tasks, 0.4 * (double)(axes.n * s->panels.width));
    }
    return ANEX_OK;
}

ANEX_KERNEL(layer_norm) {
    enum { X, AXES, GAMMA, BETA, EPSILON };
    uint32_t mask;
    anex_status status = anex_need_constants(node, 1u << AXES | 1u << GAMMA | 1u << BETA | 1u << EPSILON, error);
    if (!status) status = ANEX_LOCAL(axes_mask)(node, node->in[AXES], node->in[X]->rank, &mask, error);
    if (status) return status;
    norm like = {.epsilon = (float)anex_float(node->in[EPSILON], 1e-5), .centred = true};
    return plan(node, mask, GAMMA, BETA, 0, &like, error);
}

ANEX_KERNEL(instance_norm) {
    enum { X, GAMMA, BETA, EPSILON };
    anex_status status = anex_need_constants(node, 1u << GAMMA | 1u << BETA | 1u << EPSILON, error);
    if (status) return status;
    int32_t rank = node->in[X]->rank;
    if (rank < 3)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d; it needs a batch, channels and space", rank);
    norm like = {.epsilon = (float)anex_float(node->in[EPSILON], 1e-5), .centred = true};
    return plan(node, ((1u << rank) - 1) & ~3u, GAMMA, BETA, node->in[X]->shape[1], &like, error);
}

ANEX_KERNEL(l2_norm) {
    enum { X, EPSILON };
    anex_status status = anex_need_constants(node, 1u << EPSILON, error);
    if (status) return status;
    int32_t rank = node->in[X]->rank;
    if (rank < 3)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d; l2_norm is over its last 3 axes", rank);
    norm like = {.epsilon = (float)anex_float(node->in[EPSILON], 1e-6), .centred = false};
    return plan(node, 7u << (rank - 3), -1, -1, 0, &like, error);
}
