/* A program from text to loaded: descriptor, model, files, compile, load, unload, clean-up. */
#import "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec * 1e-9;
}

/* ---- arguments --------------------------------------------------------------------------------------------- */

static anex_status check_arguments(const char *text, size_t text_bytes, int32_t n_blobs, const anex_ane_blob *blobs,
                                   const anex_ane_options *options, anex_error *error) {
    if (!text || !text_bytes) return anex_fail(error, ANEX_INVALID, "there is no MIL text to compile");
    if (n_blobs < 0 || (n_blobs && !blobs)) return anex_fail(error, ANEX_ARGUMENT, "the list of blobs is missing");
    for (int32_t i = 0; i < n_blobs; i++) {
        if (!anex_ane_blob_name(blobs[i].path))
            return anex_fail(error, ANEX_INVALID,
                             "the blob path %s leads out of the program's directory; write it as in MIL, "
                             "for example @model_path/weights/weight.bin",
                             blobs[i].path ? blobs[i].path : "(none)");
        if (!blobs[i].data || !blobs[i].bytes)
            return anex_fail(error, ANEX_INVALID, "the blob %s is empty, which the framework does not take",
                             blobs[i].path);
        for (int32_t j = 0; j < i; j++)
            if (!strcmp(blobs[i].path, blobs[j].path))
                return anex_fail(error, ANEX_INVALID, "the blob %s is given twice", blobs[i].path);
    }
    if (options && options->qos > 63)
        return anex_fail(error, ANEX_ARGUMENT,
                         "a quality of service of %u; the framework knows 0 to 63: 9 is background, 21 the default, "
                         "33 user interactive",
                         options->qos);
    return ANEX_OK;
}

/* ---- messages: each turns exceptions into a status --------------------------------------------------------- */

static NSDictionary *weights_dictionary(int32_t n_blobs, const anex_ane_blob *blobs) {
    NSMutableDictionary *weights = [NSMutableDictionary dictionary];
    for (int32_t i = 0; i < n_blobs; i++) {
        NSData *data = [NSData dataWithBytes:blobs[i].data length:blobs[i].bytes];
        NSDictionary *entry = [NSDictionary dictionaryWithObjectsAndKeys:[NSNumber numberWithInt:0], @"offset", data,
                                                                         @"data", nil];
        [weights setObject:entry forKey:[NSString stringWithUTF8String:blobs[i].path]];
    }
    return weights;
}

/* The identifier becomes the name of a directory. */
static anex_status take_identifier(anex_ane_program *program, anex_error *error) {
    char *identifier = program->info.identifier;
    anex_ane_copy_text(identifier, sizeof program->info.identifier, [program->model hexStringIdentifier]);
    if (!*identifier || *identifier == '.' || strchr(identifier, '/'))
        return anex_fail(error, ANEX_DEVICE,
                         "the framework identifies the program as \"%s\", which cannot name a directory", identifier);
    return ANEX_OK;
}

static anex_status describe(anex_ane_program *program, const char *text, size_t text_bytes, int32_t n_blobs,
                            const anex_ane_blob *blobs, anex_error *error) {
    @try {
        NSData *data = [NSData dataWithBytes:text length:text_bytes];
        id<ANEDescriptor> descriptor = [anex_ane.descriptors modelWithMILText:data
                                                                      weights:weights_dictionary(n_blobs, blobs)
                                                                 optionsPlist:nil];
        if (!descriptor)
            return anex_ane_fail(error, ANEX_INVALID, "describing the program", nil,
                                 "it dislikes the text, which must be UTF-8, or a blob");
        program->model = [[anex_ane.models inMemoryModelWithDescriptor:descriptor] retain];
        if (!program->model)
            return anex_ane_fail(error, ANEX_DEVICE, "making a model of the program", nil,
                                 "its daemon, aned, may not be running");
        return take_identifier(program, error);
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "describing the program", exception);
    }
}

static anex_status send_exists(anex_ane_program *program, bool *exists, anex_error *error) {
    @try {
        *exists = [program->model respondsToSelector:@selector(compiledModelExists)] &&
                  [program->model compiledModelExists];
        return ANEX_OK;
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "looking for the compiled program", exception);
    }
}

static anex_status send_purge(anex_ane_program *program, anex_error *error) {
    @try {
        if ([program->model respondsToSelector:@selector(purgeCompiledModel)]) [program->model purgeCompiledModel];
        return ANEX_OK;
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "purging the compiled program", exception);
    }
}

static anex_status send_compile(anex_ane_program *program, anex_error *error) {
    @try {
        NSError *why = nil;
        if ([program->model compileWithQoS:program->options.qos options:anex_ane.no_options error:&why]) return ANEX_OK;
        char silent[400];
        anex_ane_account account = anex_ane_get_account();
        snprintf(silent, sizeof silent,
                 "it does so when a process has compiled too often (this one: %d times, around 119 is the end), when "
                 "the files in %.120s cannot be used, or when its daemon gives up: try it in a fresh process",
                 account.compiles, program->directory->path);
        return anex_ane_fail(error, ANEX_DEVICE, "compiling for the Neural Engine", why, silent);
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "compiling for the Neural Engine", exception);
    }
}

static anex_status send_load(anex_ane_program *program, anex_error *error) {
    @try {
        NSError *why = nil;
        if ([program->model loadWithQoS:program->options.qos options:program->run_options error:&why]) return ANEX_OK;
        char silent[300];
        snprintf(silent, sizeof silent,
                 "it does so when too many programs are loaded (%d by this process; others count too), or when the "
                 "compiled program is damaged: close programs, or compile it again with recompile",
                 anex_ane_get_account().loaded);
        return anex_ane_fail(error, ANEX_DEVICE, "loading onto the Neural Engine", why, silent);
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "loading onto the Neural Engine", exception);
    }
}

static anex_status send_unload(anex_ane_program *program, anex_error *error) {
    @try {
        NSError *why = nil;
        if ([program->model unloadWithQoS:program->options.qos error:&why]) return ANEX_OK;
        return anex_ane_fail(error, ANEX_DEVICE, "unloading from the Neural Engine", why,
                             "its daemon may have ended; the program counts as unloaded");
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "unloading from the Neural Engine", exception);
    }
}

/* What the model says of itself once loaded. The text and blobs that it was made of are let go, as the framework
   itself does when it compiles: from now on the program is loaded from the cache. */
static anex_status send_after_load(anex_ane_program *program, anex_error *error) {
    @try {
        id<ANEModel> model = program->model;
        anex_ane_info *info = &program->info;
        if ([model respondsToSelector:@selector(queueDepth)]) info->queue_depth = [model queueDepth];
        if (info->queue_depth < 1) info->queue_depth = 1;
        if ([model respondsToSelector:@selector(programHandle)]) info->program_handle = [model programHandle];
        if ([model respondsToSelector:@selector(intermediateBufferHandle)])
            info->intermediate_buffer_handle = [model intermediateBufferHandle];
        if ([model respondsToSelector:@selector(setDescriptor:)]) [model setDescriptor:nil];
        return ANEX_OK;
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "reading the loaded program", exception);
    }
}

/* The mask goes with load and evaluate, or the hardware counts nothing. */
static anex_status make_run_options(anex_ane_program *program, anex_error *error) {
    @try {
        uint32_t mask = program->options.perf_stats_mask;
        NSString *key = anex_ane_constant("kANEFPerformanceStatsMaskKey");
        if (mask && key) {
            program->run_options = [[NSDictionary alloc]
                initWithObjectsAndKeys:[NSNumber numberWithUnsignedInt:mask], key, nil];
            if ([program->model respondsToSelector:@selector(setPerfStatsMask:)])
                [program->model setPerfStatsMask:mask];
        } else {
            program->run_options = [anex_ane.no_options retain];
        }
        return ANEX_OK;
    } @catch (NSException *exception) {
        return anex_ane_fail_exception(error, "asking for performance statistics", exception);
    }
}

/* An evaluate method that is missing is a reason to refuse now, not at the first run. */
static anex_status check_way(anex_ane_program *program, anex_error *error) {
    if (program->options.way == ANEX_ANE_EVALUATE) return ANEX_OK;
    bool direct = program->options.way == ANEX_ANE_DIRECT;
    id client = program->client = [anex_ane_client(error) retain];
    if (!client) return ANEX_UNSUPPORTED;
    if (direct && [client respondsToSelector:@selector(doEvaluateDirectWithModel:options:request:qos:error:)])
        return ANEX_OK;
    if (!direct && [client respondsToSelector:@selector(evaluateRealTimeWithModel:options:request:error:)])
        return ANEX_OK;
    return anex_fail(error, ANEX_UNSUPPORTED, "this system's framework has no %s evaluation; leave way= out",
                     direct ? "direct" : "real-time");
}

/* ---- compile ----------------------------------------------------------------------------------------------- */

/* With the directory's mutex: programs of equal content wait, and then find it compiled. */
static anex_status compile_in_directory(anex_ane_program *program, const char *text, size_t text_bytes,
                                        int32_t n_blobs, const anex_ane_blob *blobs, anex_error *error) {
    bool exists;
    anex_status status = send_exists(program, &exists, error);
    if (status) return status;
    if (exists && !program->options.recompile) {
        program->info.was_cached = true;
        anex_ane_count(1, 0);
        return ANEX_OK;
    }
    if (exists && (status = send_purge(program, error))) return status;
    if ((status = anex_ane_spend_compile(error))) return status;
    if ((status = anex_ane_write_files(program->directory, text, text_bytes, n_blobs, blobs, error))) return status;
    double start = now();
    status = send_compile(program, error);
    program->info.compile_seconds = now() - start;
    return status;
}

/* The framework loads from the text and blobs if nothing is cached, and those we have let go. */
static anex_status check_cached(anex_ane_program *program, anex_error *error) {
    bool exists = true;
    anex_status status = program->info.loads ? send_exists(program, &exists, error) : ANEX_OK;
    if (status || exists) return status;
    return anex_fail(error, ANEX_DEVICE,
                     "the program was unloaded and cannot be loaded again: its compiled form is no longer in the "
                     "cache; compile it anew");
}

static anex_status load_in_directory(anex_ane_program *program, anex_error *error) {
    pthread_mutex_lock(&program->directory->mutex);
    anex_status status = send_load(program, error);
    pthread_mutex_unlock(&program->directory->mutex);
    return status;
}

/* With a place taken. How many programs can be loaded is not known for sure, and others share the number: one that
   fails is tried once more, with one of ours less, after a while in which somebody else's may go. */
static anex_status load(anex_ane_program *program, anex_error *error) {
    double start = now();
    anex_status status = load_in_directory(program, error);
    if (status) {
        anex_ane_count(0, 1);
        anex_ane_evict(program);
        nanosleep(&(struct timespec){.tv_nsec = 100 * 1000 * 1000}, NULL);
        status = load_in_directory(program, error);
    }
    if (!status) status = send_after_load(program, error);
    program->info.load_seconds = now() - start;
    return status;
}

anex_status anex_ane_ensure_loaded(anex_ane_program *program, anex_error *error) {
    if (atomic_exchange(&program->is_forgotten, false)) anex_ane_unload_now(program, NULL);
    if (program->is_loaded) return ANEX_OK;
    anex_status status = check_cached(program, error);
    if (!status) status = anex_ane_take_place(program, error);
    if (status) return status;
    status = load(program, error);
    if (status) {
        anex_ane_give_place(program);
        return status;
    }
    program->info.loads++;
    anex_ane_confirm_place(program);
    return ANEX_OK;
}

static anex_ane_program *new_program(const anex_ane_options *options) {
    anex_ane_program *program = calloc(1, sizeof *program);
    if (!program) return NULL;
    pthread_mutex_init(&program->mutex, NULL);
    pthread_mutex_init(&program->flight, NULL);
    pthread_cond_init(&program->landed, NULL);
    program->options = options ? *options : (anex_ane_options){.qos = 21};
    return program;
}

static anex_status build(anex_ane_program *program, const char *text, size_t text_bytes, int32_t n_blobs,
                         const anex_ane_blob *blobs, anex_error *error) {
    anex_status status = describe(program, text, text_bytes, n_blobs, blobs, error);
    if (!status) status = check_way(program, error);
    if (!status) status = make_run_options(program, error);
    if (status) return status;
    program->directory = anex_ane_enter_directory(program->info.identifier, error);
    if (!program->directory) return ANEX_MEMORY;
    pthread_mutex_lock(&program->directory->mutex);
    status = compile_in_directory(program, text, text_bytes, n_blobs, blobs, error);
    pthread_mutex_unlock(&program->directory->mutex);
    if (status) return status;
    anex_ane_enroll(program);
    pthread_mutex_lock(&program->mutex);
    status = anex_ane_ensure_loaded(program, error);
    pthread_mutex_unlock(&program->mutex);
    anex_ane_tell_idle();
    return status;
}

anex_status anex_ane_compile(const char *text, size_t text_bytes, int32_t n_blobs, const anex_ane_blob *blobs,
                             const anex_ane_options *options, anex_ane_program **program, anex_error *error) {
    if (!program) return anex_fail(error, ANEX_ARGUMENT, "no place for the program");
    *program = NULL;
    anex_status status = anex_ane_open(error);
    if (!status) status = check_arguments(text, text_bytes, n_blobs, blobs, options, error);
    if (status) return status;
    anex_ane_program *made = new_program(options);
    if (!made) return anex_fail(error, ANEX_MEMORY, "out of memory");
    @autoreleasepool {
        status = build(made, text, text_bytes, n_blobs, blobs, error);
    }
    if (status) anex_ane_free(made);
    else *program = made;
    return status;
}

/* ---- unload and the end ------------------------------------------------------------------------------------ */

static void wait_for_flight(anex_ane_program *program) {
    pthread_mutex_lock(&program->flight);
    while (program->in_flight) pthread_cond_wait(&program->landed, &program->flight);
    pthread_mutex_unlock(&program->flight);
}

anex_status anex_ane_unload_now(anex_ane_program *program, anex_error *error) {
    wait_for_flight(program);
    if (!program->is_loaded) return ANEX_OK;
    for (anex_ane_function *f = program->functions; f; f = f->next) anex_ane_drop_requests(f);
    pthread_mutex_lock(&program->directory->mutex); /* the framework deletes the directory here */
    anex_status status = send_unload(program, error);
    if (access(program->directory->path, F_OK)) program->directory->is_ours = false; /* a new one may be another's */
    pthread_mutex_unlock(&program->directory->mutex);
    program->info.program_handle = 0;
    anex_ane_give_place(program);
    return status;
}

anex_status anex_ane_unload(anex_ane_program *program, anex_error *error) {
    if (!program) return anex_fail(error, ANEX_ARGUMENT, "no program to unload");
    anex_status status;
    pthread_mutex_lock(&program->mutex);
    @autoreleasepool {
        status = anex_ane_unload_now(program, error);
    }
    pthread_mutex_unlock(&program->mutex);
    anex_ane_tell_idle();
    return status;
}

static void release_objects(anex_ane_program *program) {
    @try {
        [program->model release];
        [program->run_options release];
        [program->client release];
    } @catch (NSException *exception) {
        (void)exception; /* nobody is left to be told */
    }
}

void anex_ane_free(anex_ane_program *program) {
    if (!program) return;
    pthread_mutex_lock(&program->mutex);
    @autoreleasepool {
        anex_ane_unload_now(program, NULL);
        release_objects(program);
    }
    anex_ane_strike_off(program); /* after this no eviction can be at it */
    pthread_mutex_unlock(&program->mutex);
    anex_ane_tell_idle();
    anex_ane_leave_directory(program->directory);
    anex_ane_free_submissions(program);
    pthread_mutex_destroy(&program->mutex);
    pthread_mutex_destroy(&program->flight);
    pthread_cond_destroy(&program->landed);
    free(program);
}

void anex_ane_keep(anex_ane_program *program, bool keep) {
    atomic_store(&program->is_kept, keep);
    anex_ane_tell_idle();
}

void anex_ane_get_info(anex_ane_program *program, anex_ane_info *info) {
    pthread_mutex_lock(&program->mutex);
    *info = program->info;
    info->is_loaded = program->is_loaded;
    pthread_mutex_unlock(&program->mutex);
}
