/* Threads that wait for work by looking for a moment, then sleeping.

   A job is published by opening `gate`. Workers enter through it and take chunks of tasks, each from a share of
   its own first, so that one after the other lies side by side in memory, then from the shares of others;
   when none are left the caller closes the gate and waits for those inside only, so a worker that was
   slow to wake holds nobody up: it finds the gate closed. Who is outside reads nothing but the gate.
   Between the stages of one run the workers still look, so only the first stage pays for waking them. */
#define _GNU_SOURCE
#include "team.h"

#include "../anex.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <unistd.h>

enum { MOST_THREADS = 64, LOOKS = 2000 };
enum { INSIDE = 1, CLOSED = 1 << 16, JOB = 1 << 17 }; /* the gate: workers inside, whether closed, the job's number */

typedef struct share { /* of the tasks; in lines of its own, as its owner writes it for each chunk */
    _Alignas(128) _Atomic int64_t next;
    int64_t end;
} share;

static struct {
    pthread_mutex_t lent;   /* held by the run that has the pool */
    pthread_mutex_t asleep; /* guards the sleep below */
    pthread_cond_t wake;
    atomic_int sleepers;
    _Atomic uint64_t gate;
    atomic_int wanted; /* threads, the caller counted; 0: not chosen yet */
    int32_t started;   /* workers that exist, numbered 1 .. started; touched only by who has `lent` */
    int32_t joining;   /* threads of the present job, the caller counted */
    int64_t chunk;
    share shares[MOST_THREADS];
    anex_team_body *body;
    void *context;
} team = {.lent = PTHREAD_MUTEX_INITIALIZER, .asleep = PTHREAD_MUTEX_INITIALIZER, .wake = PTHREAD_COND_INITIALIZER, .gate = CLOSED};

static inline void relax(void) {
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

int32_t anex_processors(void) {
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
    n = anex_processors();
    if (n > MOST_THREADS) n = MOST_THREADS;
    atomic_store(&team.wanted, n);
    return n;
}

void anex_set_num_threads(int32_t threads) {
    atomic_store(&team.wanted, threads < 1 ? 1 : threads > MOST_THREADS ? MOST_THREADS : threads);
}

static void take_chunks(int32_t worker) {
    for (int32_t i = 0; i < team.joining; i++) {
        share *from = &team.shares[(worker + i) % team.joining];
        while (atomic_load_explicit(&from->next, memory_order_relaxed) < from->end) {
            int64_t begin = atomic_fetch_add_explicit(&from->next, team.chunk, memory_order_relaxed);
            if (begin >= from->end) break;
            int64_t end = begin + team.chunk;
            team.body(team.context, worker, begin, end < from->end ? end : from->end);
        }
    }
}

static bool is_open(uint64_t gate, uint64_t last) { return !(gate & CLOSED) && gate / JOB != last; }

/* Into the present job, unless it is over or this worker has been in it. */
static bool enter(uint64_t *last) {
    uint64_t gate = atomic_load(&team.gate);
    while (is_open(gate, *last))
        if (atomic_compare_exchange_weak(&team.gate, &gate, gate + INSIDE)) {
            *last = gate / JOB;
            return true;
        }
    return false;
}

static void wait_for_job(uint64_t *last) {
    for (;;) {
        for (int i = 0; i < LOOKS; i++) {
            if (enter(last)) return;
            relax();
        }
        pthread_mutex_lock(&team.asleep);
        atomic_fetch_add(&team.sleepers, 1); /* before looking once more: who opens the gate looks here after it */
        if (!is_open(atomic_load(&team.gate), *last)) pthread_cond_wait(&team.wake, &team.asleep);
        atomic_fetch_sub(&team.sleepers, 1);
        pthread_mutex_unlock(&team.asleep);
    }
}

static void *work(void *argument) {
    const int32_t number = (int32_t)(intptr_t)argument;
    for (uint64_t last = 0;;) {
        wait_for_job(&last);
        if (number < team.joining) take_chunks(number);
        atomic_fetch_sub_explicit(&team.gate, INSIDE, memory_order_release);
    }
    return NULL;
}

/* A forked child has the pool's memory but none of its threads. */
static void forget(void) {
    pthread_mutex_init(&team.lent, NULL);
    pthread_mutex_init(&team.asleep, NULL);
    pthread_cond_init(&team.wake, NULL);
    atomic_store(&team.sleepers, 0);
    atomic_store(&team.gate, CLOSED);
    team.started = 0;
}

static void watch_forks(void) { pthread_atfork(NULL, NULL, forget); }

/* The pool never shrinks: with fewer threads wanted, the others merely do not join in. */
static void start(int32_t workers) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_forks);
    for (int32_t i = team.started + 1; i < workers; i++) {
        pthread_t thread;
        if (pthread_create(&thread, NULL, work, (void *)(intptr_t)i)) return;
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
    team.chunk = chunk, team.body = body, team.context = context, team.joining = workers;
    for (int32_t i = 0; i < workers; i++) {
        atomic_store_explicit(&team.shares[i].next, tasks * i / workers, memory_order_relaxed);
        team.shares[i].end = tasks * (i + 1) / workers;
    }
    atomic_store(&team.gate, (atomic_load(&team.gate) / JOB + 1) * JOB);
    if (atomic_load(&team.sleepers)) {
        pthread_mutex_lock(&team.asleep);
        pthread_cond_broadcast(&team.wake);
        pthread_mutex_unlock(&team.asleep);
    }
    take_chunks(0);
    atomic_fetch_or(&team.gate, CLOSED);
    for (int looks = 0; atomic_load_explicit(&team.gate, memory_order_acquire) % CLOSED;) {
        relax();
        if (looks < LOOKS * 10)
            looks++;
        else
            sched_yield();
    }
}
