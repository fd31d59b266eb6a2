/* Normalization of channels by constants, batch_norm, or by their neighbours, local_response_norm. */
#include "axes.h"
#include "vmath.h"

/* ---- batch_norm ----------------------------------------------------------------------------- */

enum { BLOCK = 4096 };

/* y = (x - mean) * scale + shift */
typedef struct affine {
    int64_t rows, columns; /* x as [rows, columns] */
    int64_t blocks;        /* tasks of a row */
    int64_t channels;      /* row i has the constants of channel i % channels; 0: column j has those at j */
    int64_t size;
    float mean[]; /* then scale, then shift */
} affine;

static void by_row(float *restrict x, int64_t n, float mean, float scale, float shift) {
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean) * scale + shift;
}
static void by_column(float *restrict x, int64_t n, const float *restrict mean, const float *restrict scale,
                      const float *restrict shift) {
    for (int64_t i = 0; i < n; i++) x[i] = (x[i] - mean[i]) * scale[i] + shift[i];
}

static void batch_norm_work(const anex_node *node, const anex_slice *slice) {
    const affine *s = node->state;
    float *x = slice->scratch;
    const float *mean = s->mean, *scale = mean + s->size, *shift = scale + s->size;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t row = task / s->blocks, from = task % s->blocks * BLOCK, n = anex_min(BLOCK, s->columns - from);
        ANEX_LOCAL(load)(x, node->in[0], row * s->columns + from, n);
        if (s->channels) {
            int64_t c = row % s->channels;
            by_row(x, n, mean[c], scale[c], shift[c]);
        } else {
            by_column(x, n, mean + from, scale + from, shift + from);
        }
        ANEX_LOCAL(store)(node->out[0], row * s->columns + from, x, n);
    }
}

ANEX_KERNEL(batch_norm) {
    enum { X, MEAN, VARIANCE, GAMMA, BETA, EPSILON, ROW = 32 };
    const anex_tensor *x = node->in[X];
    anex_status status = anex_need_constants(node, ~1u, error);
    if (status) return status;
    if (x->rank < 2)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d; its second axis is normalized", x->rank);
    int64_t channels = x->shape[1], space = anex_span(x, 2, x->rank), repeat = space < ROW ? space : 1;
    for (int32_t i = MEAN; i <= BETA; i++)
        if (node->in[i] && anex_tensor_size(node->in[i]) != channels)
            return anex_node_fail(node, error, ANEX_SHAPE, "x has %lld channels, but a constant has %lld elements",
                                  (long long)channels, (long long)anex_tensor_size(node->in[i]));
    affine *s = anex_node_state(node, sizeof *s + 12 * (size_t)(channels * repeat), error);
    if (!s) return ANEX_MEMORY;
    s->size = channels * repeat;
    s->channels = space < ROW ? 0 : channels;
    s->rows = s->channels ? x->shape[0] * channels : x->shape[0];
    s->columns = s->channels ? space : channels * space;
    s->blocks = (s->columns + BLOCK - 1) / BLOCK;
    double epsilon = anex_float(node->in[EPSILON], 1e-5);
    for (int64_t i = 0; i < s->size; i++) {
        int64_t c = i / repeat;
        double gamma = node->in[GAMMA] ? anex_real(node->in[GAMMA], c) : 1;
        s->mean[i] = (float)anex_real(node->in[MEAN], c);
        s->mean[s->size + i] = (float)(gamma / sqrt(anex_real(node->in[VARIANCE], c) + epsilon));
        s->mean[2 * s->size + i] = node->in[BETA] ? (float)anex_real(node->in[BETA], c) : 0;
    }
    node->packed |= 1u << MEAN | 1u << VARIANCE | 1u << GAMMA | 1u << BETA;
    node->scratch = BLOCK * sizeof(float);
    anex_add_stage(node, batch_norm_work, s->rows * s->blocks, 20 + 0.2 * (double)anex_min(BLOCK, s->columns));
    return ANEX_OK;
}

/* ---- local_response_norm -------------------------------------------------------------------- */

/* y = x / (k + alpha / size * sum of the squares of `size` channels, x in their middle)^beta; of an even size one more
   is before x than after it, as torch and Metal have it */
typedef struct response {
    anex_panels panels;
    int64_t size;
    float alpha, beta, k;
} response;

static void response_columns(const response *s, const float *restrict x, float *restrict y, int64_t n, int64_t w) {
    float factor = s->alpha / (float)s->size;
    for (int64_t i = 0; i < n; i++) {
        float *restrict row = y + i * w;
        int64_t first = anex_max(0, i - s->size / 2), last = anex_min(n - 1, i + (s->size - 1) / 2);
        for (int64_t j = 0; j < w; j++) row[j] = 0;
        for (int64_t c = first; c <= last; c++)
            for (int64_t j = 0; j < w; j++) row[j] += x[c * w + j] * x[c * w + j];
        for (int64_t j = 0; j < w; j++) row[j] = x[i * w + j] / vm_pow(s->k + factor * row[j], s->beta);
    }
}

static void response_work(const anex_node *node, const anex_slice *slice) {
    const response *s = node->state;
    const anex_panels *p = &s->panels;
    float *y = slice->scratch, *x = (float *)((char *)slice->scratch + p->scratch);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t w = ANEX_LOCAL(panel_load)(p, node->in[0], task, x);
        response_columns(s, x, y, p->axes.n, w);
        ANEX_LOCAL(panel_store)(p, node->out[0], task, y);
    }
}

ANEX_KERNEL(local_response_norm) {
    enum { X, SIZE, ALPHA, BETA, K };
    const anex_tensor *x = node->in[X];
    anex_status status = anex_need_constants(node, ~1u, error);
    if (status) return status;
    if (x->rank < 2)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d; its second axis is normalized", x->rank);
    response *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    s->panels = ANEX_LOCAL(panels_of)(ANEX_LOCAL(axes_along)(x, 1));
    s->size = anex_int(node->in[SIZE], 1);
    if (s->size < 1)
        return anex_node_fail(node, error, ANEX_INVALID, "size is %lld; it must be at least 1", (long long)s->size);
    s->alpha = (float)anex_float(node->in[ALPHA], 1e-4);
    s->beta = (float)anex_float(node->in[BETA], 0.75);
    s->k = (float)anex_float(node->in[K], 1);
    node->scratch = 2 * s->panels.scratch;
    double elements = (double)(s->panels.axes.n * s->panels.width);
    double neighbours = (double)anex_min(s->size, s->panels.axes.n);
    anex_add_stage(node, response_work, s->panels.tasks, elements * (2 + 0.1 * neighbours));
    return ANEX_OK;
}
