/* The inside of a plan, shared by the half that makes it and the half that runs it. */
#ifndef ANEX_PLAN_H
#define ANEX_PLAN_H

#include "isa.h"
#include "store.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    NOWHERE = -1,
    KEPT = 16,            /* contexts kept for the next run; more only while more runs go on at once */
    WORTH_SHARING = 20000, /* nanoseconds of work: below, waking a thread costs more than it brings */
    BRIEF = 3000           /* nanoseconds of a whole run: below, giving back what the caller holds is not worth it */
};

typedef enum value_kind { TEMPORARY, CONSTANT, INPUT, OUTPUT } value_kind;

typedef struct value {
    anex_tensor tensor; /* data: of a constant only */
    anex_value root;    /* the value whose memory this one views, or itself */
    value_kind kind;    /* of a root */
    int32_t binding;    /* INPUT, OUTPUT: which */
    int64_t offset;     /* TEMPORARY: bytes from the start of the arena */
    bool made;          /* somebody gives it a value */
    bool owned;         /* the plan allocated data */
    bool needed;        /* CONSTANT: read while running */
    bool lasting;       /* CONSTANT: somebody else's memory that stays */
} value;

/* Values by number instead of by pointer: every context has its own tensors. */
typedef struct plan_node {
    anex_node node; /* in, list and out are filled per context */
    anex_value in[ANEX_MAX_INPUTS];
    anex_value *list, *out;
    anex_plan **blocks;
} plan_node;

/* What one run needs for itself; kept for the next one. */
typedef struct context {
    anex_tensor *tensors; /* one per value */
    anex_node *nodes;
    const anex_tensor **pointers; /* the nodes' list and out arrays */
    char *arena, *shared, *scratch;
    int32_t workers; /* that `scratch` has room for */
    void **bounce;   /* per input and output: packed memory for tensors of other layouts */
} context;

struct anex_plan {
    const anex_isa *isa;
    bool strict;
    value *values;
    int32_t n_values, value_room;
    plan_node *nodes;
    int32_t n_nodes, node_room;
    anex_value *outputs;
    int32_t n_inputs, n_outputs;
    int32_t *bound; /* values whose data is an input's or output's, views included */
    int32_t n_bound;
    anex_store store; /* of the nodes' states */
    int64_t arena_bytes, live_peak, packed_bytes;
    size_t scratch, shared; /* the largest of any node */
    bool shares; /* some stage is worth more than one thread */
    _Atomic(context *) idle[KEPT];
};

static inline bool worth_sharing(const anex_stage *stage) {
    return stage->tasks > 1 && stage->cost * (double)stage->tasks >= WORTH_SHARING;
}

/* Cut off at the first failure of a run. */
typedef struct anex_fault {
    pthread_mutex_t lock;
    bool set;
    anex_error error;
} anex_fault;

/* Do all stages of a node with one thread or, when `workers` > 1, with that many of the pool. */
void anex_node_run(const anex_node *node, int32_t workers, char *scratch, size_t scratch_step, void *shared,
                   anex_fault *fault);
void anex_context_free(anex_plan *plan, context *c);
/* Where each temporary value lives: fills in offsets, arena_bytes and live_peak. */
anex_status anex_place(anex_plan *plan, anex_error *error);

#endif
