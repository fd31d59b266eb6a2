/* IOSurface: memory that processes share. An IOSurfaceRef is an object of this class, as it is on Apple's systems.

   One file per surface, named by its number, which is how numbers are unique among processes; a global surface's
   file holds a header and the bytes, others' only the name. What a surface holds at first is not zero. */
#import "fake.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAGE = 16384, FRESH = 0xAB, READ_ONLY = 1, BAD_ARGUMENT = (int)0xe00002c2 };

struct fake_surface { /* the first page, before the bytes */
    int32_t maker;    /* a process; also what the files of other surfaces hold */
    size_t mapped, bytes, width, height, bytes_per_row, bytes_per_element;
    uint32_t id, pixel_format;
    atomic_uint seed, write_locks, read_locks;
    atomic_int uses;
    atomic_uint_fast64_t sum; /* of the bytes, when they were last written by the rules */
    atomic_bool has_sum;
};

@interface IOSurface : NSObject {
@public
    fake_surface *shared;
    char file[96]; /* "" unless this process made it */
    pid_t owner;
}
@end

/* ---- constants ---- */

#define CONSTANT(name) FAKE_EXPORT NSString *const kIOSurface##name = @"IOSurface" #name
CONSTANT(AllocSize);
CONSTANT(BaseAddress);
CONSTANT(BytesPerElement);
CONSTANT(BytesPerRow);
CONSTANT(CacheMode);
CONSTANT(ElementHeight);
CONSTANT(ElementWidth);
CONSTANT(Height);
CONSTANT(IsGlobal);
CONSTANT(Name);
CONSTANT(Offset);
CONSTANT(PixelFormat);
CONSTANT(Width);

/* ---- numbers and files ---- */

static const char *folder(void) { return access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm"; }

static void name_of(uint32_t id, char name[96]) {
    snprintf(name, 96, "%s/fake_iosurface_%u_%u", folder(), (unsigned)getuid(), id);
}

/* Files of processes that died without an end. */
static void sweep(void) {
    char prefix[64], path[512];
    snprintf(prefix, sizeof prefix, "fake_iosurface_%u_", (unsigned)getuid());
    DIR *files = opendir(folder());
    for (struct dirent *file = files ? readdir(files) : NULL; file; file = readdir(files)) {
        int32_t maker = 0;
        if (strncmp(file->d_name, prefix, strlen(prefix))) continue;
        snprintf(path, sizeof path, "%s/%s", folder(), file->d_name);
        int opened = open(path, O_RDONLY | O_CLOEXEC);
        bool is_known = opened >= 0 && read(opened, &maker, sizeof maker) == sizeof maker && maker > 0;
        if (opened >= 0) close(opened);
        if (is_known && kill(maker, 0) && errno == ESRCH) unlink(path);
    }
    if (files) closedir(files);
}

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static NSHashTable *mine; /* surfaces whose files this process made, not retained */

/* At exit nobody frees what Python still held. */
static void sweep_mine(void) {
    pthread_mutex_lock(&mutex);
    for (IOSurface *surface in mine)
        if (surface->owner == getpid()) unlink(surface->file);
    pthread_mutex_unlock(&mutex);
}

static void prepare(void) {
    mine = NSCreateHashTable(NSNonOwnedPointerHashCallBacks, 64);
    sweep();
    atexit(sweep_mine);
}

/* A number that no process of this user has, and its file. -1 if there is no room. */
static int reserve(uint32_t *id, char name[96]) {
    static atomic_uint next;
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
    for (int tries = 0; tries < 1 << 20; tries++) {
        *id = (uint32_t)getpid() * 4096u + ++next;
        if (!*id) continue;
        name_of(*id, name);
        int file = open(name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (file >= 0) return file;
        if (errno != EEXIST) return -1;
    }
    return -1;
}

/* ---- checksums ---- */

static uint64_t sum_of(const fake_surface *shared) {
    const uint64_t *words = (const uint64_t *)((const char *)shared + PAGE);
    uint64_t lanes[4] = {1, 2, 3, 4};
    for (size_t i = 0; i < (shared->mapped - PAGE) / 8; i += 4) /* whole pages */
        for (int j = 0; j < 4; j++) lanes[j] = (lanes[j] ^ words[i + (size_t)j]) * 0x9E3779B97F4A7C15u;
    return lanes[0] ^ lanes[1] << 1 ^ lanes[2] << 2 ^ lanes[3] << 3;
}

static void remember(fake_surface *shared) {
    shared->has_sum = fake_flag(FAKE_AT_check_locks) && !fake_evaluates_nothing();
    if (shared->has_sum) shared->sum = sum_of(shared);
}

/* ---- the object ---- */

@implementation IOSurface
/* The last release and IOSurfaceLookup exclude each other: what is looked up is not about to go. */
- (oneway void)release {
    pthread_mutex_lock(&mutex);
    BOOL is_last = NSDecrementExtraRefCountWasZero(self);
    if (is_last && *file) NSHashRemove(mine, self);
    pthread_mutex_unlock(&mutex);
    if (is_last) [self dealloc];
}

- (void)dealloc {
    if (*file && owner == getpid()) unlink(file);
    if (shared) munmap(shared, shared->mapped);
    fake_add(FAKE_COUNT_live_surfaces, -1);
    [super dealloc];
}
@end

static IOSurface *wrap(void *shared, const char *file) {
    IOSurface *surface = [[IOSurface alloc] init];
    surface->shared = shared;
    surface->owner = getpid();
    fake_add(FAKE_COUNT_live_surfaces, 1);
    if (!file) return surface;
    strcpy(surface->file, file);
    pthread_mutex_lock(&mutex);
    NSHashInsert(mine, surface);
    pthread_mutex_unlock(&mutex);
    return surface;
}

static fake_surface *shared_of(IOSurfaceRef surface) { return surface ? ((IOSurface *)surface)->shared : NULL; }

static size_t number(NSDictionary *properties, NSString *key) {
    return (size_t)[[properties objectForKey:key] unsignedLongLongValue];
}

static fake_surface *map(int file, size_t bytes) {
    int flags = MAP_SHARED | (file < 0 ? MAP_ANONYMOUS : 0);
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, file, 0);
    return memory == MAP_FAILED ? NULL : memory;
}

FAKE_EXPORT IOSurfaceRef IOSurfaceCreate(CFDictionaryRef asked) {
    @autoreleasepool {
        NSDictionary *properties = (NSDictionary *)asked;
        if (fake_enter(FAKE_AT_surface) || !properties) return NULL;
        size_t width = number(properties, kIOSurfaceWidth), height = number(properties, kIOSurfaceHeight);
        size_t element = number(properties, kIOSurfaceBytesPerElement), row = number(properties, kIOSurfaceBytesPerRow);
        size_t bytes = number(properties, kIOSurfaceAllocSize);
        if (!element) element = 1;
        if (!row) row = width * element;
        if (!bytes) bytes = row * height;
        if (!bytes || bytes < row * height || bytes > (size_t)1 << 40) return NULL;

        char name[96];
        uint32_t id;
        size_t mapped = PAGE + (bytes + PAGE - 1) / PAGE * PAGE;
        int file = reserve(&id, name);
        if (file < 0) return NULL;
        int32_t maker = getpid();
        bool is_global = [[properties objectForKey:kIOSurfaceIsGlobal] boolValue];
        bool fits = write(file, &maker, sizeof maker) == sizeof maker &&
                    (!is_global || !posix_fallocate(file, 0, (off_t)mapped));
        fake_surface *shared = fits ? map(is_global ? file : -1, mapped) : NULL;
        if (shared) memset((char *)shared + PAGE, FRESH, mapped - PAGE);
        close(file);
        if (!shared) {
            unlink(name);
            return NULL;
        }
        shared->maker = maker;
        shared->mapped = mapped;
        shared->bytes = mapped - PAGE;
        shared->width = width;
        shared->height = height;
        shared->bytes_per_row = row;
        shared->bytes_per_element = element;
        shared->id = id;
        shared->pixel_format = (uint32_t)number(properties, kIOSurfacePixelFormat);
        remember(shared);
        return (IOSurfaceRef)wrap(shared, name);
    }
}

/* The maker finds the very object; others what is global: other surfaces' files hold no bytes. */
FAKE_EXPORT IOSurfaceRef IOSurfaceLookup(uint32_t id) {
    @autoreleasepool {
        char name[96];
        struct stat facts;
        if (fake_enter(FAKE_AT_surface)) return NULL;
        pthread_mutex_lock(&mutex);
        for (IOSurface *surface in mine)
            if (surface->shared->id == id && surface->owner == getpid()) {
                [surface retain];
                pthread_mutex_unlock(&mutex);
                return (IOSurfaceRef)surface;
            }
        pthread_mutex_unlock(&mutex);
        name_of(id, name);
        int file = open(name, O_RDWR | O_CLOEXEC);
        if (file < 0) return NULL;
        fake_surface *shared = fstat(file, &facts) || facts.st_size <= PAGE ? NULL : map(file, (size_t)facts.st_size);
        close(file);
        return shared ? (IOSurfaceRef)wrap(shared, NULL) : NULL;
    }
}

/* ---- reading ---- */

FAKE_EXPORT void *IOSurfaceGetBaseAddress(IOSurfaceRef surface) {
    return surface ? (char *)shared_of(surface) + PAGE : NULL;
}
#define GETTER(type, name, field)                         \
    FAKE_EXPORT type IOSurface##name(IOSurfaceRef surface); \
    FAKE_EXPORT type IOSurface##name(IOSurfaceRef surface) { return surface ? (type)shared_of(surface)->field : 0; }
GETTER(uint32_t, GetID, id)
GETTER(size_t, GetAllocSize, bytes)
GETTER(size_t, GetWidth, width)
GETTER(size_t, GetHeight, height)
GETTER(size_t, GetBytesPerRow, bytes_per_row)
GETTER(size_t, GetBytesPerElement, bytes_per_element)
GETTER(uint32_t, GetPixelFormat, pixel_format)
GETTER(uint32_t, GetSeed, seed)
GETTER(int32_t, GetUseCount, uses)
GETTER(unsigned char, IsInUse, uses > 0)

/* ---- locks ---- */

FAKE_EXPORT int IOSurfaceLock(IOSurfaceRef surface, uint32_t options, uint32_t *seed) {
    fake_surface *shared = shared_of(surface);
    if (!shared) return BAD_ARGUMENT;
    if (options & READ_ONLY) shared->read_locks++;
    else shared->write_locks++;
    if (seed) *seed = shared->seed;
    return 0;
}

FAKE_EXPORT int IOSurfaceUnlock(IOSurfaceRef surface, uint32_t options, uint32_t *seed) {
    fake_surface *shared = shared_of(surface);
    if (!shared) return BAD_ARGUMENT;
    atomic_uint *locks = options & READ_ONLY ? &shared->read_locks : &shared->write_locks;
    unsigned held = *locks;
    while (held && !atomic_compare_exchange_weak(locks, &held, held - 1)) continue;
    if (!held) {
        fake_add(FAKE_COUNT_unbalanced_unlocks, 1);
        return BAD_ARGUMENT;
    }
    if (!(options & READ_ONLY)) {
        shared->seed++;
        remember(shared);
    }
    if (seed) *seed = shared->seed;
    return 0;
}

FAKE_EXPORT void IOSurfaceIncrementUseCount(IOSurfaceRef surface) {
    if (surface) shared_of(surface)->uses++;
}
FAKE_EXPORT void IOSurfaceDecrementUseCount(IOSurfaceRef surface) {
    if (surface) shared_of(surface)->uses--;
}

void fake_surface_inspect(IOSurfaceRef surface) {
    fake_surface *shared = shared_of(surface);
    if (!shared || !fake_flag(FAKE_AT_check_locks)) return;
    if (shared->write_locks) fake_add(FAKE_COUNT_evaluated_locked, 1);
    if (shared->has_sum && shared->sum != sum_of(shared)) fake_add(FAKE_COUNT_unlocked_writes, 1);
}

void fake_surface_wrote(IOSurfaceRef surface) { remember(shared_of(surface)); }

/* ---- CoreFoundation, as much as surfaces need ---- */

FAKE_EXPORT CFTypeRef CFRetain(CFTypeRef object) { return [(id)object retain]; }
FAKE_EXPORT void CFRelease(CFTypeRef object) { [(id)object release]; }
FAKE_EXPORT long CFGetRetainCount(CFTypeRef object) { return (long)[(id)object retainCount]; }
