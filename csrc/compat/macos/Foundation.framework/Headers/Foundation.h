/* What csrc/ane uses of Foundation, declared for the check build on Linux (tools/macos_wheel.py); on a Mac the SDK's
   own header is used. It proves syntax, types and imports, not that Apple's classes answer to these messages. */
#ifndef ANEX_COMPAT_FOUNDATION_H
#define ANEX_COMPAT_FOUNDATION_H

#include <objc/NSObject.h>

typedef struct _NSZone NSZone;
@class NSArray, NSDictionary, NSError;

@protocol NSCopying
- (id)copyWithZone:(NSZone *)zone;
@end
@protocol NSFastEnumeration
- (NSUInteger)countByEnumeratingWithState:(void *)state objects:(id *)buffer count:(NSUInteger)room;
@end

@interface NSString : NSObject <NSCopying>
+ (instancetype)stringWithUTF8String:(const char *)text;
- (const char *)UTF8String;
- (NSUInteger)length;
@end
@interface NSConstantString : NSString
@end

@interface NSData : NSObject <NSCopying>
+ (instancetype)dataWithBytes:(const void *)bytes length:(NSUInteger)length;
- (const void *)bytes;
- (NSUInteger)length;
@end

@interface NSValue : NSObject <NSCopying>
@end
@interface NSNumber : NSValue
+ (NSNumber *)numberWithBool:(BOOL)value;
+ (NSNumber *)numberWithInt:(int)value;
+ (NSNumber *)numberWithUnsignedInt:(unsigned int)value;
+ (NSNumber *)numberWithUnsignedLongLong:(unsigned long long)value;
- (long long)longLongValue;
- (NSUInteger)unsignedIntegerValue;
- (instancetype)initWithInt:(int)value;
@end

@interface NSArray : NSObject <NSCopying, NSFastEnumeration>
+ (instancetype)array;
+ (instancetype)arrayWithObject:(id)object;
- (NSUInteger)count;
- (id)objectAtIndex:(NSUInteger)index;
@end
@interface NSMutableArray : NSArray
+ (instancetype)arrayWithCapacity:(NSUInteger)room;
- (void)addObject:(id)object;
- (instancetype)initWithCapacity:(NSUInteger)room;
@end

@interface NSDictionary : NSObject <NSCopying, NSFastEnumeration>
+ (instancetype)dictionary;
- (NSUInteger)count;
- (id)objectForKey:(id)key;
+ (instancetype)dictionaryWithObjectsAndKeys:(id)object, ... __attribute__((sentinel));
- (instancetype)initWithObjectsAndKeys:(id)object, ... __attribute__((sentinel));
@end
@interface NSMutableDictionary : NSDictionary
- (void)setObject:(id)object forKey:(id)key;
- (void)setObject:(id)object forKeyedSubscript:(id)key;
@end

@interface NSError : NSObject <NSCopying>
- (NSString *)domain;
- (NSInteger)code;
- (NSString *)localizedDescription;
@end

__attribute__((objc_exception))
@interface NSException : NSObject <NSCopying>
- (NSString *)name;
- (NSString *)reason;
@end

@interface NSFileManager : NSObject
+ (NSFileManager *)defaultManager;
- (BOOL)removeItemAtPath:(NSString *)path error:(NSError **)error;
@end

@interface NSJSONSerialization : NSObject
+ (NSData *)dataWithJSONObject:(id)object options:(NSUInteger)options error:(NSError **)error;
@end

Class NSClassFromString(NSString *name);
NSString *NSTemporaryDirectory(void);

#endif
