/* MIL text and weight files, run op by op: what the compiler and the engine behind the stand-in framework do.

   A reader of its own, so that what anex prints is read by somebody else's eyes. Each op runs alone on a
   kernel of the CPU engine, and every result is rounded to its dtype. */
#ifndef FAKE_ANE_INTERPRETER_H
#define FAKE_ANE_INTERPRETER_H

#include "../../csrc/anex.h"

typedef struct mil_program mil_program;

typedef struct mil_file {
    const char *path; /* as BLOBFILE spells it */
    const void *data;
    size_t bytes;
} mil_file;

/* NULL with a sentence in `error` (at most `room` bytes) for a program the compiler would refuse. Copies what it
   needs of text and files. */
mil_program *mil_parse(const char *text, size_t bytes, const mil_file *files, int n_files, char *error, size_t room);
void mil_free(mil_program *program);

int mil_function_count(const mil_program *program);
const char *mil_function_name(const mil_program *program, int f);
int mil_port_count(const mil_program *program, int f, int is_output);
const char *mil_port_name(const mil_program *program, int f, int is_output, int i); /* in the order of the text */
const anex_tensor *mil_port_type(const mil_program *program, int f, int is_output, int i); /* packed strides */
int mil_op_count(const mil_program *program, int f); /* const left out */
const char *mil_op_type(const mil_program *program, int f, int i);

/* What the hardware does to numbers, each of them off in a plain run (NULL: all off). */
typedef struct mil_numerics {
    bool narrow_reduce;     /* reduce_sum and reduce_mean of fp16 add up in fp16 */
    bool matmul_cliff;      /* fp16 results of matmul, linear and einsum from 32752 on are infinite */
    bool flush_subnormals;  /* fp16 results below 2^-14 are zero */
    bool slice_clamp;       /* fp16 slices that begin inside the last axis: above 4094 is infinite */
    bool sdpa_ignores_mask; /* scaled_dot_product_attention does as if it had no attn_mask */
} mil_numerics;

/* One run, inputs and outputs in the order of the ports and with any strides. Any number of threads may do so at
   once. States are inputs that are written. */
anex_status mil_run(mil_program *program, int f, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                    const mil_numerics *numerics, anex_error *error);

#endif
