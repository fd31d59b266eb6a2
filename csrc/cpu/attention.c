/* scaled_dot_product_attention, and the engine's own form of it that reads and writes what is transposed. */
#include "attention.h"

#include <math.h>

enum {
    FEW = NR / 8,   /* so many queries are done one at a time */
    FEW_STRICT = 2, /* and so many in a strict plan, on every instruction set: the other way has other rounding */
};

static const void *at_batch(const attention *a, const attention_operand *x, const anex_tensor *t, int64_t batch) {
    int64_t at = 0;
    for (int32_t d = a->batch_rank; d-- > 0; batch /= a->shape[d]) at += batch % a->shape[d] * x->step[d];
    return (const char *)t->data + at * (int64_t)anex_itemsize(t);
}

static gemm_matrix matrix_of(const attention *a, const attention_operand *x, const anex_tensor *t, int64_t batch) {
    return (gemm_matrix){at_batch(a, x, t, batch), x->row, x->col, t->dtype};
}

attention_part attention_part_of(const attention *a, const anex_node *node, int64_t batch) {
    attention_part p = {.mask = node->in[ATTENTION_MASK], .out_dtype = node->out[0]->dtype};
    p.query = matrix_of(a, &a->query, node->in[ATTENTION_QUERY], batch);
    p.key = matrix_of(a, &a->key, node->in[ATTENTION_KEY], batch);
    p.value = matrix_of(a, &a->value, node->in[ATTENTION_VALUE], batch);
    p.out = (char *)node->out[0]->data +
            ((const char *)at_batch(a, &a->out, node->out[0], batch) - (const char *)node->out[0]->data);
    for (int32_t d = a->batch_rank; d-- > 0; batch /= a->shape[d]) p.mask_at += batch % a->shape[d] * a->mask.step[d];
    return p;
}

/* ---- plan ----------------------------------------------------------------------------------- */

/* the inputs behind the mask: query's, key's, value's and the result's; and what the scores are multiplied by */
enum { PERMUTATIONS = ATTENTION_MASK + 1, SCALE = PERMUTATIONS + 4 };

/* Axis i of an operand as attention has it is axis[i] of the tensor. */
static anex_status read_axes(const anex_node *node, int32_t number, int32_t rank, int32_t *axis, anex_error *error) {
    const anex_tensor *perm = node->in[PERMUTATIONS + number];
    uint32_t seen = 0;
    for (int32_t i = 0; i < rank; i++) {
        axis[i] = perm ? anex_axis(anex_item(perm, i), rank) : i;
        if (axis[i] < 0 || axis[i] >= rank || seen >> axis[i] & 1)
            return anex_node_fail(node, error, ANEX_INVALID, "a permutation is not one of the %d axes", rank);
        seen |= 1u << axis[i];
    }
    return ANEX_OK;
}

/* `shape` becomes that of `x` as attention has it. */
static anex_status read_operand(const anex_node *node, int32_t number, const anex_tensor *x, int64_t *shape,
                                attention_operand *operand, anex_error *error) {
    int32_t axis[ANEX_MAX_RANK], rank = x->rank;
    anex_status status = read_axes(node, number, rank, axis, error);
    if (status) return status;
    for (int32_t i = 0; i < rank; i++) {
        shape[i] = x->shape[axis[i]];
        operand->step[i] = anex_span(x, axis[i] + 1, rank);
    }
    operand->row = operand->step[rank - 2], operand->col = operand->step[rank - 1];
    return ANEX_OK;
}

static anex_status read_operands(anex_node *node, attention *a, anex_error *error) {
    const anex_tensor *x[] = {node->in[ATTENTION_QUERY], node->in[ATTENTION_KEY], node->in[ATTENTION_VALUE],
                              node->out[0]};
    attention_operand *operand[] = {&a->query, &a->key, &a->value, &a->out};
    enum { OPERANDS = sizeof x / sizeof *x, OUT = OPERANDS - 1 };
    int64_t shape[OPERANDS][ANEX_MAX_RANK];
    const int32_t rank = x[0]->rank, l = rank - 2, e = rank - 1;
    bool fits = rank >= 2;
    for (int32_t i = 0; fits && i < OPERANDS; i++) fits = x[i]->rank == rank;
    for (int32_t i = 0; fits && i < OPERANDS; i++) {
        anex_status status = read_operand(node, i, x[i], shape[i], operand[i], error);
        if (status) return status;
    }
    for (int32_t d = 0; fits && d < l; d++)
        for (int32_t i = 1; i < OPERANDS; i++) fits = fits && shape[i][d] == shape[0][d];
    fits = fits && shape[1][e] == shape[0][e] && shape[2][l] == shape[1][l] && shape[1][l] > 0 &&
           shape[OUT][l] == shape[0][l] && shape[OUT][e] == shape[2][e];
    if (!fits)
        return anex_node_fail(
            node, error, ANEX_SHAPE,
            "query [.., l, e], key [.., s, e] and value [.., s, ev] must agree in s, e and all before");
    a->length = shape[0][l], a->e = shape[0][e], a->keys = shape[1][l], a->ev = shape[2][e];
    a->batch = 1, a->batch_rank = l;
    for (int32_t d = 0; d < l; d++) a->shape[d] = shape[0][d], a->batch *= shape[0][d];
    a->scale = (float)anex_float(node->in[SCALE], 1 / sqrt((double)a->e));
    return ANEX_OK;
}

static anex_status read_mask(const anex_node *node, attention *a, const anex_tensor *mask, anex_error *error) {
    if (mask->dtype != ANEX_BOOL && mask->dtype != ANEX_F16 && mask->dtype != ANEX_F32)
        return anex_node_fail(node, error, ANEX_DTYPE, "attn_mask is %s; it must be bool or a float",
                              anex_dtypes[mask->dtype].name);
    int64_t step = 1;
    const int32_t rank = a->batch_rank + 2;
    bool fits = mask->rank >= 1 && mask->rank <= rank && mask->shape[mask->rank - 1] == a->keys;
    for (int32_t i = 0; fits && i < mask->rank; i++) {
        int32_t axis = rank - 1 - i;
        int64_t n = mask->shape[mask->rank - 1 - i];
        fits = i == 0 || n == 1 || n == (i == 1 ? a->length : a->shape[axis]);
        if (i == 1 && n > 1) a->mask.row = step;
        if (i > 1 && n > 1) a->mask.step[axis] = step;
        step *= n;
    }
    return fits ? ANEX_OK
                : anex_node_fail(node, error, ANEX_SHAPE, "attn_mask does not broadcast to the scores [.., %lld, %lld]",
                                 (long long)a->length, (long long)a->keys);
}

/* Whether rows lie as the way for few queries reads them */
static bool lies_in_rows(const attention *a) {
    return a->query.col == 1 && a->out.col == 1 && a->key.col == 1 && a->key.row == a->e && a->value.col == 1 &&
           a->value.row == a->ev;
}

static anex_status plan(anex_node *node, anex_error *error) {
    for (int32_t i = ATTENTION_KEY; i <= ATTENTION_VALUE; i++)
        if (node->in[i]->dtype != ANEX_F16 && node->in[i]->dtype != ANEX_F32)
            return anex_node_fail(node, error, ANEX_DTYPE, "key and value must be float16 or float32");
    const anex_tensor *mask = node->in[ATTENTION_MASK];
    const int64_t rows = anex_is_constant(mask) ? anex_span(mask, 0, mask->rank - 1) : 0;
    attention *a = anex_node_state(node, sizeof *a + (size_t)rows * sizeof *a->reach, error);
    if (!a) return ANEX_MEMORY;
    *a = (attention){.rows = rows};
    anex_status status = read_operands(node, a, error);
    if (!status && mask) status = read_mask(node, a, mask, error);
    if (status) return status;
    if (a->length <= (node->strict ? FEW_STRICT : FEW) && lies_in_rows(a))
        attention_plan_few(node, a);
    else
        attention_plan_blocks(node, a);
    return ANEX_OK;
}

ANEX_KERNEL(scaled_dot_product_attention) { return plan(node, error); }

ANEX_KERNEL(anex_attention) {
    anex_status status = anex_need_constants(node, 0x1fu << PERMUTATIONS, error);
    return status ? status : plan(node, error);
}
