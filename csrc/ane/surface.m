/* IOSurfaces as the memory of tensors, and when the processor may touch them. */
#import "internal.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* The hardware was seen to refuse smaller surfaces of some shapes; larger ones are always taken. */
enum { LEAST_BYTES = 49152, PAGE = 16384 };

struct anex_surface {
    IOSurfaceRef ref;
    void *data;
    size_t bytes;
    uint32_t id;
    /* with the table: locked exactly if locks > 0 and runs == 0 */
    int32_t locks, runs, requests;
    bool is_locked;
};

pthread_mutex_t anex_ane_table = PTHREAD_MUTEX_INITIALIZER;

/* ---- making and finding ------------------------------------------------------------------------------------ */

/* The global constant's value, an NSString in all but name. */
static id key(const char *name) {
    id const *constant = dlsym(anex_ane.surface_library, name);
    return constant ? *constant : nil;
}

/* One row of bytes: the Neural Engine knows the layout from the program. */
static IOSurfaceRef create(size_t bytes) {
    const struct {
        const char *name;
        unsigned long long value;
    } properties[] = {
        {"kIOSurfaceWidth", bytes},       {"kIOSurfaceHeight", 1},        {"kIOSurfaceBytesPerElement", 1},
        {"kIOSurfaceBytesPerRow", bytes}, {"kIOSurfaceAllocSize", bytes}, {"kIOSurfacePixelFormat", 0},
    };
    NSMutableDictionary *dictionary = [NSMutableDictionary dictionary];
    for (size_t i = 0; i < sizeof properties / sizeof *properties; i++) {
        id name = key(properties[i].name);
        if (name) [dictionary setObject:[NSNumber numberWithUnsignedLongLong:properties[i].value] forKey:name];
    }
    id global = key("kIOSurfaceIsGlobal"); /* other processes may look it up by its number */
    if (global) [dictionary setObject:[NSNumber numberWithBool:(BOOL)1] forKey:global];
    return anex_ane.surface_create(dictionary);
}

static anex_status adopt(IOSurfaceRef ref, anex_surface **surface, anex_error *error) {
    anex_surface *s = calloc(1, sizeof *s);
    if (!s) {
        [(id)ref release];
        return anex_fail(error, ANEX_MEMORY, "out of memory");
    }
    s->ref = ref, s->data = anex_ane.surface_address(ref), s->bytes = anex_ane.surface_bytes(ref);
    s->id = anex_ane.surface_id(ref);
    *surface = s;
    return ANEX_OK;
}

anex_status anex_surface_new(size_t bytes, anex_surface **surface, anex_error *error) {
    size_t size = bytes > LEAST_BYTES ? bytes : LEAST_BYTES;
    if (size > ((size_t)1 << 46)) return anex_fail(error, ANEX_MEMORY, "no memory for a tensor of %zu bytes", bytes);
    size = (size + PAGE - 1) / PAGE * PAGE;
    @autoreleasepool {
        @try {
            IOSurfaceRef ref = create(size);
            if (!ref || !anex_ane.surface_address(ref) || anex_ane.surface_bytes(ref) < bytes) {
                [(id)ref release];
                return anex_fail(error, ANEX_MEMORY,
                                 "no IOSurface for a tensor of %zu bytes: the system gives none of that size, or no "
                                 "more of them to this process; close tensors that are no longer used",
                                 bytes);
            }
            anex_status status = adopt(ref, surface, error);
            if (status) return status;
            anex_ane.surface_lock(ref, 0, NULL); /* what a surface holds at first is not said anywhere */
            memset((*surface)->data, 0, (*surface)->bytes);
            anex_ane.surface_unlock(ref, 0, NULL);
            return ANEX_OK;
        } @catch (NSException *exception) {
            return anex_ane_fail_exception(error, "making an IOSurface", exception);
        }
    }
}

anex_status anex_surface_find(uint32_t id, anex_surface **surface, anex_error *error) {
    anex_status status = anex_ane_open(error);
    if (status) return status;
    @autoreleasepool {
        @try {
            IOSurfaceRef ref = id ? anex_ane.surface_lookup(id) : NULL;
            if (!ref)
                return anex_fail(error, ANEX_ARGUMENT,
                                 "there is no IOSurface number %u: its tensor was closed, or its process has ended",
                                 (unsigned)id);
            return adopt(ref, surface, error);
        } @catch (NSException *exception) {
            return anex_ane_fail_exception(error, "looking an IOSurface up", exception);
        }
    }
}

void anex_surface_free(anex_surface *surface, const anex_memory *memory) {
    @autoreleasepool {
        pthread_mutex_lock(&anex_ane_table);
        if (surface->requests) anex_ane_drop_requests_on(memory);
        if (surface->is_locked) anex_ane.surface_unlock(surface->ref, 0, NULL);
        pthread_mutex_unlock(&anex_ane_table);
        @try {
            [(id)surface->ref release]; /* the same as CFRelease, on both systems */
        } @catch (NSException *exception) {
            (void)exception; /* the memory is gone for us either way */
        }
    }
    free(surface);
}

void *anex_surface_data(const anex_surface *surface) { return surface->data; }
size_t anex_surface_bytes(const anex_surface *surface) { return surface->bytes; }
uint32_t anex_surface_id(const anex_surface *surface) { return surface->id; }
IOSurfaceRef anex_surface_ref(const anex_surface *surface) { return surface->ref; }
int32_t *anex_surface_requests(anex_surface *surface) { return &surface->requests; }

/* ---- access ------------------------------------------------------------------------------------------------ */

/* Lock or unlock, as the counts ask for. A surface is never locked while a run is under way: the lock would wait. */
static void settle(anex_surface *surface) {
    bool should_be = surface->locks > 0 && surface->runs == 0;
    if (should_be == surface->is_locked) return;
    if (should_be) anex_ane.surface_lock(surface->ref, 0, NULL);
    else anex_ane.surface_unlock(surface->ref, 0, NULL);
    surface->is_locked = should_be;
}

void anex_surface_lock(anex_surface *surface) {
    pthread_mutex_lock(&anex_ane_table);
    surface->locks++;
    settle(surface);
    pthread_mutex_unlock(&anex_ane_table);
}

void anex_surface_unlock(anex_surface *surface) {
    pthread_mutex_lock(&anex_ane_table);
    if (surface->locks > 0) surface->locks--;
    settle(surface);
    pthread_mutex_unlock(&anex_ane_table);
}

void anex_surface_begin_run(anex_surface *surface) {
    surface->runs++;
    settle(surface);
}

void anex_surface_end_run(anex_surface *surface) {
    surface->runs--;
    settle(surface);
}
