/* What the framework answers to, against selectors.inc. */
#import "internal.h"

#import <objc/runtime.h>

#include <stdio.h>
#include <string.h>

static const struct row {
    const char *class_name;
    char kind;
    const char *name, *encoding;
    bool is_required;
} rows[] = {
#define ANEX_SELECTOR(class_name, kind, name, encoding, is_required) {class_name, kind, name, encoding, is_required},
#include "selectors.inc"
#undef ANEX_SELECTOR
};

enum { ROWS = sizeof rows / sizeof *rows };

int32_t anex_ane_selector_count(void) { return ROWS; }

/* ---- encodings --------------------------------------------------------------------------------------------- */

/* The next character that says a type: frame offsets and qualifiers are left out, and types that are one type under
   another name are made equal: BOOL is B or, on Linux, C; a long is q or, on Linux, l. */
static char next_type(const char **encoding) {
    char c;
    do c = *(*encoding)++;
    while (c && strchr("0123456789+-rnNoORV", c));
    switch (c) {
    case 'C': case 'c': return 'B';
    case 'l': return 'q';
    case 'L': return 'Q';
    case 0: (*encoding)--;
    }
    return c;
}

/* "{__IOSurface=}" and "{__IOSurface}" are the same opaque structure. */
static void skip_structure(const char **encoding) {
    while (**encoding && **encoding != '}') (*encoding)++;
}

static bool same_types(const char *expected, const char *found) {
    for (;;) {
        char a = next_type(&expected), b = next_type(&found);
        if (a != b) return false;
        if (!a) return true;
        if (a == '{') skip_structure(&expected), skip_structure(&found);
    }
}

/* ---- looking up -------------------------------------------------------------------------------------------- */

static Method find_method(const struct row *row, Class class) {
    SEL selector = sel_registerName(row->name);
    return row->kind == '+' ? class_getClassMethod(class, selector) : class_getInstanceMethod(class, selector);
}

anex_status anex_ane_get_selector(int32_t i, anex_ane_selector *selector, anex_error *error) {
    if (i < 0 || i >= ROWS || !selector)
        return anex_fail(error, ANEX_ARGUMENT, "selector %d is outside 0 to %d", i, ROWS - 1);
    const struct row *row = &rows[i];
    *selector = (anex_ane_selector){.class_name = row->class_name, .name = row->name, .kind = row->kind,
                                    .is_required = row->is_required, .expected = row->encoding};
    anex_status status = anex_ane_load_framework(error);
    if (status) return status;
    Class class = objc_getClass(row->class_name);
    selector->has_class = class != Nil;
    Method method = class ? find_method(row, class) : NULL;
    if (!method) return ANEX_OK;
    const char *encoding = method_getTypeEncoding(method);
    snprintf(selector->found, sizeof selector->found, "%s", encoding ? encoding : "");
    selector->fits = encoding && same_types(row->encoding, encoding);
    return ANEX_OK;
}

anex_status anex_ane_check_selectors(anex_error *error) {
    char missing[640] = "";
    size_t used = 0;
    int32_t n = 0;
    const char *last_class = NULL;
    for (int32_t i = 0; i < ROWS; i++) {
        if (!rows[i].is_required) continue;
        Class class = objc_getClass(rows[i].class_name);
        if (class && find_method(&rows[i], class)) continue;
        if (!class && last_class && !strcmp(last_class, rows[i].class_name)) continue; /* once per class */
        last_class = class ? NULL : rows[i].class_name;
        n++;
        if (used >= sizeof missing - 200) continue;
        used += (size_t)(class ? snprintf(missing + used, sizeof missing - used, "%s%c[%s %s]", used ? ", " : "",
                                          rows[i].kind, rows[i].class_name, rows[i].name)
                               : snprintf(missing + used, sizeof missing - used, "%sclass %s", used ? ", " : "",
                                          rows[i].class_name));
    }
    if (!n) return ANEX_OK;
    return anex_fail(error, ANEX_UNSUPPORTED,
                     "the Neural Engine's framework, %s, lacks what anex needs: %s; this system has another private "
                     "interface than anex knows: use device=\"cpu\", and report what `anex doctor` prints",
                     anex_ane.path, missing);
}
