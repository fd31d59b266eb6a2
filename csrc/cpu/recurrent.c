/* lstm, gru and rnn: x [s, b, I] to h [s, b, directions * H].

   The part of the gates that needs no state, x . weight_ih^T + bias, is one matrix product over all steps,
   kept in `shared`. Then each task takes up to four of the batch through time in one direction: the
   recurrent weights lie in panels of columns, read once a step for all of its rows.

   direction="reverse" gives its steps in the order they were taken, the last of x first; the second half of
   "bidirectional" gives them at their place in x. So does Core ML, say coremltools' tests. */
#include "axes.h"
#include "gemm.h"
#include "text.h"
#include "vmath.h"

enum { ROWS = 4, PANEL = 4 * VF };

typedef enum cell { RNN, GRU, LSTM } cell;
typedef enum activation { TANH, SIGMOID, HARD_SIGMOID, RELU, LINEAR } activation;

/* of one direction; offsets of floats from the end of the struct below */
typedef struct weights {
    int64_t ih;         /* panels of weight_ih^T, if packed */
    int64_t bias;       /* [gates * H] */
    int64_t first;      /* panels of weight_hh^T that multiply h: all of it, or a gru's r and z */
    int64_t second;     /* gru: those of o */
    int64_t inner_bias; /* gru: what is added to them inside, [H] */
    int64_t peephole;   /* lstm: [3 * H], or -1 */
} weights;

typedef struct recurrent {
    cell cell;
    int64_t s, b, i, h, gates; /* steps, batch, input size, hidden size, gates of H each */
    int32_t directions;
    bool reverse, sequence, reset_after, packed;
    int32_t weight_ih[2]; /* which inputs */
    activation recurrent, activation, cell_activation;
    float clip;
    gemm g;
    weights weights[2];
    _Alignas(ANEX_ALIGNMENT) float data[];
} recurrent;

/* ---- x . weight_ih^T + bias ----------------------------------------------------------------- */

static void input_work(const anex_node *node, const anex_slice *slice) {
    const recurrent *r = node->state;
    const anex_tensor *x = node->in[0];
    int64_t tiles = gemm_tiles(&r->g), n = r->gates * r->h;
    for (int64_t task = slice->begin, count; task < slice->end; task += count) {
        count = anex_min(slice->end - task, tiles - task % tiles);
        int64_t d = task / tiles;
        const weights *w = &r->weights[d];
        const anex_tensor *weight = node->in[r->weight_ih[d]];
        gemm_side a = {.matrix = {x->data, r->i, 1, x->dtype}};
        gemm_side b = {.matrix = {r->packed ? NULL : weight->data, 1, r->i, weight->dtype}};
        if (r->packed) b.panels = r->data + w->ih;
        gemm_output c = {.data = (float *)slice->shared + d * r->s * r->b * n, .row = n, .col = 1, .dtype = ANEX_F32,
                         .bias = r->data + w->bias, .bias_dtype = ANEX_F32};
        if (r->g.turned) {
            gemm_side turned = {.matrix = gemm_transposed(b.matrix)};
            b = (gemm_side){.matrix = gemm_transposed(a.matrix)}, a = turned;
            c.row = 1, c.col = n, c.bias_by_row = true;
        }
        gemm_tiles_run(&r->g, &a, &b, &c, task % tiles, count, slice->scratch);
    }
}

/* ---- a step --------------------------------------------------------------------------------- */

static int64_t padded(int64_t n) { return (n + PANEL - 1) / PANEL * PANEL; }

/* y[row][0 .. n-1] = h[row][0 .. k-1] . panels; y rows are n rounded up to PANEL apart */
static inline void multiply_rows(float *restrict y, const float *restrict panels, const float *restrict h, int64_t n,
                                 int64_t k, const int32_t rows, const bool once) {
    int64_t step = (n + PANEL - 1) / PANEL * PANEL;
    for (int64_t j = 0; j < n; j += PANEL, panels += PANEL * k) {
        vf sum[ROWS][4];
        for (int32_t r = 0; r < rows; r++)
            for (int32_t v = 0; v < 4; v++) sum[r][v] = vf_zero();
        for (int64_t i = 0; i < k; i++) {
            vf w[4];
            for (int32_t v = 0; v < 4; v++) w[v] = vf_load(panels + i * PANEL + v * VF);
            for (int32_t r = 0; r < rows; r++) {
                vf x = vf_set(h[r * k + i]);
                for (int32_t v = 0; v < 4; v++) sum[r][v] = vf_fma_if(once, x, w[v], sum[r][v]);
            }
        }
        for (int32_t r = 0; r < rows; r++)
            for (int32_t v = 0; v < 4; v++) vf_store(y + r * step + j + v * VF, sum[r][v]);
    }
}
static void multiply(bool strict, float *y, const float *panels, const float *h, int64_t n, int64_t k, int64_t rows) {
    if (strict && !FUSED) {
        for (int64_t r = 0; r < rows; r++) multiply_rows(y + r * padded(n), panels, h + r * k, n, k, 1, true);
        return;
    }
    switch (rows) {
    case 1: multiply_rows(y, panels, h, n, k, 1, false); break;
    case 2: multiply_rows(y, panels, h, n, k, 2, false); break;
    case 3: multiply_rows(y, panels, h, n, k, 3, false); break;
    default: multiply_rows(y, panels, h, n, k, 4, false);
    }
}
static void activate(activation f, float *restrict x, int64_t n) {
    switch (f) {
    case TANH:
        for (int64_t i = 0; i < n; i++) x[i] = vm_tanh(x[i]);
        break;
    case SIGMOID:
        for (int64_t i = 0; i < n; i++) x[i] = vm_sigmoid(x[i]);
        break;
    case HARD_SIGMOID:
        for (int64_t i = 0; i < n; i++) {
            float v = 0.2f * x[i] + 0.5f;
            v = v < 0 ? 0 : v;
            x[i] = v > 1 ? 1 : v;
        }
        break;
    case RELU:
        for (int64_t i = 0; i < n; i++) x[i] = x[i] < 0 ? 0 : x[i];
        break;
    case LINEAR: break;
    }
}

static void add(float *restrict y, const float *restrict x, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += x[i];
}
static void add_product(float *restrict y, const float *restrict a, const float *restrict b, int64_t n) {
    for (int64_t i = 0; i < n; i++) y[i] += a[i] * b[i];
}

/* x [3 H]: r, o, z before activation, of the input; y [2 H]: r and z of h. z, o become x's; r * h goes to `reset`. */
static void gru_reset(const recurrent *r, float *x, float *y, const float *h, float *restrict reset) {
    int64_t n = r->h;
    add(x, y, n);
    add(x + 2 * n, y + n, n);
    activate(r->recurrent, x, n);
    activate(r->recurrent, x + 2 * n, n);
    for (int64_t i = 0; i < n; i++) reset[i] = r->reset_after ? h[i] : x[i] * h[i];
}

/* y [H]: o of what gru_reset made */
static void gru_step(const recurrent *r, const weights *w, float *x, float *restrict y, float *restrict h) {
    int64_t n = r->h;
    const float *restrict inner = r->data + w->inner_bias, *restrict z = x + 2 * n;
    for (int64_t i = 0; i < n; i++) y[i] += inner[i];
    if (r->reset_after)
        add_product(x + n, x, y, n);
    else
        add(x + n, y, n);
    activate(r->activation, x + n, n);
    const float *restrict o = x + n;
    for (int64_t i = 0; i < n; i++) h[i] = (1 - z[i]) * o[i] + z[i] * h[i];
}

/* x [4 H]: i, f, o, z before activation, of the input; y: of h */
static void lstm_step(const recurrent *r, const weights *w, float *x, const float *y, float *restrict h,
                      float *restrict c) {
    int64_t n = r->h;
    const float *peephole = w->peephole < 0 ? NULL : r->data + w->peephole;
    add(x, y, 4 * n);
    if (peephole) {
        add_product(x, peephole, c, n);
        add_product(x + n, peephole + n, c, n);
    }
    activate(r->recurrent, x, 2 * n);
    activate(r->cell_activation, x + 3 * n, n);
    const float *restrict in = x, *restrict forget = x + n, *restrict z = x + 3 * n;
    float clip = r->clip;
    for (int64_t i = 0; i < n; i++) {
        float v = forget[i] * c[i] + in[i] * z[i];
        v = v > clip ? clip : v;
        c[i] = v < -clip ? -clip : v;
    }
    float *restrict out = x + 2 * n;
    if (peephole) add_product(out, peephole + 2 * n, c, n);
    activate(r->recurrent, out, n);
    memcpy(h, c, (size_t)n * sizeof *h);
    activate(r->activation, h, n);
    for (int64_t i = 0; i < n; i++) h[i] *= out[i];
}

/* ---- through time --------------------------------------------------------------------------- */

/* scratch, for ROWS rows: h [H], c [H], y [first panels], reset [H] */
static void steps_work(const anex_node *node, const anex_slice *slice) {
    const recurrent *r = node->state;
    int64_t n = r->h, wide = r->gates * n, blocks = (r->b + ROWS - 1) / ROWS, first = r->cell == GRU ? 2 * n : wide;
    float *h = slice->scratch, *c = h + ROWS * n, *y = c + ROWS * n, *reset = y + ROWS * padded(first);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t d = task / blocks, row = task % blocks * ROWS, rows = anex_min(ROWS, r->b - row);
        const weights *w = &r->weights[d];
        float *gates = (float *)slice->shared + d * r->s * r->b * wide;
        for (int64_t i = 0; i < rows; i++) {
            int64_t at = ((row + i) * r->directions + d) * n;
            ANEX_LOCAL(load)(h + i * n, node->in[1], at, n);
            if (r->cell == LSTM) ANEX_LOCAL(load)(c + i * n, node->in[2], at, n);
        }
        for (int64_t t = 0; t < r->s; t++) {
            bool backwards = r->reverse || d == 1;
            int64_t from = backwards ? r->s - 1 - t : t, to = d == 1 ? from : t;
            float *x = gates + (from * r->b + row) * wide;
            multiply(r->g.strict, y, r->data + w->first, h, first, n, rows);
            for (int64_t i = 0; i < rows; i++) {
                if (r->cell == LSTM) {
                    lstm_step(r, w, x + i * wide, y + i * padded(first), h + i * n, c + i * n);
                } else if (r->cell == RNN) {
                    add(x + i * wide, y + i * padded(first), n);
                    activate(r->activation, x + i * wide, n);
                    memcpy(h + i * n, x + i * wide, (size_t)n * sizeof *h);
                } else {
                    gru_reset(r, x + i * wide, y + i * padded(first), h + i * n, reset + i * n);
                }
            }
            if (r->cell == GRU) {
                multiply(r->g.strict, y, r->data + w->second, reset, n, n, rows);
                for (int64_t i = 0; i < rows; i++) gru_step(r, w, x + i * wide, y + i * padded(n), h + i * n);
            }
            if (r->sequence || t == r->s - 1)
                for (int64_t i = 0; i < rows; i++) {
                    int64_t at = ((r->sequence ? to : 0) * r->b + row + i) * r->directions + d;
                    ANEX_LOCAL(store)(node->out[0], at * n, h + i * n, n);
                }
        }
        for (int64_t i = 0; i < rows; i++) {
            int64_t at = ((row + i) * r->directions + d) * n;
            if (node->n_out > 1) ANEX_LOCAL(store)(node->out[1], at, h + i * n, n);
            if (node->n_out > 2) ANEX_LOCAL(store)(node->out[2], at, c + i * n, n);
        }
    }
}

/* ---- planning ------------------------------------------------------------------------------- */

/* Which inputs a direction has; -1 where an op has none. */
typedef struct inputs {
    int32_t ih, hh, bias, input_bias, peephole;
} inputs;

static anex_status read_activation(const anex_node *node, int32_t input, activation otherwise, activation *f,
                                   anex_error *error) {
    static const char *const words[] = {"tanh", "sigmoid", "hard_sigmoid", "relu", "linear",
                                        "scaled_tanh", "sigmoid_hard"};
    static const activation meanings[] = {TANH, SIGMOID, HARD_SIGMOID, RELU, LINEAR, TANH, HARD_SIGMOID};
    *f = otherwise;
    if (!node->in[input]) return ANEX_OK;
    int32_t i = anex_text_in(anex_text(node->in[input], ""), words, 7);
    if (i < 0)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "activation \"%s\" is not one of %s, %s, %s, %s, %s, %s",
                              anex_text(node->in[input], ""), words[0], words[1], words[2], words[3], words[4],
                              words[5]);
    *f = meanings[i];
    return ANEX_OK;
}

static const anex_tensor *given(const anex_node *node, int32_t input) { return input < 0 ? NULL : node->in[input]; }

static anex_status check_shapes(const anex_node *node, const recurrent *r, const inputs *in, anex_error *error) {
    const struct { int32_t input; int64_t size; } wanted[] = {
        {1, r->b * r->directions * r->h}, {r->cell == LSTM ? 2 : -1, r->b * r->directions * r->h},
        {in->ih, r->gates * r->h * r->i}, {in->hh, r->gates * r->h * r->h},
        {in->bias, r->gates * r->h}, {in->input_bias, r->gates * r->h}, {in->peephole, 3 * r->h},
    };
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        const anex_tensor *t = given(node, wanted[i].input);
        bool required = wanted[i].input >= 0 && i < 4;
        /* the first rows of a larger initial state, as Core ML takes it: torch's packed sequences come with such */
        bool more = i < 2 && t && t->rank && anex_tensor_size(t) > wanted[i].size &&
                    t->shape[t->rank - 1] == r->directions * r->h;
        if (more) continue;
        if (required ? !t || anex_tensor_size(t) != wanted[i].size : t && anex_tensor_size(t) != wanted[i].size)
            return anex_node_fail(node, error, ANEX_SHAPE,
                                  "input %d must have %lld elements for s=%lld, b=%lld, I=%lld, H=%lld",
                                  wanted[i].input, (long long)wanted[i].size, (long long)r->s, (long long)r->b,
                                  (long long)r->i, (long long)r->h);
    }
    return ANEX_OK;
}

/* n rows of weight_hh [gates * H, H] as panels [n / PANEL][H][PANEL]; after `jump_at` rows, `jump` are left out */
static void pack_panels(float *to, const anex_tensor *weight, int64_t h, int64_t n, int64_t row_of_first,
                        int64_t jump_at, int64_t jump) {
    for (int64_t j = 0; j < n; j++) {
        int64_t row = row_of_first + j + (j >= jump_at ? jump : 0);
        float *panel = to + j / PANEL * PANEL * h + j % PANEL;
        for (int64_t k = 0; k < h; k++) panel[k * PANEL] = (float)anex_real(weight, row * h + k);
    }
}

static void pack_direction(const anex_node *node, recurrent *r, const inputs *in, weights *w) {
    int64_t n = r->gates * r->h, h = r->h;
    const anex_tensor *bias = given(node, in->bias), *input_bias = given(node, in->input_bias), *hh = node->in[in->hh];
    bool inside = r->cell == GRU && r->reset_after; /* then o's recurrent bias is added before r multiplies */
    for (int64_t i = 0; i < n; i++) {
        bool o = i >= h && i < 2 * h;
        double value = bias ? anex_real(bias, i) : 0;
        if (inside && o) r->data[w->inner_bias + i - h] = (float)value;
        r->data[w->bias + i] = (float)((inside && o ? 0 : value) + (input_bias ? anex_real(input_bias, i) : 0));
    }
    if (r->cell == GRU) { /* r, o, z */
        pack_panels(r->data + w->first, hh, h, 2 * h, 0, h, h);
        pack_panels(r->data + w->second, hh, h, h, h, h, 0);
    } else {
        pack_panels(r->data + w->first, hh, h, n, 0, n, 0);
    }
    if (w->peephole >= 0)
        for (int64_t i = 0; i < 3 * h; i++) r->data[w->peephole + i] = (float)anex_real(node->in[in->peephole], i);
    if (r->packed) {
        const anex_tensor *ih = node->in[in->ih];
        gemm_matrix b = {ih->data, 1, r->i, ih->dtype};
        gemm_make_panels(&b, r->i, n, r->data + w->ih);
    }
}

static int64_t take(int64_t *next, int64_t floats) {
    int64_t at = *next;
    *next += (int64_t)anex_align(4 * (size_t)floats) / 4;
    return at;
}

static anex_status plan(anex_node *node, recurrent *like, const inputs *in, anex_error *error) {
    const anex_tensor *x = node->in[0], *hh = node->in[in->hh];
    if (x->rank != 3 || !hh || hh->rank != 2)
        return anex_node_fail(node, error, ANEX_SHAPE, "x must be [s, b, I] and weight_hh [gates * H, H]");
    recurrent *r = like;
    r->s = x->shape[0], r->b = x->shape[1], r->i = x->shape[2], r->h = hh->shape[1];
    for (int32_t d = 0; d < r->directions; d++) {
        anex_status status = check_shapes(node, r, &in[d], error);
        if (status) return status;
        r->weight_ih[d] = in[d].ih;
    }
    int64_t n = r->gates * r->h, next = 0;
    gemm_plan(&r->g, r->directions, r->s * r->b, n, r->i, GEMM_BY_K, GEMM_CONSTANT);
    r->g.strict = node->strict;
    r->packed = !r->g.turned;
    for (int32_t d = 0; d < r->directions; d++) {
        weights *w = &r->weights[d];
        size_t panels = r->packed ? gemm_panels_bytes(r->i, n, node->in[in[d].ih]->dtype) : 0;
        w->ih = take(&next, (int64_t)(panels + 3) / 4);
        w->bias = take(&next, n);
        w->first = take(&next, padded(r->cell == GRU ? 2 * r->h : n) * r->h);
        w->second = r->cell == GRU ? take(&next, padded(r->h) * r->h) : 0;
        w->inner_bias = r->cell == GRU ? take(&next, r->h) : 0;
        w->peephole = given(node, in[d].peephole) ? take(&next, 3 * r->h) : -1;
    }
    r = anex_node_state(node, sizeof *r + 4 * (size_t)next, error);
    if (!r) return ANEX_MEMORY;
    *r = *like;
    for (int32_t d = 0; d < r->directions; d++) {
        pack_direction(node, r, &in[d], &r->weights[d]);
        const int32_t read[] = {r->packed ? in[d].ih : -1, in[d].hh, in[d].bias, in[d].input_bias, in[d].peephole};
        for (int32_t i = 0; i < 5; i++)
            if (read[i] >= 0) node->packed |= 1u << read[i];
    }
    int64_t first = r->cell == GRU ? 2 * r->h : n, blocks = (r->b + ROWS - 1) / ROWS;
    size_t steps = 4 * ROWS * (size_t)(3 * r->h + padded(anex_max(first, r->h)));
    node->scratch = steps > gemm_scratch(&r->g) ? steps : gemm_scratch(&r->g);
    node->shared = 4 * (size_t)(r->directions * r->s * r->b * n);
    anex_add_stage(node, input_work, r->directions * gemm_tiles(&r->g), r->g.cost);
    double step = 50 + (double)(n * r->h) * 0.05 * (double)anex_min(ROWS, r->b) + 2.0 * (double)n;
    anex_add_stage(node, steps_work, r->directions * blocks, step * (double)r->s);
    return ANEX_OK;
}

static anex_status read_direction(const anex_node *node, int32_t direction, int32_t sequence, bool both, recurrent *r,
                                  anex_error *error) {
    static const char *const words[] = {"forward", "reverse", "bidirectional"};
    int32_t i = anex_text_in(anex_text(node->in[direction], "forward"), words, both ? 3 : 2);
    if (i < 0)
        return anex_node_fail(node, error, ANEX_INVALID, "direction is \"%s\", not one of forward, reverse%s",
                              anex_text(node->in[direction], ""), both ? ", bidirectional" : "");
    r->reverse = i == 1, r->directions = i == 2 ? 2 : 1;
    r->sequence = anex_int(node->in[sequence], 0);
    return ANEX_OK;
}

ANEX_KERNEL(rnn) {
    enum { X, H, IH, HH, BIAS, DIRECTION, SEQUENCE, ACTIVATION };
    recurrent r = {.cell = RNN, .gates = 1};
    anex_status status = anex_need_constants(node, ~3u, error);
    if (!status) status = read_direction(node, DIRECTION, SEQUENCE, false, &r, error);
    if (!status) status = read_activation(node, ACTIVATION, TANH, &r.activation, error);
    return status ? status : plan(node, &r, (const inputs[]){{IH, HH, BIAS, -1, -1}}, error);
}

ANEX_KERNEL(gru) {
    enum { X, H, IH, HH, BIAS, DIRECTION, SEQUENCE, RECURRENT, ACTIVATION, RESET_AFTER, INPUT_BIAS };
    recurrent r = {.cell = GRU, .gates = 3, .reset_after = anex_int(node->in[RESET_AFTER], 0)};
    anex_status status = anex_need_constants(node, ~3u, error);
    if (!status) status = read_direction(node, DIRECTION, SEQUENCE, false, &r, error);
    if (!status) status = read_activation(node, RECURRENT, SIGMOID, &r.recurrent, error);
    if (!status) status = read_activation(node, ACTIVATION, TANH, &r.activation, error);
    return status ? status : plan(node, &r, (const inputs[]){{IH, HH, BIAS, INPUT_BIAS, -1}}, error);
}

ANEX_KERNEL(lstm) {
    enum { X, H, C, IH, HH, BIAS, PEEPHOLE, IH_BACK, HH_BACK, BIAS_BACK, PEEPHOLE_BACK, DIRECTION, SEQUENCE, RECURRENT,
           CELL, ACTIVATION, CLIP };
    recurrent r = {.cell = LSTM, .gates = 4, .clip = (float)anex_float(node->in[CLIP], INFINITY)};
    anex_status status = anex_need_constants(node, ~7u, error);
    if (!status) status = read_direction(node, DIRECTION, SEQUENCE, true, &r, error);
    if (!status) status = read_activation(node, RECURRENT, SIGMOID, &r.recurrent, error);
    if (!status) status = read_activation(node, CELL, TANH, &r.cell_activation, error);
    if (!status) status = read_activation(node, ACTIVATION, TANH, &r.activation, error);
    const inputs in[] = {{IH, HH, BIAS, -1, PEEPHOLE}, {IH_BACK, HH_BACK, BIAS_BACK, -1, PEEPHOLE_BACK}};
    return status ? status : plan(node, &r, in, error);
}
