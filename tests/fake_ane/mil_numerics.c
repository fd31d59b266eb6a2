/* What the hardware does to numbers: section 7 of the reference of the private API names who measured it. */
#include "../../csrc/half.h"
#include "mil.h"

#include <math.h>
#include <string.h>

/* ---- sums in fp16 --------------------------------------------------------------------------- */

static int64_t integer_at(const anex_tensor *t, int64_t i) {
    switch (t->dtype) {
    case ANEX_I8: return ((const int8_t *)t->data)[i];
    case ANEX_I16: return ((const int16_t *)t->data)[i];
    case ANEX_I32: return ((const int32_t *)t->data)[i];
    default: return ((const uint8_t *)t->data)[i];
    }
}

static void find_reduced(const mil_op *op, int32_t rank, bool *reduced) {
    const mil_value *axes = mil_argument_of(op, "axes");
    for (int32_t i = 0; i < rank; i++) reduced[i] = !axes;
    for (int64_t i = 0; axes && i < anex_tensor_size(&axes->tensor); i++) {
        int64_t axis = integer_at(&axes->tensor, i);
        axis += axis < 0 ? rank : 0;
        if (axis >= 0 && axis < rank) reduced[axis] = true;
    }
}

/* Element by element in memory order, each sum rounded; x is packed. A mean divides the sum that came of it. */
static void reduce_narrowly(const mil_op *op, const anex_tensor *x, const anex_tensor *y) {
    bool reduced[ANEX_MAX_RANK];
    int64_t step[ANEX_MAX_RANK], at[ANEX_MAX_RANK] = {0}, kept = 1, n = anex_tensor_size(x), place = 0;
    const half *from = x->data;
    half *to = y->data;
    find_reduced(op, x->rank, reduced);
    for (int32_t i = x->rank - 1; i >= 0; i--) { /* how far apart neighbours of x are in y */
        step[i] = reduced[i] ? 0 : kept;
        kept *= reduced[i] ? 1 : x->shape[i];
    }
    memset(to, 0, (size_t)kept * sizeof *to);
    for (int64_t k = 0; k < n; k++) {
        to[place] = anex_float_to_half(anex_half_to_float(to[place]) + anex_half_to_float(from[k]));
        for (int32_t i = x->rank - 1; i >= 0; i--) {
            place += step[i];
            if (++at[i] < x->shape[i]) break;
            place -= step[i] * x->shape[i], at[i] = 0;
        }
    }
    for (int64_t k = 0; k < kept && !strcmp(op->type, "reduce_mean"); k++)
        to[k] = anex_float_to_half(anex_half_to_float(to[k]) / (float)(n / kept));
}

/* ---- cliffs --------------------------------------------------------------------------------- */

enum { EXPONENT = 0x7c00, SIGN = 0x8000 }; /* the bits of a half */

/* |v| >= limit becomes infinite; NaN stays. Magnitudes of halves are in the order of their bits. */
static void overflow_from(const anex_tensor *t, half limit) {
    half *v = t->data;
    for (int64_t i = 0, n = anex_tensor_size(t); i < n; i++)
        if ((v[i] & 0x7fff) >= limit && (v[i] & 0x7fff) <= EXPONENT) v[i] = (half)((v[i] & SIGN) | EXPONENT);
}

static void flush(const anex_tensor *t) {
    half *v = t->data;
    for (int64_t i = 0, n = anex_tensor_size(t); i < n; i++)
        if (!(v[i] & EXPONENT)) v[i] &= SIGN;
}

/* Whether the slice leaves something out at the start of the last axis */
static bool begins_inside(const mil_op *op, const anex_tensor *x) {
    const mil_value *begin = mil_argument_of(op, "begin"), *mask = mil_argument_of(op, "begin_mask");
    int32_t last = x->rank - 1;
    if (last < 0 || !begin || !begin->tensor.data || anex_tensor_size(&begin->tensor) <= last) return false;
    if (mask && integer_at(&mask->tensor, last)) return false;
    int64_t first = integer_at(&begin->tensor, last);
    return first != 0 && first != -x->shape[last];
}

anex_status mil_run_op(const mil_op *op, const anex_tensor **inputs, const anex_tensor *const *outputs,
                       const mil_numerics *numerics, anex_error *error) {
    static const mil_numerics plain = {.narrow_reduce = false};
    if (!numerics) numerics = &plain;
    bool is_half = op->n_results && outputs[0]->dtype == ANEX_F16;
    const anex_tensor *x = op->n_inputs ? inputs[0] : NULL;
    anex_status status = ANEX_OK;
    if (op->unmasked && numerics->sdpa_ignores_mask) {
        const anex_tensor *without[4]; /* query, key, value */
        int32_t n = 0;
        for (int32_t i = 0; i < op->n_inputs && n < 4; i++)
            if (i != op->mask) without[n++] = inputs[i];
        status = anex_plan_run(op->unmasked, without, outputs, error);
    } else if (op->trait == MIL_REDUCE && is_half && numerics->narrow_reduce) {
        reduce_narrowly(op, x, outputs[0]);
    } else {
        status = anex_plan_run(op->plan, inputs, outputs, error);
    }
    if (status) return status;
    if (op->trait == MIL_MATMUL && is_half && numerics->matmul_cliff)
        overflow_from(outputs[0], anex_float_to_half(32752));
    if (op->trait == MIL_SLICE && is_half && numerics->slice_clamp && begins_inside(op, x))
        overflow_from(outputs[0], (half)(anex_float_to_half(4094) + 1));
    for (int32_t i = 0; i < op->n_results && numerics->flush_subnormals; i++)
        if (outputs[i]->dtype == ANEX_F16) flush(outputs[i]);
    return ANEX_OK;
}
