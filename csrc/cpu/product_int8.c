/* anex_linear_int8 and anex_conv_int8: what dequantize, linear (matmul, conv) make together, without the floats between.

   x is int8 or uint8 with one scale and zero point; weight is int8 without zero point, its scale one value or one per
   output channel. anex/devices/quantized.py finds them. */
#include "gemm_int8.h"

static anex_status check_parameters(const anex_node *node, const anex_tensor *scale, const anex_tensor *zero,
                                    const anex_tensor *weight, const anex_tensor *weight_scale,
                                    const anex_tensor *bias, int64_t channels, anex_error *error) {
    const anex_tensor *constants[] = {scale, zero, weight, weight_scale, bias};
    for (int32_t i = 0; i < 5; i++)
        if (constants[i] && !constants[i]->data)
            return anex_node_fail(node, error, ANEX_UNSUPPORTED, "all but x must be constants");
    int64_t scales = anex_tensor_size(weight_scale);
    if (anex_tensor_size(scale) != 1 || (zero && anex_tensor_size(zero) != 1) || weight->dtype != ANEX_I8 ||
        (scales != 1 && scales != channels) || (bias && anex_tensor_size(bias) != channels))
        return anex_node_fail(node, error, ANEX_SHAPE, "scales, zero point, weight and bias do not belong together");
    return ANEX_OK;
}

static gemm_int8_weights weights_of(const anex_tensor *x, const anex_tensor *scale, const anex_tensor *zero,
                                    const anex_tensor *weight, const anex_tensor *weight_scale,
                                    const anex_tensor *bias) {
    return (gemm_int8_weights){.weight = weight->data,
                               .scale = weight_scale,
                               .bias = bias,
                               .activation_scale = (float)anex_real(scale, 0),
                               .zero = zero ? (int32_t)anex_item(zero, 0) : 0,
                               .is_signed = x->dtype == ANEX_I8};
}

static void finish(anex_node *node, const gemm_int8 *g, anex_work *work, int64_t parts, uint32_t packed) {
    node->packed |= packed;
    node->ends_float = node->ends_bytes = true;
    node->scratch = gemm_int8_scratch(g);
    anex_add_stage(node, work, parts * gemm_int8_tiles(g), g->cost);
}

/* ---- linear --------------------------------------------------------------------------------- */

typedef struct linear { /* the packed weights lie behind */
    gemm_int8 g;
} linear;

static void multiply(const anex_node *node, const anex_slice *slice) {
    const linear *l = node->state;
    const anex_tensor *x = node->in[0], *out = node->out[0];
    gemm_int8_activations a = {.x = x->data, .k_step = 1, .step = l->g.k, .is_signed = x->dtype == ANEX_I8};
    gemm_output c = {.data = out->data, .row = l->g.n, .col = 1, .dtype = out->dtype, .node = node};
    for (int64_t task = slice->begin; task < slice->end; task++)
        gemm_int8_tile(&l->g, (const char *)l + anex_align(sizeof *l), &a, &c, task, slice->scratch);
}

/* y [.., n] = x [.., k] . weight [n, k]^T + bias [n] */
ANEX_KERNEL(anex_linear_int8) {
    enum { X, X_SCALE, X_ZERO_POINT, WEIGHT, SCALE, BIAS };
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT];
    if (!x->rank || weight->rank != 2 || x->shape[x->rank - 1] != weight->shape[1] ||
        weight->shape[1] > GEMM_INT8_MOST_K || !anex_is_float(node->out[0]))
        return anex_node_fail(node, error, ANEX_SHAPE, "the last axis of x must be the last of weight [n, k]");
    anex_status status = check_parameters(node, node->in[X_SCALE], node->in[X_ZERO_POINT], weight, node->in[SCALE],
                                          node->in[BIAS], weight->shape[0], error);
    if (status || !anex_tensor_size(node->out[0])) return status;
    linear l;
    gemm_int8_plan(&l.g, node, 1, anex_span(x, 0, x->rank - 1), weight->shape[0], weight->shape[1], false);
    char *state = anex_node_state(node, anex_align(sizeof l) + gemm_int8_packed_bytes(&l.g), error);
    if (!state) return ANEX_MEMORY;
    memcpy(state, &l, sizeof l);
    gemm_int8_weights w =
        weights_of(x, node->in[X_SCALE], node->in[X_ZERO_POINT], weight, node->in[SCALE], node->in[BIAS]);
    gemm_int8_pack(&l.g, &w, state + anex_align(sizeof l));
    finish(node, &l.g, multiply, 1, 1u << X_SCALE | 1u << X_ZERO_POINT | 1u << WEIGHT | 1u << SCALE | 1u << BIAS);
    return ANEX_OK;
}

/* ---- conv ----------------------------------------------------------------------------------- */

typedef struct conv {
    conv_arguments c;
    conv_image image;
    conv_gather gather;
    gemm_int8 g;
    int64_t taps, outputs; /* c / groups * kernel, spatial outputs of one batch */
    bool pointwise;        /* x itself is the matrix */
    uint8_t around;        /* the zero point, which padding is */
    size_t packed_step;
    int64_t *tap; /* [taps], in the state; behind it the packed weights of each group */
} conv;

static char *packed_of(const conv *c) { return (char *)c->tap + anex_align((size_t)c->taps * sizeof *c->tap); }

/* task: a channel of a batch */
static void spread(const anex_node *node, const anex_slice *slice) {
    const conv *c = node->state;
    int64_t pixels = c->c.in[0] * c->c.in[1] * c->c.in[2];
    for (int64_t i = slice->begin; i < slice->end; i++)
        conv_spread_bytes(&c->image, (const char *)node->in[0]->data + i * pixels,
                          (char *)slice->shared + i * c->image.volume, c->around);
}

static void convolve(const anex_node *node, const anex_slice *slice) {
    const conv *c = node->state;
    const anex_tensor *x = node->in[0], *out = node->out[0];
    int64_t tiles = gemm_int8_tiles(&c->g), groups = c->c.groups;
    int64_t in_group = c->c.in_channels / groups, out_group = c->c.out_channels / groups;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t part = task / tiles, group = part % groups, first = part * out_group * c->outputs;
        conv_source source = {&c->gather, c->tap, (char *)slice->shared + part * in_group * c->image.volume, x->dtype};
        gemm_int8_activations a = {.k_step = c->outputs, .step = 1, .is_signed = x->dtype == ANEX_I8};
        if (c->pointwise)
            a.x = (const uint8_t *)x->data + part * in_group * c->outputs;
        else
            a.gather = &source;
        if (c->outputs == 1 && c->pointwise) a.k_step = 1, a.step = in_group;
        gemm_output to = {.data = (char *)out->data + first * (int64_t)anex_itemsize(out), .dtype = out->dtype};
        to.node = node, to.first = first;
        to.row = c->g.weight_rows ? c->outputs : 1, to.col = c->g.weight_rows ? 1 : c->outputs;
        gemm_int8_tile(&c->g, packed_of(c) + (size_t)group * c->packed_step, &a, &to, task % tiles, slice->scratch);
    }
}

static anex_status plan(anex_node *node, conv *c, const conv_axis axis[AXES], const gemm_int8_weights *given,
                        anex_error *error) {
    int64_t parts = c->c.batch * c->c.groups, out_group = c->c.out_channels / c->c.groups;
    bool weight_rows = c->outputs >= NR / 2 || c->outputs >= out_group; /* few pixels fill no panel */
    gemm_int8_plan(&c->g, node, parts, weight_rows ? out_group : c->outputs, weight_rows ? c->outputs : out_group,
                   c->taps, weight_rows);
    c->packed_step = gemm_int8_packed_bytes(&c->g);
    size_t taps_bytes = anex_align((size_t)c->taps * sizeof *c->tap);
    char *state =
        anex_node_state(node, anex_align(sizeof *c) + taps_bytes + (size_t)c->c.groups * c->packed_step, error);
    if (!state) return ANEX_MEMORY;
    c->tap = (int64_t *)(state + anex_align(sizeof *c));
    c->around = (uint8_t)given->zero;
    if (!c->pointwise) {
        enum { SLACK = 16 }; /* bytes that are taken at a time */
        conv_image_fit(&c->image, axis);
        conv_image_finish(&c->image, axis[2].stride);
        c->gather = conv_gather_make(&c->image, axis, c->c.in_channels / c->c.groups, c->tap);
        int64_t channels = c->c.batch * c->c.in_channels;
        node->shared = (size_t)(channels * c->image.volume) + SLACK;
        anex_add_stage(node, spread, channels, 0.05 * (double)c->image.volume);
    }
    for (int64_t i = 0; i < c->c.groups; i++) {
        gemm_int8_weights w = *given;
        w.weight += i * out_group * c->taps, w.first = i * out_group;
        gemm_int8_pack(&c->g, &w, packed_of(c) + (size_t)i * c->packed_step);
    }
    memcpy(state, c, sizeof *c);
    return ANEX_OK;
}

ANEX_KERNEL(anex_conv_int8) {
    enum { X, X_SCALE, X_ZERO_POINT, WEIGHT, SCALE, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS };
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *zero = node->in[X_ZERO_POINT];
    conv_inputs inputs = {x,
                          weight,
                          node->in[BIAS],
                          node->in[STRIDES],
                          node->in[PAD_TYPE],
                          node->in[PAD],
                          node->in[DILATIONS],
                          node->in[GROUPS]};
    conv c = {.pointwise = true};
    anex_status status = conv_read(node, &inputs, false, &c.c, error);
    if (!status)
        status = check_parameters(node, node->in[X_SCALE], zero, weight, node->in[SCALE], node->in[BIAS],
                                  c.c.out_channels, error);
    if (status || !anex_tensor_size(node->out[0])) return status;
    conv_axis axis[AXES];
    for (int32_t i = 0; i < AXES; i++) {
        axis[i] = (conv_axis){c.c.in[i], c.c.out[i], c.c.kernel[i], -c.c.before[i], c.c.dilation[i], c.c.stride[i]};
        c.pointwise = c.pointwise && c.c.kernel[i] == 1 && c.c.before[i] == 0 &&
                      (c.c.stride[i] == 1 || c.c.out[i] == 1) && c.c.in[i] == c.c.out[i];
    }
    c.taps = c.c.in_channels / c.c.groups * c.c.kernel[0] * c.c.kernel[1] * c.c.kernel[2];
    c.outputs = c.c.out[0] * c.c.out[1] * c.c.out[2];
    if (c.taps > GEMM_INT8_MOST_K || !anex_is_float(node->out[0]))
        return anex_node_fail(node, error, ANEX_SHAPE, "%lld products in a sum do not fit an int32",
                              (long long)c.taps);
    gemm_int8_weights w = weights_of(x, node->in[X_SCALE], zero, weight, node->in[SCALE], node->in[BIAS]);
    status = plan(node, &c, axis, &w, error);
    if (!status)
        finish(node, &c.g, convolve, c.c.batch * c.c.groups,
               1u << X_SCALE | 1u << X_ZERO_POINT | 1u << WEIGHT | 1u << SCALE | 1u << BIAS);
    return status;
}
