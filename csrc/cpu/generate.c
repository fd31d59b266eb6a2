/* Tensors made from constants and indices: fill, range_1d, one_hot, band_part. */
#include "map.h"

/* The bits of a value in a dtype, in the low bytes. */
static uint32_t bits_of(double value, anex_dtype dtype) {
    anex_lane lane;
    if (dtype == ANEX_F16) return anex_float_to_half((float)value);
    if (dtype == ANEX_BOOL) return value != 0;
    if (dtype == ANEX_F32)
        lane.f = (float)value;
    else
        lane.i = (int32_t)(int64_t)value;
    return (uint32_t)lane.i;
}

#define REPEAT(type)                                        \
    for (int64_t i = 0; i < n; i++) ((type *)y)[i] = (type)bits
static void repeat_bits(void *y, uint32_t bits, int64_t item, int64_t n) {
    if (item == 4)
        REPEAT(uint32_t);
    else if (item == 2)
        REPEAT(uint16_t);
    else
        REPEAT(uint8_t);
}

/* ---- fill ---------------------------------------------------------------------------------------- */

enum { FILL_LANES = 4096 }; /* of a task */

static void fill_work(const anex_node *node, const anex_slice *slice) {
    const anex_tensor *y = node->out[0];
    const uint32_t *bits = node->state;
    int64_t item = (int64_t)anex_itemsize(y), begin = slice->begin * FILL_LANES;
    int64_t end = anex_min(slice->end * FILL_LANES, anex_tensor_size(y));
    repeat_bits((char *)y->data + begin * item, *bits, item, end - begin);
}

/* in[0] (a shape, or a tensor of that shape) says what out[0] knows already. */
static anex_status fill(anex_node *node, anex_error *error) {
    enum { SHAPE_OR_TENSOR, VALUE };
    anex_status status = anex_need_constants(node, 1u << VALUE, error);
    if (status) return status;
    uint32_t *bits = anex_node_state(node, sizeof *bits, error);
    if (!bits) return ANEX_MEMORY;
    node->packed |= 1u << VALUE;
    *bits = bits_of(anex_float(node->in[VALUE], 0), node->out[0]->dtype);
    int64_t tasks = (anex_tensor_size(node->out[0]) + FILL_LANES - 1) / FILL_LANES;
    anex_add_stage(node, fill_work, tasks, 0.03 * FILL_LANES);
    return ANEX_OK;
}
ANEX_KERNEL(fill) { return fill(node, error); }
ANEX_KERNEL(fill_like) { return fill(node, error); }

/* ---- range_1d -------------------------------------------------------------------------------------- */

enum { END, START, STEP };

/* y[i] = start + i step; as many as out[0] has */
static void range_work(const anex_node *node, const anex_slice *slice) {
    const anex_tensor *y = node->out[0];
    double start = anex_real(node->in[START], 0), step = anex_real(node->in[STEP], 0);
    for (int64_t i = slice->begin; i < slice->end; i++) {
        double value = start + (double)i * step;
        if (y->dtype == ANEX_F16)
            ((half *)y->data)[i] = anex_float_to_half((float)value);
        else if (y->dtype == ANEX_F32)
            ((float *)y->data)[i] = (float)value;
        else /* below 2^63 whatever the int32 start and step are */
            ((int32_t *)y->data)[i] = (int32_t)(uint32_t)(uint64_t)(int64_t)value;
    }
}
ANEX_KERNEL(range_1d) {
    const anex_tensor *y = node->out[0];
    if (y->dtype != ANEX_F16 && y->dtype != ANEX_F32 && y->dtype != ANEX_I32)
        return anex_node_fail(node, error, ANEX_DTYPE, "the result is %s; it can be float16, float32 or int32",
                              anex_dtypes[y->dtype].name);
    if (anex_is_float(node->in[START]) != anex_is_float(y) || anex_is_float(node->in[STEP]) != anex_is_float(y))
        return anex_node_fail(node, error, ANEX_DTYPE, "start, end and step must be of the result's dtype, %s",
                              anex_dtypes[y->dtype].name);
    anex_add_stage(node, range_work, anex_tensor_size(y), 1);
    return ANEX_OK;
}

/* ---- one_hot ---------------------------------------------------------------------------------------- */

typedef struct one_hot {
    int64_t inner; /* indices behind the new axis */
    uint32_t on, off;
} one_hot;

/* y [outer,depth,inner] from indices [outer,inner]: a task is an outer index. An index outside 0 to
   depth - 1 lights nothing. */
static void one_hot_work(const anex_node *node, const anex_slice *slice) {
    const one_hot *hot = node->state;
    const anex_tensor *indices = node->in[0], *y = node->out[0];
    int64_t item = (int64_t)anex_itemsize(y), inner = hot->inner, outer = anex_tensor_size(indices) / inner;
    int64_t depth = anex_tensor_size(y) / (outer * inner);
    for (int64_t o = slice->begin; o < slice->end; o++) {
        char *row = (char *)y->data + o * depth * inner * item;
        repeat_bits(row, hot->off, item, depth * inner);
        for (int64_t i = 0; i < inner; i++) {
            int64_t d = anex_item(indices, o * inner + i);
            if (d >= 0 && d < depth) repeat_bits(row + (d * inner + i) * item, hot->on, item, 1);
        }
    }
}
ANEX_KERNEL(one_hot) {
    enum { INDICES, SIZE, AXIS, ON, OFF };
    const anex_tensor *indices = node->in[INDICES], *y = node->out[0];
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << ON | 1u << OFF, error);
    if (status) return status;
    int32_t axis = anex_axis(anex_int(node->in[AXIS], -1), indices->rank + 1);
    if (axis < 0 || axis > indices->rank || y->rank != indices->rank + 1 ||
        anex_tensor_size(y) != anex_tensor_size(indices) * y->shape[axis])
        return anex_node_fail(node, error, ANEX_SHAPE, "indices of rank %d and axis %d do not make a result of rank %d",
                              indices->rank, axis, y->rank);
    one_hot *hot = anex_node_state(node, sizeof *hot, error);
    if (!hot) return ANEX_MEMORY;
    node->packed |= 1u << AXIS | 1u << ON | 1u << OFF;
    hot->inner = anex_span(indices, axis, indices->rank);
    hot->on = bits_of(anex_float(node->in[ON], 1), y->dtype);
    hot->off = bits_of(anex_float(node->in[OFF], 0), y->dtype);
    int64_t outer = anex_span(indices, 0, axis);
    double cost = 5 + 0.05 * (double)(anex_tensor_size(y) / outer) + 2 * (double)hot->inner;
    anex_add_stage(node, one_hot_work, outer, cost);
    return ANEX_OK;
}

/* ---- band_part -------------------------------------------------------------------------------------- */

typedef struct band {
    int64_t lower, upper; /* diagonals to keep; negative: all */
} band;

/* x, y [...,M,N]: a task is a row; outside the band it is zero, whatever x is. */
static void band_work(const anex_node *node, const anex_slice *slice) {
    const band *b = node->state;
    const anex_tensor *x = node->in[0], *y = node->out[0];
    int64_t item = (int64_t)anex_itemsize(x), rows = x->shape[x->rank - 2], n = x->shape[x->rank - 1];
    int64_t m = slice->begin % rows;
    for (int64_t row = slice->begin; row < slice->end; row++) {
        int64_t first = b->lower < 0 ? 0 : anex_min(anex_max(m - b->lower, 0), n);
        int64_t last = b->upper < 0 ? n : anex_max(anex_min(m + b->upper + 1, n), first);
        const char *from = (const char *)x->data + row * n * item;
        char *to = (char *)y->data + row * n * item;
        memset(to, 0, (size_t)(first * item));
        memcpy(to + first * item, from + first * item, (size_t)((last - first) * item));
        memset(to + last * item, 0, (size_t)((n - last) * item));
        m = m + 1 == rows ? 0 : m + 1;
    }
}
ANEX_KERNEL(band_part) {
    enum { X, LOWER, UPPER };
    const anex_tensor *x = node->in[X];
    anex_status status = anex_need_constants(node, 1u << LOWER | 1u << UPPER, error);
    if (status) return status;
    if (x->rank < 2)
        return anex_node_fail(node, error, ANEX_SHAPE, "x has rank %d; it needs two axes or more", x->rank);
    band *b = anex_node_state(node, sizeof *b, error);
    if (!b) return ANEX_MEMORY;
    node->packed |= 1u << LOWER | 1u << UPPER;
    b->lower = anex_int(node->in[LOWER], -1), b->upper = anex_int(node->in[UPPER], -1);
    int64_t n = x->shape[x->rank - 1];
    anex_add_stage(node, band_work, anex_tensor_size(x) / n, 10 + 0.03 * (double)(n * (int64_t)anex_itemsize(x)));
    return ANEX_OK;
}
