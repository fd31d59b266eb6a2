/* A tensor seen along some of its axes: at every position of the other axes, `n` elements.

   Neighbouring axes of the same sort are merged. Either the last group of axes is kept, then `inner`
   positions lie side by side and loops run over them, or it is chosen, then `inner` is 1 and loops
   run along it. Ops that want many positions at once load a panel [n, columns] of 4-byte elements. */
#ifndef ANEX_AXES_H
#define ANEX_AXES_H

#include "../half.h"
#include "kernel.h"

typedef struct anex_axes {
    int64_t outer;    /* positions of the kept axes, `inner` left out */
    int64_t slabs;    /* n = slabs * axis */
    int64_t axis;     /* the last chosen group: its elements are `inner` apart */
    int64_t inner;
    int64_t n;
    int32_t n_kept, n_chosen; /* the groups further out, the last one first */
    int64_t kept[ANEX_MAX_RANK], kept_step[ANEX_MAX_RANK], chosen[ANEX_MAX_RANK], chosen_step[ANEX_MAX_RANK];
} anex_axes;

/* Bit i of `mask`: axis i is chosen. */
anex_axes ANEX_LOCAL(axes_of)(const anex_tensor *x, uint32_t mask);
/* One axis, unmerged: [outer, axis, inner]. */
anex_axes ANEX_LOCAL(axes_along)(const anex_tensor *x, int32_t axis);
/* The axes a constant lists; all of them when it is left out. */
anex_status ANEX_LOCAL(axes_mask)(const anex_node *node, const anex_tensor *axes, int32_t rank, uint32_t *mask,
                                  anex_error *error);
/* A constant axis in 0 .. rank - 1. */
anex_status ANEX_LOCAL(axis_read)(const anex_node *node, const anex_tensor *axis, int32_t otherwise, int32_t rank,
                                  int32_t *number, anex_error *error);

static inline int64_t anex_groups_offset(int32_t groups, const int64_t *extent, const int64_t *step, int64_t index) {
    int64_t offset = 0;
    for (int32_t i = 0; i < groups; i++) {
        offset += index % extent[i] * step[i];
        index /= extent[i];
    }
    return offset;
}
static inline int64_t anex_kept_offset(const anex_axes *a, int64_t outer) {
    return anex_groups_offset(a->n_kept, a->kept, a->kept_step, outer);
}
static inline int64_t anex_slab_offset(const anex_axes *a, int64_t slab) {
    return anex_groups_offset(a->n_chosen, a->chosen, a->chosen_step, slab);
}

/* ---- elements as 4 bytes: floats become float, integers int32 ------------------------------- */

void ANEX_LOCAL(load)(void *to, const anex_tensor *x, int64_t at, int64_t n);
void ANEX_LOCAL(store)(const anex_tensor *y, int64_t at, const void *from, int64_t n);

/* ---- panels --------------------------------------------------------------------------------- */

/* Shorter rows than this are done many at once, as columns. */
#define ANEX_SHORT_ROW 32

typedef struct anex_panels {
    anex_axes axes;
    int64_t gather; /* positions outside `inner` put side by side in one panel */
    int64_t width;  /* columns of a full panel: a block of `inner`, or gather * inner */
    int64_t blocks; /* panels along `inner` */
    int64_t tasks;
    size_t scratch; /* bytes of a panel and of what loading one needs */
} anex_panels;

anex_panels ANEX_LOCAL(panels_of)(anex_axes axes);
/* Fill the panel [n, columns]; returns its columns. */
int64_t ANEX_LOCAL(panel_load)(const anex_panels *p, const anex_tensor *x, int64_t task, void *panel);
void ANEX_LOCAL(panel_store)(const anex_panels *p, const anex_tensor *y, int64_t task, void *panel);
static inline int64_t anex_panel_columns(const anex_panels *p, int64_t task) {
    if (p->gather > 1) return anex_min(p->gather, p->axes.outer - task * p->gather) * p->axes.inner;
    return anex_min(p->width, p->axes.inner - task % p->blocks * p->width);
}
/* Position (outer * inner + its place in inner) of the first column; the others follow it. */
static inline int64_t anex_panel_position(const anex_panels *p, int64_t task) {
    if (p->gather > 1) return task * p->gather * p->axes.inner;
    return task / p->blocks * p->axes.inner + task % p->blocks * p->width;
}
/* Whether the positions gathered in a panel follow one another in memory, elements and all. */
static inline bool anex_panel_packed(const anex_panels *p) { return p->axes.slabs == 1 && p->axes.n_kept <= 1; }
/* Whether the op is better done row by row: the elements are contiguous and enough to run along. */
static inline bool anex_by_rows(const anex_axes *a) {
    return a->inner == 1 && (a->axis >= ANEX_SHORT_ROW || a->outer < 8);
}

/* ---- sums of float: fixed partial sums, so that they vectorise and stay accurate ------------ */

#define ANEX_LANES 64

/* Fold the lanes into lane[0] in pairs; known loops are straight code. */
#define ANEX_FOLD_LANES(fold)                                    \
    do {                                                         \
        for (int32_t j = 0; j < 32; j++) fold(lane[j], lane[j + 32]); \
        for (int32_t j = 0; j < 16; j++) fold(lane[j], lane[j + 16]); \
        for (int32_t j = 0; j < 8; j++) fold(lane[j], lane[j + 8]);   \
        for (int32_t j = 0; j < 4; j++) fold(lane[j], lane[j + 4]);   \
        fold(lane[0], lane[2]);                                  \
        fold(lane[1], lane[3]);                                  \
        fold(lane[0], lane[1]);                                  \
    } while (0)
#define ANEX_ADD(a, b) (a) += (b)
#define ANEX_GREATEST(a, b) (a) = anex_greater(a, b)

static inline float anex_row_sum(const float *restrict x, int64_t n) {
    float lane[ANEX_LANES] = {0};
    int64_t i = 0;
    for (; i + ANEX_LANES <= n; i += ANEX_LANES)
        for (int32_t j = 0; j < ANEX_LANES; j++) lane[j] += x[i + j];
    for (int32_t j = 0; i + j < n; j++) lane[j] += x[i + j];
    ANEX_FOLD_LANES(ANEX_ADD);
    return lane[0];
}

/* sum of (x - mean)^2 */
static inline float anex_row_square(const float *restrict x, int64_t n, float mean) {
    float lane[ANEX_LANES] = {0};
    int64_t i = 0;
    for (; i + ANEX_LANES <= n; i += ANEX_LANES)
        for (int32_t j = 0; j < ANEX_LANES; j++) lane[j] += (x[i + j] - mean) * (x[i + j] - mean);
    for (int32_t j = 0; i + j < n; j++) lane[j] += (x[i + j] - mean) * (x[i + j] - mean);
    ANEX_FOLD_LANES(ANEX_ADD);
    return lane[0];
}

/* NaN wins, as in numpy */
static inline float anex_greater(float a, float b) { return b > a || b != b ? b : a; }

static inline float anex_row_max(const float *restrict x, int64_t n) {
    float lane[ANEX_LANES];
    for (int32_t j = 0; j < ANEX_LANES; j++) lane[j] = -__builtin_inff();
    int64_t i = 0;
    for (; i + ANEX_LANES <= n; i += ANEX_LANES)
        for (int32_t j = 0; j < ANEX_LANES; j++) lane[j] = anex_greater(lane[j], x[i + j]);
    for (int32_t j = 0; i + j < n; j++) lane[j] = anex_greater(lane[j], x[i + j]);
    ANEX_FOLD_LANES(ANEX_GREATEST);
    return lane[0];
}

#endif
