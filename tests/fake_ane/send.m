/* What the message itself costs: the bench compares a call of a program with it. */
#import "fake.h"

/* The message of an evaluation, `n` times, as a loop in C sends it; `empty_evaluate` has it answered at once. */
FAKE_EXPORT void fake_ane_send(int64_t n);
void fake_ane_send(int64_t n) {
    @autoreleasepool {
        NSData *text = [@"program(1.3) {}" dataUsingEncoding:NSUTF8StringEncoding];
        NSDictionary *none = [NSDictionary dictionary];
        id descriptor = [_ANEInMemoryModelDescriptor modelWithMILText:text weights:none optionsPlist:nil];
        id<ANEModel> model = [_ANEInMemoryModel inMemoryModelWithDescriptor:descriptor];
        NSError *why = nil;
        for (int64_t i = 0; i < n; i++) [model evaluateWithQoS:21 options:none request:nil error:&why];
    }
}
