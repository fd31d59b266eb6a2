/* The matrix product: plan, pack, multiply. See gemm.h. */
#include "gemm.h"
#include "team.h"

#include <math.h>

enum {
    ROW = KC + 16,    /* floats from row to row of an A block; not a power of two, so that rows spread over the cache */
    BLOCK = 8 * MR,   /* rows of A fetched at a time */
    EVEN = 16,        /* blocks of k are multiples of it */
    MOST_PANELS = 16, /* of B in a tile */
    TASKS = 6,        /* of a thread: enough to even out what disturbs one */
    MOST_SUMS = 9 << 14 /* floats of partial sums in a tile: half of a second cache */
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

/* Cycles to fetch one element, roughly: rows are only widened; what lies across k is moved by few elements at a time,
   more for a packer, or transposed. */
static double fetch_a(gemm_kind kind) { return kind == GEMM_BY_K ? 0.15 : kind == GEMM_CONSTANT ? 0.15 : 0.8; }
static double fetch_b(gemm_kind kind, int64_t rows) {
    if (kind == GEMM_CONSTANT) return rows > direct() ? 0.15 : 0.1;
    if (kind == GEMM_CODES) return rows > DIRECT_CODES ? 0.15 : 0.03;
    return kind == GEMM_PACKER ? 0.3 : kind == GEMM_ACROSS_K ? 0.15 : 0.3;
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
    return room.a + room.b + room.sums + room.tile;
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

enum { VECTORS = NR / VF };
_Static_assert(VECTORS == 2, "a byte of nibbles has a code for either vector");

static inline vf decode(bool nibbles, const uint8_t *codes, const float *table, int v) {
    return nibbles ? vf_look_up(table, codes, 4 * v) : vf_load_i8(codes + v * VF);
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

/* What is asked of memory while a product is computed: `pace` bytes further with each step along k. Asked for in
   bursts some of it would be forgotten, and the hardware alone begins anew on each page. */
typedef struct request {
    const char *at;
    int64_t pace;
} request;

/* to [m][NR] = prior + A [m, depth] . B [depth, NR]; `prior` may be NULL or `to` */
typedef void micro_kernel(int64_t depth, const float *a, const void *b, const float *prior, float *to, request next);

/* `soon`: what is asked for is for this very product, so it is to come nearest */
static inline __attribute__((always_inline)) void micro(const int m, const int vectors, const bool half_b,
                                                        const bool by_row, const bool once, const bool soon,
                                                        int64_t depth, const float *a, const void *b,
                                                        const float *prior, float *to, request next) {
    vf sum[MR][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) sum[i][v] = vf_zero();
    for (int64_t k = 0; k < depth; k++) {
        vf y[VECTORS];
        if (soon)
            __builtin_prefetch(next.at, 0, 3);
        else
            __builtin_prefetch(next.at, 0, 2);
        next.at += next.pace;
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            y[v] = half_b ? vf_load_half((const half *)b + k * NR + v * VF)
                          : vf_load((const float *)b + k * NR + v * VF);
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            vf x = vf_set(by_row ? a[i * ROW + k] : a[k * MR + i]);
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++) sum[i][v] = vf_fma_if(once, x, y[v], sum[i][v]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++) {
            if (prior) sum[i][v] = vf_load(prior + i * NR + v * VF) + sum[i][v];
            vf_store(to + i * NR + v * VF, sum[i][v]);
        }
}

#define MICRO(m, half_b, by_row)                                                                               \
    static void micro_##m##_##half_b##by_row(int64_t depth, const float *a, const void *b, const float *prior, \
                                             float *to, request next) {                                        \
        micro(m < MR ? m : MR, VECTORS, half_b, by_row, false, false, depth, a, b, prior, to, next);           \
    }
#define MICROS(m) MICRO(m, 0, 0) MICRO(m, 0, 1) MICRO(m, 1, 0) MICRO(m, 1, 1)
#define MICRO_ROW(m) {{micro_##m##_00, micro_##m##_01}, {micro_##m##_10, micro_##m##_11}},

#if defined(__AVX512F__)
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif defined(__AVX2__)
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6)
#elif defined(__aarch64__)
#define EACH_ROWS(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#else
#define EACH_ROWS(X) X(1) X(2) X(3) X(4)
#endif
EACH_ROWS(MICROS)
static micro_kernel *const micro_kernels[MR][2][2] = {EACH_ROWS(MICRO_ROW)}; /* [rows - 1][half_b][by_row] */

void gemm_multiply(int64_t depth, const float *a, const float *b, int64_t cols, bool more, float *to) {
    enum { ROWS = 96 }; /* of A ahead: it is read once, in panels that follow each other in memory */
    const request next = {(const char *)(a + ROWS * MR), MR * sizeof *a};
    if (cols <= VF)
        micro(MR, 1, false, false, false, true, depth, a, b, more ? to : NULL, to, next);
    else
        micro(MR, VECTORS, false, false, false, true, depth, a, b, more ? to : NULL, to, next);
}

/* The same of codes: `affine` the scales and zeros of these columns, of all of depth */
typedef void codes_kernel(int64_t depth, const float *a, const uint8_t *codes, const float *table, const float *affine,
                          bool zeros, const float *prior, float *to);

static inline __attribute__((always_inline)) void micro_codes(const int m, const bool nibbles, const bool by_row,
                                                              int64_t depth, const float *a, const uint8_t *codes,
                                                              const float *table, const float *affine, bool zeros,
                                                              const float *prior, float *to) {
    enum { AHEAD = 4096 }; /* bytes: of the next block of these columns at last */
    const int several = m == 1 ? 4 : m == 2 ? 2 : 1; /* sums of few rows would wait for the adder */
    vf sum[4][MR][VECTORS], zero[VECTORS];
    const int64_t row = nibbles ? NR / 2 : NR;
    for (int v = 0; v < VECTORS; v++) zero[v] = zeros ? vf_load(affine + NR + v * VF) : vf_zero();
#pragma GCC unroll 4
    for (int s = 0; s < several; s++)
#pragma GCC unroll 16
        for (int i = 0; i < m; i++)
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) sum[s][i][v] = vf_zero();
    for (int64_t k = 0; k < depth; k += several) {
#pragma GCC unroll 4
        for (int s = 0; s < several; s++) {
            if (s && k + s >= depth) break;
            if (s * row % 64 == 0) __builtin_prefetch(codes + (k + s) * row + AHEAD); /* each line of the cache */
            vf y[VECTORS];
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++) y[v] = decode(nibbles, codes + (k + s) * row, table, v) - zero[v];
#pragma GCC unroll 16
            for (int i = 0; i < m; i++) {
                vf x = vf_set(by_row ? a[i * ROW + k + s] : a[(k + s) * MR + i]);
#pragma GCC unroll 4
                for (int v = 0; v < VECTORS; v++) sum[s][i][v] = vf_fma(x, y[v], sum[s][i][v]);
            }
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            vf scale = vf_load(affine + v * VF), total = sum[0][i][v];
            if (several == 4) total = (total + sum[1][i][v]) + (sum[2][i][v] + sum[3][i][v]);
            if (several == 2) total = total + sum[1][i][v];
            vf_store(to + i * NR + v * VF,
                     vf_fma(total, scale, prior ? vf_load(prior + i * NR + v * VF) : vf_zero()));
        }
}

#define CODES(m, nibbles, by_row)                                                                               \
    static void codes_##m##_##nibbles##by_row(int64_t depth, const float *a, const uint8_t *codes,              \
                                              const float *table, const float *affine, bool zeros,              \
                                              const float *prior, float *to) {                                  \
        micro_codes(m < MR ? m : MR, nibbles, by_row, depth, a, codes, table, affine, zeros, prior, to);        \
    }
#define CODES_OF(m) CODES(m, 0, 0) CODES(m, 0, 1) CODES(m, 1, 0) CODES(m, 1, 1)
#define CODES_ROW(m) {{codes_##m##_00, codes_##m##_01}, {codes_##m##_10, codes_##m##_11}},
EACH_ROWS(CODES_OF)
static codes_kernel *const codes_kernels[MR][2][2] = {EACH_ROWS(CODES_ROW)}; /* [rows - 1][nibbles][by_row] */

/* For builds that do not fuse, in strict plans: only as fast as it must be. */
static void micro_once(int64_t m, bool half_b, bool by_row, int64_t depth, const float *a, const void *b,
                       const float *prior, float *to) {
    for (int64_t i = 0; i < m; i++) {
        const float *x = by_row ? a + i * ROW : a + i, *before = prior ? prior + i * NR : NULL;
        const request none = {(const char *)x, 0};
        if (half_b && by_row)
            micro(1, VECTORS, true, true, true, false, depth, x, b, before, to + i * NR, none);
        else if (half_b)
            micro(1, VECTORS, true, false, true, false, depth, x, b, before, to + i * NR, none);
        else if (by_row)
            micro(1, VECTORS, false, true, true, false, depth, x, b, before, to + i * NR, none);
        else
            micro(1, VECTORS, false, false, true, false, depth, x, b, before, to + i * NR, none);
    }
}

/* ---- a tile --------------------------------------------------------------------------------- */

/* Where the rows of a piece of C will be written, while they are still computed: each is in lines of its own. */
static void claim(const gemm_output *c, int64_t i, int64_t rows, int64_t j) {
    enum { LINE = 64 };
    if (c->col != 1 || c->panel || c->place || c->dtype == ANEX_I8 || c->dtype == ANEX_U8) return;
    const int64_t item = c->dtype == ANEX_F16 ? 2 : 4, step = c->row * item;
    const char *to = (const char *)c->data + i * step + j * item;
    for (int64_t r = 0; r < rows; r++, to += step)
        for (int64_t at = 0; at < NR * item; at += LINE) __builtin_prefetch(to + at, 1);
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
static request request_for(const strips *s, int64_t strip, int64_t product, int64_t products, int64_t depth,
                           const void *else_at) {
    if (strip >= s->count) return (request){else_at, 0};
    int64_t part = ceil_div(s->bytes, products);
    return (request){s->first + strip * s->step + product * part, ceil_div(part, anex_max(depth, 1))};
}

void gemm_tile(const gemm *g, const gemm_side *a, const gemm_side *b, const gemm_output *c, int64_t tile,
               void *scratch) {
    gemm_room room = room_of(g);
    float *a_block = scratch, *b_block = a_block + room.a / sizeof(float);
    float *sums = b_block + room.b / sizeof(float), *last_sums = sums + room.sums / sizeof(float);
    int64_t i0 = tile / g->tiles_n * g->tile_m, i1 = anex_min(i0 + g->tile_m, g->m);
    int64_t j0 = tile % g->tiles_n * g->tile_n, j1 = anex_min(j0 + g->tile_n, g->n);
    int64_t panels = ceil_div(j1 - j0, NR);
    /* rows multiplied at once, as even as they can be: one row takes as long as four */
    const int64_t step = ceil_div(i1 - i0, ceil_div(i1 - i0, MR));
    const int64_t products = ceil_div(i1 - i0, step); /* of a panel */
    const gemm_codes *codes = g->decodes ? b->codes : NULL;
    bool as_is = b->panels && (b->matrix.dtype == ANEX_F32 || i1 - i0 <= direct());
    bool half_b = as_is && b->matrix.dtype == ANEX_F16;
    /* products of two halves are exact in float: then rounding once or twice is the same */
    bool exact = !a->pack && !b->pack && a->matrix.dtype == ANEX_F16 && b->matrix.dtype == ANEX_F16;
    bool once = !FUSED && g->strict && !exact;
    for (int64_t k0 = 0; !k0 || k0 < g->k; k0 += g->block) { /* once even if k = 0: sums of nothing */
        int64_t depth = anex_min(g->block, g->k - k0);
        bool last = k0 + depth == g->k;
        const strips later = strips_after(g, b, j0, j1, k0 + depth);
        if (!as_is && !codes) fetch_columns(b, b_block, j0, j1, k0, depth, g->k);
        for (int64_t i = i0; i < i1; i += BLOCK / MR * step) {
            int64_t rows = anex_min(BLOCK / MR * step, i1 - i);
            bool by_row = fetch_rows(a, a_block, i, rows, step, k0, depth);
            for (int64_t p = 0; p < panels; p++) {
                int64_t j = j0 + p * NR;
                const char *y = as_is ? (const char *)b->panels + (j / NR * g->k + k0) * NR * (half_b ? 2 : 4)
                                       : (const char *)(b_block + p * NR * depth);
                for (int64_t r = 0; r < rows; r += step) {
                    int64_t m = anex_min(step, rows - r);
                    if (last) claim(c, i + r, m, j);
                    float *sum = sums + ((i - i0 + r) / step * panels + p) * MR * NR, *to = last ? last_sums : sum;
                    const float *x = a_block + (by_row ? r * ROW : r / step * MR * depth);
                    if (codes)
                        codes_kernels[m - 1][codes->nibbles][by_row](
                            depth, x, codes->panels + (j / NR * g->k + k0) * (codes->nibbles ? NR / 2 : NR),
                            codes->nibbles ? codes->table + j / NR * codes->table_step : NULL,
                            codes->affine + (j / NR * (g->k / codes->block) + k0 / codes->block) * (1 + codes->zeros) * NR,
                            codes->zeros, k0 ? sum : NULL, to);
                    else if (once)
                        micro_once(m, half_b, by_row, depth, x, y, k0 ? sum : NULL, to);
                    else
                        micro_kernels[m - 1][half_b][by_row](
                            depth, x, y, k0 ? sum : NULL, to,
                            request_for(&later, p, (i - i0 + r) / step, products, depth, x));
                    if (last) gemm_store_tile(c, to, i + r, m, j, anex_min(NR, j1 - j));
                }
            }
        }
    }
}
