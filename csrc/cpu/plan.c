/* Making a plan: values and ops in program order, constants folded and packed as they come. */
#include "plan.h"
#include "team.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static anex_status out_of_memory(anex_error *error) { return anex_fail(error, ANEX_MEMORY, "no memory for the plan"); }

static void *aligned(size_t bytes) {
    void *p = aligned_alloc(ANEX_ALIGNMENT, anex_align(bytes ? bytes : 1));
    if (p) memset(p, 0, anex_align(bytes ? bytes : 1));
    return p;
}

/* ---- what kernels use ----------------------------------------------------------------------- */

static void *take_state(anex_node *node, size_t bytes, bool zeroed, anex_error *error) {
    node->state = anex_store_take(node->store, bytes, zeroed);
    node->state_bytes = bytes;
    if (!node->state) anex_node_fail(node, error, ANEX_MEMORY, "no memory for %zu bytes of packed constants", bytes);
    return node->state;
}

void *anex_node_state(anex_node *node, size_t bytes, anex_error *error) { return take_state(node, bytes, true, error); }
void *anex_node_room(anex_node *node, size_t bytes, anex_error *error) { return take_state(node, bytes, false, error); }

void anex_node_drop(const anex_node *node, void *state, size_t bytes) {
    if (state) anex_store_give(node->store, state, bytes);
}

void *anex_node_replace(anex_node *node, int32_t i, anex_dtype dtype, anex_error *error) {
    const anex_tensor *old = node->in[i];
    anex_tensor *own = malloc(sizeof *own);
    if (own) {
        anex_tensor_init(own, dtype, old->rank, old->shape, 0, NULL);
        own->data = aligned((size_t)anex_tensor_nbytes(own));
    }
    if (!own || !own->data) {
        free(own);
        anex_node_fail(node, error, ANEX_MEMORY, "no memory for an unpacked constant");
        return NULL;
    }
    node->in[i] = node->replaced[i] = own;
    return own->data;
}

void anex_add_stage(anex_node *node, anex_work *work, int64_t tasks, double cost) {
    node->stage[node->n_stages++] = (anex_stage){.work = work, .tasks = tasks, .cost = cost};
}

anex_status anex_node_fail(const anex_node *node, anex_error *error, anex_status status, const char *format, ...) {
    char text[768];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    return anex_fail(error, status, "%s \"%s\": %s", node->op, node->name, text);
}

anex_status anex_need_constants(const anex_node *node, uint32_t inputs, anex_error *error) {
    for (int32_t i = 0; i < ANEX_MAX_INPUTS; i++)
        if (inputs >> i & 1 && node->in[i] && !node->in[i]->data)
            return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                                  "input %d is computed while the program runs; the CPU engine needs it as a constant",
                                  i);
    return ANEX_OK;
}

int64_t anex_item(const anex_tensor *t, int64_t i) {
    const void *p = t->data;
    switch (t->dtype) {
    case ANEX_I8: return ((const int8_t *)p)[i];
    case ANEX_I16: return ((const int16_t *)p)[i];
    case ANEX_U16: return ((const uint16_t *)p)[i];
    case ANEX_I32: return ((const int32_t *)p)[i];
    case ANEX_U32: return ((const uint32_t *)p)[i];
    case ANEX_F16: return (int64_t)anex_half_to_float(((const half *)p)[i]);
    case ANEX_F32: return (int64_t)((const float *)p)[i];
    default: return ((const uint8_t *)p)[i];
    }
}

double anex_real(const anex_tensor *t, int64_t i) {
    if (t->dtype == ANEX_F16) return anex_half_to_float(((const half *)t->data)[i]);
    if (t->dtype == ANEX_F32) return ((const float *)t->data)[i];
    return (double)anex_item(t, i);
}

/* ---- values --------------------------------------------------------------------------------- */

anex_status anex_plan_new(const char *isa, bool strict, anex_plan **plan, anex_error *error) {
    const anex_isa *found = anex_isa_find(isa);
    if (!found) return anex_fail(error, ANEX_UNSUPPORTED, "no kernels for instruction set %s on this machine", isa);
    anex_plan *p = calloc(1, sizeof *p);
    if (!p) return out_of_memory(error);
    p->isa = found, p->strict = strict;
    *plan = p;
    return ANEX_OK;
}

static void free_node(plan_node *n) {
    anex_node_drop(&n->node, n->node.state, n->node.state_bytes);
    free(n->node.epilogue);
    free(n->node.inner[0]), free(n->node.inner[1]);
    free((void *)n->node.op);
    free((void *)n->node.name);
    free(n->list);
    free(n->out);
    for (int32_t i = 0; i < ANEX_MAX_INPUTS; i++) {
        if (n->node.replaced[i]) free(n->node.replaced[i]->data);
        free(n->node.replaced[i]);
    }
    for (int32_t i = 0; n->blocks && i < n->node.n_blocks; i++) anex_plan_free(n->blocks[i]);
    free(n->blocks);
}

static void drop_constant(anex_plan *plan, value *v) {
    if (v->tensor.data) anex_store_give(&plan->store, v->tensor.data, (size_t)anex_tensor_nbytes(&v->tensor));
    v->tensor.data = NULL, v->owned = false;
}

void anex_plan_free(anex_plan *plan) {
    if (!plan) return;
    for (int32_t i = 0; i < KEPT; i++) {
        context *c = atomic_load(&plan->idle[i]);
        if (c) anex_context_free(plan, c);
    }
    for (int32_t i = 0; i < plan->n_nodes; i++) free_node(&plan->nodes[i]);
    for (int32_t i = 0; i < plan->n_values; i++)
        if (plan->values[i].owned) drop_constant(plan, &plan->values[i]);
    anex_store_free(&plan->store);
    free(plan->nodes), free(plan->values), free(plan->outputs), free(plan->bound);
    free(plan);
}

static anex_status add_value(anex_plan *plan, const anex_tensor *tensor, anex_value *number, anex_error *error) {
    if (plan->n_values == plan->value_room) {
        int32_t room = plan->value_room ? 2 * plan->value_room : 64;
        value *grown = realloc(plan->values, (size_t)room * sizeof *grown);
        if (!grown) return out_of_memory(error);
        plan->values = grown, plan->value_room = room;
    }
    *number = plan->n_values;
    plan->values[plan->n_values++] =
        (value){.tensor = *tensor, .root = *number, .binding = NOWHERE, .offset = NOWHERE, .kind = TEMPORARY};
    return ANEX_OK;
}

anex_status anex_plan_value(anex_plan *plan, anex_dtype dtype, int32_t rank, const int64_t *shape, anex_value *number,
                            anex_error *error) {
    anex_tensor tensor;
    anex_status status = anex_tensor_init(&tensor, dtype, rank, shape, 0, error);
    return status ? status : add_value(plan, &tensor, number, error);
}

anex_status anex_plan_input(anex_plan *plan, anex_dtype dtype, int32_t rank, const int64_t *shape, anex_value *number,
                            anex_error *error) {
    anex_status status = anex_plan_value(plan, dtype, rank, shape, number, error);
    if (status) return status;
    value *v = &plan->values[*number];
    v->kind = INPUT, v->binding = plan->n_inputs++, v->made = true;
    return ANEX_OK;
}

anex_status anex_plan_constant(anex_plan *plan, const anex_tensor *tensor, anex_value *number, anex_error *error) {
    if (!anex_tensor_is_packed(tensor)) return anex_fail(error, ANEX_SHAPE, "a constant must be packed");
    anex_status status = add_value(plan, tensor, number, error);
    if (status) return status;
    plan->values[*number].kind = CONSTANT;
    plan->values[*number].made = true;
    return ANEX_OK;
}

void anex_plan_lasting(anex_plan *plan, anex_value constant) { plan->values[constant].lasting = true; }

/* ---- ops ------------------------------------------------------------------------------------ */

static const anex_kernel_info *find_kernel(const char *op, int32_t *index) {
    int32_t n;
    const anex_kernel_info *list = anex_kernel_list(&n);
    for (int32_t i = 0; i < n; i++)
        if (!strcmp(list[i].op, op)) return *index = i, &list[i];
    return NULL;
}

static char *copy_text(const char *text) {
    size_t n = strlen(text) + 1;
    char *copy = malloc(n);
    return copy ? memcpy(copy, text, n) : NULL;
}

static anex_value *copy_values(const anex_value *values, int32_t n) {
    anex_value *copy = malloc(((size_t)n + 1) * sizeof *copy);
    return copy && n ? memcpy(copy, values, (size_t)n * sizeof *copy) : copy; /* no NULL to memcpy */
}

/* Run a node whose inputs are all constants now; its outputs are constants from then on. */
static anex_status fold(anex_plan *plan, plan_node *n, anex_error *error) {
    anex_node *node = &n->node;
    for (int32_t i = 0; i < node->n_out; i++) {
        value *v = &plan->values[n->out[i]];
        v->tensor.data = node->view ? NULL : aligned((size_t)anex_tensor_nbytes(&v->tensor));
        if (node->view) { /* a constant of another shape */
            v->tensor.data = node->in[0]->data;
            v->root = plan->values[n->in[0]].root;
        } else if (!v->tensor.data) {
            return out_of_memory(error);
        }
        v->owned = !node->view, v->kind = CONSTANT;
        node->out[i]->data = v->tensor.data;
    }
    if (node->view) return ANEX_OK;
    char *scratch = aligned(node->scratch), *shared = aligned(node->shared);
    anex_fault fault = {.set = false};
    pthread_mutex_init(&fault.lock, NULL);
    if (scratch && shared) anex_node_run(node, 1, scratch, 0, shared, &fault);
    bool ran = scratch && shared;
    free(scratch), free(shared);
    pthread_mutex_destroy(&fault.lock);
    if (!ran) return out_of_memory(error);
    return fault.set ? anex_fail(error, ANEX_INVALID, "%s", fault.error.text) : ANEX_OK;
}

static anex_status check_values(const anex_plan *plan, const plan_node *n, int32_t n_list, anex_error *error) {
    for (int32_t i = 0; i < ANEX_MAX_INPUTS + n_list; i++) {
        anex_value v = i < ANEX_MAX_INPUTS ? n->in[i] : n->list[i - ANEX_MAX_INPUTS];
        if (v >= plan->n_values || (v >= 0 && !plan->values[v].made))
            return anex_node_fail(&n->node, error, ANEX_INVALID, "an input has no value yet");
    }
    for (int32_t i = 0; i < n->node.n_out; i++)
        if (n->out[i] < 0 || n->out[i] >= plan->n_values || plan->values[n->out[i]].made)
            return anex_node_fail(&n->node, error, ANEX_INVALID, "output %d has a value already", i);
    return ANEX_OK;
}

/* An op that may join the last node sees what that one reads. */
static void lend_inputs(anex_plan *plan) {
    plan_node *last = &plan->nodes[plan->n_nodes - 1];
    for (int32_t i = 0; i < ANEX_MAX_INPUTS; i++)
        last->node.in[i] = last->in[i] < 0 ? NULL : &plan->values[last->in[i]].tensor;
}

static bool gives_nothing(const anex_plan *plan, const plan_node *n) {
    for (int32_t i = 0; i < n->node.n_out; i++)
        if (anex_tensor_size(&plan->values[n->out[i]].tensor)) return false;
    return n->node.n_out > 0;
}

/* Ask the kernel how it would do this op. The tensors are copies, on loan for the call. */
static anex_status plan_kernel(anex_plan *plan, plan_node *n, const anex_kernel_info *info, anex_kernel *kernel,
                               bool *constant, anex_error *error) {
    anex_node *node = &n->node;
    *constant = true;
    for (int32_t i = 0; i < ANEX_MAX_INPUTS; i++)
        if (n->in[i] >= 0) {
            node->in[i] = &plan->values[n->in[i]].tensor;
            *constant = *constant && node->in[i]->data;
        }
    for (int32_t i = 0; i < node->n_list; i++) *constant = *constant && node->list[i]->data;
    const anex_tensor *first = node->n_list ? node->list[0] : node->in[0];
    if (first && !(info->dtypes >> first->dtype & 1))
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "the CPU engine has no kernel for %s inputs",
                              anex_dtypes[first->dtype].name);
    if (node->onto) lend_inputs(plan);
    anex_status status = kernel(node, error);
    if (node->onto) memset(node->onto->in, 0, sizeof node->onto->in);
    if (status) return status;
    *constant = *constant && !node->impure;
    if (*constant) return fold(plan, n, error);
    return ANEX_OK;
}

/* The node that makes `through`, if it is the last: nothing else can come between the two. */
static anex_node *find_onto(anex_plan *plan, anex_value through) {
    if (through < 0 || !plan->n_nodes) return NULL;
    plan_node *last = &plan->nodes[plan->n_nodes - 1];
    return last->node.n_out == 1 && last->out[0] == through ? &last->node : NULL;
}

/* A node that other ops joined is called "conv_0 + gelu_0 + y". */
static void append_name(anex_node *node, const char *name) {
    size_t room = strlen(node->name) + strlen(name) + 4;
    char *both = malloc(room);
    if (!both) return; /* only a name */
    snprintf(both, room, "%s + %s", node->name, name);
    free((void *)node->name);
    node->name = both;
}

/* What it needs while running; joining may change that. */
static void make_room_for(anex_plan *plan, const anex_node *node) {
    plan->scratch = plan->scratch > node->scratch ? plan->scratch : node->scratch;
    plan->shared = plan->shared > node->shared ? plan->shared : node->shared;
}

/* The last node makes what `n` was to make; the value between the two never exists. */
static void accept_joined(anex_plan *plan, const plan_node *n) {
    plan_node *last = &plan->nodes[plan->n_nodes - 1];
    for (int32_t k = 0; k < ANEX_MAP_OPERANDS; k++) {
        if (n->in[k] < 0 || n->node.slot[k] < 0) continue;
        last->in[n->node.slot[k]] = n->in[k];
        plan->values[plan->values[n->in[k]].root].needed = true;
    }
    plan->values[last->out[0]].made = false;
    last->out[0] = n->out[0];
    for (int32_t i = 0; i < last->node.n_stages; i++)
        plan->shares = plan->shares || worth_sharing(&last->node.stage[i]);
    append_name(&last->node, n->node.name);
    make_room_for(plan, &last->node);
}

/* Constants that the kernel made become values of the plan. */
static anex_status adopt(anex_plan *plan, plan_node *n, anex_error *error) {
    for (int32_t i = 0; i < ANEX_MAX_INPUTS; i++) {
        anex_tensor *own = n->node.replaced[i];
        if (!own) continue;
        anex_status status = add_value(plan, own, &n->in[i], error);
        if (status) return status;
        value *v = &plan->values[n->in[i]];
        v->kind = CONSTANT, v->made = v->owned = true;
        free(own);
        n->node.replaced[i] = NULL;
    }
    return ANEX_OK;
}

static void accept(anex_plan *plan, plan_node *n, bool constant) {
    anex_node *node = &n->node;
    for (int32_t i = 0; i < node->n_out; i++) plan->values[n->out[i]].made = true;
    if (node->joined) {
        accept_joined(plan, n);
        free_node(n);
        return;
    }
    if (constant) {
        free_node(n);
        return;
    }
    if (node->view) {
        value *of = &plan->values[n->in[0]], *v = &plan->values[n->out[0]];
        v->root = of->root;
        v->tensor.data = of->tensor.data; /* a constant seen through a shape that is not one */
        free_node(n);
        return;
    }
    for (int32_t i = 0; i < ANEX_MAX_INPUTS; i++)
        if (n->in[i] >= 0 && !(node->packed >> i & 1)) plan->values[plan->values[n->in[i]].root].needed = true;
    for (int32_t i = 0; i < node->n_list; i++) plan->values[plan->values[n->list[i]].root].needed = true;
    make_room_for(plan, node);
    for (int32_t i = 0; i < node->n_stages; i++) plan->shares = plan->shares || worth_sharing(&node->stage[i]);
    node->list = NULL, node->out = NULL, node->onto = NULL;
    memset(node->in, 0, sizeof node->in);
    plan->nodes[plan->n_nodes++] = *n;
}

static anex_status add_op(anex_plan *plan, const char *op, const char *name, int32_t n_inputs, const anex_value *inputs,
                          int32_t n_list, const anex_value *list, int32_t n_outputs, const anex_value *outputs,
                          anex_value through, int32_t n_blocks, anex_plan *const *blocks, anex_error *error) {
    int32_t index = 0;
    const anex_kernel_info *info = find_kernel(op, &index);
    if (!info)
        return anex_fail(error, ANEX_UNSUPPORTED, "%s \"%s\": the CPU engine has no kernel for this op", op, name);
    if (n_inputs > ANEX_MAX_INPUTS) return anex_fail(error, ANEX_INVALID, "%s \"%s\": too many inputs", op, name);
    if (plan->n_nodes == plan->node_room) {
        int32_t room = plan->node_room ? 2 * plan->node_room : 64;
        plan_node *grown = realloc(plan->nodes, (size_t)room * sizeof *grown);
        if (!grown) return out_of_memory(error);
        plan->nodes = grown, plan->node_room = room;
    }
    plan_node n = {.node = {.op = copy_text(op), .name = copy_text(name), .n_list = n_list, .n_out = n_outputs,
                            .strict = plan->strict, .dot = plan->isa->dot, .store = &plan->store},
                   .list = copy_values(list, n_list),
                   .out = copy_values(outputs, n_outputs),
                   .blocks = calloc((size_t)n_blocks + 1, sizeof *n.blocks)};
    for (int32_t i = 0; i < ANEX_MAX_INPUTS; i++) {
        n.in[i] = i < n_inputs ? inputs[i] : -1;
        if (n.in[i] >= 0 && n.in[i] == through) n.node.onto = find_onto(plan, through), n.node.through = i;
    }
    memset(n.node.slot, -1, sizeof n.node.slot);
    const anex_tensor **loan = calloc((size_t)(n_list + n_outputs) + 1, sizeof *loan);
    anex_status status =
        n.node.op && n.node.name && n.list && n.out && n.blocks && loan ? ANEX_OK : out_of_memory(error);
    if (!status) status = check_values(plan, &n, n_list, error);
    bool constant = false;
    if (!status && !n_blocks && gives_nothing(plan, &n)) { /* empty results: no kernel ever sees one */
        for (int32_t i = 0; i < n_outputs; i++) plan->values[outputs[i]].made = true;
        free_node(&n);
        free(loan);
        return ANEX_OK;
    }
    if (!status) {
        for (int32_t i = 0; i < n_list; i++) loan[i] = &plan->values[list[i]].tensor;
        for (int32_t i = 0; i < n_outputs; i++) loan[n_list + i] = &plan->values[outputs[i]].tensor;
        for (int32_t i = 0; i < n_blocks; i++) n.blocks[i] = blocks[i];
        n.node.blocks = n.blocks, n.node.n_blocks = n_blocks;
        n.node.list = loan;
        n.node.out = (anex_tensor *const *)(loan + n_list);
        status = plan_kernel(plan, &n, info, plan->isa->kernels[index], &constant, error);
        if (!status && !constant) status = adopt(plan, &n, error);
    }
    if (status) {
        n.node.n_blocks = 0; /* still the caller's */
        free_node(&n);
    } else {
        accept(plan, &n, constant);
    }
    free(loan);
    return status;
}

anex_status anex_plan_op(anex_plan *plan, const char *op, const char *name, int32_t n_inputs, const anex_value *inputs,
                         int32_t n_list, const anex_value *list, int32_t n_outputs, const anex_value *outputs,
                         anex_value through, anex_error *error) {
    return add_op(plan, op, name, n_inputs, inputs, n_list, list, n_outputs, outputs, through, 0, NULL, error);
}

anex_status anex_plan_control(anex_plan *plan, const char *op, const char *name, int32_t n_inputs,
                              const anex_value *inputs, int32_t n_list, const anex_value *list, int32_t n_outputs,
                              const anex_value *outputs, int32_t n_blocks, anex_plan *const *blocks,
                              anex_error *error) {
    return add_op(plan, op, name, n_inputs, inputs, n_list, list, n_outputs, outputs, -1, n_blocks, blocks, error);
}

/* ---- finishing ------------------------------------------------------------------------------ */

/* Outputs that cannot be written in place (an input, a constant, the same value twice) get a copy. */
static anex_status copy_output(anex_plan *plan, anex_value *output, anex_error *error) {
    const anex_tensor from = plan->values[*output].tensor;
    anex_value copy;
    anex_status status = anex_plan_value(plan, from.dtype, from.rank, from.shape, &copy, error);
    if (status) return status;
    value *v = &plan->values[*output];
    void *data = v->tensor.data; /* hidden for the call: a constant would be folded again */
    v->tensor.data = NULL;
    int32_t nodes = plan->n_nodes;
    status = anex_plan_op(plan, "anex_copy", "output", 1, output, 0, NULL, 1, &copy, -1, error);
    plan->values[*output].tensor.data = data;
    if (!status && plan->n_nodes == nodes + 1) *output = copy;
    return status;
}

/* Constants to be copied, one after the other, in pieces of a huge page: each thread has its own pages to touch first. */
enum { PIECE = 1 << 21 };
typedef struct copying {
    struct one_copy {
        char *to;
        const char *from;
        int64_t begin, bytes; /* of all that is copied */
    } *copy;
    int64_t n, bytes;
} copying;

static void copy_pieces(void *context, int32_t worker, int64_t begin, int64_t end) {
    const copying *all = context;
    int64_t at = begin * PIECE, stop = anex_min(end * PIECE, all->bytes), low = 0;
    (void)worker;
    for (int64_t high = all->n; high - low > 1;) { /* the last that begins at or before `at` */
        int64_t middle = (low + high) / 2;
        if (all->copy[middle].begin <= at) low = middle;
        else high = middle;
    }
    for (; at < stop; low++) {
        const struct one_copy *c = &all->copy[low];
        int64_t from = at - c->begin, bytes = anex_min(c->bytes - from, stop - at);
        memcpy(c->to + from, c->from + from, (size_t)bytes);
        at += bytes;
    }
}

/* A constant that runs read becomes the plan's own, so that it stays what it was; one that was only packed goes. */
static anex_status keep_constants(anex_plan *plan, anex_error *error) {
    copying all = {.copy = malloc(((size_t)plan->n_values + 1) * sizeof *all.copy)};
    if (!all.copy) return out_of_memory(error);
    for (int32_t i = 0; i < plan->n_values; i++) {
        value *v = &plan->values[i];
        if (v->root != i || v->kind != CONSTANT) continue;
        int64_t bytes = anex_tensor_nbytes(&v->tensor);
        if (!v->needed) {
            if (v->owned) drop_constant(plan, v);
            v->tensor.data = NULL;
        } else if (!v->owned && !v->lasting) {
            char *own = anex_store_take(&plan->store, (size_t)bytes, false);
            if (!own) {
                free(all.copy);
                return out_of_memory(error);
            }
            if (bytes) all.copy[all.n++] = (struct one_copy){own, v->tensor.data, all.bytes, bytes};
            all.bytes += bytes;
            v->tensor.data = own, v->owned = true;
        }
    }
    int64_t pieces = (all.bytes + PIECE - 1) / PIECE;
    int32_t workers = pieces > 1 ? anex_team_borrow() : 1;
    if (workers > 1)
        anex_team_run(workers, pieces, 1, copy_pieces, &all);
    else
        copy_pieces(&all, 0, 0, pieces);
    anex_team_return(workers);
    free(all.copy);
    return ANEX_OK;
}

/* Values whose memory is an input's or output's */
static anex_status settle(anex_plan *plan, anex_error *error) {
    plan->bound = malloc(((size_t)plan->n_values + 1) * sizeof *plan->bound);
    if (!plan->bound) return out_of_memory(error);
    for (int32_t i = 0; i < plan->n_values; i++) {
        value_kind kind = plan->values[plan->values[i].root].kind;
        if (kind == INPUT || kind == OUTPUT) plan->bound[plan->n_bound++] = i;
    }
    return keep_constants(plan, error);
}

/* Nodes that read constants once a run are told when all of them together read too many to find any in a cache. */
static void tell_streams(anex_plan *plan) {
    const int64_t caches = 64 << 20;
    int64_t bytes = 0;
    for (int32_t i = 0; i < plan->n_nodes; i++) bytes += plan->nodes[i].node.once;
    for (int32_t i = 0; i < plan->n_nodes; i++) plan->nodes[i].node.streams = bytes > caches;
}

anex_status anex_plan_finish(anex_plan *plan, int32_t n_outputs, const anex_value *outputs, anex_error *error) {
    plan->outputs = copy_values(outputs, n_outputs);
    if (!plan->outputs) return out_of_memory(error);
    plan->n_outputs = n_outputs;
    for (int32_t i = 0; i < n_outputs; i++) {
        bool known = outputs[i] >= 0 && outputs[i] < plan->n_values && plan->values[outputs[i]].made;
        if (!known) return anex_fail(error, ANEX_INVALID, "output %d is never computed", i);
        value *root = &plan->values[plan->values[outputs[i]].root];
        if (root->kind != TEMPORARY) {
            anex_status status = copy_output(plan, &plan->outputs[i], error);
            if (status) return status;
            root = &plan->values[plan->outputs[i]];
        }
        root->kind = OUTPUT, root->binding = i;
    }
    for (int32_t i = 0; i < plan->n_nodes; i++) plan->packed_bytes += (int64_t)plan->nodes[i].node.state_bytes;
    anex_status status = settle(plan, error);
    if (!status) tell_streams(plan);
    return status ? status : anex_place(plan, error);
}

const anex_tensor *anex_plan_tensor(const anex_plan *plan, anex_value number) { return &plan->values[number].tensor; }

bool anex_plan_is_brief(const anex_plan *plan) {
    double cost = 0;
    for (int32_t i = 0; i < plan->n_nodes; i++) {
        const anex_node *node = &plan->nodes[i].node;
        if (node->n_blocks) return false; /* who knows how often they run */
        for (int32_t k = 0; k < node->n_stages; k++) cost += node->stage[k].cost * (double)node->stage[k].tasks;
    }
    return cost + 50.0 * plan->n_nodes <= BRIEF;
}

anex_plan_stats anex_plan_get_stats(const anex_plan *plan) {
    return (anex_plan_stats){.nodes = plan->n_nodes,
                             .arena_bytes = plan->arena_bytes,
                             .packed_bytes = plan->packed_bytes,
                             .live_bytes_peak = plan->live_peak};
}

anex_node_info anex_plan_get_node(const anex_plan *plan, int32_t node) {
    const plan_node *n = &plan->nodes[node];
    anex_node_info info = {n->node.op, n->node.name, 0};
    for (int32_t i = 0; i < n->node.n_out; i++)
        info.output_bytes += anex_tensor_nbytes(&plan->values[n->out[i]].tensor);
    return info;
}
