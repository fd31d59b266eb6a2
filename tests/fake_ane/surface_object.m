/* _ANEIOSurfaceObject: a surface in the framework's wrapper. Its start offset is kept and ignored, as in memory. */
#import "fake.h"

@implementation _ANEIOSurfaceObject
+ (id)new {
    return nil;
}

+ (id<ANESurfaceObject>)objectWithIOSurface:(IOSurfaceRef)surface {
    return [self objectWithIOSurface:surface startOffset:[NSNumber numberWithInt:0]];
}

+ (id)objectWithIOSurface:(IOSurfaceRef)surface startOffset:(NSNumber *)offset {
    if (fake_enter(FAKE_AT_surface_object)) return nil;
    return [[[self alloc] initWithIOSurface:surface startOffset:offset shouldRetain:YES] autorelease];
}

+ (id)objectWithIOSurfaceNoRetain:(IOSurfaceRef)surface startOffset:(NSNumber *)offset {
    if (fake_enter(FAKE_AT_surface_object)) return nil;
    return [[[self alloc] initWithIOSurface:surface startOffset:offset shouldRetain:NO] autorelease];
}

/* These set what they name and nothing else: no AllocSize, no PixelFormat. */
static IOSurfaceRef create(int width, int pixel, int height, int element) {
    NSMutableDictionary *properties = [NSMutableDictionary dictionary];
    [properties setObject:[NSNumber numberWithInt:width] forKey:@"IOSurfaceWidth"];
    [properties setObject:[NSNumber numberWithInt:height] forKey:@"IOSurfaceHeight"];
    int row = pixel * width * (element ? element : 1);
    [properties setObject:[NSNumber numberWithInt:row] forKey:@"IOSurfaceBytesPerRow"];
    if (element) [properties setObject:[NSNumber numberWithInt:element] forKey:@"IOSurfaceBytesPerElement"];
    return IOSurfaceCreate((CFDictionaryRef)properties);
}

+ (IOSurfaceRef)createIOSurfaceWithWidth:(int)width pixel_size:(int)pixel height:(int)height {
    return create(width, pixel, height, 0);
}

+ (IOSurfaceRef)createIOSurfaceWithWidth:(int)width
                              pixel_size:(int)pixel
                                  height:(int)height
                         bytesPerElement:(int)element {
    return create(width, pixel, height, element);
}

- (id)init {
    return [self initWithIOSurface:NULL startOffset:nil shouldRetain:NO];
}

- (id)initWithIOSurface:(IOSurfaceRef)from startOffset:(NSNumber *)offset shouldRetain:(BOOL)retain {
    self = [super init];
    fake_add(FAKE_COUNT_live_surface_objects, 1);
    surface = retain ? (IOSurfaceRef)[(id)from retain] : from;
    startOffset = [offset retain];
    if (surface) return self;
    [self release];
    return nil;
}

- (void)dealloc {
    [(id)surface release]; /* also after NoRetain, which takes the caller's reference */
    [startOffset release];
    fake_add(FAKE_COUNT_live_surface_objects, -1);
    [super dealloc];
}

- (IOSurfaceRef)ioSurface {
    return surface;
}
- (NSNumber *)startOffset {
    return startOffset;
}
@end
