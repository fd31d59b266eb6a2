/* conv: weight [o, c * taps] times the im2col matrix [c * taps, outputs] of each batch and group. */
#include "conv.h"

typedef struct conv {
    conv_arguments c;
    conv_image image;
    conv_gather gather;
    gemm g;
    int64_t taps, outputs; /* c / groups * kernel, spatial outputs of one batch */
    int64_t parts;         /* products: batch * groups, or groups when batches are columns of one product */
    bool pointwise;        /* x itself is the matrix */
    bool folded;           /* batches are columns */
    bool panels;
    size_t panels_step;
    int64_t *tap; /* [taps], in the state; behind it the panels of each group */
} conv;

static char *panels_of(const conv *c) { return (char *)c->tap + anex_align((size_t)c->taps * sizeof *c->tap); }

/* task: a channel of a batch */
static void spread(const anex_node *node, const anex_slice *slice) {
    const conv *c = node->state;
    conv_spread_widened(&c->image, node->in[0], slice);
}

static void place_batches(const void *source, int64_t first, int64_t n, int64_t *at) {
    const conv *c = source;
    for (int64_t i = 0; i < n; i++)
        at[i] = (first + i) / c->outputs * c->c.out_channels * c->outputs + (first + i) % c->outputs;
}

static void convolve(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, BIAS };
    const conv *c = node->state;
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *bias = node->in[BIAS];
    anex_tensor *out = node->out[0];
    int64_t item = (int64_t)anex_itemsize(x), tiles = gemm_tiles(&c->g), groups = c->c.groups;
    int64_t in_group = c->c.in_channels / groups, out_group = c->c.out_channels / groups;
    for (int64_t task = slice->begin, n; task < slice->end; task += n) {
        n = anex_min(slice->end - task, tiles - task % tiles);
        int64_t part = task / tiles, group = part % groups;
        conv_source source = {&c->gather, c->tap, (float *)slice->shared + part * in_group * c->image.volume,
                              ANEX_F32};
        gemm_side columns = {.pack = conv_pack, .source = &source};
        gemm_side rows = {.matrix = {weight->data, c->taps, 1, weight->dtype}};
        int64_t first = part * out_group * c->outputs;
        gemm_output to = {.data = (char *)out->data + first * (int64_t)anex_itemsize(out), .dtype = out->dtype};
        to.node = node, to.first = first;
        to.row = c->outputs, to.col = 1;
        rows.matrix.data = (const char *)weight->data + group * out_group * c->taps * (int64_t)anex_itemsize(weight);
        if (c->pointwise) {
            columns = (gemm_side){
                .matrix = {(const char *)x->data + part * in_group * c->outputs * item, c->outputs, 1, x->dtype}};
            if (c->folded) columns.matrix.row = 1, columns.matrix.col = in_group;
        }
        if (c->folded && c->outputs == 1)
            to.row = 1, to.col = out_group;
        else if (c->folded)
            to.place = place_batches, to.source = c;
        if (bias) {
            to.bias = (const char *)bias->data + group * out_group * (int64_t)anex_itemsize(bias);
            to.bias_dtype = bias->dtype, to.bias_by_row = true;
        }
        if (c->g.turned) {
            gemm_side exchanged = columns;
            columns = rows, rows = exchanged;
            rows.matrix = gemm_transposed(rows.matrix), columns.matrix = gemm_transposed(columns.matrix);
            int64_t row = to.row;
            to.row = to.col, to.col = row;
            to.bias_by_row = false, to.place_rows = true;
        }
        if (c->panels) columns.panels = panels_of(c) + (size_t)group * c->panels_step;
        gemm_tiles_run(&c->g, &rows, &columns, &to, task % tiles, n, slice->scratch);
    }
}

static anex_status plan(anex_node *node, conv *c, const conv_axis axis[AXES], anex_error *error) {
    enum { WEIGHT = 1 };
    const anex_tensor *weight = node->in[WEIGHT];
    int64_t out_group = c->c.out_channels / c->c.groups;
    gemm_kind weights = anex_is_constant(weight) ? GEMM_CONSTANT : GEMM_BY_K;
    gemm_kind columns = !c->pointwise ? GEMM_PACKER : c->folded ? GEMM_BY_K : GEMM_ACROSS_K;
    gemm_plan(&c->g, c->parts, out_group, c->folded ? c->outputs * c->c.batch : c->outputs, c->taps, weights, columns);
    c->g.strict = node->strict;
    c->panels = c->g.turned && anex_is_constant(weight);
    c->panels_step = c->panels ? anex_align(gemm_panels_bytes(c->taps, out_group, weight->dtype)) : 0;
    size_t taps_bytes = anex_align((size_t)c->taps * sizeof *c->tap);
    char *state =
        anex_node_state(node, anex_align(sizeof *c) + taps_bytes + (size_t)c->c.groups * c->panels_step, error);
    if (!state) return ANEX_MEMORY;
    c->tap = (int64_t *)(state + anex_align(sizeof *c));
    if (!c->pointwise) {
        conv_image_fit(&c->image, axis);
        conv_image_finish(&c->image, axis[2].stride);
        c->gather = conv_gather_make(&c->image, axis, c->c.in_channels / c->c.groups, c->tap);
        if (c->folded) c->gather.batch = c->c.batch, c->gather.batch_step = c->c.in_channels * c->image.volume;
        int64_t channels = c->c.batch * c->c.in_channels;
        node->shared = ((size_t)(channels * c->image.volume) + FILL_ROOM) * sizeof(float);
        anex_add_stage(node, spread, channels, 0.05 * (double)c->image.volume + 5);
    }
    for (int64_t i = 0; c->panels && i < c->c.groups; i++) {
        gemm_matrix one = {(const char *)weight->data + i * out_group * c->taps * (int64_t)anex_itemsize(weight), 1,
                           c->taps, weight->dtype};
        gemm_make_panels(&one, c->taps, out_group, panels_of(c) + (size_t)i * c->panels_step);
    }
    if (c->panels) node->packed |= 1u << WEIGHT;
    memcpy(state, c, sizeof *c);
    node->ends_float = node->ends_bytes = true;
    node->scratch = gemm_scratch(&c->g);
    anex_add_stage(node, convolve, c->parts * gemm_tiles(&c->g), c->g.cost);
    return ANEX_OK;
}

ANEX_KERNEL(conv) {
    enum { X, WEIGHT, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS };
    conv_inputs inputs = {node->in[X],        node->in[WEIGHT], node->in[BIAS],      node->in[STRIDES],
                          node->in[PAD_TYPE], node->in[PAD],    node->in[DILATIONS], node->in[GROUPS]};
    conv c = {.pointwise = true};
    anex_status status = conv_read(node, &inputs, false, &c.c, error);
    if (status) return status;
    conv_axis axis[AXES];
    for (int32_t i = 0; i < AXES; i++) {
        axis[i] = (conv_axis){c.c.in[i], c.c.out[i], c.c.kernel[i], -c.c.before[i], c.c.dilation[i], c.c.stride[i]};
        c.pointwise = c.pointwise && c.c.kernel[i] == 1 && c.c.before[i] == 0 &&
                      (c.c.stride[i] == 1 || c.c.out[i] == 1) && c.c.in[i] == c.c.out[i];
    }
    int64_t kernel = c.c.kernel[0] * c.c.kernel[1] * c.c.kernel[2];
    bool joins = false;
    if (conv_expand_suits(node, &c.c))
        status = conv_expand(node, &c.c, &joins, error);
    else if (conv_narrow_suits(node, &c.c))
        status = conv_narrow(node, &c.c, &joins, error);
    if (status || joins) return status;
    if (c.c.groups > 1 && c.c.groups == c.c.in_channels) return conv_depthwise(node, &c.c, axis, error);
    int64_t side;
    if (conv_winograd_suits(node, &c.c, &side)) return conv_winograd(node, &c.c, side, error);
    if (conv_panels_suits(node, &c.c, c.pointwise)) return conv_panels(node, &c.c, axis, c.pointwise, error);
    c.taps = c.c.in_channels / c.c.groups * kernel;
    c.outputs = c.c.out[0] * c.c.out[1] * c.c.out[2];
    c.folded = c.c.batch > 1 && c.c.groups == 1 && (c.outputs == 1 || (!c.pointwise && c.outputs < 4 * NR));
    c.parts = c.folded ? 1 : c.c.batch * c.c.groups;
    return plan(node, &c, axis, error);
}
