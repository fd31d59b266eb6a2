/* This build's kernels, joined to their MIL names by the rows of kernels.inc. */
#include "isa.h"

#define ANEX_KERNEL_ROW(name, dtypes, inputs) ANEX_KERNEL(name);
#include "kernels.inc"
#undef ANEX_KERNEL_ROW

static anex_kernel *const kernels[] = {
#define ANEX_KERNEL_ROW(name, dtypes, inputs) ANEX_LOCAL(kernel_##name),
#include "kernels.inc"
#undef ANEX_KERNEL_ROW
};

int64_t ANEX_LOCAL(multiply_add)(int64_t rounds, float *sink); /* peak.c */
void ANEX_LOCAL(widen_past)(float *y, const half *x, int64_t n); /* convert.c */
void ANEX_LOCAL(narrow_past)(half *y, const float *x, int64_t n);

#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
#define TABLE(name, dot)                                                                                        \
    {name, kernels, anex_widen, anex_narrow, ANEX_LOCAL(widen_past), ANEX_LOCAL(narrow_past),                   \
     ANEX_LOCAL(multiply_add), ANEX_LOCAL(update), ANEX_LOCAL(squares), dot}
extern const anex_isa ANEX_LOCAL(isa);
const anex_isa ANEX_LOCAL(isa) = TABLE(TEXT(ANEX_ISA), false);
#if defined(__AVX2__)
extern const anex_isa ANEX_LOCAL(isa_dot);
const anex_isa ANEX_LOCAL(isa_dot) = TABLE(TEXT(ANEX_ISA) "_vnni", true);
#elif defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC)
extern const anex_isa ANEX_LOCAL(isa_dot);
const anex_isa ANEX_LOCAL(isa_dot) = TABLE(TEXT(ANEX_ISA) "_dot", true);
#endif
