/* conv_transpose, by phases: outputs with the same remainder by the strides are an ordinary convolution of stride 1
   with those taps of the kernel that reach them. All read one image; each has its own slice of the weights. */
#include "conv.h"

typedef struct phase {
    gemm g;
    conv_gather gather;
    int64_t first[AXES];     /* its first output */
    int64_t first_tap[AXES]; /* of the kernel; further ones are tap_step apart */
    int64_t taps[AXES];
    int64_t *tap;    /* [k] */
    int64_t weights; /* elements before its weights, [groups][out_group][k] */
    int64_t before;  /* tasks of earlier phases */
} phase;

typedef struct conv_transpose {
    conv_arguments c;
    conv_image image;
    int64_t tap_step[AXES];
    int64_t in_group, out_group, outputs;
    int64_t phases;
    phase *phase;
    void *weights;     /* sorted by phase; NULL: sorted while running, in `shared` behind the image */
    size_t weights_at; /* there */
} conv_transpose;

/* task: a channel of a batch */
static void spread(const anex_node *node, const anex_slice *slice) {
    const conv_transpose *c = node->state;
    int64_t item = (int64_t)anex_itemsize(node->in[0]), pixels = c->c.in[0] * c->c.in[1] * c->c.in[2];
    for (int64_t i = slice->begin; i < slice->end; i++)
        conv_spread(&c->image, (const char *)node->in[0]->data + i * pixels * item,
                    (char *)slice->shared + i * c->image.volume * item, (size_t)item, 0,
                    c->image.size[0] * c->image.size[1]);
}

/* weight [in, out_group, kernel..] -> [groups][out_group][in_group, taps..] of one phase */
static void sort_weights(const conv_transpose *c, const phase *p, const anex_tensor *weight, void *weights) {
    const int64_t *kernel = c->c.kernel;
    int64_t size = kernel[0] * kernel[1] * kernel[2], at = p->weights;
    for (int64_t o = 0; o < c->c.out_channels; o++)
        for (int64_t i = 0; i < c->in_group; i++) {
            int64_t from = ((o / c->out_group * c->in_group + i) * c->out_group + o % c->out_group) * size;
            for (int64_t z = 0; z < p->taps[0]; z++)
                for (int64_t y = 0; y < p->taps[1]; y++)
                    for (int64_t x = 0; x < p->taps[2]; x++) {
                        int64_t plane = p->first_tap[0] + z * c->tap_step[0],
                                row = p->first_tap[1] + y * c->tap_step[1];
                        int64_t tap = (plane * kernel[1] + row) * kernel[2] + p->first_tap[2] + x * c->tap_step[2];
                        if (weight->dtype == ANEX_F16)
                            ((half *)weights)[at++] = ((const half *)weight->data)[from + tap];
                        else
                            ((float *)weights)[at++] = ((const float *)weight->data)[from + tap];
                    }
        }
}

/* task: a phase */
static void sort(const anex_node *node, const anex_slice *slice) {
    const conv_transpose *c = node->state;
    for (int64_t i = slice->begin; i < slice->end; i++)
        sort_weights(c, &c->phase[i], node->in[1], (char *)slice->shared + c->weights_at);
}

typedef struct grid { /* where a phase's outputs lie */
    const conv_arguments *c;
    const phase *phase;
} grid;

static void place_phase(const void *source, int64_t first, int64_t n, int64_t *at) {
    const grid *g = source;
    const phase *p = g->phase;
    const int64_t *out = g->c->out, *stride = g->c->stride, *size = p->gather.out;
    int64_t w = first % size[2], h = first / size[2] % size[1], d = first / size[2] / size[1];
    for (int64_t i = 0; i < n; i++) {
        at[i] = ((p->first[0] + d * stride[0]) * out[1] + p->first[1] + h * stride[1]) * out[2] + p->first[2] +
                w * stride[2];
        if (++w == size[2]) {
            w = 0;
            if (++h == size[1]) h = 0, d++;
        }
    }
}

static void multiply_task(const conv_transpose *c, const anex_node *node, const anex_slice *slice, const phase *p,
                          int64_t task) {
    const anex_tensor *x = node->in[0], *weight = node->in[1], *bias = node->in[2];
    int64_t item = (int64_t)anex_itemsize(x), tiles = gemm_tiles(&p->g), part = task / tiles,
            group = part % c->c.groups;
    const char *weights = c->weights ? c->weights : (char *)slice->shared + c->weights_at;
    conv_source source = {&p->gather, p->tap, (char *)slice->shared + part * c->in_group * c->image.volume * item,
                          x->dtype};
    grid grid = {&c->c, p};
    gemm_side rows = {
        .matrix = {weights + (p->weights + group * c->out_group * p->g.k) * (int64_t)anex_itemsize(weight), p->g.k, 1,
                   weight->dtype}};
    gemm_side columns = {.pack = conv_pack, .source = &source};
    gemm_output to = {.data = (char *)node->out[0]->data + part * c->out_group * c->outputs * item, .dtype = x->dtype};
    to.row = c->outputs, to.bias_by_row = true, to.place = place_phase, to.source = &grid;
    if (bias)
        to.bias = (const char *)bias->data + group * c->out_group * (int64_t)anex_itemsize(bias),
        to.bias_dtype = bias->dtype;
    if (p->g.turned) {
        gemm_side turned = {.matrix = gemm_transposed(rows.matrix)};
        rows = columns, columns = turned;
        to.col = to.row, to.bias_by_row = false, to.place_rows = true;
    }
    gemm_tile(&p->g, &rows, &columns, &to, task % tiles, slice->scratch);
}

static void multiply(const anex_node *node, const anex_slice *slice) {
    const conv_transpose *c = node->state;
    const phase *p = c->phase, *end = p + c->phases;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        while (p + 1 < end && p[1].before <= task) p++;
        multiply_task(c, node, slice, p, task - p->before);
    }
}

/* ---- plan ----------------------------------------------------------------------------------- */

static int64_t greatest_divisor(int64_t a, int64_t b) {
    while (b) {
        int64_t rest = a % b;
        a = b, b = rest;
    }
    return a;
}

/* The taps that reach outputs first, first + stride, ..: output + before = input * stride + tap * dilation. */
static conv_axis phase_axis(const conv_arguments *c, int32_t i, int64_t first, int64_t *first_tap, int64_t *tap_step) {
    int64_t stride = c->stride[i], dilation = c->dilation[i], divisor = greatest_divisor(stride, dilation),
            start = first + c->before[i];
    conv_axis axis = {
        .in = c->in[i], .stride = 1, .out = first < c->out[i] ? (c->out[i] - first + stride - 1) / stride : 0};
    *tap_step = stride / divisor;
    for (*first_tap = 0; *first_tap < c->kernel[i] && (start - *first_tap * dilation) % stride; ++*first_tap)
        if (*first_tap >= *tap_step) *first_tap = c->kernel[i] - 1; /* remainders repeat: no tap */
    if (*first_tap >= c->kernel[i]) return axis;
    axis.taps = (c->kernel[i] - 1 - *first_tap) / *tap_step + 1;
    axis.first = (start - *first_tap * dilation) / stride; /* exact, also below zero */
    axis.step = -dilation / divisor;
    return axis;
}

static void phase_axes(const conv_transpose *c, phase *p, int64_t number, conv_axis axis[AXES]) {
    const int64_t *stride = c->c.stride;
    p->first[2] = number % stride[2], p->first[1] = number / stride[2] % stride[1],
    p->first[0] = number / stride[2] / stride[1];
    int64_t step;
    for (int32_t i = 0; i < AXES; i++) {
        axis[i] = phase_axis(&c->c, i, p->first[i], &p->first_tap[i], &step);
        p->taps[i] = axis[i].taps;
    }
}

static int64_t size_of_k(const conv_transpose *c, const conv_axis axis[AXES]) {
    return c->in_group * axis[0].taps * axis[1].taps * axis[2].taps;
}

static anex_status make_state(anex_node *node, const conv_transpose *plan, conv_transpose **made, anex_error *error) {
    phase p;
    conv_axis axis[AXES];
    size_t taps = 0;
    for (int64_t i = 0; i < plan->phases; i++) {
        phase_axes(plan, &p, i, axis);
        taps += (size_t)size_of_k(plan, axis);
    }
    size_t weights = taps * (size_t)plan->c.out_channels * anex_itemsize(node->in[1]), head = anex_align(sizeof *plan);
    size_t phases = anex_align((size_t)plan->phases * sizeof p), table = anex_align(taps * sizeof *p.tap);
    bool constant = anex_is_constant(node->in[1]);
    char *state = anex_node_state(node, head + phases + table + (constant ? weights : 0), error);
    if (!state) return ANEX_MEMORY;
    memcpy(state, plan, sizeof *plan);
    *made = (conv_transpose *)state;
    (*made)->phase = (phase *)(state + head);
    (*made)->phase->tap = (int64_t *)(state + head + phases);
    if (constant) (*made)->weights = state + head + phases + table;
    (*made)->weights_at = anex_align(((size_t)(plan->c.batch * plan->c.in_channels * plan->image.volume) + VF) *
                                     anex_itemsize(node->in[0]));
    node->shared = (*made)->weights_at + (constant ? 0 : weights);
    return ANEX_OK;
}

ANEX_KERNEL(conv_transpose) {
    enum { X, WEIGHT, BIAS, PAD, OUTPUT_SHAPE, PAD_TYPE, STRIDES, DILATIONS, GROUPS };
    conv_inputs inputs = {node->in[X],        node->in[WEIGHT], node->in[BIAS],      node->in[STRIDES],
                          node->in[PAD_TYPE], node->in[PAD],    node->in[DILATIONS], node->in[GROUPS]};
    conv_transpose draft = {.phases = 1};
    anex_status status = conv_read(node, &inputs, true, &draft.c, error);
    if (status) return status;
    draft.in_group = draft.c.in_channels / draft.c.groups, draft.out_group = draft.c.out_channels / draft.c.groups;
    draft.outputs = draft.c.out[0] * draft.c.out[1] * draft.c.out[2];
    conv_axis axis[AXES];
    phase p;
    for (int32_t i = 0; i < AXES; i++) {
        draft.phases *= draft.c.stride[i];
        phase_axis(&draft.c, i, 0, &p.first_tap[i], &draft.tap_step[i]);
    }
    for (int64_t i = 0; i < draft.phases; i++) {
        phase_axes(&draft, &p, i, axis);
        conv_image_fit(&draft.image, axis);
    }
    conv_image_finish(&draft.image, 1);
    conv_transpose *c;
    if ((status = make_state(node, &draft, &c, error))) return status;
    int64_t *tap = c->phase->tap, weights = 0, tasks = 0, parts = c->c.batch * c->c.groups;
    double cost = 0;
    for (int64_t i = 0; i < c->phases; i++) {
        phase *p = &c->phase[i];
        phase_axes(c, p, i, axis);
        int64_t k = size_of_k(c, axis), outputs = axis[0].out * axis[1].out * axis[2].out;
        p->tap = tap, p->weights = weights, p->before = tasks;
        tap += k, weights += k * c->c.out_channels;
        p->gather = conv_gather_make(&c->image, axis, c->in_group, p->tap);
        gemm_plan(&p->g, parts, c->out_group, anex_max(outputs, 1), k, GEMM_BY_K, GEMM_PACKER);
        p->g.strict = node->strict;
        if (!outputs) continue;
        tasks += parts * gemm_tiles(&p->g);
        cost += (double)(parts * gemm_tiles(&p->g)) * p->g.cost;
        size_t scratch = gemm_scratch(&p->g);
        node->scratch = node->scratch > scratch ? node->scratch : scratch;
        if (c->weights) sort_weights(c, p, node->in[WEIGHT], c->weights);
    }
    if (c->weights)
        node->packed |= 1u << WEIGHT;
    else
        anex_add_stage(node, sort, c->phases, (double)(weights / c->phases));
    anex_add_stage(node, spread, c->c.batch * c->c.in_channels, 0.1 * (double)c->image.volume);
    anex_add_stage(node, multiply, tasks, tasks ? cost / (double)tasks : 0);
    return ANEX_OK;
}
