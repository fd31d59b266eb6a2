/* Threads that wait for work by looking for a moment, then sleeping.

   A job is published by advancing `generation`; workers take chunks of tasks from `next` and the
   last one to finish is known by `busy` reaching zero. Between the stages of one run the workers
   find the next job while they still look, so only the first stage pays for waking them. */
#define _GNU_SOURCE
#include "team.h"

#include "../anex.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MOST_THREADS = 64, LOOKS = 2000 };

static struct {
    pthread_mutex_t lent;   /* held by the run that has the pool */
    pthread_mutex_t asleep; /* guards the sleep below */
    pthread_cond_t wake;
    atomic_int sleepers;
    atomic_int generation;
    atomic_int busy;
    atomic_int wanted; /* threads, the caller counted; 0: not chosen yet */
    int32_t started;   /* workers that exist, numbered 1 .. started; touched only by who has `lent` */
    int32_t joining;   /* workers of the present job */
    int64_t tasks, chunk;
    _Atomic int64_t next;
    anex_team_body *body;
    void *context;
} team = {.lent = PTHREAD_MUTEX_INITIALIZER, .asleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int32_t processors(void) {
#if defined(__linux__)
    cpu_set_t set;
    if (!sched_getaffinity(0, sizeof set, &set)) return CPU_COUNT(&set);
#endif
    long n = sysconf(_SC_NPROCESSORS_ONLN);
    return n > 0 ? (int32_t)n : 1;
}

int32_t anex_get_num_threads(void) {
    int32_t n = atomic_load(&team.wanted);
    if (n) return n;
    n = processors();
    if (n > MOST_THREADS) n = MOST_THREADS;
    atomic_store(&team.wanted, n);
    return n;
}

void anex_set_num_threads(int32_t threads) {
    atomic_store(&team.wanted, threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads);
}

static void take_chunks(int32_t worker) {
    for (;;) {
        int64_t begin = atomic_fetch_add_explicit(&team.next, team.chunk, memory_order_relaxed);
        if (begin >= team.tasks) return;
        int64_t end = begin + team.chunk;
        team.body(team.context, worker, begin, end < team.tasks ? end : team.tasks);
    }
}

static int wait_for_job(int seen) {
    for (int i = 0; i < LOOKS; i++) {
        int now = atomic_load_explicit(&team.generation, memory_order_acquire);
        if (now != seen) return now;
        relax();
    }
    pthread_mutex_lock(&team.asleep);
    atomic_fetch_add(&team.sleepers, 1);
    while (atomic_load(&team.generation) == seen) pthread_cond_wait(&team.wake, &team.asleep);
    atomic_fetch_sub(&team.sleepers, 1);
    pthread_mutex_unlock(&team.asleep);
    return atomic_load(&team.generation);
}

typedef struct worker {
    int32_t number;
    int seen; /* the generation when it was made: the next one is its first job */
} worker;

static void *work(void *argument) {
    const worker *self = argument;
    int seen = self->seen;
    for (;;) {
        seen = wait_for_job(seen);
        if (self->number < team.joining) take_chunks(self->number);
        atomic_fetch_sub_explicit(&team.busy, 1, memory_order_release);
    }
    return NULL;
}

/* A forked child has the pool's memory but none of its threads. */
static void forget(void) {
    pthread_mutex_init(&team.lent, NULL);
    pthread_mutex_init(&team.asleep, NULL);
    pthread_cond_init(&team.wake, NULL);
    atomic_store(&team.sleepers, 0);
    atomic_store(&team.generation, 0);
    atomic_store(&team.busy, 0);
    team.started = 0;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget); }

/* The pool never shrinks: with fewer threads wanted, the others merely do not join in. */
static void start(int32_t workers) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    static worker all[MOST_THREADS];
    pthread_once(&once, watch_forks);
    for (int32_t i = team.started + 1; i < workers; i++) {
        pthread_t thread;
        all[i] = (worker){.number = i, .seen = atomic_load(&team.generation)};
        if (pthread_create(&thread, NULL, work, &all[i])) return;
        pthread_detach(thread);
        team.started = i;
    }
}

int32_t anex_team_borrow(void) {
    int32_t wanted = anex_get_num_threads();
    if (wanted == 1 || pthread_mutex_trylock(&team.lent)) return 1;
    start(wanted);
    if (team.started) return wanted < team.started + 1 ? wanted : team.started + 1;
    pthread_mutex_unlock(&team.lent);
    return 1;
}

void anex_team_return(int32_t workers) {
    if (workers > 1) pthread_mutex_unlock(&team.lent);
}

void anex_team_run(int32_t workers, int64_t tasks, int64_t chunk, anex_team_body *body, void *context) {
    team.tasks = tasks, team.chunk = chunk, team.body = body, team.context = context, team.joining = workers;
    atomic_store_explicit(&team.next, 0, memory_order_relaxed);
    atomic_store_explicit(&team.busy, team.started, memory_order_relaxed);
    atomic_fetch_add(&team.generation, 1);
    if (atomic_load(&team.sleepers)) {
        pthread_mutex_lock(&team.asleep);
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.asleep);
    }
    take_chunks(0);
    for (int looks = 0; atomic_load_explicit(&team.busy, memory_order_acquire); looks++) {
        relax();
        if (looks > LOOKS * 10) sched_yield();
    }
}
