/* _ANEInMemoryModelDescriptor: text and weights, and the identifier that follows from what they hold. */
#import "fake.h"

#include "sha256.h"

static NSString *end(sha256 *hash) {
    char hex[65];
    sha256_end(hash, hex);
    NSString *text = [NSString stringWithUTF8String:hex];
    return fake_is(FAKE_AT_hash_case, "upper") ? [text uppercaseString] : text;
}

static NSString *hash_of(NSData *data) {
    sha256 hash;
    if (!data && fake_is(FAKE_AT_nil_options_hash, "zero"))
        return [@"" stringByPaddingToLength:64 withString:@"0" startingAtIndex:0];
    sha256_begin(&hash);
    sha256_add(&hash, [data bytes], [data length]);
    return end(&hash);
}

/* "data" comes first of the two usual keys in Foundation's order. */
NSString *fake_first_key(NSDictionary *entry) {
    if ([[entry objectForKey:@"data"] isKindOfClass:[NSData class]]) return @"data";
    return [[entry allKeys] objectAtIndex:0];
}

static NSString *hash_of_weights(NSDictionary *weights) {
    sha256 hash;
    sha256_begin(&hash);
    for (NSString *key in [[weights allKeys] sortedArrayUsingSelector:@selector(compare:)]) {
        NSDictionary *entry = [weights objectForKey:key];
        id value = [entry objectForKey:fake_first_key(entry)];
        if ([value isKindOfClass:[NSData class]]) sha256_add(&hash, [value bytes], [value length]);
    }
    return end(&hash);
}

@implementation _ANEInMemoryModelDescriptor
+ (id)new {
    return nil;
}

+ (id<ANEDescriptor>)modelWithMILText:(NSData *)text weights:(NSDictionary *)weights optionsPlist:(NSData *)options {
    if (fake_enter(FAKE_AT_descriptor)) return nil;
    return [[[self alloc] initWithNetworkText:text weights:weights optionsPlist:options isMILModel:YES] autorelease];
}

+ (id)modelWithNetworkDescription:(NSData *)text weights:(NSDictionary *)weights optionsPlist:(NSData *)options {
    if (fake_enter(FAKE_AT_descriptor)) return nil;
    return [[[self alloc] initWithNetworkText:text weights:weights optionsPlist:options isMILModel:NO] autorelease];
}

- (id)init {
    return [self initWithNetworkText:nil weights:nil optionsPlist:nil isMILModel:YES];
}

- (id)initWithNetworkText:(NSData *)network
                  weights:(NSDictionary *)blobs
             optionsPlist:(NSData *)plist
               isMILModel:(BOOL)mil {
    self = [super init];
    fake_add(FAKE_COUNT_live_descriptors, 1);
    NSString *why = nil;
    if (![network isKindOfClass:[NSData class]]) why = @"the text is not NSData";
    if (![blobs isKindOfClass:[NSDictionary class]]) why = @"the weights are no NSDictionary";
    if (plist && ![plist isKindOfClass:[NSData class]]) why = @"the options are not NSData";
    for (id key in why ? nil : blobs)
        if (![[blobs objectForKey:key] isKindOfClass:[NSDictionary class]] || ![[blobs objectForKey:key] count])
            why = [NSString stringWithFormat:@"the entry of the weights for %@ is empty or no NSDictionary", key];
    if (why) {
        fake_explain("descriptor: %s", [why UTF8String]);
        [self release];
        return nil;
    }
    text = [network copy];
    weights = [blobs copy];
    options = [plist copy];
    isMIL = mil;
    textHash = [hash_of(text) retain];
    weightsHash = [hash_of_weights(weights) retain];
    optionsHash = [hash_of(options) retain];
    return self;
}

- (void)dealloc {
    [text release];
    [weights release];
    [options release];
    [textHash release];
    [weightsHash release];
    [optionsHash release];
    fake_add(FAKE_COUNT_live_descriptors, -1);
    [super dealloc];
}

- (NSString *)hexStringIdentifier {
    fake_check_pool();
    return [NSString stringWithFormat:@"%@_%@_%@", textHash, weightsHash, optionsHash];
}
- (BOOL)isEqualToInMemoryModelDescriptor:(_ANEInMemoryModelDescriptor *)other {
    return [[self hexStringIdentifier] isEqualToString:[other hexStringIdentifier]];
}
- (NSData *)networkText {
    return text;
}
- (NSData *)optionsPlist {
    return options;
}
- (NSDictionary *)weights {
    return weights;
}
- (NSString *)networkTextHash {
    return textHash;
}
- (NSString *)weightsHash {
    return weightsHash;
}
- (NSString *)optionsPlistHash {
    return optionsHash;
}
- (BOOL)isMILModel {
    return isMIL;
}
@end
