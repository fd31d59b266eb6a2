/* Which builds of the kernels this machine can run. */
#include "isa.h"

#include <stddef.h>
#include <string.h>

extern const anex_isa anex_isa_generic;
#if defined(__x86_64__)
extern const anex_isa anex_isa_avx2, anex_isa_avx512;

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#endif

int32_t anex_isa_list(const char **names, int32_t room) {
    int32_t n = 0;
#if defined(__x86_64__)
    if (has_avx512() && n < room) names[n++] = "avx512";
    if (has_avx2() && n < room) names[n++] = "avx2";
#endif
    if (n < room) names[n++] = "generic"; /* on arm64 this build has NEON and float16 conversion already */
    return n;
}

static const anex_isa *find(const char *name) {
    const char *names[4];
    int32_t n = anex_isa_list(names, 4);
    for (int32_t i = 0; i < n; i++) {
        if (name && strcmp(name, names[i])) continue;
#if defined(__x86_64__)
        if (!strcmp(names[i], "avx512")) return &anex_isa_avx512;
        if (!strcmp(names[i], "avx2")) return &anex_isa_avx2;
#endif
        return &anex_isa_generic;
    }
    return NULL;
}

const anex_isa *anex_isa_find(const char *name) {
    static _Atomic(const anex_isa *) best; /* asked for by every row that is converted */
    if (name) return find(name);
    if (!best) best = find(NULL);
    return best;
}

enum {
    F16 = 1 << ANEX_F16, F32 = 1 << ANEX_F32, I8 = 1 << ANEX_I8, U8 = 1 << ANEX_U8, I16 = 1 << ANEX_I16,
    U16 = 1 << ANEX_U16, I32 = 1 << ANEX_I32, U32 = 1 << ANEX_U32, BOOL = 1 << ANEX_BOOL,
    FLOAT = F16 | F32, INT = I8 | U8 | I16 | U16 | I32 | U32, NUMBER = FLOAT | INT, ANY = NUMBER | BOOL
};

const anex_kernel_info *anex_kernel_list(int32_t *count) {
    static const anex_kernel_info list[] = {
#define ANEX_KERNEL_ROW(name, dtypes, inputs) {#name, inputs, dtypes},
#include "kernels.inc"
#undef ANEX_KERNEL_ROW
    };
    *count = (int32_t)(sizeof list / sizeof *list);
    return list;
}
