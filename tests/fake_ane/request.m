/* _ANERequest: what goes where. The factories check nothing; `validate`, which every evaluation calls, does. */
#import "fake.h"

#include <Block.h>

enum { MAX_BUFFERS = 255, MAX_SYMBOL = 254, MAX_PROCEDURES = 128, MAX_EVENTS = 64, STAT_TYPES = 3 };

@implementation _ANERequest
+ (id)requestWithInputs:(NSArray *)inputs
           inputIndices:(NSArray *)inputIndices
                outputs:(NSArray *)outputs
          outputIndices:(NSArray *)outputIndices
          weightsBuffer:(id)weights
              perfStats:(NSArray *)stats
         procedureIndex:(NSNumber *)procedure
           sharedEvents:(_ANESharedEvents *)events
      transactionHandle:(NSNumber *)transaction {
    if (fake_enter(FAKE_AT_request)) return nil;
    return [[[self alloc] initWithInputs:inputs
                            inputIndices:inputIndices
                                 outputs:outputs
                           outputIndices:outputIndices
                           weightsBuffer:weights
                               perfStats:stats
                          procedureIndex:procedure
                            sharedEvents:events
                       transactionHandle:transaction] autorelease];
}

+ (id)requestWithInputs:(NSArray *)inputs
           inputIndices:(NSArray *)inputIndices
                outputs:(NSArray *)outputs
          outputIndices:(NSArray *)outputIndices
          weightsBuffer:(id)weights
              perfStats:(NSArray *)stats
         procedureIndex:(NSNumber *)procedure
           sharedEvents:(_ANESharedEvents *)events {
    return [self requestWithInputs:inputs
                      inputIndices:inputIndices
                           outputs:outputs
                     outputIndices:outputIndices
                     weightsBuffer:weights
                         perfStats:stats
                    procedureIndex:procedure
                      sharedEvents:events
                 transactionHandle:nil];
}

+ (id<ANERequest>)requestWithInputs:(NSArray *)inputs
                       inputIndices:(NSArray *)inputIndices
                            outputs:(NSArray *)outputs
                      outputIndices:(NSArray *)outputIndices
                      weightsBuffer:(id<ANESurfaceObject>)weights
                          perfStats:(NSArray *)stats
                     procedureIndex:(NSNumber *)procedure {
    return [self requestWithInputs:inputs
                      inputIndices:inputIndices
                           outputs:outputs
                     outputIndices:outputIndices
                     weightsBuffer:weights
                         perfStats:stats
                    procedureIndex:procedure
                      sharedEvents:nil
                 transactionHandle:nil];
}

+ (id)requestWithInputs:(NSArray *)inputs
           inputIndices:(NSArray *)inputIndices
                outputs:(NSArray *)outputs
          outputIndices:(NSArray *)outputIndices
          weightsBuffer:(id)weights
         procedureIndex:(NSNumber *)procedure {
    return [self requestWithInputs:inputs
                      inputIndices:inputIndices
                           outputs:outputs
                     outputIndices:outputIndices
                     weightsBuffer:weights
                         perfStats:nil
                    procedureIndex:procedure];
}

+ (id)requestWithInputs:(NSArray *)inputs
           inputIndices:(NSArray *)inputIndices
                outputs:(NSArray *)outputs
          outputIndices:(NSArray *)outputIndices
              perfStats:(NSArray *)stats
         procedureIndex:(NSNumber *)procedure {
    return [self requestWithInputs:inputs
                      inputIndices:inputIndices
                           outputs:outputs
                     outputIndices:outputIndices
                     weightsBuffer:nil
                         perfStats:stats
                    procedureIndex:procedure];
}

+ (id)requestWithInputs:(NSArray *)inputs
           inputIndices:(NSArray *)inputIndices
                outputs:(NSArray *)outputs
          outputIndices:(NSArray *)outputIndices
         procedureIndex:(NSNumber *)procedure {
    return [self requestWithInputs:inputs
                      inputIndices:inputIndices
                           outputs:outputs
                     outputIndices:outputIndices
                         perfStats:nil
                    procedureIndex:procedure];
}

- (id)initWithInputs:(NSArray *)inputs
        inputIndices:(NSArray *)inputIndices
             outputs:(NSArray *)outputs
       outputIndices:(NSArray *)outputIndices
       weightsBuffer:(id)weights
           perfStats:(NSArray *)stats
      procedureIndex:(NSNumber *)procedure
        sharedEvents:(_ANESharedEvents *)events
   transactionHandle:(NSNumber *)transaction {
    self = [super init];
    inputArray = [inputs retain];
    inputIndexArray = [inputIndices retain];
    outputArray = [outputs retain];
    outputIndexArray = [outputIndices retain];
    weightsBuffer = [weights retain];
    perfStatsArray = [stats retain];
    procedureIndex = [procedure retain];
    sharedEvents = [events retain];
    transactionHandle = [transaction retain];
    fake_add(FAKE_COUNT_live_requests, 1);
    fake_add(FAKE_COUNT_requests, 1);
    return self;
}

- (id)init {
    return [self initWithInputs:nil
                   inputIndices:nil
                        outputs:nil
                  outputIndices:nil
                  weightsBuffer:nil
                      perfStats:nil
                 procedureIndex:nil
                   sharedEvents:nil
              transactionHandle:nil];
}

- (void)dealloc {
    [inputArray release];
    [inputIndexArray release];
    [outputArray release];
    [outputIndexArray release];
    [weightsBuffer release];
    [perfStatsArray release];
    [procedureIndex release];
    [perfStats release];
    [sharedEvents release];
    [transactionHandle release];
    if (completionHandler) Block_release(completionHandler);
    fake_add(FAKE_COUNT_live_requests, -1);
    [super dealloc];
}

static const char *objection_to(NSArray *surfaces, NSArray *indices) {
    if (![surfaces count] || ![indices count]) return "there are no surfaces or no indices";
    if ([surfaces count] > MAX_BUFFERS) return "there are more than 255 surfaces";
    if ([surfaces count] != [indices count]) return "there are not as many indices as surfaces";
    for (NSNumber *index in indices)
        if ([index unsignedIntegerValue] > MAX_SYMBOL) return "an index is above 254";
    return NULL;
}

static const char *objection_to_stats(NSArray *stats) {
    bool is_used[STAT_TYPES] = {false};
    for (_ANEPerformanceStatsIOSurface *surface in stats) {
        long long type = [surface statType];
        if (type < 0 || type >= STAT_TYPES) return "a statType is outside 0 to 2";
        if (is_used[type]) return "a statType is used twice";
        is_used[type] = true;
    }
    return NULL;
}

- (BOOL)validate {
    const char *why = objection_to(inputArray, inputIndexArray);
    if (!why) why = objection_to(outputArray, outputIndexArray);
    if (!why && [procedureIndex unsignedIntegerValue] > MAX_PROCEDURES) why = "the procedure's index is above 128";
    if (!why) why = objection_to_stats(perfStatsArray);
    if (!why && ([[sharedEvents signalEvents] count] > MAX_EVENTS || [[sharedEvents waitEvents] count] > MAX_EVENTS))
        why = "there are more than 64 events";
    if (why) fake_explain("request: %s", why);
    return why == NULL;
}

- (unsigned long long)ioSurfacesCount {
    return [inputArray count] + [outputArray count] + (weightsBuffer != nil);
}
- (NSArray *)inputArray {
    return inputArray;
}
- (NSArray *)inputIndexArray {
    return inputIndexArray;
}
- (NSArray *)outputArray {
    return outputArray;
}
- (NSArray *)outputIndexArray {
    return outputIndexArray;
}
- (NSArray *)perfStatsArray {
    return perfStatsArray;
}
- (id)weightsBuffer {
    return weightsBuffer;
}
- (NSNumber *)procedureIndex {
    return procedureIndex;
}
- (NSNumber *)transactionHandle {
    return transactionHandle;
}
- (_ANESharedEvents *)sharedEvents {
    return sharedEvents;
}
- (id<ANEPerformanceStats>)perfStats {
    @synchronized(self) {
        return [[perfStats retain] autorelease];
    }
}
- (void)setPerfStats:(_ANEPerformanceStats *)stats {
    @synchronized(self) {
        [perfStats autorelease];
        perfStats = [stats retain];
    }
}
- (ANECompletion)completionHandler {
    return completionHandler;
}
- (void)setCompletionHandler:(ANECompletion)handler {
    ANECompletion old = completionHandler;
    completionHandler = handler ? Block_copy(handler) : NULL;
    if (old) Block_release(old);
}
@end
