/* One table per instruction set the kernels were built for. */
#ifndef ANEX_ISA_H
#define ANEX_ISA_H

#include "../half.h"
#include "optimizer.h"

typedef struct anex_isa {
    const char *name;
    anex_kernel *const *kernels; /* in the order of kernels.inc */
    void (*widen)(float *y, const half *x, int64_t n);
    void (*narrow)(half *y, const float *x, int64_t n);
    void (*widen_past)(float *y, const half *x, int64_t n); /* the same past the caches (convert.c) */
    void (*narrow_past)(half *y, const float *x, int64_t n);
    int64_t (*multiply_add)(int64_t rounds, float *sink); /* does as many FLOP as it returns */
    void (*update)(const anex_update *update, const anex_elements *elements, int64_t n);
    double (*squares)(const anex_elements *elements, int64_t n);
    bool dot; /* the same kernels, and an instruction for products of int8 (dot.h) */
} anex_isa;

/* The one named, or the best this machine has when `name` is NULL; NULL if it cannot run here. */
const anex_isa *anex_isa_find(const char *name);

/* Whether results of so many bytes are better written past the caches. */
bool anex_isa_past(int64_t bytes);

#endif
