/* _ANEProgramForEvaluation: a loaded program, and the way of a request through the driver. */
#import "fake.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { DRIVER_BAD_SYMBOL = 0x2, DRIVER_TIMED_OUT = 0xF, DRIVER_NOT_FOUND = 0xE, DRIVER_FAILED = 0x16,
       DRIVER_TOO_SMALL = 0x1D, STATUS_TYPE = 0x9, QUEUE_DEPTH = 127, LONE_PROCEDURES = 16 };

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

NSError *fake_status_error(unsigned status) {
    SEL selector = @selector(processRequest:model:qos:qIndex:modelStringID:options:returnValue:error:);
    if (status == DRIVER_NOT_FOUND) {
        NSString *text = [NSString stringWithFormat:@"ANEProgramProcessRequestDirect() Failed with status=0x%x : "
                                                    @"statusType=0x%x: Program Inference error, Program not found",
                                                    status, STATUS_TYPE];
        return fake_error(23, selector, text);
    }
    if (status == DRIVER_TIMED_OUT) return fake_generic_error(3, selector);
    if (fake_number(FAKE_AT_macos) >= 27) {
        if (status == DRIVER_TOO_SMALL)
            return fake_error(42, selector, @"Inference failed — IOSurface smaller than the model expects (re-check "
                                            @"inputBufferSize/outputBufferSize from the load reply) (underlying=0x1D)");
        NSString *what = status == DRIVER_BAD_SYMBOL ? @"invalid argument or state" : @"ANE firmware/hardware failure";
        return fake_error(8, selector, [NSString stringWithFormat:@"%@ (underlying=0x%X)", what, status]);
    }
    NSString *text = [NSString stringWithFormat:@"ANEProgramProcessRequestDirect() Failed with status=0x%x : "
                                                @"statusType=0x%x: Program Inference error",
                                                status, STATUS_TYPE];
    return fake_error(8, selector, text);
}

/* Programs of tests are small, and their clients have threads of their own. */
__attribute__((constructor)) static void use_one_thread(void) { anex_set_num_threads(1); }

static bool is_wanted(fake_switch at, bool by_itself) {
    return fake_is(at, "yes") || (by_itself && fake_is(at, "auto"));
}

/* What the chip of the switch `arch` is known to round otherwise than IEEE would. */
static mil_numerics numerics(void) {
    char arch[FAKE_TEXT];
    bool is_chip = fake_is(FAKE_AT_numerics, "ane");
    int generation = atoi(fake_text(FAKE_AT_arch, arch) + (*arch != 0));
    return (mil_numerics){
        .narrow_reduce = is_chip,
        .matmul_cliff = is_chip,
        .flush_subnormals = is_wanted(FAKE_AT_ftz, is_chip),
        .slice_clamp = is_chip && generation < 16,
        .sdpa_ignores_mask = is_wanted(FAKE_AT_sdpa_ignores_mask, is_chip),
    };
}

@implementation _ANEProgramForEvaluation
+ (id)new {
    return nil;
}
- (id)init {
    [super dealloc];
    return nil;
}

- (id)initWithText:(NSData *)text blobs:(NSDictionary *)blobs error:(NSError **)error selector:(SEL)selector {
    static unsigned long long handles;
    self = [super init];
    NSString *why = nil;
    int64_t limit = fake_number(FAKE_AT_load_limit);
    if (limit && fake_ane_count("live_programs") >= limit) why = @"the load limit is reached";
    else program = fake_parse(text, blobs, &why);
    if (!program) {
        fake_explain("load: %s", [why UTF8String]);
        fake_fail(error, fake_generic_error(6, selector));
        [self release];
        return nil;
    }
    for (int side = 0; side < 2; side++) tables[side] = fake_symbols_of(program, side);
    attributes = [fake_attributes(program, tables) retain];
    programHandle = 0x100000000u + __sync_add_and_fetch(&handles, 1);
    isLoaded = YES;
    fake_add(FAKE_COUNT_live_programs, 1);
    return self;
}

- (void)unload {
    @synchronized(self) {
        if (isLoaded) fake_add(FAKE_COUNT_live_programs, -1);
        isLoaded = NO;
    }
}

/* Nobody unloads on dealloc, but the daemon ends with the process, and this one lives in it. */
- (void)dealloc {
    [self unload];
    for (int side = 0; side < 2; side++) free(tables[side].items);
    if (program) mil_free(program);
    [attributes release];
    [super dealloc];
}

- (NSDictionary *)attributes {
    return attributes;
}
- (unsigned long long)programHandle {
    return programHandle;
}
- (unsigned long long)intermediateBufferHandle {
    return 0;
}
- (signed char)queueDepth {
    return QUEUE_DEPTH;
}
- (long long)currentAsyncRequestsInFlight {
    return fake_ane_count("in_flight");
}

/* Each port of the procedure gets the surface whose index is its place in the symbol table. */
- (unsigned)bind:(NSArray *)surfaces
         indices:(NSArray *)indices
       procedure:(int)procedure
            side:(int)side
         tensors:(anex_tensor *)tensors {
    int ports = mil_port_count(program, procedure, side);
    for (int i = 0; i < ports; i++) tensors[i].data = NULL;
    for (NSUInteger i = 0; i < [surfaces count]; i++) {
        NSUInteger index = [[indices objectAtIndex:i] unsignedIntegerValue];
        if (index >= (NSUInteger)tables[side].count || tables[side].items[index].procedure != procedure) {
            fake_explain("index %u is none of procedure %d's", (unsigned)index, procedure);
            return DRIVER_BAD_SYMBOL;
        }
        const fake_symbol *symbol = &tables[side].items[index];
        IOSurfaceRef surface = [(_ANEIOSurfaceObject *)[surfaces objectAtIndex:i] ioSurface];
        size_t needed = (size_t)(symbol->batches * symbol->batch_stride);
        if (IOSurfaceGetAllocSize(surface) < needed) {
            fake_explain("the surface at index %u has %zu bytes of %zu", (unsigned)index,
                         IOSurfaceGetAllocSize(surface), needed);
            return DRIVER_TOO_SMALL;
        }
        fake_surface_inspect(surface);
        tensors[symbol->port] = symbol->tensor;
        tensors[symbol->port].data = IOSurfaceGetBaseAddress(surface);
    }
    for (int i = 0; i < ports; i++)
        if (!tensors[i].data) {
            fake_explain("%s %s has no surface", side ? "output" : "input", mil_port_name(program, procedure, side, i));
            return DRIVER_BAD_SYMBOL;
        }
    return 0;
}

- (unsigned)run:(_ANERequest *)request mask:(unsigned)mask {
    int procedure = [[request procedureIndex] intValue], functions = mil_function_count(program);
    /* The only procedure of a program answers to any small number. */
    if (functions == 1 && procedure < LONE_PROCEDURES) procedure = 0;
    if (procedure < 0 || procedure >= functions) {
        fake_explain("there are %d procedures, and %d was asked for", functions, procedure);
        return DRIVER_BAD_SYMBOL;
    }
    NSArray *surfaces[2] = {[request inputArray], [request outputArray]};
    NSArray *indices[2] = {[request inputIndexArray], [request outputIndexArray]};
    int ports[2] = {mil_port_count(program, procedure, 0), mil_port_count(program, procedure, 1)};
    int all = ports[0] + ports[1];
    anex_tensor *tensors = calloc((size_t)all + 1, sizeof *tensors);
    const anex_tensor **pointers = calloc((size_t)all + 1, sizeof *pointers);
    int64_t bytes[2] = {0, 0};
    unsigned status = 0;
    for (int side = 0; side < 2 && !status; side++)
        status = [self bind:surfaces[side] indices:indices[side] procedure:procedure side:side
                    tensors:tensors + (side ? ports[0] : 0)];
    for (int i = 0; i < all; i++) {
        pointers[i] = &tensors[i];
        if (!status) bytes[i >= ports[0]] += anex_tensor_nbytes(&tensors[i]);
    }
    if (!status) {
        anex_error error = {""};
        mil_numerics how = numerics();
        uint64_t begun = now();
        if (mil_run(program, procedure, pointers, pointers + ports[0], &how, &error)) {
            fake_explain("evaluate: %s", error.text);
            status = DRIVER_FAILED;
        } else {
            fake_add(FAKE_COUNT_runs, 1);
            fake_measure(request, mask, now() - begun, bytes[0], bytes[1]);
        }
        for (_ANEIOSurfaceObject *output in surfaces[1]) fake_surface_wrote([output ioSurface]);
    }
    free(pointers);
    free(tensors);
    return status;
}

- (BOOL)processRequest:(_ANERequest *)request
                 model:(id)model
                   qos:(unsigned)qos
                qIndex:(unsigned long long)queue
         modelStringID:(unsigned long long)string_id
               options:(NSDictionary *)options
           returnValue:(unsigned *)value
                 error:(NSError **)error {
    (void)qos, (void)queue, (void)string_id;
    if (!value) fake_raise(NSInvalidArgumentException, @"returnValue must not be NULL");
    if (!options) fake_raise(NSInvalidArgumentException, @"options must not be nil");
    *value = 0;
    if (![request validate]) return NO;
    if ([request sharedEvents]) /* the real one dies of a bad access */
        fake_raise(NSInternalInconsistencyException, @"shared events on the in-memory path");
    NSError *absent = fake_no_hardware(_cmd);
    if (absent) return fake_fail(error, absent);
    @synchronized(self) {
        if (fake_take(FAKE_AT_forgets)) isForgotten = YES;
        if (isForgotten || !isLoaded) *value = DRIVER_NOT_FOUND;
    }
    unsigned mask = [[options objectForKey:@"kANEFPerformanceStatsMask"] unsignedIntValue] & [model perfStatsMask];
    if (*value) return fake_fail(error, fake_status_error(*value));
    if (![request completionHandler]) {
        *value = [self run:request mask:mask];
        return *value ? fake_fail(error, fake_status_error(*value)) : YES;
    }
    if (!fake_queue_enter()) return NO;
    fake_queue_run(self, request, mask);
    return YES;
}

/* The in-memory path has no open-ended requests: always NO, and always without an error. */
- (BOOL)processInputBuffers:(id)buffers model:(id)model options:(NSDictionary *)options error:(NSError **)error {
    (void)buffers, (void)model, (void)options;
    if (error) *error = nil;
    return NO;
}
- (BOOL)processOutputSet:(id)set model:(id)model options:(NSDictionary *)options error:(NSError **)error {
    return [self processInputBuffers:set model:model options:options error:error];
}
@end
