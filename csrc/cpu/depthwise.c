/* conv with one input channel per group: each output row is a sum over taps of shifted input rows. */
#include "conv.h"

enum {
    WIDE = 4,              /* vectors of outputs summed at a time, at least */
    MOST_ROWS = 8,         /* of outputs, that share the rows of the image they read */
    MOST_PIXELS = 1 << 14, /* of a channel's image in scratch, if it can be cut into bands of rows */
};

typedef struct depthwise depthwise;

/* Sums of `rows` rows of outputs, `width` from row to row; see sum_block. */
typedef void block_sum(const depthwise *d, const float *image, const float *weight, float bias, float *out);

/* All output rows h0 .. h1-1 of a plane, of which the first is element `at` of out[0]; see direct_rows. */
typedef void direct_sum(const anex_node *node, const depthwise *d, const void *x, const float *weight, float bias,
                        int64_t h0, int64_t h1, int64_t at, float *lines);

struct depthwise {
    conv_arguments c;
    conv_image image;
    conv_gather gather;
    int64_t taps, outputs, multiplier;
    int64_t bands, band;               /* of output rows (axis 1) */
    int64_t reach;                     /* image rows under the taps of one output row */
    size_t wide, weights, lines;       /* bytes in scratch, in this order */
    int64_t *tap;
    direct_sum *direct; /* NULL: there is an image */
    block_sum *sum;     /* NULL: by sum_rows */
    int64_t block_rows; /* that `sum` makes at once */
    bool strict;
};

/* ---- sums ----------------------------------------------------------------------------------- */

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

/* side x side taps: each vector of the image is read once for all of the rows that it belongs to. An output adds
   its taps in their order, as sum_vectors does. */
static inline __attribute__((always_inline)) void sum_block(const int rows, const int across, const int side,
                                                            const int stride, const depthwise *d, const float *image,
                                                            const float *weight, float bias, float *out) {
    const int64_t width = d->c.out[2], pitch = d->image.row;
    for (int64_t end = 0; end < width;) { /* the last vectors of a row may be others again: rows follow each other */
        const int64_t i = anex_max(0, anex_min(end, width - across * VF));
        vf sum[MOST_ROWS][2];
#pragma GCC unroll 8
        for (int o = 0; o < rows; o++)
#pragma GCC unroll 2
            for (int v = 0; v < across; v++) sum[o][v] = vf_set(bias);
#pragma GCC unroll 24
        for (int r = 0; r < (rows - 1) * stride + side; r++) {
            const float *line = image + r * pitch + i;
#pragma GCC unroll 7
            for (int w = 0; w < side; w++)
#pragma GCC unroll 2
                for (int v = 0; v < across; v++) {
                    vf x = vf_load(line + d->tap[w] + v * VF);
#pragma GCC unroll 8
                    for (int o = 0; o < rows; o++) {
                        const int h = r - o * stride;
                        if (h >= 0 && h < side) sum[o][v] = vf_fma(vf_set(weight[h * side + w]), x, sum[o][v]);
                    }
                }
        }
#pragma GCC unroll 8
        for (int o = 0; o < rows; o++)
#pragma GCC unroll 2
            for (int v = 0; v < across; v++) vf_store(out + o * width + i + v * VF, sum[o][v]);
        end = i + across * VF;
    }
}

#define BLOCK_SUM(side, stride)                                                                              \
    static void high_##side##_##stride(const depthwise *d, const float *image, const float *weight, float bias,  \
                                       float *out) {                                                         \
        sum_block(8, 1, side, stride, d, image, weight, bias, out);                                          \
    }                                                                                                        \
    static void wide_##side##_##stride(const depthwise *d, const float *image, const float *weight, float bias,  \
                                       float *out) {                                                         \
        sum_block(4, 2, side, stride, d, image, weight, bias, out);                                          \
    }                                                                                                        \
    static void low_##side##_##stride(const depthwise *d, const float *image, const float *weight, float bias,   \
                                      float *out) {                                                          \
        sum_block(4, 1, side, stride, d, image, weight, bias, out);                                          \
    }
BLOCK_SUM(3, 1)
BLOCK_SUM(3, 2)
BLOCK_SUM(5, 1)
BLOCK_SUM(5, 2)
BLOCK_SUM(7, 1)

static void choose_sum(depthwise *d) {
    static const struct {
        int64_t side, stride;
        block_sum *high, *wide, *low;
    } sums[] = {
        {3, 1, high_3_1, wide_3_1, low_3_1}, {3, 2, high_3_2, wide_3_2, low_3_2}, {5, 1, high_5_1, wide_5_1, low_5_1},
        {5, 2, high_5_2, wide_5_2, low_5_2}, {7, 1, high_7_1, wide_7_1, low_7_1},
    };
    const conv_arguments *c = &d->c;
    if ((d->strict && !FUSED) || c->kernel[0] != 1 || c->out[0] != 1 || c->dilation[1] != 1 || c->out[1] < 4) return;
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++) {
        if (c->kernel[1] != sums[i].side || c->kernel[2] != sums[i].side || c->stride[1] != sums[i].stride) continue;
        bool wide = c->out[2] > VF, high = !wide && d->band >= MOST_ROWS;
        d->sum = wide ? sums[i].wide : high ? sums[i].high : sums[i].low;
        d->block_rows = high ? MOST_ROWS : 4;
    }
}

/* Rows of one plane of outputs to memory, of which the first is element `at`; some at a time, that stay in the cache. */
static void make_rows(const anex_node *node, const depthwise *d, const float *image, const float *weight, float bias,
                      int64_t rows, int64_t at, float *lines) {
    const int64_t width = d->c.out[2], together = d->sum ? d->block_rows : WIDE;
    for (int64_t h = 0; h < rows; h += together) {
        int64_t n = anex_min(together, rows - h), first = h;
        if (d->sum && n < together) first = anex_max(0, rows - together); /* some rows again, and only new ones kept */
        const float *from = image + first * d->gather.step[1];
        if (d->sum && rows >= together)
            d->sum(d, from, weight, bias, lines);
        else
            sum_rows(d, from, weight, bias, n, lines);
        anex_epilogue_store(node, lines + (h - first) * width, at + h * width, n * width);
    }
}

/* ---- sums without an image ------------------------------------------------------------------ */

enum { DIRECT_ROWS = 7 }; /* of outputs at a time: the networks' planes have multiples of it */

#if defined(__AVX512F__)
/* Which of the inputs from some column on are in a row, for each tap of stride 1 or each two of stride 2. */
typedef struct taps_mask {
    __mmask32 of[7];
} taps_mask;

static inline __attribute__((always_inline)) taps_mask find_mask(const int side, const int stride, int64_t base,
                                                                 int64_t width) {
    const uint64_t within = width - base < 64 ? ((uint64_t)1 << (width - base)) - 1 : UINT64_MAX;
    const uint64_t all = base < 0 ? within >> -base << -base : within;
    taps_mask mask;
#pragma GCC unroll 7
    for (int w = 0; w < side; w += stride) {
        mask.of[w] = (__mmask32)(all >> w);
        if (side == 3) __asm__("" : "+Yk"(mask.of[w])); /* in a register from here on */
    }
    return mask;
}

/* Inputs under tap w of VF outputs, x[w], where the first output's are those at `row`; others than the mask's are 0. */
static inline __attribute__((always_inline)) void load_taps(const int side, const int stride, const bool halves,
                                                            const void *row, const taps_mask *mask, vf *x) {
    const half *h = row;
    const float *f = row;
    if (stride == 1) {
#pragma GCC unroll 7
        for (int w = 0; w < side; w++)
            x[w] = halves ? _mm512_cvtph_ps(_mm256_maskz_loadu_epi16((__mmask16)mask->of[w], h + w))
                          : _mm512_maskz_loadu_ps((__mmask16)mask->of[w], f + w);
        return;
    }
    const __m512i even = _mm512_castsi256_si512(
        _mm256_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30));
#pragma GCC unroll 4
    for (int w = 0; w < side; w += 2) { /* two taps share the inputs */
        if (halves) {
            __m512i all = _mm512_maskz_loadu_epi16(mask->of[w], h + w);
            x[w] = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(even, all)));
            if (w + 1 == side) break;
            all = _mm512_srli_epi32(all, 16); /* the odd ones */
            x[w + 1] = _mm512_cvtph_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi16(even, all)));
        } else {
            vf a = _mm512_maskz_loadu_ps((__mmask16)mask->of[w], f + w);
            vf b = _mm512_maskz_loadu_ps((__mmask16)(mask->of[w] >> VF), f + w + VF);
            x[w] = vf_even(a, b);
            if (w + 1 < side) x[w + 1] = vf_odd(a, b);
        }
    }
}

/* DIRECT_ROWS x VF outputs from row h, column j on. An output adds its taps in their order, as sum_vectors does. */
static inline __attribute__((always_inline)) void direct_block(const int side, const int stride, const bool halves,
                                                               const depthwise *d, const char *x, const vf *weight,
                                                               vf bias, int64_t h, int64_t j, vf *sum) {
    const int64_t item = halves ? 2 : 4, width = d->c.in[2], height = d->c.in[1];
    const int64_t base = j * stride - d->c.before[2], top = h * stride - d->c.before[1];
    const taps_mask mask = find_mask(side, stride, base, width);
#pragma GCC unroll 8
    for (int o = 0; o < DIRECT_ROWS; o++) sum[o] = bias;
#pragma GCC unroll 24
    for (int r = 0; r < (DIRECT_ROWS - 1) * stride + side; r++) {
        vf tap[8];
        if (top + r >= 0 && top + r < height)
            load_taps(side, stride, halves, x + ((top + r) * width + base) * item, &mask, tap);
        else
#pragma GCC unroll 7
            for (int w = 0; w < side; w++) tap[w] = vf_zero();
#pragma GCC unroll 8
        for (int o = 0; o < DIRECT_ROWS; o++) {
            const int t = r - o * stride;
            if (t < 0 || t >= side) continue;
#pragma GCC unroll 7
            for (int w = 0; w < side; w++) sum[o] = vf_fma(weight[t * side + w], tap[w], sum[o]);
        }
    }
}

/* float16 rows `width` apart, within low .. high. Vectors of shorter rows than VF are stored whole, where there is `room`
   for them: the row that they reach into comes after them, but what is behind the last may be another thread's. */
static inline __attribute__((always_inline)) void store_bounded(vf low, vf high, const vf *sum, int64_t width,
                                                                int64_t room, half *to) {
#pragma GCC unroll 8
    for (int o = 0; o < DIRECT_ROWS; o++, to += width, room -= width) {
        vf x = vf_min(high, vf_max(low, sum[o]));
        if (room >= VF)
            vf_store_half(to, x);
        else
            vf_store_some(to, true, x, width);
    }
}

static inline __attribute__((always_inline)) void direct_rows(const int side, const int stride, const bool halves,
                                                              const anex_node *node, const depthwise *d,
                                                              const void *x, const float *weight, float bias,
                                                              int64_t h0, int64_t h1, int64_t at, float *lines) {
    const int64_t width = d->c.out[2], end = at + (h1 - h0) * width;
    half *out = node->out[0]->data;
    anex_plain plain;
    const bool bounded = anex_epilogue_plain(node, &plain) && !plain.residual && node->out[0]->dtype == ANEX_F16 &&
                         h1 - h0 >= DIRECT_ROWS;
    const vf low = vf_set(plain.low), high = vf_set(plain.high), add = vf_set(bias);
    vf weights[25];
#pragma GCC unroll 25
    for (int t = 0; t < side * side; t++) {
        weights[t] = vf_set(weight[t]);
        if (side == 3) __asm__("" : "+v"(weights[t])); /* in a register from here on, not set again for each use */
    }
    for (int64_t next = h0; next < h1;) { /* the last rows may be others again */
        const int64_t h = anex_max(h0, anex_min(next, h1 - DIRECT_ROWS)), n = anex_min(DIRECT_ROWS, h1 - h);
        for (int64_t column = 0; column < width; column += VF) { /* and so may be the last columns */
            const int64_t j = anex_max(0, anex_min(column, width - VF)), first = at + (h - h0) * width + j;
            vf sum[DIRECT_ROWS];
            direct_block(side, stride, halves, d, x, weights, add, h, j, sum);
            if (bounded) {
                store_bounded(low, high, sum, width, end - first, out + first);
                continue;
            }
#pragma GCC unroll 8
            for (int o = 0; o < DIRECT_ROWS; o++) vf_store(lines + o * width + j, sum[o]);
        }
        if (!bounded)
            anex_epilogue_store(node, lines + (next - h) * width, at + (next - h0) * width, (h + n - next) * width);
        next = h + n;
    }
}

#define DIRECT(side, stride, halves)                                                                               \
    static void direct_##side##stride##halves(const anex_node *node, const depthwise *d, const void *x,            \
                                              const float *weight, float bias, int64_t h0, int64_t h1, int64_t at, \
                                              float *lines) {                                                      \
        direct_rows(side, stride, halves, node, d, x, weight, bias, h0, h1, at, lines);                            \
    }
DIRECT(3, 1, 0)
DIRECT(3, 1, 1)
DIRECT(3, 2, 0)
DIRECT(3, 2, 1)
DIRECT(5, 1, 0)
DIRECT(5, 1, 1)
DIRECT(5, 2, 0)
DIRECT(5, 2, 1)
#endif

static void choose_direct(depthwise *d, bool halves) {
#if defined(__AVX512F__)
    static const struct {
        int64_t side, stride;
        direct_sum *of[2];
    } sums[] = {{3, 1, {direct_310, direct_311}},
                {3, 2, {direct_320, direct_321}},
                {5, 1, {direct_510, direct_511}},
                {5, 2, {direct_520, direct_521}}};
    const conv_arguments *c = &d->c;
    if (c->kernel[0] != 1 || c->in[0] != 1 || c->out[0] != 1 || c->dilation[1] != 1 || c->dilation[2] != 1) return;
    for (size_t i = 0; i < sizeof sums / sizeof *sums; i++)
        if (c->kernel[1] == sums[i].side && c->kernel[2] == sums[i].side && c->stride[1] == sums[i].stride &&
            c->stride[2] == sums[i].stride && c->before[2] < sums[i].side)
            d->direct = sums[i].of[halves];
#else
    (void)d, (void)halves;
#endif
}

/* task: a band of output rows of one channel of one batch */
static void convolve_directly(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, BIAS };
    const depthwise *d = node->state;
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *bias = node->in[BIAS];
    const int64_t plane_bytes = d->c.in[1] * d->c.in[2] * (int64_t)anex_itemsize(x);
    float *weights = slice->scratch, *lines = (float *)(void *)((char *)weights + d->weights);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t plane = task / d->bands, channel = plane % d->c.in_channels;
        int64_t h0 = task % d->bands * d->band, h1 = anex_min(h0 + d->band, d->c.out[1]);
        for (int64_t m = 0; m < d->multiplier; m++) {
            int64_t filter = channel * d->multiplier + m;
            gemm_widen(weights, weight->data, weight->dtype, filter * d->taps, d->taps);
            d->direct(node, d, (const char *)x->data + plane * plane_bytes, weights,
                      bias ? gemm_one(bias->data, bias->dtype, filter) : 0, h0, h1,
                      (plane * d->multiplier + m) * d->outputs + h0 * d->c.out[2], lines);
        }
    }
}

/* ---- work ----------------------------------------------------------------------------------- */

/* task: a band of output rows of one channel of one batch */
static void convolve(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, BIAS };
    const depthwise *d = node->state;
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *bias = node->in[BIAS];
    const int64_t pixels = d->c.in[0] * d->c.in[1] * d->c.in[2], width = d->c.out[2], item = (int64_t)anex_itemsize(x);
    float *image = slice->scratch, *weights = (float *)((char *)image + d->wide);
    float *lines = (float *)((char *)weights + d->weights);
    memset(image, 0, d->wide);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t plane = task / d->bands, channel = plane % d->c.in_channels;
        int64_t h0 = task % d->bands * d->band, h1 = anex_min(h0 + d->band, d->c.out[1]);
        int64_t begin = h0 * d->c.stride[1], end = begin + (h1 - h0 - 1) * d->c.stride[1] + d->reach;
        if (d->bands == 1) begin = 0, end = d->image.size[0] * d->image.size[1];
        if (d->bands > 1 && task > slice->begin) memset(image, 0, d->wide); /* other rows are around the input now */
        conv_fill(&d->image, (const char *)x->data + plane * pixels * item, x->dtype, begin, end, image);
        for (int64_t m = 0; m < d->multiplier; m++) {
            int64_t filter = channel * d->multiplier + m;
            gemm_widen(weights, weight->data, weight->dtype, filter * d->taps, d->taps);
            float add = bias ? gemm_one(bias->data, bias->dtype, filter) : 0;
            for (int64_t z = 0; z < d->c.out[0]; z++) {
                int64_t at = (plane * d->multiplier + m) * d->outputs + (z * d->c.out[1] + h0) * width;
                make_rows(node, d, image + z * d->gather.step[0], weights, add, h1 - h0, at, lines);
            }
        }
    }
}

anex_status conv_depthwise(anex_node *node, const conv_arguments *c, const conv_axis axis[AXES], anex_error *error) {
    depthwise d = {.c = *c, .multiplier = c->out_channels / c->groups};
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
        d.band = (MOST_PIXELS / d.image.row - d.reach) / c->stride[1] / MOST_ROWS * MOST_ROWS;
        d.band = anex_max(MOST_ROWS, d.band);
        d.bands = (c->out[1] + d.band - 1) / d.band;
        if (d.bands > 1) rows = (d.band - 1) * c->stride[1] + d.reach;
    }
    choose_sum(&d);
    choose_direct(&d, node->in[0]->dtype == ANEX_F16);
    d.wide = anex_align((size_t)(rows * d.image.row + WIDE * VF) * sizeof(float));
    d.weights = anex_align((size_t)(d.taps + VF) * sizeof(float));
    d.lines = anex_align((size_t)(MOST_ROWS * c->out[2] + WIDE * VF) * sizeof(float));
    memcpy(state, &d, sizeof d);
    node->ends_float = true;
    node->scratch = d.wide + d.weights + d.lines;
    if (d.direct) {
        double vectors = (double)(c->out[1] * ((c->out[2] + VF - 1) / VF) * d.multiplier);
        anex_add_stage(node, convolve_directly, c->batch * c->in_channels * d.bands,
                       vectors * (0.15 * (double)d.taps + 1) / (double)d.bands + 15);
        return ANEX_OK;
    }
    double multiplies = (double)(d.multiplier * d.outputs) * (double)d.taps / VF;
    anex_add_stage(node, convolve, c->batch * c->in_channels * d.bands,
                   ((d.sum ? 0.15 : 0.2) * multiplies + 0.05 * (double)d.image.volume) / (double)d.bands + 20);
    return ANEX_OK;
}
