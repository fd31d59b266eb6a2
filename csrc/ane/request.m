/* Functions, and the requests that bind memories to their symbols. */
#import "internal.h"

#include <stdlib.h>
#include <string.h>

enum { MOST_PORTS = 255, MOST_BOUND = 32 }; /* the framework's limit; ours, per function */

struct anex_ane_bound {
    id<ANERequest> request;
    anex_memory *memories[]; /* not retained: the request goes when one of them does */
};

static anex_ane_function *functions; /* all; with the table */

/* ---- bind -------------------------------------------------------------------------------------------------- */

static anex_status check_ports(int32_t n, const anex_ane_port *ports, const char *side, anex_error *error) {
    if (n < 1 || n > MOST_PORTS || !ports)
        return anex_fail(error, ANEX_UNSUPPORTED, "a function with %d %s; the Neural Engine takes 1 to %d", n, side,
                         MOST_PORTS);
    for (int32_t i = 0; i < n; i++) {
        const anex_tensor *t = &ports[i].tensor;
        if (!ports[i].name || !*ports[i].name)
            return anex_fail(error, ANEX_ARGUMENT, "number %d of the %s has no name", i, side);
        if (t->rank < 0 || t->rank > ANEX_MAX_RANK || (int)t->dtype < 0 || t->dtype >= ANEX_DTYPE_COUNT)
            return anex_fail(error, ANEX_ARGUMENT, "%s has no rank or no dtype", ports[i].name);
        if (anex_dtypes[t->dtype].bits < 8)
            return anex_fail(error, ANEX_DTYPE, "%s is of dtype %s, which no surface holds", ports[i].name,
                             anex_dtypes[t->dtype].name);
        for (int32_t j = 0; j < i; j++)
            if (!strcmp(ports[i].name, ports[j].name))
                return anex_fail(error, ANEX_ARGUMENT, "%s stands twice among the %s", ports[i].name, side);
    }
    return ANEX_OK;
}

static anex_status read_ports(anex_ane_program *program, const char *name, int32_t n_inputs, anex_ane_port *inputs,
                              int32_t n_outputs, anex_ane_port *outputs, int32_t *procedure, anex_error *error) {
    @try {
        return anex_ane_read_ports([program->model modelAttributes], name, n_inputs, inputs, n_outputs, outputs,
                                   procedure, error);
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "reading the loaded program's attributes", exception);
    }
}

static NSArray *new_indices(int32_t n, const anex_ane_port *ports) {
    NSMutableArray *indices = [[NSMutableArray alloc] initWithCapacity:(NSUInteger)n];
    for (int32_t i = 0; i < n; i++) [indices addObject:[NSNumber numberWithInt:ports[i].symbol]];
    return indices;
}

static void free_function(anex_ane_function *f) {
    [f->input_indices release];
    [f->output_indices release];
    [f->procedure release];
    for (int32_t i = 0; f->names && i < f->n_memories; i++) free(f->names[i]);
    free(f->names);
    free(f->bytes);
    free(f->bound);
    free(f);
}

static anex_ane_function *new_function(int32_t n_inputs, const anex_ane_port *inputs, int32_t n_outputs,
                                       const anex_ane_port *outputs, int32_t procedure) {
    anex_ane_function *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->n_inputs = n_inputs, f->n_memories = n_inputs + n_outputs;
    f->bytes = calloc((size_t)f->n_memories, sizeof *f->bytes);
    f->names = calloc((size_t)f->n_memories, sizeof *f->names);
    f->bound = calloc(MOST_BOUND, sizeof *f->bound);
    bool is_whole = f->bytes && f->names && f->bound;
    for (int32_t i = 0; is_whole && i < f->n_memories; i++) {
        const anex_ane_port *port = i < n_inputs ? &inputs[i] : &outputs[i - n_inputs];
        f->bytes[i] = port->bytes;
        is_whole = (f->names[i] = strdup(port->name)) != NULL;
    }
    if (!is_whole) {
        free_function(f);
        return NULL;
    }
    f->input_indices = new_indices(n_inputs, inputs);
    f->output_indices = new_indices(n_outputs, outputs);
    f->procedure = [[NSNumber alloc] initWithInt:procedure];
    return f;
}

/* With the program's mutex. */
static anex_status bind_loaded(anex_ane_program *program, const char *name, int32_t n_inputs, anex_ane_port *inputs,
                               int32_t n_outputs, anex_ane_port *outputs, anex_ane_function **function,
                               anex_error *error) {
    int32_t procedure;
    anex_status status = anex_ane_ensure_loaded(program, error);
    if (!status)
        status = read_ports(program, name, n_inputs, inputs, n_outputs, outputs, &procedure, error);
    if (status) return status;
    anex_ane_function *f = new_function(n_inputs, inputs, n_outputs, outputs, procedure);
    if (!f) return anex_fail(error, ANEX_MEMORY, "out of memory");
    f->program = program;
    f->next = program->functions, program->functions = f;
    pthread_mutex_lock(&anex_ane_table);
    f->next_all = functions, functions = f;
    pthread_mutex_unlock(&anex_ane_table);
    *function = f;
    return ANEX_OK;
}

anex_status anex_ane_bind(anex_ane_program *program, const char *name, int32_t n_inputs, anex_ane_port *inputs,
                          int32_t n_outputs, anex_ane_port *outputs, anex_ane_function **function, anex_error *error) {
    if (!program || !function)
        return anex_fail(error, ANEX_ARGUMENT, "no program to bind, or no place for the function");
    *function = NULL;
    anex_status status = check_ports(n_inputs, inputs, "inputs", error);
    if (!status) status = check_ports(n_outputs, outputs, "outputs", error);
    if (status) return status;
    pthread_mutex_lock(&program->mutex);
    @autoreleasepool {
        status = bind_loaded(program, name, n_inputs, inputs, n_outputs, outputs, function, error);
    }
    pthread_mutex_unlock(&program->mutex);
    anex_ane_tell_idle();
    return status;
}

void anex_ane_function_free(anex_ane_function *function) {
    if (!function) return;
    anex_ane_program *program = function->program;
    pthread_mutex_lock(&program->mutex);
    anex_ane_function **place = &program->functions;
    while (*place && *place != function) place = &(*place)->next;
    if (*place) *place = function->next;
    @autoreleasepool {
        anex_ane_drop_requests(function);
        pthread_mutex_lock(&anex_ane_table);
        place = &functions;
        while (*place && *place != function) place = &(*place)->next_all;
        if (*place) *place = function->next_all;
        pthread_mutex_unlock(&anex_ane_table);
        free_function(function);
    }
    pthread_mutex_unlock(&program->mutex);
}

/* ---- requests ---------------------------------------------------------------------------------------------- */

static anex_status check_memories(const anex_ane_function *f, anex_memory *const *memories, anex_error *error) {
    for (int32_t i = 0; i < f->n_memories; i++) {
        const char *side = i < f->n_inputs ? "input" : "output";
        if (!memories[i]) return anex_fail(error, ANEX_ARGUMENT, "%s %s is missing", side, f->names[i]);
        if (!memories[i]->surface)
            return anex_fail(error, ANEX_ARGUMENT,
                             "%s %s is not in an IOSurface: it was made before the Neural Engine was opened, or it is "
                             "somebody else's memory; copy it to a tensor made now",
                             side, f->names[i]);
        if (memories[i]->bytes < (size_t)f->bytes[i])
            return anex_fail(error, ANEX_SHAPE, "%s %s is in a surface of %zu bytes; the program needs %lld", side,
                             f->names[i], memories[i]->bytes, (long long)f->bytes[i]);
    }
    return ANEX_OK;
}

static NSArray *wrap(anex_memory *const *memories, int32_t n) {
    NSMutableArray *objects = [NSMutableArray arrayWithCapacity:(NSUInteger)n];
    for (int32_t i = 0; i < n; i++) {
        id object = [anex_ane.surface_objects objectWithIOSurface:anex_surface_ref(memories[i]->surface)];
        if (!object) return nil;
        [objects addObject:object];
    }
    return objects;
}

anex_status anex_ane_build_request(anex_ane_function *f, anex_memory *const *memories, NSArray *stats,
                                   id<ANERequest> *request, anex_error *error) {
    anex_status status = check_memories(f, memories, error);
    if (status) return status;
    @try {
        NSArray *inputs = wrap(memories, f->n_inputs);
        NSArray *outputs = wrap(memories + f->n_inputs, f->n_memories - f->n_inputs);
        if (!inputs || !outputs)
            return anex_ane_fail(error, ANEX_DEVICE, "wrapping a surface", nil, "it takes no such surface");
        id<ANERequest> made = [anex_ane.requests requestWithInputs:inputs
                                                      inputIndices:f->input_indices
                                                           outputs:outputs
                                                     outputIndices:f->output_indices
                                                     weightsBuffer:nil
                                                         perfStats:stats
                                                    procedureIndex:f->procedure];
        if (!made)
            return anex_ane_fail(error, ANEX_DEVICE, "making a request", nil, "it dislikes a surface or an index");
        if ([made respondsToSelector:@selector(validate)] && ![made validate])
            return anex_ane_fail(error, ANEX_DEVICE, "validating a request", nil,
                                 "too many tensors, or an index beyond what it allows");
        *request = [made retain];
        f->program->info.requests_built++;
        return ANEX_OK;
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "making a request", exception);
    }
}

/* ---- the cache of requests: all with the table ------------------------------------------------------------- */

static void count_request(const anex_ane_function *f, anex_memory *const *memories, int32_t change) {
    for (int32_t i = 0; i < f->n_memories; i++) *anex_surface_requests(memories[i]->surface) += change;
}

static void forget(anex_ane_function *f, int32_t i) {
    struct anex_ane_bound *b = f->bound[i];
    f->n_bound--;
    memmove(f->bound + i, f->bound + i + 1, sizeof *f->bound * (size_t)(f->n_bound - i));
    count_request(f, b->memories, -1);
    @try {
        [b->request release];
    } @catch (NSException *exception) {
        (void)exception; /* it is not ours any longer either way */
    }
    free(b);
}

id<ANERequest> anex_ane_find_request(anex_ane_function *f, anex_memory *const *memories) {
    for (int32_t i = 0; i < f->n_bound; i++) {
        struct anex_ane_bound *b = f->bound[i];
        if (memcmp(b->memories, memories, sizeof *memories * (size_t)f->n_memories)) continue;
        if (i) {
            memmove(f->bound + 1, f->bound, sizeof *f->bound * (size_t)i);
            f->bound[0] = b;
        }
        return b->request;
    }
    return nil;
}

anex_status anex_ane_keep_request(anex_ane_function *f, anex_memory *const *memories, id<ANERequest> request,
                                  anex_error *error) {
    size_t bytes = sizeof *memories * (size_t)f->n_memories;
    struct anex_ane_bound *b = malloc(sizeof *b + bytes);
    if (!b) return anex_fail(error, ANEX_MEMORY, "out of memory");
    b->request = request;
    memcpy(b->memories, memories, bytes);
    if (f->n_bound == MOST_BOUND) forget(f, MOST_BOUND - 1);
    memmove(f->bound + 1, f->bound, sizeof *f->bound * (size_t)f->n_bound);
    f->bound[0] = b, f->n_bound++;
    count_request(f, memories, 1);
    return ANEX_OK;
}

void anex_ane_drop_requests(anex_ane_function *f) {
    pthread_mutex_lock(&anex_ane_table);
    while (f->n_bound) forget(f, f->n_bound - 1);
    pthread_mutex_unlock(&anex_ane_table);
}

void anex_ane_drop_requests_on(const anex_memory *memory) {
    for (anex_ane_function *f = functions; f; f = f->next_all)
        for (int32_t i = f->n_bound; i-- > 0;)
            for (int32_t k = 0; k < f->n_memories; k++)
                if (f->bound[i]->memories[k] == memory) {
                    forget(f, i);
                    break;
                }
}
