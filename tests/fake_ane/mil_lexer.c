/* MIL text as tokens, the first failure, and the arena. */
#include "mil.h"

#include <ctype.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct mil_memory {
    mil_memory *next;
    char pad[ANEX_ALIGNMENT - sizeof(mil_memory *)];
    char data[];
};

void mil_fail(mil_parser *p, const char *format, ...) {
    if (p->failed) return; /* what comes after the first is its consequence */
    p->failed = true;
    p->token = (mil_token){.kind = MIL_END, .start = "", .line = p->token.line};
    p->at = p->end;
    if (!p->room) return;
    int n = snprintf(p->error, p->room, "line %d: ", (int)p->token.line);
    if (n < 0 || (size_t)n >= p->room) return;
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(p->error + n, p->room - (size_t)n, format, arguments);
    va_end(arguments);
}

void *mil_new(mil_parser *p, size_t bytes) {
    if (p->failed) return NULL;
    size_t all = (sizeof(mil_memory) + bytes + ANEX_ALIGNMENT - 1) / ANEX_ALIGNMENT * ANEX_ALIGNMENT;
    mil_memory *memory = all > bytes ? aligned_alloc(ANEX_ALIGNMENT, all) : NULL;
    if (!memory) {
        mil_fail(p, "no memory for %zu bytes", bytes);
        return NULL;
    }
    memset(memory, 0, all);
    memory->next = p->program->memory;
    p->program->memory = memory;
    return memory->data;
}

void mil_memory_free(mil_memory *memory) {
    while (memory) {
        mil_memory *next = memory->next;
        free(memory);
        memory = next;
    }
}

/* ---- tokens --------------------------------------------------------------------------------- */

static bool is_word(char c) { return isalnum((unsigned char)c) || c == '_' || c == '@'; }

/* "-1", "0x1.8p-3", "1.5e+3", "-inf": a sign only at the start or after the letter of the exponent */
static const char *number_end(const char *at, const char *end) {
    const char *digits = at + (*at == '-');
    bool is_hex = end - digits > 1 && digits[0] == '0' && (digits[1] == 'x' || digits[1] == 'X');
    for (at = digits; at < end; at++) {
        bool is_exponent = at > digits && strchr(is_hex ? "pP" : "eE", at[-1]);
        if (!isalnum((unsigned char)*at) && *at != '.' && !(is_exponent && (*at == '+' || *at == '-'))) break;
    }
    return at;
}

static void skip_space(mil_parser *p) {
    for (; p->at < p->end && strchr(" \t\r\n", *p->at) && *p->at; p->at++) p->line += *p->at == '\n';
}

void mil_next(mil_parser *p) {
    if (p->failed) return;
    skip_space(p);
    const char *start = p->at, *end = p->end;
    p->token = (mil_token){.kind = MIL_END, .start = start, .line = p->line};
    if (start == end) return;
    char c = *start;
    if (c == '"') {
        const char *at = start + 1;
        for (; at < end && *at != '"'; at++) {
            p->line += *at == '\n';
            if (*at == '\\' && at + 1 < end) at++;
        }
        if (at == end) {
            mil_fail(p, "a string that begins here has no closing quote");
            return;
        }
        p->token.kind = MIL_TEXT, p->token.start = start + 1, p->token.length = (size_t)(at - start - 1);
        p->at = at + 1;
        return;
    }
    if (isalpha((unsigned char)c) || c == '_') {
        while (p->at < end && is_word(*p->at)) p->at++;
        p->token.kind = MIL_WORD;
    } else if (c == '-' && end - start > 1 && start[1] == '>') {
        p->at += 2;
        p->token.kind = MIL_ARROW;
    } else if (isdigit((unsigned char)c) || (c == '-' && end - start > 1 && isalnum((unsigned char)start[1]))) {
        p->at = number_end(start, end);
        p->token.kind = MIL_NUMBER;
    } else if (c && strchr("()[]{}<>,;=?", c)) {
        p->at++;
        p->token.kind = MIL_SIGN;
    } else {
        mil_fail(p, "byte 0x%02x begins nothing that MIL text has", (unsigned char)c);
        return;
    }
    p->token.length = (size_t)(p->at - start);
}

const char *mil_shown(const mil_parser *p) {
    static _Thread_local char text[64];
    if (p->token.kind == MIL_END) return "the end of the text";
    snprintf(text, sizeof text, "'%.*s'", p->token.length < 60 ? (int)p->token.length : 60, p->token.start);
    return text;
}

bool mil_sees(const mil_parser *p, char sign) { return p->token.kind == MIL_SIGN && *p->token.start == sign; }

bool mil_sees_word(const mil_parser *p, const char *word) {
    return p->token.kind == MIL_WORD && p->token.length == strlen(word) &&
           !memcmp(p->token.start, word, p->token.length);
}

bool mil_accept(mil_parser *p, char sign) {
    if (!mil_sees(p, sign)) return false;
    mil_next(p);
    return true;
}

void mil_expect(mil_parser *p, char sign) {
    if (!mil_accept(p, sign)) mil_fail(p, "expected '%c', found %s", sign, mil_shown(p));
}

void mil_expect_word(mil_parser *p, const char *word) {
    if (!mil_sees_word(p, word)) mil_fail(p, "expected '%s', found %s", word, mil_shown(p));
    mil_next(p);
}

char *mil_word(mil_parser *p) {
    static char nothing[1];
    if (p->token.kind != MIL_WORD) mil_fail(p, "expected a name, found %s", mil_shown(p));
    char *word = mil_new(p, p->token.length + 1);
    if (!word) return nothing;
    memcpy(word, p->token.start, p->token.length);
    mil_next(p);
    return word;
}

char *mil_text(mil_parser *p) {
    static char nothing[1];
    if (p->token.kind != MIL_TEXT) mil_fail(p, "expected a string, found %s", mil_shown(p));
    char *text = mil_new(p, p->token.length + 1), *to = text;
    if (!text) return nothing;
    for (size_t i = 0; i < p->token.length; i++) {
        if (p->token.start[i] == '\\' && i + 1 < p->token.length) i++;
        *to++ = p->token.start[i];
    }
    mil_next(p);
    return text;
}
