/* What the files of the evaluator share. Everything of a program lives in its arena and goes with it. */
#ifndef FAKE_ANE_MIL_H
#define FAKE_ANE_MIL_H

#include "interpreter.h"

enum { MIL_MAX_DEPTH = 32 }; /* of nested types and literals */

typedef struct mil_scalar {
    const char *name;
    char kind;    /* f(loat), i(nt), u(nsigned), b(ool), s(tring) */
    int32_t bits; /* of an element in a weight file */
    int32_t blob; /* its data type there; 0: never there */
    int32_t dtype; /* anex_dtype of its values, sub-byte ones unpacked; -1: there are none */
} mil_scalar;

typedef enum mil_kind { MIL_TENSOR, MIL_STATE, MIL_OTHER } mil_kind; /* other: list, tuple, dict */

typedef struct mil_type {
    mil_kind kind;
    const mil_scalar *scalar;
    int32_t rank;
    int64_t shape[ANEX_MAX_RANK]; /* -1: ? */
} mil_type;

typedef struct mil_value {
    struct mil_value *next; /* in its bucket */
    const char *name;
    anex_tensor tensor; /* data: of a constant, else NULL */
    int32_t index;      /* among the values of a run; -1: a constant */
    int32_t last_use;   /* the last op that reads it */
    bool is_state, is_opaque; /* opaque: a list, tuple or dict, which no op takes */
} mil_value;

typedef struct mil_argument {
    struct mil_argument *next;
    const char *name;
    mil_value **values;
    int32_t n;
    bool is_list;
} mil_argument;

typedef enum mil_trait { MIL_PLAIN, MIL_REDUCE, MIL_MATMUL, MIL_SLICE, MIL_ATTENTION } mil_trait;

typedef struct mil_op {
    struct mil_op *next;
    const char *type, *name;
    int32_t line;
    mil_argument *arguments;
    mil_value **results;
    mil_value **inputs; /* of the plan, in its order: what is not constant */
    int32_t n_results, n_inputs;
    anex_plan *plan;     /* NULL: known when parsed, its results are constants */
    anex_plan *unmasked; /* of attention with a mask: the same without */
    int32_t mask;        /* which input that is; -1: a constant */
    mil_trait trait;     /* what mil_numerics may change */
} mil_op;

enum { MIL_BUCKETS = 1024 };

typedef struct mil_function {
    struct mil_function *next;
    const char *name;
    mil_value **ports[2]; /* inputs, outputs */
    int32_t n_ports[2];
    mil_op **ops;
    int32_t n_ops, n_values;
    int32_t most_inputs, most_results; /* of one op */
    mil_value *names[MIL_BUCKETS];
} mil_function;

typedef struct mil_memory mil_memory;

struct mil_program {
    mil_memory *memory;
    mil_function **functions;
    int32_t n_functions;
};

typedef enum mil_token_kind { MIL_END, MIL_WORD, MIL_NUMBER, MIL_TEXT, MIL_SIGN, MIL_ARROW } mil_token_kind;

typedef struct mil_token {
    mil_token_kind kind;
    const char *start; /* of a text: after the quote */
    size_t length;
    int32_t line;
} mil_token;

/* Once something has failed the only token left is MIL_END, so that every loop ends. */
typedef struct mil_parser {
    const char *at, *end;
    int32_t line, depth;
    mil_token token; /* the one to look at */
    bool failed;
    char *error;
    size_t room;
    const mil_file *files;
    int32_t n_files;
    mil_program *program;
    mil_function *function;
} mil_parser;

/* mil_lexer.c */
void mil_fail(mil_parser *p, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *mil_new(mil_parser *p, size_t bytes); /* zeroed, aligned to 64 bytes; NULL after a failure */
void mil_memory_free(mil_memory *memory);
void mil_next(mil_parser *p);
bool mil_sees(const mil_parser *p, char sign);
bool mil_sees_word(const mil_parser *p, const char *word);
bool mil_accept(mil_parser *p, char sign);
void mil_expect(mil_parser *p, char sign);
void mil_expect_word(mil_parser *p, const char *word);
char *mil_word(mil_parser *p); /* "" after a failure, as the next one */
char *mil_text(mil_parser *p);
const char *mil_shown(const mil_parser *p); /* the token, for messages */

/* mil_value.c */
mil_type mil_read_type(mil_parser *p);
bool mil_is_type_word(const mil_parser *p);
mil_value *mil_read_value(mil_parser *p); /* type(literal); NULL after a failure */
void mil_tensor_of(mil_parser *p, const mil_type *type, const char *of, anex_tensor *tensor);

/* mil_blob.c: the elements of `tensor`, at the record `offset` of the file */
void mil_read_blob(mil_parser *p, const char *path, uint64_t offset, const mil_scalar *scalar, anex_tensor *tensor);

/* mil_plan.c */
void mil_plan_op(mil_parser *p, mil_op *op);
mil_value *mil_argument_of(const mil_op *op, const char *name); /* NULL: left out, or a list */

/* mil_check.c: that the types of the results are those the op gives. `first`: its first argument */
typedef enum mil_rule {
    MIL_SAME,    /* as the first argument */
    MIL_PAIR,    /* x and y broadcast */
    MIL_TRUTH,   /* the same, as bool */
    MIL_SELECT, MIL_SHAPED, /* shaped: of another dtype */
    MIL_AXES, MIL_AXIS,     /* reduced */
    MIL_PRODUCT, MIL_LINEAR, MIL_CONV, MIL_POOL,
    MIL_VIEW,    /* as many elements */
    MIL_TURN, MIL_CONCAT, MIL_STACK, MIL_SPLIT, MIL_INDEX, MIL_SIZE, MIL_PAD, MIL_TILE,
    MIL_EINSUM, MIL_ATTEND, MIL_TO_SPACE, MIL_TO_DEPTH, MIL_FROM_BATCH, MIL_TO_BATCH, MIL_SAMPLE, MIL_WINDOWS,
    MIL_ALONG, MIL_TOPK, MIL_SUPPRESS, MIL_RANK, MIL_RECURRENT,
    MIL_KERNEL,  /* left to the kernel */
} mil_rule;
void mil_check_op(mil_parser *p, const mil_op *op, mil_rule rule, const char *first, int32_t results);

/* mil_numerics.c: one op, its arithmetic bent as asked for */
anex_status mil_run_op(const mil_op *op, const anex_tensor **inputs, const anex_tensor *const *outputs,
                       const mil_numerics *numerics, anex_error *error);

#endif
