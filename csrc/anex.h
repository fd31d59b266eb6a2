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

/* A view of memory: row-major with byte strides. 4-bit tensors are always packed. A dimension may be 0. */
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

/* Counted memory: aligned, `zeroed` or of unchosen values, or somebody else's with a function to give it back. */
typedef struct anex_memory anex_memory;
anex_status anex_memory_new(size_t bytes, bool zeroed, anex_memory **memory, anex_error *error);
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

/* `isa` NULL: the best this machine has. `strict`: every instruction set gives the same bits. */
anex_status anex_plan_new(const char *isa, bool strict, anex_plan **plan, anex_error *error);
void anex_plan_free(anex_plan *plan);
anex_status anex_plan_input(anex_plan *plan, anex_dtype dtype, int32_t rank, const int64_t *shape, anex_value *value,
                            anex_error *error);
/* What an op will make. */
anex_status anex_plan_value(anex_plan *plan, anex_dtype dtype, int32_t rank, const int64_t *shape, anex_value *value,
                            anex_error *error);
anex_status anex_plan_constant(anex_plan *plan, const anex_tensor *tensor, anex_value *value, anex_error *error);
/* The memory of this constant outlives the plan and never changes: what runs read is not copied. */
void anex_plan_lasting(anex_plan *plan, anex_value constant);

/* One op: `inputs` in the kernel's order; `list` holds the tensors of a variadic input ("values").
   `through`: -1, or an input that no other op reads and that is no output of the program. If the op added
   last makes it, and both ops can, they become one node: the value is never stored, nor rounded. An op whose
   results are all empty is no node. */
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

/* Whether a run of the finished plan on packed tensors should take a few microseconds at most. */
bool anex_plan_is_brief(const anex_plan *plan);

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

/* Nodes that do what the Neural Engine does to numbers (csrc/cpu/cliff.c) note the values that they changed. */
typedef struct anex_crossing {
    const char *op, *name; /* of the node; they live as long as the plan */
    int64_t count;         /* values changed */
    double most;           /* the largest magnitude among them */
} anex_crossing;
/* At most `room` nodes that changed something since they were last asked, nodes of blocks among them. They are asked. */
int32_t anex_plan_take_crossings(anex_plan *plan, anex_crossing *crossings, int32_t room);

/* What the processor can do at most with the threads set now; measuring takes some 50 ms. */
typedef struct anex_limits {
    double flops_per_second; /* multiply-adds of float32, in registers */
    double bytes_per_second; /* read and written, copying what no cache holds */
} anex_limits;
anex_status anex_measure_limits(anex_limits *limits, anex_error *error);

void anex_set_num_threads(int32_t threads); /* at least 1 */
int32_t anex_get_num_threads(void);

/* ---- optimizers --------------------------------------------------------------------------- */

typedef enum anex_rule {
    ANEX_SGD,   /* with momentum where there is a first moment */
    ANEX_ADAM,  /* weight decay is added to the gradient */
    ANEX_ADAMW, /* weight decay shrinks the weight */
    ANEX_SUM    /* weight += gradient; = in step 1 */
} anex_rule;

typedef struct anex_optimizer {
    anex_rule rule;
    bool nesterov;
    bool measures; /* the norm first: the step is left out where it is not finite */
    int64_t step;  /* from 1 on */
    double rate, beta1, beta2, epsilon; /* beta1: of SGD the momentum */
    double gradient_scale;              /* gradients are multiplied by it: 1 / loss scale */
    double clip;                        /* the most that the norm may be, if above 0; needs `measures` */
} anex_optimizer;

/* One tensor of weights, and what belongs to each of its elements: equal shapes, any strides. */
typedef struct anex_parameter {
    const char *name;                  /* for errors */
    const anex_tensor *weight;         /* float32, changed in place */
    const anex_tensor *gradient;       /* float16 or float32 */
    const anex_tensor *copy;           /* NULL, or float16: becomes the weight, rounded */
    const anex_tensor *first, *second; /* float32 moments; NULL where the rule has none */
    double weight_decay;
} anex_parameter;

/* Everything in one pass, or two with `measures`. `norm`: of all gradients, scaled (NaN if not measured);
   `applied`: whether it was finite, and the weights have changed. */
anex_status anex_optimizer_step(const anex_optimizer *optimizer, int32_t n, const anex_parameter *parameters,
                                double *norm, bool *applied, anex_error *error);

/* ---- the Neural Engine -------------------------------------------------------------------- */

/* All of it answers ANEX_UNSUPPORTED, with the reason, where the binding was not built (absent.c) or the
   framework is not there. Opened at first use, once per process. */
anex_status anex_ane_open(anex_error *error);
/* Opened already, and memory for tensors therefore made of IOSurfaces. */
bool anex_ane_is_open(void);

typedef struct anex_ane_device {
    bool has_ane, is_virtual_machine;
    uint32_t anes, cores; /* as the framework counts them */
    int64_t board_type;
    char architecture[32], subtype[32], variant[32], product[64], build[32]; /* "h13g": M1 */
    char framework[256];                                                   /* the file that was opened */
} anex_ane_device;
anex_status anex_ane_get_device(anex_ane_device *device, anex_error *error);

/* What the framework was expected to answer to (csrc/ane/selectors.inc), and what was found. */
typedef struct anex_ane_selector {
    const char *class_name, *name;
    char kind;            /* '+' or '-' */
    bool is_required;     /* without it device="ane" is unavailable */
    const char *expected; /* type encoding on arm64 macOS */
    char found[128];      /* "" where the class or the method is missing */
    bool has_class, fits; /* fits: same types; BOOL may be B, C or c, frame offsets are left out */
} anex_ane_selector;
int32_t anex_ane_selector_count(void);
anex_status anex_ane_get_selector(int32_t i, anex_ane_selector *selector, anex_error *error);

/* A compiled program. Programs of equal text and blobs share one identifier, and so one directory and cache entry. */
typedef struct anex_ane_program anex_ane_program;

typedef struct anex_ane_blob {
    const char *path; /* as BLOBFILE spells it: "@model_path/weights/weight.bin" */
    const void *data;
    size_t bytes;
} anex_ane_blob;

typedef enum anex_ane_way { ANEX_ANE_EVALUATE, ANEX_ANE_DIRECT, ANEX_ANE_REAL_TIME } anex_ane_way;

typedef struct anex_ane_options {
    uint32_t qos;             /* 21: default; 9: background; 33: user interactive */
    uint32_t perf_stats_mask; /* 0: none */
    anex_ane_way way;         /* which of the framework's evaluate methods; refused with a reason where it is missing */
    bool recompile;           /* do not look for a compiled program first */
} anex_ane_options;

anex_status anex_ane_compile(const char *text, size_t text_bytes, int32_t n_blobs, const anex_ane_blob *blobs,
                             const anex_ane_options *options, anex_ane_program **program, anex_error *error);
/* Runs under way finish first. Unloads, cleans up, gives the surfaces back; the cache entry stays. */
void anex_ane_free(anex_ane_program *program);
anex_status anex_ane_unload(anex_ane_program *program, anex_error *error); /* the next run loads it again */
void anex_ane_keep(anex_ane_program *program, bool keep);                  /* never unload it for others */

typedef struct anex_ane_info {
    char identifier[256];
    bool is_loaded, was_cached; /* cached: not compiled by this program */
    int32_t queue_depth;
    uint64_t program_handle, intermediate_buffer_handle;
    double compile_seconds, load_seconds; /* of the last time */
    int64_t evaluations, loads, requests_built;
} anex_ane_info;
void anex_ane_get_info(anex_ane_program *program, anex_ane_info *info);

/* One function of a program and where its inputs and outputs go. `inputs` and `outputs` hold name, shape and
   dtype as MIL declares them, in the order of the caller; bind() finds each by name in the compiled program's
   symbol tables, and fails where those say something else. */
typedef struct anex_ane_port {
    const char *name;
    anex_tensor tensor; /* in: shape, dtype. out: strides, as the loaded program wants them */
    int64_t bytes;      /* out: the least size of the surface */
    int32_t symbol;     /* out: index in the symbol table */
} anex_ane_port;

typedef struct anex_ane_function anex_ane_function;
anex_status anex_ane_bind(anex_ane_program *program, const char *name, int32_t n_inputs, anex_ane_port *inputs,
                          int32_t n_outputs, anex_ane_port *outputs, anex_ane_function **function, anex_error *error);
void anex_ane_function_free(anex_ane_function *function); /* before the program */

/* Run on memory of surfaces, each at least as large as its port asks and laid out by its strides.
   Requests are kept per set of memories, and go when one of the memories does. Runs of one program wait for
   each other. `memories`: the inputs, then the outputs. */
anex_status anex_ane_run(anex_ane_function *function, anex_memory *const *memories, anex_error *error);

/* Up to the queue depth at once, then UNAVAILABLE is not an error but a wait. `done` is called once, on a thread
   of the framework, unless submit fails. The memories are kept until then. */
typedef void anex_ane_done(void *context, anex_status status, const anex_error *error);
anex_status anex_ane_submit(anex_ane_function *function, anex_memory *const *memories, anex_ane_done *done,
                            void *context, anex_error *error);

/* What the hardware says of one run; best effort: `has_stats` false where it says nothing. */
enum { ANEX_ANE_COUNTERS = 29 };
typedef struct anex_ane_stats {
    bool has_stats;
    uint64_t hardware_ns;
    int32_t n_counters;
    uint64_t counters[ANEX_ANE_COUNTERS];
} anex_ane_stats;
anex_status anex_ane_run_measured(anex_ane_function *function, anex_memory *const *memories, anex_ane_stats *stats,
                                  anex_error *error);
const char *anex_ane_counter_name(int32_t i);

/* The process's account with the framework. Setting a limit to 0 turns it off. */
typedef struct anex_ane_account {
    int32_t compiles, compile_limit; /* compilations cannot be given back */
    int32_t loaded, load_limit;      /* above it the least recently used program is unloaded */
    int64_t cache_hits, load_retries, evictions;
} anex_ane_account;
anex_ane_account anex_ane_get_account(void);
void anex_ane_set_limits(int32_t compile_limit, int32_t load_limit);

/* The compiled programs that outlive the process, by identifier. */
anex_status anex_ane_cache_has(const char *identifier, bool *has, anex_error *error);
anex_status anex_ane_cache_purge(const char *identifier, anex_error *error);

/* Surfaces by number, for other processes: see `anex_memory_surface_id`. */
uint32_t anex_memory_surface_id(const anex_memory *memory); /* 0: plain memory */
anex_status anex_memory_of_surface(uint32_t id, anex_memory **memory, anex_error *error);
/* Begin and end of access by the processor, which surfaces must be told of; plain memory costs one comparison. */
void anex_memory_lock(anex_memory *memory);
void anex_memory_unlock(anex_memory *memory);
size_t anex_memory_bytes(const anex_memory *memory);

/* ---- the Neural Engine, one message at a time --------------------------------------------- */

/* For `anex selftest`, which asks what the framework itself does: nothing here is counted, kept, retried or
   corrected. What a method answered, or threw, is an answer and no failure. */
typedef struct anex_ane_answer {
    bool yes, raised; /* what it returned; or it threw, and `domain` is the exception's name */
    double seconds;   /* inside it */
    int64_t code;     /* of the NSError; 0 without one */
    char domain[64], text[512];
} anex_ane_answer;

typedef struct anex_ane_raw anex_ane_raw; /* one in-memory model, not compiled */
/* `*raw` NULL where the framework gives no model. `nil_weights`: nil in place of the dictionary of blobs. */
anex_status anex_ane_raw_new(const char *text, size_t text_bytes, int32_t n_blobs, const anex_ane_blob *blobs,
                             bool nil_weights, anex_ane_raw **raw, anex_ane_answer *answer, anex_error *error);
void anex_ane_raw_free(anex_ane_raw *raw); /* unloads, and removes its folder */

typedef enum anex_ane_message {
    ANEX_ANE_SEND_COMPILE,
    ANEX_ANE_SEND_LOAD,
    ANEX_ANE_SEND_UNLOAD,
    ANEX_ANE_SEND_EXISTS, /* compiledModelExists */
    ANEX_ANE_SEND_PURGE,
    ANEX_ANE_SEND_BEGIN_REAL_TIME,
    ANEX_ANE_SEND_END_REAL_TIME
} anex_ane_message;
void anex_ane_raw_send(anex_ane_raw *raw, anex_ane_message message, uint32_t qos, anex_ane_answer *answer);

typedef struct anex_ane_raw_state {
    char identifier[256], folder[1024]; /* the folder is the caller's to make */
    uint64_t program_handle, intermediate_buffer_handle, state;
    int32_t queue_depth;
} anex_ane_raw_state;
void anex_ane_raw_get_state(anex_ane_raw *raw, anex_ane_raw_state *state);
/* modelAttributes as JSON, if it fits; the bytes it has, 0 where there are none. */
size_t anex_ane_raw_attributes(anex_ane_raw *raw, char *json, size_t room);

/* A surface of exactly so many bytes. */
anex_status anex_ane_raw_surface(size_t bytes, anex_memory **memory, anex_error *error);
typedef struct anex_ane_raw_slot {
    anex_memory *memory; /* a surface */
    int32_t symbol;
} anex_ane_raw_slot;
typedef enum anex_ane_raw_way {
    ANEX_ANE_RAW_EVALUATE,
    ANEX_ANE_RAW_DIRECT,
    ANEX_ANE_RAW_REAL_TIME,
    ANEX_ANE_RAW_VALIDATE, /* only asks the request whether it is valid */
    ANEX_ANE_RAW_MAP       /* maps the surfaces, and unmaps them */
} anex_ane_raw_way;
typedef struct anex_ane_raw_run {
    int32_t n_inputs, n_outputs;
    const anex_ane_raw_slot *inputs, *outputs;
    anex_memory *weights; /* a weights buffer, or NULL; of a chain: for its statistics */
    int32_t procedure;
    uint32_t qos;
    anex_ane_raw_way way;
} anex_ane_raw_run;
void anex_ane_raw_evaluate(anex_ane_raw *raw, const anex_ane_raw_run *run, anex_ane_answer *answer);
/* Prepare a chain from the first output back to the first input. */
void anex_ane_raw_chain(anex_ane_raw *raw, const anex_ane_raw_run *run, anex_ane_answer *answer);

typedef struct anex_ane_qos {
    const char *name;
    uint32_t value;
} anex_ane_qos;
/* The framework's QoS classes, six at most; the framework must be open. */
int32_t anex_ane_raw_qos(anex_ane_qos *classes, int32_t room, anex_ane_answer *answer);

#ifdef __cplusplus
}
#endif
#endif
