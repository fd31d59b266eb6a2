/* Elementwise ops: a function on blocks of lanes, fed by one broadcasting engine.

   A block function (chain.h) sees lanes of float or int32. The engine (map.c) widens operands into blocks
   that stay in the first cache, broadcasts while it does so, and narrows the result: to its width for an
   integer, to lane != 0 for a bool. F32 and I32 tensors are read and written where they are. An op of
   floats has a second form whose lanes are float16 in memory and float in registers; when all tensors are
   F16 and it is alone, it saves the passes that widen and narrow.

   What an op computes (chain.h) is kept apart from where its lanes come from (map.c), so that a chain of
   ops on one block, or one at the end of a matrix product, needs nothing new from the op. */
#ifndef ANEX_MAP_H
#define ANEX_MAP_H

#include "chain.h"

enum { ANEX_MAP_LANES = 1024 }; /* of one block: three operands and a result take 16 KiB */

/* The op `block` on the node's first n inputs as they are; the kernel may then change what they are taken for. */
static inline anex_map_op anex_map_of(const anex_node *node, int32_t n, anex_blocks block, double cost) {
    anex_map_op op = {.block = block, .cost = cost, .n = n, .out = node->out[0]->dtype};
    for (int32_t i = 0; i < n; i++) op.x[i] = *node->in[i];
    return op;
}
/* Plan it as the node's only stage, or join it to node->onto; fails when an operand does not broadcast to the
   shape of out[0]. */
anex_status ANEX_LOCAL(map)(anex_node *node, const anex_map_op *op, anex_error *error);

/* MIL's constant arguments behind the operands, in[op->n ...], become op->p: float or int32 as x[0] is. */
static inline anex_status anex_map_parameters(anex_node *node, anex_map_op *op, int32_t n, const double *otherwise,
                                              anex_error *error) {
    for (int32_t i = 0; i < n; i++) {
        const anex_tensor *t = node->in[op->n + i];
        uint32_t bit = 1u << (op->n + i);
        anex_status status = anex_need_constants(node, bit, error);
        if (status) return status;
        node->packed |= bit;
        if (anex_is_float(&op->x[0]))
            op->p[i].f = (float)anex_float(t, otherwise[i]);
        else
            op->p[i].i = (int32_t)anex_int(t, otherwise[i] < INT32_MIN   ? INT32_MIN
                                              : otherwise[i] > INT32_MAX ? INT32_MAX
                                                                         : (int64_t)otherwise[i]);
    }
    return ANEX_OK;
}

/* ---- writing block functions ------------------------------------------------------------------ */

/* Lanes are independent: `y` is no operand, or lane for lane the same. (Clang's form of this would warn
   about each loop that calls libm; it compares the addresses at run time instead.) */
#if defined(__GNUC__) && !defined(__clang__)
#define ANEX_LANES _Pragma("GCC ivdep")
#else
#define ANEX_LANES
#endif
#define ANEX_BLOCK_BEGIN(name, result)                                                   \
    static void name(void *to, const void *const *from, const anex_lane *p, int64_t n) { \
        result *y = to;                                                                  \
        const anex_lane alpha = p[0], beta = p[1];                                       \
        (void)alpha, (void)beta;

/* ANEX_BLOCK1(name, type of the result, type of the operand, the value of one lane in terms of a, alpha and beta) */
#define ANEX_BLOCK1(name, result, type, ...)      \
    ANEX_BLOCK_BEGIN(name, result)                \
    const type *x = from[0];                      \
    ANEX_LANES for (int64_t i = 0; i < n; i++) {  \
        type a = x[i];                            \
        y[i] = __VA_ARGS__;                       \
    }                                             \
    }
/* ... in terms of a, b, alpha and beta */
#define ANEX_BLOCK2(name, result, type, ...)      \
    ANEX_BLOCK_BEGIN(name, result)                \
    const type *x0 = from[0], *x1 = from[1];      \
    ANEX_LANES for (int64_t i = 0; i < n; i++) {  \
        type a = x0[i], b = x1[i];                \
        y[i] = __VA_ARGS__;                       \
    }                                             \
    }
/* ... in terms of a, b, c, alpha and beta */
#define ANEX_BLOCK3(name, result, type, ...)                \
    ANEX_BLOCK_BEGIN(name, result)                          \
    const type *x0 = from[0], *x1 = from[1], *x2 = from[2]; \
    ANEX_LANES for (int64_t i = 0; i < n; i++) {            \
        type a = x0[i], b = x1[i], c = x2[i];               \
        y[i] = __VA_ARGS__;                                 \
    }                                                       \
    }

/* The half form. Sixteen lanes at a time, in arrays that gcc keeps in registers; the last may be fewer. */
#define ANEX_HALF_LANES 16
#if defined(__GNUC__) && !defined(__clang__)
#define ANEX_ROLLED _Pragma("GCC unroll 1") /* unrolled, a lane that chooses would become a branch */
#else
#define ANEX_ROLLED
#endif
#define ANEX_HALF1_STEP(m, ...)                                               \
    {                                                                         \
        float x0[ANEX_HALF_LANES] = {0}, z[ANEX_HALF_LANES];                  \
        anex_widen(x0, (const half *)from[0] + i, m);                         \
        ANEX_ROLLED for (int32_t k = 0; k < ANEX_HALF_LANES; k++) {           \
            float a = x0[k];                                                  \
            z[k] = __VA_ARGS__;                                               \
        }                                                                     \
        anex_narrow(y + i, z, m);                                             \
    }
#define ANEX_HALF2_STEP(m, ...)                                               \
    {                                                                         \
        float x0[ANEX_HALF_LANES] = {0}, x1[ANEX_HALF_LANES] = {0}, z[ANEX_HALF_LANES]; \
        anex_widen(x0, (const half *)from[0] + i, m);                         \
        anex_widen(x1, (const half *)from[1] + i, m);                         \
        ANEX_ROLLED for (int32_t k = 0; k < ANEX_HALF_LANES; k++) {           \
            float a = x0[k], b = x1[k];                                       \
            z[k] = __VA_ARGS__;                                               \
        }                                                                     \
        anex_narrow(y + i, z, m);                                             \
    }
#define ANEX_HALF_BLOCK(name, step, ...)                                                          \
    ANEX_BLOCK_BEGIN(name, half)                                                                  \
    int64_t i = 0;                                                                                \
    for (; i + ANEX_HALF_LANES <= n; i += ANEX_HALF_LANES) step(ANEX_HALF_LANES, __VA_ARGS__)     \
    if (i < n) step(n - i, __VA_ARGS__)                                                           \
    }

/* Both forms of a function of floats, as name##_blocks. */
#define ANEX_FLOAT1(name, ...)                                     \
    ANEX_BLOCK1(name##_lanes, float, float, __VA_ARGS__)           \
    ANEX_HALF_BLOCK(name##_half, ANEX_HALF1_STEP, __VA_ARGS__)     \
    static const anex_blocks name##_blocks = {name##_lanes, name##_half};
#define ANEX_FLOAT2(name, ...)                                     \
    ANEX_BLOCK2(name##_lanes, float, float, __VA_ARGS__)           \
    ANEX_HALF_BLOCK(name##_half, ANEX_HALF2_STEP, __VA_ARGS__)     \
    static const anex_blocks name##_blocks = {name##_lanes, name##_half};

/* The same for a function that rounds at most once: where there is float16 arithmetic its bits are those of float,
   narrowed, because a float holds twice the digits of a float16 and two more. */
#if defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
#define ANEX_EXACT2(name, ...)                                     \
    ANEX_BLOCK2(name##_lanes, float, float, __VA_ARGS__)           \
    ANEX_BLOCK2(name##_half, _Float16, _Float16, __VA_ARGS__)      \
    static const anex_blocks name##_blocks = {name##_lanes, name##_half};
#else
#define ANEX_EXACT2 ANEX_FLOAT2
#endif

/* The one form of a function of integers. */
#define ANEX_INT1(name, ...)                                    \
    ANEX_BLOCK1(name##_lanes, int32_t, int32_t, __VA_ARGS__)    \
    static const anex_blocks name##_blocks = {name##_lanes, NULL};
#define ANEX_INT2(name, ...)                                    \
    ANEX_BLOCK2(name##_lanes, int32_t, int32_t, __VA_ARGS__)    \
    static const anex_blocks name##_blocks = {name##_lanes, NULL};

#endif
