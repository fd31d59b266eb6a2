/* What the parts of the stand-in know of each other. private.h's class protocols come with + in place of -
   (build.py writes private_plus.h), so that a class that adopts them must have the class methods.

   Every class and method bears the name it has in AppleNeuralEngine.framework. */
#ifndef FAKE_H
#define FAKE_H

#import "private_plus.h"

#include "anex.h"
#include "faults.h"
#include "interpreter.h"

typedef const struct __CFDictionary *CFDictionaryRef;
typedef const struct __CFString *CFStringRef;
typedef const void *CFTypeRef;

@class _ANEModel, _ANEProgramForEvaluation, _ANERequest;

/* ---- errors.m ---- */

extern NSString *const FakeDomain, *const FakeCompilerDomain;
NSError *fake_error(int code, SEL selector, NSString *text);
/* The generic code's own text: "<selector>: Program load failure". */
NSError *fake_generic_error(int code, SEL selector);
/* The error that the fault at this point names by code or status, or else the usual one. */
NSError *fake_chosen_error(fake_switch point, SEL selector, NSError *usual);
/* As the framework writes them: only a failure with an error is written. Always NO. */
BOOL fake_fail(NSError **to, NSError *error);
/* NO, with the chosen error if the fault is a loud one. */
BOOL fake_refuse(NSError **to, fake_fault fault, fake_switch point, SEL selector, NSError *usual);
void fake_raise(NSString *name, NSString *format, ...) NS_FORMAT_FUNCTION(2, 3);
/* fake_fault_at, and the exception if that is what it shall be; counts messages that came without a pool. */
fake_fault fake_enter(fake_switch point);
void fake_check_pool(void);
/* nil unless the machine, as the switches have it, cannot run programs. */
NSError *fake_no_hardware(SEL selector);

/* ---- surface.m ---- */

typedef struct fake_surface fake_surface; /* what processes share of a surface: see surface.m */
FAKE_EXPORT IOSurfaceRef IOSurfaceCreate(CFDictionaryRef properties);
FAKE_EXPORT void *IOSurfaceGetBaseAddress(IOSurfaceRef surface);
FAKE_EXPORT size_t IOSurfaceGetAllocSize(IOSurfaceRef surface);
/* Before an evaluation: count surfaces that are locked or were written without a lock. After it: remember. */
void fake_surface_inspect(IOSurfaceRef surface);
void fake_surface_wrote(IOSurfaceRef surface);

/* ---- cache.m: compiled programs by identifier, in a directory that processes may share ---- */

BOOL fake_cache_has(NSString *identifier);
BOOL fake_cache_put(NSString *identifier, NSData *text, NSDictionary *blobs); /* {BLOBFILE path: NSData} */
BOOL fake_cache_get(NSString *identifier, NSData **text, NSDictionary **blobs);
void fake_cache_purge(NSString *identifier);

/* ---- compiler.m ---- */

/* What the compiler daemon does with <tmp>/<identifier>: why not, or nil, and it is in the cache. */
NSString *fake_compile(NSString *identifier, NSString *directory, NSData *text);
mil_program *fake_parse(NSData *text, NSDictionary *blobs, NSString **why);

/* ---- attributes.m ---- */

/* One input or output in the compiled program's tables. */
typedef struct fake_symbol {
    int procedure, port; /* port: in the declared order */
    int64_t batches, batch_stride, plane_stride, row_stride, width, height, channels;
    anex_tensor tensor; /* shape, dtype and strides of the declared tensor in a surface */
} fake_symbol;

typedef struct fake_symbols {
    int count;
    fake_symbol *items; /* in the table's order */
} fake_symbols;

fake_symbols fake_symbols_of(const mil_program *program, int is_output);
NSDictionary *fake_attributes(const mil_program *program, const fake_symbols tables[2]);

/* ---- service.m ---- */

/* Wait for a place in the queue, as long as queue_wait says; NO if there was none. */
BOOL fake_queue_enter(void);
/* Run a request on the service's thread and call its completion handler. Leaves the queue. */
void fake_queue_run(_ANEProgramForEvaluation *program, _ANERequest *request, unsigned mask);

/* ---- classes ---- */

@interface _ANEInMemoryModelDescriptor : NSObject <ANEDescriptor, ANEDescriptorClass> {
    NSData *text, *options;
    NSDictionary *weights;
    NSString *textHash, *weightsHash, *optionsHash;
    BOOL isMIL;
}
- (id)initWithNetworkText:(NSData *)text
                  weights:(NSDictionary *)weights
             optionsPlist:(NSData *)options
               isMILModel:(BOOL)isMIL;
- (NSData *)networkText;
- (NSData *)optionsPlist;
- (NSDictionary *)weights;
- (NSString *)networkTextHash;
- (BOOL)isMILModel;
@end

@interface _ANEInMemoryModel : NSObject <ANEModel, ANEModelClass> {
    _ANEInMemoryModelDescriptor *descriptor;
    NSData *text; /* outlives the descriptor, which goes when the files are saved */
    NSString *identifier, *optionsFileName;
    _ANEModel *model;
    NSURL *modelURL;
    unsigned perfStatsMask;
    BOOL isMIL, isSaved;
}
- (id)initWithDesctiptor:(_ANEInMemoryModelDescriptor *)descriptor;
- (_ANEProgramForEvaluation *)program;
- (unsigned long long)string_id;
@end

/* ---- client.m ---- */

@interface _ANEClient : NSObject <ANEClient, ANEClientClass>
@end

/* ---- mil_model.m ---- */

@interface _ANEModel : NSObject {
    NSURL *modelURL;
    NSString *key;
    NSDictionary *modelAttributes;
    _ANEProgramForEvaluation *program;
    unsigned long long string_id, state, programHandle, intermediateBufferHandle;
    signed char queueDepth;
    unsigned perfStatsMask;
}
+ (id)modelAtURL:(NSURL *)url key:(NSString *)key;
- (void)updateModelAttributes:(NSDictionary *)attributes
                        state:(unsigned long long)state
                programHandle:(unsigned long long)handle
     intermediateBufferHandle:(unsigned long long)buffer
                   queueDepth:(signed char)depth;
- (void)setProgram:(_ANEProgramForEvaluation *)program;
- (void)setState:(unsigned long long)state;
- (void)setPerfStatsMask:(unsigned)mask;
- (void)resetOnUnload;
- (_ANEProgramForEvaluation *)program;
- (NSURL *)modelURL;
- (NSString *)key;
- (NSDictionary *)modelAttributes;
- (unsigned long long)string_id;
- (unsigned long long)state;
- (unsigned long long)programHandle;
- (unsigned long long)intermediateBufferHandle;
- (signed char)queueDepth;
- (unsigned)perfStatsMask;
@end

/* ---- program.m ---- */

@interface _ANEProgramForEvaluation : NSObject {
    mil_program *program;
    fake_symbols tables[2]; /* inputs, outputs */
    NSDictionary *attributes;
    unsigned long long programHandle;
    BOOL isForgotten, isLoaded;
}
/* nil if the load limit is reached, or the text or the blobs are wrong */
- (id)initWithText:(NSData *)text blobs:(NSDictionary *)blobs error:(NSError **)error selector:(SEL)selector;
- (BOOL)processRequest:(_ANERequest *)request
                 model:(id)model
                   qos:(unsigned)qos
                qIndex:(unsigned long long)queue
         modelStringID:(unsigned long long)string_id
               options:(NSDictionary *)options
           returnValue:(unsigned *)value
                 error:(NSError **)error;
/* Synchronously, here: 0, or the driver's status. */
- (unsigned)run:(_ANERequest *)request mask:(unsigned)mask;
- (NSDictionary *)attributes;
- (unsigned long long)programHandle;
- (void)unload;
@end
NSError *fake_status_error(unsigned status);

/* ---- request.m, surface_object.m, performance.m ---- */

@interface _ANEIOSurfaceObject : NSObject <ANESurfaceObject, ANESurfaceObjectClass> {
    IOSurfaceRef surface;
    NSNumber *startOffset;
}
- (id)initWithIOSurface:(IOSurfaceRef)surface startOffset:(NSNumber *)offset shouldRetain:(BOOL)retain;
- (NSNumber *)startOffset;
@end

@interface _ANEPerformanceStatsIOSurface : NSObject <ANEPerformanceStatsSurfaceClass> {
    _ANEIOSurfaceObject *stats;
    long long statType;
}
- (_ANEIOSurfaceObject *)stats;
- (long long)statType;
@end

@interface _ANEPerformanceStats : NSObject <ANEPerformanceStats> {
    unsigned long long hwExecutionTime;
    NSData *counters;
}
+ (id)statsWithHardwareExecutionNS:(unsigned long long)ns;
+ (unsigned)driverMaskForANEFMask:(unsigned)mask;
@end
/* Leave in the request what a run of so many nanoseconds would have measured. */
void fake_measure(_ANERequest *request, unsigned mask, uint64_t nanoseconds, int64_t bytes_read, int64_t bytes_written);

@interface _ANESharedEvents : NSObject {
    NSArray *signalEvents, *waitEvents;
}
+ (id)sharedEventsWithSignalEvents:(NSArray *)signals waitEvents:(NSArray *)waits;
- (NSArray *)signalEvents;
- (NSArray *)waitEvents;
@end

@interface _ANERequest : NSObject <ANERequest, ANERequestClass> {
    NSArray *inputArray, *inputIndexArray, *outputArray, *outputIndexArray, *perfStatsArray;
    _ANEIOSurfaceObject *weightsBuffer;
    NSNumber *procedureIndex, *transactionHandle;
    _ANEPerformanceStats *perfStats;
    _ANESharedEvents *sharedEvents;
    ANECompletion completionHandler;
}
- (id)initWithInputs:(NSArray *)inputs
        inputIndices:(NSArray *)inputIndices
             outputs:(NSArray *)outputs
       outputIndices:(NSArray *)outputIndices
       weightsBuffer:(id)weights
           perfStats:(NSArray *)stats
      procedureIndex:(NSNumber *)procedure
        sharedEvents:(_ANESharedEvents *)events
   transactionHandle:(NSNumber *)transaction;
- (NSArray *)inputArray;
- (NSArray *)inputIndexArray;
- (NSArray *)outputArray;
- (NSArray *)outputIndexArray;
- (NSArray *)perfStatsArray;
- (NSNumber *)procedureIndex;
- (_ANESharedEvents *)sharedEvents;
- (void)setPerfStats:(_ANEPerformanceStats *)stats;
@end

#endif
