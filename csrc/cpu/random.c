/* Random numbers: Philox 4x32-10, so that element i depends on the seed and i alone, whoever computes it. */
#include "kernel.h"

#include "../half.h"

#include <math.h>
#include <stdatomic.h>
#include <time.h>

/* With a seed every run gives the same numbers; with -1 no two runs do. */
typedef struct generator {
    int64_t seed;
    double a, b; /* low and high, mean and stddev, prob */
} generator;

static void philox(uint64_t key, uint64_t counter, uint32_t out[4]) {
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    uint32_t c[4] = {(uint32_t)counter, (uint32_t)(counter >> 32), 0, 0};
    for (int round = 0; round < 10; round++, k0 += 0x9E3779B9u, k1 += 0xBB67AE85u) {
        uint64_t p0 = (uint64_t)c[0] * 0xD2511F53u, p1 = (uint64_t)c[2] * 0xCD9E8D57u;
        uint32_t next[4] = {(uint32_t)(p1 >> 32) ^ c[1] ^ k0, (uint32_t)p1, (uint32_t)(p0 >> 32) ^ c[3] ^ k1,
                            (uint32_t)p0};
        for (int i = 0; i < 4; i++) c[i] = next[i];
    }
    for (int i = 0; i < 4; i++) out[i] = c[i];
}

static double unit(uint32_t bits) { return ((double)bits + 0.5) * 0x1p-32; } /* in (0, 1) */

/* What the whole run draws from: one key, written by the first stage into node->shared. */
static void choose_key(const anex_node *node, const anex_slice *slice) {
    static atomic_uint_fast64_t runs;
    const generator *g = node->state;
    uint64_t *key = slice->shared;
    *key = (uint64_t)g->seed * 0x9E3779B97F4A7C15u;
    if (g->seed < 0) {
        struct timespec now;
        timespec_get(&now, TIME_UTC);
        *key = ((uint64_t)now.tv_sec << 30 ^ (uint64_t)now.tv_nsec) * 0x9E3779B97F4A7C15u + atomic_fetch_add(&runs, 1);
    }
}

static void store(const anex_tensor *y, int64_t i, double value) {
    if (y->dtype == ANEX_F16)
        ((half *)y->data)[i] = anex_float_to_half((float)value);
    else if (y->dtype == ANEX_F32)
        ((float *)y->data)[i] = (float)value;
    else
        ((int32_t *)y->data)[i] = (int32_t)value;
}

static void draw_uniform(const anex_node *node, const anex_slice *slice) {
    const generator *g = node->state;
    uint32_t bits[4];
    for (int64_t i = slice->begin; i < slice->end; i++) {
        philox(*(const uint64_t *)slice->shared, (uint64_t)i, bits);
        store(node->out[0], i, g->a + (g->b - g->a) * unit(bits[0]));
    }
}

static void draw_normal(const anex_node *node, const anex_slice *slice) {
    const generator *g = node->state;
    uint32_t bits[4];
    for (int64_t i = slice->begin; i < slice->end; i++) { /* Box and Muller's */
        philox(*(const uint64_t *)slice->shared, (uint64_t)i, bits);
        double radius = sqrt(-2 * log(unit(bits[0])));
        store(node->out[0], i, g->a + g->b * radius * cos(6.283185307179586 * unit(bits[1])));
    }
}

static void draw_bernoulli(const anex_node *node, const anex_slice *slice) {
    const generator *g = node->state;
    uint32_t bits[4];
    for (int64_t i = slice->begin; i < slice->end; i++) {
        philox(*(const uint64_t *)slice->shared, (uint64_t)i, bits);
        store(node->out[0], i, unit(bits[0]) < g->a);
    }
}

static anex_status start(anex_node *node, int64_t seed, double a, double b, anex_error *error) {
    generator *g = anex_node_state(node, sizeof *g, error);
    if (!g) return ANEX_MEMORY;
    *g = (generator){seed, a, b};
    node->impure = seed < 0;
    node->shared = sizeof(uint64_t);
    anex_add_stage(node, choose_key, 1, 50);
    return ANEX_OK;
}

static anex_status from_shape(anex_node *node, anex_work *draw, double low, double high, anex_error *error) {
    enum { SHAPE, A, B, SEED };
    anex_status status = anex_need_constants(node, 1u << A | 1u << B | 1u << SEED, error);
    if (!status)
        status = start(node, anex_int(node->in[SEED], -1), anex_float(node->in[A], low), anex_float(node->in[B], high),
                       error);
    if (!status) anex_add_stage(node, draw, anex_tensor_size(node->out[0]), 60);
    return status;
}

ANEX_KERNEL(random_uniform) { return from_shape(node, draw_uniform, 0, 1, error); }
ANEX_KERNEL(random_normal) { return from_shape(node, draw_normal, 0, 1, error); }

ANEX_KERNEL(random_bernoulli) {
    enum { SHAPE, PROB, SEED };
    anex_status status = anex_need_constants(node, 1u << PROB | 1u << SEED, error);
    if (!status) status = start(node, anex_int(node->in[SEED], -1), anex_float(node->in[PROB], 0.5), 0, error);
    if (!status) anex_add_stage(node, draw_bernoulli, anex_tensor_size(node->out[0]), 40);
    return status;
}

/* ---- random_categorical: x [rows, classes] of logits or probabilities, y [rows, size] ----------- */

static double value_at(const anex_tensor *x, int64_t i) {
    return x->dtype == ANEX_F16 ? anex_half_to_float(((const half *)x->data)[i]) : ((const float *)x->data)[i];
}

static void draw_categorical(const anex_node *node, const anex_slice *slice) {
    const anex_tensor *x = node->in[0], *y = node->out[0];
    const generator *g = node->state;
    int64_t classes = x->shape[x->rank - 1], size = y->shape[y->rank - 1];
    bool logits = g->a != 0;
    uint32_t bits[4];
    for (int64_t row = slice->begin; row < slice->end; row++) {
        double most = -INFINITY, total = 0;
        for (int64_t c = 0; c < classes; c++) { /* gcc 12 for arm64 fails on fmax here: an internal error */
            double v = value_at(x, row * classes + c);
            most = v > most ? v : most;
        }
        for (int64_t c = 0; c < classes; c++) {
            double v = value_at(x, row * classes + c);
            total += logits ? exp(v - most) : v;
        }
        for (int64_t k = 0; k < size; k++) {
            philox(*(const uint64_t *)slice->shared, (uint64_t)(row * size + k), bits);
            double left = unit(bits[0]) * total;
            int64_t c = 0;
            for (; c < classes - 1; c++) {
                double v = value_at(x, row * classes + c);
                left -= logits ? exp(v - most) : v;
                if (left < 0) break;
            }
            store(y, row * size + k, (double)c);
        }
    }
}

ANEX_KERNEL(random_categorical) {
    enum { X, MODE, SIZE, SEED };
    anex_status status = anex_need_constants(node, 1u << MODE | 1u << SIZE | 1u << SEED, error);
    bool logits = anex_text(node->in[MODE], "logits")[0] != 'p';
    if (!status) status = start(node, anex_int(node->in[SEED], -1), logits, 0, error);
    const anex_tensor *x = node->in[X];
    int64_t rows = anex_span(x, 0, x->rank - 1);
    if (!status)
        anex_add_stage(node, draw_categorical, rows,
                       20.0 * (double)(x->shape[x->rank - 1] + node->out[0]->shape[node->out[0]->rank - 1]));
    return status;
}
