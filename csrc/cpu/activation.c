/* Activations: the elementwise functions that neural networks name. */
#include "map.h"
#include "quick.h"
#include "vmath.h"

/* An op of x alone, its constants alpha and beta behind it in MIL's inputs. */
static anex_status map_activation(anex_node *node, anex_blocks block, double cost, int32_t constants,
                                  anex_error *error) {
    anex_map_op op = anex_map_of(node, 1, block, cost);
    anex_status status = anex_map_parameters(node, &op, constants, (const double[]){1, 0}, error);
    return status ? status : ANEX_LOCAL(map)(node, &op, error);
}

/* Both forms of a function of quick.h, as name##_blocks: of vectors, the last of which may not be full. */
#define QUICK(name)                                                                                 \
    static void name##_lanes(void *to, const void *const *from, const anex_lane *p, int64_t n) {    \
        const float *x = from[0];                                                                   \
        float *y = to, rest[VF] = {0};                                                              \
        int64_t i = 0;                                                                              \
        (void)p;                                                                                    \
        for (; i + VF <= n; i += VF) vf_store(y + i, quick_##name(vf_load(x + i)));                 \
        if (i == n) return;                                                                         \
        memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);                                           \
        vf_store(rest, quick_##name(vf_load(rest)));                                                \
        memcpy(y + i, rest, (size_t)(n - i) * sizeof *x);                                           \
    }                                                                                               \
    static void name##_half(void *to, const void *const *from, const anex_lane *p, int64_t n) {     \
        const half *x = from[0];                                                                    \
        half *y = to, rest[VF] = {0};                                                               \
        int64_t i = 0;                                                                              \
        (void)p;                                                                                    \
        for (; i + VF <= n; i += VF) vf_store_half(y + i, quick_##name(vf_load_half(x + i)));       \
        if (i == n) return;                                                                         \
        memcpy(rest, x + i, (size_t)(n - i) * sizeof *x);                                           \
        vf_store_half(rest, quick_##name(vf_load_half(rest)));                                      \
        memcpy(y + i, rest, (size_t)(n - i) * sizeof *x);                                           \
    }                                                                                               \
    static const anex_blocks quick_##name##_blocks = {name##_lanes, name##_half};

static bool may_be_quick(const anex_node *node) {
    return !node->strict && node->in[0]->dtype == ANEX_F16 && node->out[0]->dtype == ANEX_F16;
}

/* ACTIVATION(op, constants alpha and beta it takes, nanoseconds per lane, y in terms of a, alpha, beta).
   Comparisons are turned so that a NaN comes through. */
#define ACTIVATION(op, constants, cost, ...)            \
    ANEX_FLOAT1(op##_float, __VA_ARGS__)                \
    ANEX_KERNEL(op) { return map_activation(node, op##_float_blocks, cost, constants, error); }

static inline float below(float x, float limit) { return x > limit ? limit : x; } /* min, max that keep a NaN */
static inline float above(float x, float limit) { return x < limit ? limit : x; }

/* The same of an op that only bounds x, which the end of a product does in registers */
#define BOUNDS(op, cost, lowest, highest, ...)                                             \
    ANEX_FLOAT1(op##_float, __VA_ARGS__)                                                   \
    ANEX_KERNEL(op) {                                                                      \
        anex_map_op bounds = anex_map_of(node, 1, op##_float_blocks, cost);                \
        bounds.form = ANEX_BOUNDS_FORM, bounds.low = lowest, bounds.high = highest;        \
        return ANEX_LOCAL(map)(node, &bounds, error);                                      \
    }

BOUNDS(relu, 0.03, 0, INFINITY, above(a, 0))
BOUNDS(relu6, 0.04, 0, 6, below(above(a, 0), 6))
ACTIVATION(leaky_relu, 1, 0.05, a < 0 ? alpha.f * a : a)
ACTIVATION(clamped_relu, 2, 0.05, below(a < 0 ? alpha.f * a : a, beta.f))
ACTIVATION(thresholded_relu, 1, 0.05, a < alpha.f ? 0 : a)
ACTIVATION(elu, 1, 0.4, a < 0 ? alpha.f * vm_expm1(a) : a)
ACTIVATION(linear_activation, 2, 0.05, alpha.f * a + beta.f)
ACTIVATION(scaled_tanh, 2, 0.7, alpha.f * vm_tanh(beta.f * a))
ACTIVATION(sigmoid_hard, 2, 0.05, below(above(alpha.f * a + beta.f, 0), 1))
ACTIVATION(softplus, 0, 0.7, vm_softplus(a))
ACTIVATION(softsign, 0, 0.15, a / (1 + vm_abs(a)))

/* ---- with quick forms ----------------------------------------------------------------------------- */

#define ACTIVATION_QUICK(op, cost, ...)                                                                      \
    QUICK(op)                                                                                                \
    ANEX_FLOAT1(op##_float, __VA_ARGS__)                                                                     \
    ANEX_KERNEL(op) {                                                                                        \
        bool quick = may_be_quick(node);                                                                     \
        return map_activation(node, quick ? quick_##op##_blocks : op##_float_blocks, cost, 0, error);        \
    }

ACTIVATION_QUICK(sigmoid, 0.15, vm_sigmoid(a))
ACTIVATION_QUICK(silu, 0.15, a * vm_sigmoid(a))

/* ---- gelu ---------------------------------------------------------------------------------------- */

QUICK(gelu_exact)
QUICK(gelu_tanh)
QUICK(gelu_sigmoid)
ANEX_FLOAT1(gelu_exact_float, 0.5f * a * (1 + vm_erf(a * 0x1.6a09e6p-1f)))
ANEX_FLOAT1(gelu_tanh_float, 0.5f * a * (1 + vm_tanh(0x1.988454p-1f * (a + 0.044715f * a * a * a))))
ANEX_FLOAT1(gelu_sigmoid_float, a * vm_sigmoid(1.702f * a))
/* (1 + tanh z) / 2 = 1 / (1 + e^-2z), for float32 in plans that need not round as strict ones do */
ANEX_FLOAT1(gelu_tanh_fast, a * vm_sigmoid_fast(a * vm_fma(a * a, 0x1.2444f2p-4f, 0x1.988454p+0f)))
ANEX_FLOAT1(gelu_sigmoid_fast, a * vm_sigmoid_fast(1.702f * a))

ANEX_KERNEL(gelu) {
    enum { X, MODE };
    static const struct {
        const char *mode;
        const anex_blocks *strict, *fast, *quick;
    } modes[] = {{"EXACT", &gelu_exact_float_blocks, &gelu_exact_float_blocks, &quick_gelu_exact_blocks},
                 {"TANH_APPROXIMATION", &gelu_tanh_float_blocks, &gelu_tanh_fast_blocks, &quick_gelu_tanh_blocks},
                 {"SIGMOID_APPROXIMATION", &gelu_sigmoid_float_blocks, &gelu_sigmoid_fast_blocks,
                  &quick_gelu_sigmoid_blocks}};
    anex_status status = anex_need_constants(node, 1u << MODE, error);
    if (status) return status;
    const char *mode = anex_text(node->in[MODE], "EXACT");
    node->packed |= 1u << MODE;
    bool quick = may_be_quick(node);
    for (int32_t i = 0; i < 3; i++)
        if (!strcmp(mode, modes[i].mode)) {
            const anex_blocks *block = quick ? modes[i].quick : node->strict ? modes[i].strict : modes[i].fast;
            return map_activation(node, *block, quick ? 0.2 : 0.8, 0, error);
        }
    return anex_node_fail(node, error, ANEX_INVALID,
                          "mode is \"%s\"; it can be EXACT, TANH_APPROXIMATION or SIGMOID_APPROXIMATION", mode);
}

/* ---- with constants per channel -------------------------------------------------------------------- */

/* x [N,C,...] and n - 1 operands [C], taken to be [C,1,...]: they broadcast along axis 1 of x. */
static anex_status map_channels(anex_node *node, int32_t n, anex_blocks block, double cost, anex_error *error) {
    const anex_tensor *x = node->in[0];
    if (x->rank < 2)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d; it needs an axis 1 of channels", x->rank);
    anex_map_op op = anex_map_of(node, n, block, cost);
    for (int32_t k = 1; k < n; k++) {
        const anex_tensor *c = node->in[k];
        if (!anex_is_float(c) || c->rank != 1 || c->shape[0] != x->shape[1])
            return anex_node_fail(node, error, ANEX_SHAPE,
                                  "x has %lld channels; alpha and beta must be vectors of as many floats",
                                  (long long)x->shape[1]);
        op.x[k].rank = x->rank - 1;
        for (int32_t i = 1; i < op.x[k].rank; i++) op.x[k].shape[i] = 1;
    }
    return ANEX_LOCAL(map)(node, &op, error);
}

ANEX_FLOAT2(prelu_float, a < 0 ? b * a : a)
ANEX_KERNEL(prelu) { return map_channels(node, 2, prelu_float_blocks, 0.05, error); }

ANEX_BLOCK3(softplus_parametric_float, float, float, b * vm_softplus(a * c))
static const anex_blocks softplus_parametric_blocks = {softplus_parametric_float, NULL};
ANEX_KERNEL(softplus_parametric) { return map_channels(node, 3, softplus_parametric_blocks, 0.8, error); }
