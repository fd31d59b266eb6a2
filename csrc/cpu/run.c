/* Running a plan: bind the caller's tensors, do the nodes in order, cut large stages for the team. */
#include "clock.h" /* first: it says which POSIX */
#include "../half.h"
#include "plan.h"
#include "team.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void anex_fault_set(const anex_slice *slice, const anex_node *node, const char *format, ...) {
    anex_fault *fault = slice->fault;
    pthread_mutex_lock(&fault->lock);
    if (!fault->set) {
        char text[512];
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(text, sizeof text, format, arguments);
        va_end(arguments);
        snprintf(fault->error.text, sizeof fault->error.text, "%s \"%s\": %s", node->op, node->name, text);
        fault->set = true;
    }
    pthread_mutex_unlock(&fault->lock);
}

/* ---- stages --------------------------------------------------------------------------------- */

typedef struct shared_stage {
    const anex_node *node;
    anex_work *work;
    char *scratch;
    size_t scratch_step;
    void *shared;
    int32_t workers; /* for plans run from inside: none while the team does this stage */
    anex_fault *fault;
} shared_stage;

static void do_share(void *context, int32_t worker, int64_t begin, int64_t end) {
    const shared_stage *s = context;
    char *scratch = s->scratch + (size_t)worker * s->scratch_step;
    anex_slice slice = {begin, end, scratch, s->shared, s->workers, s->fault};
    s->work(s->node, &slice);
}

void anex_node_run(const anex_node *node, int32_t workers, char *scratch, size_t scratch_step, void *shared,
                   anex_fault *fault) {
    for (int32_t i = 0; i < node->n_stages && !fault->set; i++) {
        const anex_stage *stage = &node->stage[i];
        shared_stage s = {node, stage->work, scratch, scratch_step, shared, workers, fault};
        if (workers < 2 || !worth_sharing(stage)) {
            do_share(&s, 0, 0, stage->tasks);
            continue;
        }
        /* small enough chunks to even out, large enough (about 5 us) not to be felt */
        int64_t chunk = stage->tasks / (workers * 4);
        int64_t felt = stage->cost > 0 ? (int64_t)(5000 / stage->cost) : 1;
        if (chunk < felt) chunk = felt;
        int64_t even = (stage->tasks + workers - 1) / workers;
        if (chunk > even || stage->linked) chunk = even;
        s.workers = 1;
        anex_team_run(workers, stage->tasks, chunk < 1 ? 1 : chunk, do_share, &s);
    }
}

/* ---- contexts ------------------------------------------------------------------------------- */

void anex_context_free(anex_plan *plan, context *c) {
    if (c->bounce)
        for (int32_t i = 0; i < plan->n_inputs + plan->n_outputs; i++) free(c->bounce[i]);
    free(c->tensors), free(c->nodes), free(c->pointers);
    free(c->arena), free(c->shared), free(c->scratch), free(c->bounce);
    free(c);
}

static void *allocate(size_t bytes) { return aligned_alloc(ANEX_ALIGNMENT, anex_align(bytes ? bytes : 1)); }

/* The plan's nodes again, with numbers turned into pointers to this context's tensors. */
static void connect(const anex_plan *plan, context *c) {
    const anex_tensor **next = c->pointers;
    for (int32_t i = 0; i < plan->n_values; i++) {
        c->tensors[i] = plan->values[i].tensor;
        const value *root = &plan->values[plan->values[i].root];
        if (root->kind == TEMPORARY && root->offset >= 0) c->tensors[i].data = c->arena + root->offset;
        if (root->kind == CONSTANT) c->tensors[i].data = root->tensor.data;
    }
    for (int32_t i = 0; i < plan->n_nodes; i++) {
        const plan_node *from = &plan->nodes[i];
        anex_node *node = &c->nodes[i];
        *node = from->node;
        for (int32_t k = 0; k < ANEX_MAX_INPUTS; k++) node->in[k] = from->in[k] < 0 ? NULL : &c->tensors[from->in[k]];
        node->list = next;
        for (int32_t k = 0; k < node->n_list; k++) *next++ = &c->tensors[from->list[k]];
        node->out = (anex_tensor *const *)next;
        for (int32_t k = 0; k < node->n_out; k++) *next++ = &c->tensors[from->out[k]];
    }
}

static context *make_context(anex_plan *plan) {
    context *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    size_t pointers = 1;
    for (int32_t i = 0; i < plan->n_nodes; i++)
        pointers += (size_t)(plan->nodes[i].node.n_list + plan->nodes[i].node.n_out);
    c->workers = 1;
    c->tensors = calloc((size_t)plan->n_values + 1, sizeof *c->tensors);
    c->nodes = calloc((size_t)plan->n_nodes + 1, sizeof *c->nodes);
    c->pointers = calloc(pointers, sizeof *c->pointers);
    c->bounce = calloc((size_t)(plan->n_inputs + plan->n_outputs) + 1, sizeof *c->bounce);
    c->arena = allocate((size_t)plan->arena_bytes);
    c->shared = allocate(plan->shared);
    c->scratch = allocate(plan->scratch);
    if (c->tensors && c->nodes && c->pointers && c->bounce && c->arena && c->shared && c->scratch) {
        connect(plan, c);
        return c;
    }
    anex_context_free(plan, c);
    return NULL;
}

/* One exchange to take and one to give back: no lock for a fork to leave held in the child. */
static context *take_context(anex_plan *plan) {
    for (int32_t i = 0; i < KEPT; i++) {
        context *c = atomic_exchange(&plan->idle[i], NULL);
        if (c) return c;
    }
    return make_context(plan);
}

static void give_context(anex_plan *plan, context *c) {
    for (int32_t i = 0; i < KEPT; i++) {
        context *empty = NULL;
        if (atomic_compare_exchange_strong(&plan->idle[i], &empty, c)) return;
    }
    anex_context_free(plan, c);
}

/* ---- binding -------------------------------------------------------------------------------- */

/* Kernels see packed, naturally aligned tensors; others get packed memory of the context's. */
static anex_status packed_data(context *c, int32_t binding, const anex_tensor *packed, const anex_tensor *t,
                               void **data, anex_error *error) {
    int64_t item = anex_dtypes[t->dtype].bits / 8;
    bool same = t->rank == packed->rank; /* as most have it, which is seen sooner than that others are packed too */
    for (int32_t i = 0; same && i < t->rank; i++) same = t->strides[i] == packed->strides[i];
    if ((same || anex_tensor_is_packed(t)) && (item < 2 || (uintptr_t)t->data % (uintptr_t)item == 0)) {
        *data = t->data;
        return ANEX_OK;
    }
    if (!c->bounce[binding]) c->bounce[binding] = allocate((size_t)anex_tensor_nbytes(t));
    *data = c->bounce[binding];
    return *data ? ANEX_OK
                 : anex_fail(error, ANEX_MEMORY, "no memory to pack a tensor of %lld bytes",
                             (long long)anex_tensor_nbytes(t));
}

static anex_status bind(const anex_plan *plan, context *c, const anex_tensor *const *inputs,
                        const anex_tensor *const *outputs, anex_error *error) {
    for (int32_t i = 0; i < plan->n_bound; i++) {
        anex_value v = plan->bound[i];
        const value *root = &plan->values[plan->values[v].root];
        bool input = root->kind == INPUT;
        int32_t binding = input ? root->binding : plan->n_inputs + root->binding;
        const anex_tensor *t = input ? inputs[root->binding] : outputs[root->binding];
        anex_status status = packed_data(c, binding, &c->tensors[v], t, &c->tensors[v].data, error);
        if (status) return status;
        if (input && plan->values[v].root == v && c->tensors[v].data != t->data)
            anex_tensor_copy(&c->tensors[v], t, NULL);
    }
    return ANEX_OK;
}

static void unpack_outputs(const anex_plan *plan, const context *c, const anex_tensor *const *outputs) {
    for (int32_t i = 0; i < plan->n_outputs; i++) {
        const anex_tensor *packed = &c->tensors[plan->outputs[i]];
        if (packed->data != outputs[i]->data) anex_tensor_copy(outputs[i], packed, NULL);
    }
}

/* Whether a node, or one in its blocks, writes that input, which is a state then. */
static bool writes(const anex_plan *plan, int32_t binding) {
    for (int32_t i = 0; i < plan->n_nodes; i++) {
        const plan_node *n = &plan->nodes[i];
        const value *first = n->in[0] < 0 ? NULL : &plan->values[plan->values[n->in[0]].root];
        bool is_write = n->node.impure && !n->node.n_out && first;
        if (is_write && first->kind == INPUT && first->binding == binding) return true;
        for (int32_t b = 0; b < n->node.n_blocks; b++)
            for (int32_t k = 0; k < n->node.n_list; k++) {
                const value *given = &plan->values[plan->values[n->list[k]].root];
                if (given->kind == INPUT && given->binding == binding && writes(n->blocks[b], k)) return true;
            }
    }
    return false;
}

/* States that were packed for the run, back to where they are kept */
static void unpack_states(const anex_plan *plan, const context *c, const anex_tensor *const *inputs) {
    for (int32_t i = 0; i < plan->n_bound; i++) {
        anex_value v = plan->bound[i];
        const value *bound = &plan->values[v];
        if (bound->root != v || bound->kind != INPUT || c->tensors[v].data == inputs[bound->binding]->data) continue;
        if (writes(plan, bound->binding)) anex_tensor_copy(inputs[bound->binding], &c->tensors[v], NULL);
    }
}

/* ---- the run -------------------------------------------------------------------------------- */

/* Scratch for that many; false, and nothing changed, without memory for it. */
static bool make_room(const anex_plan *plan, context *c, int32_t workers) {
    if (workers <= c->workers) return true;
    char *scratch = allocate(anex_align(plan->scratch) * (size_t)workers);
    if (!scratch) return false;
    free(c->scratch);
    c->scratch = scratch, c->workers = workers;
    return true;
}

static void do_nodes(const anex_plan *plan, context *c, int32_t workers, double *seconds, anex_fault *fault) {
    double begin = seconds ? anex_clock() : 0;
    for (int32_t i = 0; i < plan->n_nodes && !fault->set; i++) {
        anex_node_run(&c->nodes[i], workers, c->scratch, anex_align(plan->scratch), c->shared, fault);
        if (seconds) {
            double end = anex_clock();
            seconds[i] = end - begin, begin = end;
        }
    }
}

/* `lent`: the threads of the team that the caller has borrowed already, or 1.
   `seconds`: NULL, or room for the time of every node. */
static anex_status run(anex_plan *plan, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                       int32_t lent, double *seconds, anex_error *error) {
    context *c = take_context(plan);
    if (!c)
        return anex_fail(error, ANEX_MEMORY, "no memory for %lld bytes of intermediate tensors",
                         (long long)plan->arena_bytes);
    anex_status status = bind(plan, c, inputs, outputs, error);
    if (!status) {
        anex_fault fault; /* its text is long: not cleared, which would be felt */
        fault.set = false;
        fault.lock = (pthread_mutex_t)PTHREAD_MUTEX_INITIALIZER;
        int32_t borrowed = lent == 1 && plan->shares ? anex_team_borrow() : 1;
        int32_t workers = lent > borrowed ? lent : borrowed;
        if (!make_room(plan, c, workers)) workers = 1;
        do_nodes(plan, c, workers, seconds, &fault);
        anex_team_return(borrowed);
        if (fault.set)
            status = anex_fail(error, ANEX_ARGUMENT, "%s", fault.error.text);
        else
            unpack_outputs(plan, c, outputs);
        unpack_states(plan, c, inputs); /* also of a run that failed half-way */
    }
    give_context(plan, c);
    return status;
}

anex_status anex_plan_run(anex_plan *plan, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                          anex_error *error) {
    return run(plan, inputs, outputs, 1, NULL, error);
}

anex_status anex_plan_run_nested(anex_plan *plan, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                                 int32_t workers, anex_error *error) {
    return run(plan, inputs, outputs, workers, NULL, error);
}

anex_status anex_plan_profile(anex_plan *plan, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                              double *seconds, anex_error *error) {
    return run(plan, inputs, outputs, 1, seconds, error);
}

int32_t anex_plan_take_crossings(anex_plan *plan, anex_crossing *crossings, int32_t room) {
    int32_t found = 0;
    for (int32_t i = 0; i < plan->n_nodes; i++) {
        const anex_node *node = &plan->nodes[i].node;
        for (int32_t k = 0; k < node->n_blocks; k++)
            found += anex_plan_take_crossings(plan->nodes[i].blocks[k], crossings + found, room - found);
        if (found == room || !node->notes) continue;
        int64_t count = atomic_exchange(&node->notes->count, 0);
        half most = (half)atomic_exchange(&node->notes->most, 0);
        if (count) crossings[found++] = (anex_crossing){node->op, node->name, count, anex_half_to_float(most)};
    }
    return found;
}
