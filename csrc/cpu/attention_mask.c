/* Masks of attention: which keys a row of one leaves, and what it adds to the scores of others. */
#include "attention.h"

void attention_widen_mask(float *to, const anex_tensor *mask, int64_t at, int64_t n) {
    if (mask->dtype != ANEX_BOOL) {
        gemm_widen(to, mask->data, mask->dtype, at, n);
        return;
    }
    const uint8_t *from = (const uint8_t *)mask->data + at;
    for (int64_t i = 0; i < n; i++) to[i] = from[i] ? 0 : -INFINITY;
}

/* Of `n` elements, eight bytes of which are `eight` when all of them are alike: how many at the start are, or at the
   end. Bytes that are no bool but true all the same end a run early, which costs time only. */
static int64_t run_ahead(const char *row, int64_t item, int64_t n, uint64_t eight) {
    const int64_t bytes = n * item;
    int64_t at = 0;
    for (uint64_t next; at + 8 <= bytes; at += 8) {
        memcpy(&next, row + at, sizeof next);
        if (next != eight) break;
    }
    while (at < bytes && !memcmp(row + at, &eight, (size_t)item)) at += item;
    return at / item;
}

static int64_t run_behind(const char *row, int64_t item, int64_t n, uint64_t eight) {
    int64_t end = n * item;
    for (uint64_t next; end >= 8; end -= 8) {
        memcpy(&next, row + end - 8, sizeof next);
        if (next != eight) break;
    }
    while (end > 0 && !memcmp(row + end - item, &eight, (size_t)item)) end -= item;
    return n - end / item;
}

attention_reach attention_reach_of(const anex_tensor *mask, int64_t at, int64_t n) {
    const bool is_bool = mask->dtype == ANEX_BOOL;
    const int64_t item = is_bool ? 1 : mask->dtype == ANEX_F16 ? 2 : 4;
    const uint64_t plain = is_bool ? 0x0101010101010101 : 0;
    const uint64_t hidden = is_bool ? 0 : mask->dtype == ANEX_F16 ? 0xfc00fc00fc00fc00 : 0xff800000ff800000;
    const char *row = (const char *)mask->data + at * item;
    const int64_t ahead = run_ahead(row, item, n, plain);
    const int64_t tail = run_behind(row + ahead * item, item, n - ahead, hidden);
    return (attention_reach){(int32_t)ahead, (int32_t)(n - tail)};
}
