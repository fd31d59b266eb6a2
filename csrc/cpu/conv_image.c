/* Arguments of convolutions; the padded image and the im2col matrix read from it. See conv.h. */
#include "conv.h"

static int64_t spatial(const anex_tensor *t, int32_t i, int32_t rank, int64_t otherwise) {
    return t && i >= AXES - rank ? anex_item(t, i - (AXES - rank)) : otherwise;
}

/* Padding before the axis. A convolution's `same` pads for ceil(in / stride) outputs; a transposed one undoes that. */
static int64_t padding(const char *type, const anex_tensor *pad, int32_t axis, int64_t large, int64_t small,
                       int64_t stride, int64_t reach) {
    if (!strcmp(type, "valid")) return 0;
    if (!strcmp(type, "custom")) return pad && axis >= 0 ? anex_item(pad, 2 * axis) : 0;
    int64_t total = anex_max(0, (small - 1) * stride + reach - large);
    return !strcmp(type, "same_lower") ? total - total / 2 : total / 2;
}

anex_status conv_read(anex_node *node, const conv_inputs *in, bool transposed, conv_arguments *c, anex_error *error) {
    const anex_tensor *x = in->x, *w = in->weight, *y = node->out[0];
    const anex_tensor *lists[] = {in->strides, in->pad, in->dilations, in->groups, in->pad_type};
    for (int32_t i = 0; i < 5; i++)
        if (lists[i] && !lists[i]->data)
            return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                                  "strides, pad, dilations, groups and pad_type must be constants for the CPU engine");
    int32_t rank = x->rank - 2;
    if (rank < 1 || rank > AXES || w->rank != x->rank || y->rank != x->rank)
        return anex_node_fail(node, error, ANEX_SHAPE,
                              "x has rank %d and weight %d; both need 1 to 3 spatial axes after the first two", x->rank,
                              w->rank);
    for (int32_t i = 0; i < 3; i++)
        if (lists[i] && anex_tensor_size(lists[i]) != (i == 1 ? 2 * rank : rank))
            return anex_node_fail(node, error, ANEX_SHAPE, "strides and dilations need %d values, pad %d", rank,
                                  2 * rank);
    for (int32_t i = 0; i < 2; i++) {
        const anex_tensor *t = i ? in->bias : anex_is_float(x) ? w : NULL; /* whose product is of bytes checks itself */
        if (t && t->dtype != ANEX_F16 && t->dtype != ANEX_F32)
            return anex_node_fail(node, error, ANEX_DTYPE, "%s is %s; it must be float16 or float32",
                                  i ? "bias" : "weight", anex_dtypes[t->dtype].name);
    }
    const char *type = anex_text(in->pad_type, "valid");
    if (strcmp(type, "valid") && strcmp(type, "custom") && strcmp(type, "same") && strcmp(type, "same_lower"))
        return anex_node_fail(node, error, ANEX_INVALID,
                              "pad_type is \"%s\"; it must be valid, custom, same or same_lower", type);
    c->groups = anex_int(in->groups, 1);
    c->batch = x->shape[0], c->in_channels = x->shape[1], c->out_channels = y->shape[1];
    int64_t outside = transposed ? c->out_channels : c->in_channels,
            first = transposed ? c->in_channels : c->out_channels;
    if (c->groups < 1 || c->in_channels % c->groups || c->out_channels % c->groups || w->shape[0] != first ||
        w->shape[1] != outside / c->groups || y->shape[0] != c->batch)
        return anex_node_fail(
            node, error, ANEX_SHAPE, "weight [%lld, %lld, ..] does not fit %lld input channels in %lld groups",
            (long long)w->shape[0], (long long)w->shape[1], (long long)c->in_channels, (long long)c->groups);
    if (in->bias && anex_tensor_size(in->bias) != c->out_channels)
        return anex_node_fail(node, error, ANEX_SHAPE, "bias must be [%lld]", (long long)c->out_channels);
    for (int32_t i = 0; i < AXES; i++) {
        int32_t axis = i - (AXES - rank);
        c->in[i] = axis < 0 ? 1 : x->shape[axis + 2];
        c->out[i] = axis < 0 ? 1 : y->shape[axis + 2];
        c->kernel[i] = axis < 0 ? 1 : w->shape[axis + 2];
        c->stride[i] = spatial(in->strides, i, rank, 1);
        c->dilation[i] = spatial(in->dilations, i, rank, 1);
        if (c->stride[i] < 1 || c->dilation[i] < 1)
            return anex_node_fail(node, error, ANEX_INVALID, "strides and dilations must be at least 1");
        int64_t reach = (c->kernel[i] - 1) * c->dilation[i] + 1;
        c->before[i] = axis < 0 ? 0
                                : padding(type, in->pad, axis, transposed ? c->out[i] : c->in[i],
                                          transposed ? c->in[i] : c->out[i], c->stride[i], reach);
    }
    return ANEX_OK;
}

/* ---- the image ------------------------------------------------------------------------------ */

void conv_image_fit(conv_image *image, const conv_axis axis[AXES]) {
    for (int32_t i = 0; i < AXES; i++) {
        const conv_axis *a = &axis[i];
        image->in[i] = a->in;
        image->size[i] = anex_max(image->size[i], a->in); /* until `finish`: past the last index */
        if (!a->taps || !a->out) continue;
        int64_t last_tap = (a->taps - 1) * a->step, low = anex_min(0, last_tap), high = anex_max(0, last_tap);
        image->before[i] = anex_max(image->before[i], -(a->first + low));
        image->size[i] = anex_max(image->size[i], (a->out - 1) * a->stride + a->first + high + 1);
    }
}

void conv_image_finish(conv_image *image, int64_t split) {
    for (int32_t i = 0; i < AXES; i++) image->size[i] += image->before[i];
    image->split = split;
    image->sub = (image->size[2] + split - 1) / split;
    image->row = split * image->sub;
    image->plane = image->size[1] * image->row;
    image->volume = image->size[0] * image->plane + FILL_ROOM;
}

/* Every second or fourth column: gcc makes shuffles of it. */
#define TAKE(name, type, split)                                                    \
    static void name(type *restrict to, const type *restrict x, int64_t n) {       \
        for (int64_t i = 0; i < n; i++) to[i] = x[split * i];                      \
    }
TAKE(take_halves_2, half, 2)
TAKE(take_halves_4, half, 4)
TAKE(take_floats_2, float, 2)
TAKE(take_floats_4, float, 4)

/* Columns x[0], x[split], .. of n elements */
static void take(char *to, const char *x, size_t item, int64_t n, int64_t split) {
    int64_t count = n > 0 ? (n + split - 1) / split : 0;
    if (item == 1) {
        for (int64_t i = 0; i < count; i++) to[i] = x[i * split];
    } else if ((split == 2 || split == 4) && item == sizeof(half)) {
        (split == 2 ? take_halves_2 : take_halves_4)((half *)to, (const half *)x, count);
    } else if (split == 2 || split == 4) {
        (split == 2 ? take_floats_2 : take_floats_4)((float *)to, (const float *)x, count);
    } else {
        for (int64_t i = 0; i < count; i++)
            memcpy(to + i * (int64_t)item, x + i * split * (int64_t)item,
                   item == sizeof(half) ? sizeof(half) : sizeof(float));
    }
}

/* The columns of a row; what is around them is there already. */
static void spread_row(const conv_image *image, const char *x, char *to, size_t item) {
    int64_t before = image->before[2], n = image->in[2], split = image->split;
    if (split == 1) {
        memcpy(to + before * (int64_t)item, x, (size_t)n * item);
        return;
    }
    for (int64_t phase = 0; phase < split; phase++) {
        int64_t first = (phase - before % split + split) % split; /* the first input column of this phase */
        int64_t at = phase * image->sub + (before + first) / split;
        take(to + at * (int64_t)item, x + first * (int64_t)item, item, n - first, split);
    }
}

static void spread_rows(const conv_image *image, const void *x, void *to, size_t item, int around, int64_t begin,
                        int64_t end) {
    size_t row = (size_t)image->row * item, from_row = (size_t)image->in[2] * item;
    bool clear = image->row != image->in[2];
    if (clear) memset(to, around, (size_t)(end - begin) * row);
    char *next = to;
    for (int64_t r = begin; r < end; r++, next += row) {
        int64_t d = r / image->size[1] - image->before[0], h = r % image->size[1] - image->before[1];
        if (d >= 0 && d < image->in[0] && h >= 0 && h < image->in[1])
            spread_row(image, (const char *)x + (size_t)(d * image->in[1] + h) * from_row, next, item);
        else if (!clear)
            memset(next, around, row);
    }
}

void conv_spread(const conv_image *image, const void *x, void *to, size_t item, int64_t begin, int64_t end) {
    spread_rows(image, x, to, item, 0, begin, end);
}

void conv_spread_bytes(const conv_image *image, const void *x, void *to, uint8_t around) {
    spread_rows(image, x, to, 1, around, 0, image->size[0] * image->size[1]);
}

/* ---- the image as floats -------------------------------------------------------------------- */

/* Elements at .. at + VF - 1 of n, with zeros behind the last */
static inline vf widen_some(const char *from, bool halves, int64_t at, int64_t n) {
    if (at + VF <= n) return vf_load_as(from, halves, at);
    return at < n ? vf_load_some(from + at * (halves ? 2 : 4), halves, n - at) : vf_zero();
}

/* SPLIT vectors of a row, from column i of n on, as its phases: x[f] has columns i + f, i + f + SPLIT, .. */
static inline __attribute__((always_inline)) void widen_phases(const int split, const char *from, const bool halves,
                                                               int64_t i, int64_t n, vf *x) {
    vf a = widen_some(from, halves, i, n), b = widen_some(from, halves, i + VF, n);
    if (split == 2) {
        x[0] = vf_even(a, b), x[1] = vf_odd(a, b);
        return;
    }
    vf c = widen_some(from, halves, i + 2 * VF, n), d = widen_some(from, halves, i + 3 * VF, n);
    vf even = vf_even(a, b), odd = vf_odd(a, b), even2 = vf_even(c, d), odd2 = vf_odd(c, d);
    x[0] = vf_even(even, even2), x[2] = vf_odd(even, even2), x[1] = vf_even(odd, odd2), x[3] = vf_odd(odd, odd2);
}

/* Whole vectors are stored, the last ones first and each phase before the next: what is too much is 0, and is
   overwritten where input belongs. */
static inline __attribute__((always_inline)) void widen_split(const int split, const conv_image *image,
                                                              const char *from, const bool halves, float *to) {
    const int64_t before = image->before[2], n = image->in[2], sub = image->sub;
    vf x[4];
    for (int64_t i = (n - 1) / (split * VF) * split * VF; i >= 0; i -= split * VF) {
        widen_phases(split, from, halves, i, n, x);
#pragma GCC unroll 4
        for (int phase = 0; phase < split; phase++) {
            const int64_t f = (phase + split - before % split) % split; /* the first input column of this phase */
            vf_store(to + phase * sub + (before + f) / split + i / split, x[f]);
        }
    }
}

/* The columns of a row, of which those before the first are zeros, phase by phase */
static inline void widen_columns(const conv_image *image, const char *from, const bool halves, float *to) {
    const int64_t before = image->before[2], n = image->in[2], split = image->split, sub = image->sub;
    if (split == 1) {
        for (int64_t i = 0; i < n; i += VF) vf_store(to + before + i, widen_some(from, halves, i, n));
        return;
    }
    if (split == 2) {
        widen_split(2, image, from, halves, to);
        return;
    }
    if (split == 4) {
        widen_split(4, image, from, halves, to);
        return;
    }
    for (int64_t phase = 0; phase < split; phase++) {
        int64_t first = ((phase - before) % split + split) % split; /* the first input column of this phase */
        float *line = to + phase * sub + (before + first) / split;
        for (int64_t i = first; i < n; i += split) *line++ = gemm_one(from, halves ? ANEX_F16 : ANEX_F32, i);
    }
}

void conv_fill(const conv_image *image, const void *x, anex_dtype dtype, int64_t begin, int64_t end, float *to) {
    const bool halves = dtype == ANEX_F16;
    const int64_t bytes = image->in[2] * (halves ? 2 : 4), height = image->size[1];
    for (int64_t z = begin / height; z * height < end; z++) {
        if (z < image->before[0] || z >= image->before[0] + image->in[0]) continue;
        int64_t first = z * height + image->before[1], last = first + image->in[1]; /* rows of input */
        const char *from = (const char *)x + (z - image->before[0]) * image->in[1] * bytes;
        for (int64_t r = anex_max(begin, first); r < anex_min(end, last); r++)
            widen_columns(image, from + (r - first) * bytes, halves, to + (r - begin) * image->row);
    }
}

void conv_spread_widened(const conv_image *image, const anex_tensor *x, const anex_slice *slice) {
    const int64_t bytes = image->in[0] * image->in[1] * image->in[2] * (int64_t)anex_itemsize(x);
    for (int64_t i = slice->begin; i < slice->end; i++) {
        float *to = (float *)slice->shared + i * image->volume;
        memset(to, 0, (size_t)image->volume * sizeof *to);
        conv_fill(image, (const char *)x->data + i * bytes, x->dtype, 0, image->size[0] * image->size[1], to);
    }
}

/* ---- the im2col matrix ---------------------------------------------------------------------- */

conv_gather conv_gather_make(const conv_image *image, const conv_axis axis[AXES], int64_t channels, int64_t *taps) {
    int64_t start[AXES];
    for (int32_t i = 0; i < AXES; i++) start[i] = image->before[i] + axis[i].first;
    for (int64_t c = 0; c < channels; c++)
        for (int64_t d = 0; d < axis[0].taps; d++)
            for (int64_t h = 0; h < axis[1].taps; h++)
                for (int64_t w = 0; w < axis[2].taps; w++) {
                    int64_t column = start[2] + w * axis[2].step;
                    *taps++ = c * image->volume + (start[0] + d * axis[0].step) * image->plane +
                              (start[1] + h * axis[1].step) * image->row + column % image->split * image->sub +
                              column / image->split;
                }
    return (conv_gather){
        .batch = 1,
        .out = {axis[0].out, axis[1].out, axis[2].out},
        .step = {axis[0].stride * image->plane, axis[1].stride * image->row, axis[2].stride / image->split}};
}

typedef struct run { /* outputs that follow each other in the image too */
    int64_t at, from, n;
} run;

/* Cut outputs j0 .. j0+cols-1 into runs. */
static int64_t cut(const conv_gather *g, int64_t j0, int64_t cols, run *runs) {
    int64_t n = 0, w = j0 % g->out[2], rest = j0 / g->out[2];
    int64_t h = rest % g->out[1], d = rest / g->out[1] % g->out[0], b = rest / g->out[1] / g->out[0];
    for (int64_t at = 0; at < cols; w = 0) {
        int64_t length = anex_min(g->out[2] - w, cols - at);
        runs[n++] = (run){at, b * g->batch_step + d * g->step[0] + h * g->step[1] + w * g->step[2], length};
        at += length;
        if (++h == g->out[1]) {
            h = 0;
            if (++d == g->out[0]) d = 0, b++;
        }
    }
    return n;
}

/* Whole vectors are copied: what is too much is overwritten by the next run or row, or never looked at. */
void conv_pack(const void *source, float *to, int64_t width, int64_t k0, int64_t depth, int64_t j0, int64_t cols) {
    const conv_source *s = source;
    run runs[CONV_COLUMNS];
    int64_t n = cut(s->gather, j0, cols, runs);
    for (int64_t k = 0; k < depth; k++, to += width) {
        int64_t tap = s->taps[k0 + k];
        if (s->dtype == ANEX_F16)
            for (int64_t r = 0; r < n; r++) {
                const half *from = (const half *)s->image + tap + runs[r].from;
                for (int64_t i = 0; i < runs[r].n; i += VF) vf_store(to + runs[r].at + i, vf_load_half(from + i));
            }
        else
            for (int64_t r = 0; r < n; r++) {
                const float *from = (const float *)s->image + tap + runs[r].from;
                for (int64_t i = 0; i < runs[r].n; i += VF) vf_store(to + runs[r].at + i, vf_load(from + i));
            }
    }
}

void conv_pack_bytes(const conv_source *s, uint8_t *to, int64_t width, int64_t k0, int64_t depth, int64_t j0,
                     int64_t cols) {
    enum { SIDE = 16 };
    run runs[CONV_COLUMNS];
    int64_t n = cut(s->gather, j0, cols, runs);
    for (int64_t k = 0; k < depth; k++, to += width)
        for (int64_t r = 0; r < n; r++) {
            const uint8_t *from = (const uint8_t *)s->image + s->taps[k0 + k] + runs[r].from;
            for (int64_t i = 0; i < runs[r].n; i += SIDE) memcpy(to + runs[r].at + i, from + i, SIDE);
        }
}
