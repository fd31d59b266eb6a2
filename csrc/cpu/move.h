/* Moving elements without changing them: a box of any rank, byte strides on both sides.

   Transposes, slices, concatenations, tilings, paddings and block rearrangements are all lists of
   moves; one planner collapses their axes and one loop runs them. */
#ifndef ANEX_MOVE_H
#define ANEX_MOVE_H

#include "kernel.h"

#define ANEX_MOVE_RANK (2 * ANEX_MAX_RANK) /* tile splits every axis in two */

typedef struct anex_move {
    int32_t rank;
    int64_t shape[ANEX_MOVE_RANK];
    int64_t from[ANEX_MOVE_RANK], to[ANEX_MOVE_RANK]; /* byte strides; `from` may be 0 or negative */
    int64_t run;                                      /* bytes of one element */

    /* written by move_plan */
    int32_t kind;
    int64_t block;  /* rows, tile rows or bytes of one task */
    int64_t chunks; /* tasks of one row or one plane */
    int64_t tasks;
    double cost; /* nanoseconds of one task */
} anex_move;

/* Collapse the axes, choose the loop and the tasks. */
void ANEX_LOCAL(move_plan)(anex_move *move);
/* Tasks begin..end, from and to being the addresses of the box's first element. */
void ANEX_LOCAL(move_run)(const anex_move *move, const void *from, void *to, int64_t begin, int64_t end);

/* Append an axis. */
static inline void anex_move_axis(anex_move *move, int64_t size, int64_t from, int64_t to) {
    int32_t i = move->rank++;
    move->shape[i] = size, move->from[i] = from, move->to[i] = to;
}
/* Bytes of one step along `axis` of a packed tensor. */
static inline int64_t anex_step(const anex_tensor *t, int32_t axis) {
    return anex_span(t, axis + 1, t->rank) * (int64_t)anex_itemsize(t);
}

/* ---- moves as the whole work of a node ------------------------------------------------------ */

#define ANEX_MOVE_FILL (-1) /* as `in`: the source is the state's `fill` */

typedef struct anex_piece {
    int32_t in, out;  /* which input (of the list when there is one), which output */
    int64_t from, to; /* byte offsets of the box's first element */
    int64_t first;    /* its first task in its stage */
    anex_move move;
} anex_piece;

typedef struct anex_pieces {
    int32_t n[2]; /* pieces of each stage */
    int64_t fill; /* an element's bytes, to pad with */
    anex_piece piece[];
} anex_pieces;

/* Room for `n` pieces as the node's state. */
anex_pieces *ANEX_LOCAL(pieces_new)(anex_node *node, int32_t n, anex_error *error);
/* Add a piece to stage 0 or 1 (all of stage 0 first); fill in its move's axes and run. */
anex_piece *ANEX_LOCAL(pieces_add)(anex_pieces *pieces, int32_t stage, int32_t in, int32_t out, int64_t run);
/* Plan every move and add the stages. */
void ANEX_LOCAL(pieces_finish)(anex_node *node, anex_pieces *pieces);

/* node->out[0] = a whole copy of input `in`, as stage 0. */
void ANEX_LOCAL(pieces_copy)(const anex_node *node, anex_pieces *pieces, int32_t in);

#endif
