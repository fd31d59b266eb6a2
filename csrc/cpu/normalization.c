/* Normalization by statistics of the data: layer_norm, instance_norm, l2_norm.
   y = (x - mean) * scale * gamma + beta, where scale = 1 / sqrt(mean of squares + epsilon). */
#include "axes.h"

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
