/* Chains of elementwise ops: what an op computes, kept apart from where its lanes come from.

   A block function sees float lanes where its tensors are F16 or F32 and int32 lanes where they are
   integers or bool (0 or 1). A chain is a list of steps, each of them one op's block function with its
   constants; a step reads what the step before it made, which is never in memory as a tensor and never
   rounded to float16, and operands of its own, which broadcast. A chain is a node of its own (map.c), or
   the epilogue of a product: done on each piece of the result while that is in the first cache as float. */
#ifndef ANEX_CHAIN_H
#define ANEX_CHAIN_H

#include "../half.h"
#include "kernel.h"

enum {
    ANEX_MAP_PARAMETERS = 2,
    ANEX_CHAIN_STEPS = 12,
    ANEX_CHAIN_OPERANDS = 8,
    ANEX_THROUGH = -1,        /* a step's operand: what the step before it made */
    ANEX_EPILOGUE_LANES = 512 /* most lanes of a piece of a result */
};

typedef union anex_lane {
    float f;
    int32_t i;
} anex_lane;

/* y[0..n-1] from x[0..][0..n-1] and the op's constants p. `y` may be an operand itself, lane for lane. */
typedef void anex_block(void *y, const void *const *x, const anex_lane *p, int64_t n);

typedef struct anex_blocks {
    anex_block *lanes; /* NULL: the lanes of x[0] as they are */
    anex_block *half;  /* NULL: none */
} anex_blocks;

/* What an op of floats is, where that lets the end of a product do it in registers. */
typedef enum anex_form { ANEX_OTHER_FORM, ANEX_SUM_FORM /* x[0] + x[1] */, ANEX_BOUNDS_FORM /* to low .. high */ } anex_form;

/* One elementwise op, as its kernel describes it. */
typedef struct anex_map_op {
    anex_blocks block;
    double cost; /* nanoseconds per lane, roughly */
    anex_lane p[ANEX_MAP_PARAMETERS];
    bool moves;                       /* lanes are chosen, not computed: float16 may move as 16 bits */
    int32_t n;                        /* operands: node->in[0..n-1] */
    anex_tensor x[ANEX_MAP_OPERANDS]; /* shape and dtype the operands are taken to have */
    anex_dtype out;                   /* dtype of out[0] */
    bool fits;                        /* integer lanes are within its width */
    anex_form form;
    float low, high; /* ANEX_BOUNDS_FORM; low <= high, and a NaN stays one */
} anex_map_op;

typedef struct anex_step {
    anex_blocks block;
    anex_lane p[ANEX_MAP_PARAMETERS];
    bool moves;
    int8_t n, x[ANEX_MAP_OPERANDS]; /* the chain's operands, or ANEX_THROUGH */
} anex_step;

typedef struct anex_operand {
    anex_tensor form; /* shape and dtype it is taken to have */
    int32_t slot;     /* node->in[slot] */
} anex_operand;

typedef struct anex_chain {
    int32_t n_steps, n_operands;
    anex_step step[ANEX_CHAIN_STEPS]; /* the first of a map reads no ANEX_THROUGH; without steps, operand 0 is copied */
    anex_operand operand[ANEX_CHAIN_OPERANDS];
    int32_t followers; /* operands that came with ops which joined: their slots count down from the last */
    anex_dtype out;
    double cost; /* nanoseconds per lane */
} anex_chain;

/* Add the op that `node` is, one that joins when node->onto is set: then node->slot says where onto->in must
   have its operands. False, and nothing is changed: the chain cannot take it. */
#define anex_chain_add ANEX_LOCAL(chain_add)
bool anex_chain_add(anex_chain *chain, anex_node *node, const anex_map_op *op);

/* Elements along x's axes for each step along y's, 0 where x is broadcast. False: it does not broadcast to y. */
#define anex_broadcast ANEX_LOCAL(broadcast)
bool anex_broadcast(const anex_tensor *x, const anex_tensor *y, int64_t *step);

/* n elements into lanes of `width` bytes: 4, or 2 for float16 as it is; and lanes of 4 bytes back. */
#define anex_lanes_load ANEX_LOCAL(lanes_load)
void anex_lanes_load(void *to, int64_t width, anex_dtype dtype, const void *from, int64_t n);
#define anex_lanes_store ANEX_LOCAL(lanes_store)
void anex_lanes_store(void *to, anex_dtype dtype, const void *from, int64_t n);

/* ---- at the end of a product --------------------------------------------------------------------- */

/* Make the op that `node` is the last step of node->onto's epilogue, and set node->joined; unless it cannot be. */
#define anex_epilogue_add ANEX_LOCAL(epilogue_add)
anex_status anex_epilogue_add(anex_node *node, const anex_map_op *op, anex_error *error);

/* Whether its ops read nothing else, so that lanes may lie in any order. NULL: there are none. */
#define anex_epilogue_alone ANEX_LOCAL(epilogue_alone)
bool anex_epilogue_alone(const anex_epilogue *epilogue);
/* Whether all that one of these does is to bound lanes to low .. high, which are left alone where there are none. */
#define anex_epilogue_bounds ANEX_LOCAL(epilogue_bounds)
bool anex_epilogue_bounds(const anex_epilogue *epilogue, float *low, float *high);
/* The ops of one of these on n lanes */
#define anex_epilogue_lanes ANEX_LOCAL(epilogue_lanes)
void anex_epilogue_lanes(const anex_epilogue *epilogue, float *lanes, int64_t n);

/* A piece of a result: rows of `width` lanes, of which `cols` count; rows * width <= ANEX_EPILOGUE_LANES. Lane
   (r, s) is element row_at[r] + col_at[s] of out[0]. Does nothing to a node without an epilogue. */
#define anex_epilogue_run ANEX_LOCAL(epilogue_run)
void anex_epilogue_run(const anex_node *node, float *piece, int64_t width, const int64_t *row_at, int64_t rows,
                       const int64_t *col_at, int64_t cols);
/* What most products end in: at most one tensor as large as the result is added, then the sum is bounded. */
typedef struct anex_plain {
    const void *residual; /* NULL: none; its element i belongs to element i of out[0] */
    anex_dtype dtype;     /* F16 or F32 */
    float low, high;
} anex_plain;
/* Whether that is all that the node's epilogue does, if it has one. */
#define anex_epilogue_plain ANEX_LOCAL(epilogue_plain)
bool anex_epilogue_plain(const anex_node *node, anex_plain *plain);

/* Elements first .. first + n - 1 of out[0], of floats: the epilogue is run on `line`, whose place they take in memory. */
#define anex_epilogue_store ANEX_LOCAL(epilogue_store)
void anex_epilogue_store(const anex_node *node, float *line, int64_t first, int64_t n);

#endif
