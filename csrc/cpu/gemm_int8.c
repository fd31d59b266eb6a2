/* The product of int8 by int8: plan, pack, multiply, scale. See gemm_int8.h. */
#include "gemm_int8.h"

#include "dot.h"

enum {
    QUADS = 128,      /* of k in a block: a panel of columns stays in the first cache */
    MOST_PANELS = 16, /* of columns in a tile */
    MOST_SUMS = 1 << 18, /* of a tile, when k takes several blocks */
    VECTORS = NR / VF,
    SIDE = 16 /* bytes that are interleaved at a time */
};

static int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }
static int64_t quads_of(int64_t k) { return ceil_div(k, 4); }

/* ---- plan ----------------------------------------------------------------------------------- */

static double cycles(const gemm_int8 *g, int64_t tile_m, int64_t tile_n) {
    double rows = (double)anex_max(4, ceil_div(g->m, 4) * 4), columns = (double)(ceil_div(g->n, NR) * NR);
    double multiply = rows * columns * (double)quads_of(g->k) / ((g->dot ? 2.0 : 0.6) * VF);
    double fetch = g->weight_rows ? 0.1 * (double)(g->n * ceil_div(g->m, tile_m))
                                  : 0.3 * (double)(g->m * ceil_div(g->n, tile_n));
    return multiply + fetch * (double)g->k + 0.6 * (double)(g->m * g->n);
}

void gemm_int8_plan(gemm_int8 *g, const anex_node *node, int64_t batch, int64_t m, int64_t n, int64_t k,
                    bool weight_rows) {
    const double cycle = 0.3; /* ns */
    *g = (gemm_int8){.m = m, .n = n, .k = k, .weight_rows = weight_rows, .dot = node->dot};
    double best = -1, whole = cycle * cycles(g, m, n) * (double)batch;
    double wanted = whole < 20000 ? 1 : anex_min(32, anex_max(12, (int64_t)(whole / 100000)));
    for (int64_t panels = 1; panels <= MOST_PANELS; panels *= 2)
        for (int64_t rows = MR;; rows *= 2) {
            int64_t tile_n = panels * NR, tile_m = ceil_div(ceil_div(m, ceil_div(m, rows)), MR) * MR;
            if (quads_of(k) > QUADS && tile_m * tile_n > MOST_SUMS) break;
            double tasks = (double)(batch * ceil_div(m, tile_m) * ceil_div(n, tile_n));
            double cost = cycles(g, tile_m, tile_n) * (double)batch;
            if (tasks < wanted) cost *= wanted / tasks;
            if (best < 0 || cost < best) {
                best = cost;
                g->tile_m = tile_m, g->tile_n = tile_n;
                g->tiles_m = ceil_div(m, tile_m), g->tiles_n = ceil_div(n, tile_n);
            }
            if (rows >= m) break;
        }
    g->cost = cycle * cycles(g, g->tile_m, g->tile_n) / (double)anex_max(1, gemm_int8_tiles(g));
}

typedef struct room { /* scratch, in bytes */
    size_t activations, sums, tile;
} room;

static room room_of(const gemm_int8 *g) {
    int64_t rows = ceil_div(anex_min(g->tile_m, g->m), MR) * MR, columns = ceil_div(anex_min(g->tile_n, g->n), NR) * NR;
    int64_t quads = anex_min(QUADS, quads_of(g->k));
    return (room){
        .activations = anex_align((size_t)((g->weight_rows ? columns : rows) * quads * 4)),
        .sums = quads_of(g->k) > QUADS ? anex_align((size_t)(rows * columns) * sizeof(int32_t)) : 0,
        .tile = anex_align(MR * NR * sizeof(float)),
    };
}

size_t gemm_int8_scratch(const gemm_int8 *g) {
    room room = room_of(g);
    return room.activations + room.sums + room.tile;
}

/* ---- weights -------------------------------------------------------------------------------- */

typedef struct packed { /* arrays of a value per channel, whole panels of them, then the panels */
    int32_t *correction; /* what DOT_ZERO and the activations' zero add to a sum */
    float *scale, *bias;
    int8_t *panels;
} packed;

static int64_t width_of(const gemm_int8 *g) { return g->weight_rows ? MR : NR; }
static int64_t channels_of(const gemm_int8 *g) {
    return ceil_div(g->weight_rows ? g->m : g->n, width_of(g)) * width_of(g);
}

static packed packed_of(const gemm_int8 *g, const void *memory) {
    size_t each = anex_align((size_t)channels_of(g) * 4);
    char *at = (char *)memory;
    return (packed){(int32_t *)at, (float *)(at + each), (float *)(at + 2 * each), (int8_t *)(at + 3 * each)};
}

size_t gemm_int8_packed_bytes(const gemm_int8 *g) {
    size_t channels = (size_t)channels_of(g);
    return 3 * anex_align(channels * 4) + anex_align(channels * (size_t)quads_of(g->k) * 4);
}

void gemm_int8_pack(const gemm_int8 *g, const gemm_int8_weights *w, void *memory) {
    packed p = packed_of(g, memory); /* zeroed */
    int64_t width = width_of(g), channels = g->weight_rows ? g->m : g->n, quads = quads_of(g->k);
    int32_t zero = w->zero + DOT_ZERO - (w->is_signed ? 0 : 128);
    for (int64_t o = 0; o < channels; o++) {
        const int8_t *from = w->weight + o * g->k;
        int8_t *panel = p.panels + o / width * quads * width * 4 + o % width * 4;
        int64_t sum = 0;
        for (int64_t k = 0; k < g->k; k++) {
            panel[k / 4 * width * 4 + k % 4] = from[k];
            sum += from[k];
        }
        p.correction[o] = (int32_t)(uint32_t)(sum * zero);
        p.scale[o] = w->activation_scale * (float)anex_real(w->scale, anex_tensor_size(w->scale) > 1 ? w->first + o : 0);
        p.bias[o] = w->bias ? (float)anex_real(w->bias, w->first + o) : 0;
    }
}

/* ---- activations ---------------------------------------------------------------------------- */

/* Bytes as the dot products want them: 0x80 to turn, or 0 */
static uint8_t turn_of(const gemm_int8_activations *a) { return a->is_signed == !DOT_ZERO ? 0 : 0x80; }

/* to[0..15][4] = the bytes of four rows side by side */
static inline void interleave(uint8_t *restrict to, const uint8_t *restrict r0, const uint8_t *restrict r1,
                              const uint8_t *restrict r2, const uint8_t *restrict r3, uint8_t turn) {
#if defined(__AVX2__)
    const __m128i t = _mm_set1_epi8((char)turn);
    __m128i a = _mm_xor_si128(_mm_loadu_si128((const __m128i *)r0), t),
            b = _mm_xor_si128(_mm_loadu_si128((const __m128i *)r1), t),
            c = _mm_xor_si128(_mm_loadu_si128((const __m128i *)r2), t),
            d = _mm_xor_si128(_mm_loadu_si128((const __m128i *)r3), t);
    __m128i ab0 = _mm_unpacklo_epi8(a, b), ab1 = _mm_unpackhi_epi8(a, b);
    __m128i cd0 = _mm_unpacklo_epi8(c, d), cd1 = _mm_unpackhi_epi8(c, d);
    _mm_storeu_si128((__m128i *)to, _mm_unpacklo_epi16(ab0, cd0));
    _mm_storeu_si128((__m128i *)to + 1, _mm_unpackhi_epi16(ab0, cd0));
    _mm_storeu_si128((__m128i *)to + 2, _mm_unpacklo_epi16(ab1, cd1));
    _mm_storeu_si128((__m128i *)to + 3, _mm_unpackhi_epi16(ab1, cd1));
#elif defined(__aarch64__)
    uint8x16_t t = vdupq_n_u8(turn);
    uint8x16x4_t rows = {{veorq_u8(vld1q_u8(r0), t), veorq_u8(vld1q_u8(r1), t), veorq_u8(vld1q_u8(r2), t),
                          veorq_u8(vld1q_u8(r3), t)}};
    vst4q_u8(to, rows);
#else
    for (int i = 0; i < SIDE; i++) {
        to[4 * i] = r0[i] ^ turn, to[4 * i + 1] = r1[i] ^ turn;
        to[4 * i + 2] = r2[i] ^ turn, to[4 * i + 3] = r3[i] ^ turn;
    }
#endif
}

/* Panels of quads x width x 4, `next` bytes from one to the next, from rows, one per k, `step` apart: all of a row
   while its page is at hand. What lies past `depth` meets weights of 0. */
static void pack_across(uint8_t *to, int64_t width, int64_t next, const uint8_t *x, int64_t step, int64_t depth,
                        int64_t cols, uint8_t turn) {
    enum { AHEAD = 12, LINE = 64 };
    for (int64_t k = 0; k < depth; k += 4, to += width * 4) {
        const uint8_t *row[4];
        for (int64_t i = 0; i < 4; i++) {
            row[i] = x + anex_min(k + i, depth - 1) * step;
            const uint8_t *later = x + anex_min(k + i + AHEAD, depth - 1) * step;
            for (int64_t j = 0; j < cols; j += LINE) __builtin_prefetch(later + j);
        }
        uint8_t *panel = to;
        for (int64_t j = 0, lane = 0, wide; j < cols; j += wide) {
            wide = anex_min(SIDE, width - lane);
            if (wide == SIDE && cols - j >= SIDE) {
                interleave(panel + 4 * lane, row[0] + j, row[1] + j, row[2] + j, row[3] + j, turn);
            } else {
                uint8_t part[4][SIDE] = {{0}}, quads[4 * SIDE];
                for (int i = 0; i < 4; i++) memcpy(part[i], row[i] + j, (size_t)anex_min(wide, cols - j));
                interleave(quads, part[0], part[1], part[2], part[3], turn);
                memcpy(panel + 4 * lane, quads, (size_t)wide * 4);
            }
            lane += wide;
            if (lane == width) lane = 0, panel += next;
        }
    }
}

/* The same from rows along k, `step` from one to the next */
static void pack_along(uint8_t *restrict to, int64_t width, const uint8_t *restrict x, int64_t step, int64_t depth,
                       int64_t rows, uint8_t turn) {
    const uint32_t turns = turn * 0x01010101u;
    for (int64_t i = 0; i < rows; i++) {
        const uint8_t *from = x + i * step;
        int64_t q = 0;
        for (; q < depth / 4; q++) {
            uint32_t quad;
            memcpy(&quad, from + 4 * q, 4);
            quad ^= turns;
            memcpy(to + (q * width + i) * 4, &quad, 4);
        }
        if (depth % 4) {
            uint8_t quad[4] = {0};
            for (int64_t b = 0; b < depth % 4; b++) quad[b] = from[4 * q + b] ^ turn;
            memcpy(to + (q * width + i) * 4, quad, 4);
        }
    }
}

static void pack_gathered(uint8_t *to, int64_t width, const conv_source *source, int64_t k0, int64_t depth, int64_t j,
                          int64_t cols, uint8_t turn) {
    enum { LINE = NR + SIDE, TAPS = 16 };
    uint8_t lines[TAPS * LINE + SIDE];
    for (int64_t k = 0; k < depth; k += TAPS) {
        int64_t taps = anex_min(TAPS, depth - k);
        conv_pack_bytes(source, lines, LINE, k0 + k, taps, j, cols);
        pack_across(to + k * width, width, 0, lines, LINE, taps, cols, turn);
    }
}

static void fetch(const gemm_int8_activations *a, uint8_t *to, int64_t width, int64_t first, int64_t end, int64_t k0,
                  int64_t depth) {
    uint8_t turn = turn_of(a);
    int64_t next = width * quads_of(depth) * 4;
    if (!a->gather && a->k_step != 1) {
        pack_across(to, width, next, a->x + k0 * a->k_step + first, a->k_step, depth, end - first, turn);
        return;
    }
    for (int64_t j = first; j < end; j += width, to += next) {
        int64_t cols = anex_min(width, end - j);
        if (a->gather)
            pack_gathered(to, width, a->gather, k0, depth, j, cols, turn);
        else
            pack_along(to, width, a->x + k0 + j * a->step, a->step, depth, cols, turn);
    }
}

/* ---- multiply ------------------------------------------------------------------------------- */

/* to [m][NR] = prior + A [m, 4 * quads] . B [4 * quads, NR]; `prior` may be NULL or `to` */
typedef void micro_kernel(int64_t quads, const void *a, const void *b, const int32_t *prior, int32_t *to);

static inline __attribute__((always_inline)) void micro(const int m, const bool dot, const bool weight_rows,
                                                        int64_t quads, const char *a, const char *b,
                                                        const int32_t *prior, int32_t *to) {
    vq sum[MR][VECTORS];
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) sum[i][v] = vq_set(0);
    for (int64_t q = 0; q < quads; q++) {
        vq y[VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) y[v] = vq_load(b + (q * NR + v * VF) * 4);
#pragma GCC unroll 16
        for (int i = 0; i < m; i++) {
            int32_t quad;
            memcpy(&quad, a + (q * MR + i) * 4, 4);
            vq x = vq_set(quad);
#pragma GCC unroll 4
            for (int v = 0; v < VECTORS; v++)
                sum[i][v] = weight_rows ? vq_dot(dot, sum[i][v], y[v], x) : vq_dot(dot, sum[i][v], x, y[v]);
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < m; i++)
#pragma GCC unroll 4
        for (int v = 0; v < VECTORS; v++) {
            int64_t at = i * NR + v * VF;
            vq_store(to + at, prior ? vq_add(vq_load(prior + at), sum[i][v]) : sum[i][v]);
        }
}

#define MICRO(m, dot, weight_rows)                                                                      \
    static void micro_##m##_##dot##weight_rows(int64_t quads, const void *a, const void *b,             \
                                               const int32_t *prior, int32_t *to) {                     \
        micro(m < MR ? m : MR, dot, weight_rows, quads, a, b, prior, to);                               \
    }
#define MICROS(m) MICRO(m, 0, 0) MICRO(m, 0, 1) MICRO(m, 1, 0) MICRO(m, 1, 1)
#define MICRO_ROW(m) {m, {{micro_##m##_00, micro_##m##_01}, {micro_##m##_10, micro_##m##_11}}},

/* Panels of rows are whole: a few rows too many cost less than a kernel for each number. */
#if defined(__AVX512F__)
#define EACH_ROWS(X) X(1) X(2) X(4) X(6) X(8) X(12)
#elif defined(__AVX2__)
#define EACH_ROWS(X) X(1) X(2) X(4) X(6)
#elif defined(__aarch64__)
#define EACH_ROWS(X) X(1) X(2) X(4) X(8)
#else
#define EACH_ROWS(X) X(1) X(2) X(4)
#endif
EACH_ROWS(MICROS)
static const struct {
    int64_t rows;
    micro_kernel *kernel[2][2]; /* [dot][weight_rows] */
} micro_kernels[] = {EACH_ROWS(MICRO_ROW)};

static micro_kernel *micro_for(int64_t rows, bool dot, bool weight_rows) {
    int64_t i = 0;
    while (micro_kernels[i].rows < rows) i++;
    return micro_kernels[i].kernel[dot][weight_rows];
}

/* Sums [rows][NR] to what they stand for, in place; channel `o` is the first row's or column's */
static void scale_sums(const gemm_int8 *g, const packed *p, int32_t *sums, int64_t rows, int64_t o) {
    float *to = (float *)(void *)sums;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t at = r * NR, v = 0; v < NR; v += VF) {
            int64_t i = g->weight_rows ? o + r : o + v;
            vq correction = g->weight_rows ? vq_set(p->correction[i]) : vq_load(p->correction + i);
            vf scale = g->weight_rows ? vf_set(p->scale[i]) : vf_load(p->scale + i);
            vf bias = g->weight_rows ? vf_set(p->bias[i]) : vf_load(p->bias + i);
            vf_store(to + at + v, vf_fma(vq_to_float(vq_sub(vq_load(sums + at + v), correction)), scale, bias));
        }
}

void gemm_int8_tile(const gemm_int8 *g, const void *memory, const gemm_int8_activations *a, const gemm_output *c,
                    int64_t tile, void *scratch) {
    room room = room_of(g);
    packed p = packed_of(g, memory);
    uint8_t *activations = scratch;
    int32_t *sums = (int32_t *)((char *)scratch + room.activations), *last_sums = sums + room.sums / sizeof *sums;
    int64_t i0 = tile / g->tiles_n * g->tile_m, i1 = anex_min(i0 + g->tile_m, g->m);
    int64_t j0 = tile % g->tiles_n * g->tile_n, j1 = anex_min(j0 + g->tile_n, g->n);
    int64_t panels = ceil_div(j1 - j0, NR), quads = quads_of(g->k);
    for (int64_t q0 = 0; !q0 || q0 < quads; q0 += QUADS) { /* once even if k = 0 */
        int64_t depth = anex_min(QUADS, quads - q0), n = anex_min(4 * depth, g->k - 4 * q0);
        bool last = q0 + depth == quads;
        if (g->weight_rows)
            fetch(a, activations, NR, j0, j1, 4 * q0, n);
        else
            fetch(a, activations, MR, i0, i1, 4 * q0, n);
        for (int64_t panel = 0; panel < panels; panel++) {
            int64_t j = j0 + panel * NR;
            for (int64_t i = i0; i < i1; i += MR) {
                int64_t m = anex_min(MR, i1 - i);
                const int8_t *weights = p.panels + ((g->weight_rows ? i : j) * quads + q0 * width_of(g)) * 4;
                const uint8_t *others = activations + (g->weight_rows ? j - j0 : i - i0) * depth * 4;
                int32_t *sum = sums + ((i - i0) / MR * panels + panel) * MR * NR, *to = last ? last_sums : sum;
                micro_for(m, g->dot, g->weight_rows)(depth, g->weight_rows ? (const void *)weights : others,
                                                     g->weight_rows ? (const void *)others : weights,
                                                     q0 ? sum : NULL, to);
                if (!last) continue;
                scale_sums(g, &p, to, m, g->weight_rows ? i : j);
                gemm_store_tile(c, (float *)(void *)to, i, m, j, anex_min(NR, j1 - j));
            }
        }
    }
}
