/* What the processor can do at most: the two lines of a roofline, measured with the engine's own threads. */
#include "clock.h"

#include "isa.h"
#include "team.h"

#include <stdlib.h>
#include <string.h>

enum { TRIES = 5, MOST_WORKERS = 64, PIECE = 1 << 18 };
static const int64_t ROUNDS = 1 << 17;             /* some milliseconds of multiply-adds */
static const int64_t COPIED = (int64_t)48 << 20; /* bytes, more than the last cache of most machines */

typedef struct probe {
    const anex_isa *isa;
    char *from, *to;
    int64_t flops[MOST_WORKERS]; /* by worker */
    float sink[MOST_WORKERS];
} probe;

static void multiply(void *context, int32_t worker, int64_t begin, int64_t end) {
    probe *p = context;
    for (int64_t i = begin; i < end; i++) p->flops[worker] += p->isa->multiply_add(ROUNDS, &p->sink[worker]);
}

static void copy(void *context, int32_t worker, int64_t begin, int64_t end) {
    const probe *p = context;
    (void)worker;
    memcpy(p->to + begin * PIECE, p->from + begin * PIECE, (size_t)(end - begin) * PIECE);
}

/* The best time of a few tries; whatever disturbs makes it longer. */
static double best(int32_t workers, int64_t tasks, int64_t chunk, anex_team_body *body, probe *p) {
    double least = 0;
    for (int32_t i = 0; i < TRIES; i++) {
        memset(p->flops, 0, sizeof p->flops);
        double begin = anex_clock();
        if (workers > 1)
            anex_team_run(workers, tasks, chunk, body, p);
        else
            body(p, 0, 0, tasks);
        double seconds = anex_clock() - begin;
        if (!i || seconds < least) least = seconds;
    }
    return least > 0 ? least : 1e-9;
}

anex_status anex_measure_limits(anex_limits *limits, anex_error *error) {
    char *memory = malloc((size_t)(2 * COPIED));
    if (!memory) return anex_fail(error, ANEX_MEMORY, "no memory for %lld bytes to copy", (long long)(2 * COPIED));
    memset(memory, 1, (size_t)(2 * COPIED)); /* or every page would be the same empty one */
    probe p = {.isa = anex_isa_find(NULL), .from = memory, .to = memory + COPIED};
    int32_t workers = anex_team_borrow();
    double computing = best(workers, 2 * workers, 1, multiply, &p), flops = 0;
    for (int32_t i = 0; i < MOST_WORKERS; i++) flops += (double)p.flops[i];
    limits->flops_per_second = flops / computing;
    limits->bytes_per_second = 2 * (double)COPIED / best(workers, COPIED / PIECE, 4, copy, &p);
    anex_team_return(workers);
    free(memory);
    return ANEX_OK;
}
