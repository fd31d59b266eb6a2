/* The arithmetic of optimizers, on elements that lie side by side: one read and one write of everything. */
#include "optimizer.h"

#include "../half.h"

#include <math.h>

enum { BLOCK = 512, LANES = 8 };

/* As torch has them: decay of the weight itself (AdamW) or of the gradient (the others). */
static void adam(const anex_update *restrict u, float *restrict w, const float *restrict g, float *restrict m,
                 float *restrict v, int64_t n) {
    float scale = u->scale, one = u->one, two = u->two, kept = u->kept, keep = u->keep, decay = u->decay, rate = u->rate;
    float root = u->root, epsilon = u->epsilon;
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] * scale + decay * w[i];
        float first = m[i] + one * (gradient - m[i]), second = kept * v[i] + two * gradient * gradient;
        m[i] = first, v[i] = second;
        w[i] = keep * w[i] - rate * first / (sqrtf(second) * root + epsilon);
    }
}

static void momentum(const anex_update *restrict u, float *restrict w, const float *restrict g, float *restrict m,
                     int64_t n) {
    float scale = u->scale, kept = u->kept, decay = u->decay, rate = u->rate, ahead = u->nesterov ? kept : 0;
    float of_gradient = u->nesterov ? 1 : 0, of_first = u->nesterov ? ahead : 1;
    for (int64_t i = 0; i < n; i++) {
        float gradient = g[i] * scale + decay * w[i], first = kept * m[i] + gradient;
        m[i] = first;
        w[i] -= rate * (of_gradient * gradient + of_first * first);
    }
}

static void descend(const anex_update *restrict u, float *restrict w, const float *restrict g, int64_t n) {
    float scale = u->scale, decay = u->decay, rate = u->rate;
    for (int64_t i = 0; i < n; i++) w[i] -= rate * (g[i] * scale + decay * w[i]);
}

static void sum(const anex_update *restrict u, float *restrict w, const float *restrict g, int64_t n) {
    float scale = u->scale;
    if (u->starts)
        for (int64_t i = 0; i < n; i++) w[i] = g[i] * scale;
    else
        for (int64_t i = 0; i < n; i++) w[i] += g[i] * scale;
}

static const float *widened(const anex_elements *e, int64_t at, int64_t n, float *room) {
    if (e->gradient_dtype == ANEX_F32) return (const float *)e->gradient + at;
    anex_widen(room, (const half *)e->gradient + at, n);
    return room;
}

void ANEX_LOCAL(update)(const anex_update *u, const anex_elements *e, int64_t n) {
    float room[BLOCK];
    int64_t step = e->copy || e->gradient_dtype != ANEX_F32 ? BLOCK : n;
    for (int64_t at = 0; at < n; at += step) {
        int64_t count = n - at < step ? n - at : step;
        const float *g = widened(e, at, count, room);
        float *w = e->weight + at;
        switch (u->rule) {
        case ANEX_ADAM:
        case ANEX_ADAMW: adam(u, w, g, e->first + at, e->second + at, count); break;
        case ANEX_SGD:
            if (e->first)
                momentum(u, w, g, e->first + at, count);
            else
                descend(u, w, g, count);
            break;
        case ANEX_SUM: sum(u, w, g, count); break;
        }
        if (e->copy) anex_narrow((half *)e->copy + at, w, count);
    }
}

/* In double, in lanes that are added in one order: the same on every instruction set. */
double ANEX_LOCAL(squares)(const anex_elements *e, int64_t n) {
    float room[BLOCK];
    double lane[LANES] = {0}, total = 0;
    for (int64_t at = 0; at < n; at += BLOCK) {
        int64_t count = n - at < BLOCK ? n - at : BLOCK, i = 0;
        const float *g = widened(e, at, count, room);
        for (; i + LANES <= count; i += LANES)
            for (int32_t j = 0; j < LANES; j++) lane[j] += (double)g[i + j] * g[i + j];
        for (; i < count; i++) lane[i % LANES] += (double)g[i] * g[i];
    }
    for (int32_t j = 0; j < LANES; j++) total += lane[j];
    return total;
}
