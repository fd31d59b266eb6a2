/* String arguments: MIL's words for modes and the like, in any case, as coremltools takes them. */
#ifndef ANEX_TEXT_H
#define ANEX_TEXT_H

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

static inline char anex_lower(char c) { return c >= 'A' && c <= 'Z' ? (char)(c + 32) : c; }
static inline bool anex_text_is(const char *text, const char *word) {
    while (*text && anex_lower(*text) == *word) text++, word++;
    return !*text && !*word;
}
/* Where `text` is in a list of words, or -1. */
static inline int32_t anex_text_in(const char *text, const char *const *words, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        if (anex_text_is(text, words[i])) return i;
    return -1;
}

#endif
