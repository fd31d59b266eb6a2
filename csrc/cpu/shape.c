/* Ops that change how data are seen, not the data: views, and the engine's own copy. */
#include "move.h"

#include <string.h>

/* in[0] as it is; its shape is the output's, known since coremltools inferred it */
static anex_status view_of_x(anex_node *node, anex_error *error) {
    const anex_tensor *x = node->in[0], *y = node->out[0];
    if (x->dtype != y->dtype || anex_tensor_nbytes(x) != anex_tensor_nbytes(y))
        return anex_node_fail(node, error, ANEX_SHAPE, "%lld elements cannot be seen as %lld",
                              (long long)anex_tensor_size(x), (long long)anex_tensor_size(y));
    node->view = true;
    return ANEX_OK;
}

ANEX_KERNEL(reshape) { return view_of_x(node, error); }
ANEX_KERNEL(reshape_like) { return view_of_x(node, error); }
ANEX_KERNEL(expand_dims) { return view_of_x(node, error); }
ANEX_KERNEL(squeeze) { return view_of_x(node, error); }
ANEX_KERNEL(flatten2d) { return view_of_x(node, error); }
ANEX_KERNEL(identity) { return view_of_x(node, error); }

ANEX_KERNEL(anex_copy) {
    enum { X };
    anex_pieces *pieces = ANEX_LOCAL(pieces_new)(node, 1, error);
    if (!pieces) return ANEX_MEMORY;
    ANEX_LOCAL(pieces_copy)(node, pieces, X);
    ANEX_LOCAL(pieces_finish)(node, pieces);
    return ANEX_OK;
}

/* ---- shape: known while compiling ------------------------------------------------------------ */

static void write_shape(const anex_node *node, const anex_slice *slice) {
    (void)slice;
    memcpy(node->out[0]->data, node->state, node->state_bytes);
}

ANEX_KERNEL(shape) {
    enum { X };
    const anex_tensor *x = node->in[X];
    int32_t *state = anex_node_state(node, (size_t)x->rank * sizeof *state, error);
    if (!state) return ANEX_MEMORY;
    for (int32_t i = 0; i < x->rank; i++) state[i] = (int32_t)x->shape[i];
    anex_add_stage(node, write_shape, 1, 10);
    return ANEX_OK;
}
