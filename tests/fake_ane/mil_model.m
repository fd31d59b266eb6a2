/* _ANEModel: what an in-memory model becomes once it is compiled or loaded. */
#import "fake.h"

enum { CREATED = 1, UNLOADED = 5, IDENTIFIED_BY_DEFAULT = 1 };

@implementation _ANEModel
+ (id)new {
    return nil;
}
- (id)init {
    [super dealloc];
    return nil;
}

+ (id)modelAtURL:(NSURL *)url key:(NSString *)key {
    static unsigned long long ids;
    if (!key) return nil;
    _ANEModel *made = NSAllocateObject(self, 0, NULL);
    made->modelURL = [url retain];
    made->key = [key copy];
    made->state = CREATED;
    made->string_id = __sync_add_and_fetch(&ids, 1);
    return [made autorelease];
}
+ (id)modelAtURL:(NSURL *)url key:(NSString *)key modelAttributes:(NSDictionary *)attributes {
    _ANEModel *made = [self modelAtURL:url key:key];
    if (made) made->modelAttributes = [attributes retain];
    return made;
}

- (void)dealloc {
    [modelURL release];
    [key release];
    [modelAttributes release];
    [program release];
    [super dealloc];
}

- (void)updateModelAttributes:(NSDictionary *)attributes
                        state:(unsigned long long)newState
                programHandle:(unsigned long long)handle
     intermediateBufferHandle:(unsigned long long)buffer
                   queueDepth:(signed char)depth {
    @synchronized(self) {
        [modelAttributes autorelease];
        modelAttributes = [attributes retain];
        state = newState;
        programHandle = handle;
        intermediateBufferHandle = buffer;
        queueDepth = depth;
    }
}

- (void)resetOnUnload {
    [self updateModelAttributes:nil state:UNLOADED programHandle:0 intermediateBufferHandle:0 queueDepth:0];
    [self setProgram:nil];
}

- (void)setProgram:(_ANEProgramForEvaluation *)loaded {
    @synchronized(self) {
        [program autorelease];
        program = [loaded retain];
    }
}

/* The compiled program's tables say which symbols a procedure reads or writes. */
- (id)procedureInfoForProcedureIndex:(unsigned)index {
    NSArray *all = [[[self modelAttributes] objectForKey:@"ANEFModelDescription"] objectForKey:@"ANEFModelProcedures"];
    return index < [all count] ? [all objectAtIndex:index] : nil;
}
- (NSIndexSet *)symbolIndicesForProcedureIndex:(unsigned)index indexArrayKey:(NSString *)name {
    NSMutableIndexSet *set = [NSMutableIndexSet indexSet];
    for (NSNumber *symbol in [[self procedureInfoForProcedureIndex:index] objectForKey:name])
        [set addIndex:[symbol unsignedIntegerValue]];
    return set;
}
- (NSIndexSet *)inputSymbolIndicesForProcedureIndex:(unsigned)index {
    return [self symbolIndicesForProcedureIndex:index indexArrayKey:@"ANEFModelInputSymbolIndexArray"];
}
- (NSIndexSet *)outputSymbolIndicesForProcedureIndex:(unsigned)index {
    return [self symbolIndicesForProcedureIndex:index indexArrayKey:@"ANEFModelOutputSymbolIndexArray"];
}

- (_ANEProgramForEvaluation *)program {
    @synchronized(self) {
        return [[program retain] autorelease];
    }
}
- (NSDictionary *)modelAttributes {
    @synchronized(self) {
        return [[modelAttributes retain] autorelease];
    }
}
- (NSURL *)modelURL {
    return modelURL;
}
- (NSString *)key {
    return key;
}
- (long long)identifierSource {
    return IDENTIFIED_BY_DEFAULT;
}
- (unsigned long long)string_id {
    return string_id;
}
- (unsigned long long)state {
    return state;
}
- (void)setState:(unsigned long long)newState {
    state = newState;
}
- (unsigned long long)programHandle {
    return programHandle;
}
- (unsigned long long)intermediateBufferHandle {
    return intermediateBufferHandle;
}
- (signed char)queueDepth {
    return queueDepth;
}
- (unsigned)perfStatsMask {
    return perfStatsMask;
}
- (void)setPerfStatsMask:(unsigned)mask {
    perfStatsMask = mask;
}
@end
