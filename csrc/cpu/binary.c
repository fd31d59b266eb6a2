/* Elementwise ops of two operands, and select. Floats and integers mean what they mean to numpy:
   int32 wraps around, dividing an integer by zero gives 0, comparisons give bools. */
#include "map.h"
#include "vmath.h"

static anex_status same_kind(const anex_node *node, const anex_tensor *x, const anex_tensor *y, anex_error *error) {
    if (anex_is_float(x) == anex_is_float(y)) return ANEX_OK;
    return anex_node_fail(node, error, ANEX_DTYPE, "the operands are %s and %s; cast one of them",
                          anex_dtypes[x->dtype].name, anex_dtypes[y->dtype].name);
}
static anex_status map_binary(anex_node *node, anex_blocks of_float, anex_blocks of_int, double cost,
                              anex_error *error) {
    anex_map_op op = anex_map_of(node, 2, anex_is_float(node->in[0]) ? of_float : of_int, cost);
    anex_status status = same_kind(node, node->in[0], node->in[1], error);
    return status ? status : ANEX_LOCAL(map)(node, &op, error);
}

/* BINARY(op, nanoseconds per lane, z of float lanes a and b, rounded at most once; z of int32 lanes a and b) */
#define BINARY(op, cost, of_float, of_int)            \
    ANEX_EXACT2(op##_float, of_float)                 \
    ANEX_INT2(op##_int, of_int)                       \
    ANEX_KERNEL(op) { return map_binary(node, op##_float_blocks, op##_int_blocks, cost, error); }

static inline int32_t wrap(uint32_t a) { return (int32_t)a; }

ANEX_EXACT2(add_float, a + b)
ANEX_INT2(add_int, wrap((uint32_t)a + (uint32_t)b))
ANEX_KERNEL(add) {
    bool floats = anex_is_float(node->in[0]);
    anex_map_op op = anex_map_of(node, 2, floats ? add_float_blocks : add_int_blocks, 0.03);
    op.form = floats ? ANEX_SUM_FORM : ANEX_OTHER_FORM;
    anex_status status = same_kind(node, node->in[0], node->in[1], error);
    return status ? status : ANEX_LOCAL(map)(node, &op, error);
}
BINARY(sub, 0.03, a - b, wrap((uint32_t)a - (uint32_t)b))
BINARY(mul, 0.03, a * b, wrap((uint32_t)a * (uint32_t)b))
/* a NaN on either side wins, as in numpy */
BINARY(maximum, 0.05, b > a ? b : b != b ? b : a, a > b ? a : b)
BINARY(minimum, 0.05, b < a ? b : b != b ? b : a, a < b ? a : b)

#define COMPARISON(op, operator)                         \
    ANEX_BLOCK2(op##_float, int32_t, float, a operator b) \
    ANEX_INT2(op##_int, a operator b)                     \
    ANEX_KERNEL(op) { return map_binary(node, (anex_blocks){op##_float, NULL}, op##_int_blocks, 0.03, error); }

COMPARISON(equal, ==)
COMPARISON(not_equal, !=)
COMPARISON(greater, >)
COMPARISON(greater_equal, >=)
COMPARISON(less, <)
COMPARISON(less_equal, <=)

/* bool lanes are 0 and 1 */
#define LOGICAL(op, operator)                             \
    ANEX_INT2(op##_int, a operator b)                     \
    ANEX_KERNEL(op) { return map_binary(node, op##_int_blocks, op##_int_blocks, 0.03, error); }

LOGICAL(logical_and, &)
LOGICAL(logical_or, |)
LOGICAL(logical_xor, ^)

/* ---- division of integers ------------------------------------------------------------------------ */

#define MAGIC 0x1.8p52 /* adding it leaves the nearest integer in the low bits */

/* Quotients of int32 are exact in double up to the rounding we ask for. 2^31 (of -2^31 by -1) wraps. */
static inline int32_t floor_quotient(int32_t a, int32_t b) {
    double q = (double)a / (double)(b == 0 ? 1 : b), r = (q + MAGIC) - MAGIC;
    r = r > q ? r - 1 : r;
    return b == 0 ? 0 : wrap((uint32_t)vm_bits64(r + MAGIC));
}
static inline int32_t zero_quotient(int32_t a, int32_t b) { /* toward zero */
    double q = (double)a / (double)(b == 0 ? 1 : b), s = q < 0 ? -q : q, r = (s + MAGIC) - MAGIC;
    r = r > s ? r - 1 : r;
    return b == 0 ? 0 : wrap((uint32_t)vm_bits64((q < 0 ? -r : r) + MAGIC));
}
static inline int32_t modulus(int32_t a, int32_t b) {
    return b == 0 ? 0 : wrap((uint32_t)a - (uint32_t)floor_quotient(a, b) * (uint32_t)b);
}
BINARY(real_div, 0.15, a / b, zero_quotient(a, b))

/* ---- floor_div and mod of floats ----------------------------------------------------------------- */

/* fmod(a, b) is exact in double while the quotient is below 2^28; beyond, and for b infinite or zero,
   the block asks libm. */
static inline double quotient(float a, float b) { return vm_double(vm_bits64((double)a / (double)b) & INT64_MAX); }
static inline bool near(float a, float b) {
    int32_t small = quotient(a, b) < 0x1p28, finite = vm_abs(b) < INFINITY;
    return small & finite;
}
static inline float fmod_near(float a, float b) {
    double q = quotient(a, b), r = (q + 0x1p52) - 0x1p52;
    r = r > q ? r - 1 : r;
    double rest = vm_double(vm_bits64(a) & INT64_MAX) - r * vm_double(vm_bits64(b) & INT64_MAX);
    return vm_with_sign((float)rest, a);
}
/* From the remainder with the sign of a to the one with the sign of b, and the quotient that goes with it. */
static inline float mod_from(float rest, float b) {
    float moved = (b < 0) != (rest < 0) ? rest + b : rest;
    return rest == 0 ? vm_with_sign(0, b) : moved;
}
static inline float floor_div_from(float rest, float a, float b) {
    float q = (a - rest) / b;
    q = ((rest != 0) & ((b < 0) != (rest < 0))) ? q - 1 : q;
    float whole = vm_floor(q);
    whole = q - whole > 0.5f ? whole + 1 : whole;
    whole = q == 0 ? vm_with_sign(0, a / b) : whole;
    return b == 0 ? a / b : whole;
}
static bool all_near(const float *x, const float *y, int64_t n) {
    int32_t far = 0;
    for (int64_t i = 0; i < n; i++) far |= !near(x[i], y[i]);
    return !far;
}
ANEX_BLOCK2(mod_near, float, float, mod_from(fmod_near(a, b), b))
ANEX_BLOCK2(mod_any, float, float, mod_from(near(a, b) ? fmod_near(a, b) : fmodf(a, b), b))
ANEX_BLOCK2(floor_div_near, float, float, floor_div_from(fmod_near(a, b), a, b))
ANEX_BLOCK2(floor_div_any, float, float, floor_div_from(near(a, b) ? fmod_near(a, b) : fmodf(a, b), a, b))
static void mod_float(void *to, const void *const *from, const anex_lane *p, int64_t n) {
    (all_near(from[0], from[1], n) ? mod_near : mod_any)(to, from, p, n);
}
static void floor_div_float(void *to, const void *const *from, const anex_lane *p, int64_t n) {
    (all_near(from[0], from[1], n) ? floor_div_near : floor_div_any)(to, from, p, n);
}
ANEX_INT2(mod_int, modulus(a, b))
ANEX_INT2(floor_div_int, floor_quotient(a, b))
static const anex_blocks mod_float_blocks = {mod_float, NULL}, floor_div_float_blocks = {floor_div_float, NULL};
ANEX_KERNEL(mod) { return map_binary(node, mod_float_blocks, mod_int_blocks, 0.6, error); }
ANEX_KERNEL(floor_div) { return map_binary(node, floor_div_float_blocks, floor_div_int_blocks, 0.6, error); }

/* ---- pow ------------------------------------------------------------------------------------------- */

/* Wraps around; a negative exponent gives the quotient 1 / a^-b rounded toward zero, with 1 / 0 as 0. */
static inline int32_t pow_one(int32_t a, int32_t b) {
    if (b < 0) return a == 1 ? 1 : a == -1 ? (b & 1 ? -1 : 1) : 0;
    uint32_t y = 1, base = (uint32_t)a;
    for (uint32_t e = (uint32_t)b; e; e >>= 1, base *= base) y *= e & 1 ? base : 1;
    return wrap(y);
}
ANEX_FLOAT2(pow_float, vm_pow(a, b))
ANEX_INT2(pow_int, pow_one(a, b))
ANEX_FLOAT1(pow_2, a * a)
ANEX_FLOAT1(pow_minus_1, 1 / a)
ANEX_FLOAT1(pow_half, a == -INFINITY ? INFINITY : sqrtf(a + 0.0f)) /* of -0: 0 */

ANEX_KERNEL(pow) {
    const anex_tensor *y = node->in[1];
    if (anex_is_float(node->in[0]) && anex_is_constant(y) && anex_tensor_size(y) == 1) {
        double exponent = anex_real(y, 0);
        const anex_blocks *block = exponent == 2     ? &pow_2_blocks
                                   : exponent == -1  ? &pow_minus_1_blocks
                                   : exponent == 0.5 ? &pow_half_blocks
                                                     : NULL;
        if (block) {
            anex_map_op op = anex_map_of(node, 1, *block, 0.1);
            node->packed |= 2;
            return ANEX_LOCAL(map)(node, &op, error);
        }
    }
    return map_binary(node, pow_float_blocks, pow_int_blocks, 1.8, error);
}

/* ---- select ---------------------------------------------------------------------------------------- */

/* Values are chosen, not computed: float16 moves as 16 bits. */
ANEX_BLOCK3(select_bits, int32_t, int32_t, a ? b : c)
ANEX_KERNEL(select) {
    enum { COND, A, B };
    anex_map_op op = anex_map_of(node, 3, (anex_blocks){select_bits, NULL}, 0.05);
    anex_dtype cond = op.x[COND].dtype, a = op.x[A].dtype, b = op.x[B].dtype;
    if (cond != ANEX_BOOL || a != b || a != op.out)
        return anex_node_fail(node, error, ANEX_DTYPE,
                              "cond is %s, a %s and b %s; it takes a bool and two of one dtype",
                              anex_dtypes[cond].name, anex_dtypes[a].name, anex_dtypes[b].name);
    op.moves = true;
    return ANEX_LOCAL(map)(node, &op, error);
}
