/* Errors in the framework's own words, and what every message does first. */
#import "fake.h"

#include <stdlib.h>
#include <string.h>

NSString *const FakeDomain = @"com.apple.appleneuralengine";
NSString *const FakeCompilerDomain = @"com.apple.appleneuralengine.compiler";

static NSError *make(NSString *domain, int code, NSString *text) {
    NSDictionary *info = [NSDictionary dictionaryWithObject:text forKey:NSLocalizedDescriptionKey];
    return [NSError errorWithDomain:domain code:code userInfo:info];
}

NSError *fake_error(int code, SEL selector, NSString *text) {
    if (!selector) return make(FakeCompilerDomain, code, text);
    return make(FakeDomain, code, [NSString stringWithFormat:@"%@: %@", NSStringFromSelector(selector), text]);
}

NSError *fake_generic_error(int code, SEL selector) {
    static NSString *const texts[] = {
        [1] = @"requires restricted access connection and (com.apple.aned.private.allow) entitlement",
        [2] = @"real-time priority requires restricted access connection and (com.apple.aned.private.allow) entitlement",
        [3] = @"timed out",
        [4] = @"Program creation failure",
        [5] = @"Program Inference overflow",
        [6] = @"Program load failure",
        [7] = @"Missing code signing identity",
        [8] = @"Program Inference error",
        [9] = @"file access failure",
        [10] = @"invalid model",
        [11] = @"invalid model key",
        [12] = @"system model purge not allowed",
        [13] = @"Program IOSurfaces map failure (0x12)",
        [14] = @"Program IOSurfaces unmap failure (0x12)",
        [15] = @"Program chaining prepare error",
        [16] = @"file not found",
        [17] = @"model identifier not found",
        [18] = @"base model identifier of a new instance", /* 18, 19, 27 to 29: the facts give no text */
        [19] = @"cache identifier of a new instance",
        [20] = @"invalid model instance",
        [21] = @"Program load new instance failure",
        [22] = @"Host too old, ANE hardware not available",
        [23] = @"Program Inference error",
        [24] = @"Data not found error",
        [25] = @"Not supported",
        [26] = @"Bad argument error",
        [27] = @"virtualization",
        [28] = @"virtualization",
        [29] = @"virtualization",
    };
    BOOL is_known = code >= 0 && code < (int)(sizeof texts / sizeof *texts) && texts[code];
    return fake_error(code, selector, is_known ? texts[code] : @"an error of a newer framework");
}

NSError *fake_chosen_error(fake_switch point, SEL selector, NSError *usual) {
    char text[FAKE_TEXT];
    fake_text(point, text);
    if (!strncmp(text, "code:", 5)) return fake_generic_error(atoi(text + 5), selector);
    if (!strncmp(text, "status:", 7)) return fake_status_error((unsigned)atoi(text + 7));
    return usual;
}

BOOL fake_fail(NSError **to, NSError *error) {
    if (to && error) *to = error;
    return NO;
}

BOOL fake_refuse(NSError **to, fake_fault fault, fake_switch point, SEL selector, NSError *usual) {
    return fake_fail(to, fault == FAKE_NO ? fake_chosen_error(point, selector, usual) : nil);
}

void fake_raise(NSString *name, NSString *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    NSString *reason = [[[NSString alloc] initWithFormat:format arguments:arguments] autorelease];
    va_end(arguments);
    [[NSException exceptionWithName:name reason:reason userInfo:nil] raise];
}

void fake_check_pool(void) {
    NSThread *thread = GSCurrentThread();
    if (!thread || !thread->_autorelease_vars.current_pool) fake_add(FAKE_COUNT_messages_without_pool, 1);
}

fake_fault fake_enter(fake_switch point) {
    fake_check_pool();
    fake_fault fault = fake_fault_at(point);
    if (fault == FAKE_THROW)
        fake_raise(NSInternalInconsistencyException, @"the stand-in was told to throw at %s", fake_ane_name(0, point));
    return fault;
}

NSError *fake_no_hardware(SEL selector) {
    if (fake_flag(FAKE_AT_virtual_machine)) return fake_generic_error(22, selector);
    if (!fake_flag(FAKE_AT_has_ane)) return fake_generic_error(4, selector);
    return nil;
}
