/* topk and argsort: the first k of each line in order, equal elements by their place, NaN last.

   An element becomes a 32-bit key that orders as wished, a key and its place one 64-bit number, so
   that sorting needs one comparison and is stable by itself. Few of many are kept in a heap whose
   root rejects most elements at once; otherwise the line is sorted by merging. */
#include "axes.h"
#include "vmath.h"

typedef struct order {
    anex_panels x, y; /* the same positions, n and k elements long */
    int64_t k;
    bool descending, whole;
    int32_t values, indices; /* which output, or -1 */
} order;

static void keys_of_floats(uint32_t *restrict key, const float *restrict x, int64_t n, uint32_t flip) {
    for (int64_t i = 0; i < n; i++) {
        uint32_t u = vm_bits(x[i] + 0.0f); /* -0 is 0 */
        uint32_t k = u ^ ((uint32_t)((int32_t)u >> 31) | 0x80000000u) ^ flip;
        key[i] = x[i] == x[i] ? k : UINT32_MAX;
    }
}
static void keys_of_integers(uint32_t *restrict key, const int32_t *restrict x, int64_t n, uint32_t flip) {
    for (int64_t i = 0; i < n; i++) key[i] = (uint32_t)x[i] ^ 0x80000000u ^ flip;
}

/* ---- sorting -------------------------------------------------------------------------------- */

static void insertion_sort(uint64_t *a, int64_t n) {
    for (int64_t i = 1; i < n; i++) {
        uint64_t v = a[i];
        int64_t j = i;
        for (; j > 0 && a[j - 1] > v; j--) a[j] = a[j - 1];
        a[j] = v;
    }
}

/* Returns where the sorted numbers are: `a` or `b`. */
static uint64_t *merge_sort(uint64_t *a, uint64_t *b, int64_t n) {
    enum { RUN = 16 };
    for (int64_t i = 0; i < n; i += RUN) insertion_sort(a + i, anex_min(RUN, n - i));
    for (int64_t run = RUN; run < n; run *= 2) {
        for (int64_t i = 0; i < n; i += 2 * run) {
            int64_t l = i, middle = anex_min(n, i + run), r = middle, end = anex_min(n, i + 2 * run), at = i;
            while (l < middle && r < end) { /* no branch on the data */
                uint64_t x = a[l], y = a[r];
                bool left = x < y;
                b[at++] = left ? x : y;
                l += left, r += !left;
            }
            memcpy(b + at, a + l, (size_t)(middle - l) * sizeof *a);
            memcpy(b + at + (middle - l), a + r, (size_t)(end - r) * sizeof *a);
        }
        uint64_t *swap = a;
        a = b, b = swap;
    }
    return a;
}

/* a[0] is the greatest of the heap a[0 .. n-1], but for a[i], which may be too small for its place */
static void sift_down(uint64_t *a, int64_t i, int64_t n) {
    uint64_t v = a[i];
    for (int64_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && a[child + 1] > a[child]) child++;
        if (a[child] <= v) break;
        a[i] = a[child];
    }
    a[i] = v;
}

/* The k least of n keys, `step` apart, in order. `a` and `b` have room for n numbers. */
static const uint64_t *first_of(const uint32_t *key, int64_t step, int64_t n, int64_t k, uint64_t *a, uint64_t *b) {
    bool heap = k * 4 < n;
    int64_t kept = heap ? k : n;
    for (int64_t i = 0; i < kept; i++) a[i] = (uint64_t)key[i * step] << 32 | (uint64_t)i;
    if (heap) {
        for (int64_t i = k / 2 - 1; i >= 0; i--) sift_down(a, i, k);
        uint32_t worst = (uint32_t)(a[0] >> 32);
        for (int64_t i = k; i < n; i++) {
            if (key[i * step] >= worst) continue; /* an equal one that comes later is worse */
            a[0] = (uint64_t)key[i * step] << 32 | (uint64_t)i;
            sift_down(a, 0, k);
            worst = (uint32_t)(a[0] >> 32);
        }
    }
    return merge_sort(a, b, kept);
}

/* ---- work ----------------------------------------------------------------------------------- */

/* scratch: x [n, w], keys [n, w], values [k, w], indices [k, w], two lines of numbers. A column's keys are
   read with a step: sorting them costs far more than that. */
static void order_work(const anex_node *node, const anex_slice *slice) {
    const order *s = node->state;
    int64_t n = s->x.axes.n, width = s->x.width;
    char *next = slice->scratch;
    uint32_t *x = (uint32_t *)(void *)next;
    uint32_t *key = (uint32_t *)(void *)(next += s->x.scratch);
    uint32_t *value = (uint32_t *)(void *)(next += anex_align(4 * (size_t)(n * width)));
    int32_t *index = (int32_t *)(void *)(next += s->y.scratch);
    uint64_t *a = (uint64_t *)(void *)(next += s->y.scratch), *b = a + n;
    for (int64_t task = slice->begin; task < slice->end; task++) {
        int64_t w = ANEX_LOCAL(panel_load)(&s->x, node->in[0], task, x);
        uint32_t flip = s->descending ? UINT32_MAX : 0;
        if (s->whole)
            keys_of_integers(key, (const int32_t *)x, n * w, flip);
        else
            keys_of_floats(key, (const float *)(const void *)x, n * w, flip);
        for (int64_t j = 0; j < w; j++) {
            const uint64_t *first = first_of(key + j, w, n, s->k, a, b);
            for (int64_t i = 0; i < s->k; i++) {
                int64_t at = (int64_t)(first[i] & UINT32_MAX);
                index[i * w + j] = (int32_t)at;
                memcpy(value + i * w + j, x + at * w + j, 4);
            }
        }
        if (s->values >= 0) ANEX_LOCAL(panel_store)(&s->y, node->out[s->values], task, value);
        if (s->indices >= 0) ANEX_LOCAL(panel_store)(&s->y, node->out[s->indices], task, index);
    }
}

static anex_status plan(anex_node *node, const anex_tensor *axis_input, bool descending, int32_t values,
                        int32_t indices, anex_error *error) {
    const anex_tensor *x = node->in[0];
    int32_t axis;
    anex_status status = ANEX_LOCAL(axis_read)(node, axis_input, -1, x->rank, &axis, error);
    if (status) return status;
    order *s = anex_node_state(node, sizeof *s, error);
    if (!s) return ANEX_MEMORY;
    anex_axes from = ANEX_LOCAL(axes_along)(x, axis), to = ANEX_LOCAL(axes_along)(node->out[0], axis);
    *s = (order){.x = ANEX_LOCAL(panels_of)(from), .k = to.n, .descending = descending, .whole = !anex_is_float(x),
                 .values = values, .indices = indices};
    if (from.inner == 1) { /* lines lie in memory as they are sorted */
        s->x.gather = s->x.width = s->x.blocks = 1;
        s->x.tasks = from.outer, s->x.scratch = anex_align(4 * (size_t)from.n);
    }
    if (s->k > from.n)
        return anex_node_fail(node, error, ANEX_INVALID, "k is %lld, but the axis has %lld elements", (long long)s->k,
                              (long long)from.n);
    int64_t limit = indices >= 0 && node->out[indices]->dtype == ANEX_U16 ? 65536 : INT32_MAX;
    if (from.n > limit)
        return anex_node_fail(node, error, ANEX_UNSUPPORTED, "the axis has %lld elements, but uint16 indices count "
                              "only 65536; use output_indices_dtype=\"int32\"", (long long)from.n);
    s->y = s->x, s->y.axes = to;
    s->y.scratch = anex_align(4 * (size_t)(to.n * s->y.width)) + anex_align(4 * (size_t)(to.n * s->y.width));
    size_t keys = anex_align(4 * (size_t)(from.n * s->x.width));
    node->scratch = s->x.scratch + keys + 2 * s->y.scratch + 16 * (size_t)from.n;
    double steps = s->k * 4 < from.n ? 2 : 4 * log2((double)from.n + 1);
    anex_add_stage(node, order_work, s->x.tasks, steps * (double)(from.n * s->x.width));
    return ANEX_OK;
}

ANEX_KERNEL(topk) {
    enum { X, K, AXIS, ASCENDING, SORT, RETURN_INDICES, OUTPUT_INDICES_DTYPE }; /* sorted whether asked for or not */
    anex_status status = anex_need_constants(node, 1u << K | 1u << AXIS | 1u << ASCENDING, error);
    if (status) return status;
    return plan(node, node->in[AXIS], !anex_int(node->in[ASCENDING], 0), 0, node->n_out > 1 ? 1 : -1, error);
}

ANEX_KERNEL(argsort) {
    enum { X, AXIS, ASCENDING };
    anex_status status = anex_need_constants(node, 1u << AXIS | 1u << ASCENDING, error);
    if (status) return status;
    return plan(node, node->in[AXIS], !anex_int(node->in[ASCENDING], 0), -1, 0, error);
}
