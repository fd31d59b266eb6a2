/* Weights stored smaller than they are used: palettes, sparsity, blockwise scales. All their inputs
   are constants, so the plan runs these kernels once, while it is compiled. */
#include "quantize.h"

#include <string.h>

enum { CHUNK = 512 };

/* ---- groups: a small tensor over the blocks of a large one ------------------------------------------ */

/* Axis i of the large tensor has `block[i]` elements to each step of the small one's. */
typedef struct groups {
    int32_t rank;
    int64_t rows, line; /* of the large tensor: line is its last axis */
    int64_t shape[ANEX_MAX_RANK], block[ANEX_MAX_RANK], step[ANEX_MAX_RANK];
} groups;

static anex_status plan_groups(const anex_node *node, groups *g, const anex_tensor *large, const anex_tensor *small,
                               int32_t inner_axes, anex_error *error) {
    if (small->rank != large->rank + inner_axes || large->rank < 1)
        return anex_node_fail(node, error, ANEX_SHAPE, "parameters of rank %d do not belong to data of rank %d",
                              small->rank, large->rank);
    g->rank = large->rank;
    g->line = large->shape[large->rank - 1];
    g->rows = anex_span(large, 0, large->rank - 1);
    for (int32_t i = 0; i < large->rank; i++) {
        if (small->shape[i] < 1 || large->shape[i] % small->shape[i])
            return anex_node_fail(node, error, ANEX_SHAPE, "axis %d of %lld elements does not divide into %lld groups",
                                  i,
                                  (long long)large->shape[i], (long long)small->shape[i]);
        g->shape[i] = large->shape[i], g->block[i] = large->shape[i] / small->shape[i];
        g->step[i] = anex_span(small, i + 1, small->rank);
    }
    return ANEX_OK;
}

/* The small tensor's offset for a row of the large one; its last axis goes on by step[rank - 1] per block. */
static int64_t group_of_row(const groups *g, int64_t row) {
    int64_t offset = 0;
    for (int32_t i = g->rank - 2; i >= 0; i--) {
        offset += row % g->shape[i] / g->block[i] * g->step[i];
        row /= g->shape[i];
    }
    return offset;
}

/* ---- masks ------------------------------------------------------------------------------------------ */

/* A mask has a byte per element, or (`bits`, as iOS 16 stores it) eight elements in one, the lowest bit first. */
static bool masked(const anex_tensor *mask, bool bits, int64_t i) {
    const uint8_t *m = mask->data;
    return bits ? m[i >> 3] >> (i & 7) & 1 : m[i];
}

static anex_status check_mask(const anex_node *node, const anex_tensor *mask, bool bits, int64_t n,
                              const anex_tensor *nonzero, anex_error *error) {
    int64_t set = 0, room = anex_tensor_size(mask) * (bits ? 8 : 1);
    if (anex_itemsize(mask) != 1 || room < n)
        return anex_node_fail(node, error, ANEX_SHAPE, "a mask of %lld bits does not cover %lld elements",
                              (long long)room,
                              (long long)n);
    for (int64_t i = 0; i < n; i++) set += masked(mask, bits, i);
    if (set != anex_tensor_size(nonzero))
        return anex_node_fail(node, error, ANEX_SHAPE, "the mask has %lld ones, but there are %lld nonzero values",
                              (long long)set, (long long)anex_tensor_size(nonzero));
    return ANEX_OK;
}

/* y[i] = the next of `x` where the mask is set, 0 elsewhere */
static void spread(char *y, const char *x, size_t item, const anex_tensor *mask, bool bits, int64_t n) {
    memset(y, 0, (size_t)n * item);
    for (int64_t i = 0; i < n; i++)
        if (masked(mask, bits, i)) memcpy(y + i * (int64_t)item, x, item), x += item;
}

static void sparse_to_dense_work(const anex_node *node, const anex_slice *slice) {
    enum { NONZERO_DATA, MASK, SHAPE };
    (void)slice;
    spread(node->out[0]->data, node->in[NONZERO_DATA]->data, anex_itemsize(node->out[0]), node->in[MASK],
           node->in[SHAPE] != NULL, anex_tensor_size(node->out[0]));
}

ANEX_KERNEL(constexpr_sparse_to_dense) {
    enum { NONZERO_DATA, MASK, SHAPE };
    anex_status status = anex_need_constants(node, 1u << NONZERO_DATA | 1u << MASK, error);
    if (!status)
        status = check_mask(node, node->in[MASK], node->in[SHAPE] != NULL, anex_tensor_size(node->out[0]),
                            node->in[NONZERO_DATA], error);
    if (!status && node->in[NONZERO_DATA]->dtype != node->out[0]->dtype)
        status = anex_node_fail(node, error, ANEX_DTYPE, "nonzero_data and the result differ in dtype");
    if (!status) anex_add_stage(node, sparse_to_dense_work, 1, 2 * (double)anex_tensor_size(node->out[0]));
    return status;
}

/* ---- palettes ---------------------------------------------------------------------------------------- */

/* lut [groups of the indices.., entries, vector]; an index becomes `vector` elements along `axis` */
typedef struct palette {
    groups groups;
    int64_t entries, vector;
    int32_t axis;
    int32_t bits; /* of a packed index (iOS 16), 0: one byte each */
} palette;

static anex_status plan_palette(anex_node *node, palette *p, const anex_tensor *indices, const anex_tensor *lut,
                                const anex_tensor *axis, anex_error *error) {
    anex_status status = plan_groups(node, &p->groups, indices, lut, 2, error);
    if (status) return status;
    p->entries = lut->shape[lut->rank - 2], p->vector = lut->shape[lut->rank - 1];
    p->axis = anex_axis(anex_int(axis, -1), indices->rank);
    if (p->entries < 1 || p->axis < 0 || p->axis >= indices->rank)
        return anex_node_fail(node, error, ANEX_INVALID, "vector_axis %d is none of the %d axes of the indices",
                              p->axis,
                              indices->rank);
    return ANEX_OK;
}

/* y[i] = table[index[i]] */
static void look_up_line(char *restrict y, const uint8_t *restrict index, const char *restrict table, int64_t n,
                         int64_t entries, int64_t item) {
    const uint8_t most = (uint8_t)anex_min(entries - 1, 255);
    switch (item) {
    case 1:
        for (int64_t i = 0; i < n; i++) y[i] = table[index[i] < most ? index[i] : most];
        return;
    case 2:
        for (int64_t i = 0; i < n; i++) memcpy(y + i * 2, table + (index[i] < most ? index[i] : most) * 2, 2);
        return;
    default:
        for (int64_t i = 0; i < n; i++) memcpy(y + i * 4, table + (index[i] < most ? index[i] : most) * 4, 4);
    }
}

/* y = the palette's elements for byte indices; y has indices' shape with `axis` times `vector` */
static void look_up(const palette *p, const uint8_t *index, const anex_tensor *lut, char *y) {
    const groups *g = &p->groups;
    const int64_t item = (int64_t)anex_itemsize(lut), last = g->rank - 1, vector = p->vector, block = g->block[last];
    int64_t below = 1; /* elements of y from one of a vector to the next */
    for (int32_t i = p->axis + 1; i < g->rank; i++) below *= g->shape[i];
    const int64_t step = p->axis == last ? vector : 1; /* elements of y from one index of a row to the next */
    for (int64_t row = 0; row < g->rows; row++) {
        const char *table = (const char *)lut->data + group_of_row(g, row) * item;
        int64_t flat = row * g->line;
        char *to = y + (flat / below * below * vector + flat % below) * item;
        for (int64_t j = 0; j < g->line; j += block, table += g->step[last] * item) {
            if (vector == 1) {
                look_up_line(to + j * item, index + flat + j, table, block, p->entries, item);
                continue;
            }
            for (int64_t i = j; i < j + block; i++) {
                const char *from = table + anex_min(index[flat + i], p->entries - 1) * vector * item;
                for (int64_t v = 0; v < vector; v++)
                    memcpy(to + (i * step + v * below) * item, from + v * item, (size_t)item);
            }
        }
    }
}

static void lut_to_dense_work(const anex_node *node, const anex_slice *slice) {
    enum { INDICES, LUT };
    (void)slice;
    look_up(node->state, node->in[INDICES]->data, node->in[LUT], node->out[0]->data);
}

/* Packed indices follow each other bit by bit, from the lowest of the first byte on. */
static void packed_lut_to_dense_work(const anex_node *node, const anex_slice *slice) {
    enum { INDICES, LUT };
    (void)slice;
    const palette *p = node->state;
    const size_t item = anex_itemsize(node->in[LUT]);
    const uint8_t *byte = node->in[INDICES]->data;
    const char *lut = node->in[LUT]->data;
    char *y = node->out[0]->data;
    uint32_t window = 0;
    int32_t held = 0;
    for (int64_t n = anex_tensor_size(node->out[0]); n > 0; n--, y += item) {
        if (held < p->bits) window |= (uint32_t)*byte++ << held, held += 8;
        memcpy(y, lut + (window & ((1u << p->bits) - 1)) * item, item);
        window >>= p->bits, held -= p->bits;
    }
}

ANEX_KERNEL(constexpr_lut_to_dense) {
    enum { INDICES, LUT, SHAPE, VECTOR_AXIS };
    const anex_tensor *indices = node->in[INDICES], *lut = node->in[LUT], *y = node->out[0];
    anex_status status = anex_need_constants(node, 1u << INDICES | 1u << LUT | 1u << VECTOR_AXIS, error);
    if (status) return status;
    if (anex_itemsize(indices) != 1 || lut->dtype != y->dtype)
        return anex_node_fail(node, error, ANEX_DTYPE, "indices must be bytes, and the result what the lut holds");
    palette *p = anex_node_state(node, sizeof *p, error);
    if (!p) return ANEX_MEMORY;
    int64_t n = anex_tensor_size(y), entries = anex_tensor_size(lut);
    if (node->in[SHAPE]) {
        while (p->bits < 8 && (int64_t)1 << p->bits < entries) p->bits++;
        if (p->bits < 1 || (int64_t)1 << p->bits != entries || anex_tensor_size(indices) * 8 < n * p->bits)
            return anex_node_fail(node, error, ANEX_SHAPE,
                                  "%lld bytes of indices into %lld entries do not make %lld elements",
                                  (long long)anex_tensor_size(indices), (long long)entries, (long long)n);
        anex_add_stage(node, packed_lut_to_dense_work, 1, 2 * (double)n);
        return ANEX_OK;
    }
    status = plan_palette(node, p, indices, lut, node->in[VECTOR_AXIS], error);
    if (status) return status;
    if (anex_tensor_size(indices) * p->vector != n)
        return anex_node_fail(node, error, ANEX_SHAPE, "%lld indices of %lld elements do not make %lld",
                              (long long)anex_tensor_size(indices), (long long)p->vector, (long long)n);
    anex_add_stage(node, lut_to_dense_work, 1, 5 * (double)n);
    return ANEX_OK;
}

static void lut_to_sparse_work(const anex_node *node, const anex_slice *slice) {
    enum { MASK, INDICES, LUT };
    const palette *p = node->state;
    const anex_tensor *mask = node->in[MASK];
    const size_t item = anex_itemsize(node->in[LUT]);
    const int64_t n = anex_tensor_size(mask);
    uint8_t *dense_index = slice->shared, *wide_mask = node->out[0]->data;
    char *dense = (char *)slice->shared + anex_align((size_t)n), *y = node->out[1]->data;
    spread((char *)dense_index, node->in[INDICES]->data, 1, mask, false, n);
    look_up(p, dense_index, node->in[LUT], dense);
    int64_t below = 1;
    for (int32_t i = p->axis + 1; i < mask->rank; i++) below *= mask->shape[i];
    for (int64_t i = 0; i < n; i++)
        for (int64_t v = 0; v < p->vector; v++)
            wide_mask[i / below * below * p->vector + v * below + i % below] = masked(mask, false, i);
    for (int64_t i = 0; i < n * p->vector; i++)
        if (wide_mask[i]) memcpy(y, dense + i * (int64_t)item, item), y += item;
}

ANEX_KERNEL(constexpr_lut_to_sparse) {
    enum { MASK, INDICES, LUT, VECTOR_AXIS };
    const anex_tensor *mask = node->in[MASK], *indices = node->in[INDICES], *lut = node->in[LUT];
    anex_status status = anex_need_constants(node, 1u << MASK | 1u << INDICES | 1u << LUT | 1u << VECTOR_AXIS, error);
    if (!status) status = check_mask(node, mask, false, anex_tensor_size(mask), indices, error);
    if (status) return status;
    palette *p = anex_node_state(node, sizeof *p, error);
    if (!p) return ANEX_MEMORY;
    status = plan_palette(node, p, mask, lut, node->in[VECTOR_AXIS], error);
    if (status) return status;
    int64_t n = anex_tensor_size(mask) * p->vector;
    if (node->n_out != 2 || anex_itemsize(indices) != 1 || node->out[1]->dtype != lut->dtype ||
        anex_itemsize(node->out[0]) != 1 ||
        anex_tensor_size(node->out[0]) != n || anex_tensor_size(node->out[1]) != anex_tensor_size(indices) * p->vector)
        return anex_node_fail(node, error, ANEX_SHAPE, "mask, indices and lut do not make these outputs");
    node->shared = anex_align((size_t)anex_tensor_size(mask)) + (size_t)n * anex_itemsize(lut);
    anex_add_stage(node, lut_to_sparse_work, 1, 10 * (double)n);
    return ANEX_OK;
}

/* ---- blockwise scales --------------------------------------------------------------------------------- */

static bool quantized_or_float(const anex_tensor *t) {
    return t->dtype == ANEX_F16 || t->dtype == ANEX_F32 || t->dtype == ANEX_I8 || t->dtype == ANEX_U8;
}

static anex_status plan_shift_scale(anex_node *node, groups **state, const anex_tensor *shape, const anex_tensor *data,
                                    const anex_tensor *scale, const anex_tensor *offset, const anex_tensor *y,
                                    anex_error *error) {
    groups *g = *state = anex_node_state(node, sizeof *g, error);
    if (!g) return ANEX_MEMORY;
    anex_status status = plan_groups(node, g, shape, scale, 0, error);
    if (status) return status;
    if (!quantized_or_float(data) || (offset && !quantized_or_float(offset)) || scale->dtype != y->dtype ||
        (y->dtype != ANEX_F16 && y->dtype != ANEX_F32))
        return anex_node_fail(node, error, ANEX_DTYPE, "data of %s cannot be scaled to %s",
                              anex_dtypes[data->dtype].name,
                              anex_dtypes[y->dtype].name);
    if (offset && anex_tensor_size(offset) != anex_tensor_size(scale))
        return anex_node_fail(node, error, ANEX_SHAPE, "offset and scale differ in shape");
    return ANEX_OK;
}

/* y[i] = scale * (y[i] - offset) for n elements from column `at` of a row; `group` is the row's */
static void shift_scale(const groups *g, float *y, const anex_tensor *scale, const anex_tensor *offset, int64_t group,
                        int64_t at, int64_t n) {
    const int64_t last = g->rank - 1, block = g->block[last], step = g->step[last];
    float s[CHUNK], z[CHUNK] = {0};
    if (block == 1) { /* the last axis has the smallest step, 1 */
        anex_load_line(s, scale, group + at, n);
        if (offset) anex_load_line(z, offset, group + at, n);
        anex_dequantize_line(y, s, z, n, true);
        return;
    }
    for (int64_t i = 0; i < n;) {
        int64_t k = group + (at + i) / block * step, m = anex_min(block - (at + i) % block, n - i);
        anex_load_line(s, scale, k, 1);
        if (offset) anex_load_line(z, offset, k, 1);
        anex_dequantize_line(y + i, s, z, m, false);
        i += m;
    }
}

static void blockwise_work(const anex_node *node, const anex_slice *slice) {
    enum { DATA, SCALE, OFFSET };
    const groups *g = node->state;
    float y[CHUNK];
    for (int64_t row = slice->begin; row < slice->end; row++) {
        int64_t group = group_of_row(g, row);
        for (int64_t at = 0; at < g->line; at += CHUNK) {
            int64_t n = anex_min(CHUNK, g->line - at);
            anex_load_line(y, node->in[DATA], row * g->line + at, n);
            shift_scale(g, y, node->in[SCALE], node->in[OFFSET], group, at, n);
            anex_store_line(node->out[0], row * g->line + at, y, n);
        }
    }
}

ANEX_KERNEL(constexpr_blockwise_shift_scale) {
    enum { DATA, SCALE, OFFSET };
    groups *g;
    anex_status status = anex_need_constants(node, 1u << DATA | 1u << SCALE | 1u << OFFSET, error);
    if (!status)
        status = plan_shift_scale(node, &g, node->in[DATA], node->in[DATA], node->in[SCALE], node->in[OFFSET],
                                  node->out[0],
                                  error);
    if (!status) anex_add_stage(node, blockwise_work, g->rows, (double)g->line);
    return status;
}

static void sparse_blockwise_work(const anex_node *node, const anex_slice *slice) {
    enum { MASK, DATA, SCALE, OFFSET };
    (void)slice;
    const groups *g = node->state;
    const anex_tensor *mask = node->in[MASK];
    memcpy(node->out[0]->data, mask->data, (size_t)anex_tensor_nbytes(mask));
    for (int64_t row = 0, next = 0; row < g->rows; row++) {
        int64_t group = group_of_row(g, row);
        for (int64_t j = 0; j < g->line; j++) {
            if (!masked(mask, false, row * g->line + j)) continue;
            float y;
            anex_load_line(&y, node->in[DATA], next, 1);
            shift_scale(g, &y, node->in[SCALE], node->in[OFFSET], group, j, 1);
            anex_store_line(node->out[1], next++, &y, 1);
        }
    }
}

ANEX_KERNEL(constexpr_sparse_blockwise_shift_scale) {
    enum { MASK, DATA, SCALE, OFFSET };
    const anex_tensor *mask = node->in[MASK], *data = node->in[DATA];
    groups *g;
    anex_status status = anex_need_constants(node, 1u << MASK | 1u << DATA | 1u << SCALE | 1u << OFFSET, error);
    if (!status) status = check_mask(node, mask, false, anex_tensor_size(mask), data, error);
    if (!status && (node->n_out != 2 || anex_tensor_nbytes(node->out[0]) != anex_tensor_nbytes(mask) ||
                    anex_tensor_size(node->out[1]) != anex_tensor_size(data)))
        status = anex_node_fail(node, error, ANEX_SHAPE, "mask and data do not make these outputs");
    if (!status)
        status = plan_shift_scale(node, &g, mask, data, node->in[SCALE], node->in[OFFSET], node->out[1], error);
    if (!status) anex_add_stage(node, sparse_blockwise_work, 1, 20 * (double)anex_tensor_size(mask));
    return status;
}

/* ---- cast ----------------------------------------------------------------------------------------------- */

static void cast_work(const anex_node *node, const anex_slice *slice) {
    enum { SOURCE_VAL };
    (void)slice;
    anex_load_line(node->out[0]->data, node->in[SOURCE_VAL], 0, anex_tensor_size(node->out[0]));
}

ANEX_KERNEL(constexpr_cast) {
    enum { SOURCE_VAL, OUTPUT_DTYPE };
    if (node->out[0]->dtype != ANEX_F32)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "constexpr_cast goes from float16 to float32 only");
    anex_add_stage(node, cast_work, 1, (double)anex_tensor_size(node->out[0]));
    return ANEX_OK;
}
