/* The most arithmetic this build's instructions can do, for profiles to compare with. */
#include "kernel.h"
#include "simd.h"

enum { CHAINS = 12 }; /* independent, to fill two units of latency 4 to 5 and leave registers over */

int64_t ANEX_LOCAL(multiply_add)(int64_t rounds, float *sink);
int64_t ANEX_LOCAL(multiply_add)(int64_t rounds, float *sink) {
    vf sum[CHAINS], factor = vf_set(0.999f), step = vf_set(1e-3f);
    for (int32_t i = 0; i < CHAINS; i++) sum[i] = vf_set((float)i);
    for (int64_t r = 0; r < rounds; r++)
        for (int32_t i = 0; i < CHAINS; i++) sum[i] = vf_fma(sum[i], factor, step);
    for (int32_t i = 1; i < CHAINS; i++) sum[0] = vf_fma(sum[i], factor, sum[0]);
    float lanes[VF];
    vf_store(lanes, sum[0]);
    *sink = lanes[0]; /* so that no compiler leaves the loop out */
    return rounds * CHAINS * VF * 2;
}
