/* What a process gets only so much of: compilations, loaded programs; and what outlives it: the cache. */
#import "internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Measured: the 120th compilation of a process fails without a word, and so does the 129th loaded program. */
static anex_ane_account account = {.compile_limit = 119, .load_limit = 120};

static pthread_mutex_t ledger = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t idle = PTHREAD_COND_INITIALIZER;
static atomic_int waiting; /* for an idle program */
static int32_t loading;     /* places taken and not yet confirmed; with the ledger */
static atomic_ullong clock_of_use;
static anex_ane_program *programs;
static anex_ane_directory *directories;

anex_ane_account anex_ane_get_account(void) {
    pthread_mutex_lock(&ledger);
    anex_ane_account copy = account;
    pthread_mutex_unlock(&ledger);
    return copy;
}

void anex_ane_set_limits(int32_t compile_limit, int32_t load_limit) {
    pthread_mutex_lock(&ledger);
    account.compile_limit = compile_limit, account.load_limit = load_limit;
    pthread_cond_broadcast(&idle);
    pthread_mutex_unlock(&ledger);
}

void anex_ane_count(int32_t cache_hits, int32_t load_retries) {
    pthread_mutex_lock(&ledger);
    account.cache_hits += cache_hits, account.load_retries += load_retries;
    pthread_mutex_unlock(&ledger);
}

/* ---- compilations ------------------------------------------------------------------------------------------ */

anex_status anex_ane_spend_compile(anex_error *error) {
    anex_status status = ANEX_OK;
    pthread_mutex_lock(&ledger);
    if (account.compile_limit > 0 && account.compiles >= account.compile_limit)
        status = anex_fail(error, ANEX_COMPILE_LIMIT,
                           "this process has compiled %d programs for the Neural Engine and may compile no more: the "
                           "framework was seen to fail without a word after 119, and nothing gives them back; pass "
                           "isolate=True to compile in a process of its own, reuse compiled programs, or start afresh",
                           account.compiles);
    else account.compiles++; /* one that fails counts too */
    pthread_mutex_unlock(&ledger);
    return status;
}

/* ---- loaded programs --------------------------------------------------------------------------------------- */

void anex_ane_enroll(anex_ane_program *program) {
    pthread_mutex_lock(&ledger);
    program->next = programs, programs = program;
    pthread_mutex_unlock(&ledger);
}

void anex_ane_strike_off(anex_ane_program *program) {
    pthread_mutex_lock(&ledger);
    anex_ane_program **place = &programs;
    while (*place && *place != program) place = &(*place)->next;
    if (*place) *place = program->next;
    pthread_mutex_unlock(&ledger);
}

static bool has_flight(anex_ane_program *program) {
    pthread_mutex_lock(&program->flight);
    bool has = program->in_flight > 0;
    pthread_mutex_unlock(&program->flight);
    return has;
}

/* With the ledger: the idle program, not kept, that was used longest ago, its mutex now ours; or NULL. `n_busy`:
   how many there are that may become idle. */
static anex_ane_program *find_victim(const anex_ane_program *not_this, int32_t *n_busy) {
    anex_ane_program *best = NULL;
    *n_busy = 0;
    for (anex_ane_program *p = programs; p; p = p->next) {
        if (p == not_this || !p->is_loaded || atomic_load(&p->is_kept)) continue;
        if (best && atomic_load(&p->last_used) > atomic_load(&best->last_used)) continue;
        if (pthread_mutex_trylock(&p->mutex)) {
            ++*n_busy;
            continue;
        }
        if (has_flight(p)) {
            ++*n_busy;
            pthread_mutex_unlock(&p->mutex);
            continue;
        }
        if (best) pthread_mutex_unlock(&best->mutex);
        best = p;
    }
    return best;
}

/* With the ledger, which is free meanwhile. */
static void unload_victim(anex_ane_program *victim) {
    account.evictions++;
    pthread_mutex_unlock(&ledger);
    anex_ane_unload_now(victim, NULL); /* gives its place, whatever the framework says */
    pthread_mutex_unlock(&victim->mutex);
    pthread_mutex_lock(&ledger);
}

void anex_ane_evict(const anex_ane_program *not_this) {
    int32_t n_busy;
    pthread_mutex_lock(&ledger);
    anex_ane_program *victim = find_victim(not_this, &n_busy);
    if (victim) unload_victim(victim);
    pthread_mutex_unlock(&ledger);
}

static anex_status fail_full(anex_error *error) {
    return anex_fail(error, ANEX_DEVICE,
                     "%d programs are loaded onto the Neural Engine, which is the limit set for this process, and none "
                     "of them may be unloaded: all are kept; close one, or let go with keep(False)",
                     account.loaded);
}

anex_status anex_ane_take_place(anex_ane_program *program, anex_error *error) {
    anex_status status = ANEX_OK;
    pthread_mutex_lock(&ledger);
    atomic_fetch_add(&waiting, 1); /* before looking, so that who becomes idle from now on says so */
    while (account.load_limit > 0 && account.loaded >= account.load_limit) {
        int32_t n_busy;
        anex_ane_program *victim = find_victim(program, &n_busy);
        if (victim) {
            unload_victim(victim);
        } else if (n_busy || loading) {
            pthread_cond_wait(&idle, &ledger);
        } else {
            status = fail_full(error);
            break;
        }
    }
    atomic_fetch_sub(&waiting, 1);
    if (!status) account.loaded++, loading++;
    pthread_mutex_unlock(&ledger);
    return status;
}

void anex_ane_confirm_place(anex_ane_program *program) {
    pthread_mutex_lock(&ledger);
    program->is_loaded = true;
    loading--;
    pthread_cond_broadcast(&idle); /* for those who wait until it is idle again, or find it kept */
    atomic_store(&program->last_used, atomic_fetch_add(&clock_of_use, 1) + 1);
    pthread_mutex_unlock(&ledger);
}

void anex_ane_give_place(anex_ane_program *program) {
    pthread_mutex_lock(&ledger);
    if (!program->is_loaded) loading--; /* its load has failed */
    program->is_loaded = false;
    account.loaded--;
    pthread_cond_broadcast(&idle);
    pthread_mutex_unlock(&ledger);
}

void anex_ane_touch(anex_ane_program *program) {
    atomic_store_explicit(&program->last_used, atomic_fetch_add(&clock_of_use, 1) + 1, memory_order_relaxed);
}

void anex_ane_tell_idle(void) {
    atomic_thread_fence(memory_order_seq_cst);
    if (!atomic_load(&waiting)) return;
    pthread_mutex_lock(&ledger);
    pthread_cond_broadcast(&idle);
    pthread_mutex_unlock(&ledger);
}

/* ---- directories ------------------------------------------------------------------------------------------- */

static anex_status find_temporary(char *path, size_t room, anex_error *error) {
    @autoreleasepool {
        @try {
            anex_ane_copy_text(path, room, NSTemporaryDirectory());
            size_t n = strlen(path);
            if (n && n + 1 < room && path[n - 1] != '/') strcpy(path + n, "/");
            return n ? ANEX_OK : anex_fail(error, ANEX_DEVICE, "the system names no temporary directory; set TMPDIR");
        } @catch (NSException *exception) {
            return anex_ane_fail_exception(error, "asking for the temporary directory", exception);
        }
    }
}

anex_ane_directory *anex_ane_enter_directory(const char *identifier, anex_error *error) {
    char temporary[sizeof directories->path - 256];
    if (find_temporary(temporary, sizeof temporary, error)) return NULL;
    size_t n = strlen(temporary);
    pthread_mutex_lock(&ledger);
    anex_ane_directory *d = directories;
    while (d && (strncmp(d->path, temporary, n) || strcmp(d->path + n, identifier))) d = d->next;
    if (!d && (d = calloc(1, sizeof *d))) {
        pthread_mutex_init(&d->mutex, NULL);
        snprintf(d->path, sizeof d->path, "%s%s", temporary, identifier);
        d->next = directories, directories = d;
    }
    if (d) d->users++;
    pthread_mutex_unlock(&ledger);
    if (!d) anex_fail(error, ANEX_MEMORY, "out of memory");
    return d;
}

void anex_ane_leave_directory(anex_ane_directory *directory) {
    if (!directory) return;
    pthread_mutex_lock(&ledger);
    if (--directory->users == 0) {
        anex_ane_directory **place = &directories;
        while (*place != directory) place = &(*place)->next;
        *place = directory->next;
        anex_ane_remove_files(directory); /* with the ledger: who enters next must find none of ours */
        pthread_mutex_destroy(&directory->mutex);
        free(directory);
    }
    pthread_mutex_unlock(&ledger);
}

/* ---- the cache --------------------------------------------------------------------------------------------- */

static anex_status check_identifier(const char *identifier, anex_error *error) {
    anex_status status = anex_ane_open(error);
    if (status) return status;
    if (!identifier || !*identifier) return anex_fail(error, ANEX_ARGUMENT, "an identifier is needed");
    return ANEX_OK;
}

static anex_status fail_old(anex_error *error) {
    return anex_fail(error, ANEX_UNSUPPORTED,
                     "this system's framework does not look its cache up by identifier; ask the program itself");
}

anex_status anex_ane_cache_has(const char *identifier, bool *has, anex_error *error) {
    anex_status status = check_identifier(identifier, error);
    if (status) return status;
    if (!has) return anex_fail(error, ANEX_ARGUMENT, "no place for the answer");
    @autoreleasepool {
        @try {
            id<ANEClient> client = anex_ane_client(error);
            if (!client) return ANEX_UNSUPPORTED;
            if (![client respondsToSelector:@selector(compiledModelExistsMatchingHash:)]) return fail_old(error);
            *has = [client compiledModelExistsMatchingHash:[NSString stringWithUTF8String:identifier]];
            return ANEX_OK;
        } @catch (NSException *exception) {
            return anex_ane_fail_exception(error, "looking into the cache", exception);
        }
    }
}

anex_status anex_ane_cache_purge(const char *identifier, anex_error *error) {
    anex_status status = check_identifier(identifier, error);
    if (status) return status;
    @autoreleasepool {
        @try {
            id<ANEClient> client = anex_ane_client(error);
            if (!client) return ANEX_UNSUPPORTED;
            if (![client respondsToSelector:@selector(purgeCompiledModelMatchingHash:)]) return fail_old(error);
            [client purgeCompiledModelMatchingHash:[NSString stringWithUTF8String:identifier]];
            return ANEX_OK;
        } @catch (NSException *exception) {
            return anex_ane_fail_exception(error, "purging from the cache", exception);
        }
    }
}
