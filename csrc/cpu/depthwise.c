/* conv with one input channel per group: each output row is a sum over taps of shifted input rows. */
#include "conv.h"

enum {
    WIDE = 4,              /* vectors of outputs summed at a time */
    MOST_PIXELS = 1 << 16, /* of a channel's image in scratch, if it can be cut into bands of rows */
};

typedef struct depthwise {
    conv_arguments c;
    conv_image image;
    conv_gather gather;
    int64_t taps, outputs, multiplier;
    int64_t bands, band;                      /* of output rows (axis 1) */
    int64_t reach;                            /* image rows under the taps of one output row */
    size_t item, narrow, wide, weights, sums; /* bytes in scratch, in this order but for `item` */
    int64_t *tap;
    bool strict;
} depthwise;

/* The channel's rows begin .. end-1 of the image as floats. */
static const float *widen_image(const depthwise *d, const void *x, int64_t begin, int64_t end, char *scratch) {
    float *wide = (float *)(scratch + d->narrow);
    if (d->item == sizeof(float)) {
        conv_spread(&d->image, x, wide, d->item, begin, end);
    } else {
        conv_spread(&d->image, x, scratch, d->item, begin, end);
        anex_widen(wide, (const half *)scratch, (end - begin) * d->image.row);
    }
    return wide;
}

/* WIDE vectors of outputs, the first taps of each at image + from[v] */
static inline void sum_vectors(const depthwise *d, const float *image, const int64_t *from, const float *weight,
                               float bias, const bool once, vf *sum) {
    for (int32_t v = 0; v < WIDE; v++) sum[v] = vf_set(bias);
    for (int64_t t = 0; t < d->taps; t++) {
        const float *tap = image + d->tap[t];
        vf w = vf_set(weight[t]);
        for (int32_t v = 0; v < WIDE; v++) sum[v] = vf_fma_if(once, w, vf_load(tap + from[v]), sum[v]);
    }
}

/* Rows of outputs, one after the other. Whole vectors are stored: what is too much, the next row overwrites. */
static void sum_rows(const depthwise *d, const float *image, const float *weight, float bias, int64_t rows,
                     float *out) {
    int64_t width = d->c.out[2], step = d->gather.step[1], from[WIDE];
    int32_t across = width <= VF ? 1 : width <= 2 * VF ? 2 : WIDE; /* vectors of one row; so many rows at a time: */
    int64_t together = WIDE / across;
    vf sum[WIDE];
    for (int64_t h = 0; h < rows; h += together)
        for (int64_t i = 0; i < width; i += across * VF) {
            for (int32_t v = 0; v < WIDE; v++)
                from[v] = anex_min(h + v / across, rows - 1) * step + i + v % across * VF;
            if (d->strict && !FUSED)
                sum_vectors(d, image, from, weight, bias, true, sum);
            else
                sum_vectors(d, image, from, weight, bias, false, sum);
            for (int32_t v = 0; v < WIDE && h + v / across < rows; v++)
                vf_store(out + (h + v / across) * width + i + v % across * VF, sum[v]);
        }
}

/* task: a band of output rows of one channel of one batch */
static void convolve(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, BIAS };
    const depthwise *d = node->state;
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *bias = node->in[BIAS];
    int64_t pixels = d->c.in[0] * d->c.in[1] * d->c.in[2], item = (int64_t)d->item, width = d->c.out[2];
    char *scratch = slice->scratch;
    float *weights = (float *)(scratch + d->narrow + d->wide), *sums = (float *)((char *)weights + d->weights);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t plane = task / d->bands, channel = plane % d->c.in_channels;
        int64_t h0 = task % d->bands * d->band, h1 = anex_min(h0 + d->band, d->c.out[1]);
        int64_t begin = h0 * d->c.stride[1], end = begin + (h1 - h0 - 1) * d->c.stride[1] + d->reach;
        if (d->bands == 1) begin = 0, end = d->image.size[0] * d->image.size[1];
        const float *image = widen_image(d, (const char *)x->data + plane * pixels * item, begin, end, scratch);
        for (int64_t m = 0; m < d->multiplier; m++) {
            int64_t filter = channel * d->multiplier + m;
            gemm_widen(weights, weight->data, weight->dtype, filter * d->taps, d->taps);
            float add = 0;
            if (bias) gemm_widen(&add, bias->data, bias->dtype, filter, 1);
            for (int64_t z = 0; z < d->c.out[0]; z++)
                sum_rows(d, image + z * d->gather.step[0], weights, add, h1 - h0, sums + z * d->c.out[1] * width);
            int64_t at = (plane * d->multiplier + m) * d->outputs + h0 * width, n = d->c.out[0] * (h1 - h0) * width;
            anex_epilogue_run_line(node, sums, at, n);
            if (node->out[0]->dtype == ANEX_F16)
                anex_narrow((half *)node->out[0]->data + at, sums, n);
            else
                memcpy((float *)node->out[0]->data + at, sums, (size_t)n * sizeof *sums);
        }
    }
}

anex_status conv_depthwise(anex_node *node, const conv_arguments *c, const conv_axis axis[AXES], anex_error *error) {
    depthwise d = {.c = *c, .item = anex_itemsize(node->in[0]), .multiplier = c->out_channels / c->groups};
    d.strict = node->strict;
    d.taps = c->kernel[0] * c->kernel[1] * c->kernel[2];
    d.outputs = c->out[0] * c->out[1] * c->out[2];
    conv_image_fit(&d.image, axis);
    conv_image_finish(&d.image, axis[2].stride);
    char *state = anex_node_state(node, anex_align(sizeof d) + (size_t)d.taps * sizeof *d.tap, error);
    if (!state) return ANEX_MEMORY;
    d.tap = (int64_t *)(state + anex_align(sizeof d));
    d.gather = conv_gather_make(&d.image, axis, 1, d.tap);
    int64_t start = d.image.before[1] + axis[1].first; /* the first row under output row 0: only 0 if padded so */
    d.reach = start + (c->kernel[1] - 1) * c->dilation[1] + 1;
    d.bands = 1, d.band = c->out[1];
    int64_t rows = d.image.size[0] * d.image.size[1];
    if (d.image.size[0] == 1 && d.image.volume > MOST_PIXELS && c->out[1] > 1) {
        d.band = anex_max(1, (MOST_PIXELS / d.image.row - d.reach) / c->stride[1]);
        d.bands = (c->out[1] + d.band - 1) / d.band;
        if (d.bands > 1) rows = (d.band - 1) * c->stride[1] + d.reach;
    }
    size_t pixels = (size_t)(rows * d.image.row + WIDE * VF);
    d.narrow = d.item == sizeof(float) ? 0 : anex_align(pixels * sizeof(half));
    d.wide = anex_align(pixels * sizeof(float));
    d.weights = anex_align((size_t)d.taps * sizeof(float));
    d.sums = anex_align((size_t)(c->out[0] * d.band * c->out[2] + WIDE * VF) * sizeof(float));
    memcpy(state, &d, sizeof d);
    node->ends_float = true;
    node->scratch = d.narrow + d.wide + d.weights + d.sums;
    double multiplies = (double)(d.multiplier * d.outputs) * (double)d.taps / VF;
    anex_add_stage(node, convolve, c->batch * c->in_channels * d.bands,
                   (0.2 * multiplies + 0.2 * (double)d.image.volume) / (double)d.bands + 20);
    return ANEX_OK;
}
