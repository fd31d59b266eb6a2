/* What the files of csrc/ane share.

   Locks, in the order in which they are taken:
     a program's `mutex`     loading, unloading and synchronous runs of it
     a directory's `mutex`   files, compilation and loading of one identifier
     the ledger (budget.m)   the list of programs, the directories, the account
     a program's `flight`    its submissions
     the table (surface.m)   lock counts of surfaces, and the requests of all functions
   Eviction, which needs a second program's mutex, only tries it. Nothing of the framework is called under the
   ledger, and under the table only IOSurfaceLock, IOSurfaceUnlock and the release of requests.

   Exceptions: every message to a class of the framework stands in a function with a @try of its own that turns
   them into a status, so that none crosses a lock. Pools: every function of anex.h that sends has one. */
#ifndef ANEX_ANE_INTERNAL_H
#define ANEX_ANE_INTERNAL_H

#import "private.h"

#include <pthread.h>
#include <stdatomic.h>

#include "../anex.h"
#include "../memory.h"
#include "directory.h"

/* ---- runtime.m: what was found in the framework; all of it stays once opened ------------------------------- */

typedef struct anex_ane_framework {
    void *library, *surface_library;
    char path[256];
    /* required */
    id<ANEDescriptorClass> descriptors;
    id<ANEModelClass> models;
    id<ANERequestClass> requests;
    id<ANESurfaceObjectClass> surface_objects;
    /* nil where missing */
    id<ANEPerformanceStatsSurfaceClass> stats_surfaces;
    id<ANEDeviceInfoClass> device;
    id<ANEClientClass> clients;
    NSDictionary *no_options; /* @{}: nil will not do */

    IOSurfaceRef (*surface_create)(const void *properties);
    IOSurfaceRef (*surface_lookup)(uint32_t id);
    void *(*surface_address)(IOSurfaceRef surface);
    size_t (*surface_bytes)(IOSurfaceRef surface);
    uint32_t (*surface_id)(IOSurfaceRef surface);
    int32_t (*surface_lock)(IOSurfaceRef surface, uint32_t options, uint32_t *seed);
    int32_t (*surface_unlock)(IOSurfaceRef surface, uint32_t options, uint32_t *seed);
} anex_ane_framework;

extern anex_ane_framework anex_ane;

/* Only load the library and look its classes up: enough to report on it. */
anex_status anex_ane_load_framework(anex_error *error);
/* The string that the library exports under this name, or nil. */
NSString *anex_ane_constant(const char *name);
/* The connection to the daemon, or nil and the reason. */
id<ANEClient> anex_ane_client(anex_error *error);

/* ---- errors.m ---------------------------------------------------------------------------------------------- */

/* One sentence from `what` failed and why; `silent` names the possible causes when the framework gave no error. */
anex_status anex_ane_fail(anex_error *error, anex_status status, const char *what, NSError *why, const char *silent);
anex_status anex_ane_fail_exception(anex_error *error, const char *what, NSException *exception);
/* Whether the daemon no longer knows a program that was loaded. */
bool anex_ane_was_forgotten(NSError *error);
/* The UTF-8 of a string, cut to fit; "" for anything else. */
void anex_ane_copy_text(char *to, size_t room, id text);
/* `object` if it is one of that class, else nil: answers of the framework are read with distrust. */
id anex_ane_typed(id object, Class class);

/* ---- inspect.m --------------------------------------------------------------------------------------------- */

/* Fails, naming them, if required classes or selectors are missing. */
anex_status anex_ane_check_selectors(anex_error *error);

/* ---- surface.m --------------------------------------------------------------------------------------------- */

extern pthread_mutex_t anex_ane_table;

/* With the table locked. A surface is locked for the processor while somebody holds it and no run is under way. */
void anex_surface_begin_run(anex_surface *surface);
void anex_surface_end_run(anex_surface *surface);
IOSurfaceRef anex_surface_ref(const anex_surface *surface);
/* How many cached requests are built on it; with the table locked. */
int32_t *anex_surface_requests(anex_surface *surface);

/* ---- model.m ----------------------------------------------------------------------------------------------- */

typedef struct anex_ane_submission anex_ane_submission;

struct anex_ane_program {
    pthread_mutex_t mutex;
    id<ANEModel> model;
    id<ANEClient> client; /* nil for the usual way */
    anex_ane_options options;
    NSDictionary *run_options; /* of load and evaluate */
    anex_ane_directory *directory;
    anex_ane_function *functions; /* with the mutex */
    bool is_loaded;               /* written with mutex and ledger, read with either */
    atomic_bool is_kept;
    atomic_bool is_forgotten; /* by the daemon: to be unloaded and loaded before the next run */
    atomic_ullong last_used;
    anex_ane_program *next; /* of all programs; with the ledger */
    anex_ane_info info;

    pthread_mutex_t flight;
    pthread_cond_t landed;
    int32_t in_flight;
    anex_ane_submission *submissions; /* not in use; kept for late answers until the program goes */
};

/* With the program's mutex. */
anex_status anex_ane_ensure_loaded(anex_ane_program *program, anex_error *error);
anex_status anex_ane_unload_now(anex_ane_program *program, anex_error *error);

/* ---- request.m --------------------------------------------------------------------------------------------- */

struct anex_ane_function {
    anex_ane_program *program;
    anex_ane_function *next;     /* of the program */
    anex_ane_function *next_all; /* of all; with the table */
    int32_t n_inputs, n_memories;
    int64_t *bytes;                      /* the least size of each memory */
    char **names;                        /* of inputs, then outputs */
    NSArray *input_indices, *output_indices; /* NSNumbers: where they stand in the symbol tables */
    NSNumber *procedure;
    struct anex_ane_bound **bound; /* cached requests, the most recently used first; with the table */
    int32_t n_bound;
};

/* A request for these memories, +1; they must be surfaces that are large enough. */
anex_status anex_ane_build_request(anex_ane_function *function, anex_memory *const *memories, NSArray *stats,
                                   id<ANERequest> *request, anex_error *error);
/* With the table: the cached request, or nil. */
id<ANERequest> anex_ane_find_request(anex_ane_function *function, anex_memory *const *memories);
/* With the table: keep `request`, whose reference it takes; the one used longest ago may go. */
anex_status anex_ane_keep_request(anex_ane_function *function, anex_memory *const *memories, id<ANERequest> request,
                                  anex_error *error);
/* What was built on the function, or on the memory in any function. */
void anex_ane_drop_requests(anex_ane_function *function);
void anex_ane_drop_requests_on(const anex_memory *memory); /* with the table */

/* ---- run.m ------------------------------------------------------------------------------------------------- */

void anex_ane_free_submissions(anex_ane_program *program);

/* ---- attributes.m ------------------------------------------------------------------------------------------ */

/* Where a loaded program's symbols stand and how their memory lies. `procedure`: of the function named. */
anex_status anex_ane_read_ports(NSDictionary *attributes, const char *name, int32_t n_inputs, anex_ane_port *inputs,
                                int32_t n_outputs, anex_ane_port *outputs, int32_t *procedure, anex_error *error);

/* ---- budget.m ---------------------------------------------------------------------------------------------- */

void anex_ane_enroll(anex_ane_program *program);
void anex_ane_strike_off(anex_ane_program *program);
anex_status anex_ane_spend_compile(anex_error *error);
/* A place among the loaded programs for one whose mutex is held, unloading idle ones or waiting for one to be. */
anex_status anex_ane_take_place(anex_ane_program *program, anex_error *error);
void anex_ane_evict(const anex_ane_program *not_this); /* an idle program, if there is one */
void anex_ane_give_place(anex_ane_program *program); /* is_loaded becomes false */
void anex_ane_confirm_place(anex_ane_program *program);
void anex_ane_touch(anex_ane_program *program); /* used now */
void anex_ane_tell_idle(void);                  /* after a run, without the mutex */
void anex_ane_count(int32_t cache_hits, int32_t load_retries);
anex_ane_directory *anex_ane_enter_directory(const char *identifier, anex_error *error);
void anex_ane_leave_directory(anex_ane_directory *directory);

#endif
