#include "axes.h"

anex_axes ANEX_LOCAL(axes_of)(const anex_tensor *x, uint32_t mask) {
    anex_axes a = {.outer = 1, .slabs = 1, .axis = 1, .inner = 1, .n = 1};
    int64_t extent[ANEX_MAX_RANK + 1], step = 1;
    bool chosen[ANEX_MAX_RANK + 1];
    int32_t groups = 0;
    for (int32_t i = x->rank - 1; i >= 0; i--) {
        if (x->shape[i] == 1) continue;
        bool c = mask >> i & 1;
        if (!groups || chosen[groups - 1] != c) extent[groups] = 1, chosen[groups++] = c;
        extent[groups - 1] *= x->shape[i];
    }
    int32_t g = 0;
    if (g < groups && !chosen[g]) step = a.inner = extent[g++];
    if (g < groups && chosen[g]) a.axis = extent[g], step *= extent[g++];
    for (; g < groups; g++) {
        if (chosen[g]) {
            a.slabs *= extent[g];
            a.chosen[a.n_chosen] = extent[g], a.chosen_step[a.n_chosen++] = step;
        } else {
            a.outer *= extent[g];
            a.kept[a.n_kept] = extent[g], a.kept_step[a.n_kept++] = step;
        }
        step *= extent[g];
    }
    a.n = a.slabs * a.axis;
    return a;
}

anex_axes ANEX_LOCAL(axes_along)(const anex_tensor *x, int32_t axis) {
    int64_t n = x->rank ? x->shape[axis] : 1;
    anex_axes a = {.outer = anex_span(x, 0, axis), .slabs = 1, .axis = n, .n = n};
    a.inner = anex_span(x, axis + 1, x->rank);
    a.n_kept = 1, a.kept[0] = a.outer, a.kept_step[0] = n * a.inner;
    return a;
}

anex_status ANEX_LOCAL(axes_mask)(const anex_node *node, const anex_tensor *axes, int32_t rank, uint32_t *mask,
                                  anex_error *error) {
    *mask = (1u << rank) - 1;
    if (!axes) return ANEX_OK;
    *mask = 0;
    for (int64_t i = 0; i < anex_tensor_size(axes); i++) {
        int64_t axis = anex_item(axes, i);
        if (axis < -rank || axis >= rank)
            return anex_node_fail(node, error, ANEX_INVALID, "axis %lld is outside a tensor of rank %d",
                                  (long long)axis, rank);
        *mask |= 1u << anex_axis(axis, rank);
    }
    return ANEX_OK;
}

anex_status ANEX_LOCAL(axis_read)(const anex_node *node, const anex_tensor *axis, int32_t otherwise, int32_t rank,
                                  int32_t *number, anex_error *error) {
    int64_t i = anex_int(axis, otherwise);
    int32_t least = rank ? rank : 1; /* a scalar has one axis of one element */
    if (i < -least || i >= least)
        return anex_node_fail(node, error, ANEX_INVALID, "axis %lld is outside a tensor of rank %d", (long long)i,
                              rank);
    *number = anex_axis(i, least);
    return ANEX_OK;
}

/* ---- elements ------------------------------------------------------------------------------- */

#define TO_INT32(type)                                                                                \
    do {                                                                                              \
        const type *restrict from = (const type *)x->data + at;                                       \
        for (int64_t i = 0; i < n; i++) wide[i] = from[i];                                             \
    } while (0)

void ANEX_LOCAL(load)(void *to, const anex_tensor *x, int64_t at, int64_t n) {
    int32_t *restrict wide = to;
    switch (x->dtype) {
    case ANEX_F16: anex_widen(to, (const half *)x->data + at, n); return;
    case ANEX_I8: TO_INT32(int8_t); return;
    case ANEX_I16: TO_INT32(int16_t); return;
    case ANEX_U16: TO_INT32(uint16_t); return;
    case ANEX_U8:
    case ANEX_BOOL: TO_INT32(uint8_t); return;
    default: memcpy(to, (const char *)x->data + 4 * at, 4 * (size_t)n);
    }
}

#define FROM_INT32(type)                                                                              \
    do {                                                                                              \
        type *restrict to = (type *)y->data + at;                                                     \
        for (int64_t i = 0; i < n; i++) to[i] = (type)wide[i];                                         \
    } while (0)

void ANEX_LOCAL(store)(const anex_tensor *y, int64_t at, const void *from, int64_t n) {
    const int32_t *restrict wide = from;
    switch (y->dtype) {
    case ANEX_F16: anex_narrow((half *)y->data + at, from, n); return;
    case ANEX_I8: FROM_INT32(int8_t); return;
    case ANEX_I16: FROM_INT32(int16_t); return;
    case ANEX_U16: FROM_INT32(uint16_t); return;
    case ANEX_U8:
    case ANEX_BOOL: FROM_INT32(uint8_t); return;
    default: memcpy((char *)y->data + 4 * at, from, 4 * (size_t)n);
    }
}

/* ---- panels --------------------------------------------------------------------------------- */

anex_panels ANEX_LOCAL(panels_of)(anex_axes a) {
    enum { ELEMENTS = 1 << 15, GATHERED = 1 << 18, NARROW = 16, LEAST = 64, MOST = 256 };
    anex_panels p = {.axes = a, .gather = 1, .width = a.inner, .blocks = 1};
    if (a.inner < NARROW && a.outer > 1) {
        int64_t fits = anex_max(1, GATHERED / (a.n * a.inner));
        p.gather = anex_min(a.outer, anex_min(fits, LEAST / a.inner));
        p.width = p.gather * a.inner;
    } else {
        int64_t most = anex_min(MOST, anex_max(LEAST, ELEMENTS / a.n / 16 * 16));
        p.blocks = (a.inner + most - 1) / most;
        p.width = ((a.inner + p.blocks - 1) / p.blocks + 15) / 16 * 16;
        p.blocks = (a.inner + p.width - 1) / p.width;
        p.width = anex_min(p.width, a.inner);
    }
    p.tasks = (a.outer + p.gather - 1) / p.gather * p.blocks;
    size_t slab = p.gather > 1 ? (size_t)(a.axis * a.inner * (anex_panel_packed(&p) ? p.gather : 1)) : 0;
    p.scratch = anex_align(4 * (size_t)(a.n * p.width)) + anex_align(4 * slab);
    return p;
}

/* Where `gather` positions meet: between a panel [n, columns] and `count` slabs [axis, inner]. The elements
   are moved as bytes because a panel holds floats or integers. */
#define EACH_ELEMENT(panel_side, slab_side)                                                                  \
    for (int64_t r = 0; r < rows; r++)                                                                       \
        if (inner == 1)                                                                                      \
            for (int64_t g = 0; g < count; g++) {                                                            \
                int64_t in_panel = 4 * (r * columns + g), in_slab = 4 * (g * rows + r);                      \
                memcpy(panel_side, slab_side, 4);                                                            \
            }                                                                                                \
        else                                                                                                 \
            for (int64_t g = 0; g < count; g++)                                                              \
                for (int64_t i = 0; i < inner; i++) {                                                        \
                    int64_t in_panel = 4 * (r * columns + g * inner + i), in_slab = 4 * ((g * rows + r) * inner + i); \
                    memcpy(panel_side, slab_side, 4);                                                        \
                }
static void from_slabs(char *restrict panel, const char *restrict slab, int64_t count, int64_t rows, int64_t inner,
                       int64_t columns) {
    EACH_ELEMENT(panel + in_panel, slab + in_slab)
}
static void to_slabs(const char *restrict panel, char *restrict slab, int64_t count, int64_t rows, int64_t inner,
                     int64_t columns) {
    EACH_ELEMENT(slab + in_slab, panel + in_panel)
}

static char *slab_of(const anex_panels *p, char *panel) {
    return panel + anex_align(4 * (size_t)(p->axes.n * p->width));
}

int64_t ANEX_LOCAL(panel_load)(const anex_panels *p, const anex_tensor *x, int64_t task, void *panel) {
    const anex_axes *a = &p->axes;
    int64_t columns = anex_panel_columns(p, task);
    if (p->gather > 1) {
        char *slab = slab_of(p, panel);
        int64_t count = columns / a->inner, size = a->axis * a->inner;
        if (anex_panel_packed(p)) {
            ANEX_LOCAL(load)(slab, x, anex_kept_offset(a, task * p->gather), count * size);
            from_slabs(panel, slab, count, a->axis, a->inner, columns);
            return columns;
        }
        for (int64_t g = 0; g < count; g++) {
            int64_t base = anex_kept_offset(a, task * p->gather + g);
            for (int64_t s = 0; s < a->slabs; s++) {
                ANEX_LOCAL(load)(slab, x, base + anex_slab_offset(a, s), size);
                char *to = (char *)panel + 4 * (s * a->axis * columns + g * a->inner);
                from_slabs(to, slab, 1, a->axis, a->inner, columns);
            }
        }
        return columns;
    }
    int64_t base = anex_kept_offset(a, task / p->blocks) + task % p->blocks * p->width;
    char *to = panel;
    for (int64_t s = 0; s < a->slabs; s++) {
        int64_t at = base + anex_slab_offset(a, s);
        if (columns == a->inner) { /* the rows follow one another */
            ANEX_LOCAL(load)(to, x, at, a->axis * columns);
            to += 4 * a->axis * columns;
            continue;
        }
        for (int64_t r = 0; r < a->axis; r++, to += 4 * columns) ANEX_LOCAL(load)(to, x, at + r * a->inner, columns);
    }
    return columns;
}

void ANEX_LOCAL(panel_store)(const anex_panels *p, const anex_tensor *y, int64_t task, void *panel) {
    const anex_axes *a = &p->axes;
    int64_t columns = anex_panel_columns(p, task);
    if (p->gather > 1) {
        char *slab = slab_of(p, panel);
        int64_t count = columns / a->inner, size = a->axis * a->inner;
        if (anex_panel_packed(p)) {
            to_slabs(panel, slab, count, a->axis, a->inner, columns);
            ANEX_LOCAL(store)(y, anex_kept_offset(a, task * p->gather), slab, count * size);
            return;
        }
        for (int64_t g = 0; g < count; g++) {
            int64_t base = anex_kept_offset(a, task * p->gather + g);
            for (int64_t s = 0; s < a->slabs; s++) {
                const char *from = (char *)panel + 4 * (s * a->axis * columns + g * a->inner);
                to_slabs(from, slab, 1, a->axis, a->inner, columns);
                ANEX_LOCAL(store)(y, base + anex_slab_offset(a, s), slab, size);
            }
        }
        return;
    }
    int64_t base = anex_kept_offset(a, task / p->blocks) + task % p->blocks * p->width;
    const char *from = panel;
    for (int64_t s = 0; s < a->slabs; s++) {
        int64_t at = base + anex_slab_offset(a, s);
        if (columns == a->inner) {
            ANEX_LOCAL(store)(y, at, from, a->axis * columns);
            from += 4 * a->axis * columns;
            continue;
        }
        for (int64_t r = 0; r < a->axis; r++, from += 4 * columns)
            ANEX_LOCAL(store)(y, at + r * a->inner, from, columns);
    }
}
