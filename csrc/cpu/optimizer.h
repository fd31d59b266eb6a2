/* What the steps of an optimizer (step.c) ask of its arithmetic (optimizer.c, built once per instruction set). */
#ifndef ANEX_OPTIMIZER_H
#define ANEX_OPTIMIZER_H

#include "kernel.h"

/* An optimizer's numbers for one step and one parameter, as the loops use them. */
typedef struct anex_update {
    anex_rule rule;
    bool nesterov, starts; /* starts: a sum begins anew */
    float scale;           /* of the gradient */
    float rate;            /* of Adam: over the first moment's correction */
    float one, two, kept;  /* Adam: 1 - beta1, 1 - beta2, beta2; SGD: kept is the momentum */
    float root, epsilon;   /* 1 / sqrt of the second moment's correction */
    float keep, decay;     /* of the weight: a factor, or added to the gradient */
} anex_update;

/* Elements side by side; NULL where the rule has no such thing. */
typedef struct anex_elements {
    float *weight, *first, *second;
    void *copy; /* float16 */
    const void *gradient;
    anex_dtype gradient_dtype;
} anex_elements;

void ANEX_LOCAL(update)(const anex_update *update, const anex_elements *elements, int64_t n);
double ANEX_LOCAL(squares)(const anex_elements *elements, int64_t n);

#endif
