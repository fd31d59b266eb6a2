/* anex_linear_codes: linear (matmul, a convolution of one tap) by weights that stay in memory as codes of 8 or 4 bits.

   The value of code w is scale * (w - zero), or scale * (table[w] - zero) where there is a table: then codes have 4
   bits. scale and zero are [n, k / block]. Few rows decode where they multiply, and read a half or a quarter of what
   float16 weights would be; many decode a block at a time. anex/devices/quantized.py finds them. */
#include "gemm.h"

typedef struct coded {
    gemm g;
    int64_t batch, m, x_step, out_step; /* elements from one product to the next */
    gemm_matrix x;                      /* without data */
    int64_t row, col;                   /* of the output */
    gemm_codes codes;                   /* behind this struct: tables, scales and zeros, panels */
} coded;

static void multiply(const anex_node *node, const anex_slice *slice) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS };
    const coded *l = node->state;
    const anex_tensor *x = node->in[X], *out = node->out[0], *bias = node->in[BIAS];
    int64_t tiles = gemm_tiles(&l->g);
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t part = task / tiles;
        gemm_side a = {.matrix = l->x}, b = {.codes = &l->codes};
        a.matrix.data = (const char *)x->data + part * l->x_step * (int64_t)anex_itemsize(x);
        gemm_output c = {.data = (char *)out->data + part * l->out_step * (int64_t)anex_itemsize(out),
                         .row = l->row,
                         .col = l->col,
                         .dtype = out->dtype,
                         .node = node,
                         .first = part * l->out_step};
        if (bias) c.bias = bias->data, c.bias_dtype = bias->dtype;
        gemm_tile(&l->g, &a, &b, &c, task % tiles, slice->scratch);
    }
}

/* Codes [n, k], a byte each, as panels */
static void pack_codes(uint8_t *to, const uint8_t *from, int64_t n, int64_t k, bool nibbles) {
    const int64_t row = nibbles ? NR / 2 : NR;
    for (int64_t j = 0; j < n; j++) {
        uint8_t *panel = to + j / NR * k * row;
        int64_t lane = j % NR;
        for (int64_t i = 0; i < k; i++)
            if (nibbles)
                panel[i * row + lane % (NR / 2)] |= (uint8_t)((from[j * k + i] & 15) << (lane < NR / 2 ? 0 : 4));
            else
                panel[i * row + lane] = from[j * k + i];
    }
}

static anex_status check_codes(const anex_node *node, const anex_tensor *weight, const anex_tensor *scale,
                               const anex_tensor *zero, const anex_tensor *table, const anex_tensor *bias,
                               anex_error *error) {
    const anex_tensor *constants[] = {weight, scale, zero, table};
    for (int32_t i = 0; i < 4; i++)
        if (constants[i] && !constants[i]->data)
            return anex_node_fail(node, error, ANEX_UNSUPPORTED, "weights and their parameters must be constants");
    bool fits = weight->rank == 2 && scale->rank == 2 && scale->dtype == ANEX_F32 && anex_itemsize(weight) == 1 &&
                scale->shape[0] == weight->shape[0] && scale->shape[1] && weight->shape[1] % scale->shape[1] == 0 &&
                (!zero || (zero->dtype == ANEX_F32 && anex_tensor_size(zero) == anex_tensor_size(scale))) &&
                (!table || (table->dtype == ANEX_F32 && table->rank == 2 && table->shape[1] == 16 &&
                            (table->shape[0] == 1 || weight->shape[0] % (table->shape[0] * NR) == 0))) &&
                (!bias || (anex_is_float(bias) && anex_tensor_size(bias) == weight->shape[0]));
    return fits ? ANEX_OK : anex_node_fail(node, error, ANEX_SHAPE, "the parameters of the weights do not fit them");
}

/* x [.., k], or across: x [batch, k, m] and y [batch, n, m] */
ANEX_KERNEL(anex_linear_codes) {
    enum { X, WEIGHT, SCALE, ZERO, TABLE, BIAS, ACROSS };
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *scale = node->in[SCALE], *zero = node->in[ZERO],
                      *table = node->in[TABLE];
    anex_status status = check_codes(node, weight, scale, zero, table, node->in[BIAS], error);
    if (status || !anex_tensor_size(node->out[0])) return status;
    bool across = anex_int(node->in[ACROSS], false);
    int64_t n = weight->shape[0], k = weight->shape[1], panels = (n + NR - 1) / NR, blocks = scale->shape[1];
    coded l = {.batch = across ? x->shape[0] : 1};
    if (x->rank < 1 + across || x->shape[across ? 1 : x->rank - 1] != k)
        return anex_node_fail(node, error, ANEX_SHAPE, "x must have %lld values for each sum", (long long)k);
    l.m = across ? anex_span(x, 2, x->rank) : anex_span(x, 0, x->rank - 1);
    l.x = across ? (gemm_matrix){NULL, 1, l.m, x->dtype} : (gemm_matrix){NULL, k, 1, x->dtype};
    if (across && l.m == 1) l.x.row = k, l.x.col = 1;
    l.row = across ? 1 : n, l.col = across ? l.m : 1;
    if (across && l.m == 1) l.row = n, l.col = 1;
    l.x_step = l.m * k, l.out_step = l.m * n;
    gemm_plan_codes(&l.g, l.batch, l.m, n, k, l.x.col == 1 ? GEMM_BY_K : GEMM_ACROSS_K, k / blocks);
    const int64_t tables = !table ? 0 : table->shape[0] > 1 ? panels : 1, step = zero ? 2 * NR : NR;
    const size_t table_bytes = anex_align((size_t)tables * 16 * sizeof(float)),
                 affine = anex_align((size_t)(panels * blocks * step) * sizeof(float)),
                 codes = anex_align((size_t)(panels * k * (table ? NR / 2 : NR))), past = ANEX_ALIGNMENT;
    char *state = anex_node_state(node, anex_align(sizeof l) + table_bytes + affine + codes + past, error);
    if (!state) return ANEX_MEMORY;
    float *to_table = (float *)(state + anex_align(sizeof l)), *to_affine = (float *)((char *)to_table + table_bytes);
    uint8_t *to_codes = (uint8_t *)to_affine + affine;
    for (int64_t i = 0; i < tables; i++)
        memcpy(to_table + i * 16, (const float *)table->data + i * NR * table->shape[0] / n * 16, 16 * sizeof(float));
    for (int64_t j = 0; j < n; j++)
        for (int64_t b = 0; b < blocks; b++) {
            float *to = to_affine + (j / NR * blocks + b) * step + j % NR;
            to[0] = ((const float *)scale->data)[j * blocks + b];
            if (zero) to[NR] = ((const float *)zero->data)[j * blocks + b];
        }
    pack_codes(to_codes, weight->data, n, k, table);
    l.codes = (gemm_codes){.panels = to_codes,
                           .nibbles = table,
                           .table = to_table,
                           .table_step = tables > 1 ? 16 : 0,
                           .zeros = zero,
                           .block = k / blocks,
                           .affine = to_affine};
    memcpy(state, &l, sizeof l);
    node->packed |= 1u << WEIGHT | 1u << SCALE | 1u << ZERO | 1u << TABLE | 1u << ACROSS;
    node->ends_float = node->ends_bytes = true;
    node->scratch = gemm_scratch(&l.g);
    anex_add_stage(node, multiply, l.batch * gemm_tiles(&l.g), l.g.cost);
    return ANEX_OK;
}
