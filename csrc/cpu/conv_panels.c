/* conv with constant weights as a product of panels: ROWS output channels times WIDTH outputs at a time, finished in
   registers.

   Weights lie in panels [out / ROWS][k][ROWS] from compile time on. A task takes some output channels of some panels
   of outputs, and makes panels [depth][WIDTH] of their inputs, `depth` <= DEEP of k at a time: of x itself where taps
   are 1x1, else of the im2col matrix. What is left of the outputs, FEW at most, is done with channels as lanes.

   Not for strict plans: an element is added up in the order of k, but in other pieces than in gemm.c. */
#include "conv.h"

#if defined(__AVX512F__) || defined(__aarch64__)
enum { ROWS = 8 };
#else
enum { ROWS = 4 };
#endif
enum { ACROSS = 3, WIDTH = ACROSS * VF, FEW = 4, DEEP = 512 };
enum { HELD = 96 << 10 /* floats that a task keeps in the second cache */ };
enum { MOST_TASKS = 256, START = 400 /* cycles of a task */, PIECE = 64, GATHERED = 2 << 20 /* bytes, at most */,
       LARGE = 1 << 20 /* bytes of weights */ };
_Static_assert((int)ROWS <= (int)MR, "a panel's rows are a tile's");

typedef struct panels {
    conv_arguments c;
    conv_image image;
    conv_gather gather;
    bool pointwise, gathered; /* all panels of outputs are made by a stage of their own */
    int64_t k, outputs, in_group, out_group; /* of one part: a group of a batch */
    int64_t block;                           /* of k */
    int64_t whole, groups;                   /* panels of outputs but for the last few; panels of weights */
    int64_t span, spans;                     /* panels of outputs in a task */
    int64_t strip, strips;                   /* panels of weights in a task */
    int64_t *tap;                            /* [k] */
    char *weights;                           /* [c.groups][groups][k][ROWS] of the weight's dtype */
    size_t columns, sums, rows;              /* bytes in scratch */
    size_t images, matrix;                   /* bytes in `shared`: of all images, of the gathered panels of a part */
} panels;

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* ---- products ------------------------------------------------------------------------------- */

typedef struct piece { /* ROWS x WIDTH results or fewer: where they go */
    const gemm_output *to;
    anex_plain plain;
    int64_t i, rows, j, cols;
    const char *next; /* weights that are used after this piece, as many: they are fetched meanwhile */
    int64_t step;     /* bytes of them for one k */
} piece;

/* sum = prior + A [ROWS, depth] . B [depth, across * VF]; a[depth][ROWS], b[depth][WIDTH] */
static inline __attribute__((always_inline)) void multiply(const int across, int64_t depth, const float *a,
                                                           const float *b, const float *prior, const piece *p,
                                                           vf sum[ROWS][ACROSS]) {
    const char *next = p->next;
    const int64_t step = p->step;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int v = 0; v < across; v++) sum[i][v] = vf_zero();
    for (int64_t k = 0; k < depth; k++, a += ROWS, b += WIDTH, next += step) {
        vf y[ACROSS];
        __builtin_prefetch(next);
#pragma GCC unroll 4
        for (int v = 0; v < across; v++) y[v] = vf_load(b + v * VF);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            vf x = vf_set(a[i]);
#pragma GCC unroll 4
            for (int v = 0; v < across; v++) sum[i][v] = vf_fma(x, y[v], sum[i][v]);
        }
    }
    if (!prior) return;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int v = 0; v < across; v++) sum[i][v] = vf_load(prior + i * WIDTH + v * VF) + sum[i][v];
}

static inline __attribute__((always_inline)) void keep(const int across, vf sum[ROWS][ACROSS], float *to) {
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 4
        for (int v = 0; v < across; v++) vf_store(to + i * WIDTH + v * VF, sum[i][v]);
}

/* Bias, residual and bounds, to where the results belong */
static inline __attribute__((always_inline)) void finish(const int across, const bool narrow, const piece *p,
                                                         vf sum[ROWS][ACROSS]) {
    const gemm_output *to = p->to;
    const vf low = vf_set(p->plain.low), high = vf_set(p->plain.high);
    const bool halves = p->plain.dtype == ANEX_F16;
    const int64_t n = p->cols - (across - 1) * VF; /* of the last vectors */
    float bias[VF < (int)ROWS ? (int)ROWS : VF] = {0};
    if (to->bias) gemm_widen(bias, to->bias, to->bias_dtype, p->i, p->rows);
    int64_t at = p->i * to->row + p->j;
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++, at += to->row) {
        if (i >= p->rows) return;
#pragma GCC unroll 4
        for (int v = 0; v < across; v++) {
            const bool full = v < across - 1 || n == VF;
            vf x = sum[i][v] + vf_set(bias[i]);
            if (p->plain.residual && full)
                x = x + vf_load_as(p->plain.residual, halves, to->first + at + v * VF);
            else if (p->plain.residual)
                x = x + vf_load_some((const char *)p->plain.residual + (to->first + at + v * VF) * (halves ? 2 : 4),
                                     halves, n);
            x = vf_min(high, vf_max(low, x));
            if (full)
                vf_store_as(to->data, narrow, at + v * VF, x);
            else
                vf_store_some((char *)to->data + (at + v * VF) * (narrow ? 2 : 4), narrow, x, n);
        }
    }
}

/* `sums`: prior ones if `more`, and where those go that are not finished yet */
typedef void product(int64_t depth, const float *a, const float *b, bool more, float *sums, const piece *p);

#define PRODUCT(name, across, end)                                                                       \
    static void name(int64_t depth, const float *a, const float *b, bool more, float *sums, const piece *p) { \
        vf sum[ROWS][ACROSS];                                                                            \
        multiply(across, depth, a, b, more ? sums : NULL, p, sum);                                       \
        end;                                                                                             \
    }
#define PRODUCTS(across)                                           \
    PRODUCT(keep_##across, across, keep(across, sum, sums))        \
    PRODUCT(halves_##across, across, finish(across, true, p, sum)) \
    PRODUCT(floats_##across, across, finish(across, false, p, sum))
PRODUCTS(1)
PRODUCTS(2)
PRODUCTS(3)
static product *const products[][3] = {
    {keep_1, halves_1, floats_1}, {keep_2, halves_2, floats_2}, {keep_3, halves_3, floats_3}};

/* The same of FEW columns or fewer, b[depth][FEW], with rows as lanes; the k of each turn has sums of its own, that
   wait for nobody. */
typedef float column __attribute__((vector_size(ROWS * sizeof(float))));

static inline __attribute__((always_inline)) void add_few(const int cols, const float *a, const float *b, column *sum) {
    column x;
    memcpy(&x, a, sizeof x);
#pragma GCC unroll 4
    for (int s = 0; s < cols; s++) sum[s] = sum[s] + x * b[s];
}

static inline __attribute__((always_inline)) void multiply_few(const int cols, const int turns, int64_t depth,
                                                               const float *a, const float *b, bool more,
                                                               float *sums) {
    column sum[4][FEW] = {0};
    int64_t k = 0;
    for (; k + turns <= depth; k += turns)
#pragma GCC unroll 4
        for (int t = 0; t < turns; t++) add_few(cols, a + (k + t) * ROWS, b + (k + t) * FEW, sum[t]);
    for (; k < depth; k++) add_few(cols, a + k * ROWS, b + k * FEW, sum[0]);
    for (int s = 0; s < cols; s++) {
        column all = sum[0][s];
        for (int t = 1; t < turns; t++) all += sum[t][s];
        for (int i = 0; i < ROWS; i++) sums[i * WIDTH + s] = (more ? sums[i * WIDTH + s] : 0) + all[i];
    }
}

static void few(int64_t depth, const float *a, const float *b, int64_t cols, bool more, float *sums) {
    switch (cols) {
    case 1: multiply_few(1, 4, depth, a, b, more, sums); break;
    case 2: multiply_few(2, 4, depth, a, b, more, sums); break;
    case 3: multiply_few(3, 2, depth, a, b, more, sums); break;
    default: multiply_few(4, 2, depth, a, b, more, sums);
    }
}

/* What does not end in registers: any epilogue, and the few */
static void finish_sums(const piece *p, const float *sums) {
    float tile[MR * NR];
    for (int64_t s = 0; s < p->cols; s += NR) {
        int64_t n = anex_min(NR, p->cols - s);
        for (int64_t r = 0; r < p->rows; r++)
            memcpy(tile + r * NR, sums + r * WIDTH + s, (size_t)n * sizeof *tile);
        gemm_output to = *p->to; /* whose tiles start where its panels do */
        to.data = (char *)to.data + (p->j + s) * (int64_t)anex_itemsize(to.node->out[0]), to.first += p->j + s;
        gemm_store_tile(&to, tile, p->i, p->rows, 0, n);
    }
}

/* ---- a task --------------------------------------------------------------------------------- */

/* Rows k0 .. of x as floats, outputs j0 .. j1-1, into panels */
static void widen_columns(const panels *w, const char *x, bool halves, int64_t k0, int64_t depth, int64_t j0,
                          int64_t j1, float *to) {
    enum { AHEAD = 4, LINE = 64 };
    const int64_t step = w->outputs * (halves ? 2 : 4);
    const char *from = x + k0 * step;
    const int64_t few = (j1 - j0) % WIDTH <= FEW ? (j1 - j0) % WIDTH : 0;
    float *rest = to + (j1 - j0) / WIDTH * WIDTH * depth;
    j1 -= few;
    for (int64_t k = 0; k < depth; k++, from += step, rest += FEW) {
        const char *later = from + step * anex_min(AHEAD, depth - 1 - k);
        for (int64_t at = j0 * (halves ? 2 : 4); at < j1 * (halves ? 2 : 4); at += LINE) __builtin_prefetch(later + at);
        float *line = to + k * WIDTH;
        for (int64_t j = j0; j < j1; j += WIDTH, line += depth * WIDTH) {
            if (j + WIDTH <= j1) {
#pragma GCC unroll 4
                for (int v = 0; v < ACROSS; v++) vf_store(line + v * VF, vf_load_as(from, halves, j + v * VF));
                continue;
            }
            for (int64_t s = j; s < j1; s += VF)
                vf_store(line + s - j, s + VF <= j1 ? vf_load_as(from, halves, s)
                                                    : vf_load_some(from + s * (halves ? 2 : 4), halves, j1 - s));
        }
        for (int64_t s = 0; s < few; s++) rest[s] = gemm_one(from, halves ? ANEX_F16 : ANEX_F32, j1 + s);
    }
}

static void gather(const panels *w, void *shared, int64_t part, int64_t k0, int64_t depth, int64_t j0, int64_t j1,
                   float *to) {
    const conv_source source = {&w->gather, w->tap, (float *)shared + part * w->in_group * w->image.volume, ANEX_F32};
    for (int64_t j = j0; j < j1; j += WIDTH, to += depth * WIDTH)
        conv_pack(&source, to, j1 - j <= FEW ? FEW : WIDTH, k0, depth, j, anex_min(WIDTH, j1 - j));
}

static void fetch(const panels *w, const anex_node *node, void *shared, int64_t part, int64_t k0, int64_t depth,
                  int64_t j0, int64_t j1, float *to) {
    const anex_tensor *x = node->in[0];
    if (!w->pointwise) {
        gather(w, shared, part, k0, depth, j0, j1, to);
        return;
    }
    const char *data = (const char *)x->data + part * w->in_group * w->outputs * (int64_t)anex_itemsize(x);
    widen_columns(w, data, x->dtype == ANEX_F16, k0, depth, j0, j1, to);
}

static float *matrix_of(const panels *w, void *shared, int64_t part) {
    return (float *)(void *)((char *)shared + w->images + (size_t)part * w->matrix);
}

/* task: a panel of outputs of a part, PIECE of its k */
static void gather_work(const anex_node *node, const anex_slice *slice) {
    const panels *w = node->state;
    const int64_t pieces = ceil_div(w->k, PIECE), all = ceil_div(w->outputs, WIDTH);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t k0 = task % pieces * PIECE, panel = task / pieces % all, part = task / pieces / all;
        int64_t j = panel * WIDTH, j1 = anex_min(j + WIDTH, w->outputs);
        int64_t depth = anex_min(PIECE, w->k - k0), width = j1 - j <= FEW ? FEW : WIDTH;
        gather(w, slice->shared, part, k0, depth, j, j1, slice->scratch); /* which may write behind the last row */
        float *to = matrix_of(w, slice->shared, part) + panel * w->k * WIDTH + k0 * width;
        memcpy(to, slice->scratch, (size_t)(depth * width) * sizeof *to);
    }
}

typedef struct columns { /* panels of outputs, so many floats from one to the next; from k0 on */
    const float *data;
    int64_t panel, k0;
} columns;

/* All of a row of panels: `a` with each of the panels of outputs j0 .. j1-1 */
static void do_row(const piece *row, const anex_plain *plain, bool last, int64_t depth, const float *a,
                   const columns *b, bool more, float *sums, int64_t j0, int64_t j1) {
    for (int64_t j = j0, panel = 0; j < j1; j += WIDTH, panel++, sums += ROWS * WIDTH) {
        piece p = *row;
        p.j = j, p.cols = anex_min(WIDTH, j1 - j);
        const float *x = b->data + panel * b->panel + b->k0 * (p.cols <= FEW ? FEW : WIDTH);
        if (p.cols <= FEW) {
            few(depth, a, x, p.cols, more, sums);
        } else {
            if (plain) p.plain = *plain;
            product *const *kinds = products[(p.cols + VF - 1) / VF - 1];
            kinds[!last || !plain ? 0 : p.to->dtype == ANEX_F16 ? 1 : 2](depth, a, x, more, sums, &p);
            if (plain) continue;
        }
        if (last) finish_sums(&p, sums);
    }
}

/* task: a strip of panels of weights, for a span of panels of outputs of a part. Strips of the same span that one slice
   has are one. */
static void convolve(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, BIAS };
    const panels *w = node->state;
    const anex_tensor *bias = node->in[BIAS], *out = node->out[0];
    const bool narrow = node->in[WEIGHT]->dtype == ANEX_F16;
    const int64_t item = narrow ? 2 : 4;
    anex_plain ends;
    const anex_plain *plain = anex_is_float(out) && anex_epilogue_plain(node, &ends) ? &ends : NULL;
    float *fetched = slice->scratch, *sums = fetched + w->columns / sizeof(float);
    float *line = sums + w->sums / sizeof(float);
    for (int64_t task = slice->begin, n; task < slice->end; task += n) {
        int64_t strip = task % w->strips, span = task / w->strips % w->spans, part = task / w->strips / w->spans;
        int64_t group = part % w->c.groups, first = part * w->out_group * w->outputs;
        int64_t j0 = span * w->span * WIDTH, j1 = span + 1 == w->spans ? w->outputs : j0 + w->span * WIDTH;
        n = anex_min(slice->end - task, w->strips - strip);
        int64_t begin = strip * w->strip, end = anex_min(begin + n * w->strip, w->groups);
        int64_t wide = (j1 - j0 + WIDTH - 1) / WIDTH * WIDTH;
        gemm_output to = {.data = (char *)out->data + first * (int64_t)anex_itemsize(out), .dtype = out->dtype};
        to.row = w->outputs, to.col = 1, to.node = node, to.first = first;
        if (bias) {
            to.bias = (const char *)bias->data + group * w->out_group * (int64_t)anex_itemsize(bias);
            to.bias_dtype = bias->dtype, to.bias_by_row = true;
        }
        for (int64_t k0 = 0; !k0 || k0 < w->k; k0 += w->block) {
            int64_t depth = anex_min(w->block, w->k - k0);
            columns b = {.data = fetched, .panel = depth * WIDTH};
            if (w->gathered)
                b = (columns){matrix_of(w, slice->shared, part) + j0 * w->k, w->k * WIDTH, k0};
            else
                fetch(w, node, slice->shared, part, k0, depth, j0, j1, fetched);
            for (int64_t g = begin; g < end; g++) {
                const char *a = w->weights + ((group * w->groups + g) * w->k + k0) * ROWS * item;
                if (narrow) gemm_widen(line, a, ANEX_F16, 0, depth * ROWS);
                piece row = {.to = &to, .i = g * ROWS, .rows = anex_min(ROWS, w->out_group - g * ROWS)};
                row.next = a + (g + 1 < end ? w->k * ROWS * item : 0), row.step = ROWS * item;
                do_row(&row, plain, k0 + depth == w->k, depth, narrow ? line : (const float *)(const void *)a, &b,
                       k0 > 0, w->k > w->block ? sums + (g - begin) * ROWS * wide : sums, j0, j1);
            }
        }
    }
}

/* task: a channel of a batch */
static void spread(const anex_node *node, const anex_slice *slice) {
    const panels *w = node->state;
    conv_spread_widened(&w->image, node->in[0], slice);
}

/* ---- plan ----------------------------------------------------------------------------------- */

/* Cycles to gather all panels for one k */
static double gather_cycles(const panels *w) {
    int64_t runs = 2 + WIDTH / w->c.out[2]; /* of outputs in a panel that follow each other in the image */
    return (double)(w->whole * anex_max(2 * ACROSS, 2 * runs));
}

/* Cycles of a part in tasks of `span` by `strip` panels. */
static double cycles(const panels *w, int64_t span, int64_t strip) {
    const int64_t rest = w->outputs - w->whole * WIDTH;
    double vectors = (double)(w->whole * ACROSS), groups = (double)w->groups, spans = (double)ceil_div(w->whole, span);
    if (rest > 0) vectors += rest <= FEW ? 0.2 * (double)rest : (double)ceil_div(rest, VF);
    double multiply = vectors * groups * ROWS / 2, widen = 0.8 * ROWS / VF * groups * spans;
    double fetch = (w->pointwise ? vectors * 1.5 : gather_cycles(w)) *
                   (w->gathered ? 0 : (double)ceil_div(w->groups, strip));
    return (double)w->k * (multiply + fetch + widen) + vectors * groups * ROWS * 4;
}

double conv_uneven(int64_t tasks) {
    const double share[] = {0.4, 0.3, 0.2, 0.1};
    double sum = 0;
    for (int i = 0; i < 4; i++) {
        int64_t threads = 1 << i;
        sum += share[i] * (double)(ceil_div(tasks, threads) * threads) / (double)tasks;
    }
    return sum;
}

static void choose_tasks(panels *w, int64_t parts, double *cost) {
    const double cycle = 0.25; /* ns */
    double best = -1;
    for (int64_t spans = 1; spans <= w->whole; spans++)
        for (int64_t strips = 1; strips <= w->groups; strips++) {
            int64_t span = ceil_div(w->whole, spans), strip = ceil_div(w->groups, strips);
            int64_t tasks = parts * spans * strips;
            int64_t held = (span + 1) * WIDTH * (w->block + (w->k > w->block ? strip * ROWS : 0));
            if (spans * strips > MOST_TASKS && best >= 0) break; /* large images need more */
            if (ceil_div(w->whole, span) != spans || ceil_div(w->groups, strip) != strips) continue;
            if (held > HELD && span > 1) continue;
            double each = (cycles(w, span, strip) * (double)parts + START * (double)tasks) * conv_uneven(tasks);
            if (best < 0 || each < best) {
                best = each;
                w->span = span, w->spans = spans, w->strip = strip, w->strips = strips;
            }
        }
    *cost = cycle * cycles(w, w->span, w->strip) / (double)(w->spans * w->strips);
}

/* to[k][ROWS] = rows of k elements, all of a panel in one pass: it is written in its own order */
#define PACK(type)                                                                                     \
    static void pack_##type(type *restrict to, const type *restrict from, int64_t rows, int64_t k) {   \
        if (rows < ROWS) memset(to, 0, (size_t)(k * ROWS) * sizeof *to);                               \
        if (rows == ROWS)                                                                              \
            for (int64_t i = 0; i < k; i++)                                                            \
                for (int r = 0; r < ROWS; r++) to[i * ROWS + r] = from[r * k + i];                     \
        else                                                                                           \
            for (int64_t i = 0; i < k; i++)                                                            \
                for (int64_t r = 0; r < rows; r++) to[i * ROWS + r] = from[r * k + i];                 \
    }
PACK(half)
PACK(float)

static void pack_weights(const panels *w, const anex_tensor *weight) {
    for (int64_t group = 0; group < w->c.groups; group++)
        for (int64_t g = 0; g < w->groups; g++) {
            int64_t o = group * w->out_group + g * ROWS, rows = anex_min(ROWS, w->out_group - g * ROWS);
            int64_t to = (group * w->groups + g) * w->k * ROWS;
            if (weight->dtype == ANEX_F16)
                pack_half((half *)(void *)w->weights + to, (const half *)weight->data + o * w->k, rows, w->k);
            else
                pack_float((float *)(void *)w->weights + to, (const float *)weight->data + o * w->k, rows, w->k);
        }
}

bool conv_panels_suits(const anex_node *node, const conv_arguments *c, bool pointwise) {
    enum { WEIGHT = 1 };
    const anex_tensor *weight = node->in[WEIGHT];
    int64_t outputs = c->out[0] * c->out[1] * c->out[2], out_group = c->out_channels / c->groups;
    /* gemm.c is as fast with large matrices where they are, and programs, as for prompts of several lengths, share them */
    bool large = pointwise && anex_tensor_nbytes(weight) >= LARGE;
    return !node->strict && anex_is_constant(weight) && outputs >= VF && out_group >= ROWS / 2 && !large &&
           anex_tensor_size(weight) > 0;
}

anex_status conv_panels(anex_node *node, const conv_arguments *c, const conv_axis axis[AXES], bool pointwise,
                        anex_error *error) {
    enum { X, WEIGHT };
    const anex_tensor *weight = node->in[WEIGHT];
    panels w = {.c = *c, .pointwise = pointwise, .in_group = c->in_channels / c->groups};
    w.out_group = c->out_channels / c->groups, w.k = w.in_group * c->kernel[0] * c->kernel[1] * c->kernel[2];
    w.outputs = c->out[0] * c->out[1] * c->out[2];
    w.block = ceil_div(w.k, ceil_div(w.k, DEEP));
    int64_t rest = w.outputs % WIDTH;
    w.whole = w.outputs / WIDTH + (rest > FEW || w.outputs < WIDTH), w.groups = ceil_div(w.out_group, ROWS);
    const int64_t parts = c->batch * c->groups;
    w.matrix = anex_align((size_t)(w.k * w.outputs + w.k * WIDTH) * sizeof(float)); /* the last panel may be short */
    w.gathered = !pointwise && w.matrix * (size_t)parts <= GATHERED;
    double cost;
    choose_tasks(&w, parts, &cost);
    size_t taps = anex_align((size_t)w.k * sizeof *w.tap), item = anex_itemsize(weight);
    size_t weights = (size_t)(c->groups * w.groups * w.k * ROWS) * item;
    char *state = anex_node_room(node, anex_align(sizeof w) + taps + weights, error);
    if (!state) return ANEX_MEMORY;
    w.tap = (int64_t *)(void *)(state + anex_align(sizeof w)), w.weights = (char *)w.tap + taps;
    pack_weights(&w, weight);
    node->packed |= 1u << WEIGHT;
    if (!pointwise) {
        conv_image_fit(&w.image, axis);
        conv_image_finish(&w.image, axis[2].stride);
        w.gather = conv_gather_make(&w.image, axis, w.in_group, w.tap);
        int64_t channels = c->batch * c->in_channels;
        w.images = anex_align(((size_t)(channels * w.image.volume) + FILL_ROOM) * sizeof(float));
        node->shared = w.images + (w.gathered ? (size_t)parts * w.matrix : 0);
        anex_add_stage(node, spread, channels, 0.05 * (double)w.image.volume + 5);
        if (w.gathered)
            anex_add_stage(node, gather_work, parts * ceil_div(w.outputs, WIDTH) * ceil_div(w.k, PIECE),
                           0.25 * PIECE * gather_cycles(&w) / (double)w.whole);
    }
    int64_t wide = (w.span + 1) * WIDTH; /* with the few behind them */
    w.columns = anex_align((size_t)(wide * w.block + VF) * sizeof(float));
    w.sums = anex_align((size_t)(wide * ROWS * (w.k > w.block ? w.groups : 1)) * sizeof(float));
    w.rows = anex_align((size_t)(w.block * ROWS + VF) * sizeof(float));
    memcpy(state, &w, sizeof w);
    node->ends_float = node->ends_bytes = true;
    node->scratch = w.columns + w.sums + w.rows;
    anex_add_stage(node, convolve, parts * w.spans * w.strips, cost);
    return ANEX_OK;
}
