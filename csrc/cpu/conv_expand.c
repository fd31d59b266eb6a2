/* A pointwise conv and the depthwise one that alone reads it, as one: what is between them stays in the cache.

   A task takes some rows of the result and some channels. Of LANES channels at a time it makes what the first conv
   gives to those rows, a vector of channels for each pixel, with zeros around the plane; there any taps, strides and
   dilations find all of their vectors whole. Sums of taps are turned back into planes as they are stored.

   Not for strict plans: what is between is not rounded. An element is the bias and its products, in order. */
#include "conv.h"

#if defined(__AVX512F__)
enum { PIXELS = 14, RUN = 7 }; /* rows of a product; outputs whose taps are summed together */
#elif defined(__aarch64__)
enum { PIXELS = 12, RUN = 7 };
#else
enum { PIXELS = 6, RUN = 6 };
#endif
enum { ACROSS = 2, LANES = ACROSS * VF, LINE = 128 /* outputs that wait to be stored, unless a row is longer */ };
enum { HELD = 640 << 10 /* bytes in scratch */, MOST_BANDS = 64 };
_Static_assert((int)VF * VF <= ANEX_EPILOGUE_LANES, "a square is a piece of an epilogue");

typedef struct expand {
    conv_arguments c; /* of the depthwise conv */
    int64_t k, groups;               /* channels of x; LANES channels of the result at a time */
    int64_t pitch, rows, reach;      /* pixels in a row between the convs; rows of a band, rows under one output row */
    int64_t band, bands;             /* output rows in a task */
    int64_t strip, strips;           /* groups in a task */
    int64_t line;                    /* output rows that wait to be stored */
    int64_t taps, *tap;              /* [taps], in floats from an output's first one */
    bool halves;                     /* weights are float16 */
    char *weights;                   /* [groups][k][LANES] */
    float *bias, *filters, *last;    /* [groups][LANES], [groups][taps][LANES], [groups][LANES] */
    size_t panels, between, lines;   /* bytes in scratch */
} expand;

/* ---- the first conv ------------------------------------------------------------------------- */

/* to[at[p]] = bounded bias + x[k][PIXELS] . weights[k][LANES], for `pixels` of the panel */
static inline __attribute__((always_inline)) void multiply(const int pixels, const int across, const bool halves,
                                                           int64_t k, const float *x, const char *weights,
                                                           const float *bias, const float *bounds, const int32_t *at,
                                                           float *to) {
    vf sum[PIXELS][ACROSS];
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) sum[p][v] = vf_load(bias + v * VF);
    for (int64_t i = 0; i < k; i++, x += PIXELS, weights += LANES * (halves ? 2 : 4)) {
        vf w[ACROSS];
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) w[v] = vf_load_as(weights, halves, v * VF);
#pragma GCC unroll 16
        for (int p = 0; p < pixels; p++) {
            vf value = vf_set(x[p]);
#pragma GCC unroll 2
            for (int v = 0; v < across; v++) sum[p][v] = vf_fma(value, w[v], sum[p][v]);
        }
    }
    const vf low = vf_set(bounds[0]), high = vf_set(bounds[1]);
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) vf_store(to + at[p] + v * VF, vf_min(high, vf_max(low, sum[p][v])));
}

typedef void product(int64_t k, const float *x, const char *weights, const float *bias, const float *bounds,
                     const int32_t *at, float *to);
#define PRODUCT(name, pixels, across, halves)                                                                     \
    static void name(int64_t k, const float *x, const char *weights, const float *bias, const float *bounds,      \
                     const int32_t *at, float *to) {                                                              \
        multiply(pixels, across, halves, k, x, weights, bias, bounds, at, to);                                    \
    }
#define PRODUCTS(size, pixels)               \
    PRODUCT(size##_floats_1, pixels, 1, false) \
    PRODUCT(size##_floats_2, pixels, 2, false) \
    PRODUCT(size##_halves_1, pixels, 1, true)  \
    PRODUCT(size##_halves_2, pixels, 2, true)
PRODUCTS(all, PIXELS)
PRODUCTS(some, PIXELS / 2)
PRODUCTS(one, 1)
#define CHOICES(size) {{size##_floats_1, size##_floats_2}, {size##_halves_1, size##_halves_2}}
static product *const products[3][2][ACROSS] = {CHOICES(all), CHOICES(some), CHOICES(one)};

/* Pixels first .. first + n - 1 of x [k][plane] as panels of floats, [n / PIXELS][k][PIXELS] */
static void fetch(const void *x, bool halves, int64_t plane, int64_t k, int64_t first, int64_t n, float *to) {
    for (int64_t i = 0; i < k; i++, first += plane)
        for (int64_t p = 0; p < n; p += PIXELS) {
            float *panel = to + p * k + i * PIXELS;
            const int64_t cols = anex_min(PIXELS, n - p);
#pragma GCC unroll 4
            for (int64_t s = 0; s < PIXELS; s += VF) {
                const bool whole = s + VF <= PIXELS && s + VF <= cols;
                const int64_t some = anex_min(anex_min(PIXELS, cols) - s, VF);
                if (some <= 0) break;
                const char *from = (const char *)x + (first + p + s) * (halves ? 2 : 4);
                if (whole)
                    vf_store(panel + s, vf_load_as(from, halves, 0));
                else
                    vf_store_some(panel + s, false, vf_load_some(from, halves, some), some);
            }
        }
}

/* What a task works on: pixels of one band of x */
typedef struct band {
    int64_t h0, h1;      /* output rows */
    int64_t top, bottom; /* rows of x, those outside of the plane left out */
    int64_t before;      /* rows of zeros above them */
} band;

static band find_band(const expand *e, int64_t number) {
    const conv_arguments *c = &e->c;
    band b = {.h0 = number * e->band, .h1 = anex_min((number + 1) * e->band, c->out[1])};
    const int64_t begin = b.h0 * c->stride[1] - c->before[1], end = (b.h1 - 1) * c->stride[1] - c->before[1] + e->reach;
    b.top = anex_min(anex_max(0, begin), c->in[1]), b.bottom = anex_max(b.top, anex_min(end, c->in[1]));
    b.before = b.top - begin;
    return b;
}

/* LANES channels of the band's pixels to where they are between the convs */
static void widen(const anex_node *node, const expand *e, const band *b, int64_t group, const float *x, float *between) {
    const int64_t width = e->c.in[2], n = (b->bottom - b->top) * width, item = e->halves ? 2 : 4;
    const int across = e->c.in_channels - group * LANES > VF ? 2 : 1;
    const char *weights = e->weights + group * e->k * LANES * item;
    const float *bias = e->bias + group * LANES;
    float bounds[2] = {-INFINITY, INFINITY}, tile[PIXELS * LANES];
    const bool bounded = anex_epilogue_bounds(node->inner, &bounds[0], &bounds[1]);
    int64_t row = b->before, column = 0;
    for (int64_t p = 0; p < n; p += PIXELS, x += e->k * PIXELS) {
        const int64_t pixels = anex_min(PIXELS, n - p);
        const int size = pixels > PIXELS / 2 ? 0 : pixels > 1 ? 1 : 2;
        int32_t at[PIXELS], place[PIXELS];
        for (int64_t i = 0; i < PIXELS; i++) { /* behind the last one to where no tap is */
            place[i] = (int32_t)((row * e->pitch + e->c.before[2] + column) * LANES);
            if (i >= pixels) place[i] = (int32_t)(e->rows * e->pitch * LANES);
            if (++column == width) column = 0, row++;
            at[i] = (int32_t)(i * LANES);
        }
        product *of = products[size][e->halves][across - 1];
        if (bounded) {
            of(e->k, x, weights, bias, bounds, place, between);
            continue;
        }
        of(e->k, x, weights, bias, bounds, at, tile);
        if (across < ACROSS) /* lanes that nobody needs hold numbers all the same */
            for (int64_t i = 0; i < pixels; i++) memset(tile + i * LANES + VF, 0, VF * sizeof *tile);
        anex_epilogue_lanes(node->inner, tile, pixels * LANES);
        for (int64_t i = 0; i < pixels; i++) memcpy(between + place[i], tile + i * LANES, LANES * sizeof *tile);
    }
}

/* ---- the second ----------------------------------------------------------------------------- */

/* RUN outputs of a row, whose first taps are at `from`, `step` from one to the next */
static inline __attribute__((always_inline)) void sum_taps(const int across, const expand *e, const float *from,
                                                           int64_t step, const float *filter, const float *bias,
                                                           const float *bounds, float *to) {
    vf sum[RUN][ACROSS];
#pragma GCC unroll 8
    for (int p = 0; p < RUN; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) sum[p][v] = vf_load(bias + v * VF);
    for (int64_t t = 0; t < e->taps; t++, filter += LANES) {
        const float *x = from + e->tap[t];
        vf w[ACROSS];
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) w[v] = vf_load(filter + v * VF);
#pragma GCC unroll 8
        for (int p = 0; p < RUN; p++, x += step)
#pragma GCC unroll 2
            for (int v = 0; v < across; v++) sum[p][v] = vf_fma(w[v], vf_load(x + v * VF), sum[p][v]);
    }
    const vf low = vf_set(bounds[0]), high = vf_set(bounds[1]);
#pragma GCC unroll 8
    for (int p = 0; p < RUN; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) vf_store(to + p * LANES + v * VF, vf_min(high, vf_max(low, sum[p][v])));
}

/* Planes of `channels` channels, elements `first` .. first + n - 1 of the first one's, from vectors of channels */
static void store_planes(const anex_node *node, const expand *e, int64_t channels, int64_t first, int64_t n,
                         bool finished, const float *line) {
    const int64_t plane = e->c.out[1] * e->c.out[2];
    const bool narrow = node->out[0]->dtype == ANEX_F16;
    for (int64_t p = 0; p < n; p += VF) {
        const int64_t cols = anex_min(VF, n - p);
        vf x[VF];
#pragma GCC unroll 16
        for (int i = 0; i < VF; i++) x[i] = vf_load(line + (p + (i < cols ? i : 0)) * LANES);
        vf_transpose(x);
        if (!finished) {
            float piece[VF * VF];
            int64_t row_at[VF], col_at[VF];
            for (int i = 0; i < VF; i++) vf_store(piece + i * VF, x[i]), row_at[i] = first + i * plane, col_at[i] = p + i;
            anex_epilogue_run(node, piece, VF, row_at, channels, col_at, cols);
            for (int i = 0; i < VF; i++) x[i] = vf_load(piece + i * VF);
        }
#pragma GCC unroll 16
        for (int i = 0; i < VF; i++) {
            if (i >= channels) break;
            const int64_t at = first + i * plane + p;
            if (cols == VF)
                vf_store_as(node->out[0]->data, narrow, at, x[i]);
            else
                vf_store_some((char *)node->out[0]->data + at * (narrow ? 2 : 4), narrow, x[i], cols);
        }
    }
}

/* Output rows of the band, of LANES channels from `channel` on, of which the first plane begins at element `first` */
static void filter(const anex_node *node, const expand *e, const band *b, int64_t group, int64_t first,
                   const float *between, float *line) {
    const conv_arguments *c = &e->c;
    const int64_t width = c->out[2], step = c->stride[2] * LANES, plane = c->out[1] * width;
    const int64_t channels = anex_min(LANES, c->in_channels - group * LANES);
    const float *filters = e->filters + group * e->taps * LANES, *bias = e->last + group * LANES;
    float bounds[2] = {-INFINITY, INFINITY};
    const bool bounded = anex_epilogue_bounds(node->epilogue, &bounds[0], &bounds[1]);
    const bool alone = bounded || anex_epilogue_alone(node->epilogue);
    for (int64_t h = b->h0; h < b->h1; h += e->line) {
        const int64_t rows = anex_min(e->line, b->h1 - h);
        for (int64_t r = 0; r < rows; r++) {
            const float *from = between + (h + r - b->h0) * c->stride[1] * e->pitch * LANES;
            for (int64_t column = 0; column < width; column += RUN) { /* the last may be others again, or too many */
                const int64_t j = anex_max(0, anex_min(column, width - RUN));
                float *to = line + (r * width + j) * LANES;
                if (channels > VF)
                    sum_taps(2, e, from + j * step, step, filters, bias, bounds, to);
                else
                    sum_taps(1, e, from + j * step, step, filters, bias, bounds, to);
            }
        }
        if (alone && !bounded) anex_epilogue_lanes(node->epilogue, line, rows * width * LANES);
        for (int64_t v = 0; v < channels; v += VF)
            store_planes(node, e, anex_min(VF, channels - v), first + v * plane + h * width, rows * width, alone,
                         line + v);
    }
}

/* ---- work ----------------------------------------------------------------------------------- */

/* task: a strip of groups of channels, of a band of a batch. Strips of the same band that one slice has share x. */
static void convolve(const anex_node *node, const anex_slice *slice) {
    const expand *e = node->state;
    const anex_tensor *x = node->in[0];
    const int64_t pixels = e->c.in[1] * e->c.in[2], outputs = e->c.out[1] * e->c.out[2];
    float *panels = slice->scratch, *between = panels + e->panels / sizeof(float);
    float *line = between + e->between / sizeof(float);
    for (int64_t task = slice->begin, n; task < slice->end; task += n) {
        const int64_t strip = task % e->strips, batch = task / e->strips / e->bands;
        const band b = find_band(e, task / e->strips % e->bands);
        n = anex_min(slice->end - task, e->strips - strip);
        const char *from = (const char *)x->data + batch * e->k * pixels * (int64_t)anex_itemsize(x);
        fetch(from, x->dtype == ANEX_F16, pixels, e->k, b.top * e->c.in[2], (b.bottom - b.top) * e->c.in[2], panels);
        memset(between, 0, e->between);
        memset(line, 0, e->lines);
        for (int64_t g = strip * e->strip; g < anex_min((strip + n) * e->strip, e->groups); g++) {
            widen(node, e, &b, g, panels, between);
            filter(node, e, &b, g, (batch * e->c.in_channels + g * LANES) * outputs, between, line);
        }
    }
}

/* ---- plan ----------------------------------------------------------------------------------- */

static void set_band(expand *e, int64_t bands) {
    const conv_arguments *c = &e->c;
    e->band = (c->out[1] + bands - 1) / bands, e->bands = (c->out[1] + e->band - 1) / e->band;
    e->rows = (e->band - 1) * c->stride[1] + e->reach;
    const int64_t pixels = anex_min(e->rows, c->in[1]) * c->in[2], beyond = RUN * c->stride[2] + PIXELS;
    e->panels = anex_align((size_t)((pixels + PIXELS) * e->k + VF) * sizeof(float));
    e->between = anex_align((size_t)((e->rows * e->pitch + beyond) * LANES) * sizeof(float));
    e->lines = anex_align((size_t)((e->line * c->out[2] + RUN) * LANES) * sizeof(float));
}

/* Cycles of all tasks of a batch, in bands and strips as they are */
static double cycles(const expand *e) {
    const conv_arguments *c = &e->c;
    const double vectors = (double)(e->groups * ACROSS), k = (double)e->k;
    const double pixels = (double)(e->bands * anex_min(e->rows, c->in[1]) * c->in[2]);
    const double outputs = (double)(c->out[1] * c->out[2]);
    const double multiply = pixels * vectors * (0.55 * k + 1), fetches = pixels * (double)e->strips;
    return multiply + outputs * vectors * (0.6 * (double)e->taps + 7) + fetches * (k + (double)ACROSS) * 1.5 / VF;
}

/* Bands and strips, and the nanoseconds of a task; false: none is good enough. */
static bool choose_tasks(expand *e, double *cost) {
    const double cycle = 0.25, start = 300; /* of a task */
    double best = -1, least = -1;
    expand found = *e;
    for (int64_t bands = 1; bands <= anex_min(e->c.out[1], MOST_BANDS); bands++)
        for (int64_t strips = 1; strips <= e->groups; strips++) {
            set_band(e, bands);
            e->strip = (e->groups + strips - 1) / strips, e->strips = strips;
            if (e->bands != bands || (e->groups + e->strip - 1) / e->strip != strips) continue;
            if (e->panels + e->between + e->lines > HELD) continue;
            const int64_t tasks = e->c.batch * bands * strips;
            const double all = cycles(e) * (double)e->c.batch, each = (all + start * (double)tasks) * conv_uneven(tasks);
            if (least < 0 || all < least) least = all;
            if (best < 0 || each < best) best = each, *cost = cycle * all / (double)tasks, found = *e;
        }
    *e = found;
    expand whole = *e;
    set_band(&whole, 1), whole.strips = 1;
    return best >= 0 && least < 1.25 * cycles(&whole) * (double)e->c.batch;
}

static void pack(const expand *e, const anex_tensor *weight, const anex_tensor *bias, const anex_tensor *filter,
                 const anex_tensor *last) {
    for (int64_t o = 0; o < e->c.in_channels; o++) {
        const int64_t group = o / LANES, lane = o % LANES;
        for (int64_t i = 0; i < e->k; i++) {
            const int64_t to = (group * e->k + i) * LANES + lane, from = o * e->k + i;
            if (e->halves)
                ((half *)(void *)e->weights)[to] = ((const half *)weight->data)[from];
            else
                ((float *)(void *)e->weights)[to] = gemm_one(weight->data, weight->dtype, from);
        }
        for (int64_t t = 0; t < e->taps; t++)
            e->filters[(group * e->taps + t) * LANES + lane] = gemm_one(filter->data, filter->dtype, o * e->taps + t);
        if (bias) e->bias[o] = gemm_one(bias->data, bias->dtype, o);
        if (last) e->last[o] = gemm_one(last->data, last->dtype, o);
    }
}

static bool is_flat(const conv_arguments *c) { return c->in[0] == 1 && c->out[0] == 1 && c->kernel[0] == 1; }

/* What the conv before it has to do with `e`; false: it is none to be joined. */
static bool read_first(const anex_node *node, expand *e) {
    enum { X, WEIGHT, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS };
    const anex_node *onto = node->onto;
    if (!onto || node->through != X || strcmp(onto->op, "conv") || onto->stage[0].work == convolve) return false;
    anex_tensor made = *node->in[X], *out = &made;
    anex_node first = *onto;
    first.out = &out;
    conv_inputs inputs = {first.in[X],        first.in[WEIGHT], first.in[BIAS],      first.in[STRIDES],
                          first.in[PAD_TYPE], first.in[PAD],    first.in[DILATIONS], first.in[GROUPS]};
    conv_arguments c;
    if (!anex_is_float(first.in[X]) || conv_read(&first, &inputs, false, &c, NULL) || c.groups != 1) return false;
    for (int32_t i = 0; i < AXES; i++)
        if (c.kernel[i] != 1 || c.before[i] || c.in[i] != c.out[i] || (c.stride[i] != 1 && c.out[i] != 1)) return false;
    e->k = c.in_channels;
    return anex_is_constant(inputs.weight) && (!inputs.bias || anex_is_constant(inputs.bias)) &&
           anex_epilogue_alone(onto->epilogue);
}

bool conv_expand_suits(const anex_node *node, const conv_arguments *c) {
    enum { X, WEIGHT, BIAS };
    expand e;
    bool constant = anex_is_constant(node->in[WEIGHT]) && (!node->in[BIAS] || anex_is_constant(node->in[BIAS]));
    return !node->strict && constant && c->groups == c->out_channels && is_flat(c) && c->in[1] * c->in[2] >= PIXELS &&
           c->in_channels >= VF && c->kernel[1] * c->kernel[2] > 1 && read_first(node, &e);
}

anex_status conv_expand(anex_node *node, const conv_arguments *c, bool *joins, anex_error *error) {
    enum { X, WEIGHT, BIAS };
    anex_node *onto = node->onto;
    expand e = {.c = *c, .taps = c->kernel[1] * c->kernel[2], .groups = (c->in_channels + LANES - 1) / LANES};
    read_first(node, &e);
    e.reach = (c->kernel[1] - 1) * c->dilation[1] + 1;
    const int64_t right = (c->out[2] - 1) * c->stride[2] + (c->kernel[2] - 1) * c->dilation[2] + 1;
    e.pitch = anex_max(c->before[2] + c->in[2], right);
    e.line = anex_max(1, anex_min(LINE / c->out[2], c->out[1]));
    double cost = 0;
    *joins = choose_tasks(&e, &cost);
    if (!*joins) return ANEX_OK;
    const anex_tensor *weight = onto->in[WEIGHT];
    e.halves = FUSED && weight->dtype == ANEX_F16;
    const size_t lanes = (size_t)(e.groups * LANES), item = e.halves ? sizeof(half) : sizeof(float);
    const size_t taps = anex_align((size_t)e.taps * sizeof *e.tap), weights = lanes * (size_t)e.k * item;
    anex_node_drop(onto, onto->state, onto->state_bytes);
    char *state = anex_node_state(onto, anex_align(sizeof e) + taps + weights + lanes * (size_t)(e.taps + 2) * sizeof(float), error);
    if (!state) return ANEX_MEMORY;
    e.tap = (int64_t *)(void *)(state + anex_align(sizeof e)), e.weights = (char *)e.tap + taps;
    e.bias = (float *)(void *)(e.weights + weights), e.last = e.bias + lanes, e.filters = e.last + lanes;
    for (int64_t t = 0; t < e.taps; t++)
        e.tap[t] = (t / c->kernel[2] * c->dilation[1] * e.pitch + t % c->kernel[2] * c->dilation[2]) * LANES;
    pack(&e, weight, onto->in[BIAS], node->in[WEIGHT], node->in[BIAS]);
    memcpy(state, &e, sizeof e);
    onto->inner = onto->epilogue, onto->epilogue = NULL;
    onto->ends_float = true, onto->ends_bytes = false;
    onto->packed |= 1u << WEIGHT | 1u << BIAS;
    onto->scratch = e.panels + e.between + e.lines, onto->shared = 0;
    onto->n_stages = 0;
    anex_add_stage(onto, convolve, c->batch * e.bands * e.strips, cost);
    node->joined = true;
    return ANEX_OK;
}
