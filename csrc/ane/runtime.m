/* Opening the framework: the library, its classes, the functions of IOSurface, the device. */
#import "internal.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

anex_ane_framework anex_ane;

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool is_loaded, is_open;

/* ---- the library ------------------------------------------------------------------------------------------- */

/* The path is not looked up first: on macOS the file is in the loader's cache only. */
static anex_status load_library(anex_error *error) {
    const char *stand_in = getenv("ANEX_ANE_FRAMEWORK");
    if (stand_in && !*stand_in) stand_in = NULL;
    const char *path = stand_in, *surfaces = stand_in;
#ifdef __APPLE__
    if (!path) {
        path = "/System/Library/PrivateFrameworks/AppleNeuralEngine.framework/AppleNeuralEngine";
        surfaces = "/System/Library/Frameworks/IOSurface.framework/IOSurface";
    }
#endif
    if (!path)
        return anex_fail(error, ANEX_UNSUPPORTED,
                         "this is Linux; the Neural Engine is part of Apple silicon under macOS");
    if (strlen(path) >= sizeof anex_ane.path)
        return anex_fail(error, ANEX_UNSUPPORTED, "ANEX_ANE_FRAMEWORK names a path of more than 255 bytes");
    anex_ane.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!anex_ane.library)
        return anex_fail(error, ANEX_UNSUPPORTED, "the Neural Engine's framework cannot be loaded: %s", dlerror());
    anex_ane.surface_library = dlopen(surfaces, RTLD_NOW | RTLD_LOCAL);
    if (!anex_ane.surface_library)
        return anex_fail(error, ANEX_UNSUPPORTED, "IOSurface, which tensors are made of, cannot be loaded: %s",
                         dlerror());
    strcpy(anex_ane.path, path);
    return ANEX_OK;
}

static anex_status find_classes(anex_error *error) {
    @autoreleasepool {
        @try {
            anex_ane.descriptors = (id)NSClassFromString(@"_ANEInMemoryModelDescriptor");
            anex_ane.models = (id)NSClassFromString(@"_ANEInMemoryModel");
            anex_ane.requests = (id)NSClassFromString(@"_ANERequest");
            anex_ane.surface_objects = (id)NSClassFromString(@"_ANEIOSurfaceObject");
            anex_ane.stats_surfaces = (id)NSClassFromString(@"_ANEPerformanceStatsIOSurface");
            anex_ane.device = (id)NSClassFromString(@"_ANEDeviceInfo");
            anex_ane.clients = (id)NSClassFromString(@"_ANEClient");
            if (!anex_ane.no_options) anex_ane.no_options = [[NSDictionary alloc] init];
            return ANEX_OK;
        } @catch (NSException *exception) {
            return anex_ane_fail_exception(error, "loading the Neural Engine's framework", exception);
        }
    }
}

static anex_status load_framework(anex_error *error) {
    if (!anex_ane.library || !anex_ane.surface_library) {
        anex_status status = load_library(error);
        if (status) return status;
    }
    anex_status status = find_classes(error);
    if (!status) atomic_store(&is_loaded, true);
    return status;
}

anex_status anex_ane_load_framework(anex_error *error) {
    if (atomic_load(&is_loaded)) return ANEX_OK;
    pthread_mutex_lock(&opening);
    anex_status status = load_framework(error);
    pthread_mutex_unlock(&opening);
    return status;
}

NSString *anex_ane_constant(const char *name) {
    NSString *const *constant = anex_ane.library ? dlsym(anex_ane.library, name) : NULL;
    return constant ? *constant : nil;
}

id<ANEClient> anex_ane_client(anex_error *error) {
    @try {
        id<ANEClient> client = [(id)anex_ane.clients respondsToSelector:@selector(sharedConnection)]
                                   ? [anex_ane.clients sharedConnection]
                                   : nil;
        if (!client)
            anex_fail(error, ANEX_UNSUPPORTED,
                      "the framework has no connection to its daemon (_ANEClient.sharedConnection is missing or nil)");
        return client;
    } @catch (NSException *exception) {
        anex_ane_fail_exception(error, "connecting to the Neural Engine's daemon", exception);
        return nil;
    }
}

/* ---- IOSurface --------------------------------------------------------------------------------------------- */

static anex_status find_surface_functions(anex_error *error) {
    const struct {
        const char *name;
        void *where;
    } functions[] = {
        {"IOSurfaceCreate", &anex_ane.surface_create},     {"IOSurfaceLookup", &anex_ane.surface_lookup},
        {"IOSurfaceGetID", &anex_ane.surface_id},          {"IOSurfaceGetBaseAddress", &anex_ane.surface_address},
        {"IOSurfaceLock", &anex_ane.surface_lock},         {"IOSurfaceUnlock", &anex_ane.surface_unlock},
        {"IOSurfaceGetAllocSize", &anex_ane.surface_bytes},
    };
    for (size_t i = 0; i < sizeof functions / sizeof *functions; i++) {
        void *found = dlsym(anex_ane.surface_library, functions[i].name);
        if (!found)
            return anex_fail(error, ANEX_UNSUPPORTED, "%s is missing from the IOSurface library: %s",
                             functions[i].name, dlerror());
        memcpy(functions[i].where, &found, sizeof found); /* ISO C has no cast from object to function pointers */
    }
    return ANEX_OK;
}

/* ---- the device -------------------------------------------------------------------------------------------- */

#define DEVICE_ANSWERS(name) [(id)anex_ane.device respondsToSelector:@selector(name)]
#define DEVICE(name) (DEVICE_ANSWERS(name) ? [anex_ane.device name] : 0)

static anex_status read_device(anex_ane_device *device, anex_error *error) {
    @autoreleasepool {
        @try {
            device->has_ane = DEVICE(hasANE), device->is_virtual_machine = DEVICE(isVirtualMachine);
            device->anes = DEVICE(numANEs), device->cores = DEVICE(numANECores);
            device->board_type = DEVICE(aneBoardType);
            anex_ane_copy_text(device->architecture, sizeof device->architecture, DEVICE(aneArchitectureType));
            anex_ane_copy_text(device->subtype, sizeof device->subtype, DEVICE(aneSubType));
            anex_ane_copy_text(device->variant, sizeof device->variant, DEVICE(aneSubTypeVariant));
            anex_ane_copy_text(device->product, sizeof device->product, DEVICE(productName));
            anex_ane_copy_text(device->build, sizeof device->build, DEVICE(buildVersion));
            memcpy(device->framework, anex_ane.path, sizeof device->framework);
            return ANEX_OK;
        } @catch (NSException *exception) {
            return anex_ane_fail_exception(error, "asking for the Neural Engine's description", exception);
        }
    }
}

anex_status anex_ane_get_device(anex_ane_device *device, anex_error *error) {
    if (!device) return anex_fail(error, ANEX_ARGUMENT, "no place for the description of the device");
    *device = (anex_ane_device){0};
    anex_status status = anex_ane_load_framework(error);
    return status ? status : read_device(device, error);
}

/* Without the class that says so, the device is taken to be there: its first use will tell. */
static anex_status check_device(anex_error *error) {
    anex_ane_device device = {0};
    anex_status status = read_device(&device, error);
    if (status || !anex_ane.device || device.has_ane) return status;
    return anex_fail(error, ANEX_UNSUPPORTED,
                     "the framework says that this %s has no Neural Engine; use device=\"cpu\"",
                     device.is_virtual_machine ? "virtual machine" : "computer");
}

/* ---- all of it --------------------------------------------------------------------------------------------- */

anex_status anex_ane_open(anex_error *error) {
    if (atomic_load_explicit(&is_open, memory_order_acquire)) return ANEX_OK;
    pthread_mutex_lock(&opening);
    anex_status status = atomic_load(&is_open) ? ANEX_OK : load_framework(error);
    if (!status && !atomic_load(&is_open)) {
        status = anex_ane_check_selectors(error);
        if (!status) status = find_surface_functions(error);
        if (!status) status = check_device(error);
        if (!status) atomic_store_explicit(&is_open, true, memory_order_release);
    }
    pthread_mutex_unlock(&opening);
    return status;
}

bool anex_ane_is_open(void) { return atomic_load_explicit(&is_open, memory_order_acquire); }
