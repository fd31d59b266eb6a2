/* What this machine can do at most, for the share of the limit beside each time: plain loops, without anex.
   machine.py builds it with -march=native and calls it through ctypes. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif
#if defined(__AVX2__)
#include <immintrin.h>
#elif defined(__ARM_NEON)
#include <arm_neon.h>
#endif

enum { MOST_THREADS = 64, CHUNK = 1 << 20, STEP = 64, COLUMNS = 1024 };
static const size_t MEMORY = (size_t)256 << 20; /* bytes; no cache holds it */
static const size_t CACHED = (size_t)3 << 19;   /* bytes of one array: [1,768,1,1024] in float16; three are used */

typedef struct part { /* of one thread */
    char *memory;     /* `bytes` to read, or to copy in halves */
    size_t bytes, at;
    double seconds, rate;
    atomic_int *missing; /* threads that are not ready yet; macOS has no pthread_barrier_t */
    double (*body)(struct part *part); /* a piece of work of some 10 to 100 us: FLOP or bytes done */
} part;

static volatile float sink;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what the threads do ----------------------------------------------------------------------- */

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX2__)
#define LANES 8
#else
#define LANES 4
#endif
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef uint64_t half_line __attribute__((vector_size(32)));

/* Sums that do not wait for each other: more than the latency of a multiply-add times two units. */
#define EACH(f) f(0) f(1) f(2) f(3) f(4) f(5) f(6) f(7) f(8) f(9)

static double fma_body(part *p) {
    enum { ROUNDS = 20000 };
    (void)p;
    lanes a = {0}, b = {0};
    a += 0.999f, b += 0.001f;
#define DECLARE(i) lanes s##i = a + (float)i; /* sums that were equal would be computed once */
#define MULTIPLY(i) s##i = s##i * a + b;
#define ADD(i) a += s##i;
    EACH(DECLARE)
    for (int i = 0; i < ROUNDS; i++) { EACH(MULTIPLY) }
    EACH(ADD)
    sink = a[0];
    return 2.0 * 10 * LANES * ROUNDS;
}

#if defined(__AVX512VNNI__)
#define INT8_LANES 64
typedef __m512i quads;
#define ZERO _mm512_setzero_si512()
#define DOT(i) __asm__ volatile("vpdpbusd %1, %1, %0" : "+v"(s##i) : "v"(a)); /* gcc would copy registers around it */
#elif defined(__AVXVNNI__)
#define INT8_LANES 32
typedef __m256i quads;
#define ZERO _mm256_setzero_si256()
#define DOT(i) __asm__ volatile("{vex} vpdpbusd %1, %1, %0" : "+x"(s##i) : "x"(a));
#elif defined(__ARM_FEATURE_DOTPROD)
#define INT8_LANES 16
typedef int32x4_t quads;
#define ZERO vdupq_n_s32(0)
#define DOT(i) __asm__ volatile("sdot %0.4s, %1.16b, %1.16b" : "+w"(s##i) : "w"(a));
#endif

#if defined(INT8_LANES)
static double int8_body(part *p) {
    enum { ROUNDS = 20000 };
    (void)p;
    quads a = ZERO;
#define DECLARE_QUADS(i) quads s##i = ZERO;
    EACH(DECLARE_QUADS)
    for (int i = 0; i < ROUNDS; i++) { EACH(DOT) }
    return 2.0 * 10 * INT8_LANES * ROUNDS;
}
#endif

static char *next(part *p, size_t bytes, size_t all) {
    if (p->at + bytes > all) p->at = 0;
    char *here = p->memory + p->at;
    p->at += bytes;
    return here;
}

static double read_body(part *p) {
    const char *from = next(p, CHUNK, p->bytes);
    half_line a = {0}, b = {0}, c = {0}, d = {0}; /* Zen 5 reads lines in halves a quarter faster than whole */
    const size_t quarter = CHUNK / 4; /* four streams, which the prefetchers like better than one */
    for (size_t i = 0; i < quarter; i += sizeof a) {
        a += *(const half_line *)(from + i);
        b += *(const half_line *)(from + quarter + i);
        c += *(const half_line *)(from + 2 * quarter + i);
        d += *(const half_line *)(from + 3 * quarter + i);
    }
    a += b + c + d;
    sink = (float)a[0];
    return CHUNK;
}

static double copy_body(part *p) { /* bytes read and bytes written */
    const size_t half = p->bytes / 2;
    char *from = next(p, CHUNK, half);
    memcpy(from + half, from, CHUNK);
    return 2.0 * CHUNK;
}

/* The same past the caches: what is written over is not read first. */
#if defined(__AVX2__)
#define HAS_STREAM
static double stream_body(part *p) {
    const size_t half = p->bytes / 2;
    char *from = next(p, CHUNK, half);
    for (size_t i = 0; i < CHUNK; i += STEP) {
        const __m256i *x = (const void *)(from + i);
        __m256i *y = (void *)(from + half + i);
        __m256i a = _mm256_load_si256(x), b = _mm256_load_si256(x + 1);
        _mm256_stream_si256(y, a), _mm256_stream_si256(y + 1, b);
    }
    _mm_sfence();
    return 2.0 * CHUNK;
}
#endif

static double cache_body(part *p) { /* z = x + y in the cache that the threads share: bytes of all three */
    const size_t each = p->bytes / 3 / STEP * STEP;
    const char *x = p->memory, *y = x + each;
    char *z = p->memory + 2 * each;
    for (size_t i = 0; i + sizeof(lanes) <= each; i += sizeof(lanes))
        *(lanes *)(z + i) = *(const lanes *)(x + i) + *(const lanes *)(y + i);
    return 3.0 * (double)each;
}

/* Rows of float16 by one float32 vector that the first cache holds: bytes of the rows. */
#if defined(__AVX512F__) || (defined(__AVX2__) && defined(__F16C__)) || defined(__ARM_NEON)
#define HAS_GEMV
static float vector[COLUMNS];
static double gemv_body(part *p) {
    enum { ROWS = CHUNK / 2 / COLUMNS, AHEAD = 8 * 2 * COLUMNS };
    const char *from = next(p, CHUNK, p->bytes);
    float total = 0;
    for (int r = 0; r < ROWS; r++) {
        const char *row = from + (size_t)r * 2 * COLUMNS;
        lanes s0 = {0}, s1 = {0};
        for (int i = 0; i < COLUMNS; i += 2 * LANES) {
            __builtin_prefetch(row + AHEAD + 2 * i);
#if defined(__AVX512F__)
#define WIDE(at) ((lanes)_mm512_cvtph_ps(_mm256_loadu_si256((const void *)(row + 2 * (at)))))
#elif defined(__AVX2__)
#define WIDE(at) ((lanes)_mm256_cvtph_ps(_mm_loadu_si128((const void *)(row + 2 * (at)))))
#else
#define WIDE(at) ((lanes)vcvt_f32_f16(vld1_f16((const void *)(row + 2 * (at)))))
#endif
            s0 += WIDE(i) * *(const lanes *)(vector + i);
            s1 += WIDE(i + LANES) * *(const lanes *)(vector + i + LANES);
        }
        s0 += s1;
        for (int i = 0; i < LANES; i++) total += s0[i];
    }
    sink = total;
    return CHUNK;
}
#endif

/* ---- the threads ------------------------------------------------------------------------------- */

static void *work(void *context) {
    part *p = context;
    p->body(p);
    atomic_fetch_sub(p->missing, 1);
    while (atomic_load(p->missing) > 0) sched_yield();
    double begin = now(), done = 0, passed = 0;
    while (passed < p->seconds) {
        done += p->body(p);
        passed = now() - begin;
    }
    p->rate = done / passed;
    return NULL;
}

/* FLOP/s ("fma", "int8") or bytes/s ("read", "copy", "stream", "cache", "gemv") of all threads; 0: not on this machine,
   -1: no such kind, or no memory. */
double limit_rate(const char *kind, int threads, double seconds) {
    static char *memory;
    double (*body)(part *) = NULL;
    size_t bytes = 0;
    if (!strcmp(kind, "fma")) body = fma_body;
    if (!strcmp(kind, "read")) body = read_body, bytes = MEMORY;
    if (!strcmp(kind, "copy")) body = copy_body, bytes = MEMORY;
    if (!strcmp(kind, "cache")) body = cache_body, bytes = 3 * CACHED;
#if defined(HAS_STREAM)
    if (!strcmp(kind, "stream")) body = stream_body, bytes = MEMORY;
#else
    if (!strcmp(kind, "stream")) return 0;
#endif
#if defined(INT8_LANES)
    if (!strcmp(kind, "int8")) body = int8_body;
#else
    if (!strcmp(kind, "int8")) return 0;
#endif
#if defined(HAS_GEMV)
    if (!strcmp(kind, "gemv")) body = gemv_body, bytes = MEMORY;
#else
    if (!strcmp(kind, "gemv")) return 0;
#endif
    if (!body || threads < 1 || threads > MOST_THREADS) return -1;
    if (bytes && !memory) {
        memory = aligned_alloc((size_t)2 << 20, MEMORY + CHUNK); /* past the end: what is fetched ahead */
        if (!memory) return -1;
#if defined(MADV_HUGEPAGE)
        madvise(memory, MEMORY, MADV_HUGEPAGE);
#endif
        memset(memory, 0, MEMORY + CHUNK);
    }
    atomic_int missing = threads;
    pthread_t ids[MOST_THREADS];
    part parts[MOST_THREADS];
    const size_t share = bytes / (size_t)threads / STEP * STEP;
    for (int i = 0; i < threads; i++) {
        parts[i] = (part){.memory = memory ? memory + (size_t)i * share : NULL, .bytes = share, .seconds = seconds,
                          .missing = &missing, .body = body};
        if (i && pthread_create(&ids[i], NULL, work, &parts[i])) return -1;
    }
    work(&parts[0]);
    double rate = parts[0].rate;
    for (int i = 1; i < threads; i++) pthread_join(ids[i], NULL), rate += parts[i].rate;
    return rate;
}

/* ---- how far apart two processors are ---------------------------------------------------------- */

typedef struct table {
    _Alignas(128) atomic_int ball; /* odd: served; even: answered; -1: the game is over */
    double seconds;
} table;
enum { VOLLEYS = 25, PATIENCE = 1 << 12 };

/* The ball once it is `wanted`, or -1. Who waits long gives way: another process may have the processor. */
static int catch_ball(table *t, int wanted) {
    for (int spins = 0;; spins++) {
        int ball = atomic_load_explicit(&t->ball, memory_order_acquire);
        if (ball == wanted || ball == -1) return ball;
        if (spins > PATIENCE) sched_yield();
    }
}

static void stay_on(int nth) { /* the nth processor this process may use, where the system lets us choose */
#if defined(__linux__)
    cpu_set_t may, one;
    if (sched_getaffinity(0, sizeof may, &may)) return;
    CPU_ZERO(&one);
    for (int i = 0; i < CPU_SETSIZE; i++)
        if (CPU_ISSET(i, &may) && nth-- == 0) {
            CPU_SET(i, &one);
            pthread_setaffinity_np(pthread_self(), sizeof one, &one);
            return;
        }
#else
    (void)nth;
#endif
}

static void *answer(void *context) {
    table *t = context;
    stay_on(1);
    for (int i = 0; catch_ball(t, 2 * i + 1) != -1; i++)
        atomic_store_explicit(&t->ball, 2 * i + 2, memory_order_release);
    return NULL;
}

static double best; /* seconds of a volley */

static void *serve(void *context) {
    table *t = context;
    stay_on(0);
    best = 1;
    const double end = now() + t->seconds;
    int i = 0;
    for (double begin = now(), passed = 0; begin < end; begin += passed) {
        for (int volley = 0; volley < VOLLEYS; volley++, i++) {
            atomic_store_explicit(&t->ball, 2 * i + 1, memory_order_release);
            catch_ball(t, 2 * i + 2);
        }
        passed = now() - begin;
        if (passed / VOLLEYS < best) best = passed / VOLLEYS;
    }
    atomic_store(&t->ball, -1);
    return NULL;
}

/* Seconds for a signal from one processor to a second and back, the best of the games that `seconds` have room for; ask
   only where there are two. */
double limit_signal(double seconds) {
    table t = {.seconds = seconds};
    pthread_t there, here;
    if (pthread_create(&there, NULL, answer, &t)) return -1;
    if (pthread_create(&here, NULL, serve, &t)) return -1;
    pthread_join(here, NULL);
    pthread_join(there, NULL);
    return best;
}
