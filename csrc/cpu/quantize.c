/* Affine quantisation: q = clip(round(x / scale) + zero_point), x = scale * (q - zero_point).
   Division and product are single float operations and rounding is to nearest even, so results can be
   compared bit for bit. */
#include "quantize.h"

#include "map.h"

#include <string.h>

enum { CHUNK = 512, BLOCK = 8192 }; /* elements: of one pass through float scratch, of one task */

/* The tensor as lines of n elements; scale and zero have `channels` values, which change from line
   to line, or along the line (`each`, when the axis is the last). */
typedef struct affine {
    int64_t line, blocks, channels, inner;
    bool each;
    float lowest, highest;
    float values[]; /* scale [channels], zero [channels] */
} affine;

static affine *plan_affine(anex_node *node, int32_t scale, int32_t zero, int32_t axis_input, anex_work *work,
                           double cost, anex_error *error) {
    enum { X };
    const anex_tensor *x = node->in[X], *s = node->in[scale], *z = node->in[zero];
    if (anex_need_constants(node, 1u << scale | 1u << zero | 1u << axis_input, error)) return NULL;
    int32_t axis = anex_axis(anex_int(node->in[axis_input], -1), x->rank);
    int64_t channels = anex_tensor_size(s);
    if (z) channels = anex_max(channels, anex_tensor_size(z));
    bool vector = channels > 1;
    if (vector && (axis < 0 || axis >= x->rank)) {
        anex_node_fail(node, error, ANEX_INVALID, "axis %d is none of the %d axes of x", axis, x->rank);
        return NULL;
    }
    const anex_tensor *parameters[2] = {s, z};
    for (int i = 0; i < 2; i++) {
        int64_t n = parameters[i] ? anex_tensor_size(parameters[i]) : 1;
        if (n != 1 && n != x->shape[axis]) {
            anex_node_fail(node, error, ANEX_SHAPE, "%s has %lld values for the %lld of axis %d",
                           i ? "zero_point" : "scale", (long long)n, (long long)x->shape[axis], axis);
            return NULL;
        }
    }
    affine *a = anex_node_state(node, sizeof *a + 2 * (size_t)channels * sizeof(float), error);
    if (!a) return NULL;
    for (int64_t i = 0; i < channels; i++) {
        a->values[i] = (float)anex_real(s, anex_tensor_size(s) > 1 ? i : 0);
        a->values[channels + i] = z ? (float)anex_real(z, anex_tensor_size(z) > 1 ? i : 0) : 0;
    }
    node->packed |= 1u << scale | 1u << zero;
    a->channels = channels;
    a->inner = vector ? anex_span(x, axis + 1, x->rank) : 1;
    a->each = vector && a->inner == 1;
    a->line = !vector ? anex_tensor_size(x) : a->each ? channels : a->inner;
    if (!a->line) return a;
    a->blocks = (a->line + BLOCK - 1) / BLOCK;
    anex_add_stage(node, work, anex_tensor_size(x) / a->line * a->blocks, 10 + cost * (double)anex_min(a->line, BLOCK));
    return a;
}

/* The elements of task t, and its scale and zero */
static int64_t task_elements(const affine *a, int64_t t, int64_t *first, const float **scale, const float **zero) {
    int64_t line = t / a->blocks, at = t % a->blocks * BLOCK;
    int64_t channel = a->each ? at : line % a->channels;
    *first = line * a->line + at;
    *scale = a->values + channel, *zero = a->values + a->channels + channel;
    return anex_min(BLOCK, a->line - at);
}

static inline void quantize_line(uint8_t *restrict y, const float *restrict x, const float *restrict scale,
                                 const float *restrict zero, int64_t n, const affine *a, bool each) {
    const float lowest = a->lowest, highest = a->highest;
    const float round = 0x1.8p23f; /* adding 1.5 * 2^23 rounds to nearest even */
    for (int64_t i = 0; i < n; i++) {
        float z = zero[each ? i : 0], v = x[i] / scale[each ? i : 0];
        v = v == v ? v : 0; /* NaN is the zero point */
        v = v > lowest - z ? v : lowest - z;
        v = v < highest - z ? v : highest - z;
        y[i] = (uint8_t)(int32_t)((v + round) - round + z); /* int8 has the same bits */
    }
}

static void quantize_work(const anex_node *node, const anex_slice *slice) {
    enum { X };
    const affine *a = node->state;
    uint8_t *y = node->out[0]->data;
    float x[CHUNK];
    for (int64_t t = slice->begin; t < slice->end; t++) {
        const float *scale, *zero;
        int64_t first, n = task_elements(a, t, &first, &scale, &zero);
        for (int64_t i = 0; i < n; i += CHUNK) {
            int64_t m = anex_min(CHUNK, n - i);
            anex_load_line(x, node->in[X], first + i, m);
            if (a->each)
                quantize_line(y + first + i, x, scale + i, zero + i, m, a, true);
            else
                quantize_line(y + first + i, x, scale, zero, m, a, false);
        }
    }
}

static void dequantize_work(const anex_node *node, const anex_slice *slice) {
    enum { X };
    const affine *a = node->state;
    float y[CHUNK];
    for (int64_t t = slice->begin; t < slice->end; t++) {
        const float *scale, *zero;
        int64_t first, n = task_elements(a, t, &first, &scale, &zero);
        for (int64_t i = 0; i < n; i += CHUNK) {
            int64_t m = anex_min(CHUNK, n - i), k = a->each ? i : 0;
            anex_load_line(y, node->in[X], first + i, m);
            anex_dequantize_line(y, scale + k, zero + k, m, a->each);
            anex_store_line(node->out[0], first + i, y, m);
        }
    }
}

/* At the end of a product, which has not rounded: there x * (1 / scale) will do for x / scale. */
#define QUANTIZE_LANE(lowest, highest)                                                           \
    (int32_t)(anex_between(a * alpha.f, (lowest) - beta.f, (highest) - beta.f) + 0x1.8p23f - 0x1.8p23f + beta.f)
static inline float anex_between(float v, float lowest, float highest) {
    v = v == v ? v : 0;
    v = v > lowest ? v : lowest;
    return v < highest ? v : highest;
}
ANEX_BLOCK1(quantize_i8, int32_t, float, QUANTIZE_LANE(-128.0f, 127.0f))
ANEX_BLOCK1(quantize_u8, int32_t, float, QUANTIZE_LANE(0.0f, 255.0f))

static anex_status join_product(anex_node *node, const anex_tensor *scale, const anex_tensor *zero,
                                anex_error *error) {
    anex_block *block = node->out[0]->dtype == ANEX_I8 ? quantize_i8 : quantize_u8;
    anex_map_op op = anex_map_of(node, 1, (anex_blocks){.lanes = block}, 0.05);
    op.fits = true;
    op.p[0].f = 1 / (float)anex_real(scale, 0);
    op.p[1].f = zero ? (float)anex_real(zero, 0) : 0;
    bool usual = op.p[0].f > 0 && op.p[0].f <= 3e38f; /* else only the division itself says what is to come */
    return usual ? anex_epilogue_add(node, &op, error) : ANEX_OK;
}

ANEX_KERNEL(quantize) {
    enum { INPUT, ZERO_POINT, SCALE, AXIS, OUTPUT_DTYPE };
    anex_dtype dtype = node->out[0]->dtype;
    if (dtype != ANEX_I8 && dtype != ANEX_U8)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "the CPU engine quantises to int8 and uint8, not %s",
                              anex_dtypes[dtype].name);
    const anex_tensor *scale = node->in[SCALE], *zero = node->in[ZERO_POINT];
    if (node->onto && node->onto->ends_float && anex_is_constant(scale) && anex_tensor_size(scale) == 1 &&
        (!zero || (zero->data && anex_tensor_size(zero) == 1))) {
        anex_status status = join_product(node, scale, zero, error);
        if (status || node->joined) return status;
    }
    affine *a = plan_affine(node, SCALE, ZERO_POINT, AXIS, quantize_work, 0.1, error);
    if (!a) return ANEX_INVALID;
    a->lowest = dtype == ANEX_I8 ? -128 : 0, a->highest = dtype == ANEX_I8 ? 127 : 255;
    return ANEX_OK;
}

static anex_status check_floating(const anex_node *node, anex_error *error) {
    anex_dtype dtype = node->out[0]->dtype;
    if (dtype == ANEX_F16 || dtype == ANEX_F32) return ANEX_OK;
    return anex_node_fail(node, error, ANEX_UNSUPPORTED, "the CPU engine dequantises to float16 and float32, not %s",
                          anex_dtypes[dtype].name);
}

ANEX_KERNEL(dequantize) {
    enum { INPUT, ZERO_POINT, SCALE, AXIS };
    anex_status status = check_floating(node, error);
    if (status) return status;
    return plan_affine(node, SCALE, ZERO_POINT, AXIS, dequantize_work, 0.07, error) ? ANEX_OK : ANEX_INVALID;
}

ANEX_KERNEL(constexpr_affine_dequantize) {
    enum { QUANTIZED_DATA, ZERO_POINT, SCALE, AXIS };
    anex_status status = check_floating(node, error);
    if (status) return status;
    return plan_affine(node, SCALE, ZERO_POINT, AXIS, dequantize_work, 0.07, error) ? ANEX_OK : ANEX_INVALID;
}
