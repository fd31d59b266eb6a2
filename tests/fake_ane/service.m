/* The thread on which evaluations with a completion handler run, one after the other. */
#import "fake.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <time.h>

enum { QUEUE_DEPTH = 127, FAILED = 0x16 };

typedef struct job {
    _ANEProgramForEvaluation *program;
    _ANERequest *request;
    unsigned mask;
    struct job *next;
} job;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t has_jobs = PTHREAD_COND_INITIALIZER, has_room = PTHREAD_COND_INITIALIZER;
static job *first, **last = &first;
static int in_flight;

static void leave(void) {
    pthread_mutex_lock(&mutex);
    in_flight--;
    fake_add(FAKE_COUNT_in_flight, -1);
    pthread_cond_signal(&has_room);
    pthread_mutex_unlock(&mutex);
}

/* An exception here has nobody to catch it: it becomes the error that the handler is given. */
static unsigned status_of(job *work) {
    unsigned status = FAILED;
    @try {
        if (!fake_enter(FAKE_AT_completion)) status = [work->program run:work->request mask:work->mask];
    } @catch (NSException *exception) {
        fake_explain("completion: %s", [[exception reason] UTF8String]);
    }
    return status;
}

static void run(job *work) {
    @autoreleasepool {
        unsigned status = status_of(work);
        ANECompletion handler = [work->request completionHandler];
        leave(); /* before the handler, which may submit again */
        SEL selector = @selector(completionHandler);
        NSError *why = fake_chosen_error(FAKE_AT_completion, selector, status ? fake_status_error(status) : nil);
        if (handler) handler(status ? why : nil);
        [work->request release];
        [work->program release];
        free(work);
    }
}

static void *serve(void *nothing) {
    (void)nothing;
    GSRegisterCurrentThread();
    for (;;) {
        pthread_mutex_lock(&mutex);
        while (!first) pthread_cond_wait(&has_jobs, &mutex);
        job *work = first;
        first = work->next;
        if (!first) last = &first;
        pthread_mutex_unlock(&mutex);
        run(work);
    }
    return NULL;
}

static void start(void) {
    pthread_t thread;
    pthread_attr_t attributes;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_create(&thread, &attributes, serve, NULL);
    pthread_attr_destroy(&attributes);
}

BOOL fake_queue_enter(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, start);
    int64_t wait = fake_number(FAKE_AT_queue_wait);
    struct timespec until;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += wait / 1000;
    until.tv_nsec += wait % 1000 * 1000000;
    if (until.tv_nsec >= 1000000000) {
        until.tv_nsec -= 1000000000;
        until.tv_sec++;
    }
    pthread_mutex_lock(&mutex);
    while (in_flight >= QUEUE_DEPTH && pthread_cond_timedwait(&has_room, &mutex, &until) != ETIMEDOUT) continue;
    BOOL has_entered = in_flight < QUEUE_DEPTH;
    if (has_entered) {
        in_flight++;
        fake_add(FAKE_COUNT_in_flight, 1);
    }
    pthread_mutex_unlock(&mutex);
    return has_entered;
}

void fake_queue_run(_ANEProgramForEvaluation *program, _ANERequest *request, unsigned mask) {
    job *work = calloc(1, sizeof *work);
    *work = (job){[program retain], [request retain], mask, NULL};
    pthread_mutex_lock(&mutex);
    *last = work;
    last = &work->next;
    pthread_cond_signal(&has_jobs);
    pthread_mutex_unlock(&mutex);
}
