/* Placing temporary values in one arena: two values may share bytes unless they are alive at once. */
#include "plan.h"

#include <stdlib.h>

typedef struct span {
    anex_value value;
    int64_t bytes, offset;
    int32_t first, last; /* nodes, both included */
} span;

static int by_size(const void *a, const void *b) {
    const span *x = a, *y = b;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? 1 : -1;
    return x->first != y->first ? (x->first > y->first ? 1 : -1) : x->value - y->value;
}

static int by_offset(const void *a, const void *b) {
    const span *x = *(const span *const *)a, *y = *(const span *const *)b;
    return (x->offset > y->offset) - (x->offset < y->offset);
}

static void touch(const anex_plan *plan, span *spans, anex_value v, int32_t node) {
    if (v < 0) return;
    span *s = &spans[plan->values[v].root];
    if (s->first < 0) s->first = node;
    s->last = node;
}

/* The lowest offset at which `s` overlaps none of the spans that live while it does. */
static int64_t lowest_gap(const span *s, span **alive, int32_t n) {
    qsort(alive, (size_t)n, sizeof *alive, by_offset);
    int64_t offset = 0;
    for (int32_t i = 0; i < n; i++) {
        if (alive[i]->offset - offset >= s->bytes) break;
        int64_t end = alive[i]->offset + alive[i]->bytes;
        if (end > offset) offset = end;
    }
    return offset;
}

static int64_t peak(const anex_plan *plan, const span *spans, int32_t n) {
    int64_t most = 0;
    int64_t *change = calloc((size_t)plan->n_nodes + 2, sizeof *change);
    if (!change) return 0;
    for (int32_t i = 0; i < n; i++) {
        change[spans[i].first] += spans[i].bytes;
        change[spans[i].last + 1] -= spans[i].bytes;
    }
    for (int64_t i = 0, now = 0; i <= plan->n_nodes; i++) {
        now += change[i];
        if (now > most) most = now;
    }
    free(change);
    return most;
}

anex_status anex_place(anex_plan *plan, anex_error *error) {
    span *spans = calloc((size_t)plan->n_values + 1, sizeof *spans);
    span **alive = calloc((size_t)plan->n_values + 1, sizeof *alive);
    if (!spans || !alive) {
        free(spans), free(alive);
        return anex_fail(error, ANEX_MEMORY, "no memory to place the intermediate tensors");
    }
    for (anex_value v = 0; v < plan->n_values; v++)
        spans[v] = (span){
            .value = v, .first = -1, .bytes = (int64_t)anex_align((size_t)anex_tensor_nbytes(&plan->values[v].tensor))};
    for (int32_t i = 0; i < plan->n_nodes; i++) {
        const plan_node *n = &plan->nodes[i];
        for (int32_t k = 0; k < ANEX_MAX_INPUTS; k++) touch(plan, spans, n->in[k], i);
        for (int32_t k = 0; k < n->node.n_list; k++) touch(plan, spans, n->list[k], i);
        for (int32_t k = 0; k < n->node.n_out; k++) touch(plan, spans, n->out[k], i);
    }
    int32_t count = 0;
    for (anex_value v = 0; v < plan->n_values; v++)
        if (plan->values[v].root == v && plan->values[v].kind == TEMPORARY && spans[v].first >= 0)
            spans[count++] = spans[v];
    plan->live_peak = peak(plan, spans, count);
    qsort(spans, (size_t)count, sizeof *spans, by_size);
    for (int32_t i = 0; i < count; i++) {
        int32_t n = 0;
        for (int32_t k = 0; k < i; k++)
            if (spans[k].first <= spans[i].last && spans[i].first <= spans[k].last) alive[n++] = &spans[k];
        spans[i].offset = lowest_gap(&spans[i], alive, n);
        plan->values[spans[i].value].offset = spans[i].offset;
        int64_t end = spans[i].offset + spans[i].bytes;
        if (end > plan->arena_bytes) plan->arena_bytes = end;
    }
    free(spans), free(alive);
    return ANEX_OK;
}
