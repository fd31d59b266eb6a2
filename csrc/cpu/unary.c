/* Elementwise ops of one operand. */
#include "map.h"
#include "vmath.h"

static anex_status map_block(anex_node *node, anex_blocks block, double cost, anex_error *error) {
    anex_map_op op = anex_map_of(node, 1, block, cost);
    return ANEX_LOCAL(map)(node, &op, error);
}
static anex_status map_with(anex_node *node, anex_blocks block, double cost, int32_t n, const double *otherwise,
                            anex_error *error) {
    anex_map_op op = anex_map_of(node, 1, block, cost);
    anex_status status = anex_map_parameters(node, &op, n, otherwise, error);
    return status ? status : ANEX_LOCAL(map)(node, &op, error);
}

static anex_blocks by_kind(const anex_node *node, anex_blocks of_float, anex_blocks of_int) {
    return anex_is_float(node->in[0]) ? of_float : of_int;
}

/* UNARY(op, nanoseconds per lane, y in terms of a) */
#define UNARY(op, cost, ...)                              \
    ANEX_FLOAT1(op##_float, __VA_ARGS__)                  \
    ANEX_KERNEL(op) { return map_block(node, op##_float_blocks, cost, error); }

UNARY(acos, 0.4, vm_acos(a))
UNARY(asin, 0.4, vm_asin(a))
UNARY(atan, 0.4, vm_atan(a))
UNARY(atanh, 0.7, vm_atanh(a))
UNARY(ceil, 0.05, vm_ceil(a))
UNARY(cosh, 0.4, vm_cosh(a))
UNARY(erf, 0.6, vm_erf(a))
UNARY(exp, 0.3, vm_exp(a))
UNARY(floor, 0.05, vm_floor(a))
UNARY(round, 0.05, vm_rint(a)) /* halves to even */
UNARY(sinh, 0.8, vm_sinh(a))
UNARY(sqrt, 0.2, sqrtf(a))
UNARY(tanh, 0.6, vm_tanh(a))

/* ---- with a constant added first --------------------------------------------------------------- */

/* coremltools' defaults, one fact here for programs that leave epsilon out */
#define UNARY_EPSILON(op, cost, epsilon, ...)                                \
    ANEX_FLOAT1(op##_float, __VA_ARGS__)                                            \
    ANEX_KERNEL(op) {                                                               \
        return map_with(node, op##_float_blocks, cost, 1, (double[]){epsilon}, error); \
    }

UNARY_EPSILON(inverse, 0.15, 1e-4, 1 / (a + alpha.f))
UNARY_EPSILON(log, 0.4, 1e-45, vm_log(a + alpha.f))
UNARY_EPSILON(rsqrt, 0.3, 1e-12, 1 / sqrtf(a + alpha.f))

/* ---- of floats and integers -------------------------------------------------------------------- */

#define UNARY_NUMBER(op, cost, of_float, of_int)    \
    ANEX_FLOAT1(op##_float, of_float)               \
    ANEX_INT1(op##_int, of_int)                     \
    ANEX_KERNEL(op) { return map_block(node, by_kind(node, op##_float_blocks, op##_int_blocks), cost, error); }

/* the bits of the product or negation modulo 2^32, as numpy has them */
static inline int32_t negated(int32_t a) { return (int32_t)(0u - (uint32_t)a); }
static inline int32_t squared(int32_t a) { return (int32_t)((uint32_t)a * (uint32_t)a); }
static inline int32_t two_to(int32_t a) { return a < 0 ? 0 : a > 30 ? INT32_MAX : 1 << (a & 31); }
/* a NaN stays, -0 becomes 0 */
static inline float sign_of(float a) { return a > 0 ? 1 : a < 0 ? -1 : a == 0 ? 0 : a; }

UNARY_NUMBER(abs, 0.03, vm_abs(a), a < 0 ? negated(a) : a)
UNARY_NUMBER(exp2, 0.3, vm_exp2(a), two_to(a))
UNARY_NUMBER(sign, 0.05, sign_of(a), (a > 0) - (a < 0))
UNARY_NUMBER(square, 0.03, a * a, squared(a))

/* Comparisons are turned so that a NaN comes through. */
ANEX_FLOAT1(clip_float, a < alpha.f ? alpha.f : a > beta.f ? beta.f : a)
ANEX_INT1(clip_int, a < alpha.i ? alpha.i : a > beta.i ? beta.i : a)
ANEX_KERNEL(clip) {
    anex_map_op op = anex_map_of(node, 1, by_kind(node, clip_float_blocks, clip_int_blocks), 0.05);
    anex_status status = anex_map_parameters(node, &op, 2, (double[]){-INFINITY, INFINITY}, error);
    if (status) return status;
    if (anex_is_float(node->in[0]) && op.p[0].f <= op.p[1].f)
        op.form = ANEX_BOUNDS_FORM, op.low = op.p[0].f, op.high = op.p[1].f;
    return ANEX_LOCAL(map)(node, &op, error);
}
ANEX_FLOAT1(threshold_float, a < alpha.f ? alpha.f : a)
ANEX_INT1(threshold_int, a < alpha.i ? alpha.i : a)
ANEX_KERNEL(threshold) {
    return map_with(node, by_kind(node, threshold_float_blocks, threshold_int_blocks), 0.05, 1, (double[]){0}, error);
}
ANEX_INT1(not_int, a == 0)
ANEX_KERNEL(logical_not) { return map_block(node, not_int_blocks, 0.03, error); }

/* ---- trigonometry ------------------------------------------------------------------------------ */

/* The vector form reduces |x| up to a limit; a block with a larger lane (rare) asks libm about that
   lane. Float16 has none. */
static bool beyond_limit(const float *x, int64_t n) {
    int32_t beyond = 0;
    for (int64_t i = 0; i < n; i++) beyond |= vm_abs(x[i]) > VM_TRIGONOMETRIC_LIMIT;
    return beyond;
}
#define TRIGONOMETRIC(op)                                                                               \
    ANEX_FLOAT1(op##_near, vm_##op(a))                                                    \
    static void op##_float(void *to, const void *const *from, const anex_lane *p, int64_t n) {          \
        const float *x = from[0];                                                                       \
        float *y = to;                                                                                  \
        if (!beyond_limit(x, n))                                                                        \
            op##_near_lanes(to, from, p, n);                                                                  \
        else                                                                                            \
            for (int64_t i = 0; i < n; i++)                                                             \
                y[i] = vm_abs(x[i]) > VM_TRIGONOMETRIC_LIMIT ? op##f(x[i]) : vm_##op(x[i]);             \
    }                                                                                                   \
    ANEX_KERNEL(op) { return map_block(node, (anex_blocks){op##_float, op##_near_blocks.half}, 0.5, error); }

TRIGONOMETRIC(cos)
TRIGONOMETRIC(sin)
TRIGONOMETRIC(tan)

/* ---- cast ---------------------------------------------------------------------------------------- */

/* To integers: toward zero, to the nearest end of the range when outside it, NaN to 0. Between
   integers: the low bits, as numpy casts. */
ANEX_BLOCK1(to_narrow_int, int32_t, float, (int32_t)(a < alpha.f ? alpha.f : a > beta.f ? beta.f : a == a ? a : 0))
static inline int32_t float_to_i32(float a) {
    float inside = a < -0x1p31f ? -0x1p31f : a > 0x1.fffffep30f ? 0x1.fffffep30f : a == a ? a : 0;
    return a >= 0x1p31f ? INT32_MAX : (int32_t)inside;
}
static inline int32_t float_to_u32(float a) { /* by halves of the range: there is no vector conversion to unsigned */
    float inside = a > 0x1.fffffep31f ? 0x1.fffffep31f : a > 0 ? a : 0;
    bool high = inside >= 0x1p31f;
    uint32_t u = (uint32_t)(int32_t)(high ? inside - 0x1p31f : inside) | (uint32_t)high << 31;
    return (int32_t)(a >= 0x1p32f ? UINT32_MAX : u);
}
ANEX_BLOCK1(to_i32, int32_t, float, float_to_i32(a))
ANEX_BLOCK1(to_u32, int32_t, float, float_to_u32(a))
ANEX_BLOCK1(float_to_bool, int32_t, float, a != 0)
ANEX_BLOCK1(from_int, float, int32_t, (float)a)
ANEX_BLOCK1(from_u32, float, int32_t, (float)(uint32_t)a)

ANEX_KERNEL(cast) {
    const anex_tensor *x = node->in[0];
    anex_map_op op = anex_map_of(node, 1, (anex_blocks){NULL, NULL}, 0.1);
    bool from_float = anex_is_float(x), to_float = anex_is_float(node->out[0]);
    node->packed |= 2; /* the dtype's name: out[0] says it too */
    if (x->dtype == op.out && x->rank == node->out[0]->rank) {
        node->view = true;
        return ANEX_OK;
    }
    if (from_float && !to_float) {
        int32_t bits = anex_dtypes[op.out].bits;
        bool is_signed = op.out == ANEX_I8 || op.out == ANEX_I16;
        op.p[0].f = is_signed ? -ldexpf(1, bits - 1) : 0;
        op.p[1].f = ldexpf(1, bits - is_signed) - 1;
        op.block.lanes = op.out == ANEX_BOOL  ? float_to_bool
                   : op.out == ANEX_I32 ? to_i32
                   : op.out == ANEX_U32 ? to_u32
                                        : to_narrow_int;
    } else if (to_float && !from_float) {
        op.block.lanes = x->dtype == ANEX_U32 ? from_u32 : from_int;
    }
    return ANEX_LOCAL(map)(node, &op, error);
}
