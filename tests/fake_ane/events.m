/* What chained and shared-event requests are fed with: made, and kept. Nothing here ever signals. */
#import "fake.h"

enum { SIGNAL_TYPES = 6, INPUTS = 255 };

@interface _ANEInputBuffersReady : NSObject {
    unsigned procedure;
    NSArray *indices, *values;
    unsigned long long delay;
}
@end

@implementation _ANEInputBuffersReady
+ (id)inputBuffersWithProcedureIndex:(unsigned)procedure
                inputBufferInfoIndex:(NSArray *)indices
                      inputFreeValue:(NSArray *)values
                      executionDelay:(unsigned long long)delay {
    _ANEInputBuffersReady *made = [[[self alloc] init] autorelease];
    made->procedure = procedure;
    made->indices = [indices retain];
    made->values = [values retain];
    made->delay = delay;
    return made;
}
- (void)dealloc {
    [indices release];
    [values release];
    [super dealloc];
}
- (BOOL)validate {
    return [indices count] && [indices count] <= INPUTS && [indices count] == [values count];
}
@end

@interface _ANEOutputSetEnqueue : NSObject {
    unsigned procedure, set;
    unsigned long long signal;
    BOOL isSilent, isOpen;
}
@end

@implementation _ANEOutputSetEnqueue
+ (id)outputSetWithProcedureIndex:(unsigned)procedure
                         setIndex:(unsigned)set
                      signalValue:(unsigned long long)value
                signalNotRequired:(BOOL)isSilent
                       isOpenLoop:(BOOL)isOpen {
    _ANEOutputSetEnqueue *made = [[[self alloc] init] autorelease];
    made->procedure = procedure;
    made->set = set;
    made->signal = value;
    made->isSilent = isSilent;
    made->isOpen = isOpen;
    return made;
}
@end

@interface _ANESharedSignalEvent : NSObject {
    unsigned long long value;
    unsigned symbol;
    long long eventType;
    id event;
}
@end

@implementation _ANESharedSignalEvent
+ (id)new {
    return nil;
}
+ (id)signalEventWithValue:(unsigned long long)value
               symbolIndex:(unsigned)symbol
                 eventType:(long long)type
               sharedEvent:(id)event {
    _ANESharedSignalEvent *made = NSAllocateObject(self, 0, NULL);
    made->value = value;
    made->symbol = symbol;
    made->eventType = type >= 0 && type < SIGNAL_TYPES ? type : 0;
    made->event = [event retain];
    return [made autorelease];
}
- (id)init {
    [super dealloc];
    return nil;
}
- (void)dealloc {
    [event release];
    [super dealloc];
}
- (long long)eventType {
    return eventType;
}
@end

@interface _ANESharedWaitEvent : NSObject {
    unsigned long long value;
    id event;
}
@end

@implementation _ANESharedWaitEvent
+ (id)new {
    return nil;
}
+ (id)waitEventWithValue:(unsigned long long)value sharedEvent:(id)event {
    _ANESharedWaitEvent *made = NSAllocateObject(self, 0, NULL);
    made->value = value;
    made->event = [event retain];
    return [made autorelease];
}
- (id)init {
    [super dealloc];
    return nil;
}
- (void)dealloc {
    [event release];
    [super dealloc];
}
@end

@implementation _ANESharedEvents
+ (id)new {
    return nil;
}
+ (id)sharedEventsWithSignalEvents:(NSArray *)signals waitEvents:(NSArray *)waits {
    _ANESharedEvents *made = NSAllocateObject(self, 0, NULL);
    made->signalEvents = [signals retain];
    made->waitEvents = [waits retain];
    return [made autorelease];
}
- (id)init {
    [super dealloc];
    return nil;
}
- (void)dealloc {
    [signalEvents release];
    [waitEvents release];
    [super dealloc];
}
- (NSArray *)signalEvents {
    return signalEvents;
}
- (NSArray *)waitEvents {
    return waitEvents;
}
@end
