/* A conv and the depthwise one that alone reads it, as one node. A task is some channels of some rows. */
#include "conv_expand.h"

enum { LINE = 128 /* outputs that wait to be stored, unless a row is longer */, MOST_BANDS = 64 };
enum { TOGETHER = 4 /* runs of a row */ };
enum { MOST_GATHERED = 160 /* products of the first conv where it is not pointwise: of three channels, 7x7 taps */ };
_Static_assert((int)VF * VF <= ANEX_EPILOGUE_LANES, "a square is a piece of an epilogue");

typedef struct pair {
    expand e; /* first: see expand_of */
    int64_t band, bands;   /* output rows in a task */
    int64_t strip, strips; /* groups in a task */
    int64_t line;          /* output rows that wait to be stored */
    size_t lines;          /* bytes in scratch, behind those of `e` */
} pair;

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
#define PRODUCTS(size, pixels)                 \
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
            const char *from = (const char *)x + (first + p) * (halves ? 2 : 4);
#pragma GCC unroll 4
            for (int64_t s = 0; s < PIXELS; s += VF, from += VF * (halves ? 2 : 4)) {
                if (s + VF <= PIXELS && s + VF <= cols)
                    vf_store(panel + s, vf_load_as(from, halves, 0));
                else if (s < cols)
                    vf_store_some(panel + s, false, vf_load_some(from, halves, anex_min(VF, cols - s)),
                                  anex_min(VF, cols - s));
            }
        }
}

/* Panels of the im2col matrix of an image, [n / PIXELS][k][PIXELS] */
static void gather_panels(const expand *e, const float *image, int64_t n, float *to) {
    const conv_source source = {&e->gather, e->sources, image, ANEX_F32};
    const int64_t width = e->c.in[2];
    int64_t row = 0, j = 0; /* of the panel's first pixel */
    for (int64_t p = 0; p < n; p += PIXELS, to += e->k * PIXELS, j += PIXELS) {
        for (; j >= width; j -= width) row++;
        if (j + PIXELS > width) {
            conv_pack(&source, to, PIXELS, 0, e->k, p, anex_min(PIXELS, n - p));
            continue;
        }
        const float *from = image + row * e->gather.step[1] + j * e->gather.step[2];
        for (int64_t i = 0; i < e->k; i++) /* whole vectors: what is too much, the next overwrites */
#pragma GCC unroll 4
            for (int s = 0; s < PIXELS; s += VF) vf_store(to + i * PIXELS + s, vf_load(from + e->sources[i] + s));
    }
}

/* Floats of a channel's image under so many rows of the first conv */
static int64_t image_volume(const expand *e, int64_t rows) {
    const conv_arguments *f = &e->first;
    const int64_t reach = (f->kernel[1] - 1) * f->dilation[1] + 1;
    return ((rows - 1) * f->stride[1] + e->image.before[1] - f->before[1] + reach) * e->image.row + FILL_ROOM;
}

static void fetch_image(const expand *e, const expand_band *b, const char *x, anex_dtype dtype, float *image) {
    const conv_arguments *f = &e->first;
    const int64_t plane = f->in[1] * f->in[2] * (dtype == ANEX_F16 ? 2 : 4), begin = b->top * f->stride[1];
    const int64_t rows = (image_volume(e, b->bottom - b->top) - FILL_ROOM) / e->image.row;
    const int64_t below = anex_max(0, anex_min(rows, e->image.before[1] + f->in[1] - begin)); /* zeros begin here */
    if (!b->follows) memset(image, 0, (size_t)(f->in_channels * e->image.volume) * sizeof *image);
    for (int64_t i = 0; i < f->in_channels; i++, image += e->image.volume) {
        conv_fill(&e->image, x + i * plane, dtype, begin, anex_min(begin + rows, e->image.size[1]), image);
        memset(image + below * e->image.row, 0, (size_t)((rows - below) * e->image.row) * sizeof *image);
    }
    image -= f->in_channels * e->image.volume;
    gather_panels(e, image, (b->bottom - b->top) * e->c.in[2], b->panels);
}

size_t expand_set_rows(expand *e, int64_t most) {
    const conv_arguments *c = &e->c;
    e->most = most, e->rows = (most - 1) * c->stride[1] + e->reach;
    const int64_t made = anex_min(e->rows, c->in[1]), pixels = made * c->in[2], beyond = RUN * c->stride[2] + 1;
    e->panels = anex_align((size_t)((pixels + PIXELS) * e->k + VF) * sizeof(float));
    e->places = anex_align((size_t)(pixels + PIXELS) * sizeof(int32_t));
    e->between = anex_align((size_t)((e->rows * e->pitch + beyond) * LANES) * sizeof(float));
    e->kept = most < c->out[1] ? anex_align((size_t)(e->groups * e->keep * e->pitch * LANES) * sizeof(float)) : 0;
    if (e->gathers) e->image.volume = image_volume(e, made);
    const int64_t images = e->gathers ? e->first.in_channels * e->image.volume + FILL_ROOM : 0;
    e->images = anex_align((size_t)images * sizeof(float));
    e->scratch = e->panels + e->places + e->between + e->kept + e->images;
    return e->scratch;
}

static void set_input_rows(const expand *e, expand_band *b) {
    const conv_arguments *c = &e->c;
    const int64_t begin = b->h0 * c->stride[1] - c->before[1];
    const int64_t end = (b->h1 - 1) * c->stride[1] - c->before[1] + e->reach;
    const int64_t first = begin + (b->follows ? e->keep : 0);
    b->top = anex_min(anex_max(0, first), c->in[1]), b->bottom = anex_max(b->top, anex_min(end, c->in[1]));
    b->before = b->top - begin;
}

int64_t expand_input_rows(const expand *e, int64_t h0, int64_t h1) {
    expand_band b = {.h0 = h0, .h1 = h1};
    set_input_rows(e, &b);
    return b.bottom - b.top;
}

expand_band expand_begin(const anex_node *node, const expand *e, int64_t batch, int64_t h0, int64_t h1, bool follows,
                         void *scratch) {
    const anex_tensor *x = node->in[0];
    const int64_t width = e->c.in[2], plane = e->first.in[1] * e->first.in[2];
    expand_band b = {.h0 = h0, .h1 = h1, .follows = follows, .panels = scratch};
    b.places = (int32_t *)(void *)((char *)scratch + e->panels);
    b.between = (float *)(void *)((char *)b.places + e->places);
    b.kept = (float *)(void *)((char *)b.between + e->between);
    set_input_rows(e, &b);
    const char *from = (const char *)x->data + batch * e->first.in_channels * plane * (int64_t)anex_itemsize(x);
    if (e->gathers && b.bottom > b.top)
        fetch_image(e, &b, from, x->dtype, (float *)(void *)((char *)b.kept + e->kept));
    else if (!e->gathers)
        fetch(from, x->dtype == ANEX_F16, plane, e->k, b.top * width, (b.bottom - b.top) * width, b.panels);
    int32_t *place = b.places;
    for (int64_t row = 0; row < b.bottom - b.top; row++)
        for (int64_t j = 0; j < width; j++)
            *place++ = (int32_t)(((row + b.before) * e->pitch + e->c.before[2] + j) * LANES);
    for (int64_t i = 0; i < PIXELS; i++) *place++ = (int32_t)(e->rows * e->pitch * LANES); /* needed nowhere */
    const int64_t below = b.before + b.bottom - b.top, row = e->pitch * LANES; /* what is around the plane stays 0 */
    if (follows)
        memset(b.between + below * row, 0, (size_t)((e->rows - below) * row) * sizeof(float));
    else
        memset(b.between, 0, e->between);
    return b;
}

/* The rows that two bands share: from the one before, and to the one behind if there will be one */
static void share_rows(const expand *e, const expand_band *b, int64_t group, bool take) {
    const int64_t n = e->keep * e->pitch * LANES, at = (b->h1 - b->h0) * e->c.stride[1] * e->pitch * LANES;
    float *kept = b->kept + group * n;
    if (take && b->follows) memcpy(b->between, kept, (size_t)n * sizeof *kept);
    if (!take && e->kept) memcpy(kept, b->between + at, (size_t)n * sizeof *kept);
}

void expand_group(const anex_node *node, const expand *e, const expand_band *b, int64_t group) {
    const int64_t n = (b->bottom - b->top) * e->c.in[2];
    const int across = e->c.in_channels - group * LANES > VF ? 2 : 1;
    const char *weights = e->weights + group * e->k * LANES * (e->halves ? 2 : 4);
    const float *bias = e->bias + group * LANES;
    float bounds[2] = {-INFINITY, INFINITY}, tile[PIXELS * LANES];
    const bool bounded = anex_epilogue_bounds(node->inner[0], &bounds[0], &bounds[1]);
    int32_t at[PIXELS];
    for (int i = 0; i < PIXELS; i++) at[i] = i * LANES;
    if (across < ACROSS) memset(tile, 0, sizeof tile); /* lanes that nobody needs are numbers all the same */
    share_rows(e, b, group, true);
    for (int64_t p = 0; p < n; p += PIXELS) {
        const float *x = b->panels + p * e->k;
        const int64_t pixels = anex_min(PIXELS, n - p);
        product *of = products[expand_size(pixels)][e->halves][across - 1];
        if (bounded) {
            of(e->k, x, weights, bias, bounds, b->places + p, b->between);
            continue;
        }
        of(e->k, x, weights, bias, bounds, at, tile);
        anex_epilogue_lanes(node->inner[0], tile, pixels * LANES);
        for (int64_t i = 0; i < pixels; i++)
            memcpy(b->between + b->places[p + i], tile + i * LANES, LANES * sizeof *tile);
    }
    share_rows(e, b, group, false);
}

/* ---- the second ----------------------------------------------------------------------------- */

/* RUN outputs of a row, whose first taps are at `from`, `step` from one to the next */
static inline __attribute__((always_inline)) void sum_taps(const int across, const expand *e, const float *from,
                                                           int64_t step, const float *filter, vf sum[RUN][ACROSS]) {
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
}

/* The same for side x side taps that are neighbours: each vector is read once for all the outputs of the row */
static inline __attribute__((always_inline)) void sum_square(const int across, const int side, const int stride,
                                                             const expand *e, const float *from, const float *filter,
                                                             vf sum[RUN][ACROSS]) {
#pragma GCC unroll 2
    for (int v = 0; v < across; v++) {
        const float *x = from + v * VF, *weights = filter + v * VF;
        for (int h = 0; h < side; h++, x += e->pitch * LANES, weights += side * LANES) {
            vf w[8];
#pragma GCC unroll 5
            for (int i = 0; i < side; i++) w[i] = vf_load(weights + i * LANES);
#pragma GCC unroll 20
            for (int j = 0; j < (RUN - 1) * stride + side; j++) {
                const vf value = vf_load(x + j * LANES);
#pragma GCC unroll 5
                for (int i = 0; i < side; i++) { /* in the order of the taps, for each output */
                    const int p = (j - i) / stride;
                    if (j >= i && (j - i) % stride == 0 && p < RUN) sum[p][v] = vf_fma(w[i], value, sum[p][v]);
                }
            }
        }
    }
}

typedef void run_sum(const expand *e, const float *from, const float *filter, const float *bias, const float *bounds,
                     float *to);

static inline __attribute__((always_inline)) void sum_run(const int across, const int side, const int stride,
                                                          const expand *e, const float *from, const float *filter,
                                                          const float *bias, const float *bounds, float *to) {
    vf sum[RUN][ACROSS];
#pragma GCC unroll 8
    for (int p = 0; p < RUN; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) sum[p][v] = vf_load(bias + v * VF);
    if (side)
        sum_square(across, side, stride, e, from, filter, sum);
    else
        sum_taps(across, e, from, e->c.stride[2] * LANES, filter, sum);
    const vf low = vf_set(bounds[0]), high = vf_set(bounds[1]);
#pragma GCC unroll 8
    for (int p = 0; p < RUN; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) vf_store(to + p * LANES + v * VF, vf_min(high, vf_max(low, sum[p][v])));
}

#define RUN_SUM(name, across, side, stride)                                                                        \
    static void name##_##across(const expand *e, const float *from, const float *filter, const float *bias,        \
                                const float *bounds, float *to) {                                                  \
        sum_run(across, side, stride, e, from, filter, bias, bounds, to);                                          \
    }
#define RUN_SUMS(name, side, stride) RUN_SUM(name, 1, side, stride) RUN_SUM(name, 2, side, stride)
RUN_SUMS(any, 0, 0)
RUN_SUMS(sum_3_1, 3, 1)
RUN_SUMS(sum_3_2, 3, 2)
RUN_SUMS(sum_5_1, 5, 1)
RUN_SUMS(sum_5_2, 5, 2)

static run_sum *find_sum(const conv_arguments *c, bool wide) {
    static run_sum *const squares[2][2][2] = {{{sum_3_1_1, sum_3_1_2}, {sum_3_2_1, sum_3_2_2}},
                                              {{sum_5_1_1, sum_5_1_2}, {sum_5_2_1, sum_5_2_2}}};
    const int64_t side = c->kernel[2], stride = c->stride[2];
    const bool square = c->kernel[1] == side && c->dilation[1] == 1 && c->dilation[2] == 1;
    if (square && (side == 3 || side == 5) && stride <= 2) return squares[side == 5][stride - 1][wide];
    return wide ? any_2 : any_1;
}

void expand_filter(const expand *e, const expand_band *b, int64_t group, int64_t h, int64_t rows,
                   const anex_epilogue *follows, float *to) {
    const conv_arguments *c = &e->c;
    const int64_t width = c->out[2], step = c->stride[2] * LANES, row = c->stride[1] * e->pitch * LANES;
    const float *filters = e->filters + group * e->taps * LANES, *bias = e->last + group * LANES;
    run_sum *sum = find_sum(c, c->in_channels - group * LANES > VF);
    float bounds[2] = {-INFINITY, INFINITY};
    const bool bounded = anex_epilogue_bounds(follows, &bounds[0], &bounds[1]);
    for (int64_t begin = 0; begin < width; begin += TOGETHER * RUN) /* rows find in the first cache what they share */
        for (int64_t r = 0; r < rows; r++) {
            const float *from = b->between + (h + r - b->h0) * row;
            /* the last run of a row may be of others again, or of too many */
            for (int64_t column = begin; column < anex_min(begin + TOGETHER * RUN, width); column += RUN) {
                const int64_t j = anex_max(0, anex_min(column, width - RUN));
                sum(e, from + j * step, filters, bias, bounds, to + (r * width + j) * LANES);
            }
        }
    if (!bounded && anex_epilogue_alone(follows)) anex_epilogue_lanes(follows, to, rows * width * LANES);
}

/* ---- planes --------------------------------------------------------------------------------- */

typedef enum ending { ENDED, PLAIN_END, ANY_END } ending;

/* Vectors of `cols` pixels, each of a channel, `plane` elements apart from `at` on */
static inline __attribute__((always_inline)) void store_square(const anex_node *node, const anex_plain *plain,
                                                               int64_t channels, int64_t plane, int64_t at,
                                                               int64_t cols, const vf *x) {
    const bool narrow = node->out[0]->dtype == ANEX_F16, halves = plain && plain->dtype == ANEX_F16;
    char *to = node->out[0]->data;
#pragma GCC unroll 16
    for (int i = 0; i < VF; i++, at += plane) {
        if (i >= channels) return;
        vf y = x[i];
        if (plain) {
            const char *residual = plain->residual;
            if (residual) residual += at * (halves ? 2 : 4);
            if (residual) y = y + (cols == VF ? vf_load_as(residual, halves, 0) : vf_load_some(residual, halves, cols));
            y = vf_min(vf_set(plain->high), vf_max(vf_set(plain->low), y));
        }
        if (cols == VF)
            vf_store_as(to, narrow, at, y);
        else
            vf_store_some(to + at * (narrow ? 2 : 4), narrow, y, cols);
    }
}

static void store_vectors(const anex_node *node, int64_t channels, int64_t plane, int64_t first, int64_t n, ending end,
                          const anex_plain *plain, const float *line) {
    for (int64_t p = 0; p < n; p += VF) {
        const int64_t cols = anex_min(VF, n - p);
        vf x[VF];
        if (cols == VF)
#pragma GCC unroll 16
            for (int i = 0; i < VF; i++) x[i] = vf_load(line + (p + i) * LANES);
        else
            for (int i = 0; i < VF; i++) x[i] = vf_load(line + (p + anex_min(i, cols - 1)) * LANES);
        vf_transpose(x);
        if (end == ANY_END) {
            float piece[VF * VF];
            int64_t row_at[VF], col_at[VF];
            for (int i = 0; i < VF; i++) {
                vf_store(piece + i * VF, x[i]);
                row_at[i] = first + i * plane, col_at[i] = p + i;
            }
            anex_epilogue_run(node, piece, VF, row_at, channels, col_at, cols);
            for (int i = 0; i < VF; i++) x[i] = vf_load(piece + i * VF);
        }
        if (end == PLAIN_END)
            store_square(node, plain, channels, plane, first + p, cols, x);
        else
            store_square(node, NULL, channels, plane, first + p, cols, x);
    }
}

void expand_store(const anex_node *node, int64_t channels, int64_t plane, int64_t first, int64_t n, bool ended,
                  const float *line) {
    anex_plain plain;
    const ending end = ended ? ENDED : anex_epilogue_plain(node, &plain) ? PLAIN_END : ANY_END;
    for (int64_t v = 0; v < channels; v += VF)
        store_vectors(node, anex_min(VF, channels - v), plane, first + v * plane, n, end, &plain, line + v);
}

/* ---- work ----------------------------------------------------------------------------------- */

/* task: a strip of groups of channels, of a band of a batch. Strips of the same band that one slice has share x. */
static void convolve(const anex_node *node, const anex_slice *slice) {
    const pair *w = node->state;
    const expand *e = &w->e;
    const int64_t width = e->c.out[2], plane = e->c.out[1] * width;
    const bool alone = anex_epilogue_alone(node->epilogue);
    float *line = (float *)(void *)((char *)slice->scratch + e->scratch);
    memset(line, 0, w->lines); /* lanes that nobody needs are numbers all the same */
    for (int64_t task = slice->begin, n; task < slice->end; task += n) {
        const int64_t strip = task % w->strips, batch = task / w->strips / w->bands;
        const int64_t h0 = task / w->strips % w->bands * w->band;
        n = anex_min(slice->end - task, w->strips - strip);
        const expand_band b =
            expand_begin(node, e, batch, h0, anex_min(h0 + w->band, e->c.out[1]), false, slice->scratch);
        for (int64_t g = strip * w->strip; g < anex_min((strip + n) * w->strip, e->groups); g++) {
            const int64_t channel = g * LANES, first = (batch * e->c.in_channels + channel) * plane;
            expand_group(node, e, &b, g);
            for (int64_t h = h0; h < b.h1; h += w->line) {
                const int64_t rows = anex_min(w->line, b.h1 - h);
                expand_filter(e, &b, g, h, rows, node->epilogue, line);
                expand_store(node, anex_min(LANES, e->c.in_channels - channel), plane, first + h * width, rows * width,
                             alone, line);
            }
        }
    }
}

const expand *expand_of(const anex_node *node) { return node->stage[0].work == convolve ? node->state : NULL; }

/* ---- plan ----------------------------------------------------------------------------------- */

double expand_cost(const expand *e, double pixels, double outputs) {
    const double vectors = (double)((e->c.in_channels + VF - 1) / VF);
    return 0.25 * vectors * (pixels * (0.52 * (double)e->k + 1) + outputs * (0.55 * (double)e->taps + 1));
}

static void set_band(pair *w, int64_t bands) {
    const conv_arguments *c = &w->e.c;
    w->band = (c->out[1] + bands - 1) / bands, w->bands = (c->out[1] + w->band - 1) / w->band;
}

/* Nanoseconds of all tasks of a batch, in bands and strips as they are */
static double all_tasks(const pair *w) {
    const expand *e = &w->e;
    const double outputs = (double)(e->c.out[1] * e->c.out[2]);
    double pixels = 0;
    for (int64_t h = 0; h < e->c.out[1]; h += w->band)
        pixels += (double)(expand_input_rows(e, h, anex_min(h + w->band, e->c.out[1])) * e->c.in[2]);
    return expand_cost(e, pixels, outputs) + expand_fetch_cost(e, pixels) * (double)w->strips +
           1.5 * outputs * (double)e->groups * ACROSS;
}

/* Bands and strips, and the nanoseconds of a task; false: none is good enough. */
static bool choose_tasks(pair *w, double *cost) {
    const double start = 100, few = 1.25; /* of a task; of what one band would take */
    double best = -1, least = 0;
    pair found = *w;
    for (int64_t bands = 1; bands <= anex_min(w->e.c.out[1], MOST_BANDS); bands++)
        for (int64_t strips = 1; strips <= w->e.groups; strips++) {
            set_band(w, bands);
            w->strip = (w->e.groups + strips - 1) / strips, w->strips = strips;
            if (w->bands != bands || (w->e.groups + w->strip - 1) / w->strip != strips) continue;
            if (expand_set_rows(&w->e, w->band) + w->lines > EXPAND_HELD) break;
            const int64_t tasks = w->e.c.batch * bands * strips;
            const double all = all_tasks(w) * (double)w->e.c.batch;
            const double each = (all + start * (double)tasks) * conv_uneven(tasks);
            if (best < 0) least = all;
            if (best < 0 || each < best) best = each, *cost = all / (double)tasks, found = *w;
        }
    *w = found;
    pair whole = *w;
    set_band(&whole, 1), whole.strips = 1;
    return best >= 0 && least < few * all_tasks(&whole) * (double)w->e.c.batch;
}

void expand_pack(const anex_tensor *weight, int64_t out, int64_t k, bool halves, char *to) {
    for (int64_t o = 0; o < out; o++)
        for (int64_t i = 0; i < k; i++) {
            const int64_t at = (o / LANES * k + i) * LANES + o % LANES, from = o * k + i;
            if (halves)
                ((half *)(void *)to)[at] = ((const half *)weight->data)[from];
            else
                ((float *)(void *)to)[at] = gemm_one(weight->data, weight->dtype, from);
        }
}

bool expand_read(const anex_node *node, const anex_tensor *made, conv_arguments *c) {
    enum { X, WEIGHT, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS };
    anex_tensor copy = *made, *out = &copy;
    anex_node conv = *node;
    conv.out = &out;
    conv_inputs in = {conv.in[X],        conv.in[WEIGHT], conv.in[BIAS],      conv.in[STRIDES],
                      conv.in[PAD_TYPE], conv.in[PAD],    conv.in[DILATIONS], conv.in[GROUPS]};
    if (!anex_is_float(in.x) || !anex_is_constant(in.weight) || (in.bias && !anex_is_constant(in.bias))) return false;
    return !conv_read(&conv, &in, false, c, NULL) && c->groups == 1;
}

bool expand_is_pointwise(const conv_arguments *c) {
    for (int32_t i = 0; i < AXES; i++)
        if (c->kernel[i] != 1 || c->before[i] || c->in[i] != c->out[i] || (c->stride[i] != 1 && c->out[i] != 1))
            return false;
    return true;
}

static bool is_flat(const conv_arguments *c) {
    return c->in[0] == 1 && c->out[0] == 1 && c->kernel[0] == 1 && !c->before[0];
}

bool conv_expand_suits(const anex_node *node, const conv_arguments *c) {
    enum { X, WEIGHT, BIAS };
    conv_arguments first;
    const anex_node *onto = node->onto;
    const bool constant = anex_is_constant(node->in[WEIGHT]) && (!node->in[BIAS] || anex_is_constant(node->in[BIAS]));
    bool suits = !node->strict && onto && node->through == X && constant && is_flat(c) && c->groups == c->in_channels &&
                 c->groups == c->out_channels && c->in_channels >= VF && c->in[1] * c->in[2] >= PIXELS &&
                 c->kernel[1] * c->kernel[2] > 1 && !strcmp(onto->op, "conv") && !onto->inner[0] &&
                 anex_epilogue_alone(onto->epilogue) && expand_read(onto, node->in[X], &first);
    if (!suits || expand_is_pointwise(&first)) return suits;
    return is_flat(&first) && first.in_channels * first.kernel[1] * first.kernel[2] <= MOST_GATHERED;
}

/* The first conv, and the image of its input */
static void read_first(expand *e, const anex_node *onto, const anex_tensor *made) {
    expand_read(onto, made, &e->first);
    const conv_arguments *f = &e->first;
    e->k = f->in_channels * f->kernel[1] * f->kernel[2];
    e->gathers = !expand_is_pointwise(f);
    if (!e->gathers) return;
    conv_axis axis[AXES];
    for (int32_t i = 0; i < AXES; i++)
        axis[i] = (conv_axis){f->in[i], f->out[i], f->kernel[i], -f->before[i], f->dilation[i], f->stride[i]};
    conv_image_fit(&e->image, axis);
    conv_image_finish(&e->image, f->stride[2]);
}

void expand_make_taps(expand *e) {
    const conv_arguments *f = &e->first, *c = &e->c;
    for (int64_t t = 0; t < e->taps; t++)
        e->tap[t] = (t / c->kernel[2] * c->dilation[1] * e->pitch + t % c->kernel[2] * c->dilation[2]) * LANES;
    if (!e->gathers) return;
    conv_axis axis[AXES];
    for (int32_t i = 0; i < AXES; i++)
        axis[i] = (conv_axis){f->in[i], f->out[i], f->kernel[i], -f->before[i], f->dilation[i], f->stride[i]};
    e->gather = conv_gather_make(&e->image, axis, f->in_channels, e->sources);
}

anex_status conv_expand(anex_node *node, const conv_arguments *c, bool *joins, anex_error *error) {
    enum { X, WEIGHT, BIAS };
    anex_node *onto = node->onto;
    pair w = {.e = {.c = *c, .taps = c->kernel[1] * c->kernel[2]}};
    expand *e = &w.e;
    read_first(e, onto, node->in[X]);
    e->groups = (c->in_channels + LANES - 1) / LANES;
    e->reach = (c->kernel[1] - 1) * c->dilation[1] + 1, e->keep = anex_max(0, e->reach - c->stride[1]);
    const int64_t right = (c->out[2] - 1) * c->stride[2] + (c->kernel[2] - 1) * c->dilation[2] + 1;
    e->pitch = anex_max(c->before[2] + c->in[2], right);
    w.line = anex_max(1, anex_min(LINE / c->out[2], c->out[1]));
    w.lines = anex_align((size_t)((w.line * c->out[2] + RUN) * LANES) * sizeof(float));
    double cost = 0;
    *joins = choose_tasks(&w, &cost);
    if (!*joins) return ANEX_OK;
    const anex_tensor *weight = onto->in[WEIGHT];
    e->halves = FUSED && weight->dtype == ANEX_F16;
    const size_t lanes = (size_t)(e->groups * LANES), item = e->halves ? sizeof(half) : sizeof(float);
    const size_t taps = anex_align((size_t)(e->taps + e->k) * sizeof *e->tap), weights = lanes * (size_t)e->k * item;
    const size_t floats = lanes * (size_t)(e->taps + 2) * sizeof(float);
    anex_node_drop(onto, onto->state, onto->state_bytes);
    char *state = anex_node_state(onto, anex_align(sizeof w) + taps + weights + floats, error);
    if (!state) return ANEX_MEMORY;
    e->tap = (int64_t *)(void *)(state + anex_align(sizeof w)), e->sources = e->tap + e->taps;
    e->weights = (char *)e->tap + taps;
    e->bias = (float *)(void *)(e->weights + weights), e->last = e->bias + lanes, e->filters = e->last + lanes;
    expand_make_taps(e);
    expand_pack(weight, c->in_channels, e->k, e->halves, e->weights);
    expand_pack(node->in[WEIGHT], c->in_channels, e->taps, false, (char *)e->filters);
    expand_widen(e->bias, onto->in[BIAS]), expand_widen(e->last, node->in[BIAS]);
    memcpy(state, &w, sizeof w);
    onto->inner[0] = onto->epilogue, onto->epilogue = NULL;
    onto->ends_float = true, onto->ends_bytes = false;
    onto->scratch = e->scratch + w.lines, onto->shared = 0;
    onto->n_stages = 0;
    anex_add_stage(onto, convolve, c->batch * w.bands * w.strips, cost);
    node->joined = true;
    return ANEX_OK;
}
