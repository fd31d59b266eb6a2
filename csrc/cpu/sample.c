/* Reading images at computed positions: resample (grid_sample), affine, crop_resize. */
#include "../half.h"
#include "sample.h"

enum { BLOCK = 256 };

static inline float element(const anex_tensor *t, int64_t i) {
    return t->dtype == ANEX_F16 ? anex_half_to_float(((const half *)t->data)[i]) : ((const float *)t->data)[i];
}

/* BLOCK output positions of one image: y = sum of weight[k] * x[at[k]] over up to 4 elements, + constant.
   A weight of 0 hides its element, even an infinite one. */
typedef struct taps {
    int32_t at[4][BLOCK];
    float weight[4][BLOCK], constant[BLOCK];
} taps;

#define READ_TAPS(name, type, convert)                                                                       \
    static void name(float *restrict y, const type *restrict x, const taps *restrict t, int64_t n) {         \
        for (int64_t i = 0; i < n; i++) y[i] = t->constant[i];                                               \
        for (int k = 0; k < 4; k++)                                                                          \
            for (int64_t i = 0; i < n; i++) {                                                                \
                float w = t->weight[k][i], v = convert(x[t->at[k][i]]);                                      \
                y[i] += w != 0 ? w * v : 0;                                                                  \
            }                                                                                                \
    }
READ_TAPS(read_half, half, anex_half_to_float)
READ_TAPS(read_float, float, (float))
#undef READ_TAPS

static void read_taps(const anex_tensor *x, int64_t plane, const anex_tensor *y, int64_t to, const taps *t, int64_t n) {
    if (x->dtype == ANEX_F32) {
        read_float((float *)y->data + to, (const float *)x->data + plane, t, n);
    } else {
        float line[BLOCK];
        read_half(line, (const half *)x->data + plane, t, n);
        anex_narrow((half *)y->data + to, line, n);
    }
}

/* ---- resample, affine ------------------------------------------------------------------------------ */

typedef enum padding { CONSTANT, BORDER, REFLECTION, SYMMETRIC } padding;
typedef enum coordinates { UNNORMALIZED, MINUS_ONE_TO_ONE, ZERO_TO_ONE } coordinates;

typedef struct resample {
    padding padding;
    coordinates coordinates;
    bool nearest, align_corners;
    float padding_value;
    int64_t blocks, height, width; /* tasks of one image; of x */
    int64_t out_width, positions;
} resample;

static float unnormalize(const resample *s, float v, int64_t size) {
    if (s->coordinates == UNNORMALIZED) return v;
    if (s->coordinates == MINUS_ONE_TO_ONE) v = (v + 1) / 2;
    return s->align_corners ? v * (float)(size - 1) : v * (float)size - 0.5f;
}

/* Fold a position into the image; infinities and NaN become 0. Constant padding keeps it. */
static float fold(padding p, float v, int64_t size) {
    const float last = (float)(size - 1);
    if (p == CONSTANT) return v;
    if (p != BORDER) {
        float low = p == SYMMETRIC ? -0.5f : 0, span = p == SYMMETRIC ? (float)size : last;
        float distance = fabsf(v - low);
        distance = span > 0 ? fmodf(distance, 2 * span) : 0;
        v = low + (distance > span ? 2 * span - distance : distance);
    }
    v = v > 0 ? v : 0;
    return v < last ? v : last;
}

/* Tap k of position i at column c, row r with a weight: outside, the padding value takes its place. */
static void set_tap(const resample *s, taps *t, int k, int64_t i, float column, float row, float weight) {
    bool inside = column >= 0 && row >= 0 && column < (float)s->width && row < (float)s->height;
    t->at[k][i] = inside ? (int32_t)((int64_t)row * s->width + (int64_t)column) : 0;
    t->weight[k][i] = inside ? weight : 0;
    if (!inside && weight != 0) t->constant[i] += weight * s->padding_value; /* NaN weights are seen here */
}

static void set_position(const resample *s, taps *t, int64_t i, float x, float y) {
    x = fold(s->padding, unnormalize(s, x, s->width), s->width);
    y = fold(s->padding, unnormalize(s, y, s->height), s->height);
    t->constant[i] = 0;
    if (s->nearest) {
        set_tap(s, t, 0, i, nearbyintf(x), nearbyintf(y), 1);
        for (int k = 1; k < 4; k++) t->at[k][i] = 0, t->weight[k][i] = 0;
        return;
    }
    float column = floorf(x), row = floorf(y), right = x - column, below = y - row;
    if (!(fabsf(x) < 0x1p30f && fabsf(y) < 0x1p30f)) column = row = -2, right = below = 0; /* far away, or no number */
    set_tap(s, t, 0, i, column, row, (1 - right) * (1 - below));
    set_tap(s, t, 1, i, column + 1, row, right * (1 - below));
    set_tap(s, t, 2, i, column, row + 1, (1 - right) * below);
    set_tap(s, t, 3, i, column + 1, row + 1, right * below);
}

static void read_channels(const resample *s, const anex_node *node, const taps *t, int64_t image, int64_t first,
                          int64_t n) {
    const anex_tensor *x = node->in[0], *y = node->out[0];
    for (int64_t c = 0; c < x->shape[1]; c++) {
        int64_t plane = image * x->shape[1] + c;
        read_taps(x, plane * s->height * s->width, y, plane * s->positions + first, t, n);
    }
}

static void resample_work(const anex_node *node, const anex_slice *slice) {
    enum { X, COORDINATES };
    const resample *s = node->state;
    const anex_tensor *points = node->in[COORDINATES];
    const bool integer = points->dtype != ANEX_F16 && points->dtype != ANEX_F32;
    taps *t = slice->scratch;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t image = task / s->blocks, first = task % s->blocks * BLOCK, n = anex_min(BLOCK, s->positions - first);
        for (int64_t i = 0; i < n; i++) {
            int64_t at = 2 * (image * s->positions + first + i);
            float x = integer ? (float)anex_item(points, at) : element(points, at);
            float y = integer ? (float)anex_item(points, at + 1) : element(points, at + 1);
            set_position(s, t, i, x, y);
        }
        read_channels(s, node, t, image, first, n);
    }
}

/* position i of n in -1..1 */
static float normalized(const resample *s, int64_t i, int64_t n) {
    if (!s->align_corners) return (float)(2 * i + 1) / (float)n - 1;
    return n > 1 ? (float)(2 * i) / (float)(n - 1) - 1 : 0;
}

static void affine_work(const anex_node *node, const anex_slice *slice) {
    enum { X, MATRIX };
    const resample *s = node->state;
    const anex_tensor *matrix = node->in[MATRIX];
    taps *t = slice->scratch;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t image = task / s->blocks, first = task % s->blocks * BLOCK, n = anex_min(BLOCK, s->positions - first);
        float m[6];
        for (int k = 0; k < 6; k++) m[k] = element(matrix, (matrix->shape[0] > 1 ? image * 6 : 0) + k);
        int64_t row = first / s->out_width, column = first % s->out_width;
        for (int64_t i = 0; i < n; i++) {
            float x = normalized(s, column, s->out_width), y = normalized(s, row, s->positions / s->out_width);
            set_position(s, t, i, m[0] * x + m[1] * y + m[2], m[3] * x + m[4] * y + m[5]);
            if (++column == s->out_width) column = 0, row++;
        }
        read_channels(s, node, t, image, first, n);
    }
}

static int find(const char *name, const char *const *names, int n) {
    int i = 0;
    while (i < n && strcmp(names[i], name)) i++;
    return i;
}

static anex_status plan_resample(anex_node *node, anex_error *error, int sampling, anex_work *work) {
    enum { X };
    static const char *const samplings[] = {"bilinear", "nearest"};
    static const char *const paddings[] = {"constant", "border", "reflection", "symmetric"};
    static const char *const modes[] = {"unnormalized", "normalized_minus_one_to_one", "normalized_zero_to_one"};
    const anex_tensor *x = node->in[X], *y = node->out[0];
    anex_status status = anex_need_constants(node, 31u << sampling, error);
    if (status) return status;
    int how = find(anex_text(node->in[sampling], "bilinear"), samplings, 2);
    int padding_mode = find(anex_text(node->in[sampling + 1], "constant"), paddings, 4);
    int mode = find(anex_text(node->in[sampling + 3], "normalized_minus_one_to_one"), modes, 3);
    if (how == 2 || padding_mode == 4 || mode == 3)
        return anex_node_fail(node, error, ANEX_INVALID, "MIL has no such %s", how == 2    ? "sampling_mode"
                                                                             : mode == 3 ? "coordinates_mode"
                                                                                         : "padding_mode");
    if (x->rank != 4 || y->rank != 4 || anex_tensor_size(x) < 1 || x->shape[2] * x->shape[3] > INT32_MAX)
        return anex_node_fail(node, error, ANEX_SHAPE, "x must be images [B, C, H, W]");
    resample *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    s->padding = (padding)padding_mode, s->coordinates = (coordinates)mode, s->nearest = how == 1;
    s->padding_value = (float)anex_float(node->in[sampling + 2], 0);
    s->align_corners = anex_int(node->in[sampling + 4], 1);
    s->height = x->shape[2], s->width = x->shape[3], s->out_width = y->shape[3];
    s->positions = y->shape[2] * y->shape[3];
    s->blocks = (s->positions + BLOCK - 1) / BLOCK;
    node->scratch = sizeof(taps);
    anex_add_stage(node, work, x->shape[0] * s->blocks,
                   (double)anex_min(BLOCK, s->positions) * (10 + 3 * (double)x->shape[1]));
    return ANEX_OK;
}

ANEX_KERNEL(resample) {
    enum { X, COORDINATES, SAMPLING_MODE, PADDING_MODE, PADDING_VALUE, COORDINATES_MODE, ALIGN_CORNERS };
    const anex_tensor *x = node->in[X], *c = node->in[COORDINATES];
    if (x->rank != 4 || c->rank != 4 || c->shape[0] != x->shape[0] || c->shape[3] != 2)
        return anex_node_fail(node, error, ANEX_SHAPE, "coordinates must be [B, H, W, 2] for the B images of x");
    return plan_resample(node, error, SAMPLING_MODE, resample_work);
}

ANEX_KERNEL(affine) {
    enum { X, MATRIX, HEIGHT, WIDTH, SAMPLING_MODE, PADDING_MODE, PADDING_VALUE, COORDINATES_MODE, ALIGN_CORNERS };
    const anex_tensor *x = node->in[X], *matrix = node->in[MATRIX];
    if (x->rank != 4 || matrix->rank != 2 || matrix->shape[1] != 6 ||
        (matrix->shape[0] != 1 && matrix->shape[0] != x->shape[0]) ||
        matrix->dtype != x->dtype)
        return anex_node_fail(node, error, ANEX_SHAPE, "transform_matrix must be [1, 6] or [B, 6], of the dtype of x");
    return plan_resample(node, error, SAMPLING_MODE, affine_work);
}

/* ---- crop_resize ----------------------------------------------------------------------------------- */

typedef struct crops {
    anex_sampling sampling;
    bool height_first, centers, normalized, pads;
    double spatial_scale;
    float pad_value;
    int32_t box_axis; /* numbers per box: 4, or 5 with the image's number first */
    int64_t images, channels, in[2], out[2]; /* images: of the output, per box */
} crops;

/* Points of one axis of a box: element below, weight of the next one; outside the image -1.
   iOS 15 has no pad_value, and coremltools' test of it takes a box that misses the image as the whole image. */
static void box_points(const crops *s, double a, double b, int64_t size, int64_t n, int32_t *low, float *weight) {
    double scale = s->spatial_scale * (s->normalized ? (double)(size - 1) : 1);
    double start = (s->centers ? a - b / 2 : a) * scale, end = (s->centers ? a + b / 2 : b) * scale;
    const double last = (double)(size - 1);
    const double low_end = fmin(start, end), high_end = fmax(start, end);
    if (!s->pads && ((low_end < 0 && high_end <= 0) || (low_end >= last && high_end > last))) start = 0, end = last;
    for (int64_t i = 0; i < n; i++) {
        double at = anex_sample_point(s->sampling, start, end, n, i);
        bool inside = at >= 0 && at <= last;
        low[i] = inside ? (int32_t)floor(at) : -1;
        weight[i] = inside ? (float)(at - floor(at)) : 0;
    }
}

static void crop_work(const anex_node *node, const anex_slice *slice) {
    enum { X, ROI, BOXES, BOX_INDICES };
    const crops *s = node->state;
    const anex_tensor *x = node->in[X], *y = node->out[0], *boxes = node->in[BOXES] ? node->in[BOXES] : node->in[ROI];
    const int64_t height = s->in[0], width = s->in[1], rows = s->out[0], columns = s->out[1];
    float *row_weight = slice->scratch, *column_weight = row_weight + rows;
    int32_t *row = (int32_t *)(column_weight + columns), *column = row + rows;
    taps *t = (taps *)((char *)slice->scratch + anex_align((size_t)(rows + columns) * 8));
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t box = task / s->images, image = node->in[BOXES] ? box : task % s->images;
        double v[5];
        for (int32_t k = 0; k < s->box_axis; k++) v[k] = anex_real(boxes, box * s->box_axis + k);
        if (s->box_axis == 5) image = v[0] > 0 ? v[0] < (double)x->shape[0] ? (int64_t)v[0] : x->shape[0] - 1 : 0;
        if (node->in[BOX_INDICES]) image = anex_item(node->in[BOX_INDICES], box);
        image = anex_max(0, anex_min(image, x->shape[0] - 1)); /* MIL calls others invalid; this is safe */
        const double *c = v + s->box_axis - 4;
        const int h = !s->height_first, w = s->height_first;
        box_points(s, c[h], c[h + 2], height, rows, row, row_weight);
        box_points(s, c[w], c[w + 2], width, columns, column, column_weight);
        for (int64_t first = 0; first < rows * columns; first += BLOCK) {
            int64_t n = anex_min(BLOCK, rows * columns - first), r = first / columns, q = first % columns;
            for (int64_t i = 0; i < n; i++) {
                bool inside = row[r] >= 0 && column[q] >= 0;
                int64_t top = inside ? row[r] : 0, below = anex_min(top + 1, height - 1);
                int64_t left = inside ? column[q] : 0, right = anex_min(left + 1, width - 1);
                float u = row_weight[r], l = column_weight[q];
                t->constant[i] = inside ? 0 : s->pad_value;
                t->at[0][i] = (int32_t)(top * width + left), t->weight[0][i] = inside ? (1 - u) * (1 - l) : 0;
                t->at[1][i] = (int32_t)(top * width + right), t->weight[1][i] = inside ? (1 - u) * l : 0;
                t->at[2][i] = (int32_t)(below * width + left), t->weight[2][i] = inside ? u * (1 - l) : 0;
                t->at[3][i] = (int32_t)(below * width + right), t->weight[3][i] = inside ? u * l : 0;
                if (++q == columns) q = 0, r++;
            }
            for (int64_t channel = 0; channel < s->channels; channel++)
                read_taps(x, (image * s->channels + channel) * height * width, y,
                          (task * s->channels + channel) * rows * columns + first, t, n);
        }
    }
}

/* iOS 15 and 16: roi [N, 1, 4 or 5, 1, 1] -> [N, B, C, h, w]; iOS 17: boxes [N, 4], box_indices [N] -> [N, C, h, w] */
ANEX_KERNEL(crop_resize) {
    enum { X, ROI, BOXES, BOX_INDICES, HEIGHT, WIDTH, NORMALIZED, SPATIAL_SCALE, BOX_MODE, SAMPLING_MODE, PAD_VALUE };
    static const char *const modes[] = {"CORNERS_HEIGHT_FIRST", "CORNERS_WIDTH_FIRST", "CENTER_SIZE_HEIGHT_FIRST",
                                        "CENTER_SIZE_WIDTH_FIRST"};
    const anex_tensor *x = node->in[X], *y = node->out[0], *boxes = node->in[BOXES] ? node->in[BOXES] : node->in[ROI];
    anex_status status = anex_need_constants(node, 0x7fu << HEIGHT, error);
    if (status) return status;
    int mode = find(anex_text(node->in[BOX_MODE], modes[0]), modes, 4);
    crops *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    s->sampling = anex_find_sampling(anex_text(node->in[SAMPLING_MODE], "DEFAULT"));
    if (mode == 4 || s->sampling == ANEX_SAMPLINGS)
        return anex_node_fail(node, error, ANEX_INVALID, "MIL has no such %s",
                              mode == 4 ? "box_coordinate_mode" : "sampling_mode");
    s->height_first = mode % 2 == 0, s->centers = mode >= 2, s->normalized = anex_int(node->in[NORMALIZED], 0);
    s->pads = node->in[PAD_VALUE] || node->in[BOXES];
    s->spatial_scale = anex_float(node->in[SPATIAL_SCALE], 1), s->pad_value = (float)anex_float(node->in[PAD_VALUE], 0);
    int32_t box_axis = node->in[BOXES] ? 1 : 2;
    if (!boxes || boxes->rank <= box_axis || x->rank != 4 || y->rank != (node->in[BOXES] ? 4 : 5) ||
        anex_tensor_size(x) < 1 ||
        x->shape[2] * x->shape[3] > INT32_MAX)
        return anex_node_fail(node, error, ANEX_SHAPE, "x must be images [B, C, H, W] and come with boxes");
    s->box_axis = (int32_t)boxes->shape[box_axis];
    s->images = node->in[BOXES] ? 1 : y->shape[1], s->channels = x->shape[1];
    for (int i = 0; i < 2; i++) s->in[i] = x->shape[2 + i], s->out[i] = y->shape[y->rank - 2 + i];
    if ((s->box_axis != 4 && (s->box_axis != 5 || node->in[BOXES])) ||
        boxes->shape[0] * s->box_axis != anex_tensor_size(boxes) ||
        y->shape[0] != boxes->shape[0] || y->shape[y->rank - 3] != s->channels || s->images > x->shape[0] ||
        (node->in[BOX_INDICES] && anex_tensor_size(node->in[BOX_INDICES]) != boxes->shape[0]))
        return anex_node_fail(node, error, ANEX_SHAPE, "a box has %d numbers, and boxes, images and result must agree",
                              s->box_axis);
    int64_t positions = s->out[0] * s->out[1];
    node->scratch = anex_align((size_t)(s->out[0] + s->out[1]) * 8) + sizeof(taps);
    anex_add_stage(node, crop_work, boxes->shape[0] * s->images, (double)positions * (5 + 3 * (double)s->channels));
    return ANEX_OK;
}
