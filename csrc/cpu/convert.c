/* float16 to float32 and back, past the caches: for results that none of them would hold anyway, and whose memory is
   then not read only to be written over. */
#include "isa.h"
#include "kernel.h"
#include "simd.h"

void ANEX_LOCAL(widen_past)(float *y, const half *x, int64_t n);
void ANEX_LOCAL(narrow_past)(half *y, const float *x, int64_t n);

#if defined(__AVX2__) && defined(__F16C__)
static inline void stream(float *y, vf x) {
#if defined(__AVX512F__)
    _mm512_stream_ps(y, x);
#else
    _mm256_stream_ps(y, x);
#endif
}
static inline void stream_half(half *y, vf x) {
#if defined(__AVX512F__)
    _mm256_stream_si256((__m256i *)y, _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#else
    _mm_stream_si128((__m128i *)y, _mm256_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT));
#endif
}

/* Elements before the next whole line of memory: such stores want their addresses aligned. */
static int64_t before_line(const void *y, int64_t item, int64_t n) {
    enum { LINE = 64 };
    return anex_min(n, (int64_t)(-(uintptr_t)y % LINE) / item);
}

void ANEX_LOCAL(widen_past)(float *y, const half *x, int64_t n) {
    int64_t i = before_line(y, sizeof *y, n);
    anex_widen(y, x, i);
    for (; i + VF <= n; i += VF) stream(y + i, vf_load_half(x + i));
    _mm_sfence(); /* before anybody is told that it is there */
    anex_widen(y + i, x + i, n - i);
}

void ANEX_LOCAL(narrow_past)(half *y, const float *x, int64_t n) {
    int64_t i = before_line(y, sizeof *y, n);
    anex_narrow(y, x, i);
    for (; i + VF <= n; i += VF) stream_half(y + i, vf_load(x + i));
    _mm_sfence();
    anex_narrow(y + i, x + i, n - i);
}
#else
void ANEX_LOCAL(widen_past)(float *y, const half *x, int64_t n) { anex_widen(y, x, n); }
void ANEX_LOCAL(narrow_past)(half *y, const float *x, int64_t n) { anex_narrow(y, x, n); }
#endif
