/* Attention of many queries: panels of NR, several at once, go through the keys in blocks.

   Each panel keeps per query the largest score so far, the sum of exponentials under it, and the output so far (the
   online softmax). Scores are held as [keys][queries]: both products then read a block of keys and values that all
   panels of a task share, and every step of the softmax is a loop over queries side by side. */
#include "attention.h"
#include "axes.h"
#include "vmath.h"

#if defined(__AVX512F__) || defined(__aarch64__)
enum { ROWS = 8 }; /* of a key's or value's matrix multiplied at once: these divide the sizes of heads */
#else
enum { ROWS = 4 };
#endif

enum {
    BLOCK = 128,  /* keys */
    PANELS = 8,   /* most in a task */
    TASKS = 16,   /* fewer are cut, for the threads */
    FEW_TASKS = 8, /* down to one panel: then a task fetches all keys for it alone */
    PAD = 16,     /* rows of a block are a multiple of it: of ROWS, and of VF */
    VECTORS = NR / VF
};
_Static_assert((int)VF <= 2 * (int)ROWS, "a vector of a column is in two panels at most");

typedef struct panel { /* NR queries on their way through the keys */
    int64_t first, lanes;
    attention_reach reach; /* keys that all of them see as they are; that some of them sees */
    bool begun;
    float *query, *out; /* [e][NR], [ev][NR] */
    float max[NR], sum[NR];
} panel;

typedef struct block { /* matrices of one block of keys, as rows or in panels [.. / ROWS][depth][ROWS] */
    float *data;
    int64_t row;   /* from row to row; 0: panels */
    int64_t depth; /* of panels */
} block;

typedef struct room { /* a task's scratch */
    float *queries, *outs, *scores, *mask;
    block key, value;
} room;

static int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

/* Room for `floats` from byte `*at` of `scratch` on; NULL: it is only measured. */
static float *take(char *scratch, size_t *at, int64_t floats) {
    const size_t begin = *at;
    *at += anex_align((size_t)floats * sizeof(float));
    return scratch ? (float *)(scratch + begin) : NULL;
}

/* The bytes of scratch that it takes */
static size_t lay_out(const attention *a, bool masked, room *r, char *scratch) {
    const int64_t panels = anex_min(PANELS, a->panels), keys = anex_min(BLOCK, round_up(a->keys, PAD));
    size_t at = 0;
    r->queries = take(scratch, &at, panels * a->e * NR + VF);
    r->outs = take(scratch, &at, panels * round_up(a->ev, PAD) * NR);
    r->scores = take(scratch, &at, keys * NR);
    r->key.data = take(scratch, &at, keys * a->e);
    r->value.data = take(scratch, &at, round_up(a->ev, PAD) * keys);
    r->mask = take(scratch, &at, masked ? 2 * NR * keys + VF : 0);
    return at;
}

/* ---- a block of keys ------------------------------------------------------------------------ */

/* VF elements of rows i .. at one place of depth, into panels */
static inline void split(float *to, int64_t depth, int64_t i, vf x) {
    float *panel = to + i / ROWS * depth * ROWS;
    if ((int)VF > (int)ROWS)
        vf_store_halves(panel, panel + depth * ROWS, x);
    else
        vf_store(panel + i % ROWS, x);
}

/* rows x depth of a matrix; rows that fill the last ROWS are 0. */
static void fetch(const gemm_matrix *x, block *b, int64_t i0, int64_t rows, int64_t k0, int64_t depth) {
    enum { AHEAD = 8, LINE = 64 };
    const int64_t item = x->dtype == ANEX_F16 ? 2 : 4;
    const char *from = (const char *)x->data + (i0 * x->row + k0 * x->col) * item;
    float *to = b->data;
    if (x->col == 1) {
        b->row = depth;
        for (int64_t i = 0; i < rows; i++, from += x->row * item, to += depth) {
            const char *later = from + anex_min(AHEAD, rows - 1 - i) * x->row * item;
            for (int64_t at = 0; at < depth * item; at += LINE) __builtin_prefetch(later + at);
            gemm_widen(to, from, x->dtype, 0, depth);
        }
        memset(to, 0, (size_t)((round_up(rows, ROWS) - rows) * depth) * sizeof *to);
        return;
    }
    b->row = 0, b->depth = depth;
    for (int64_t k = 0; k < depth; k++, from += x->col * item, to += ROWS) {
        const char *later = from + anex_min(AHEAD, depth - 1 - k) * x->col * item;
        for (int64_t at = 0; at < rows * item; at += LINE) __builtin_prefetch(later + at);
        int64_t i = 0;
        for (; i + VF <= rows; i += VF) split(to, depth, i, gemm_load(from, x->dtype, i));
        if (i < rows) split(to, depth, i, vf_load_some(from + i * item, x->dtype == ANEX_F16, rows - i)), i += VF;
        for (; i < round_up(rows, ROWS); i += VF) split(to, depth, i, vf_zero());
    }
}

/* to [ROWS][NR] = prior + A [ROWS, depth] . B [depth, NR], where A's element is a[i * row + k * col] */
static inline __attribute__((always_inline)) void micro(const bool once, int64_t depth, const float *a, int64_t row,
                                                        int64_t col, const float *b, const float *prior, float *to) {
    vf sum[ROWS][VECTORS];
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) sum[i][v] = vf_zero();
    for (int64_t k = 0; k < depth; k++) {
        vf y[VECTORS];
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) y[v] = vf_load(b + k * NR + v * VF);
#pragma GCC unroll 8
        for (int i = 0; i < ROWS; i++) {
            const vf x = vf_set(a[i * row + k * col]);
#pragma GCC unroll 2
            for (int v = 0; v < VECTORS; v++) sum[i][v] = vf_fma_if(once, x, y[v], sum[i][v]);
        }
    }
#pragma GCC unroll 8
    for (int i = 0; i < ROWS; i++)
#pragma GCC unroll 2
        for (int v = 0; v < VECTORS; v++) {
            if (prior) sum[i][v] = vf_load(prior + i * NR + v * VF) + sum[i][v];
            vf_store(to + i * NR + v * VF, sum[i][v]);
        }
}

/* to [rows][NR] (+)= a block . B [depth, NR] */
static inline __attribute__((always_inline)) void multiply_if(const bool once, const block *a, int64_t rows,
                                                              int64_t depth, const float *b, bool more, float *to) {
    for (int64_t i = 0; i < rows; i += ROWS, to += ROWS * NR)
        if (a->row)
            micro(once, depth, a->data + i * a->row, a->row, 1, b, more ? to : NULL, to);
        else
            micro(once, depth, a->data + i * a->depth, 1, ROWS, b, more ? to : NULL, to);
}

static void multiply(bool once, const block *a, int64_t rows, int64_t depth, const float *b, bool more, float *to) {
    if (once)
        multiply_if(true, a, rows, depth, b, more, to);
    else
        multiply_if(false, a, rows, depth, b, more, to);
}

/* ---- softmax -------------------------------------------------------------------------------- */

/* scores [n][NR] of the keys from s0 on += mask, for a panel's queries */
static void add_mask(const attention *a, const attention_part *p, const panel *x, int64_t s0, int64_t n,
                     float *restrict scores, float *restrict rows) {
    const int64_t many = a->mask.row ? x->lanes : 1, at = p->mask_at + x->first * a->mask.row + s0;
    float *restrict columns = rows + NR * n;
    for (int64_t l = 0; l < many; l++) attention_widen_mask(rows + l * n, p->mask, at + l * a->mask.row, n);
    if (many == 1) {
        for (int64_t s = 0; s < n; s++)
            for (int64_t l = 0; l < NR; l++) scores[s * NR + l] += rows[s];
        return;
    }
    gemm_matrix matrix = {rows, 1, n, ANEX_F32};
    gemm_pack_matrix(&matrix, columns, NR, 0, n, 0, many);
    for (int64_t i = 0; i < n * NR; i++) scores[i] += columns[i];
}

static inline vf exponential(const bool fast, vf x) {
    float lane[VF];
    vf_store(lane, x);
    for (int i = 0; i < VF; i++) lane[i] = vm_exp_if(fast, lane[i]);
    return vf_load(lane);
}

/* Scores [n][NR] become exponentials under the new maximum; `decay` is what older ones must shrink by. False: they
   need not. A NaN among the scores may be passed over here: its exponential, and so the sum, is one. */
static inline __attribute__((always_inline)) bool soften(const bool fast, float *scores, int64_t n, panel *x,
                                                         float *decay) {
    enum { STEP = 64 }; /* keys in one partial sum */
    float max[NR], base[NR], total[NR];
    vf most[VECTORS], other[VECTORS], sum[VECTORS];
    for (int v = 0; v < VECTORS; v++) most[v] = other[v] = vf_load(x->max + v * VF), sum[v] = vf_zero();
    for (int64_t s = 0; s < n; s += 2)
        for (int v = 0; v < VECTORS; v++) {
            most[v] = vf_max(vf_load(scores + s * NR + v * VF), most[v]);
            other[v] = vf_max(vf_load(scores + anex_min(s + 1, n - 1) * NR + v * VF), other[v]);
        }
    for (int v = 0; v < VECTORS; v++) vf_store(max + v * VF, vf_max(most[v], other[v]));
    for (int64_t l = 0; l < NR; l++) base[l] = max[l] == -INFINITY ? 0 : max[l]; /* e^-inf under any base */
    for (int64_t at = 0; at < n; at += STEP) {
        vf part[VECTORS];
        for (int v = 0; v < VECTORS; v++) part[v] = vf_zero();
        for (int64_t s = at; s < anex_min(n, at + STEP); s++)
            for (int v = 0; v < VECTORS; v++) {
                float *score = scores + s * NR + v * VF;
                const vf e = exponential(fast, vf_load(score) - vf_load(base + v * VF));
                vf_store(score, e);
                part[v] += e;
            }
        for (int v = 0; v < VECTORS; v++) sum[v] += part[v];
    }
    for (int v = 0; v < VECTORS; v++) vf_store(total + v * VF, sum[v]);
    bool changes = false;
    for (int64_t l = 0; l < NR; l++) {
        changes |= !(max[l] == x->max[l]);
        decay[l] = vm_exp(x->max[l] - base[l]);
        x->sum[l] = x->sum[l] * decay[l] + total[l];
        x->max[l] = max[l];
    }
    return changes;
}

/* out [ev][NR] *= decay */
static void shrink(float *restrict out, const float *restrict decay, int64_t ev) {
    for (int64_t i = 0; i < ev; i++)
        for (int64_t l = 0; l < NR; l++) out[i * NR + l] *= decay[l];
}

/* ---- a panel -------------------------------------------------------------------------------- */

static attention_reach reach_of(const attention *a, const attention_part *p, const attention_reach *reach,
                                int64_t first, int64_t lanes) {
    attention_reach found = {(int32_t)a->keys, (int32_t)a->keys};
    if (!p->mask) return found;
    const attention_reach *row = reach + (p->mask_at + first * a->mask.row) / a->keys;
    found = *row;
    for (int64_t l = 1; l < (a->mask.row ? lanes : 1); l++) {
        found.plain = row[l].plain < found.plain ? row[l].plain : found.plain;
        found.end = row[l].end > found.end ? row[l].end : found.end;
    }
    return found;
}

static void begin_panel(const attention *a, const attention_part *p, const attention_reach *reach, panel *x,
                        int64_t first) {
    const gemm_matrix columns = {p->query.data, p->query.col, p->query.row, p->query.dtype};
    x->first = first, x->lanes = anex_min(NR, a->length - first), x->begun = false;
    x->reach = reach_of(a, p, reach, first, x->lanes);
    if (x->lanes < NR) memset(x->query, 0, (size_t)(NR * a->e) * sizeof *x->query);
    gemm_pack_matrix(&columns, x->query, NR, 0, a->e, first, x->lanes);
    for (int64_t k = 0; k < NR * a->e; k++) x->query[k] *= a->scale;
    for (int64_t l = 0; l < NR; l++) x->max[l] = -INFINITY, x->sum[l] = 0;
}

/* The keys s0 .. s0+n-1, of which the block holds these or more */
static void go_on(const attention *a, const attention_part *p, bool strict, panel *x, const room *r, int64_t s0,
                  int64_t n) {
    float decay[NR];
    multiply(strict && !FUSED, &r->key, n, a->e, x->query, false, r->scores);
    const int64_t plain = anex_min(n, anex_max(0, x->reach.plain - s0));
    if (plain < n) add_mask(a, p, x, s0 + plain, n - plain, r->scores + plain * NR, r->mask);
    const bool changes = strict ? soften(false, r->scores, n, x, decay) : soften(true, r->scores, n, x, decay);
    if (x->begun && changes) shrink(x->out, decay, a->ev);
    multiply(strict && !FUSED, &r->value, a->ev, n, r->scores, x->begun, x->out);
    x->begun = true;
}

/* out [ev][NR] / sum, into the result */
static void end_panel(const attention *a, const attention_part *p, panel *x) {
    const bool halves = p->out_dtype == ANEX_F16;
    const int64_t item = halves ? 2 : 4, row = a->out.row, col = a->out.col;
    char *to = (char *)p->out + x->first * row * item;
    if (!x->begun) memset(x->out, 0, (size_t)(a->ev * NR) * sizeof *x->out);
    float scale[NR];
    for (int64_t l = 0; l < NR; l++) scale[l] = 1 / x->sum[l];
    for (int64_t l = 0; l < x->lanes; l += VF) {
        const int64_t lanes = anex_min(VF, x->lanes - l);
        if (row == 1) { /* queries lie side by side there too */
            for (int64_t i = 0; i < a->ev; i++) {
                const vf y = vf_load(x->out + i * NR + l) * vf_load(scale + l);
                if (lanes == VF)
                    vf_store_as(to, halves, i * col + l, y);
                else
                    vf_store_some(to + (i * col + l) * item, halves, y, lanes);
            }
            continue;
        }
        for (int64_t i = 0; i < a->ev; i += VF) {
            vf square[VF];
#pragma GCC unroll 16
            for (int k = 0; k < VF; k++) square[k] = vf_load(x->out + (i + k) * NR + l) * vf_load(scale + l);
            vf_transpose(square);
            for (int64_t k = 0; k < lanes; k++)
                if (i + VF <= a->ev)
                    vf_store_as(to, halves, (l + k) * row + i, square[k]);
                else
                    vf_store_some(to + ((l + k) * row + i) * item, halves, square[k], a->ev - i);
        }
    }
}

/* ---- tasks ---------------------------------------------------------------------------------- */

/* The panels t, 2 n - 1 - t, 2 n + t, .. of n tasks: with a causal mask, where late queries see more keys, all tasks
   have as much to do. */
static int64_t nth_panel(int64_t task, int64_t tasks, int64_t i) {
    return i * tasks + (i % 2 ? tasks - 1 - task : task);
}

static void attend(const attention *a, const attention_part *p, const attention_reach *reach, bool strict,
                   int64_t task, char *scratch) {
    room r;
    lay_out(a, p->mask, &r, scratch);
    panel panels[PANELS];
    int64_t n = 0, end = 0;
    for (int64_t number; (number = nth_panel(task, a->tasks, n)) < a->panels; n++) {
        panel *x = &panels[n];
        x->query = r.queries + n * a->e * NR, x->out = r.outs + n * round_up(a->ev, PAD) * NR;
        begin_panel(a, p, reach, x, number * NR);
        end = anex_max(end, x->reach.end);
    }
    const gemm_matrix value = gemm_transposed(p->value);
    for (int64_t s0 = 0; s0 < end; s0 += BLOCK) {
        const int64_t keys = anex_min(BLOCK, end - s0);
        fetch(&p->key, &r.key, s0, keys, 0, a->e);
        fetch(&value, &r.value, 0, a->ev, s0, keys);
        for (int64_t i = 0; i < n; i++) {
            const int64_t seen = anex_min(keys, panels[i].reach.end - s0);
            if (seen > 0) go_on(a, p, strict, &panels[i], &r, s0, seen);
        }
    }
    for (int64_t i = 0; i < n; i++) end_panel(a, p, &panels[i]);
}

/* task: a share of the panels of a batch */
static void attend_blocks(const anex_node *node, const anex_slice *slice) {
    const attention *a = node->state;
    const attention_reach *reach = a->rows ? a->reach : slice->shared;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        const attention_part p = attention_part_of(a, node, task / a->tasks);
        attend(a, &p, reach, node->strict, task % a->tasks, slice->scratch);
    }
}

/* task: a row of the mask */
static void look_at_mask(const anex_node *node, const anex_slice *slice) {
    const attention *a = node->state;
    attention_reach *reach = slice->shared;
    for (int64_t row = slice->begin; row < slice->end; row++)
        reach[row] = attention_reach_of(node->in[ATTENTION_MASK], row * a->keys, a->keys);
}

/* ---- plan ----------------------------------------------------------------------------------- */

void attention_plan_blocks(anex_node *node, attention *a) {
    const anex_tensor *mask = node->in[ATTENTION_MASK];
    int64_t most = PANELS; /* in a task */
    a->panels = (a->length + NR - 1) / NR;
    while (most > 1 && a->batch * ((a->panels + most - 1) / most) < (most > 2 ? TASKS : FEW_TASKS)) most /= 2;
    a->tasks = (a->panels + most - 1) / most;
    for (int64_t i = 0; i < a->rows; i++) a->reach[i] = attention_reach_of(mask, i * a->keys, a->keys);
    if (mask && !a->rows) {
        const int64_t rows = anex_span(mask, 0, mask->rank - 1);
        node->shared = (size_t)rows * sizeof *a->reach;
        anex_add_stage(node, look_at_mask, rows, 5 + 0.05 * (double)a->keys);
    }
    room r;
    node->scratch = lay_out(a, mask, &r, NULL);
    double cycles = (double)(most * NR * a->keys) * ((double)(a->e + a->ev) / (2 * VF) + 1);
    anex_add_stage(node, attend_blocks, a->batch * a->tasks, 0.3 * cycles);
}
