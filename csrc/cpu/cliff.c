/* What the Neural Engine does to float16 values past a limit, for plans that model it (ane_numerics=True): such values
   are changed, and noted for whoever asks the plan. The limits and their sources stand in anex/ops. These nodes are
   one task each: such plans are for looking at numbers, not for speed. */
#include "kernel.h"

#include "../half.h"

#include <math.h>

enum { SIGN = 0x8000, INFINITE = 0x7c00, NORMAL = 0x0400 }; /* bits of a half; magnitudes are in the order of their bits */

typedef struct cliff {
    anex_notes notes;
    half limit; /* its bits */
    bool mean;
    int64_t step[ANEX_MAX_RANK]; /* of a reduction: how far apart neighbours of x are in y, 0 on reduced axes */
} cliff;

static half magnitude(half x) { return x & 0x7fff; }

static void note(cliff *c, int64_t count, half most) {
    uint32_t before = atomic_load(&c->notes.most);
    atomic_fetch_add(&c->notes.count, count);
    while (before < most && !atomic_compare_exchange_weak(&c->notes.most, &before, most)) continue;
}

static anex_status add_notes(anex_node *node, cliff **made, anex_error *error) {
    *made = anex_node_state(node, sizeof **made, error);
    if (!*made) return ANEX_MEMORY;
    node->notes = &(*made)->notes;
    node->impure = true; /* what it notes is of each run */
    return ANEX_OK;
}

static anex_status new_cliff(anex_node *node, cliff **made, anex_error *error) {
    if (node->in[0]->dtype != ANEX_F16 || node->out[0]->dtype != ANEX_F16)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "the Neural Engine computes in float16 alone");
    return add_notes(node, made, error);
}

/* ---- |x| >= limit becomes infinite ------------------------------------------------------------ */

static bool is_finite(const anex_tensor *t) {
    int64_t n = anex_tensor_size(t), odd = 0;
    if (t->dtype == ANEX_F16)
        for (int64_t i = 0; i < n; i++) odd += magnitude(((const half *)t->data)[i]) >= INFINITE;
    else if (t->dtype == ANEX_F32)
        for (int64_t i = 0; i < n; i++) odd += !isfinite(((const float *)t->data)[i]);
    return !odd;
}

static bool are_finite(const anex_node *node) {
    for (int32_t i = 0; i < node->n_list; i++)
        if (!is_finite(node->list[i])) return false;
    return true;
}

/* What is infinite already crossed the limit too, unless an operand (the list) was infinite or no number. */
static void overflow(const anex_node *node, const anex_slice *slice) {
    (void)slice;
    cliff *c = node->state;
    const half *x = node->in[0]->data;
    half *y = node->out[0]->data, most = 0;
    int64_t n = anex_tensor_size(node->in[0]), crossed = 0, infinite = 0;
    for (int64_t i = 0; i < n; i++) {
        half m = magnitude(x[i]);
        bool past = m >= c->limit && m < INFINITE;
        y[i] = past ? (half)((x[i] & SIGN) | INFINITE) : x[i];
        crossed += past, infinite += m == INFINITE;
        if (past && m > most) most = m;
    }
    if (infinite && are_finite(node)) crossed += infinite, most = INFINITE;
    note(c, crossed, most);
}

ANEX_KERNEL(anex_overflow) {
    enum { X, LIMIT };
    cliff *c = NULL;
    anex_status status = anex_need_constants(node, 1u << LIMIT, error);
    if (!status) status = new_cliff(node, &c, error);
    if (status) return status;
    c->limit = anex_float_to_half((float)anex_float(node->in[LIMIT], INFINITY));
    node->packed |= 1u << LIMIT;
    anex_add_stage(node, overflow, 1, 0);
    return ANEX_OK;
}

/* ---- subnormal numbers become zero ------------------------------------------------------------ */

static void flush(const anex_node *node, const anex_slice *slice) {
    (void)slice;
    const half *x = node->in[0]->data;
    half *y = node->out[0]->data, most = 0;
    int64_t n = anex_tensor_size(node->in[0]), crossed = 0;
    for (int64_t i = 0; i < n; i++) {
        half m = magnitude(x[i]);
        bool past = m && m < NORMAL;
        y[i] = past ? x[i] & SIGN : x[i];
        crossed += past;
        if (past && m > most) most = m;
    }
    note(node->state, crossed, most);
}

ANEX_KERNEL(anex_flush) {
    cliff *c = NULL;
    anex_status status = new_cliff(node, &c, error);
    if (!status) anex_add_stage(node, flush, 1, 0);
    return status;
}

/* ---- sums of float16 --------------------------------------------------------------------------- */

/* Element by element in memory order, each sum rounded; one past the limit that rounding changed is noted. A mean
   divides the sum that came of it. The order on the engine is not known. */
static void narrow_sum(const anex_node *node, const anex_slice *slice) {
    (void)slice;
    cliff *c = node->state;
    const anex_tensor *t = node->in[0];
    const half *x = t->data;
    half *y = node->out[0]->data, most = 0;
    const float limit = anex_half_to_float(c->limit);
    int64_t n = anex_tensor_size(t), kept = anex_tensor_size(node->out[0]), crossed = 0, place = 0;
    int64_t at[ANEX_MAX_RANK] = {0};
    for (int64_t i = 0; i < kept; i++) y[i] = 0;
    for (int64_t i = 0; i < n; i++) {
        float exact = anex_half_to_float(y[place]) + anex_half_to_float(x[i]);
        half sum = anex_float_to_half(exact);
        if (fabsf(exact) > limit && anex_half_to_float(sum) != exact) {
            crossed++;
            if (magnitude(sum) > most) most = magnitude(sum);
        }
        y[place] = sum;
        for (int32_t axis = t->rank - 1; axis >= 0; axis--) {
            place += c->step[axis];
            if (++at[axis] < t->shape[axis]) break;
            place -= c->step[axis] * t->shape[axis], at[axis] = 0;
        }
    }
    for (int64_t i = 0; i < kept && c->mean; i++)
        y[i] = anex_float_to_half(anex_half_to_float(y[i]) / (float)(n / kept));
    note(c, crossed, most);
}

ANEX_KERNEL(anex_narrow_sum) {
    enum { X, AXES, LIMIT, MEAN };
    cliff *c = NULL;
    anex_status status = anex_need_constants(node, 1u << AXES | 1u << LIMIT | 1u << MEAN, error);
    if (!status) status = new_cliff(node, &c, error);
    if (status) return status;
    const anex_tensor *x = node->in[X], *axes = node->in[AXES];
    int64_t kept = 1;
    bool reduced[ANEX_MAX_RANK] = {false};
    for (int64_t i = 0; axes && i < anex_tensor_size(axes); i++) reduced[anex_axis(anex_item(axes, i), x->rank)] = true;
    for (int32_t i = x->rank - 1; i >= 0; i--) {
        bool gone = !axes || reduced[i];
        c->step[i] = gone ? 0 : kept;
        kept *= gone ? 1 : x->shape[i];
    }
    c->limit = anex_float_to_half((float)anex_float(node->in[LIMIT], 0));
    c->mean = anex_int(node->in[MEAN], false);
    node->packed |= 1u << AXES | 1u << LIMIT | 1u << MEAN;
    anex_add_stage(node, narrow_sum, 1, 0);
    return ANEX_OK;
}

/* ---- indices in float16 ------------------------------------------------------------------------ */

/* Places that an op found, which are never negative: past the limit those between two halves move to one of them. */
static void narrow_index(const anex_node *node, const anex_slice *slice) {
    (void)slice;
    cliff *c = node->state;
    const anex_tensor *t = node->in[0];
    half most = 0;
    const float limit = anex_half_to_float(c->limit);
    int64_t n = anex_tensor_size(t), crossed = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t index = anex_item(t, i);
        half rounded = anex_float_to_half((float)index);
        int64_t found = rounded < INFINITE ? (int64_t)anex_half_to_float(rounded) : index;
        if ((float)index > limit && found != index) {
            crossed++;
            if (rounded > most) most = rounded;
        } else {
            found = index;
        }
        if (t->dtype == ANEX_I32) ((int32_t *)node->out[0]->data)[i] = (int32_t)found;
        else ((uint16_t *)node->out[0]->data)[i] = (uint16_t)found;
    }
    note(c, crossed, most);
}

ANEX_KERNEL(anex_narrow_index) {
    enum { X, LIMIT };
    cliff *c = NULL;
    anex_status status = anex_need_constants(node, 1u << LIMIT, error);
    if (!status) status = add_notes(node, &c, error);
    if (status) return status;
    c->limit = anex_float_to_half((float)anex_float(node->in[LIMIT], 0));
    node->packed |= 1u << LIMIT;
    anex_add_stage(node, narrow_index, 1, 0);
    return ANEX_OK;
}
