/* _ANEDeviceInfo and _ANEQoSMapper: class methods only. */
#import "fake.h"

#include <string.h>

@interface _ANEDeviceInfo : NSObject <ANEDeviceInfoClass>
@end

static NSString *architecture(void) {
    char text[FAKE_TEXT];
    return [NSString stringWithUTF8String:fake_text(FAKE_AT_arch, text)];
}
static BOOL has_ane(void) { return fake_flag(FAKE_AT_has_ane) && !fake_flag(FAKE_AT_virtual_machine); }

@implementation _ANEDeviceInfo
+ (BOOL)hasANE {
    fake_check_pool();
    return has_ane();
}
+ (BOOL)isVirtualMachine {
    fake_check_pool();
    return fake_flag(FAKE_AT_virtual_machine);
}
+ (BOOL)isInternalBuild {
    return NO;
}
+ (BOOL)isExcessivePowerDrainWhenIdle {
    return NO;
}
+ (BOOL)precompiledModelChecksDisabled {
    return NO;
}
+ (unsigned)numANEs {
    return has_ane();
}
+ (unsigned)numANECores {
    return has_ane() ? 16 : 0;
}
/* Two are known; the others are 0. */
+ (long long)aneBoardType {
    return fake_is(FAKE_AT_arch, "h13g") ? 64 : fake_is(FAKE_AT_arch, "h15g") ? 192 : 0;
}
+ (NSString *)aneArchitectureType {
    return architecture();
}
+ (NSString *)aneSubType {
    NSString *all = architecture();
    return [all length] > 1 ? [all substringToIndex:[all length] - 1] : all;
}
+ (NSString *)aneSubTypeVariant {
    NSString *all = architecture();
    return [all length] ? [all substringFromIndex:[all length] - 1] : all;
}
+ (NSString *)aneSubTypeProductVariant {
    return @"";
}
+ (NSString *)aneSubTypeAndVariant {
    return architecture();
}
+ (NSString *)productName {
    return @"macOS";
}
+ (NSString *)buildVersion {
    return fake_number(FAKE_AT_macos) >= 27 ? @"26A0FAKE" : @"25A0FAKE";
}
+ (NSString *)bootArgs {
    return @"";
}
+ (BOOL)isBootArgPresent:(NSString *)name {
    (void)name;
    return NO;
}
+ (BOOL)isBoolBootArgSetTrue:(NSString *)name {
    (void)name;
    return NO;
}
@end

@interface _ANEQoSMapper : NSObject <ANEQoSMapperClass>
@end

enum { REAL_TIME = 0, BACKGROUND = 9, UTILITY = 17, DEFAULT = 21, USER_INITIATED = 25, USER_INTERACTIVE = 33 };

@implementation _ANEQoSMapper
+ (unsigned)aneRealTimeTaskQoS {
    return REAL_TIME;
}
+ (unsigned)aneBackgroundTaskQoS {
    return BACKGROUND;
}
+ (unsigned)aneUtilityTaskQoS {
    return UTILITY;
}
+ (unsigned)aneDefaultTaskQoS {
    return DEFAULT;
}
+ (unsigned)aneUserInitiatedTaskQoS {
    return USER_INITIATED;
}
+ (unsigned)aneUserInteractiveTaskQoS {
    return USER_INTERACTIVE;
}
+ (int)realTimeProgramPriority {
    return 2;
}
+ (unsigned long long)realTimeQueueIndex {
    return 2;
}
/* Only the queues of QoS 0 and of unknown ones are known; the rest is ordered by urgency. */
+ (unsigned long long)queueIndexForQoS:(unsigned)qos {
    static const unsigned char queues[] = {[REAL_TIME] = 2,        [BACKGROUND] = 7,     [UTILITY] = 6,
                                           [DEFAULT] = 5,          [USER_INITIATED] = 4, [USER_INTERACTIVE] = 3};
    return qos < sizeof queues && queues[qos] ? queues[qos] : 5;
}
+ (int)programPriorityForQoS:(unsigned)qos {
    return (int)[self queueIndexForQoS:qos];
}
@end
