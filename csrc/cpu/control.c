/* Control flow: a block is a plan of its own. Its inputs are the block's arguments, then what it uses from outside. */
#include "kernel.h"

#include <string.h>

/* The blocks' inputs stand in node->list: loop variables (for cond: none), then values from outside.
   Two sets of loop variables lie in node->shared: a pass reads one and writes the other. */

enum { MOST_ARGUMENTS = 256 };

static anex_status check_arguments(const anex_node *node, int32_t blocks, anex_error *error) {
    if (node->n_blocks != blocks)
        return anex_node_fail(node, error, ANEX_INVALID, "%d blocks; there must be %d", node->n_blocks, blocks);
    if (node->n_list + node->n_out > MOST_ARGUMENTS)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "more than %d values go in and out; split the block",
                              MOST_ARGUMENTS);
    return ANEX_OK;
}

static bool run_block(const anex_node *node, const anex_slice *slice, int32_t block, const anex_tensor *const *in,
                      const anex_tensor *const *out) {
    anex_error error;
    if (anex_plan_run_nested(node->blocks[block], in, out, slice->workers, &error) == ANEX_OK) return true;
    anex_fault_set(slice, node, "%s", error.text);
    return false;
}

static void run_cond(const anex_node *node, const anex_slice *slice) {
    enum { PRED };
    bool pred = *(const uint8_t *)node->in[PRED]->data;
    run_block(node, slice, pred ? 0 : 1, node->list, (const anex_tensor *const *)node->out);
}

ANEX_KERNEL(cond) {
    anex_status status = check_arguments(node, 2, error);
    anex_add_stage(node, run_cond, 1, 0);
    return status;
}

static void run_while_loop(const anex_node *node, const anex_slice *slice) {
    enum { CONDITION, BODY };
    const int32_t n = node->n_out;
    const anex_tensor *in[MOST_ARGUMENTS], *out[MOST_ARGUMENTS];
    anex_tensor sets[2][MOST_ARGUMENTS], going;
    bool more = true;
    anex_tensor_init(&going, ANEX_BOOL, 0, NULL, 0, NULL);
    going.data = &more;
    char *memory = slice->shared;
    for (int32_t set = 0; set < 2; set++)
        for (int32_t i = 0; i < n; i++) {
            sets[set][i] = *node->list[i];
            sets[set][i].data = memory;
            memory += anex_align((size_t)anex_tensor_nbytes(node->list[i]));
        }
    memcpy(in, node->list, (size_t)node->n_list * sizeof *in);
    for (int32_t set = 0;; set = 1 - set) {
        const anex_tensor *answer = &going;
        if (!run_block(node, slice, CONDITION, in, &answer)) return;
        if (!more) break;
        for (int32_t i = 0; i < n; i++) out[i] = &sets[set][i];
        if (!run_block(node, slice, BODY, in, out)) return;
        memcpy(in, out, (size_t)n * sizeof *in);
    }
    for (int32_t i = 0; i < n; i++) memcpy(node->out[i]->data, in[i]->data, (size_t)anex_tensor_nbytes(in[i]));
}

ANEX_KERNEL(while_loop) {
    anex_status status = check_arguments(node, 2, error);
    if (status) return status;
    for (int32_t i = 0; i < node->n_out; i++) node->shared += 2 * anex_align((size_t)anex_tensor_nbytes(node->out[i]));
    anex_add_stage(node, run_while_loop, 1, 0);
    return ANEX_OK;
}
