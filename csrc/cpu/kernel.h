/* What a kernel is, and what it may use.

   A kernel is one function, ANEX_KERNEL(softmax), called once when a program is compiled. It sees
   MIL's inputs in the order of its row in kernels.inc, checks them, packs the constant ones, and
   describes the work as stages: `tasks` independent pieces each, done by one function on a range of
   tasks. The engine runs the stages one after the other, cutting each into ranges for its threads
   when that pays; results never depend on the cut. While it runs a kernel allocates nothing: it has
   `scratch` per worker and `shared` per run. Kernel files are built once per instruction set. */
#ifndef ANEX_KERNEL_H
#define ANEX_KERNEL_H

#include "../anex.h"

#include <stdatomic.h>

#define ANEX_MAX_INPUTS 20 /* lstm has 17 */
#define ANEX_MAX_STAGES 3
#define ANEX_MAP_OPERANDS 3 /* of an elementwise op */

typedef struct anex_node anex_node;
typedef struct anex_epilogue anex_epilogue;

typedef struct anex_slice {
    int64_t begin, end; /* the tasks to do */
    void *scratch;      /* node->scratch bytes of this worker's own, aligned, not cleared */
    void *shared;       /* node->shared bytes, the same for every worker and stage of the run */
    int32_t workers;    /* that a plan run from here may use: several only when this work was not cut */
    struct anex_fault *fault;
} anex_slice;

typedef void anex_work(const anex_node *node, const anex_slice *slice);

typedef struct anex_stage {
    anex_work *work;
    int64_t tasks;
    double cost; /* of one task in nanoseconds, roughly: small stages are not worth a thread */
    bool linked; /* a task is quicker after the one before it: a range for each thread, and no more */
} anex_stage;

/* What a node changed since somebody asked, in all runs together: how many values, and the largest magnitude of them. */
typedef struct anex_notes {
    _Atomic int64_t count;
    _Atomic uint32_t most; /* bits of a float16 */
} anex_notes;

struct anex_node {
    const char *op;
    const char *name;
    const anex_tensor *in[ANEX_MAX_INPUTS]; /* NULL: left out. While compiling, data is NULL unless constant */
    const anex_tensor *const *list;         /* the variadic input */
    anex_tensor *const *out;                /* always packed, as every `in` is */
    int32_t n_list, n_out;
    anex_plan *const *blocks; /* of cond and while_loop; their inputs are `list` */
    int32_t n_blocks;
    anex_node *onto; /* the node that makes in[through], which nobody else reads; NULL: there is none to join */
    int32_t through;

    /* written by the kernel */
    anex_stage stage[ANEX_MAX_STAGES];
    int32_t n_stages;
    bool strict;     /* the plan's: the same bits from every instruction set, whatever it costs; set before */
    bool dot;        /* the plan's: the processor has an instruction for products of int8; set before */
    bool view;       /* no work: out[0] is the memory of in[0], byte for byte */
    bool impure;     /* does more, or gives other values, each time: never folded */
    bool joined;     /* no node: the work is part of `onto` now, which makes out[0] */
    int8_t slot[ANEX_MAP_OPERANDS]; /* joined: in[i] is onto->in[slot[i]], or nowhere when negative */
    bool ends_float; /* the last stage hands its result to anex_epilogue_run before it is narrowed */
    bool ends_bytes; /* that epilogue may end in int32 lanes for an int8 or uint8 result */
    anex_epilogue *epilogue; /* what follows: ops that joined; the plan frees it */
    anex_epilogue *inner[2]; /* what follows products that others joined, in order; the plan frees them */
    uint32_t packed; /* bit i: in[i] was packed into `state`, its constant can go */
    size_t scratch, shared;
    anex_notes *notes; /* in `state`; NULL: it has none */
    anex_tensor *replaced[ANEX_MAX_INPUTS]; /* by anex_node_replace; the plan's, once the kernel has returned */
    void *state; /* from anex_node_state */
    size_t state_bytes;
    struct anex_store *store; /* the plan's: where `state` is from */
    int64_t once;        /* bytes of constants that it reads once a run, as they lie */
    bool streams;        /* all nodes of the plan read more so than caches hold; the plan sets it when it is finished */
};

/* Zeroed, aligned memory that lives as long as the plan; NULL (with `error` written) when there is none. */
void *anex_node_state(anex_node *node, size_t bytes, anex_error *error);
/* The same of unchosen values, for what is written whole */
void *anex_node_room(anex_node *node, size_t bytes, anex_error *error);
/* What was the state before another was asked for */
void anex_node_drop(const anex_node *node, void *state, size_t bytes);
/* A constant of the kernel's own in the place of in[i], of the same shape: its memory, to be filled; NULL: there is none. */
void *anex_node_replace(anex_node *node, int32_t i, anex_dtype dtype, anex_error *error);
void anex_add_stage(anex_node *node, anex_work *work, int64_t tasks, double cost);
/* The run failed (the first text is kept): for what only the data can show. */
void anex_fault_set(const anex_slice *slice, const anex_node *node, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
anex_status anex_node_fail(const anex_node *node, anex_error *error, anex_status status, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Run a block with threads that the caller has already. */
anex_status anex_plan_run_nested(anex_plan *plan, const anex_tensor *const *inputs, const anex_tensor *const *outputs,
                                 int32_t workers, anex_error *error);

/* ---- reading constant arguments ------------------------------------------------------------ */

static inline bool anex_is_constant(const anex_tensor *t) { return t && t->data; }
int64_t anex_item(const anex_tensor *t, int64_t i); /* element i of a packed integer or bool tensor */
double anex_real(const anex_tensor *t, int64_t i);  /* element i of any packed tensor */
static inline int64_t anex_int(const anex_tensor *t, int64_t otherwise) {
    return anex_is_constant(t) ? anex_item(t, 0) : otherwise;
}
static inline double anex_float(const anex_tensor *t, double otherwise) {
    return anex_is_constant(t) ? anex_real(t, 0) : otherwise;
}
static inline const char *anex_text(const anex_tensor *t, const char *otherwise) {
    return anex_is_constant(t) ? (const char *)t->data : otherwise;
}
/* INVALID unless each given argument whose bit is set is a constant. */
anex_status anex_need_constants(const anex_node *node, uint32_t inputs, anex_error *error);

static inline bool anex_is_float_dtype(anex_dtype dtype) { return dtype == ANEX_F16 || dtype == ANEX_F32; }
static inline bool anex_is_float(const anex_tensor *t) { return anex_is_float_dtype(t->dtype); }
static inline int32_t anex_axis(int64_t axis, int32_t rank) { return (int32_t)(axis < 0 ? axis + rank : axis); }
/* product of shape[from .. to-1] */
static inline int64_t anex_span(const anex_tensor *t, int32_t from, int32_t to) {
    int64_t n = 1;
    for (int32_t i = from; i < to; i++) n *= t->shape[i];
    return n;
}
static inline size_t anex_itemsize(const anex_tensor *t) { return (size_t)anex_dtypes[t->dtype].bits / 8; }
static inline int64_t anex_min(int64_t a, int64_t b) { return a < b ? a : b; }
static inline int64_t anex_max(int64_t a, int64_t b) { return a > b ? a : b; }
static inline size_t anex_align(size_t n) { return (n + ANEX_ALIGNMENT - 1) & ~(size_t)(ANEX_ALIGNMENT - 1); }

/* ---- one build per instruction set ---------------------------------------------------------- */

#ifndef ANEX_ISA
#define ANEX_ISA generic
#endif
#define ANEX_GLUE_(a, b) a##_##b
#define ANEX_GLUE(a, b) ANEX_GLUE_(a, b)
/* A function shared between kernel files, such as the matrix product, is named ANEX_LOCAL(name). */
#define ANEX_LOCAL(name) ANEX_GLUE(anex_##name, ANEX_ISA)
#define ANEX_KERNEL(name) anex_status ANEX_LOCAL(kernel_##name)(anex_node *node, anex_error *error)

typedef anex_status anex_kernel(anex_node *node, anex_error *error);

#endif
