/* Chained requests: made and checked as the framework does, refused by the client. */
#import "fake.h"

@interface _ANEBuffer : NSObject <ANEBufferClass> {
    id surface;
    NSNumber *symbolIndex;
    long long source;
}
@end

@implementation _ANEBuffer
+ (id)bufferWithIOSurfaceObject:(id<ANESurfaceObject>)object symbolIndex:(NSNumber *)index source:(long long)from {
    if (!object || !index) return nil;
    _ANEBuffer *made = [[[self alloc] init] autorelease];
    made->surface = [(id)object retain];
    made->symbolIndex = [index retain];
    made->source = from;
    return made;
}
- (void)dealloc {
    [surface release];
    [symbolIndex release];
    [super dealloc];
}
- (id)ioSurfaceObject {
    return surface;
}
- (NSNumber *)symbolIndex {
    return symbolIndex;
}
- (long long)source {
    return source;
}
@end

@interface _ANEIOSurfaceOutputSets : NSObject <ANEOutputSetsClass> {
    id stats;
    NSArray *outputBuffer;
}
@end

@implementation _ANEIOSurfaceOutputSets
+ (id)objectWithstatsSurRef:(IOSurfaceRef)surface outputBuffer:(NSArray *)buffers {
    if (!surface || ![buffers count]) return nil;
    _ANEIOSurfaceOutputSets *made = [[[self alloc] init] autorelease];
    made->stats = [(id)surface retain];
    made->outputBuffer = [buffers retain];
    return made;
}
- (void)dealloc {
    [stats release];
    [outputBuffer release];
    [super dealloc];
}
- (NSArray *)outputBuffer {
    return outputBuffer;
}
@end

@interface _ANEChainingRequest : NSObject <ANEChainingRequestClass> {
    NSArray *inputBuffer, *outputSets, *loopbackInputSymbolIndex, *loopbackOutputSymbolIndex, *signalEvents;
    NSNumber *procedureIndex, *transactionHandle, *fwEnqueueDelay, *memoryPoolId;
}
@end

@implementation _ANEChainingRequest
+ (id)chainingRequestWithInputs:(NSArray *)inputs
                     outputSets:(NSArray *)sets
                lbInputSymbolId:(NSArray *)loopbackInputs
               lbOutputSymbolId:(NSArray *)loopbackOutputs
                 procedureIndex:(NSNumber *)procedure
                   signalEvents:(NSArray *)events
              transactionHandle:(NSNumber *)transaction
                 fwEnqueueDelay:(NSNumber *)delay
                   memoryPoolId:(NSNumber *)pool {
    _ANEChainingRequest *made = [[[self alloc] init] autorelease];
    made->inputBuffer = [inputs retain];
    made->outputSets = [sets retain];
    made->loopbackInputSymbolIndex = [loopbackInputs retain];
    made->loopbackOutputSymbolIndex = [loopbackOutputs retain];
    made->procedureIndex = [procedure retain];
    made->signalEvents = [events retain];
    made->transactionHandle = [transaction retain];
    made->fwEnqueueDelay = [delay retain];
    made->memoryPoolId = [pool retain];
    return made;
}
- (void)dealloc {
    [inputBuffer release];
    [outputSets release];
    [loopbackInputSymbolIndex release];
    [loopbackOutputSymbolIndex release];
    [procedureIndex release];
    [signalEvents release];
    [transactionHandle release];
    [fwEnqueueDelay release];
    [memoryPoolId release];
    [super dealloc];
}
/* A number where a list belongs does not know `count`, and raises. */
- (BOOL)validate {
    if (![inputBuffer count] || ![outputSets count]) return NO;
    if ([loopbackInputSymbolIndex count] != [loopbackOutputSymbolIndex count]) return NO;
    return [signalEvents count] <= 64;
}
- (NSArray *)inputBuffer {
    return inputBuffer;
}
- (NSArray *)outputSets {
    return outputSets;
}
- (NSNumber *)procedureIndex {
    return procedureIndex;
}
@end
