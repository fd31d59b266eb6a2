/* The matrix product behind linear, matmul, einsum, conv and attention.

   C [m, n] = A [m, k] . B [k, n], in float whatever the storage. A register tile is MR rows of A,
   each element broadcast, times NR columns of B, read as vectors. B is laid out in panels of NR columns:
   [n / NR][k][NR]. A lies in rows as it came, or in panels [m / MR][k][MR] when its rows are not contiguous.
   k is cut into blocks of at most KC, as the plan says; an element is the sum over blocks, in order, of sums over k, in order:
   tiles, tasks and threads never change it, nor, in a strict plan, does the instruction set. */
#ifndef ANEX_GEMM_H
#define ANEX_GEMM_H

#include "chain.h"
#include "simd.h"

#if defined(__AVX512F__)
enum { MR = 12, NR = 32 };
#elif defined(__AVX2__)
enum { MR = 6, NR = 16 };
#elif defined(__aarch64__)
enum { MR = 8, NR = 8 };
#else
enum { MR = 4, NR = 8 };
#endif
enum { KC = 256 };

/* Element (i, j) of somebody's memory is data[i * row + j * col]. */
typedef struct gemm_matrix {
    const void *data;
    int64_t row, col;
    anex_dtype dtype;
} gemm_matrix;

static inline gemm_matrix gemm_transposed(gemm_matrix x) { return (gemm_matrix){x.data, x.col, x.row, x.dtype}; }

/* Write B[k0 .. k0+depth-1, j0 .. j0+cols-1] as to[k][width], cols <= width. Columns from `cols` on may hold
   anything; up to VF elements after the last row may be overwritten. */
typedef void gemm_pack(const void *source, float *to, int64_t width, int64_t k0, int64_t depth, int64_t j0,
                       int64_t cols);

/* B as codes of 8 or 4 bits: the value is scale * (code - zero), or scale * (table[code] - zero). */
typedef struct gemm_codes {
    const uint8_t *panels; /* [n / NR][k][NR] int8; of 4 bits: NR / 2 bytes, the second half of columns above */
    bool nibbles;
    const float *table; /* nibbles: [..][16] */
    int64_t table_step; /* from the table of one panel to the next one's: 0 or 16 */
    int64_t block;      /* of k, that has one scale and zero */
    bool zeros;
    const float *affine; /* [n / NR][k / block][1 + zeros][NR]: scales, and zeros unless all are 0 */
} gemm_codes;

/* One operand while running: in panels already, in memory, or made by `pack` (A as if transposed). */
typedef struct gemm_side {
    const void *panels; /* [n / NR][k][NR] of matrix.dtype, B only; else NULL */
    const gemm_codes *codes; /* B only; else NULL */
    gemm_pack *pack;    /* else, if not NULL, from `source` */
    const void *source;
    gemm_matrix matrix; /* else */
} gemm_side;

typedef struct gemm_output {
    void *data;
    int64_t row, col; /* element strides */
    anex_dtype dtype;
    int64_t panel; /* from one panel of NR columns to the next; 0: NR * col */
    void (*place)(const void *source, int64_t first, int64_t n, int64_t *at); /* else where columns first .. are */
    bool place_rows;                                                          /* it is rows that `place` places */
    const void *source;
    bool accumulate; /* add to what is there */
    const void *bias;
    anex_dtype bias_dtype;
    bool bias_by_row; /* bias [m], else [n] */
    const anex_node *node; /* whose epilogue follows; NULL: none. data is element `first` of its out[0] */
    int64_t first;
} gemm_output;

/* What is known while compiling of how an operand will come. */
typedef enum gemm_kind { GEMM_BY_K, GEMM_ACROSS_K, GEMM_PACKER, GEMM_CONSTANT, GEMM_CODES } gemm_kind;

/* A plan for `batch` products of one shape. `turned`: C^T = B^T . A^T is what runs; m and n are exchanged. */
typedef struct gemm {
    int64_t m, n, k;
    int64_t tile_m, tile_n, tiles_m, tiles_n;
    bool turned;
    int64_t block; /* of k in one pass: KC, or less where scales change */
    bool decodes;  /* B's codes are decoded where they are multiplied, else a block at a time before */
    bool strict; /* the node's: for whoever plans to copy */
    double cost; /* of one tile in nanoseconds */
} gemm;

/* Choose orientation and tiles. `a` and `b` say how memory runs: BY_K along k, ACROSS_K along m or n. */
#define gemm_plan ANEX_LOCAL(gemm_plan)
void gemm_plan(gemm *g, int64_t batch, int64_t m, int64_t n, int64_t k, gemm_kind a, gemm_kind b);
/* The same with B as codes, of which `block` along k have one scale; C is never turned. */
#define gemm_plan_codes ANEX_LOCAL(gemm_plan_codes)
void gemm_plan_codes(gemm *g, int64_t batch, int64_t m, int64_t n, int64_t k, gemm_kind a, int64_t block);
static inline int64_t gemm_tiles(const gemm *g) { return g->tiles_m * g->tiles_n; }

#define gemm_scratch ANEX_LOCAL(gemm_scratch)
size_t gemm_scratch(const gemm *g);

/* Compute `count` of the tiles from `tile` on. The operands are as planned: exchanged and transposed already if turned. */
#define gemm_tiles_run ANEX_LOCAL(gemm_tiles_run)
void gemm_tiles_run(const gemm *g, const gemm_side *a, const gemm_side *b, const gemm_output *c, int64_t tile,
                    int64_t count, void *scratch);
static inline void gemm_tile(const gemm *g, const gemm_side *a, const gemm_side *b, const gemm_output *c, int64_t tile,
                             void *scratch) {
    gemm_tiles_run(g, a, b, c, tile, 1, scratch);
}

/* to[MR][NR] = A [MR, depth] . B [depth, cols], of which to[..][cols ..] may become anything; or, `more`, added to
   `to`. A as a[depth][MR], B as b[depth][NR]; depth <= KC. */
#define gemm_multiply ANEX_LOCAL(gemm_multiply)
void gemm_multiply(int64_t depth, const float *a, const float *b, int64_t cols, bool more, float *to);

/* The end of a tile, for other products too: rows x cols floats, `tile` [rows][NR], become rows i .. and columns
   j .. of C, after its bias and the epilogue of its node. */
#define gemm_store_tile ANEX_LOCAL(gemm_store_tile)
void gemm_store_tile(const gemm_output *c, float *tile, int64_t i, int64_t rows, int64_t j, int64_t cols);

/* B [k, n] into panels of its own dtype, once, while compiling. */
static inline size_t gemm_panels_bytes(int64_t k, int64_t n, anex_dtype dtype) {
    return (size_t)((n + NR - 1) / NR * NR * k) * (dtype == ANEX_F16 ? 2 : 4);
}
#define gemm_make_panels ANEX_LOCAL(gemm_make_panels)
void gemm_make_panels(const gemm_matrix *b, int64_t k, int64_t n, void *panels);

/* to[k][width] = B[k0 + k, j0 + j] widened: the packer of plain matrices; `source` is a gemm_matrix [k, n]. */
#define gemm_pack_matrix ANEX_LOCAL(gemm_pack_matrix)
gemm_pack gemm_pack_matrix;

static inline vf gemm_load(const void *x, anex_dtype dtype, int64_t at) {
    return vf_load_as(x, dtype == ANEX_F16, at);
}

static inline float gemm_one(const void *x, anex_dtype dtype, int64_t at) {
    return dtype == ANEX_F16 ? anex_half_to_float(((const half *)x)[at]) : ((const float *)x)[at];
}

/* n elements to float */
static inline void gemm_widen(float *to, const void *from, anex_dtype dtype, int64_t at, int64_t n) {
    if (dtype == ANEX_F32) {
        memcpy(to, (const float *)from + at, (size_t)n * sizeof *to);
        return;
    }
    const half *halves = (const half *)from + at;
    int64_t i = 0;
    for (; i + VF <= n; i += VF) vf_store(to + i, vf_load_half(halves + i));
    if (i < n) vf_store_some(to + i, false, vf_load_some(halves + i, true, n - i), n - i);
}

/* x . row `at` of y, n long: two sums of DOT_LANES lanes in turns and the rest one by one, whatever a vector holds */
static inline float gemm_dot(bool strict, const float *x, const void *y, anex_dtype dtype, int64_t at, int64_t n) {
    enum { DOT_LANES = 16, VECTORS = DOT_LANES / VF };
    vf sum[2][VECTORS];
    float lanes[DOT_LANES], total = 0;
    int64_t i = 0;
    for (int v = 0; v < VECTORS; v++) sum[0][v] = sum[1][v] = vf_zero();
    for (; i + 2 * DOT_LANES <= n; i += 2 * DOT_LANES)
        for (int s = 0; s < 2; s++)
            for (int v = 0; v < VECTORS; v++) {
                int64_t k = i + s * DOT_LANES + v * VF;
                sum[s][v] = vf_fma_if(strict, vf_load(x + k), gemm_load(y, dtype, at + k), sum[s][v]);
            }
    if (i + DOT_LANES <= n) {
        for (int v = 0; v < VECTORS; v++)
            sum[0][v] = vf_fma_if(strict, vf_load(x + i + v * VF), gemm_load(y, dtype, at + i + v * VF), sum[0][v]);
        i += DOT_LANES;
    }
    for (int v = 0; v < VECTORS; v++) vf_store(lanes + v * VF, sum[0][v] + sum[1][v]);
    for (; i < n; i++) total += x[i] * gemm_one(y, dtype, at + i);
    for (int half = DOT_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++) lanes[l] += lanes[l + half];
    return total + lanes[0];
}

#endif
