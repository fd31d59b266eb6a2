/* _ANEInMemoryModel: compile, load, evaluate, unload. */
#import "fake.h"

enum { CREATED = 1, LOADED = 3, QUEUE_DEPTH = 127, COMPILER_ERROR = 1 };

NSString *fake_first_key(NSDictionary *entry);

@implementation _ANEInMemoryModel
+ (id)new {
    return nil;
}
- (id)init {
    return [self initWithDesctiptor:nil];
}

+ (id<ANEModel>)inMemoryModelWithDescriptor:(id<ANEDescriptor>)from {
    if (fake_enter(FAKE_AT_model)) return nil;
    return [[[self alloc] initWithDesctiptor:(_ANEInMemoryModelDescriptor *)from] autorelease];
}

- (id)initWithDesctiptor:(_ANEInMemoryModelDescriptor *)from {
    self = [super init];
    fake_add(FAKE_COUNT_live_models, 1);
    if (![from isKindOfClass:[_ANEInMemoryModelDescriptor class]]) {
        [self release];
        return nil;
    }
    descriptor = [from retain];
    text = [[from networkText] retain];
    identifier = [[from hexStringIdentifier] copy];
    isMIL = [from isMILModel];
    return self;
}

/* Does not unload: who forgets to leaves the program loaded, as long as the model's own program object lives. */
- (void)dealloc {
    [descriptor release];
    [text release];
    [identifier release];
    [optionsFileName release];
    [model release];
    [modelURL release];
    fake_add(FAKE_COUNT_live_models, -1);
    [super dealloc];
}

- (NSString *)hexStringIdentifier {
    fake_check_pool();
    return identifier;
}
- (NSString *)localModelPath {
    fake_check_pool();
    return [NSTemporaryDirectory() stringByAppendingPathComponent:identifier];
}

/* Once: the text as net.plist, and of each weight the first value under the first key's name, hence `data`. */
- (NSURL *)saveModelFiles {
    if (isSaved) return modelURL;
    NSString *folder = [self localModelPath];
    NSFileManager *files = [NSFileManager defaultManager];
    BOOL is_written = [files createDirectoryAtPath:folder withIntermediateDirectories:YES attributes:nil error:NULL] &&
                      [text writeToFile:[folder stringByAppendingPathComponent:@"net.plist"] atomically:NO];
    if (is_written && [descriptor optionsPlist]) {
        NSString *path = [folder stringByAppendingPathComponent:@"compiler_options.plist"];
        is_written = [[descriptor optionsPlist] writeToFile:path atomically:NO];
        optionsFileName = [@"compiler_options.plist" retain];
    }
    NSDictionary *weights = [descriptor weights];
    for (NSString *path in weights) {
        NSDictionary *entry = [weights objectForKey:path];
        NSString *key = fake_first_key(entry);
        id value = [entry objectForKey:key];
        if (is_written && [value isKindOfClass:[NSData class]])
            is_written = [value writeToFile:[folder stringByAppendingPathComponent:key] atomically:NO];
    }
    if (!is_written) {
        fake_explain("%s cannot be written", [folder UTF8String]);
        return nil;
    }
    isSaved = YES;
    modelURL = [[NSURL fileURLWithPath:folder] retain];
    [descriptor release];
    descriptor = nil;
    return modelURL;
}

- (_ANEModel *)makeModel {
    @synchronized(self) {
        if (!model) model = [[_ANEModel modelAtURL:modelURL key:@""] retain];
    }
    return model;
}

static void check_options(NSDictionary *options) {
    if (![options isKindOfClass:[NSDictionary class]])
        fake_raise(NSInvalidArgumentException, @"options must be an NSDictionary, not %@", options);
}

- (BOOL)compileWithQoS:(unsigned)qos options:(NSDictionary *)options error:(NSError **)error {
    (void)qos;
    fake_add(FAKE_COUNT_compiles, 1);
    NSError *refusal = fake_error(COMPILER_ERROR, NULL, @"_ANECompiler : ANECCompile() FAILED : InvalidMILProgram");
    fake_fault fault = fake_enter(FAKE_AT_compile);
    check_options(options);
    if (fault) return fake_refuse(error, fault, FAKE_AT_compile, _cmd, refusal);
    int64_t limit = fake_number(FAKE_AT_compile_limit);
    if (limit && fake_ane_count("compiles") > limit) {
        fake_explain("the process has compiled %lld times", (long long)limit);
        return NO;
    }
    if (![self saveModelFiles]) return NO;
    [self makeModel];
    NSError *absent = fake_no_hardware(_cmd);
    if (absent) return fake_fail(error, absent);
    NSString *why = isMIL ? fake_compile(identifier, [self localModelPath], text) : @"the network is not MIL";
    if (why) {
        fake_explain("compile: %s", [why UTF8String]);
        return fake_fail(error, refusal);
    }
    fake_add(FAKE_COUNT_compiled, 1);
    return YES;
}

- (BOOL)loadWithQoS:(unsigned)qos options:(NSDictionary *)options error:(NSError **)error {
    (void)qos;
    fake_add(FAKE_COUNT_loads, 1);
    fake_fault fault = fake_enter(FAKE_AT_load);
    check_options(options);
    if (fault) return fake_refuse(error, fault, FAKE_AT_load, _cmd, fake_generic_error(6, _cmd));
    NSError *absent = fake_no_hardware(_cmd);
    if (absent) return fake_fail(error, absent);
    NSData *cachedText = nil;
    NSDictionary *blobs = nil;
    if (!fake_cache_get(identifier, &cachedText, &blobs)) { /* the cache decides; the directory is not looked at */
        if (![self saveModelFiles]) return NO;
        fake_explain("load: no compiled program is called %s", [identifier UTF8String]);
        return fake_fail(error, fake_generic_error(17, _cmd));
    }
    _ANEProgramForEvaluation *program = [[[_ANEProgramForEvaluation alloc] initWithText:cachedText
                                                                                  blobs:blobs
                                                                                  error:error
                                                                               selector:_cmd] autorelease];
    if (!program) return NO;
    @synchronized(self) {
        [[self makeModel] updateModelAttributes:[program attributes]
                                          state:LOADED
                                  programHandle:[program programHandle]
                       intermediateBufferHandle:0
                                     queueDepth:QUEUE_DEPTH];
        NSNumber *mask = [options objectForKey:@"kANEFPerformanceStatsMask"];
        if (mask) perfStatsMask = [mask unsignedIntValue];
        [model setPerfStatsMask:perfStatsMask];
        [model setProgram:program];
    }
    fake_add(FAKE_COUNT_loaded, 1);
    return YES;
}

- (BOOL)evaluateWithQoS:(unsigned)qos
                options:(NSDictionary *)options
                request:(id<ANERequest>)request
                  error:(NSError **)error {
    fake_add(FAKE_COUNT_evaluations, 1);
    if (fake_evaluates_nothing()) return YES;
    fake_fault fault = fake_enter(FAKE_AT_evaluate);
    check_options(options);
    if (fault) return fake_refuse(error, fault, FAKE_AT_evaluate, _cmd, fake_status_error(0x16));
    if (![request validate]) return NO;
    _ANEProgramForEvaluation *program = [self program];
    if (!program) {
        fake_explain("evaluate: the model is not loaded");
        BOOL is_silent = fake_is(FAKE_AT_after_unload, "silent");
        return fake_fail(error, is_silent ? nil : fake_generic_error(23, _cmd));
    }
    unsigned value = 0;
    return [program processRequest:(_ANERequest *)request
                             model:self
                               qos:qos
                            qIndex:0
                     modelStringID:[self string_id]
                           options:options
                       returnValue:&value
                             error:error];
}

- (BOOL)unloadWithQoS:(unsigned)qos error:(NSError **)error {
    (void)qos;
    fake_add(FAKE_COUNT_unloads, 1);
    fake_fault fault = fake_enter(FAKE_AT_unload);
    if (!fault) {
        @synchronized(self) {
            [[self program] unload];
            [model resetOnUnload];
        }
    }
    /* Whatever came of it. */
    [[NSFileManager defaultManager] removeFileAtPath:[self localModelPath] handler:nil];
    if (fault) return fake_refuse(error, fault, FAKE_AT_unload, _cmd, fake_generic_error(10, _cmd));
    return YES;
}

- (BOOL)mapIOSurfacesWithRequest:(id<ANERequest>)request cacheInference:(BOOL)cache error:(NSError **)error {
    (void)cache;
    fake_fault fault = fake_enter(FAKE_AT_map);
    if (fault) return fake_refuse(error, fault, FAKE_AT_map, _cmd, fake_generic_error(13, _cmd));
    return [request validate];
}
- (void)unmapIOSurfacesWithRequest:(id<ANERequest>)request {
    (void)request;
}

- (BOOL)compiledModelExists {
    fake_check_pool();
    return fake_cache_has(identifier);
}
- (void)purgeCompiledModel {
    fake_check_pool();
    fake_add(FAKE_COUNT_purges, 1);
    fake_cache_purge(identifier);
}

- (NSDictionary *)compilerOptionsWithOptions:(NSDictionary *)options isCompiledModelCached:(BOOL)isCached {
    NSMutableDictionary *all = [NSMutableDictionary dictionaryWithDictionary:options];
    [all setObject:@"kANEFModelMIL" forKey:@"kANEFModelType"];
    [all setObject:identifier forKey:@"kANEFInMemoryModelIdentifierKey"];
    [all setObject:[NSNumber numberWithBool:isCached] forKey:@"kANEFInMemoryModelIsCachedKey"];
    if (optionsFileName) [all setObject:optionsFileName forKey:@"kANEFCompilerOptionsFilenameKey"];
    return all;
}

/* ---- getters ---- */

- (BOOL)isMILModel {
    return isMIL;
}
- (id)model {
    return model;
}
- (id)descriptor {
    return descriptor;
}
- (void)setDescriptor:(id<ANEDescriptor>)other {
    @synchronized(self) {
        [descriptor autorelease];
        descriptor = (id)[other retain];
    }
}
- (NSURL *)modelURL {
    return modelURL;
}
- (NSString *)compilerOptionsFileName {
    return optionsFileName;
}
- (id)sharedConnection {
    return [_ANEClient sharedConnection];
}
- (_ANEProgramForEvaluation *)program {
    @synchronized(self) {
        return [[[model program] retain] autorelease];
    }
}
- (NSDictionary *)modelAttributes {
    fake_check_pool();
    NSDictionary *attributes = [model modelAttributes];
    return attributes ? attributes : [NSDictionary dictionary];
}
- (unsigned long long)programHandle {
    return [model programHandle];
}
- (unsigned long long)intermediateBufferHandle {
    return [model intermediateBufferHandle];
}
- (unsigned long long)state {
    return [model state] == CREATED ? 0 : [model state];
}
- (unsigned long long)string_id {
    return [model string_id];
}
- (signed char)queueDepth {
    return [model queueDepth];
}
- (unsigned)perfStatsMask {
    return perfStatsMask;
}
- (void)setPerfStatsMask:(unsigned)mask {
    perfStatsMask = mask;
}
@end
