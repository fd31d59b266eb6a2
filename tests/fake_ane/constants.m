/* The framework's option keys: global strings. Few values are known; the others hold their own names. */
#import "fake.h"

#define KEY(name, value) FAKE_EXPORT NSString *const name = value
#define OWN(name) KEY(name, @ #name)

KEY(kANEFModelTypeKey, @"kANEFModelType");
KEY(kANEFModelMILValue, @"kANEFModelMIL");
KEY(kANEFModelPreCompiledValue, @"kANEFModelPreCompiled");
KEY(kANEFPerformanceStatsMaskKey, @"kANEFPerformanceStatsMask");
KEY(kANEFModelDescriptionKey, @"ANEFModelDescription");
KEY(kANEFModelProceduresArrayKey, @"ANEFModelProcedures");
KEY(kANEFModelProcedureIDKey, @"ANEFModelProcedureID");
KEY(kANEFModelInputSymbolIndexArrayKey, @"ANEFModelInputSymbolIndexArray");
KEY(kANEFModelOutputSymbolIndexArrayKey, @"ANEFModelOutputSymbolIndexArray");
OWN(kANEFModelInputSymbolsArrayKey);
OWN(kANEFModelOutputSymbolsArrayKey);
OWN(kANEFModelProcedureNameToIDMapKey);
OWN(kANEFAneInstanceHint);
OWN(kANEFCompilerOptionsFilenameKey);
OWN(kANEFEnableLateLatchKey);
OWN(kANEFEnablePowerSavingKey);
OWN(kANEFHintEnergyEfficientWorkloadKey);
OWN(kANEFHintSessionStart);
OWN(kANEFHintSessionStop);
OWN(kANEFInMemoryModelIdentifierKey);
OWN(kANEFInMemoryModelIsCachedKey);
OWN(kANEFIntermediateBufferHandleKey);
OWN(kANEFKeepModelMemoryWiredKey);
OWN(kANEFMemoryPoolIDKey);
OWN(kANEFModelLoadPerformanceStatsKey);
OWN(kANEFNetPlistFilenameKey);
OWN(kANEFRetainModelsWithoutSourceURLKey);
OWN(kANEFSkipPreparePhaseKey);
