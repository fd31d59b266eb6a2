/* Running a function: at once, measured, or submitted with somebody to call when it is done. */
#import "internal.h"

#include <Block.h>
#include <stdlib.h>
#include <string.h>

static const char EVALUATING[] = "evaluating on the Neural Engine";

/* ---- the message ------------------------------------------------------------------------------------------- */

static BOOL evaluate(anex_ane_program *p, id<ANERequest> request, NSError **why) {
    switch (p->options.way) {
    case ANEX_ANE_DIRECT:
        return [p->client doEvaluateDirectWithModel:p->model
                                            options:p->run_options
                                            request:request
                                                qos:p->options.qos
                                              error:why];
    case ANEX_ANE_REAL_TIME:
        return [p->client evaluateRealTimeWithModel:p->model options:p->run_options request:request error:why];
    default:
        return [p->model evaluateWithQoS:p->options.qos options:p->run_options request:request error:why];
    }
}

static anex_status fail_evaluate(anex_ane_program *p, NSError *why, anex_error *error) {
    if (anex_ane_was_forgotten(why)) atomic_store(&p->is_forgotten, true);
    return anex_ane_fail(error, ANEX_DEVICE, EVALUATING, why,
                         "the driver refuses some requests at once, and its queue may have been full for 10 s: run it "
                         "again, and if it lasts, compile it again");
}

static anex_status send_evaluate(anex_ane_program *p, id<ANERequest> request, anex_error *error) {
    @try {
        NSError *why = nil;
        return evaluate(p, request, &why) ? ANEX_OK : fail_evaluate(p, why, error);
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, EVALUATING, exception);
    }
}

/* ---- surfaces of a run: with the table --------------------------------------------------------------------- */

static void begin_run(anex_memory *const *memories, int32_t n) {
    for (int32_t i = 0; i < n; i++) anex_surface_begin_run(memories[i]->surface);
}

static void end_run(anex_memory *const *memories, int32_t n) {
    pthread_mutex_lock(&anex_ane_table);
    for (int32_t i = 0; i < n; i++) anex_surface_end_run(memories[i]->surface);
    pthread_mutex_unlock(&anex_ane_table);
}

/* ---- at once ----------------------------------------------------------------------------------------------- */

/* The cached request, or a new one, and its run begun. */
static anex_status begin_cached(anex_ane_function *f, anex_memory *const *memories, id<ANERequest> *request,
                                anex_error *error) {
    anex_status status = ANEX_OK;
    pthread_mutex_lock(&anex_ane_table);
    *request = anex_ane_find_request(f, memories);
    if (!*request) {
        pthread_mutex_unlock(&anex_ane_table);
        status = anex_ane_build_request(f, memories, nil, request, error);
        if (status) return status;
        pthread_mutex_lock(&anex_ane_table);
        status = anex_ane_keep_request(f, memories, *request, error);
        if (status) [*request release];
    }
    if (!status) begin_run(memories, f->n_memories);
    pthread_mutex_unlock(&anex_ane_table);
    return status;
}

/* With the program's mutex. */
static anex_status run_once(anex_ane_function *f, anex_memory *const *memories, anex_error *error) {
    anex_ane_program *p = f->program;
    id<ANERequest> request;
    anex_status status = anex_ane_ensure_loaded(p, error);
    if (!status) status = begin_cached(f, memories, &request, error);
    if (status) return status;
    status = send_evaluate(p, request, error);
    end_run(memories, f->n_memories);
    p->info.evaluations++;
    return status;
}

static anex_status check_call(const anex_ane_function *f, anex_memory *const *memories, anex_error *error) {
    return f && memories ? ANEX_OK : anex_fail(error, ANEX_ARGUMENT, "no function to run, or no memories for it");
}

anex_status anex_ane_run(anex_ane_function *f, anex_memory *const *memories, anex_error *error) {
    anex_status status = check_call(f, memories, error);
    if (status) return status;
    anex_ane_program *p = f->program;
    pthread_mutex_lock(&p->mutex);
    @autoreleasepool {
        status = run_once(f, memories, error);
        if (status && atomic_load(&p->is_forgotten)) status = run_once(f, memories, error); /* loads it again first */
    }
    anex_ane_touch(p);
    pthread_mutex_unlock(&p->mutex);
    anex_ane_tell_idle();
    return status;
}

/* ---- measured ---------------------------------------------------------------------------------------------- */

enum { STATS_BYTES = 4096, STATS_HEADER = 8, STATS_TYPE = 2 /* the hardware's own counters */ };

const char *anex_ane_counter_name(int32_t i) {
    static const char *const names[ANEX_ANE_COUNTERS] = {
        "kANE_AF_TO_L2_DATA",          "kANE_AF_TO_KM_DATA",         "kANE_L2_TO_AF_DATA",
        "kANE_L2_TO_NE_DATA",          "kANE_NE_TO_L2_DATA",         "kANE_INT8_CYCLES",
        "kANE_FP16_CYCLES",            "kANE_L2_READ_STALL_CYCLES",  "kANE_L2_WRITE_STALL_CYCLES",
        "kANE_KM_STALL_CYCLES",        "kANE_NE_NOMINAL_CYCLES",     "kANE_NE_THROTTLE_CYCLES",
        "kANE_L2_THROTTLE_CYCLES",     "kANE_NE_COMPUTE_CYCLES",     "kANE_NE_INPUT_STALL_CYCLES",
        "kANE_NE_OUTPUT_STALL_CYCLES", "kANE_NE_KERNEL_STALL_CYCLES", "kANE_DMA_READWRITE_BYTES",
        "kANE_DMA_READ_BYTES",         "kANE_DPE_ENERGY",            "kANE_L2_NOMINAL_CYCLES",
        "kANE_L2PE_COMPUTE_CYCLES",    "kANE_L2PE_INPUT_STALL_CYCLES", "kANE_L2PE_OUTPUT_STALL_CYCLES",
    };
    return i >= 0 && i < ANEX_ANE_COUNTERS && names[i] ? names[i] : "";
}

static void copy_counters(anex_ane_stats *stats, const void *from, size_t bytes) {
    size_t header = bytes >= STATS_HEADER + sizeof stats->counters ? STATS_HEADER : 0;
    size_t n = (bytes - header) / sizeof *stats->counters;
    if (n > ANEX_ANE_COUNTERS) n = ANEX_ANE_COUNTERS;
    memcpy(stats->counters, (const char *)from + header, n * sizeof *stats->counters);
    for (size_t i = 0; i < n; i++)
        if (stats->counters[i]) stats->n_counters = (int32_t)n; /* all zero: nothing was counted */
}

/* Through the request if it has statistics, or straight from the surface that the driver was given. */
static void read_stats(id<ANERequest> request, anex_memory *memory, anex_ane_stats *stats) {
    @try {
        id<ANEPerformanceStats> found = [request respondsToSelector:@selector(perfStats)] ? [request perfStats] : nil;
        if ([found respondsToSelector:@selector(hwExecutionTime)]) stats->hardware_ns = [found hwExecutionTime];
        NSData *data = [found respondsToSelector:@selector(perfCounterData)]
                           ? anex_ane_typed([found perfCounterData], [NSData class])
                           : nil;
        if ([data length]) copy_counters(stats, [data bytes], [data length]);
        if (!stats->n_counters) {
            anex_memory_lock(memory);
            copy_counters(stats, memory->data, STATS_HEADER + sizeof stats->counters);
            anex_memory_unlock(memory);
        }
    } @catch (NSException *exception) {
        (void)exception; /* best effort: the run itself went well */
    }
    stats->has_stats = stats->hardware_ns || stats->n_counters;
}

/* nil where this framework has no such statistics. */
static NSArray *stats_array(anex_memory *memory) {
    @try {
        id object = [anex_ane.surface_objects objectWithIOSurface:anex_surface_ref(memory->surface)];
        if (!object || ![(id)anex_ane.stats_surfaces respondsToSelector:@selector(objectWithIOSurface:statType:)])
            return nil;
        id stats = [anex_ane.stats_surfaces objectWithIOSurface:object statType:STATS_TYPE];
        return stats ? [NSArray arrayWithObject:stats] : nil;
    } @catch (NSException *exception) {
        (void)exception;
        return nil;
    }
}

static void release_request(id<ANERequest> request) {
    @try {
        [request release];
    } @catch (NSException *exception) {
        (void)exception; /* it is not ours any longer either way */
    }
}

/* With the program's mutex, loaded. The request is not kept: its statistics are of one run. */
static anex_status run_counted(anex_ane_function *f, anex_memory *const *memories, anex_memory *memory,
                               anex_ane_stats *stats, anex_error *error) {
    id<ANERequest> request = nil;
    NSArray *array = stats_array(memory);
    if (!array) return ANEX_UNSUPPORTED;
    anex_status status = anex_ane_build_request(f, memories, array, &request, error);
    if (status) return status;
    pthread_mutex_lock(&anex_ane_table);
    begin_run(memories, f->n_memories);
    pthread_mutex_unlock(&anex_ane_table);
    status = send_evaluate(f->program, request, error);
    end_run(memories, f->n_memories);
    if (!status) {
        read_stats(request, memory, stats);
        f->program->info.evaluations++;
    }
    release_request(request);
    return status;
}

anex_status anex_ane_run_measured(anex_ane_function *f, anex_memory *const *memories, anex_ane_stats *stats,
                                  anex_error *error) {
    anex_status status = check_call(f, memories, error);
    if (!status && !stats) status = anex_fail(error, ANEX_ARGUMENT, "no place for the statistics");
    if (status) return status;
    *stats = (anex_ane_stats){0};
    anex_memory *memory = NULL;
    if (!f->program->options.perf_stats_mask || anex_memory_new(STATS_BYTES, true, &memory, NULL))
        return anex_ane_run(f, memories, error);
    pthread_mutex_lock(&f->program->mutex);
    @autoreleasepool {
        status = anex_ane_ensure_loaded(f->program, error);
        if (!status) status = run_counted(f, memories, memory, stats, error);
    }
    anex_ane_touch(f->program);
    pthread_mutex_unlock(&f->program->mutex);
    anex_ane_tell_idle();
    anex_memory_release(memory);
    /* what cannot be run with statistics may well run without: only then is the failure one */
    return status ? anex_ane_run(f, memories, error) : ANEX_OK;
}

/* ---- submitted --------------------------------------------------------------------------------------------- */

/* One flight. It stays with the program when it has landed, so that a late or second answer finds another generation
   and is ignored; so does the block, which the framework may be about to leave. */
struct anex_ane_submission {
    anex_ane_submission *next;
    anex_ane_program *program;
    uint64_t generation; /* with the program's flight */
    id<ANERequest> request;
    ANECompletion block;
    int32_t n_memories;
    anex_memory **memories;
    anex_ane_done *done;
    void *context;
};

void anex_ane_free_submissions(anex_ane_program *program) {
    for (anex_ane_submission *s = program->submissions, *next; s; s = next) {
        next = s->next;
        if (s->block) Block_release(s->block);
        free(s);
    }
    program->submissions = NULL;
}

/* The submission of this generation ends here, and nowhere else a second time. */
static bool claim(anex_ane_submission *s, uint64_t generation) {
    pthread_mutex_lock(&s->program->flight);
    bool is_first = s->generation == generation;
    if (is_first) s->generation++;
    pthread_mutex_unlock(&s->program->flight);
    return is_first;
}

/* After a claim. What the caller is to be told goes to `landed`, as the program may be gone when this returns. */
static void land(anex_ane_submission *s, anex_ane_submission *landed) {
    anex_ane_program *p = s->program;
    end_run(s->memories, s->n_memories);
    release_request(s->request);
    *landed = *s;
    pthread_mutex_lock(&p->flight);
    s->next = p->submissions, p->submissions = s;
    p->in_flight--;
    pthread_cond_broadcast(&p->landed);
    pthread_mutex_unlock(&p->flight);
    anex_ane_tell_idle();
}

static void let_go(anex_ane_submission *landed) {
    for (int32_t i = 0; i < landed->n_memories; i++) anex_memory_release(landed->memories[i]);
    free(landed->memories);
}

/* On a thread of the framework. The program is let go before the caller is told: who frees it may hold what `done`
   waits for. */
static void complete(anex_ane_submission *s, uint64_t generation, NSError *why) {
    @autoreleasepool {
        if (!claim(s, generation)) return;
        anex_error error = {""};
        anex_status status = why ? fail_evaluate(s->program, why, &error) : ANEX_OK;
        anex_ane_submission landed;
        land(s, &landed);
        landed.done(landed.context, status, &error);
        let_go(&landed);
    }
}

/* With the program's mutex: a place in the queue, waiting for one. */
static anex_ane_submission *take_off(anex_ane_program *p) {
    pthread_mutex_lock(&p->flight);
    while (p->in_flight >= p->info.queue_depth) pthread_cond_wait(&p->landed, &p->flight);
    anex_ane_submission *s = p->submissions;
    if (s) p->submissions = s->next;
    else if ((s = calloc(1, sizeof *s))) s->program = p;
    if (s) p->in_flight++;
    pthread_mutex_unlock(&p->flight);
    return s;
}

static anex_status set_handler(anex_ane_submission *s, anex_error *error) {
    @try {
        if (![s->request respondsToSelector:@selector(setCompletionHandler:)])
            return anex_fail(error, ANEX_UNSUPPORTED,
                             "this system's framework evaluates no request in the background; run it instead");
        uint64_t generation = s->generation;
        if (s->block) Block_release(s->block);
        s->block = Block_copy(^(NSError *why) { complete(s, generation, why); });
        [s->request setCompletionHandler:s->block];
        return ANEX_OK;
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "setting a completion handler", exception);
    }
}

/* With the program's mutex: all but the message itself. */
static anex_status prepare(anex_ane_function *f, anex_memory *const *memories, anex_ane_done *done, void *context,
                           anex_ane_submission **submission, anex_error *error) {
    id<ANERequest> request;
    anex_status status = anex_ane_ensure_loaded(f->program, error);
    if (!status) status = anex_ane_build_request(f, memories, nil, &request, error);
    if (status) return status;
    anex_memory **kept = malloc(sizeof *kept * (size_t)f->n_memories);
    anex_ane_submission *s = kept ? take_off(f->program) : NULL;
    if (!s) {
        release_request(request);
        free(kept);
        return anex_fail(error, ANEX_MEMORY, "out of memory");
    }
    s->request = request, s->memories = kept, s->n_memories = f->n_memories, s->done = done, s->context = context;
    for (int32_t i = 0; i < f->n_memories; i++) kept[i] = anex_memory_retain(memories[i]);
    pthread_mutex_lock(&anex_ane_table);
    begin_run(memories, f->n_memories);
    pthread_mutex_unlock(&anex_ane_table);
    *submission = s;
    return ANEX_OK;
}

static anex_status submit_once(anex_ane_function *f, anex_memory *const *memories, anex_ane_done *done, void *context,
                               anex_error *error) {
    anex_ane_program *p = f->program;
    anex_ane_submission *s;
    pthread_mutex_lock(&p->mutex);
    anex_status status = prepare(f, memories, done, context, &s, error);
    if (!status) p->info.evaluations++;
    anex_ane_touch(p);
    pthread_mutex_unlock(&p->mutex);
    if (status) {
        anex_ane_tell_idle();
        return status;
    }
    /* without the mutex, so that several can be under way; the program stays loaded while one is */
    uint64_t generation = s->generation;
    id<ANERequest> request = [s->request retain]; /* it may land, and let go of it, before the message returns */
    status = set_handler(s, error);
    if (!status) status = send_evaluate(p, request, error);
    release_request(request);
    if (!status || !claim(s, generation)) return ANEX_OK; /* `done` was called, or will be */
    anex_ane_submission landed;
    land(s, &landed);
    let_go(&landed);
    return status;
}

anex_status anex_ane_submit(anex_ane_function *f, anex_memory *const *memories, anex_ane_done *done, void *context,
                            anex_error *error) {
    anex_status status = check_call(f, memories, error);
    if (!status && !done) status = anex_fail(error, ANEX_ARGUMENT, "nobody to tell when it is done");
    if (status) return status;
    @autoreleasepool {
        status = submit_once(f, memories, done, context, error);
        if (status && atomic_load(&f->program->is_forgotten)) status = submit_once(f, memories, done, context, error);
    }
    return status;
}
