/* Which builds of the kernels this machine can run. */
#include "isa.h"

#include <stddef.h>
#include <string.h>

#if defined(__linux__) && defined(__aarch64__)
#include <sys/auxv.h>
#elif defined(__x86_64__)
#include <cpuid.h>
#endif

enum { MOST_SETS = 5 };
extern const anex_isa anex_isa_generic;
#if defined(__x86_64__)
extern const anex_isa anex_isa_avx2, anex_isa_avx512, anex_isa_dot_avx2, anex_isa_dot_avx512;

static bool has_avx2(void) {
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
}
static bool has_avx512(void) {
    return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
/* AVX-VNNI, which compilers have learnt to ask for only lately */
static bool has_avx_vnni(void) {
    unsigned a, b, c, d;
    return has_avx2() && __get_cpuid_count(7, 1, &a, &b, &c, &d) && a >> 4 & 1;
}
#elif defined(__aarch64__)
extern const anex_isa anex_isa_neon, anex_isa_dot_neon;

/* float16 arithmetic; vectors of float and the conversions are in the generic build of arm64 already */
static bool has_neon(void) {
#if defined(__APPLE__)
    return true; /* since the first of its processors */
#elif defined(__linux__)
    const unsigned long fphp = 1 << 9, asimdhp = 1 << 10; /* HWCAP_FPHP, HWCAP_ASIMDHP */
    return (getauxval(AT_HWCAP) & (fphp | asimdhp)) == (fphp | asimdhp);
#else
    return false;
#endif
}
static bool has_dot(void) {
#if defined(__linux__)
    return has_neon() && getauxval(AT_HWCAP) >> 20 & 1; /* HWCAP_ASIMDDP */
#else
    return has_neon();
#endif
}
#endif

/* The best first. */
static int32_t usable(const anex_isa **sets) {
    int32_t n = 0;
#if defined(__x86_64__)
    if (has_avx512() && __builtin_cpu_supports("avx512vnni")) sets[n++] = &anex_isa_dot_avx512;
    if (has_avx512()) sets[n++] = &anex_isa_avx512;
    if (has_avx_vnni()) sets[n++] = &anex_isa_dot_avx2;
    if (has_avx2()) sets[n++] = &anex_isa_avx2;
#elif defined(__aarch64__)
    if (has_dot()) sets[n++] = &anex_isa_dot_neon;
    if (has_neon()) sets[n++] = &anex_isa_neon;
#endif
    sets[n++] = &anex_isa_generic;
    return n;
}

int32_t anex_isa_list(const char **names, int32_t room) {
    const anex_isa *sets[MOST_SETS];
    int32_t n = usable(sets);
    if (n > room) n = room;
    for (int32_t i = 0; i < n; i++) names[i] = sets[i]->name;
    return n;
}

static const anex_isa *find(const char *name) {
    const anex_isa *sets[MOST_SETS];
    int32_t n = usable(sets);
    for (int32_t i = 0; i < n; i++)
        if (!name || !strcmp(name, sets[i]->name)) return sets[i];
    return NULL;
}

const anex_isa *anex_isa_find(const char *name) {
    static _Atomic(const anex_isa *) best; /* asked for by every row that is converted */
    if (name) return find(name);
    if (!best) best = find(NULL);
    return best;
}

/* No cache holds them. Of the processors measured AMD's Zen 5 gains a quarter by it, Intel's Cascade Lake loses a tenth. */
bool anex_isa_past(int64_t bytes) {
#if defined(__x86_64__)
    const int64_t least = (int64_t)32 << 20;
    return bytes >= least && __builtin_cpu_is("amd");
#else
    (void)bytes;
    return false;
#endif
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
