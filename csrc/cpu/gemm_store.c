/* The end of a product: what follows it is done to each tile, which goes to where it belongs. See gemm.h. */
#include "gemm.h"

_Static_assert((int)MR * NR <= ANEX_EPILOGUE_LANES, "a tile is a piece of an epilogue");

#define SCATTER(type) \
    for (int64_t s = 0; s < cols; s++) ((type *)to)[row_at[r] + col_at[s]] = ((const type *)tile)[r * NR + s];
static void scatter(const void *tile, size_t item, const int64_t *row_at, int64_t rows, const int64_t *col_at,
                    int64_t cols, void *to) {
    for (int64_t r = 0; r < rows; r++)
        if (item == sizeof(half))
            SCATTER(half)
        else if (item == 1)
            SCATTER(uint8_t)
        else
            SCATTER(float)
}

/* Lanes as the output has them: as many bytes each as is returned. An epilogue that ends in bytes left integers. */
static size_t narrow_lanes(void *restrict to, const float *restrict lanes, anex_dtype dtype, int64_t n) {
    if (dtype == ANEX_F16) {
        anex_narrow(to, lanes, n);
        return sizeof(half);
    }
    const char *from = (const char *)lanes;
    uint8_t *bytes = to;
    for (int64_t i = 0; i < n; i++) {
        int32_t lane;
        memcpy(&lane, from + i * 4, sizeof lane);
        bytes[i] = (uint8_t)lane; /* int8 has the same bits */
    }
    return 1;
}

static void find_places(const gemm_output *c, int64_t i, int64_t rows, int64_t j, int64_t cols, int64_t *row_at,
                        int64_t *col_at) {
    for (int64_t r = 0; r < rows; r++) row_at[r] = (i + r) * c->row;
    for (int64_t s = 0; s < cols; s++) col_at[s] = (j + s) * c->col;
    if (c->place && c->place_rows) c->place(c->source, i, rows, row_at);
    if (c->place && !c->place_rows) c->place(c->source, j, cols, col_at);
}

static bool lies_across(const gemm_output *c) { return c->row == 1 && c->col != 1 && !c->place; }

/* Add to the sums what belongs to them, and do what follows the product. */
static void finish_tile(const gemm_output *c, float *tile, int64_t i, int64_t rows, int64_t j, int64_t cols) {
    if (c->bias) {
        float bias[MR > NR ? MR : NR];
        gemm_widen(bias, c->bias, c->bias_dtype, c->bias_by_row ? i : j, c->bias_by_row ? rows : cols);
        if (c->bias_by_row)
            for (int64_t r = 0; r < rows; r++)
                for (int s = 0; s < NR; s++) tile[r * NR + s] += bias[r];
        else
            for (int64_t r = 0; r < rows; r++)
                for (int64_t s = 0; s < cols; s++) tile[r * NR + s] += bias[s];
    }
    if (c->node && c->node->epilogue && !lies_across(c)) {
        int64_t row_at[MR], col_at[NR];
        find_places(c, i, rows, j, cols, row_at, col_at);
        for (int64_t r = 0; r < rows; r++) row_at[r] += c->first;
        if (cols == NR) {
            anex_epilogue_run(c->node, tile, NR, row_at, rows, col_at, cols);
            return;
        }
        float dense[MR * NR]; /* only lanes that count */
        for (int64_t r = 0; r < rows; r++) memcpy(dense + r * cols, tile + r * NR, (size_t)cols * sizeof *tile);
        anex_epilogue_run(c->node, dense, cols, row_at, rows, col_at, cols);
        for (int64_t r = 0; r < rows; r++) memcpy(tile + r * NR, dense + r * cols, (size_t)cols * sizeof *tile);
    }
}

static inline void turn(float *restrict to, const float *restrict tile, int64_t rows, int64_t cols) {
    for (int64_t s = 0; s < cols; s++)
        for (int64_t r = 0; r < rows; r++) to[s * rows + r] = tile[r * NR + s];
}

/* What follows the product reads along memory, and so does the store: when the result lies across the tile
   that takes a turned one. */
static void store_turned(const gemm_output *c, const float *tile, int64_t i, int64_t rows, int64_t j, int64_t cols) {
    float turned[NR * MR];
    half halves[NR * MR];
    int64_t line_at[NR], lane_at[MR];
    if (rows == MR)
        turn(turned, tile, MR, cols);
    else
        turn(turned, tile, rows, cols);
    for (int64_t s = 0; s < cols; s++) line_at[s] = c->first + (j + s) * c->col;
    for (int64_t r = 0; r < rows; r++) lane_at[r] = i + r;
    anex_epilogue_run(c->node, turned, rows, line_at, cols, lane_at, rows);
    size_t item = c->dtype == ANEX_F32 ? sizeof(float) : narrow_lanes(halves, turned, c->dtype, cols * rows);
    const char *from = c->dtype == ANEX_F32 ? (const char *)turned : (const char *)halves;
    char *to = (char *)c->data + (i + j * c->col) * (int64_t)item;
    size_t line = (size_t)rows * item, step = (size_t)c->col * item;
    for (int64_t s = 0; s < cols; s++) {
        if (line == MR * sizeof(half))
            memcpy(to + (size_t)s * step, from + (size_t)s * line, MR * sizeof(half));
        else
            memcpy(to + (size_t)s * step, from + (size_t)s * line, line);
    }
}

/* Rows of columns side by side whose end is plain, in one pass. */
static inline __attribute__((always_inline)) void store_rows(const gemm_output *c, const anex_plain *plain,
                                                             const bool narrow, const float *tile, int64_t i,
                                                             int64_t rows, int64_t j, int64_t cols, int64_t start) {
    const vf low = vf_set(plain->low), high = vf_set(plain->high);
    const bool halves = plain->dtype == ANEX_F16;
    const int64_t item = narrow ? 2 : 4;
    const char *residual = plain->residual;
    float by_row[MR > NR ? MR : NR] = {0}, by_col[NR] = {0};
    if (c->bias && c->bias_by_row) gemm_widen(by_row, c->bias, c->bias_dtype, i, rows);
    if (c->bias && !c->bias_by_row) gemm_widen(by_col, c->bias, c->bias_dtype, j, cols);
    for (int64_t r = 0; r < rows; r++, start += c->row)
        for (int64_t s = 0; s < cols; s += VF) {
            int64_t at = start + s, n = anex_min(VF, cols - s);
            vf x = vf_load(tile + r * NR + s) + (c->bias_by_row ? vf_set(by_row[r]) : vf_load(by_col + s));
            if (residual && n == VF)
                x = x + vf_load_as(residual, halves, c->first + at);
            else if (residual)
                x = x + vf_load_some(residual + (c->first + at) * (halves ? 2 : 4), halves, n);
            x = vf_min(high, vf_max(low, x));
            if (n == VF)
                vf_store_as(c->data, narrow, at, x);
            else
                vf_store_some((char *)c->data + at * item, narrow, x, n);
        }
}

void gemm_store_tile(const gemm_output *c, float *tile, int64_t i, int64_t rows, int64_t j, int64_t cols) {
    anex_plain plain = {.low = -INFINITY, .high = INFINITY};
    bool side_by_side = c->col == 1 && !c->place && !c->accumulate && anex_is_float_dtype(c->dtype);
    if (side_by_side && (!c->node || anex_epilogue_plain(c->node, &plain))) {
        const int64_t at = i * c->row + j / NR * (c->panel ? c->panel : NR);
        if (c->dtype == ANEX_F16)
            store_rows(c, &plain, true, tile, i, rows, j, cols, at);
        else
            store_rows(c, &plain, false, tile, i, rows, j, cols, at);
        return;
    }
    finish_tile(c, tile, i, rows, j, cols);
    if (c->node && c->node->epilogue && lies_across(c)) {
        store_turned(c, tile, i, rows, j, cols);
        return;
    }
    int64_t start = i * c->row + j / NR * (c->panel ? c->panel : NR);
    if (c->accumulate) { /* float, columns side by side */
        for (int64_t r = 0; r < rows; r++)
            for (int64_t s = 0; s < cols; s++) ((float *)c->data)[start + r * c->row + s] += tile[r * NR + s];
        return;
    }
    half halves[MR * NR];
    const char *from = (const char *)tile;
    int64_t item = sizeof(float);
    if (c->dtype != ANEX_F32) {
        item = (int64_t)narrow_lanes(halves, tile, c->dtype, rows * NR);
        from = (const char *)halves;
    }
    if (c->place || c->col != 1) {
        int64_t row_at[MR], col_at[NR];
        find_places(c, i, rows, j, cols, row_at, col_at);
        scatter(from, (size_t)item, row_at, rows, col_at, cols, c->data);
        return;
    }
    char *to = (char *)c->data + start * item;
    for (int64_t r = 0; r < rows; r++) memcpy(to + r * c->row * item, from + r * NR * item, (size_t)(cols * item));
}
