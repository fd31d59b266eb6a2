/* _ANEClient: the connection to the daemon. To compile and load through it, one needs an entitlement. */
#import "fake.h"

@implementation _ANEClient
+ (id<ANEClient>)sharedConnection {
    static _ANEClient *shared;
    fake_check_pool();
    @synchronized(self) {
        if (!shared) shared = [[self alloc] init];
        return shared;
    }
}
+ (id)sharedPrivateConnection {
    return nil;
}
- (id)initWithRestrictedAccessAllowed:(BOOL)allowed {
    (void)allowed;
    return [self init];
}

/* ---- evaluating what is loaded: an _ANEInMemoryModel or its _ANEModel ---- */

static BOOL process(SEL selector, fake_switch point, id model, NSDictionary *options, id request, unsigned qos,
                    NSError **error) {
    fake_add(FAKE_COUNT_evaluations, 1);
    if (fake_evaluates_nothing()) return YES;
    fake_fault fault = fake_enter(point);
    if (!fault && point != FAKE_AT_evaluate) fault = fake_enter(point = FAKE_AT_evaluate);
    if (fault) return fake_refuse(error, fault, point, selector, fake_status_error(0x16));
    if (![request validate]) return NO;
    _ANEProgramForEvaluation *program = [model respondsToSelector:@selector(program)] ? [model program] : nil;
    if (!program) {
        fake_explain("evaluate: the model is not loaded");
        return fake_fail(error, fake_is(FAKE_AT_after_unload, "silent") ? nil : fake_generic_error(23, selector));
    }
    unsigned value = 0;
    return [program processRequest:request
                             model:model
                               qos:qos
                            qIndex:0
                     modelStringID:[(_ANEModel *)model string_id]
                           options:options
                       returnValue:&value
                             error:error];
}

- (BOOL)doEvaluateDirectWithModel:(id)model
                          options:(NSDictionary *)options
                          request:(id<ANERequest>)request
                              qos:(unsigned)qos
                            error:(NSError **)error {
    return process(_cmd, FAKE_AT_evaluate, model, options, request, qos, error);
}
- (BOOL)evaluateWithModel:(id)model
                  options:(NSDictionary *)options
                  request:(id)request
                      qos:(unsigned)qos
                    error:(NSError **)error {
    return process(_cmd, FAKE_AT_evaluate, model, options, request, qos, error);
}
- (BOOL)evaluateRealTimeWithModel:(id)model
                          options:(NSDictionary *)options
                          request:(id<ANERequest>)request
                            error:(NSError **)error {
    return process(_cmd, FAKE_AT_real_time, model, options, request, 0, error);
}

- (BOOL)beginRealTimeTask {
    fake_check_pool();
    return NO;
}
- (BOOL)endRealTimeTask {
    fake_check_pool();
    return NO;
}

/* ---- programs that outlive their models ---- */

- (BOOL)compiledModelExistsMatchingHash:(NSString *)identifier {
    fake_check_pool();
    return fake_cache_has(identifier);
}
- (void)purgeCompiledModelMatchingHash:(NSString *)identifier {
    fake_check_pool();
    fake_add(FAKE_COUNT_purges, 1);
    fake_cache_purge(identifier);
}

/* ---- chaining ---- */

- (BOOL)prepareChainingWithModel:(id)model
                         options:(NSDictionary *)options
                     chainingReq:(id)request
                             qos:(unsigned)qos
                           error:(NSError **)error {
    (void)model, (void)options, (void)qos;
    fake_fault fault = fake_enter(FAKE_AT_chaining);
    if (![request validate]) return NO;
    if (fault) return fake_refuse(error, fault, FAKE_AT_chaining, _cmd, fake_generic_error(15, _cmd));
    return YES;
}
- (BOOL)buffersReadyWithModel:(id)model
                 inputBuffers:(id)buffers
                      options:(NSDictionary *)options
                          qos:(unsigned)qos
                        error:(NSError **)error {
    (void)model, (void)buffers, (void)options, (void)qos;
    if (error) *error = nil;
    return NO;
}
- (BOOL)enqueueSetsWithModel:(id)model
                   outputSet:(id)set
                     options:(NSDictionary *)options
                         qos:(unsigned)qos
                       error:(NSError **)error {
    return [self buffersReadyWithModel:model inputBuffers:set options:options qos:qos error:error];
}

- (BOOL)sessionHintWithModel:(id)model
                        hint:(NSString *)hint
                     options:(NSDictionary *)options
                      report:(NSMutableDictionary *)report
                       error:(NSError **)error {
    (void)model, (void)hint, (void)options, (void)report;
    return fake_fail(error, fake_generic_error(25, _cmd));
}

/* ---- what is refused for want of an entitlement ---- */

- (BOOL)compileModel:(id)model options:(NSDictionary *)options qos:(unsigned)qos error:(NSError **)error {
    (void)model, (void)options, (void)qos, (void)error;
    return NO;
}
- (BOOL)loadModel:(id)model options:(NSDictionary *)options qos:(unsigned)qos error:(NSError **)error {
    (void)model, (void)options, (void)qos;
    return fake_fail(error, fake_generic_error(1, _cmd));
}
- (BOOL)loadRealTimeModel:(id)model options:(NSDictionary *)options qos:(unsigned)qos error:(NSError **)error {
    (void)model, (void)options, (void)qos;
    return fake_fail(error, fake_generic_error(2, _cmd));
}
- (BOOL)mapIOSurfacesWithModel:(id)model request:(id)request cacheInference:(BOOL)cache error:(NSError **)error {
    (void)model, (void)cache;
    fake_fault fault = fake_enter(FAKE_AT_map);
    if (fault) return fake_refuse(error, fault, FAKE_AT_map, _cmd, fake_generic_error(13, _cmd));
    return [request validate];
}
- (void)unmapIOSurfacesWithModel:(id)model request:(id)request {
    (void)model, (void)request;
}

- (BOOL)echo:(id)payload {
    (void)payload;
    return YES;
}
- (BOOL)isVirtualClient {
    fake_check_pool();
    return fake_flag(FAKE_AT_virtual_machine);
}
- (BOOL)isRootDaemon {
    return NO;
}
- (BOOL)allowRestrictedAccess {
    return NO;
}
@end
