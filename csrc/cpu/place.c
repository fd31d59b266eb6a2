/* Placing temporary values in one arena: two values may share bytes unless they are alive at once. */
#include "plan.h"

#include <stdlib.h>

enum { TRIES = 64, MOST_WORK = 1 << 26 }; /* placements, and pairs of values looked at in them all */

typedef struct span {
    anex_value value;
    int64_t bytes, offset, kept; /* kept: the offset in the best placement so far */
    int64_t pressure;            /* the most bytes alive at once while it lives */
    int32_t first, last;         /* nodes, both included */
} span;

static int by_age(const span *x, const span *y) {
    return x->first != y->first ? (x->first > y->first ? 1 : -1) : x->value - y->value;
}

static int by_size(const void *a, const void *b) {
    const span *x = a, *y = b;
    return x->bytes != y->bytes ? (x->bytes < y->bytes ? 1 : -1) : by_age(x, y);
}

/* First those that live where most bytes are alive at once. */
static int by_pressure(const void *a, const void *b) {
    const span *x = a, *y = b;
    return x->pressure != y->pressure ? (x->pressure < y->pressure ? 1 : -1) : by_size(a, b);
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

/* Fills in the pressure on each span; the largest, which no placement can do without, or -1 for want of memory. */
static int64_t press(const anex_plan *plan, span *spans, int32_t n) {
    int64_t most = 0;
    int64_t *alive = calloc((size_t)plan->n_nodes + 2, sizeof *alive);
    if (!alive) return -1;
    for (int32_t i = 0; i < n; i++) {
        alive[spans[i].first] += spans[i].bytes;
        alive[spans[i].last + 1] -= spans[i].bytes;
    }
    for (int32_t i = 1; i <= plan->n_nodes; i++) alive[i] += alive[i - 1];
    for (int32_t i = 0; i < n; i++) {
        for (int32_t k = spans[i].first; k <= spans[i].last; k++)
            if (alive[k] > spans[i].pressure) spans[i].pressure = alive[k];
        if (spans[i].pressure > most) most = spans[i].pressure;
    }
    free(alive);
    return most;
}

/* Place the spans in this order, each as low as it can stand; the bytes they need. `highest`: one that ends there. */
static int64_t place(span *spans, int32_t n, span **alive, int32_t *highest) {
    int64_t most = 0;
    for (int32_t i = 0; i < n; i++) {
        int32_t count = 0;
        for (int32_t k = 0; k < i; k++)
            if (spans[k].first <= spans[i].last && spans[i].first <= spans[k].last) alive[count++] = &spans[k];
        spans[i].offset = lowest_gap(&spans[i], alive, count);
        int64_t end = spans[i].offset + spans[i].bytes;
        if (end > most) most = end, *highest = i;
    }
    return most;
}

static void move_to_front(span *spans, int32_t i) {
    span moved = spans[i];
    for (; i > 0; i--) spans[i] = spans[i - 1];
    spans[0] = moved;
}

/* The best of several orders. Where none reaches the bound, the span that stands highest is placed first, and again. */
static int64_t place_well(span *spans, int32_t n, span **alive, int64_t bound) {
    static int (*const orders[])(const void *, const void *) = {by_size, by_pressure};
    enum { ORDERS = sizeof orders / sizeof *orders };
    const int64_t pairs = (int64_t)n * n + 1;
    const int64_t tries = MOST_WORK / pairs < TRIES ? MOST_WORK / pairs : TRIES;
    int64_t best = INT64_MAX;
    int32_t highest = 0;
    for (int64_t i = 0; best > bound && (i == 0 || i < tries); i++) {
        if (i < ORDERS)
            qsort(spans, (size_t)n, sizeof *spans, orders[i]);
        else
            move_to_front(spans, highest);
        const int64_t needed = place(spans, n, alive, &highest);
        if (needed >= best) continue;
        best = needed;
        for (int32_t k = 0; k < n; k++) spans[k].kept = spans[k].offset;
    }
    return n ? best : 0;
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
    plan->live_peak = press(plan, spans, count);
    if (plan->live_peak < 0) {
        free(spans), free(alive);
        return anex_fail(error, ANEX_MEMORY, "no memory to place the intermediate tensors");
    }
    plan->arena_bytes = place_well(spans, count, alive, plan->live_peak);
    for (int32_t i = 0; i < count; i++) plan->values[spans[i].value].offset = spans[i].kept;
    free(spans), free(alive);
    return ANEX_OK;
}
