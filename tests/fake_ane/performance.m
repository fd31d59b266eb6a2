/* Performance statistics. The numbers are the stand-in's: time as it was, bytes as they are, and "FAKE_ANE" at the
   head of the buffer, so that nobody takes them for measurements. */
#import "fake.h"

#include <stdatomic.h>
#include <string.h>

enum { COUNTERS = 29, NAMED = 24, HEADER = 8, STATISTICS_BIT = 4, DRIVER_TYPE = 2, LAST_MASK = 15 };
enum { FP16_CYCLES = 6, NOMINAL_CYCLES = 10, COMPUTE_CYCLES = 13, READWRITE_BYTES = 17, READ_BYTES = 18 };

static NSString *const names[NAMED] = {
    @"kANE_AF_TO_L2_DATA",          @"kANE_AF_TO_KM_DATA",         @"kANE_L2_TO_AF_DATA",
    @"kANE_L2_TO_NE_DATA",          @"kANE_NE_TO_L2_DATA",         @"kANE_INT8_CYCLES",
    @"kANE_FP16_CYCLES:",           @"kANE_L2_READ_STALL_CYCLES",  @"kANE_L2_WRITE_STALL_CYCLES",
    @"kANE_KM_STALL_CYCLES",        @"kANE_NE_NOMINAL_CYCLES",     @"kANE_NE_THROTTLE_CYCLES",
    @"kANE_L2_THROTTLE_CYCLES",     @"kANE_NE_COMPUTE_CYCLES",     @"kANE_NE_INPUT_STALL_CYCLES",
    @"kANE_NE_OUTPUT_STALL_CYCLES", @"kANE_NE_KERNEL_STALL_CYCLES", @"kANE_DMA_READWRITE_BYTES",
    @"kANE_DMA_READ_BYTES",         @"kANE_DPE_ENERGY",            @"kANE_L2_NOMINAL_CYCLES",
    @"kANE_L2PE_COMPUTE_CYCLES",    @"kANE_L2PE_INPUT_STALL_CYCLES", @"kANE_L2PE_OUTPUT_STALL_CYCLES"};

@implementation _ANEPerformanceStatsIOSurface
+ (id)objectWithIOSurface:(id<ANESurfaceObject>)surface statType:(long long)type {
    if (!surface) return nil;
    _ANEPerformanceStatsIOSurface *made = [[[self alloc] init] autorelease];
    made->stats = [(id)surface retain];
    made->statType = type;
    return made;
}
- (void)dealloc {
    [stats release];
    [super dealloc];
}
- (_ANEIOSurfaceObject *)stats {
    return stats;
}
- (long long)statType {
    return statType;
}
@end

@implementation _ANEPerformanceStats
+ (id)new {
    return nil;
}
+ (id)make:(unsigned long long)ns counters:(NSData *)data {
    _ANEPerformanceStats *made = NSAllocateObject(self, 0, NULL);
    made->hwExecutionTime = ns;
    made->counters = [data copy];
    return [made autorelease];
}
+ (id)statsWithHardwareExecutionNS:(unsigned long long)ns {
    return [self make:ns counters:nil];
}
+ (id)statsWithReconstructed:(NSData *)data hardwareExecutionNS:(unsigned long long)ns {
    return [self make:ns counters:data];
}
+ (id)statsWithReconstructed:(NSData *)data
         hardwareExecutionNS:(unsigned long long)ns
             aneStatsRawData:(NSData *)raw {
    (void)raw;
    return [self make:ns counters:data];
}
+ (id)statsWithRequestPerformanceBuffer:(void **)buffer statsBufferSize:(unsigned *)size {
    if (!buffer || !*buffer || !size) return nil;
    return [self make:0 counters:[NSData dataWithBytes:*buffer length:*size]];
}
+ (unsigned)driverMaskForANEFMask:(unsigned)mask {
    if (mask > LAST_MASK) return 0;
    return (mask & 1) | (mask & 8) >> 2 | (mask & 6) << 1;
}
- (id)init {
    [super dealloc];
    return nil;
}
- (void)dealloc {
    [counters release];
    [super dealloc];
}
- (unsigned long long)hwExecutionTime {
    return hwExecutionTime;
}
- (NSData *)perfCounterData {
    return counters;
}
- (NSData *)pStatsRawData {
    return counters;
}
- (NSString *)stringForPerfCounter:(int)counter {
    return counter >= 0 && counter < NAMED ? names[counter] : @"kANE_UKNOWN";
}
- (NSDictionary *)performanceCounters {
    NSMutableDictionary *all = [NSMutableDictionary dictionary];
    for (int i = 0; i < NAMED && [counters length] >= HEADER + COUNTERS * sizeof(uint64_t); i++) {
        uint64_t value;
        memcpy(&value, (const char *)[counters bytes] + HEADER + (size_t)i * sizeof value, sizeof value);
        [all setObject:[NSNumber numberWithUnsignedLongLong:value] forKey:names[i]];
    }
    return all;
}
- (void)emitPerfcounterSignpostsWithModelStringID:(unsigned long long)string_id {
    (void)string_id;
}
@end

void fake_measure(_ANERequest *request, unsigned mask, uint64_t ns, int64_t bytes_read, int64_t bytes_written) {
    static atomic_uint_fast64_t totals[COUNTERS]; /* cumulative, as the hardware's are */
    if (!fake_flag(FAKE_AT_perf_stats) || !mask || ![request perfStatsArray]) return;
    totals[FP16_CYCLES] += ns;
    totals[NOMINAL_CYCLES] += ns;
    totals[COMPUTE_CYCLES] += ns;
    totals[READWRITE_BYTES] += (uint64_t)(bytes_read + bytes_written);
    totals[READ_BYTES] += (uint64_t)bytes_read;
    NSMutableData *data = nil;
    for (_ANEPerformanceStatsIOSurface *surface in [request perfStatsArray]) {
        if (!(mask & STATISTICS_BIT) || [surface statType] != DRIVER_TYPE) continue;
        IOSurfaceRef memory = [[surface stats] ioSurface];
        uint64_t values[1 + COUNTERS];
        memcpy(values, "FAKE_ANE", HEADER);
        for (int i = 0; i < COUNTERS; i++) values[1 + i] = totals[i];
        data = [NSMutableData dataWithBytes:values length:sizeof values];
        if (IOSurfaceGetAllocSize(memory) < sizeof values) continue;
        memcpy(IOSurfaceGetBaseAddress(memory), values, sizeof values);
        fake_surface_wrote(memory);
    }
    [request setPerfStats:[_ANEPerformanceStats statsWithReconstructed:data hardwareExecutionNS:ns ? ns : 1]];
}
