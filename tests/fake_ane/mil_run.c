/* A run: ops in order, each result in memory of its own that goes after the last op that reads it. */
#include "mil.h"

#include <stdlib.h>
#include <string.h>

typedef struct running {
    const mil_function *function;
    anex_tensor *tensors;        /* by the index of a value */
    bool *is_own;                /* its memory is the run's */
    const anex_tensor **inputs;  /* of one op */
    const anex_tensor **outputs;
} running;

static anex_status make_memory(running *r, const mil_value *value, anex_error *error) {
    anex_tensor *t = &r->tensors[value->index];
    *t = value->tensor;
    size_t bytes = ((size_t)anex_tensor_nbytes(t) + ANEX_ALIGNMENT) / ANEX_ALIGNMENT * ANEX_ALIGNMENT;
    t->data = aligned_alloc(ANEX_ALIGNMENT, bytes);
    if (!t->data) return anex_fail(error, ANEX_MEMORY, "no memory for the %zu bytes of '%s'", bytes, value->name);
    r->is_own[value->index] = true;
    return ANEX_OK;
}

static void free_memory(running *r, int32_t index) {
    if (!r->is_own[index]) return;
    free(r->tensors[index].data);
    r->is_own[index] = false;
}

static const anex_tensor *tensor_of(const running *r, const mil_value *value) {
    return value->index < 0 ? &value->tensor : &r->tensors[value->index];
}

static anex_status check_port(const mil_value *port, const anex_tensor *given, anex_error *error) {
    const anex_tensor *type = &port->tensor;
    if (!given || !given->data) return anex_fail(error, ANEX_ARGUMENT, "'%s' has no memory", port->name);
    if (given->dtype != type->dtype)
        return anex_fail(error, ANEX_DTYPE, "'%s' is %s, not %s", port->name, anex_dtypes[type->dtype].name,
                         anex_dtypes[given->dtype].name);
    if (given->rank != type->rank || memcmp(given->shape, type->shape, (size_t)type->rank * sizeof *type->shape))
        return anex_fail(error, ANEX_SHAPE, "'%s' has another shape than was given", port->name);
    return ANEX_OK;
}

/* Inputs that are packed are read where they are; states that are, are written there too. */
static anex_status take_input(running *r, const mil_value *port, const anex_tensor *given, anex_error *error) {
    anex_status status = check_port(port, given, error);
    if (status) return status;
    r->tensors[port->index] = *given;
    if (anex_tensor_is_packed(given)) return ANEX_OK;
    status = make_memory(r, port, error);
    return status ? status : anex_tensor_copy(&r->tensors[port->index], given, error);
}

static anex_status run_one(running *r, int32_t i, const mil_numerics *numerics, anex_error *error) {
    const mil_op *op = r->function->ops[i];
    if (!op->plan) return ANEX_OK; /* known already */
    for (int32_t k = 0; k < op->n_inputs; k++) r->inputs[k] = tensor_of(r, op->inputs[k]);
    for (int32_t k = 0; k < op->n_results; k++) {
        anex_status status = make_memory(r, op->results[k], error);
        if (status) return status;
        r->outputs[k] = &r->tensors[op->results[k]->index];
    }
    anex_status status = mil_run_op(op, r->inputs, r->outputs, numerics, error);
    for (int32_t k = 0; k < op->n_inputs; k++)
        if (op->inputs[k]->last_use == i && !op->inputs[k]->is_state) free_memory(r, op->inputs[k]->index);
    for (int32_t k = 0; k < op->n_results; k++)
        if (op->results[k]->last_use == i) free_memory(r, op->results[k]->index);
    return status;
}

static anex_status run(running *r, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                       const mil_numerics *numerics, anex_error *error) {
    const mil_function *f = r->function;
    anex_status status = ANEX_OK;
    for (int32_t i = 0; i < f->n_ports[1] && !status; i++) status = check_port(f->ports[1][i], outputs[i], error);
    for (int32_t i = 0; i < f->n_ports[0] && !status; i++) status = take_input(r, f->ports[0][i], inputs[i], error);
    for (int32_t i = 0; i < f->n_ops && !status; i++) status = run_one(r, i, numerics, error);
    for (int32_t i = 0; i < f->n_ports[0] && !status; i++) {
        const mil_value *port = f->ports[0][i];
        if (port->is_state && r->is_own[port->index])
            status = anex_tensor_copy(inputs[i], &r->tensors[port->index], error);
    }
    for (int32_t i = 0; i < f->n_ports[1] && !status; i++)
        status = anex_tensor_copy(outputs[i], tensor_of(r, f->ports[1][i]), error);
    return status;
}

anex_status mil_run(mil_program *program, int f, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                    const mil_numerics *numerics, anex_error *error) {
    if (f < 0 || f >= program->n_functions)
        return anex_fail(error, ANEX_ARGUMENT, "the program has %d functions, no number %d",
                         (int)program->n_functions, f);
    const mil_function *function = program->functions[f];
    size_t n = (size_t)function->n_values + 1;
    running r = {.function = function,
                 .tensors = calloc(n, sizeof *r.tensors),
                 .is_own = calloc(n, sizeof *r.is_own),
                 .inputs = calloc((size_t)function->most_inputs + 1, sizeof *r.inputs),
                 .outputs = calloc((size_t)function->most_results + 1, sizeof *r.outputs)};
    anex_status status;
    if (r.tensors && r.is_own && r.inputs && r.outputs)
        status = run(&r, inputs, outputs, numerics, error);
    else
        status = anex_fail(error, ANEX_MEMORY, "no memory for a run of '%s'", function->name);
    for (int32_t i = 0; r.is_own && r.tensors && i < function->n_values; i++) free_memory(&r, i);
    free(r.tensors), free(r.is_own), free(r.inputs), free(r.outputs);
    return status;
}
