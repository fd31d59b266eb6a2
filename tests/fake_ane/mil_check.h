/* The types of results: what both files of it share. */
#ifndef FAKE_ANE_MIL_CHECK_H
#define FAKE_ANE_MIL_CHECK_H

#include "mil.h"

/* Of the type worked out. Wrong: the arguments do not fit. */
typedef enum mil_verdict { MIL_KNOWN, MIL_UNKNOWN, MIL_WRONG } mil_verdict;

/* Factors that a size of up to 2^46 can be multiplied by, the second of them twice. */
enum { MIL_MOST = 1 << 16, MIL_MOST_BLOCK = 1 << 8 };

/* mil_check.c */
const anex_tensor *mil_type_of(const mil_op *op, const char *name); /* of an argument; NULL: left out */
int64_t mil_item(const anex_tensor *t, int64_t i);                  /* of a constant of integers or bools */
bool mil_is_list(const anex_tensor *t, int64_t n);                  /* constant integers, or left out */
int64_t mil_number(const mil_op *op, const char *name, int64_t otherwise);
bool mil_axis(const mil_op *op, const char *name, int64_t otherwise, int32_t rank, int32_t *axis);
bool mil_broadcast(anex_tensor *to, const anex_tensor *with);

/* mil_check_more.c: `y` comes as the type of the first argument, and leaves as that of the first result. */
mil_verdict mil_of_einsum(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_attention(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_shuffle(const mil_op *op, anex_tensor *y, bool to_space);
mil_verdict mil_of_blocks(const mil_op *op, anex_tensor *y, bool to_space);
mil_verdict mil_of_sample(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_windows(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_gather_along(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_topk(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_suppression(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_shape(const mil_op *op, anex_tensor *y);
mil_verdict mil_of_recurrent(const mil_op *op, anex_tensor *y);

#endif
