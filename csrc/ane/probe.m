/* One message at a time, for `anex selftest`: what the framework itself answers, without any policy of ours. */
#import "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

struct anex_ane_raw {
    id<ANEModel> model;
};

static double now(void) {
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* What a message gave back; `error` is read only where it answered NO. */
static void note(anex_ane_answer *answer, BOOL yes, NSError *error) {
    answer->yes = yes;
    if (yes || !error) return;
    answer->code = [error code];
    anex_ane_copy_text(answer->domain, sizeof answer->domain, [error domain]);
    anex_ane_copy_text(answer->text, sizeof answer->text, [error localizedDescription]);
}

/* Send one message, timed, and survive what it throws. `error` is a name that `message` may use. */
#define ASK(answer, message)                                                     \
    do {                                                                         \
        NSError *error = nil;                                                    \
        BOOL yes = NO;                                                           \
        double start = now();                                                    \
        memset((answer), 0, sizeof *(answer));                                   \
        @try {                                                                   \
            yes = (message);                                                     \
            (answer)->seconds = now() - start;                                   \
            note((answer), yes, error);                                          \
        } @catch (NSException * exception) {                                     \
            (answer)->raised = true;                                             \
            (answer)->seconds = now() - start;                                   \
            anex_ane_copy_text((answer)->domain, sizeof(answer)->domain, [exception name]);    \
            anex_ane_copy_text((answer)->text, sizeof(answer)->text, [exception reason]);      \
        }                                                                        \
    } while (0)

static NSDictionary *weights_of(int32_t n_blobs, const anex_ane_blob *blobs) {
    NSMutableDictionary *weights = [NSMutableDictionary dictionary];
    for (int32_t i = 0; i < n_blobs; i++) {
        NSData *data = [NSData dataWithBytes:blobs[i].data length:blobs[i].bytes];
        NSDictionary *entry = [NSDictionary
            dictionaryWithObjectsAndKeys:[NSNumber numberWithUnsignedLongLong:0], @"offset", data, @"data", nil];
        [weights setObject:entry forKey:[NSString stringWithUTF8String:blobs[i].path]];
    }
    return weights;
}

anex_status anex_ane_raw_new(const char *text, size_t text_bytes, int32_t n_blobs, const anex_ane_blob *blobs,
                             bool nil_weights, anex_ane_raw **raw, anex_ane_answer *answer, anex_error *error) {
    anex_status status = anex_ane_open(error);
    *raw = NULL;
    if (status != ANEX_OK) return status;
    @autoreleasepool {
        id<ANEModel> model = nil;
        ASK(answer, (model = [anex_ane.models inMemoryModelWithDescriptor:[anex_ane.descriptors
                                       modelWithMILText:[NSData dataWithBytes:text length:text_bytes]
                                                weights:nil_weights ? nil : weights_of(n_blobs, blobs)
                                           optionsPlist:nil]]) != nil && !error);
        if (model) {
            *raw = calloc(1, sizeof **raw);
            if (!*raw) return anex_fail(error, ANEX_MEMORY, "no memory for a model of the self-test");
            (*raw)->model = [(id)model retain];
        }
    }
    return ANEX_OK;
}

void anex_ane_raw_free(anex_ane_raw *raw) {
    if (!raw) return;
    @autoreleasepool {
        anex_ane_answer ignored;
        if ([raw->model programHandle]) ASK(&ignored, [raw->model unloadWithQoS:21 error:&error]);
        @try {
            [[NSFileManager defaultManager] removeItemAtPath:[raw->model localModelPath] error:NULL];
        } @catch (NSException *exception) {
            (void)exception; /* nothing of it is ours to report */
        }
        [(id)raw->model release];
        free(raw);
    }
}

void anex_ane_raw_send(anex_ane_raw *raw, anex_ane_message message, uint32_t qos, anex_ane_answer *answer) {
    @autoreleasepool {
        id<ANEModel> model = raw->model;
        NSDictionary *none = [NSDictionary dictionary];
        switch (message) {
        case ANEX_ANE_SEND_COMPILE:
            ASK(answer, [model compileWithQoS:qos options:none error:&error]);
            break;
        case ANEX_ANE_SEND_LOAD:
            ASK(answer, [model loadWithQoS:qos options:none error:&error]);
            break;
        case ANEX_ANE_SEND_UNLOAD:
            ASK(answer, [model unloadWithQoS:qos error:&error]);
            break;
        case ANEX_ANE_SEND_EXISTS:
            ASK(answer, !error && [model compiledModelExists]);
            break;
        case ANEX_ANE_SEND_PURGE:
            ASK(answer, !error && ([model purgeCompiledModel], YES));
            break;
        case ANEX_ANE_SEND_BEGIN_REAL_TIME:
            ASK(answer, !error && [anex_ane_client(NULL) beginRealTimeTask]);
            break;
        case ANEX_ANE_SEND_END_REAL_TIME:
            ASK(answer, !error && [anex_ane_client(NULL) endRealTimeTask]);
            break;
        }
    }
}

void anex_ane_raw_get_state(anex_ane_raw *raw, anex_ane_raw_state *state) {
    memset(state, 0, sizeof *state);
    @autoreleasepool {
        @try {
            anex_ane_copy_text(state->identifier, sizeof state->identifier, [raw->model hexStringIdentifier]);
            anex_ane_copy_text(state->folder, sizeof state->folder, [raw->model localModelPath]);
            state->program_handle = [raw->model programHandle];
            state->intermediate_buffer_handle = [raw->model intermediateBufferHandle];
            state->state = [raw->model state];
            state->queue_depth = [raw->model queueDepth];
        } @catch (NSException *exception) {
            anex_ane_copy_text(state->identifier, sizeof state->identifier, [exception reason]);
        }
    }
}

/* Property lists as JSON; what JSON lacks becomes its description. */
static id plain(id value) {
    if ([value isKindOfClass:[NSDictionary class]]) {
        NSMutableDictionary *copied = [NSMutableDictionary dictionary];
        for (id key in value) [copied setObject:plain([value objectForKey:key]) forKey:[key description]];
        return copied;
    }
    if ([value isKindOfClass:[NSArray class]]) {
        NSMutableArray *copied = [NSMutableArray array];
        for (id each in value) [copied addObject:plain(each)];
        return copied;
    }
    return [value isKindOfClass:[NSNumber class]] || [value isKindOfClass:[NSString class]] ? value
                                                                                           : [value description];
}

size_t anex_ane_raw_attributes(anex_ane_raw *raw, char *json, size_t room) {
    size_t needed = 0;
    @autoreleasepool {
        @try {
            NSDictionary *attributes = [raw->model modelAttributes];
            NSData *data = attributes ? [NSJSONSerialization dataWithJSONObject:plain(attributes) options:0 error:NULL]
                                      : nil;
            needed = [data length];
            if (needed && needed <= room) memcpy(json, [data bytes], needed);
        } @catch (NSException *exception) {
            (void)exception; /* then there are none */
        }
    }
    return needed;
}

anex_status anex_ane_raw_surface(size_t bytes, anex_memory **memory, anex_error *error) {
    anex_status status = anex_ane_open(error);
    if (status != ANEX_OK) return status;
    @autoreleasepool {
        NSNumber *size = [NSNumber numberWithUnsignedLongLong:bytes], *one = [NSNumber numberWithInt:1];
        NSDictionary *properties = [NSDictionary
            dictionaryWithObjectsAndKeys:size, @"IOSurfaceWidth", one, @"IOSurfaceHeight", one,
                                         @"IOSurfaceBytesPerElement", size, @"IOSurfaceBytesPerRow", size,
                                         @"IOSurfaceAllocSize", [NSNumber numberWithInt:0], @"IOSurfacePixelFormat",
                                         [NSNumber numberWithBool:(BOOL)1], @"IOSurfaceIsGlobal", nil];
        IOSurfaceRef surface = anex_ane.surface_create(properties);
        if (!surface)
            return anex_fail(error, ANEX_MEMORY, "IOSurfaceCreate refused a surface of %zu bytes", bytes);
        status = anex_memory_of_surface(anex_ane.surface_id(surface), memory, error); /* holds it too */
        [(id)surface release];
    }
    return status;
}

static id<ANESurfaceObject> wrap(const anex_memory *memory) {
    return [anex_ane.surface_objects objectWithIOSurface:anex_surface_ref(memory->surface)];
}

static void side(int32_t n, const anex_ane_raw_slot *slots, NSMutableArray *objects, NSMutableArray *indices) {
    for (int32_t i = 0; i < n; i++) {
        [objects addObject:(id)wrap(slots[i].memory)];
        [indices addObject:[NSNumber numberWithInt:slots[i].symbol]];
    }
}

void anex_ane_raw_evaluate(anex_ane_raw *raw, const anex_ane_raw_run *run, anex_ane_answer *answer) {
    @autoreleasepool {
        NSMutableArray *inputs = [NSMutableArray array], *input_indices = [NSMutableArray array];
        NSMutableArray *outputs = [NSMutableArray array], *output_indices = [NSMutableArray array];
        NSDictionary *none = [NSDictionary dictionary];
        id<ANERequest> request = nil;
        /* building it is guarded too, though what it takes is left out of the time of what follows */
        ASK(answer, !error && (side(run->n_inputs, run->inputs, inputs, input_indices),
                               side(run->n_outputs, run->outputs, outputs, output_indices),
                               (request = [anex_ane.requests
                                    requestWithInputs:inputs
                                         inputIndices:input_indices
                                              outputs:outputs
                                        outputIndices:output_indices
                                        weightsBuffer:run->weights ? wrap(run->weights) : nil
                                            perfStats:nil
                                       procedureIndex:[NSNumber numberWithInt:run->procedure]]) != nil));
        if (!request) return;
        switch (run->way) {
        case ANEX_ANE_RAW_EVALUATE:
            ASK(answer, [raw->model evaluateWithQoS:run->qos options:none request:request error:&error]);
            break;
        case ANEX_ANE_RAW_DIRECT:
            ASK(answer, [anex_ane_client(NULL) doEvaluateDirectWithModel:raw->model
                                                                 options:none
                                                                 request:request
                                                                     qos:run->qos
                                                                   error:&error]);
            break;
        case ANEX_ANE_RAW_REAL_TIME:
            ASK(answer, [anex_ane_client(NULL) evaluateRealTimeWithModel:raw->model
                                                                 options:none
                                                                 request:request
                                                                   error:&error]);
            break;
        case ANEX_ANE_RAW_VALIDATE:
            ASK(answer, !error && [request validate]);
            break;
        case ANEX_ANE_RAW_MAP:
            ASK(answer, [raw->model mapIOSurfacesWithRequest:request cacheInference:NO error:&error]);
            if (answer->yes) [raw->model unmapIOSurfacesWithRequest:request];
            break;
        }
    }
}

/* Ask for a chain of one program whose output is its own next input: what published attempts sent. */
void anex_ane_raw_chain(anex_ane_raw *raw, const anex_ane_raw_run *run, anex_ane_answer *answer) {
    @autoreleasepool {
        id<ANEBufferClass> buffers = (id)NSClassFromString(@"_ANEBuffer");
        id<ANEOutputSetsClass> sets = (id)NSClassFromString(@"_ANEIOSurfaceOutputSets");
        id<ANEChainingRequestClass> requests = (id)NSClassFromString(@"_ANEChainingRequest");
        NSNumber *zero = [NSNumber numberWithInt:0];
        id request = nil;
        if (!buffers || !sets || !requests) {
            memset(answer, 0, sizeof *answer);
            snprintf(answer->text, sizeof answer->text, "a class of chaining is missing");
            return;
        }
        ASK(answer,
            !error &&
                (request = [requests
                     chainingRequestWithInputs:[NSArray arrayWithObject:[buffers bufferWithIOSurfaceObject:wrap(run->inputs[0].memory)
                                                                                              symbolIndex:zero
                                                                                                   source:0]]
                                    outputSets:[NSArray
                                                   arrayWithObject:
                                                       [sets objectWithstatsSurRef:anex_surface_ref(run->weights->surface)
                                                                      outputBuffer:[NSArray arrayWithObject:
                                                                                       [buffers bufferWithIOSurfaceObject:wrap(run->outputs[0].memory)
                                                                                                              symbolIndex:zero
                                                                                                                   source:1]]]]
                               lbInputSymbolId:[NSArray arrayWithObject:zero]
                              lbOutputSymbolId:[NSArray arrayWithObject:zero]
                                procedureIndex:zero
                                  signalEvents:[NSArray array]
                             transactionHandle:zero
                                fwEnqueueDelay:zero
                                  memoryPoolId:zero]) != nil);
        if (!request) return;
        ASK(answer, [anex_ane_client(NULL) prepareChainingWithModel:[raw->model model]
                                                            options:[NSDictionary dictionary]
                                                        chainingReq:request
                                                                qos:run->qos
                                                              error:&error]);
    }
}

int32_t anex_ane_raw_qos(anex_ane_qos *classes, int32_t room, anex_ane_answer *answer) {
    int32_t n = 0;
    @autoreleasepool {
        id<ANEQoSMapperClass> mapper = (id)NSClassFromString(@"_ANEQoSMapper");
#define QOS(label, message)                                                          \
    do {                                                                             \
        ASK(answer, !error && mapper && (classes[n].value = [mapper message], YES)); \
        classes[n].name = label;                                                     \
        if (answer->yes) n++;                                                                                                    \
    } while (0)
        if (room < 6) return 0;
        QOS("real_time", aneRealTimeTaskQoS);
        QOS("background", aneBackgroundTaskQoS);
        QOS("utility", aneUtilityTaskQoS);
        QOS("default", aneDefaultTaskQoS);
        QOS("user_initiated", aneUserInitiatedTaskQoS);
        QOS("user_interactive", aneUserInteractiveTaskQoS);
#undef QOS
    }
    return n;
}
