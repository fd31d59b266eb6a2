/* The messages that anex sends to AppleNeuralEngine.framework, and no others.

   Class methods are declared as instance methods of the class object, so that the compiler checks both:
       id<ANEModelClass> models = (id)NSClassFromString(@"_ANEInMemoryModel");
   The stand-in of the tests (tests/fake_ane) adopts the same protocols: where binding and stand-in drift
   apart, the compiler says so. Encodings that a Mac should report stand in selectors.inc. */
#ifndef ANEX_ANE_PRIVATE_H
#define ANEX_ANE_PRIVATE_H

#import <Foundation/Foundation.h>

#if __has_feature(objc_arc)
#error "csrc/ane is written for manual retain and release, on both systems"
#endif

typedef struct __IOSurface *IOSurfaceRef;

/* ---- _ANEInMemoryModelDescriptor ---- */

@protocol ANEDescriptor <NSObject>
- (NSString *)hexStringIdentifier;
@end

@protocol ANEDescriptorClass <NSObject>
/* text: UTF-8 in NSData. weights: {BLOBFILE path: {@"offset": @0, @"data": NSData}}, @{} if none.
   nil when it dislikes them. */
- (id<ANEDescriptor>)modelWithMILText:(NSData *)text weights:(NSDictionary *)weights optionsPlist:(NSData *)options;
@end

/* ---- _ANEInMemoryModel ---- */

@protocol ANERequest;
@protocol ANEProgramForEvaluation;

@protocol ANEModel <NSObject>
- (NSString *)hexStringIdentifier;
- (NSString *)localModelPath;
- (BOOL)compiledModelExists;
- (void)purgeCompiledModel;
- (BOOL)compileWithQoS:(unsigned int)qos options:(NSDictionary *)options error:(NSError **)error;
- (BOOL)loadWithQoS:(unsigned int)qos options:(NSDictionary *)options error:(NSError **)error;
- (BOOL)evaluateWithQoS:(unsigned int)qos
                options:(NSDictionary *)options
                request:(id<ANERequest>)request
                  error:(NSError **)error;
- (BOOL)unloadWithQoS:(unsigned int)qos error:(NSError **)error;
- (BOOL)mapIOSurfacesWithRequest:(id<ANERequest>)request cacheInference:(BOOL)cache error:(NSError **)error;
- (void)unmapIOSurfacesWithRequest:(id<ANERequest>)request;
- (NSDictionary *)modelAttributes;
- (id)model; /* an _ANEModel once compiled or loaded */
- (unsigned long long)programHandle;
- (unsigned long long)intermediateBufferHandle;
- (unsigned long long)state;
- (signed char)queueDepth;
- (unsigned int)perfStatsMask;
- (void)setPerfStatsMask:(unsigned int)mask;
@optional
- (void)setDescriptor:(id<ANEDescriptor>)descriptor;
@end

@protocol ANEModelClass <NSObject>
- (id<ANEModel>)inMemoryModelWithDescriptor:(id<ANEDescriptor>)descriptor;
@end

/* ---- _ANEIOSurfaceObject ---- */

@protocol ANESurfaceObject <NSObject>
- (IOSurfaceRef)ioSurface;
@end

@protocol ANESurfaceObjectClass <NSObject>
- (id<ANESurfaceObject>)objectWithIOSurface:(IOSurfaceRef)surface;
@end

/* ---- _ANEPerformanceStatsIOSurface, _ANEPerformanceStats ---- */

@protocol ANEPerformanceStatsSurfaceClass <NSObject>
- (id)objectWithIOSurface:(id<ANESurfaceObject>)surface statType:(long long)type;
@end

@protocol ANEPerformanceStats <NSObject>
- (unsigned long long)hwExecutionTime; /* ns */
- (NSData *)perfCounterData;
- (NSDictionary *)performanceCounters;
- (NSString *)stringForPerfCounter:(int)counter;
@end

/* ---- _ANERequest ---- */

typedef void (^ANECompletion)(NSError *error);

@protocol ANERequest <NSObject>
- (id<ANEPerformanceStats>)perfStats;
- (ANECompletion)completionHandler;
- (void)setCompletionHandler:(ANECompletion)handler;
- (BOOL)validate;
@end

@protocol ANERequestClass <NSObject>
- (id<ANERequest>)requestWithInputs:(NSArray *)inputs
                       inputIndices:(NSArray *)inputIndices
                            outputs:(NSArray *)outputs
                      outputIndices:(NSArray *)outputIndices
                      weightsBuffer:(id<ANESurfaceObject>)weights
                          perfStats:(NSArray *)perfStats
                     procedureIndex:(NSNumber *)procedure;
@end

/* ---- _ANEClient ---- */

@protocol ANEClient <NSObject>
- (BOOL)doEvaluateDirectWithModel:(id)model
                          options:(NSDictionary *)options
                          request:(id<ANERequest>)request
                              qos:(unsigned int)qos
                            error:(NSError **)error;
- (BOOL)evaluateRealTimeWithModel:(id)model
                          options:(NSDictionary *)options
                          request:(id<ANERequest>)request
                            error:(NSError **)error;
- (BOOL)beginRealTimeTask;
- (BOOL)endRealTimeTask;
- (BOOL)isVirtualClient;
- (BOOL)compiledModelExistsMatchingHash:(NSString *)identifier;
- (void)purgeCompiledModelMatchingHash:(NSString *)identifier;
- (BOOL)prepareChainingWithModel:(id)model
                         options:(NSDictionary *)options
                     chainingReq:(id)request
                             qos:(unsigned int)qos
                           error:(NSError **)error;
@end

@protocol ANEClientClass <NSObject>
- (id<ANEClient>)sharedConnection;
@end

/* ---- _ANEBuffer, _ANEIOSurfaceOutputSets, _ANEChainingRequest: only a probe sends these ---- */

@protocol ANEBufferClass <NSObject>
- (id)bufferWithIOSurfaceObject:(id<ANESurfaceObject>)surface symbolIndex:(NSNumber *)index source:(long long)source;
@end

@protocol ANEOutputSetsClass <NSObject>
- (id)objectWithstatsSurRef:(IOSurfaceRef)stats outputBuffer:(NSArray *)buffers;
@end

@protocol ANEChainingRequestClass <NSObject>
- (id)chainingRequestWithInputs:(NSArray *)inputs
                     outputSets:(NSArray *)outputSets
                lbInputSymbolId:(NSArray *)loopbackInputs
               lbOutputSymbolId:(NSArray *)loopbackOutputs
                 procedureIndex:(NSNumber *)procedure
                   signalEvents:(NSArray *)events
              transactionHandle:(NSNumber *)transaction
                 fwEnqueueDelay:(NSNumber *)delay
                   memoryPoolId:(NSNumber *)pool;
@end

/* ---- _ANEDeviceInfo, _ANEQoSMapper: class methods only ---- */

@protocol ANEDeviceInfoClass <NSObject>
- (BOOL)hasANE;
- (BOOL)isVirtualMachine;
- (BOOL)isInternalBuild;
- (unsigned int)numANEs;
- (unsigned int)numANECores;
- (long long)aneBoardType;
- (NSString *)aneArchitectureType;
- (NSString *)aneSubType;
- (NSString *)aneSubTypeVariant;
- (NSString *)productName;
- (NSString *)buildVersion;
@end

@protocol ANEQoSMapperClass <NSObject>
- (unsigned int)aneRealTimeTaskQoS;
- (unsigned int)aneBackgroundTaskQoS;
- (unsigned int)aneUtilityTaskQoS;
- (unsigned int)aneDefaultTaskQoS;
- (unsigned int)aneUserInitiatedTaskQoS;
- (unsigned int)aneUserInteractiveTaskQoS;
@end

#endif
