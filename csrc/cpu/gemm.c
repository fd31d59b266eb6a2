/* The matrix product: plan, pack, multiply. See gemm.h. */
#include "gemm_micro.h"
#include "team.h"

#include <math.h>

enum {
    BLOCK = 8 * MR,   /* rows of A fetched at a time */
    EVEN = 16,        /* blocks of k are multiples of it */
    MOST_PANELS = 4,  /* of B in a tile */
    TASKS = 6,        /* of a thread: enough to even out what disturbs one */
    MOST_SUMS = 9 << 13 /* floats of partial sums in a tile: a quarter of a second cache */
};

static const int64_t DIRECT_CODES = 2 * MR; /* rows up to which codes are decoded where they are multiplied */

/* Rows up to which fp16 panels are widened in the loop that multiplies; for more, once before it. On some processors
   units do it that have no part in multiplying; on Intel's the two share a port. */
static int64_t direct(void) {
#if defined(__x86_64__)
    return __builtin_cpu_is("intel") ? 2 * MR : INT64_MAX;
#else
    return INT64_MAX;
#endif
}

/* ---- plan ----------------------------------------------------------------------------------- */

/* Cycles to fetch one element, roughly: rows are fetched beside the multiplying; what lies across k is moved by few
   elements at a time, more for a packer, or transposed. */
static double fetch_a(gemm_kind kind) { return kind == GEMM_BY_K || kind == GEMM_CONSTANT ? 0.05 : 0.8; }
static double fetch_b(gemm_kind kind, int64_t rows) {
    if (kind == GEMM_CONSTANT) return rows > direct() ? 0.15 : 0.1;
    if (kind == GEMM_CODES) return rows > DIRECT_CODES ? 0.15 : 0.03;
    return kind == GEMM_ACROSS_K ? 0.03 : 0.3;
}

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/* Cycles for one product in tiles of tile_m x tile_n. */
static double cycles(int64_t m, int64_t n, int64_t k, int64_t tile_m, int64_t tile_n, gemm_kind a, gemm_kind b,
                     bool turned) {
    double rows = (double)(m < 4 ? 4 : m); /* fewer rows than that only wait for the adder */
    double multiply = rows * (double)(ceil_div(n, NR) * NR) / (2.0 * VF) * (turned ? 1.1 : 1);
    double fetch = fetch_a(a) * (double)(m * ceil_div(n, tile_n)) +
                   fetch_b(b, tile_m) * (double)(n * ceil_div(m, tile_m));
    return (double)k * (multiply + fetch) + (turned ? 1.0 : 0.1) * (double)(m * n);
}

static void choose_tiles(gemm *g, int64_t batch, gemm_kind a, gemm_kind b) {
    const double cycle = 0.3; /* ns */
    double best = -1;
    double whole = cycle * cycles(g->m, g->n, g->k, g->m, g->n, a, b, g->turned) * (double)batch;
    /* tasks: some for each thread, unless they would be short */
    const double threads = (double)anex_processors(), wanted = fmax(1, fmin(whole / 20000, TASKS * threads));
    for (int64_t panels = 1; panels <= MOST_PANELS; panels *= 2)
        for (int64_t m = MR;; m *= 2) {
            int64_t tile_n = panels * NR, tile_m = ceil_div(ceil_div(g->m, ceil_div(g->m, m)), MR) * MR;
            if (g->k > KC && tile_m * tile_n > MOST_SUMS) break;
            double tasks = (double)(batch * ceil_div(g->m, tile_m) * ceil_div(g->n, tile_n));
            double cost = cycles(g->m, g->n, g->k, tile_m, tile_n, a, b, g->turned) * (double)batch;
            if (tasks < wanted) cost *= wanted / tasks;
            if (wanted >= threads) cost *= ceil(tasks / threads) * threads / tasks; /* some wait for the last */
            if (best < 0 || cost < best) {
                best = cost;
                g->tile_m = tile_m, g->tile_n = tile_n;
                g->tiles_m = ceil_div(g->m, tile_m), g->tiles_n = ceil_div(g->n, tile_n);
            }
            if (m >= g->m) break;
        }
    g->cost = cycle * cycles(g->m, g->n, g->k, g->tile_m, g->tile_n, a, b, g->turned) / (double)gemm_tiles(g);
}

/* A short last block would cost as much as a whole one: its sums are read and written too. */
static int64_t even_block(int64_t k) { return k ? ceil_div(ceil_div(k, ceil_div(k, KC)), EVEN) * EVEN : KC; }

void gemm_plan(gemm *g, int64_t batch, int64_t m, int64_t n, int64_t k, gemm_kind a, gemm_kind b) {
    *g = (gemm){.m = m, .n = n, .k = k, .block = even_block(k)};
    gemm other = {.m = n, .n = m, .k = k, .block = g->block, .turned = true};
    choose_tiles(g, batch, a, b);
    choose_tiles(&other, batch, b, a);
    if (other.cost * (double)gemm_tiles(&other) < g->cost * (double)gemm_tiles(g)) *g = other;
}

void gemm_plan_codes(gemm *g, int64_t batch, int64_t m, int64_t n, int64_t k, gemm_kind a, int64_t block) {
    *g = (gemm){.m = m, .n = n, .k = k};
    choose_tiles(g, batch, a, GEMM_CODES);
    g->decodes = g->tile_m <= DIRECT_CODES;
    g->block = KC;
    if (!g->decodes || block == k) return;
    for (int64_t parts = 1; (g->block = block / parts) > KC || block % parts;) parts++;
}

typedef struct gemm_room { /* scratch, in bytes */
    size_t a, b, sums, tile;
} gemm_room;

static gemm_room room_of(const gemm *g) {
    size_t tile_n = (size_t)ceil_div(anex_min(g->tile_n, g->n), NR) * NR;
    size_t tile_m = (size_t)ceil_div(anex_min(g->tile_m, g->m), MR) * MR;
    return (gemm_room){
        .a = anex_align((BLOCK * ROW + VF) * sizeof(float)),
        .b = anex_align((tile_n * (size_t)anex_min(g->k, KC) + VF) * sizeof(float)),
        .sums = g->k > g->block ? anex_align(tile_m * tile_n * sizeof(float)) : 0,
        .tile = anex_align(MR * NR * sizeof(float)),
    };
}

size_t gemm_scratch(const gemm *g) {
    gemm_room room = room_of(g);
    return 2 * room.a + room.b + room.sums + room.tile;
}

/* ---- packing -------------------------------------------------------------------------------- */

/* to[k][width] = rows of `depth` elements, b->col elements apart, as columns: squares of VF x VF at a time. */
static void pack_transposed(const gemm_matrix *b, float *to, int64_t width, int64_t k0, int64_t depth, int64_t j0,
                            int64_t cols) {
    const int64_t item = b->dtype == ANEX_F16 ? 2 : 4, step = b->col * item;
    for (int64_t j = 0; j < cols; j += VF) {
        const char *from = (const char *)b->data + ((j0 + j) * b->col + k0) * item;
        int64_t wide = anex_min(VF, cols - j), k = 0;
        for (; wide == VF && k + VF <= depth; k += VF, from += VF * item) {
            vf square[VF];
#pragma GCC unroll 16
            for (int i = 0; i < VF; i++) square[i] = gemm_load(from + i * step, b->dtype, 0);
            vf_transpose(square);
#pragma GCC unroll 16
            for (int i = 0; i < VF; i++) vf_store(to + (k + i) * width + j, square[i]);
        }
        for (int64_t i = 0; i < wide; i++)
            for (int64_t r = k; r < depth; r++) to[r * width + j + i] = gemm_one(from + i * step, b->dtype, r - k);
    }
}

void gemm_pack_matrix(const void *source, float *to, int64_t width, int64_t k0, int64_t depth, int64_t j0,
                      int64_t cols) {
    const gemm_matrix *b = source;
    if (b->row == 1 && b->col != 1) {
        pack_transposed(b, to, width, k0, depth, j0, cols);
        return;
    }
    for (int64_t k = 0; k < depth; k++) {
        int64_t at = (k0 + k) * b->row + j0 * b->col;
        if (b->col == 1)
            gemm_widen(to + k * width, b->data, b->dtype, at, cols);
        else
            for (int64_t j = 0; j < cols; j++) gemm_widen(to + k * width + j, b->data, b->dtype, at + j * b->col, 1);
    }
}

void gemm_make_panels(const gemm_matrix *b, int64_t k, int64_t n, void *panels) {
    for (int64_t j0 = 0; j0 < n; j0 += NR)
        for (int64_t j = j0; j < anex_min(j0 + NR, n); j++) {
            int64_t to = j0 * k + (j - j0), from = j * b->col;
            if (b->dtype == ANEX_F16)
                for (int64_t i = 0; i < k; i++)
                    ((half *)panels)[to + i * NR] = ((const half *)b->data)[from + i * b->row];
            else
                for (int64_t i = 0; i < k; i++)
                    ((float *)panels)[to + i * NR] = ((const float *)b->data)[from + i * b->row];
        }
}

/* A [i0 .. i0+rows-1, k] */
static void widen_line(const gemm_matrix *a, float *line, int64_t i0, int64_t rows, int64_t k) {
    if (a->row == 1)
        gemm_widen(line, a->data, a->dtype, i0 + k * a->col, rows);
    else
        for (int64_t i = 0; i < rows; i++) gemm_widen(line + i, a->data, a->dtype, (i0 + i) * a->row + k * a->col, 1);
}

/* KC halves of a row, of which so many more follow `step` apart: they are in rows of their own, which no prefetcher
   of the hardware finds, and are asked for AHEAD rows early. */
static inline void widen_row(float *restrict to, const half *restrict from, int64_t step, int64_t follow) {
    enum { AHEAD = 6, LINE = 32 };
    const half *later = from + step * anex_min(AHEAD, follow);
#pragma GCC unroll 16
    for (int k = 0; k < KC; k += VF) {
        if (k % LINE == 0) __builtin_prefetch(later + k);
        vf_store(to + k, vf_load_half(from + k));
    }
}

/* Rows that run along k are only widened; others come in panels of `step` rows, [depth][MR]. True: rows. */
static bool fetch_rows(const gemm_side *a, float *to, int64_t i0, int64_t rows, int64_t step, int64_t k0,
                       int64_t depth) {
    const gemm_matrix *x = &a->matrix;
    if (!a->pack && x->col == 1 && x->dtype == ANEX_F16 && depth == KC) {
        for (int64_t i = 0; i < rows; i++)
            widen_row(to + i * ROW, (const half *)x->data + (i0 + i) * x->row + k0, x->row, rows - 1 - i);
        return true;
    }
    if (!a->pack && x->col == 1) {
        for (int64_t i = 0; i < rows; i++) gemm_widen(to + i * ROW, x->data, x->dtype, (i0 + i) * x->row + k0, depth);
        return true;
    }
    if (a->pack) {
        for (int64_t i = 0; i < rows; i += step, to += MR * depth)
            a->pack(a->source, to, MR, k0, depth, i0 + i, anex_min(step, rows - i));
        return false;
    }
    float line[BLOCK];
    for (int64_t k = 0; k < depth; k++) {
        widen_line(x, line, i0, rows, k0 + k);
        for (int64_t i = 0, p = 0; i < rows; i += step, p++)
            memcpy(to + (p * depth + k) * MR, line + i, MR * sizeof *to);
    }
    return false;
}

/* Rows k0 .. of one panel as floats */
static inline __attribute__((always_inline)) void decode_panel(const bool nibbles, const gemm_codes *c, float *to,
                                                               int64_t panel, int64_t k0, int64_t depth, int64_t k) {
    const int64_t row = nibbles ? NR / 2 : NR, blocks = k / c->block;
    const uint8_t *codes = c->panels + (panel * k + k0) * row;
    const float *table = nibbles ? c->table + panel * c->table_step : NULL;
    for (int64_t i = 0; i < depth;) {
        int64_t block = (k0 + i) / c->block, end = anex_min(depth, (block + 1) * c->block - k0);
        const float *affine = c->affine + (panel * blocks + block) * (1 + c->zeros) * NR;
        for (; i < end; i++)
            for (int v = 0; v < VECTORS; v++) {
                vf zero = c->zeros ? vf_load(affine + NR + v * VF) : vf_zero();
                vf_store(to + i * NR + v * VF,
                         (decode(nibbles, codes + i * row, table, v) - zero) * vf_load(affine + v * VF));
            }
    }
}

/* Rows of B as they lie, each into all panels: memory is read in its own order, and asked for some rows early. */
static void split_rows(const gemm_matrix *b, float *to, int64_t j0, int64_t j1, int64_t k0, int64_t depth) {
    enum { AHEAD = 4, LINE = 64 };
    const int64_t item = b->dtype == ANEX_F16 ? 2 : 4, step = b->row * item, bytes = (j1 - j0) * item;
    const char *from = (const char *)b->data + (k0 * b->row + j0) * item;
    for (int64_t k = 0; k < depth; k++, from += step) {
        const char *later = from + step * anex_min(AHEAD, depth - 1 - k);
        for (int64_t at = 0; at < bytes; at += LINE) __builtin_prefetch(later + at);
        for (int64_t j = j0; j < j1; j += NR)
            gemm_widen(to + (j - j0) * depth + k * NR, from, b->dtype, j - j0, anex_min(NR, j1 - j));
    }
}

static void fetch_columns(const gemm_side *b, float *to, int64_t j0, int64_t j1, int64_t k0, int64_t depth, int64_t k) {
    if (!b->codes && !b->panels && !b->pack && b->matrix.col == 1) {
        split_rows(&b->matrix, to, j0, j1, k0, depth);
        return;
    }
    for (int64_t j = j0; j < j1; j += NR, to += NR * depth) {
        if (b->codes && b->codes->nibbles)
            decode_panel(true, b->codes, to, j / NR, k0, depth, k);
        else if (b->codes)
            decode_panel(false, b->codes, to, j / NR, k0, depth, k);
        else if (b->panels)
            gemm_widen(to, b->panels, b->matrix.dtype, (j / NR * k + k0) * NR, NR * depth);
        else
            (b->pack ? b->pack : gemm_pack_matrix)(b->pack ? b->source : &b->matrix, to, NR, k0, depth, j,
                                                   anex_min(NR, j1 - j));
    }
}

/* ---- multiply ------------------------------------------------------------------------------- */

void gemm_multiply(int64_t depth, const float *a, const float *b, int64_t cols, bool more, float *to) {
    enum { ROWS = 96 }; /* of A ahead: it is read once, in panels that follow each other in memory */
    const beside next = {.ask = (const char *)(a + ROWS * MR), .pace = MR * sizeof *a};
    if (cols <= VF)
        micro(MR, 1, false, false, false, true, false, depth, a, b, more ? to : NULL, to, &next);
    else
        micro(MR, VECTORS, false, false, false, true, false, depth, a, b, more ? to : NULL, to, &next);
}

/* ---- a tile --------------------------------------------------------------------------------- */

/* Where the rows of a piece of C will be written, and what will be added to them, while they are still computed: each
   is in lines of its own. */
static void claim(const gemm_output *c, const anex_plain *plain, int64_t i, int64_t rows, int64_t j) {
    enum { LINE = 64 };
    if (c->col != 1 || c->panel || c->place || c->dtype == ANEX_I8 || c->dtype == ANEX_U8) return;
    const int64_t item = c->dtype == ANEX_F16 ? 2 : 4, step = c->row * item;
    const char *to = (const char *)c->data + i * step + j * item;
    for (int64_t r = 0; r < rows; r++, to += step)
        for (int64_t at = 0; at < NR * item; at += LINE) __builtin_prefetch(to + at, 1);
    if (!plain->residual) return;
    const int64_t wide = plain->dtype == ANEX_F16 ? 2 : 4;
    const char *from = (const char *)plain->residual + (c->first + i * c->row + j) * wide;
    for (int64_t r = 0; r < rows; r++, from += c->row * wide)
        for (int64_t at = 0; at < NR * wide; at += LINE) __builtin_prefetch(from + at);
}

/* Constants of B come from memory in strips, the rows of one block of k of one panel. These are the strips that follow
   a block of a tile: of the same panels, or the first of the next tile's. */
typedef struct strips {
    const char *first; /* NULL: there are none */
    int64_t step, count, bytes;
} strips;

static strips strips_after(const gemm *g, const gemm_side *b, int64_t j0, int64_t j1, int64_t k1) {
    const bool last = k1 == g->k;
    const gemm_codes *codes = b->codes;
    if (!(b->panels || codes) || (last && j1 == g->n && g->tiles_m == 1)) return (strips){0};
    const char *panels = codes ? (const char *)codes->panels : b->panels;
    int64_t row = codes ? (codes->nibbles ? NR / 2 : NR) : NR * (b->matrix.dtype == ANEX_F16 ? 2 : 4);
    int64_t j = !last ? j0 : j1 < g->n ? j1 : 0, k = last ? 0 : k1;
    return (strips){
        .first = panels + (j / NR * g->k + k) * row,
        .step = g->k * row,
        .count = ceil_div(anex_min(g->tile_n, g->n - j), NR),
        .bytes = anex_min(g->block, g->k - k) * row,
    };
}

/* The part of a strip to be asked for in one of so many products */
static void ask_for(const strips *s, int64_t strip, int64_t product, int64_t products, int64_t depth, beside *next) {
    if (strip >= s->count) return;
    const int64_t part = ceil_div(s->bytes, products);
    next->ask = s->first + strip * s->step + product * part, next->pace = ceil_div(part, anex_max(depth, 1));
}

/* Rows of A times a block of k: what is multiplied with all panels of a tile, one after the other. */
typedef struct stretch {
    int64_t tile, i0, i1, j0, j1; /* the tile, its rows and columns */
    int64_t step;                 /* rows multiplied at once, as even as they can be: one row takes as long as four */
    int64_t i, rows, k0, depth;
} stretch;

static void measure(const gemm *g, stretch *s) {
    s->rows = anex_min(BLOCK / MR * s->step, s->i1 - s->i);
    s->depth = anex_min(g->block, g->k - s->k0);
}

static stretch first_stretch(const gemm *g, int64_t tile) {
    stretch s = {.tile = tile, .i0 = tile / g->tiles_n * g->tile_m, .j0 = tile % g->tiles_n * g->tile_n};
    s.i1 = anex_min(s.i0 + g->tile_m, g->m), s.j1 = anex_min(s.j0 + g->tile_n, g->n);
    s.step = ceil_div(s.i1 - s.i0, ceil_div(s.i1 - s.i0, MR)), s.i = s.i0;
    measure(g, &s);
    return s;
}

static stretch stretch_after(const gemm *g, const stretch *s) {
    stretch next = *s;
    next.i += s->rows;
    if (next.i < s->i1) {
        measure(g, &next);
        return next;
    }
    next.i = s->i0, next.k0 += s->depth;
    if (next.k0 >= g->k) return first_stretch(g, (s->tile + 1) % gemm_tiles(g));
    measure(g, &next);
    return next;
}

typedef struct tiles { /* being computed */
    const gemm *g;
    const gemm_side *a, *b;
    const gemm_output *c;
    anex_plain plain;        /* what C ends in, as far as it is plain */
    const gemm_codes *codes; /* decoded where they are multiplied; else NULL */
    bool as_is, half_b, once;
    bool packs; /* B becomes panels while it is multiplied for the first time */
    float *a_block, *other, *b_block, *sums, *last_sums; /* a_block: this stretch's rows of A; the next one's */
} tiles;

/* The rows of A that `next` will multiply become float meanwhile; those of the stretch after it are asked for.
   False: they cannot. */
static bool plan_beside(const tiles *t, const stretch *s, const stretch *next, beside *also) {
    const gemm_matrix *x = &t->a->matrix;
    if (t->a->pack || x->col != 1 || t->once || t->codes || next->depth % PIECE || next->depth > s->depth) return false;
    const int64_t item = x->dtype == ANEX_F16 ? 2 : 4;
    const stretch later = stretch_after(t->g, next);
    also->from = (const char *)x->data + (next->i * x->row + next->k0) * item;
    also->later = (const char *)x->data + (later.i * x->row + later.k0) * item;
    also->from_step = x->row * item, also->later_step = next->rows <= later.rows ? also->from_step : 0;
    also->halves = x->dtype == ANEX_F16, also->to = t->other, also->depth = next->depth;
    return true;
}

/* Its share of `rows` falls to each of so many products. */
static void hand_out(beside *also, int64_t rows, int64_t product, int64_t products) {
    const int64_t most = ceil_div(rows, products), done = product * most;
    also->rows = anex_max(0, anex_min(most, rows - done));
}
static void took(beside *also) {
    also->from += also->rows * also->from_step, also->later += also->rows * also->later_step;
    also->to += also->rows * ROW;
}

static void multiply_codes(const tiles *t, const stretch *s, int64_t m, bool by_row, const float *x, int64_t j,
                           const float *prior, float *to) {
    const gemm_codes *codes = t->codes;
    const int64_t k = t->g->k, panel = j / NR;
    codes_kernels[m - 1][codes->nibbles][by_row](
        s->depth, x, codes->panels + (panel * k + s->k0) * (codes->nibbles ? NR / 2 : NR),
        codes->nibbles ? codes->table + panel * codes->table_step : NULL,
        codes->affine + (panel * (k / codes->block) + s->k0 / codes->block) * (1 + codes->zeros) * NR, codes->zeros,
        prior, to);
}

/* One panel of B times the rows of a stretch */
static void multiply_panel(const tiles *t, const stretch *s, int64_t p, bool by_row, const strips *later, beside *also,
                           int64_t next_rows) {
    const gemm *g = t->g;
    const gemm_matrix *b = &t->b->matrix;
    const int64_t j = s->j0 + p * NR, products = ceil_div(s->rows, s->step), panels = ceil_div(s->j1 - s->j0, NR);
    const int64_t all = ceil_div(s->i1 - s->i0, s->step), cols = anex_min(NR, s->j1 - j);
    const bool last = s->k0 + s->depth == g->k, packs = t->packs && s->i == s->i0;
    float *panel = t->b_block + p * NR * s->depth;
    const char *y = t->as_is ? (const char *)t->b->panels + (j / NR * g->k + s->k0) * NR * (t->half_b ? 2 : 4)
                             : (const char *)panel;
    if (packs && cols < NR) fetch_columns(t->b, panel, j, s->j1, s->k0, s->depth, g->k);
    for (int64_t r = 0; r < s->rows; r += s->step) {
        const int64_t m = anex_min(s->step, s->rows - r), number = (s->i - s->i0 + r) / s->step;
        if (last) claim(t->c, &t->plain, s->i + r, m, j);
        float *sum = t->sums + (number * panels + p) * MR * NR, *to = last ? t->last_sums : sum;
        const float *x = t->a_block + (by_row ? r * ROW : r / s->step * MR * s->depth), *prior = s->k0 ? sum : NULL;
        if (t->codes) {
            multiply_codes(t, s, m, by_row, x, j, prior, to);
        } else if (t->once) {
            micro_once(m, t->half_b, by_row, s->depth, x, y, prior, to);
        } else {
            also->ask = (const char *)x, also->pace = 0;
            ask_for(later, p, number, all, s->depth, also);
            hand_out(also, next_rows, p * products + r / s->step, panels * products);
            if (packs && !r && cols == NR) {
                const bool halves = b->dtype == ANEX_F16;
                also->panel = panel, also->step = b->row * (halves ? 2 : 4);
                micro_kernels[m - 1][1][halves][1](
                    s->depth, x, (const char *)b->data + (s->k0 * b->row + j) * (halves ? 2 : 4), prior, to, also);
            } else {
                micro_kernels[m - 1][0][t->half_b][by_row](s->depth, x, y, prior, to, also);
            }
            took(also);
        }
        if (last) gemm_store_tile(t->c, to, s->i + r, m, j, cols);
    }
}

void gemm_tiles_run(const gemm *g, const gemm_side *a, const gemm_side *b, const gemm_output *c, int64_t tile,
                    int64_t count, void *scratch) {
    const gemm_room room = room_of(g);
    tiles t = {.g = g, .a = a, .b = b, .c = c, .codes = g->decodes ? b->codes : NULL, .a_block = scratch};
    t.other = t.a_block + room.a / sizeof(float), t.b_block = t.other + room.a / sizeof(float);
    t.sums = t.b_block + room.b / sizeof(float), t.last_sums = t.sums + room.sums / sizeof(float);
    /* products of two halves are exact in float: then rounding once or twice is the same */
    const bool exact = !a->pack && !b->pack && a->matrix.dtype == ANEX_F16 && b->matrix.dtype == ANEX_F16;
    t.once = !FUSED && g->strict && !exact;
    if (c->node) anex_epilogue_plain(c->node, &t.plain);
    const bool plain = !b->panels && !b->codes && !b->pack && b->matrix.col == 1;
    bool ready = false, by_row = true;
    for (stretch s = first_stretch(g, tile), next; count; s = next) {
        next = stretch_after(g, &s);
        t.as_is = b->panels && (b->matrix.dtype == ANEX_F32 || s.i1 - s.i0 <= direct());
        t.half_b = t.as_is && b->matrix.dtype == ANEX_F16;
        if (!ready) by_row = fetch_rows(a, t.a_block, s.i, s.rows, s.step, s.k0, s.depth);
        t.packs = plain && by_row && !t.once && s.depth;
        if (s.i == s.i0 && !t.as_is && !t.codes && !t.packs) fetch_columns(b, t.b_block, s.j0, s.j1, s.k0, s.depth, g->k);
        const strips later = strips_after(g, b, s.j0, s.j1, s.k0 + s.depth);
        const bool ends = s.i + s.rows == s.i1 && s.k0 + s.depth == g->k; /* a tile */
        beside also = {0};
        /* also of a tile behind the last: the range that follows has it, most often */
        ready = !(ends && gemm_tiles(g) == 1) && plan_beside(&t, &s, &next, &also);
        for (int64_t p = 0; p * NR < s.j1 - s.j0; p++)
            multiply_panel(&t, &s, p, by_row, &later, &also, ready ? next.rows : 0);
        float *done = t.a_block;
        if (ready) t.a_block = t.other, t.other = done;
        count -= ends;
    }
}
