/* Chains of elementwise ops, and their use as the epilogue of a product. See chain.h. */
#include "chain.h"
#include "simd.h"

#include <stdlib.h>

/* ---- lanes ---------------------------------------------------------------------------------- */

#define WIDEN(type, value)                                     \
    {                                                          \
        const type *x = from;                                  \
        for (int64_t i = 0; i < n; i++) y[i] = (int32_t)value; \
        break;                                                 \
    }
void anex_lanes_load(void *to, int64_t width, anex_dtype dtype, const void *from, int64_t n) {
    int32_t *restrict y = to;
    switch (dtype) {
    case ANEX_F16:
        if (width == 4)
            anex_widen(to, from, n);
        else
            memcpy(to, from, (size_t)n * 2);
        break;
    case ANEX_I8: WIDEN(int8_t, x[i])
    case ANEX_U8: WIDEN(uint8_t, x[i])
    case ANEX_I16: WIDEN(int16_t, x[i])
    case ANEX_U16: WIDEN(uint16_t, x[i])
    case ANEX_BOOL: WIDEN(uint8_t, (x[i] != 0))
    default: memcpy(to, from, (size_t)n * 4);
    }
}

#define NARROW(type, value)                                 \
    {                                                       \
        type *restrict y = to;                              \
        for (int64_t i = 0; i < n; i++) y[i] = (type)value; \
        break;                                              \
    }
void anex_lanes_store(void *to, anex_dtype dtype, const void *from, int64_t n) {
    const int32_t *x = from;
    switch (dtype) {
    case ANEX_F16: anex_narrow(to, from, n); break;
    case ANEX_I8: NARROW(int8_t, x[i])
    case ANEX_U8: NARROW(uint8_t, x[i])
    case ANEX_I16: NARROW(int16_t, x[i])
    case ANEX_U16: NARROW(uint16_t, x[i])
    case ANEX_BOOL: NARROW(uint8_t, (x[i] != 0))
    default: memcpy(to, from, (size_t)n * 4);
    }
}

/* ---- chains --------------------------------------------------------------------------------- */

bool anex_broadcast(const anex_tensor *x, const anex_tensor *y, int64_t *step) {
    int64_t packed = 1;
    bool fits = x->rank <= y->rank;
    for (int32_t i = y->rank - 1, j = x->rank - 1; fits && i >= 0; i--, j--) {
        int64_t extent = j < 0 ? 1 : x->shape[j];
        fits = extent == y->shape[i] || extent == 1;
        step[i] = extent == 1 ? 0 : packed;
        packed *= extent;
    }
    return fits;
}

/* Lanes say all there is to say of these: an int8, say, would have to be cut to its width. */
static bool stays_in_lanes(anex_dtype dtype) {
    return anex_is_float_dtype(dtype) || dtype == ANEX_I32 || dtype == ANEX_BOOL;
}

/* Which of the chain's operands operand k of the op is already, or -1 */
static int8_t held(const anex_chain *chain, const anex_node *node, const anex_map_op *op, int32_t k) {
    for (int32_t i = 0; node->onto && i < chain->n_operands; i++) {
        const anex_operand *x = &chain->operand[i];
        bool alike = node->onto->in[x->slot] == node->in[k] && x->form.dtype == op->x[k].dtype &&
                     x->form.rank == op->x[k].rank;
        if (alike && !memcmp(x->form.shape, op->x[k].shape, sizeof x->form.shape[0] * (size_t)x->form.rank))
            return (int8_t)i;
    }
    return -1;
}

bool anex_chain_add(anex_chain *chain, anex_node *node, const anex_map_op *op) {
    const anex_tensor *through = node->onto ? node->in[node->through] : NULL;
    bool fits = chain->n_steps < ANEX_CHAIN_STEPS;
    if (through) /* nothing is computed twice: the value has as many elements as the result */
        fits = fits && stays_in_lanes(through->dtype) && anex_tensor_size(through) == anex_tensor_size(node->out[0]);
    int32_t more = 0;
    for (int32_t k = 0; k < op->n; k++) more += node->in[k] != through && held(chain, node, op, k) < 0;
    if (!fits || chain->n_operands + more > ANEX_CHAIN_OPERANDS) return false;
    anex_step step = {.block = op->block, .moves = op->moves, .n = (int8_t)op->n};
    memcpy(step.p, op->p, sizeof step.p);
    for (int32_t k = 0; k < op->n; k++) {
        node->slot[k] = ANEX_THROUGH, step.x[k] = ANEX_THROUGH;
        if (node->in[k] == through) continue;
        if ((step.x[k] = held(chain, node, op, k)) >= 0) continue;
        int32_t slot = through ? ANEX_MAX_INPUTS - ++chain->followers : k;
        node->slot[k] = (int8_t)slot, step.x[k] = (int8_t)chain->n_operands;
        chain->operand[chain->n_operands++] = (anex_operand){op->x[k], slot};
    }
    if (op->block.lanes) chain->step[chain->n_steps++] = step;
    chain->out = op->out, chain->cost += op->cost;
    return true;
}

/* ---- epilogues ------------------------------------------------------------------------------ */

/* How an operand goes with the result: axes that it steps through as if they were one are merged. */
typedef struct reach {
    int32_t rank;
    int64_t extent[ANEX_MAX_RANK], step[ANEX_MAX_RANK];
} reach;

struct anex_epilogue {
    anex_chain chain;
    reach reach[ANEX_CHAIN_OPERANDS];
    bool other, bounded; /* more than an anex_plain; low and high are set */
    int32_t residual;    /* the operand that is one, + 1 */
    float low, high;
};

enum { SHORT_RUN = 8 }; /* lanes: an operand that changes its ways more often is too slow to follow */

/* False: not by this epilogue. */
static bool find_reach(const anex_tensor *x, const anex_tensor *y, reach *r) {
    int64_t step[ANEX_MAX_RANK];
    if (!anex_broadcast(x, y, step)) return false;
    *r = (reach){0};
    for (int32_t axis = 0; axis < y->rank; axis++) {
        if (y->shape[axis] == 1) continue;
        bool alike = r->rank && r->step[r->rank - 1] == step[axis] * y->shape[axis];
        if (!alike) r->extent[r->rank++] = 1;
        r->extent[r->rank - 1] *= y->shape[axis];
        r->step[r->rank - 1] = step[axis];
    }
    if (!r->rank) r->extent[r->rank++] = 1;
    return r->rank == 1 || r->extent[r->rank - 1] >= SHORT_RUN;
}

/* Take note of the op just added, while all is as an anex_plain can say. A cast may have added no step. */
static void note_form(anex_epilogue *e, const anex_map_op *op, int32_t steps_before) {
    if (e->chain.n_steps == steps_before) {
        e->other = e->other || !anex_is_float_dtype(op->out);
        return;
    }
    const anex_step *step = &e->chain.step[e->chain.n_steps - 1];
    if (op->form == ANEX_BOUNDS_FORM && !e->bounded) {
        e->bounded = true, e->low = op->low, e->high = op->high;
        return;
    }
    int32_t k = step->x[0] == ANEX_THROUGH ? step->x[1] : step->x[0];
    bool sum = op->form == ANEX_SUM_FORM && !e->bounded && !e->residual && k != ANEX_THROUGH;
    e->other = e->other || !sum || e->reach[k].rank != 1 || e->reach[k].step[0] != 1 ||
               !anex_is_float_dtype(e->chain.operand[k].form.dtype);
    e->residual = k + 1;
}

bool anex_epilogue_plain(const anex_node *node, anex_plain *plain) {
    const anex_epilogue *e = node->epilogue;
    *plain = (anex_plain){.low = -INFINITY, .high = INFINITY};
    if (!e) return true;
    if (e->bounded) plain->low = e->low, plain->high = e->high;
    if (e->other || !e->residual) return !e->other;
    const anex_operand *operand = &e->chain.operand[e->residual - 1];
    plain->residual = node->in[operand->slot]->data, plain->dtype = operand->form.dtype;
    return true;
}

bool anex_epilogue_alone(const anex_epilogue *e) {
    return !e || (!e->chain.n_operands && anex_is_float_dtype(e->chain.out));
}

bool anex_epilogue_bounds(const anex_epilogue *e, float *low, float *high) {
    if (e && e->bounded) *low = e->low, *high = e->high;
    return !e || (!e->other && !e->residual);
}

void anex_epilogue_lanes(const anex_epilogue *e, float *lanes, int64_t n) {
    for (int64_t at = 0; e && at < n; at += ANEX_EPILOGUE_LANES) /* all ops on what is in the first cache */
        for (int32_t i = 0; i < e->chain.n_steps; i++) {
            const anex_step *step = &e->chain.step[i];
            const void *x[ANEX_MAP_OPERANDS] = {lanes + at, lanes + at, lanes + at};
            step->block.lanes(lanes + at, x, step->p, anex_min(ANEX_EPILOGUE_LANES, n - at));
        }
}

anex_status anex_epilogue_add(anex_node *node, const anex_map_op *op, anex_error *error) {
    anex_node *onto = node->onto;
    bool bytes = onto->ends_bytes && op->fits && (op->out == ANEX_I8 || op->out == ANEX_U8);
    if (!(bytes || anex_is_float_dtype(op->out)) || !anex_is_float(node->in[node->through])) return ANEX_OK;
    anex_epilogue *e = malloc(sizeof *e);
    if (!e) return anex_node_fail(node, error, ANEX_MEMORY, "no memory to join it to a product");
    *e = onto->epilogue ? *onto->epilogue : (anex_epilogue){0};
    int32_t steps_before = e->chain.n_steps;
    bool fits = anex_chain_add(&e->chain, node, op);
    /* the shape may have got leading axes */
    for (int32_t k = 0; fits && k < e->chain.n_operands; k++)
        fits = find_reach(&e->chain.operand[k].form, node->out[0], &e->reach[k]);
    if (!fits) {
        free(e);
        return ANEX_OK;
    }
    note_form(e, op, steps_before);
    free(onto->epilogue);
    onto->epilogue = e;
    anex_stage *last = &onto->stage[onto->n_stages - 1];
    last->cost += (op->cost + 0.06 * op->n) * (double)anex_tensor_size(node->out[0]) / (double)anex_max(last->tasks, 1);
    node->joined = true;
    return ANEX_OK;
}

/* Lanes for elements first .. first+n-1 of the result */
static void load_run(const anex_operand *x, const reach *r, const char *data, int64_t first, int64_t n, void *lanes) {
    uint32_t *to = lanes;
    int64_t item = anex_dtypes[x->form.dtype].bits / 8;
    int32_t last = r->rank - 1;
    while (n > 0) {
        int64_t inner = r->extent[last], at = first, offset = 0, rest = 0;
        if (last) rest = first / inner, at = first - rest * inner;
        int64_t run = last ? anex_min(n, inner - at) : n;
        offset = at * r->step[last];
        for (int32_t axis = last - 1; axis > 0; axis--) {
            offset += rest % r->extent[axis] * r->step[axis];
            rest /= r->extent[axis];
        }
        if (last) offset += rest * r->step[0];
        if (r->step[last]) {
            anex_lanes_load(to, 4, x->form.dtype, data + offset * item, run);
        } else {
            uint32_t value;
            anex_lanes_load(&value, 4, x->form.dtype, data + offset * item, 1);
            for (int64_t i = 0; i < run; i++) to[i] = value;
        }
        first += run, n -= run, to += run;
    }
}

static bool side_by_side(const int64_t *at, int64_t n) {
    for (int64_t i = 1; i < n; i++)
        if (at[i] != at[i - 1] + 1) return false;
    return true;
}

/* The longest stretch of neighbours from `i` on */
static int64_t stretch(const int64_t *at, int64_t i, int64_t n) {
    int64_t end = i + 1;
    while (end < n && at[end] == at[end - 1] + 1) end++;
    return end - i;
}

static void load_piece(const anex_operand *x, const reach *r, const char *data, int64_t width, const int64_t *row_at,
                       int64_t rows, const int64_t *col_at, int64_t cols, float *to) {
    bool along = side_by_side(col_at, cols);
    if (r->rank == 1 && !r->step[0]) {
        load_run(x, r, data, 0, rows * width, to);
        return;
    }
    if (cols < width) memset(to, 0, (size_t)(rows * width) * sizeof *to);
    if (along && r->rank == 1 && x->form.dtype == ANEX_F16) { /* a residual: the common case, without the search */
        const half *from = (const half *)data + col_at[0];
        for (int64_t i = 0; i < rows; i++) anex_widen(to + i * width, from + row_at[i], cols);
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        for (int64_t s = 0, n; s < cols; s += n) {
            n = along ? cols : stretch(col_at, s, cols);
            load_run(x, r, data, row_at[i] + col_at[s], n, to + i * width + s);
        }
}

void anex_epilogue_run(const anex_node *node, float *piece, int64_t width, const int64_t *row_at, int64_t rows,
                       const int64_t *col_at, int64_t cols) {
    const anex_epilogue *e = node->epilogue;
    if (!e) return;
    float lanes[ANEX_MAP_OPERANDS][ANEX_EPILOGUE_LANES]; /* or int32: blocks take either */
    for (int32_t i = 0; i < e->chain.n_steps; i++) {
        const anex_step *step = &e->chain.step[i];
        const void *x[ANEX_MAP_OPERANDS];
        for (int32_t k = 0; k < step->n; k++) {
            x[k] = piece;
            if (step->x[k] == ANEX_THROUGH) continue;
            const anex_operand *operand = &e->chain.operand[step->x[k]];
            load_piece(operand, &e->reach[step->x[k]], node->in[operand->slot]->data, width, row_at, rows, col_at,
                       cols, lanes[k]);
            x[k] = lanes[k];
        }
        step->block.lanes(piece, x, step->p, (rows - 1) * width + cols);
    }
}

static void run_line(const anex_node *node, float *line, int64_t first, int64_t n) {
    const anex_epilogue *e = node->epilogue;
    float lanes[ANEX_MAP_OPERANDS][ANEX_EPILOGUE_LANES]; /* or int32: blocks take either */
    for (int64_t at = 0; at < n; at += ANEX_EPILOGUE_LANES) {
        float *piece = line + at;
        int64_t count = anex_min(ANEX_EPILOGUE_LANES, n - at);
        for (int32_t i = 0; i < e->chain.n_steps; i++) {
            const anex_step *step = &e->chain.step[i];
            const void *x[ANEX_MAP_OPERANDS];
            for (int32_t k = 0; k < step->n; k++) {
                x[k] = step->x[k] == ANEX_THROUGH ? piece : lanes[k];
                if (step->x[k] == ANEX_THROUGH) continue;
                const anex_operand *operand = &e->chain.operand[step->x[k]];
                const char *data = node->in[operand->slot]->data;
                load_run(operand, &e->reach[step->x[k]], data, first + at, count, lanes[k]);
            }
            step->block.lanes(piece, x, step->p, count);
        }
    }
}

static inline __attribute__((always_inline)) void store_plain(const anex_plain *plain, const bool narrow,
                                                              const float *line, int64_t first, int64_t n, void *to) {
    const vf low = vf_set(plain->low), high = vf_set(plain->high);
    const bool halves = plain->dtype == ANEX_F16;
    const char *residual = plain->residual;
    int64_t i = 0;
    for (; i + VF <= n; i += VF) {
        vf x = vf_load(line + i);
        if (residual) x = x + vf_load_as(residual, halves, first + i);
        vf_store_as(to, narrow, first + i, vf_min(high, vf_max(low, x)));
    }
    if (i == n) return;
    vf x = vf_load_some(line + i, false, n - i);
    if (residual) x = x + vf_load_some(residual + (first + i) * (halves ? 2 : 4), halves, n - i);
    vf_store_some((char *)to + (first + i) * (narrow ? 2 : 4), narrow, vf_min(high, vf_max(low, x)), n - i);
}

void anex_epilogue_store(const anex_node *node, float *line, int64_t first, int64_t n) {
    const anex_tensor *out = node->out[0];
    anex_plain plain;
    if (anex_epilogue_plain(node, &plain)) {
        if (out->dtype == ANEX_F16)
            store_plain(&plain, true, line, first, n, out->data);
        else
            store_plain(&plain, false, line, first, n, out->data);
        return;
    }
    run_line(node, line, first, n);
    if (out->dtype == ANEX_F16)
        anex_narrow((half *)out->data + first, line, n);
    else
        memcpy((float *)out->data + first, line, (size_t)n * sizeof *line);
}
