/* Three convs as one node, the last one pointwise. Between the second and the third are vectors of channels too: nothing
   is turned into planes but the result.

   In rows: a task is a row of the result, and a slice's rows are made at once, from x to the result; each thread makes
   the rows that its taps share with its neighbour's for itself. Or in channels, where planes are small: a task of the
   first stage is a group of channels of whole planes, of the second some pixels of a group of the result's channels. */
#include "conv_expand.h"

#include <stdlib.h>

enum { CHUNK = 8 * PIXELS /* pixels of the result that wait to be stored */, UNIT = PIXELS / 2 /* in a task */ };
enum { MOST_SHARED = 4 << 20 /* bytes between the stages */ };
_Static_assert((int)RUN <= (int)PIXELS, "what the second conv makes too much is behind its pixels");

typedef struct narrow {
    expand e;
    int64_t out, groups; /* channels of the result; LANES at a time */
    char *weights;       /* [groups][e.c.in_channels][LANES] */
    float *bias;         /* [groups][LANES] */
    bool halves;
    int64_t hidden;      /* floats from a group of channels to the next, between the second and the third */
    size_t line;         /* bytes in scratch, behind those of `e` and, in rows, of all that is hidden */
} narrow;

/* ---- the third conv ------------------------------------------------------------------------- */

/* to[p][LANES] = bias + x[k / LANES][p][LANES] . weights[k][LANES] */
static inline __attribute__((always_inline)) void multiply(const int pixels, const int across, const bool halves,
                                                           const narrow *w, const float *x, const char *weights,
                                                           const float *bias, float *to) {
    vf sum[PIXELS][ACROSS];
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) sum[p][v] = vf_load(bias + v * VF);
    for (int64_t left = w->e.c.in_channels; left > 0; left -= LANES, x += w->hidden)
        for (int64_t i = 0; i < anex_min(left, LANES); i++, weights += LANES * (halves ? 2 : 4)) {
            vf y[ACROSS];
#pragma GCC unroll 2
            for (int v = 0; v < across; v++) y[v] = vf_load_as(weights, halves, v * VF);
#pragma GCC unroll 16
            for (int p = 0; p < pixels; p++) {
                vf value = vf_set(x[p * LANES + i]);
#pragma GCC unroll 2
                for (int v = 0; v < across; v++) sum[p][v] = vf_fma(value, y[v], sum[p][v]);
            }
        }
#pragma GCC unroll 16
    for (int p = 0; p < pixels; p++)
#pragma GCC unroll 2
        for (int v = 0; v < across; v++) vf_store(to + p * LANES + v * VF, sum[p][v]);
}

typedef void product(const narrow *w, const float *x, const char *weights, const float *bias, float *to);
#define PRODUCT(name, pixels, across, halves)                                                                       \
    static void name(const narrow *w, const float *x, const char *weights, const float *bias, float *to) {          \
        multiply(pixels, across, halves, w, x, weights, bias, to);                                                  \
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

/* n pixels of a group of the result's channels, from `hidden` of the first of them; it is element `first` of a plane */
static void finish(const anex_node *node, const narrow *w, int64_t batch, int64_t group, int64_t first, int64_t n,
                   const float *hidden, float *line) {
    const int64_t plane = w->e.c.out[1] * w->e.c.out[2], channels = anex_min(LANES, w->out - group * LANES);
    const char *weights = w->weights + group * w->e.c.in_channels * LANES * (w->halves ? 2 : 4);
    const int64_t at = (batch * w->out + group * LANES) * plane + first;
    const bool alone = anex_epilogue_alone(node->epilogue);
    anex_plain plain;
    const bool ended = alone && !anex_epilogue_plain(node, &plain);
    for (int64_t done = 0; done < n; done += CHUNK) {
        const int64_t pixels = anex_min(CHUNK, n - done);
        for (int64_t p = 0; p < pixels; p += PIXELS)
            products[expand_size(pixels - p)][w->halves][channels > VF](w, hidden + (done + p) * LANES, weights,
                                                                        w->bias + group * LANES, line + p * LANES);
        if (ended) anex_epilogue_lanes(node->epilogue, line, pixels * LANES);
        expand_store(node, channels, plane, at + done, pixels, ended, line);
    }
}

/* ---- in rows -------------------------------------------------------------------------------- */

static float *line_of(const narrow *w, const anex_slice *slice, size_t hidden) {
    float *line = (float *)(void *)((char *)slice->scratch + w->e.scratch + hidden);
    memset(line, 0, w->line); /* lanes that nobody needs are numbers all the same */
    return line;
}

static size_t hidden_bytes(const narrow *w) { return anex_align((size_t)(w->e.groups * w->hidden) * sizeof(float)); }

/* task: an output row of a batch */
static void convolve_rows(const anex_node *node, const anex_slice *slice) {
    const narrow *w = node->state;
    const expand *e = &w->e;
    const int64_t high = e->c.out[1], width = e->c.out[2];
    float *hidden = (float *)(void *)((char *)slice->scratch + e->scratch);
    float *line = line_of(w, slice, hidden_bytes(w));
    for (int64_t row = slice->begin, rows; row < slice->end; row += rows) {
        const int64_t h = row % high, left = anex_min(slice->end - row, high - h);
        const int64_t pieces = (left + e->most - 1) / e->most;
        rows = (left + pieces - 1) / pieces;
        const expand_band b = expand_begin(node, e, row / high, h, h + rows, h && row > slice->begin, slice->scratch);
        for (int64_t g = 0; g < e->groups; g++) {
            expand_group(node, e, &b, g);
            expand_filter(e, &b, g, h, rows, node->inner[1], hidden + g * w->hidden);
        }
        for (int64_t g = 0; g < w->groups; g++)
            finish(node, w, row / high, g, h * width, rows * width, hidden, line);
    }
}

/* ---- in channels ---------------------------------------------------------------------------- */

/* task: a group of channels of a batch */
static void convolve_groups(const anex_node *node, const anex_slice *slice) {
    const narrow *w = node->state;
    const expand *e = &w->e;
    expand_band b = {0};
    for (int64_t task = slice->begin; task < slice->end; task++) {
        const int64_t group = task % e->groups, batch = task / e->groups;
        if (task == slice->begin || !group) b = expand_begin(node, e, batch, 0, e->c.out[1], false, slice->scratch);
        expand_group(node, e, &b, group);
        expand_filter(e, &b, group, 0, e->c.out[1], node->inner[1], (float *)slice->shared + task * w->hidden);
    }
}

/* task: UNIT pixels of a group of the result's channels of a batch; those that follow each other in a slice are one */
static void convolve_pixels(const anex_node *node, const anex_slice *slice) {
    const narrow *w = node->state;
    const expand *e = &w->e;
    const int64_t pixels = e->c.out[1] * e->c.out[2], units = (pixels + UNIT - 1) / UNIT;
    float *line = line_of(w, slice, 0);
    for (int64_t task = slice->begin, n; task < slice->end; task += n) {
        const int64_t unit = task % units, group = task / units % w->groups, batch = task / units / w->groups;
        n = anex_min(slice->end - task, units - unit);
        const int64_t first = unit * UNIT, count = anex_min((unit + n) * UNIT, pixels) - first;
        const float *hidden = (const float *)slice->shared + batch * e->groups * w->hidden + first * LANES;
        finish(node, w, batch, group, first, count, hidden, line);
    }
}

/* ---- plan ----------------------------------------------------------------------------------- */

static double finish_cost(const narrow *w, double outputs) {
    const double vectors = (double)((w->out + VF - 1) / VF);
    return 0.25 * outputs * vectors * (0.52 * (double)w->e.c.in_channels + 8);
}

/* Nanoseconds of the rows h0 .. h1-1 */
static double rows_cost(const narrow *w, int64_t h0, int64_t h1) {
    const expand *e = &w->e;
    const double outputs = (double)((h1 - h0) * e->c.out[2]);
    const double pixels = (double)(expand_input_rows(e, h0, h1) * e->c.in[2]);
    return expand_cost(e, pixels, outputs) + expand_fetch_cost(e, pixels) + finish_cost(w, outputs);
}

/* Of a run on so many threads */
static double cost_in_rows(const narrow *w, int64_t threads) {
    const int64_t high = w->e.c.out[1], rows = w->e.c.batch * high, share = (rows + threads - 1) / threads;
    if (share >= high) return rows_cost(w, 0, high) * (double)share / (double)high;
    const int64_t middle = (high - share) / 2; /* whose neighbours are on both sides, if anybody's */
    return rows_cost(w, threads > 2 ? middle : 0, share + (threads > 2 ? middle : 0));
}

static double cost_in_channels(const narrow *w, int64_t threads) {
    const expand *e = &w->e;
    const int64_t tasks = e->c.batch * e->groups, share = (tasks + threads - 1) / threads;
    const double join = threads > 1 ? 3000 : 0, outputs = (double)(e->c.out[1] * e->c.out[2]);
    const double pixels = (double)(e->c.in[1] * e->c.in[2]), first = expand_cost(e, pixels, outputs);
    return join + first * (double)share / (double)e->groups + expand_fetch_cost(e, pixels) +
           finish_cost(w, outputs) * (double)e->c.batch / (double)threads;
}

/* What a run takes on one thread and on several, with the weights that conv_uneven has */
static double on_threads(double (*of)(const narrow *, int64_t), const narrow *w) {
    return 0.4 * of(w, 1) + 0.3 * of(w, 2) * 2 + 0.2 * of(w, 4) * 4 + 0.1 * of(w, 8) * 8;
}

/* Scratch for as many rows at a time as it holds; false: for none */
static bool fit_rows(narrow *w) {
    expand *e = &w->e;
    for (int64_t most = e->c.out[1]; most > 0; most--) {
        w->hidden = (most * e->c.out[2] + PIXELS) * LANES;
        if (expand_set_rows(e, most) + hidden_bytes(w) + w->line <= EXPAND_HELD) return true;
    }
    return false;
}

typedef enum way { APART, IN_ROWS, IN_CHANNELS } way;

static way choose(narrow *w) {
    narrow rows = *w, channels = *w;
    const int64_t high = w->e.c.out[1];
    channels.hidden = (high * w->e.c.out[2] + PIXELS) * LANES;
    bool whole = expand_set_rows(&channels.e, high) + w->line <= EXPAND_HELD &&
                 (size_t)w->e.c.batch * hidden_bytes(&channels) <= MOST_SHARED;
    bool some = fit_rows(&rows);
    if (whole && some) some = on_threads(cost_in_rows, &rows) < on_threads(cost_in_channels, &channels);
    if (!whole && !some) return APART;
    *w = some ? rows : channels;
    return some ? IN_ROWS : IN_CHANNELS;
}

bool conv_narrow_suits(const anex_node *node, const conv_arguments *c) {
    enum { X };
    conv_arguments read;
    return !node->strict && node->onto && node->through == X && expand_of(node->onto) &&
           anex_epilogue_alone(node->onto->epilogue) && c->out_channels >= VF / 2 &&
           expand_read(node, node->out[0], &read) && expand_is_pointwise(&read);
}

/* The state of `onto` becomes one with `more` bytes, that are returned, behind the arrays of its two convs. */
static char *grow_state(anex_node *onto, expand *e, size_t more, anex_error *error) {
    const char *first = (const char *)e->tap;
    const ptrdiff_t weights = e->weights - first, bias = (char *)e->bias - first, last = (char *)e->last - first;
    const ptrdiff_t filters = (char *)e->filters - first, sources = (char *)e->sources - first;
    const size_t bytes = onto->state_bytes - (size_t)(first - (const char *)onto->state);
    char *copy = malloc(bytes);
    if (!copy) return NULL;
    memcpy(copy, first, bytes);
    anex_node_drop(onto, onto->state, onto->state_bytes);
    char *state = anex_node_state(onto, anex_align(sizeof(narrow)) + anex_align(bytes) + more, error);
    if (state) {
        char *to = state + anex_align(sizeof(narrow));
        memcpy(to, copy, bytes);
        e->tap = (int64_t *)(void *)to, e->weights = to + weights;
        e->bias = (float *)(void *)(to + bias), e->last = (float *)(void *)(to + last);
        e->filters = (float *)(void *)(to + filters), e->sources = (int64_t *)(void *)(to + sources);
        expand_make_taps(e); /* another number of rows */
    }
    free(copy);
    return state ? state + onto->state_bytes - more : NULL;
}

anex_status conv_narrow(anex_node *node, const conv_arguments *c, bool *joins, anex_error *error) {
    enum { WEIGHT = 1, BIAS };
    anex_node *onto = node->onto;
    narrow w = {.e = *expand_of(onto), .out = c->out_channels, .groups = (c->out_channels + LANES - 1) / LANES};
    w.line = anex_align((size_t)CHUNK * LANES * sizeof(float));
    const way chosen = choose(&w);
    *joins = chosen != APART;
    if (!*joins) return ANEX_OK;
    const anex_tensor *weight = node->in[WEIGHT];
    w.halves = FUSED && weight->dtype == ANEX_F16;
    const size_t lanes = (size_t)(w.groups * LANES), weights = lanes * (size_t)c->in_channels * (w.halves ? 2 : 4);
    w.weights = grow_state(onto, &w.e, weights + lanes * sizeof(float), error);
    if (!w.weights) return anex_node_fail(node, error, ANEX_MEMORY, "no memory to join it to the conv before it");
    w.bias = (float *)(void *)(w.weights + weights);
    expand_pack(weight, w.out, c->in_channels, w.halves, w.weights);
    expand_widen(w.bias, node->in[BIAS]);
    memcpy(onto->state, &w, sizeof w);
    onto->inner[1] = onto->epilogue, onto->epilogue = NULL;
    onto->scratch = w.e.scratch + w.line;
    onto->n_stages = 0;
    const double outputs = (double)(c->out[1] * c->out[2]), pixels = (double)(w.e.c.in[1] * w.e.c.in[2]);
    if (chosen == IN_ROWS) {
        onto->scratch += hidden_bytes(&w);
        anex_add_stage(onto, convolve_rows, c->batch * c->out[1], rows_cost(&w, 0, c->out[1]) / (double)c->out[1]);
        onto->stage[0].linked = true;
    } else {
        onto->shared = (size_t)c->batch * hidden_bytes(&w);
        const double all = expand_cost(&w.e, pixels, outputs);
        anex_add_stage(onto, convolve_groups, c->batch * w.e.groups, all / (double)w.e.groups);
        onto->stage[0].linked = true;
        const int64_t tasks = c->batch * w.groups * ((c->out[1] * c->out[2] + UNIT - 1) / UNIT);
        anex_add_stage(onto, convolve_pixels, tasks, finish_cost(&w, outputs) * (double)c->batch / (double)tasks);
        onto->stage[1].linked = true;
    }
    node->joined = true;
    return ANEX_OK;
}
