/* States: tensors that keep what one run writes for the next. They come in as inputs, and may be written. */
#include "kernel.h"

#include <string.h>

/* A copy, not a view: what was read must not change when the state is written later in the program. */
static void run_read_state(const anex_node *node, const anex_slice *slice) {
    (void)slice;
    memcpy(node->out[0]->data, node->in[0]->data, (size_t)anex_tensor_nbytes(node->out[0]));
}

ANEX_KERNEL(read_state) {
    enum { INPUT };
    if (anex_tensor_nbytes(node->in[INPUT]) != anex_tensor_nbytes(node->out[0]))
        return anex_node_fail(node, error, ANEX_SHAPE, "the state and what is read differ in size");
    anex_add_stage(node, run_read_state, 1, 0.05 * (double)anex_tensor_nbytes(node->out[0]));
    return ANEX_OK;
}

static void run_update_state(const anex_node *node, const anex_slice *slice) {
    enum { STATE, VALUE };
    (void)slice;
    memcpy(node->in[STATE]->data, node->in[VALUE]->data, (size_t)anex_tensor_nbytes(node->in[VALUE]));
}

/* Writes the state; the op's result, the value, needs nothing done (devices/cpu.py). */
ANEX_KERNEL(coreml_update_state) {
    enum { STATE, VALUE };
    if (anex_tensor_nbytes(node->in[STATE]) != anex_tensor_nbytes(node->in[VALUE]))
        return anex_node_fail(node, error, ANEX_SHAPE, "the state and the value differ in size");
    node->impure = true;
    anex_add_stage(node, run_update_state, 1, 0.05 * (double)anex_tensor_nbytes(node->in[VALUE]));
    return ANEX_OK;
}
