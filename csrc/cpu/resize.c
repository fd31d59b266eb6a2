/* Resizing the last two axes: nearest and linear, with tables made while compiling. */
#include "../half.h"
#include "sample.h"

/* Where each output of one axis comes from */
typedef struct table {
    int32_t *low, *high; /* the elements on both sides; nearest: low */
    float *weight;       /* of high */
    bool same;           /* the axis stays as it is */
} table;

/* x [planes, in[0], in[1]] -> y [planes, out[0], out[1]] */
typedef struct resize {
    int64_t planes, in[2], out[2];
    int64_t block, blocks; /* output rows of one task, tasks of one plane */
    table table[2];
} resize;

/* ---- nearest ------------------------------------------------------------------------------------- */

static void pick(char *restrict y, const char *restrict x, const int32_t *restrict from, int64_t n, size_t item) {
    switch (item) {
    case 1:
        for (int64_t i = 0; i < n; i++) y[i] = x[from[i]];
        return;
    case 2:
        for (int64_t i = 0; i < n; i++) memcpy(y + i * 2, x + (int64_t)from[i] * 2, 2);
        return;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(y + i * 4, x + (int64_t)from[i] * 4, 4);
    }
}

static void nearest_work(const anex_node *node, const anex_slice *slice) {
    enum { X };
    const resize *s = node->state;
    const size_t item = anex_itemsize(node->in[X]);
    const int64_t row = s->out[1] * (int64_t)item;
    for (int64_t t = slice->begin; t < slice->end; t++) {
        int64_t plane = t / s->blocks, first = t % s->blocks * s->block, stop = anex_min(first + s->block, s->out[0]);
        const char *x = (const char *)node->in[X]->data + plane * s->in[0] * s->in[1] * (int64_t)item;
        char *y = (char *)node->out[0]->data + (plane * s->out[0] + first) * row;
        for (int64_t r = first; r < stop; r++, y += row) {
            const char *from = x + s->table[0].low[r] * s->in[1] * (int64_t)item;
            if (r > first && s->table[0].low[r] == s->table[0].low[r - 1])
                memcpy(y, y - row, (size_t)row);
            else if (s->table[1].same)
                memcpy(y, from, (size_t)row);
            else
                pick(y, from, s->table[1].low, s->out[1], item);
        }
    }
}

/* ---- linear -------------------------------------------------------------------------------------- */

static void mix_rows(float *restrict y, const float *restrict a, const float *restrict b, float weight, int64_t n) {
    const float rest = 1 - weight;
    for (int64_t i = 0; i < n; i++) y[i] = rest * a[i] + weight * b[i];
}

static void mix_columns(float *restrict y, const float *restrict x, const table *t, int64_t n) {
    const int32_t *restrict low = t->low, *restrict high = t->high;
    const float *restrict weight = t->weight;
    for (int64_t i = 0; i < n; i++) y[i] = (1 - weight[i]) * x[low[i]] + weight[i] * x[high[i]];
}

/* Two input rows resized along the last axis; they are kept, for the output's rows come in order. */
typedef struct rows {
    const anex_tensor *x;
    const table *columns;
    float *resized[2], *wide; /* wide: a row of float16 before */
    int64_t held[2], in, out;
} rows;

static const float *row_of(rows *r, int64_t row, int slot) {
    bool half_x = r->x->dtype == ANEX_F16;
    const float *from = half_x ? r->wide : (const float *)r->x->data + row * r->in;
    if (!half_x && r->columns->same) return from;
    if (r->held[slot] == row) return r->resized[slot];
    if (half_x)
        anex_widen(r->columns->same ? r->resized[slot] : r->wide, (const half *)r->x->data + row * r->in, r->in);
    if (!r->columns->same) mix_columns(r->resized[slot], from, r->columns, r->out);
    r->held[slot] = row;
    return r->resized[slot];
}

static void linear_work(const anex_node *node, const anex_slice *slice) {
    enum { X };
    const resize *s = node->state;
    const anex_tensor *y = node->out[0];
    const int64_t w = s->out[1];
    float *scratch = slice->scratch, *line = scratch + 2 * w;
    rows in = {node->in[X], &s->table[1], {scratch, scratch + w}, scratch + 3 * w, {-1, -1}, s->in[1], w};
    for (int64_t t = slice->begin; t < slice->end; t++) {
        int64_t plane = t / s->blocks, first = t % s->blocks * s->block, stop = anex_min(first + s->block, s->out[0]);
        for (int64_t r = first; r < stop; r++) {
            int64_t low = plane * s->in[0] + s->table[0].low[r], high = plane * s->in[0] + s->table[0].high[r];
            if (in.held[1] == low) { /* what was below is above now */
                float *swap = in.resized[0];
                in.resized[0] = in.resized[1], in.resized[1] = swap;
                in.held[1] = in.held[0], in.held[0] = low;
            }
            const float *from = row_of(&in, low, 0);
            float *target = y->dtype == ANEX_F32 ? (float *)y->data + (plane * s->out[0] + r) * w : line;
            if (high != low)
                mix_rows(target, from, row_of(&in, high, 1), s->table[0].weight[r], w);
            else
                memcpy(target, from, (size_t)w * sizeof *target);
            if (y->dtype == ANEX_F16) anex_narrow((half *)y->data + (plane * s->out[0] + r) * w, line, w);
        }
    }
}

/* ---- planning ------------------------------------------------------------------------------------ */

/* FLOOR: element i * in / out, as MIL's upsample; CENTER: the one at the pixel's centre; ROUND: at the nearest point */
typedef enum nearest { LINEAR, FLOOR, CENTER, ROUND } nearest;

static void plan_table(table *t, nearest how, anex_sampling mode, int64_t in, int64_t out) {
    t->same = in == out;
    for (int64_t i = 0; i < out; i++) {
        double at = anex_sample_point(mode, 0, (double)(in - 1), out, i);
        int64_t low = how == FLOOR    ? i * in / out
                      : how == CENTER ? (2 * i + 1) * in / (2 * out)
                      : how == ROUND  ? (int64_t)floor(at + 0.5)
                                      : (int64_t)floor(at);
        low = anex_max(0, anex_min(low, in - 1));
        float weight = how == LINEAR ? (float)(at - (double)low) : 0;
        t->low[i] = (int32_t)low;
        t->high[i] = weight > 0 ? (int32_t)anex_min(low + 1, in - 1) : (int32_t)low;
        t->weight[i] = weight;
        t->same = t->same && low == i && weight == 0;
    }
}

static anex_status plan_resize(anex_node *node, anex_error *error, nearest how, anex_sampling mode) {
    enum { X };
    const anex_tensor *x = node->in[X], *y = node->out[0];
    if (mode == ANEX_SAMPLINGS) return anex_node_fail(node, error, ANEX_INVALID, "MIL has no such sampling_mode");
    if (how == LINEAR && x->dtype != ANEX_F16 && x->dtype != ANEX_F32)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                              "linear interpolation needs float16 or float32, not %s; cast x first",
                              anex_dtypes[x->dtype].name);
    if (x->rank != y->rank || x->rank < 1) return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d", x->rank);
    int32_t last = x->rank - 1;
    for (int32_t i = 0; i < last - 1; i++)
        if (x->shape[i] != y->shape[i])
            return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                                  "axis %d goes from %lld to %lld; the CPU engine resizes the last two axes only", i,
                                  (long long)x->shape[i], (long long)y->shape[i]);
    int64_t in[2] = {last ? x->shape[last - 1] : 1, x->shape[last]};
    int64_t out[2] = {last ? y->shape[last - 1] : 1, y->shape[last]};
    if (in[0] < 1 || in[1] < 1 || in[0] > INT32_MAX || in[1] > INT32_MAX)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has no elements to resize");
    int64_t entries = out[0] + out[1];
    resize *s = anex_node_state(node, sizeof *s + (size_t)entries * (2 * sizeof(int32_t) + sizeof(float)), error);
    if (!s) return ANEX_MEMORY;
    int32_t *place = (int32_t *)(s + 1);
    for (int k = 0; k < 2; k++) {
        s->in[k] = in[k], s->out[k] = out[k];
        s->table[k].low = place, s->table[k].high = place + out[k], s->table[k].weight = (float *)(place + 2 * out[k]);
        place += 3 * out[k];
        plan_table(&s->table[k], how, mode, in[k], out[k]);
    }
    s->planes = anex_span(x, 0, last - 1 > 0 ? last - 1 : 0);
    s->block = anex_max(1, 16384 / anex_max(out[1], 1));
    s->blocks = (out[0] + s->block - 1) / s->block;
    double elements = (double)(anex_min(s->block, out[0]) * out[1]);
    if (how == LINEAR) node->scratch = sizeof(float) * (size_t)(3 * out[1] + in[1]);
    anex_add_stage(node, how == LINEAR ? linear_work : nearest_work, s->planes * s->blocks,
                   elements * (how == LINEAR ? 0.5 : 0.2));
    return ANEX_OK;
}

/* The outputs' sizes are known: scale factors only made them (recompute_scale_factor=True in torch). */
ANEX_KERNEL(upsample_nearest_neighbor) { return plan_resize(node, error, FLOOR, ANEX_DEFAULT); }

ANEX_KERNEL(upsample_bilinear) {
    enum { X, SCALE_FACTOR_HEIGHT, SCALE_FACTOR_WIDTH, ALIGN_CORNERS, HALF_PIXEL_CENTERS };
    anex_status status = anex_need_constants(node, 1u << ALIGN_CORNERS | 1u << HALF_PIXEL_CENTERS, error);
    if (status) return status;
    bool align = anex_int(node->in[ALIGN_CORNERS], 1), centers = anex_int(node->in[HALF_PIXEL_CENTERS], !align);
    if (align && centers)
        return anex_node_fail(node, error, ANEX_INVALID, "align_corners and half_pixel_centers exclude each other");
    anex_sampling mode = align ? ANEX_STRICT_ALIGN_CORNERS : centers ? ANEX_UNALIGN_CORNERS : ANEX_DEFAULT;
    return plan_resize(node, error, LINEAR, mode);
}

/* coremltools makes it from TensorFlow's op with half_pixel_centers=True */
ANEX_KERNEL(resize_nearest_neighbor) { return plan_resize(node, error, CENTER, ANEX_DEFAULT); }

ANEX_KERNEL(resize_bilinear) {
    enum { X, TARGET_SIZE_HEIGHT, TARGET_SIZE_WIDTH, SAMPLING_MODE };
    anex_status status = anex_need_constants(node, 1u << SAMPLING_MODE, error);
    if (status) return status;
    return plan_resize(node, error, LINEAR, anex_find_sampling(anex_text(node->in[SAMPLING_MODE], "DEFAULT")));
}

ANEX_KERNEL(resize) {
    enum { X, SHAPE, RESIZED_DIMS, INTERPOLATION_MODE, SAMPLING_MODE };
    anex_status status = anex_need_constants(node, 1u << INTERPOLATION_MODE | 1u << SAMPLING_MODE, error);
    if (status) return status;
    const char *interpolation = anex_text(node->in[INTERPOLATION_MODE], "LINEAR");
    anex_sampling mode = anex_find_sampling(anex_text(node->in[SAMPLING_MODE], "DEFAULT"));
    if (!strcmp(interpolation, "LINEAR")) return plan_resize(node, error, LINEAR, mode);
    if (strcmp(interpolation, "NEAREST_NEIGHBOR"))
        return anex_node_fail(node, error, ANEX_INVALID,
                              "interpolation_mode \"%s\" is neither LINEAR nor NEAREST_NEIGHBOR",
                              interpolation);
    /* with DEFAULT it is TensorFlow's half_pixel_centers again; otherwise the element nearest to the point */
    return plan_resize(node, error, mode == ANEX_DEFAULT ? CENTER : ROUND, mode);
}
