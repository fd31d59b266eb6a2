/* non_maximum_suppression: boxes by falling score, each unless one chosen before overlaps it too much.

   iOS 15: boxes [n, B, 4], scores [n, B, K], a score_threshold and a fourth output, how many were chosen;
   from iOS 17 on: boxes [n, 4, B], scores [n, K, B]. A box is (center x, center y, width, height), its class
   is its best score. When none passes the threshold the best box is chosen all the same, as Core ML does. */
#include "axes.h"

typedef struct nms {
    int64_t batch, boxes, classes, most;
    int64_t box_step, box_field, score_step, score_class; /* element strides, also of the outputs (with `most` for B) */
    bool boxes_last, by_class;
    float overlap, threshold;
} nms;

/* of boxes in the order they are tried, or of those chosen */
typedef struct rectangles {
    float *left, *right, *bottom, *top, *area;
    int32_t *class;
} rectangles;

static rectangles rectangles_at(char **next, int64_t n) {
    size_t step = anex_align(4 * (size_t)n);
    float *p[6];
    for (int32_t i = 0; i < 6; i++, *next += step) p[i] = (float *)(void *)*next;
    return (rectangles){p[0], p[1], p[2], p[3], p[4], (int32_t *)(void *)p[5]};
}

/* Greatest first, equal ones by their number: a heap sort of order[0 .. n-1] by score. */
static bool after(const float *score, int32_t a, int32_t b) {
    return score[a] < score[b] || (!(score[a] > score[b]) && a > b);
}
static void sift_down(int32_t *order, const float *score, int64_t i, int64_t n) {
    int32_t v = order[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && after(score, order[child + 1], order[child])) child++;
        if (!after(score, order[child], v)) break;
        order[i] = order[child];
    }
    order[i] = v;
}
static void sort_by_score(int32_t *order, const float *score, int64_t n) {
    for (int64_t i = n / 2 - 1; i >= 0; i--) sift_down(order, score, i, n);
    for (int64_t last = n - 1; last > 0; last--) {
        int32_t v = order[0];
        order[0] = order[last], order[last] = v;
        sift_down(order, score, 0, last);
    }
}

/* Whether box i of r overlaps one of the n chosen ones too much. */
static bool suppressed(const nms *s, const rectangles *r, int32_t i, const rectangles *chosen, int64_t n) {
    const float *restrict left = chosen->left, *restrict right = chosen->right, *restrict bottom = chosen->bottom,
                *restrict top = chosen->top, *restrict area = chosen->area;
    const int32_t *restrict class = chosen->class;
    float l = r->left[i], rt = r->right[i], b = r->bottom[i], t = r->top[i], mine = r->area[i];
    int32_t c = r->class[i], any = 0;
    for (int64_t j = 0; j < n; j++) {
        float w = (rt < right[j] ? rt : right[j]) - (l > left[j] ? l : left[j]);
        float h = (t < top[j] ? t : top[j]) - (b > bottom[j] ? b : bottom[j]);
        float common = (w > 0 ? w : 0) * (h > 0 ? h : 0);
        int32_t over = common / (mine + area[j] - common) > s->overlap; /* 0 / 0 is not */
        any |= over & (class[j] == c);
    }
    return any;
}

static float value_at(const anex_tensor *t, int64_t at) {
    return t->dtype == ANEX_F16 ? anex_half_to_float(((const half *)t->data)[at]) : ((const float *)t->data)[at];
}
static void move_value(const anex_tensor *to, int64_t at, const anex_tensor *from, int64_t source) {
    size_t item = anex_itemsize(to);
    memcpy((char *)to->data + (size_t)at * item, (const char *)from->data + (size_t)source * item, item);
}

/* Geometry, best score and class of each box of batch n; returns the number worth trying, listed in `order`. */
static int64_t read_boxes(const nms *s, const anex_node *node, int64_t n, rectangles *r, float *score, int32_t *order) {
    int64_t tried = 0;
    for (int64_t i = 0; i < s->boxes; i++) {
        int64_t at = n * s->boxes * 4 + i * s->box_step;
        float x = value_at(node->in[0], at), y = value_at(node->in[0], at + s->box_field);
        float w = value_at(node->in[0], at + 2 * s->box_field), h = value_at(node->in[0], at + 3 * s->box_field);
        r->left[i] = x - 0.5f * w, r->right[i] = x + 0.5f * w;
        r->bottom[i] = y - 0.5f * h, r->top[i] = y + 0.5f * h;
        r->area[i] = w * h;
        at = n * s->boxes * s->classes + i * s->score_step;
        score[i] = value_at(node->in[1], at), r->class[i] = 0;
        for (int64_t c = 1; c < s->classes; c++) {
            float v = value_at(node->in[1], at + c * s->score_class);
            if (v > score[i]) score[i] = v, r->class[i] = (int32_t)c;
        }
        if (!s->by_class) r->class[i] = 0;
        if (score[i] >= s->threshold) order[tried++] = (int32_t)i;
    }
    if (!tried) {
        order[tried++] = 0;
        for (int64_t i = 1; i < s->boxes; i++)
            if (score[i] > score[order[0]]) order[0] = (int32_t)i;
    }
    return tried;
}

static void nms_work(const anex_node *node, const anex_slice *slice) {
    const nms *s = node->state;
    char *next = slice->scratch;
    rectangles all = rectangles_at(&next, s->boxes), chosen = rectangles_at(&next, s->most);
    float *score = (float *)(void *)next;
    int32_t *order = (int32_t *)(void *)(next + anex_align(4 * (size_t)s->boxes));
    for (int64_t n = slice->begin; n < slice->end; n++) {
        int64_t tried = read_boxes(s, node, n, &all, score, order), count = 0;
        sort_by_score(order, score, tried);
        int32_t *indices = (int32_t *)node->out[2]->data + n * s->most;
        for (int64_t i = 0; i < tried && count < s->most; i++) {
            int32_t box = order[i];
            if (suppressed(s, &all, box, &chosen, count)) continue;
            chosen.left[count] = all.left[box], chosen.right[count] = all.right[box];
            chosen.bottom[count] = all.bottom[box], chosen.top[count] = all.top[box];
            chosen.area[count] = all.area[box], chosen.class[count] = all.class[box];
            indices[count++] = box;
        }
        int64_t field = s->boxes_last ? s->most : 1, step = s->boxes_last ? 1 : 4;
        int64_t class = s->boxes_last ? s->most : 1, score_step = s->boxes_last ? 1 : s->classes;
        size_t item = anex_itemsize(node->out[0]), score_item = anex_itemsize(node->out[1]);
        memset((char *)node->out[0]->data + (size_t)(n * s->most * 4) * item, 0, (size_t)(s->most * 4) * item);
        memset((char *)node->out[1]->data + (size_t)(n * s->most * s->classes) * score_item, 0,
               (size_t)(s->most * s->classes) * score_item);
        for (int64_t i = 0; i < count; i++) {
            for (int64_t f = 0; f < 4; f++)
                move_value(node->out[0], n * s->most * 4 + i * step + f * field, node->in[0],
                           n * s->boxes * 4 + indices[i] * s->box_step + f * s->box_field);
            for (int64_t c = 0; c < s->classes; c++)
                move_value(node->out[1], n * s->most * s->classes + i * score_step + c * class, node->in[1],
                           n * s->boxes * s->classes + indices[i] * s->score_step + c * s->score_class);
        }
        for (int64_t i = count; i < s->most; i++) indices[i] = -1;
        if (node->n_out > 3) ((int32_t *)node->out[3]->data)[n] = (int32_t)count;
    }
}

ANEX_KERNEL(non_maximum_suppression) {
    enum { BOXES, SCORES, IOU_THRESHOLD, SCORE_THRESHOLD, MAX_BOXES, PER_CLASS_SUPPRESSION };
    anex_status status = anex_need_constants(node, ~3u, error);
    if (status) return status;
    const anex_tensor *boxes = node->in[BOXES], *scores = node->in[SCORES];
    bool last = node->n_out == 3; /* iOS 17 */
    if (boxes->rank != 3 || scores->rank != 3 || boxes->shape[last ? 1 : 2] != 4 ||
        boxes->shape[0] != scores->shape[0] || boxes->shape[last ? 2 : 1] != scores->shape[last ? 2 : 1])
        return anex_node_fail(node, error, ANEX_SHAPE, "boxes and scores must be %s of the same n and B",
                              last ? "[n, 4, B] and [n, K, B]" : "[n, B, 4] and [n, B, K]");
    nms *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    *s = (nms){.batch = boxes->shape[0], .boxes = boxes->shape[last ? 2 : 1], .classes = scores->shape[last ? 1 : 2],
               .most = node->out[2]->shape[1], .boxes_last = last};
    s->box_step = last ? 1 : 4, s->box_field = last ? s->boxes : 1;
    s->score_step = last ? 1 : s->classes, s->score_class = last ? s->boxes : 1;
    s->by_class = anex_int(node->in[PER_CLASS_SUPPRESSION], 0);
    s->overlap = (float)anex_float(node->in[IOU_THRESHOLD], 0);
    s->threshold = (float)anex_float(node->in[SCORE_THRESHOLD], -__builtin_inf());
    node->scratch = 8 * anex_align(4 * (size_t)s->boxes) + 6 * anex_align(4 * (size_t)s->most);
    double tried = (double)s->boxes, kept = (double)anex_min(s->most, s->boxes);
    anex_add_stage(node, nms_work, s->batch, tried * (20 + (double)s->classes) + tried * kept * 0.2);
    return ANEX_OK;
}
