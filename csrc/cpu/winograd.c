/* conv with 3x3 taps and stride 1 by fewer multiplications (Winograd; Lavin and Gray, 2015): outputs in squares of
   SIDE x SIDE, each from the POINTS = (SIDE + 2)^2 inputs under it. Inputs and weights are transformed, multiplied for
   each point as a matrix product over channels, and the sums transformed back: 36 multiplications for 16 outputs
   instead of 144, or 16 for 4 instead of 36.

   All of it is in float; squares of 4 lose about a digit of it, so they are for float16 only, and no strict plan
   takes either. Numbers that are not finite would spread in their square: outputs that are not are summed directly. */
#include "conv.h"

#include <math.h>

enum { TAPS = 3, MOST_SIDE = 4, MOST_REACH = MOST_SIDE + TAPS - 1, CHANNELS = 4 /* of a task that transforms inputs */ };

typedef struct winograd {
    conv_arguments c;
    conv_image image;
    conv_gather gather; /* of squares, over their inputs */
    int64_t side, reach, points;
    int64_t squares, across;       /* of all batches; in one panel */
    int64_t panels, blocks;        /* of squares, of MR output channels */
    size_t inputs;                 /* bytes of the image in `shared`, before the transformed inputs */
    size_t packed, sums, lines;    /* bytes in scratch */
    int64_t *tap;                  /* [channels][points] */
    float *weights;                /* [blocks][points][channels][MR] */
} winograd;

/* ---- transforms ----------------------------------------------------------------------------- */

static inline __attribute__((always_inline)) void transform_input(const int side, const vf *x, vf *y) {
    if (side == 2) {
        y[0] = x[0] - x[2], y[1] = x[1] + x[2], y[2] = x[2] - x[1], y[3] = x[1] - x[3];
        return;
    }
    const vf four = vf_set(4), five = vf_set(5), two = vf_set(2);
    vf even = vf_fma(-four, x[2], x[4]), odd = vf_fma(-four, x[1], x[3]);
    vf near = x[4] - x[2], far = x[3] - x[1];
    y[0] = vf_fma(four, x[0], vf_fma(-five, x[2], x[4]));
    y[1] = even + odd, y[2] = even - odd;
    y[3] = vf_fma(two, far, near), y[4] = vf_fma(-two, far, near);
    y[5] = vf_fma(four, x[1], vf_fma(-five, x[3], x[5]));
}

static inline __attribute__((always_inline)) void transform_output(const int side, const vf *x, vf *y) {
    vf sum = x[1] + x[2], difference = x[1] - x[2];
    if (side == 2) {
        y[0] = x[0] + sum, y[1] = difference - x[3];
        return;
    }
    vf sum2 = x[3] + x[4], difference2 = x[3] - x[4];
    y[0] = x[0] + sum + sum2;
    y[1] = vf_fma(vf_set(2), difference2, difference);
    y[2] = vf_fma(vf_set(4), sum2, sum);
    y[3] = vf_fma(vf_set(8), difference2, difference) + x[5];
}

static const double WEIGHTS_2[][TAPS] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};
static const double WEIGHTS_4[][TAPS] = {{1. / 4, 0, 0},           {-1. / 6, -1. / 6, -1. / 6}, {-1. / 6, 1. / 6, -1. / 6},
                                         {1. / 24, 1. / 12, 1. / 6}, {1. / 24, -1. / 12, 1. / 6}, {0, 0, 1}};

static void transform_weights(const winograd *w, const anex_tensor *weight) {
    const double(*g)[TAPS] = w->side == 2 ? WEIGHTS_2 : WEIGHTS_4;
    const int64_t channels = w->c.in_channels, area = TAPS * TAPS;
    float x[TAPS * TAPS];
    for (int64_t o = 0; o < w->c.out_channels; o++)
        for (int64_t c = 0; c < channels; c++) {
            gemm_widen(x, weight->data, weight->dtype, (o * channels + c) * area, area);
            double half_way[MOST_REACH][TAPS];
            for (int64_t i = 0; i < w->reach; i++)
                for (int k = 0; k < TAPS; k++) half_way[i][k] = g[i][0] * x[k] + g[i][1] * x[3 + k] + g[i][2] * x[6 + k];
            for (int64_t i = 0; i < w->points; i++) {
                const double *row = half_way[i / w->reach], *by = g[i % w->reach];
                w->weights[((o / MR * w->points + i) * channels + c) * MR + o % MR] =
                    (float)(row[0] * by[0] + row[1] * by[1] + row[2] * by[2]);
            }
        }
}

/* ---- inputs --------------------------------------------------------------------------------- */

/* task: a channel of a batch */
static void spread(const anex_node *node, const anex_slice *slice) {
    const winograd *w = node->state;
    conv_spread_widened(&w->image, node->in[0], slice);
}

/* x [reach][reach][NR], squares side by side, to [reach][reach] places `step` apart */
static inline __attribute__((always_inline)) void transform_square(const int side, const float *x, float *to,
                                                                   int64_t step) {
    const int reach = side + TAPS - 1;
    vf half_way[MOST_REACH][MOST_REACH], line[MOST_REACH], out[MOST_REACH];
#pragma GCC unroll 6
    for (int j = 0; j < reach; j++) {
#pragma GCC unroll 6
        for (int i = 0; i < reach; i++) line[i] = vf_load(x + (i * reach + j) * NR);
        transform_input(side, line, out);
#pragma GCC unroll 6
        for (int i = 0; i < reach; i++) half_way[i][j] = out[i];
    }
#pragma GCC unroll 6
    for (int i = 0; i < reach; i++) {
        transform_input(side, half_way[i], out);
#pragma GCC unroll 6
        for (int j = 0; j < reach; j++) vf_store(to + (i * reach + j) * step, out[j]);
    }
}

static int64_t squares_in(const winograd *w, int64_t panel) {
    return anex_min(w->across, w->squares - panel * w->across);
}
static float *inputs_of(const winograd *w, void *shared, int64_t panel) { /* [points][channels][NR] */
    return (float *)((char *)shared + w->inputs) + panel * w->points * w->c.in_channels * NR;
}

/* task: CHANNELS channels of a panel of squares */
static void transform(const anex_node *node, const anex_slice *slice) {
    const winograd *w = node->state;
    const int64_t channels = w->c.in_channels, pieces = (channels + CHANNELS - 1) / CHANNELS;
    const conv_source source = {&w->gather, w->tap, slice->shared, ANEX_F32};
    float *x = slice->scratch;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t panel = task / pieces, first = task % pieces * CHANNELS, n = squares_in(w, panel);
        float *to = inputs_of(w, slice->shared, panel);
        for (int64_t c = first; c < anex_min(first + CHANNELS, channels); c++) {
            conv_pack(&source, x, NR, c * w->points, w->points, panel * w->across, n);
            for (int64_t v = 0; v < n; v += VF) {
                if (w->side == 2)
                    transform_square(2, x + v, to + c * NR + v, channels * NR);
                else
                    transform_square(4, x + v, to + c * NR + v, channels * NR);
            }
        }
    }
}

/* ---- outputs -------------------------------------------------------------------------------- */

/* VF squares of outputs, each in lanes of its own, as rows of outputs: to[side][NR * side]. What is not finite makes
   a lane of the result something else than 0. */
static inline __attribute__((always_inline)) vf transform_back(const int side, const float *sums, vf bias, float *to) {
    const int reach = side + TAPS - 1, row = NR * side;
    vf half_way[MOST_SIDE][MOST_REACH], line[MOST_REACH], y[MOST_SIDE], odd = vf_zero();
#pragma GCC unroll 6
    for (int j = 0; j < reach; j++) {
#pragma GCC unroll 6
        for (int i = 0; i < reach; i++) line[i] = vf_load(sums + (i * reach + j) * MR * NR);
        transform_output(side, line, y);
#pragma GCC unroll 4
        for (int i = 0; i < side; i++) half_way[i][j] = y[i];
    }
#pragma GCC unroll 4
    for (int i = 0; i < side; i++) {
        transform_output(side, half_way[i], y);
#pragma GCC unroll 4
        for (int j = 0; j < side; j++) y[j] = y[j] + bias, odd = vf_fma(y[j], vf_zero(), odd);
        if (side == 2) {
            vf_store(to + i * row, vf_zip_low(y[0], y[1])), vf_store(to + i * row + VF, vf_zip_high(y[0], y[1]));
            continue;
        }
        vf a = vf_zip_low(y[0], y[2]), b = vf_zip_low(y[1], y[3]);
        vf_store(to + i * row, vf_zip_low(a, b)), vf_store(to + i * row + VF, vf_zip_high(a, b));
        a = vf_zip_high(y[0], y[2]), b = vf_zip_high(y[1], y[3]);
        vf_store(to + i * row + 2 * VF, vf_zip_low(a, b)), vf_store(to + i * row + 3 * VF, vf_zip_high(a, b));
    }
    return odd;
}

/* One output, of row h and column i of a batch and channel, as its definition says */
static float sum_directly(const anex_node *node, const winograd *w, const float *image, int64_t batch, int64_t o,
                          int64_t h, int64_t i) {
    const anex_tensor *weight = node->in[1];
    float sum = 0;
    for (int64_t c = 0; c < w->c.in_channels; c++)
        for (int64_t t = 0; t < TAPS * TAPS; t++) {
            int64_t column = i + t % TAPS, place = (batch * w->c.in_channels + c) * w->image.volume +
                                                   (h + t / TAPS) * w->image.row +
                                                   column % w->image.split * w->image.sub + column / w->image.split;
            sum += image[place] *
                   gemm_one(weight->data, weight->dtype, (o * w->c.in_channels + c) * TAPS * TAPS + t);
        }
    return sum;
}

/* Rows of outputs that follow each other in memory are stored together. */
typedef struct pending {
    float *lines;
    int64_t at, n;
} pending;

static void flush(const anex_node *node, pending *p) {
    if (p->n) anex_epilogue_store(node, p->lines, p->at, p->n);
    p->n = 0;
}

/* The rows of outputs of one channel, `rows` [side][NR * side] of a panel, to memory */
static void store_rows(const anex_node *node, const winograd *w, const float *image, int64_t panel, int64_t o, float bias,
                       bool odd, float *rows, float *lines) {
    const int64_t width = w->c.out[2], height = w->c.out[1], side = w->side;
    const int64_t high = w->gather.out[1], wide = w->gather.out[2], n = squares_in(w, panel);
    pending p = {.lines = lines};
    for (int64_t s = 0; s < n;) {
        int64_t square = panel * w->across + s, column = square % wide * side;
        int64_t batch = square / wide / high, row = square / wide % high * side;
        int64_t run = anex_min(wide - square % wide, n - s), count = anex_min(run * side, width - column);
        for (int64_t i = 0; i < side && row + i < height; i++) {
            float *from = rows + i * NR * side + s * side;
            int64_t at = (batch * w->c.out_channels + o) * w->c.out[1] * width + (row + i) * width + column;
            for (int64_t k = 0; odd && k < count; k++)
                if (!isfinite(from[k])) from[k] = sum_directly(node, w, image, batch, o, row + i, column + k) + bias;
            if (at != p.at + p.n) flush(node, &p);
            if (!p.n) p.at = at;
            for (int64_t k = 0; k < count; k += VF) vf_store(lines + p.n + k, vf_load(from + k));
            p.n += count;
        }
        s += run;
    }
    flush(node, &p);
}

/* task: MR output channels of a panel of squares */
static void convolve(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, BIAS };
    const winograd *w = node->state;
    const anex_tensor *bias = node->in[BIAS];
    const int64_t channels = w->c.in_channels;
    float *sums = slice->scratch, *rows = sums + w->sums / sizeof *sums, *lines = rows + w->lines / sizeof *rows;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t panel = task / w->blocks, block = task % w->blocks, n = squares_in(w, panel);
        const float *x = inputs_of(w, slice->shared, panel);
        for (int64_t i = 0; i < w->points; i++)
            for (int64_t k = 0; k < channels; k += KC)
                gemm_multiply(anex_min(KC, channels - k), w->weights + ((block * w->points + i) * channels + k) * MR,
                              x + (i * channels + k) * NR, n, k > 0, sums + i * MR * NR);
        for (int64_t o = block * MR; o < anex_min(block * MR + MR, w->c.out_channels); o++) {
            float add = bias ? gemm_one(bias->data, bias->dtype, o) : 0;
            bool odd = false;
            for (int64_t v = 0; v < n; v += VF) {
                const float *from = sums + o % MR * NR + v;
                float *to = rows + v * w->side, lane[VF];
                vf_store(lane, w->side == 2 ? transform_back(2, from, vf_set(add), to)
                                            : transform_back(4, from, vf_set(add), to));
                for (int64_t l = 0; l < VF; l++) odd |= lane[l] != 0;
            }
            store_rows(node, w, slice->shared, panel, o, add, odd, rows, lines);
        }
    }
}

/* ---- plan ----------------------------------------------------------------------------------- */

/* Squares of so many in one panel: whole rows of them where they fit, for outputs that follow each other */
static int64_t squares_across(int64_t wide) { return wide <= NR ? NR / wide * wide : NR; }
/* Lanes that are computed: a panel of few squares takes one vector. */
static int64_t lanes_of(int64_t squares, int64_t across) {
    int64_t rest = squares % across;
    return squares / across * (across <= VF ? VF : NR) + (rest ? rest <= VF ? VF : NR : 0);
}

typedef struct estimate { /* nanoseconds */
    double transform, convolve;
} estimate;

static estimate costs(const conv_arguments *c, int64_t side) {
    int64_t wide = (c->out[2] + side - 1) / side, high = (c->out[1] + side - 1) / side, points = (side + 2) * (side + 2);
    int64_t squares = c->batch * high * wide, across = squares_across(wide);
    double lanes = (double)lanes_of(squares, across), channels = (double)c->in_channels, out = (double)c->out_channels;
    double bytes = (double)points * channels * out * sizeof(float);
    double vectors = lanes / VF, panels = (double)((squares + across - 1) / across);
    return (estimate){.transform = channels * vectors * (double)points * 1.5,
                      .convolve = (double)points * channels * out * vectors * 0.125 +
                                  (bytes > (1 << 20) ? bytes * panels * 0.02 : 0) + out * vectors * (double)points * 1.2};
}

bool conv_winograd_suits(const anex_node *node, const conv_arguments *c, int64_t *side) {
    const anex_tensor *x = node->in[0], *weight = node->in[1];
    if (node->strict || !anex_is_constant(weight) || c->groups != 1 || c->in[0] != 1 || c->out[0] != 1) return false;
    if (c->kernel[0] != 1 || c->kernel[1] != TAPS || c->kernel[2] != TAPS || c->before[0]) return false;
    for (int32_t i = 0; i < AXES; i++)
        if (c->stride[i] != 1 || c->dilation[i] != 1) return false;
    if (c->in_channels < 16 || c->out_channels < 16 || c->batch * c->out[1] * c->out[2] < 64) return false;
    const double outputs = (double)(c->batch * c->out[1] * c->out[2]);
    double best = 0.8 * outputs * (double)(c->in_channels * c->out_channels) * TAPS * TAPS * 0.135 / VF;
    *side = 0;
    for (int64_t s = 2; s <= (x->dtype == ANEX_F16 ? 4 : 2); s += 2) {
        estimate e = costs(c, s);
        if (e.transform + e.convolve < best) best = e.transform + e.convolve, *side = s;
    }
    return *side > 0;
}

anex_status conv_winograd(anex_node *node, const conv_arguments *c, int64_t side, anex_error *error) {
    enum { X, WEIGHT };
    winograd w = {.c = *c, .side = side, .reach = side + TAPS - 1, .points = (side + TAPS - 1) * (side + TAPS - 1)};
    conv_axis axis[AXES] = {{1, 1, 1, 0, 1, 1}};
    for (int32_t i = 1; i < AXES; i++)
        axis[i] = (conv_axis){c->in[i], (c->out[i] + side - 1) / side, w.reach, -c->before[i], 1, side};
    w.squares = c->batch * axis[1].out * axis[2].out;
    w.across = squares_across(axis[2].out);
    w.panels = (w.squares + w.across - 1) / w.across, w.blocks = (c->out_channels + MR - 1) / MR;
    size_t taps = anex_align((size_t)(c->in_channels * w.points) * sizeof *w.tap);
    size_t weights = (size_t)(w.points * w.blocks * c->in_channels * MR) * sizeof(float);
    char *state = anex_node_state(node, anex_align(sizeof w) + taps + weights, error);
    if (!state) return ANEX_MEMORY;
    w.tap = (int64_t *)(state + anex_align(sizeof w)), w.weights = (float *)((char *)w.tap + taps);
    transform_weights(&w, node->in[WEIGHT]);
    conv_image_fit(&w.image, axis);
    conv_image_finish(&w.image, side);
    w.gather = conv_gather_make(&w.image, axis, c->in_channels, w.tap);
    w.gather.batch = c->batch, w.gather.batch_step = c->in_channels * w.image.volume;
    w.inputs = anex_align(((size_t)(c->batch * c->in_channels * w.image.volume) + FILL_ROOM) * sizeof(float));
    w.packed = ((size_t)w.points * NR + VF) * sizeof(float);
    w.sums = (size_t)(w.points * MR * NR) * sizeof(float);
    w.lines = anex_align((size_t)(side * side * NR + VF) * sizeof(float));
    memcpy(state, &w, sizeof w);
    node->shared = w.inputs + (size_t)(w.panels * w.points * c->in_channels * NR) * sizeof(float);
    node->scratch = w.packed > w.sums + 2 * w.lines ? w.packed : w.sums + 2 * w.lines;
    node->ends_float = true;
    estimate cost = costs(c, side);
    int64_t transforms = w.panels * ((c->in_channels + CHANNELS - 1) / CHANNELS), products = w.panels * w.blocks;
    anex_add_stage(node, spread, c->batch * c->in_channels, 0.05 * (double)w.image.volume + 5);
    anex_add_stage(node, transform, transforms, cost.transform / (double)transforms);
    anex_add_stage(node, convolve, products, cost.convolve / (double)products);
    return ANEX_OK;
}
