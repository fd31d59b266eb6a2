/* The whole native interface of anex: plain C11, usable without Python.

   Ownership: what `anex_x_new` makes, `anex_x_free` ends; an `anex_memory` is counted. A function
   that can fail returns a status and, unless that is ANEX_OK, has written one sentence to `error`. */
#ifndef ANEX_H
#define ANEX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* ---- status ------------------------------------------------------------------------------- */

typedef enum anex_status {
    ANEX_OK,
#define ANEX_STATUS(name, exception, text) ANEX_##name,
#include "status.inc"
#undef ANEX_STATUS
    ANEX_STATUS_COUNT
} anex_status;

typedef struct anex_error {
    char text[1024];
} anex_error;

/* Write the sentence (printf style; `error` may be NULL) and hand `status` back. */
anex_status anex_fail(anex_error *error, anex_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;
const char *anex_status_exception(anex_status status); /* its class in anex/errors.py */

/* ---- dtype -------------------------------------------------------------------------------- */

typedef enum anex_dtype {
#define ANEX_DTYPE(name, numpy, format, bits, dlpack) ANEX_##name,
#include "dtypes.inc"
#undef ANEX_DTYPE
    ANEX_DTYPE_COUNT
} anex_dtype;

typedef struct anex_dtype_info {
    const char *name;   /* as numpy spells it */
    const char *format; /* as the buffer protocol spells it */
    int32_t bits;
    int32_t dlpack; /* DLPack's type code */
} anex_dtype_info;

extern const anex_dtype_info anex_dtypes[ANEX_DTYPE_COUNT];

/* ---- tensor ------------------------------------------------------------------------------- */

#define ANEX_MAX_RANK 8 /* a palette's table has the rank of its weight (at most 5) + 2 */
#define ANEX_ALIGNMENT 64

/* A view of memory: row-major with byte strides. 4-bit tensors are always packed. */
typedef struct anex_tensor {
    void *data;
    int64_t shape[ANEX_MAX_RANK];
    int64_t strides[ANEX_MAX_RANK]; /* bytes */
    int32_t rank;
    anex_dtype dtype;
} anex_tensor;

/* Shape, dtype and strides of a row-major tensor without memory. `row_alignment` (a power of two,
   or 0 for packed) is the multiple of bytes that rows, the last axis, are padded to. */
anex_status anex_tensor_init(anex_tensor *tensor, anex_dtype dtype, int32_t rank, const int64_t *shape,
                             int64_t row_alignment, anex_error *error);
int64_t anex_tensor_size(const anex_tensor *tensor);   /* elements */
int64_t anex_tensor_nbytes(const anex_tensor *tensor); /* bytes of the elements, without padding */
int64_t anex_tensor_extent(const anex_tensor *tensor); /* bytes from the first to past the last */
bool anex_tensor_is_packed(const anex_tensor *tensor);

/* Copy element by element, whatever the strides; converts between float16 and float32 only. */
anex_status anex_tensor_copy(const anex_tensor *to, const anex_tensor *from, anex_error *error);

/* Counted memory: aligned and zeroed, or somebody else's with a function to give it back. */
typedef struct anex_memory anex_memory;
anex_status anex_memory_new(size_t bytes, anex_memory **memory, anex_error *error);
anex_status anex_memory_wrap(void *data, void (*give_back)(void *owner), void *owner, anex_memory **memory,
                             anex_error *error);
void *anex_memory_data(const anex_memory *memory);
anex_memory *anex_memory_retain(anex_memory *memory);
void anex_memory_release(anex_memory *memory);

/* ---- the CPU engine ----------------------------------------------------------------------- */

/* A plan: values (inputs, constants, what ops make) and the ops between them, added in order.
   Constants given to a plan must stay where they are until it is finished. */
typedef struct anex_plan anex_plan;
typedef int32_t anex_value; /* -1: an argument left out */

typedef struct anex_kernel_info {
    const char *op;     /* the MIL op */
    const char *inputs; /* names of its MIL inputs, in the kernel's order, separated by spaces */
    uint32_t dtypes;    /* 1 << anex_dtype of the first input */
} anex_kernel_info;

const anex_kernel_info *anex_kernel_list(int32_t *count);
int32_t anex_isa_list(const char **names, int32_t room); /* usable here, the best one first */

/* `isa` NULL: the best this machine has. */
anex_status anex_plan_new(const char *isa, anex_plan **plan, anex_error *error);
void anex_plan_free(anex_plan *plan);
anex_status anex_plan_input(anex_plan *plan, anex_dtype dtype, int32_t rank, const int64_t *shape, anex_value *value,
                            anex_error *error);
/* What an op will make. */
anex_status anex_plan_value(anex_plan *plan, anex_dtype dtype, int32_t rank, const int64_t *shape, anex_value *value,
                            anex_error *error);
anex_status anex_plan_constant(anex_plan *plan, const anex_tensor *tensor, anex_value *value, anex_error *error);

/* One op: `inputs` in the kernel's order; `list` holds the tensors of a variadic input ("values").
   `through`: -1, or an input that no other op reads and that is no output of the program. If the op added
   last makes it, and both ops can, they become one node: the value is never stored, nor rounded. */
anex_status anex_plan_op(anex_plan *plan, const char *op, const char *name, int32_t n_inputs, const anex_value *inputs,
                         int32_t n_list, const anex_value *list, int32_t n_outputs, const anex_value *outputs,
                         anex_value through, anex_error *error);
/* An op with blocks: finished plans that take `list` as inputs. They belong to `plan` if this succeeds. */
anex_status anex_plan_control(anex_plan *plan, const char *op, const char *name, int32_t n_inputs,
                              const anex_value *inputs, int32_t n_list, const anex_value *list, int32_t n_outputs,
                              const anex_value *outputs, int32_t n_blocks, anex_plan *const *blocks,
                              anex_error *error);
anex_status anex_plan_finish(anex_plan *plan, int32_t n_outputs, const anex_value *outputs, anex_error *error);
const anex_tensor *anex_plan_tensor(const anex_plan *plan, anex_value value); /* shape and dtype of a value */

typedef struct anex_plan_stats {
    int64_t nodes;           /* ops that run; views and folded ops do not */
    int64_t arena_bytes;     /* intermediate tensors, placed by lifetime */
    int64_t packed_bytes;    /* constants in the kernels' own layout */
    int64_t live_bytes_peak; /* largest sum of tensors alive at one op: no placement can need less */
} anex_plan_stats;
anex_plan_stats anex_plan_get_stats(const anex_plan *plan);

/* Run a finished plan, inputs in the order they were added. Any number of threads may do so at once.
   Tensors must have the shapes and dtypes of the values; layouts other than packed are copied on the
   way in and out. */
anex_status anex_plan_run(anex_plan *plan, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                          anex_error *error);

/* The same, timed: seconds[i] becomes the wall time of node i, for as many nodes as the stats count. */
anex_status anex_plan_profile(anex_plan *plan, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                              double *seconds, anex_error *error);

typedef struct anex_node_info { /* texts live as long as the plan */
    const char *op;             /* the MIL op, or the engine's own anex_copy */
    const char *name;           /* as MIL has it */
    int64_t output_bytes;
} anex_node_info;
anex_node_info anex_plan_get_node(const anex_plan *plan, int32_t node);

/* What the processor can do at most with the threads set now; measuring takes some 50 ms. */
typedef struct anex_limits {
    double flops_per_second; /* multiply-adds of float32, in registers */
    double bytes_per_second; /* read and written, copying what no cache holds */
} anex_limits;
anex_status anex_measure_limits(anex_limits *limits, anex_error *error);

void anex_set_num_threads(int32_t threads); /* at least 1 */
int32_t anex_get_num_threads(void);

#ifdef __cplusplus
}
#endif
#endif
