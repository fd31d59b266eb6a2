/* scaled_dot_product_attention: softmax(query . key^T / sqrt(e) + mask) . value, never holding all scores.

   Two ways: many queries in panels side by side (attention_blocks.c), few one at a time (attention_few.c). Operands
   are seen through strides, so that a transpose before or after costs nothing. */
#ifndef ANEX_ATTENTION_H
#define ANEX_ATTENTION_H

#include "gemm.h"

typedef struct attention_operand { /* elements from row to row (queries or keys), within a row, along the batch axes */
    int64_t row, col, step[ANEX_MAX_RANK];
} attention_operand;

/* Of a row of the mask: the keys to which it adds nothing, up to the first other; those before a tail that takes no
   part, as it is -inf or false. */
typedef struct attention_reach {
    int32_t plain, end;
} attention_reach;

typedef struct attention {
    int64_t batch, length, keys, e, ev; /* query [batch, length, e], key [batch, keys, e], value [batch, keys, ev] */
    int32_t batch_rank;
    int64_t shape[ANEX_MAX_RANK]; /* of the batch axes */
    attention_operand query, key, value, out;
    attention_operand mask; /* 0 where broadcast */
    float scale;
    int64_t panels, tasks; /* of a batch: of NR queries; shares of panels */
    int64_t rows;          /* of the mask, whose `reach` is known, as it is a constant; else 0 */
    attention_reach reach[];
} attention;

enum { ATTENTION_QUERY, ATTENTION_KEY, ATTENTION_VALUE, ATTENTION_MASK };

typedef struct attention_part { /* of one batch */
    gemm_matrix query, key, value;
    void *out;
    anex_dtype out_dtype;
    const anex_tensor *mask;
    int64_t mask_at;
} attention_part;

#define attention_part_of ANEX_LOCAL(attention_part_of)
attention_part attention_part_of(const attention *a, const anex_node *node, int64_t batch);

/* n elements of a mask as what is added to the scores: a bool says whether the key takes part */
#define attention_widen_mask ANEX_LOCAL(attention_widen_mask)
void attention_widen_mask(float *to, const anex_tensor *mask, int64_t at, int64_t n);

/* `n` keys of a mask from its element `at` on */
#define attention_reach_of ANEX_LOCAL(attention_reach_of)
attention_reach attention_reach_of(const anex_tensor *mask, int64_t at, int64_t n);

#define attention_plan_blocks ANEX_LOCAL(attention_plan_blocks)
void attention_plan_blocks(anex_node *node, attention *a);
#define attention_plan_few ANEX_LOCAL(attention_plan_few)
void attention_plan_few(anex_node *node, attention *a);

#endif
