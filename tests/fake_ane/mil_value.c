/* Types, and typed values: type(literal). */
#include "../../csrc/half.h"
#include "mil.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

static const mil_scalar scalars[] = {
    {"bool", 'b', 8, 0, ANEX_BOOL},   {"string", 's', 8, 0, ANEX_STRING}, {"fp16", 'f', 16, 1, ANEX_F16},
    {"fp32", 'f', 32, 2, ANEX_F32},   {"fp64", 'f', 64, 0, -1},           {"bf16", 'f', 16, 5, -1},
    {"int4", 'i', 4, 8, ANEX_I8},     {"int8", 'i', 8, 4, ANEX_I8},       {"int16", 'i', 16, 6, ANEX_I16},
    {"int32", 'i', 32, 14, ANEX_I32}, {"int64", 'i', 64, 0, ANEX_I32}, /* shapes and the like: held in 32 bits */
    {"uint1", 'u', 1, 9, ANEX_U8},    {"uint2", 'u', 2, 10, ANEX_U8},     {"uint3", 'u', 3, 12, ANEX_U8},
    {"uint4", 'u', 4, 11, ANEX_U8},   {"uint6", 'u', 6, 13, ANEX_U8},     {"uint8", 'u', 8, 3, ANEX_U8},
    {"uint16", 'u', 16, 7, ANEX_U16}, {"uint32", 'u', 32, 15, ANEX_U32},  {"uint64", 'u', 64, 0, ANEX_I32},
};

static const mil_scalar *find_scalar(const mil_parser *p) {
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++)
        if (mil_sees_word(p, scalars[i].name)) return &scalars[i];
    return NULL;
}

static bool sees_other(const mil_parser *p) {
    return mil_sees_word(p, "list") || mil_sees_word(p, "tuple") || mil_sees_word(p, "dict");
}

bool mil_is_type_word(const mil_parser *p) {
    return find_scalar(p) || mil_sees_word(p, "tensor") || mil_sees_word(p, "state") || sees_other(p);
}

/* ---- types ---------------------------------------------------------------------------------- */

static int64_t read_dimension(mil_parser *p) {
    if (mil_accept(p, '?')) return -1;
    char *end = NULL;
    errno = 0;
    long long n = p->token.kind == MIL_NUMBER ? strtoll(p->token.start, &end, 10) : -1;
    if (end != p->token.start + p->token.length || errno || n < 0)
        mil_fail(p, "expected a dimension, found %s", mil_shown(p));
    mil_next(p);
    return n;
}

static const mil_scalar *read_scalar(mil_parser *p) {
    const mil_scalar *scalar = find_scalar(p);
    if (!scalar) mil_fail(p, "%s is no type", mil_shown(p));
    mil_next(p);
    return scalar;
}

static void read_tensor_type(mil_parser *p, mil_type *type) {
    mil_next(p);
    mil_expect(p, '<');
    type->scalar = read_scalar(p);
    mil_expect(p, ',');
    mil_expect(p, '[');
    while (!p->failed && !mil_sees(p, ']')) {
        if (type->rank) mil_expect(p, ',');
        int64_t dimension = read_dimension(p);
        if (type->rank == ANEX_MAX_RANK)
            mil_fail(p, "a tensor of more than %d axes", ANEX_MAX_RANK);
        else
            type->shape[type->rank++] = dimension;
    }
    mil_expect(p, ']');
    mil_expect(p, '>');
}

mil_type mil_read_type(mil_parser *p) {
    mil_type type = {.kind = MIL_TENSOR, .scalar = scalars};
    if (++p->depth > MIL_MAX_DEPTH) mil_fail(p, "types nested more than %d deep", MIL_MAX_DEPTH);
    if (mil_sees_word(p, "tensor")) {
        read_tensor_type(p, &type);
    } else if (mil_sees_word(p, "state")) {
        mil_next(p);
        mil_expect(p, '<');
        type = mil_read_type(p);
        if (type.kind != MIL_TENSOR) mil_fail(p, "a state of something that is no tensor");
        type.kind = MIL_STATE;
        mil_expect(p, '>');
    } else if (sees_other(p)) { /* read for its form only: no op takes one */
        mil_next(p);
        mil_expect(p, '<');
        do {
            if (mil_sees(p, '?') || p->token.kind == MIL_NUMBER)
                read_dimension(p);
            else
                mil_read_type(p);
        } while (mil_accept(p, ','));
        mil_expect(p, '>');
        type = (mil_type){.kind = MIL_OTHER, .scalar = scalars};
    } else {
        const mil_scalar *scalar = read_scalar(p);
        if (scalar) type.scalar = scalar;
    }
    p->depth--;
    return type;
}

void mil_tensor_of(mil_parser *p, const mil_type *type, const char *of, anex_tensor *tensor) {
    memset(tensor, 0, sizeof *tensor);
    if (p->failed) return;
    if (type->scalar->dtype < 0) {
        mil_fail(p, "'%.200s' is %s, which this machine does not compute in", of, type->scalar->name);
        return;
    }
    for (int32_t i = 0; i < type->rank; i++)
        if (type->shape[i] < 0) {
            mil_fail(p, "axis %d of '%.200s' has no fixed size", i, of);
            return;
        }
    anex_error error = {""};
    if (anex_tensor_init(tensor, (anex_dtype)type->scalar->dtype, type->rank, type->shape, 0, &error))
        mil_fail(p, "'%.200s': %s", of, error.text);
}

/* ---- literals ------------------------------------------------------------------------------- */

/* To fp16 in one rounding, however many digits the text had. */
static half half_of(double value) {
    if (!isfinite(value) || value == 0) return anex_float_to_half((float)value);
    int exponent;
    frexp(value, &exponent);
    double quantum = ldexp(1, exponent - 11 < -24 ? -24 : exponent - 11);
    return anex_float_to_half((float)(rint(value / quantum) * quantum));
}

static bool read_float(mil_parser *p, double *value) {
    char *end = NULL;
    if (mil_sees_word(p, "inf") || mil_sees_word(p, "nan") || p->token.kind == MIL_NUMBER)
        *value = strtod(p->token.start, &end);
    return end == p->token.start + p->token.length;
}

/* Whether the token is an integer that fits. */
static bool read_integer(mil_parser *p, const mil_scalar *scalar, int64_t *value) {
    if (p->token.kind != MIL_NUMBER) return false;
    char *end = NULL;
    errno = 0;
    *value = strtoll(p->token.start, &end, 10);
    if (end != p->token.start + p->token.length || errno) return false;
    int32_t bits = scalar->bits < 32 ? scalar->bits : 32;
    bool is_signed = scalar->dtype == ANEX_I8 || scalar->dtype == ANEX_I16 || scalar->dtype == ANEX_I32;
    int64_t lowest = is_signed ? -((int64_t)1 << (bits - 1)) : 0;
    int64_t highest = ((int64_t)1 << (is_signed ? bits - 1 : bits)) - 1;
    return *value >= lowest && *value <= highest;
}

static void read_item(mil_parser *p, const mil_scalar *scalar, anex_tensor *tensor, int64_t i) {
    double real = 0;
    int64_t integer = 0;
    bool fits = !p->failed;
    if (scalar->kind == 'b') {
        integer = mil_sees_word(p, "true");
        fits = fits && (integer || mil_sees_word(p, "false"));
    } else if (scalar->kind == 'f') {
        fits = fits && read_float(p, &real);
    } else {
        fits = fits && read_integer(p, scalar, &integer);
    }
    if (!fits) {
        mil_fail(p, "%s is no value of type %s", mil_shown(p), scalar->name);
        return;
    }
    switch (tensor->dtype) {
    case ANEX_F16: ((half *)tensor->data)[i] = half_of(real); break;
    case ANEX_F32: ((float *)tensor->data)[i] = (float)real; break;
    case ANEX_I16:
    case ANEX_U16: ((uint16_t *)tensor->data)[i] = (uint16_t)integer; break;
    case ANEX_I32:
    case ANEX_U32: ((uint32_t *)tensor->data)[i] = (uint32_t)integer; break;
    default: ((uint8_t *)tensor->data)[i] = (uint8_t)integer;
    }
    mil_next(p);
}

/* One pair of brackets for each axis, from `axis` on */
static void read_items(mil_parser *p, const mil_scalar *scalar, anex_tensor *tensor, int32_t axis, int64_t *i) {
    if (axis == tensor->rank) {
        read_item(p, scalar, tensor, (*i)++);
        return;
    }
    mil_expect(p, '[');
    for (int64_t k = 0; k < tensor->shape[axis] && !p->failed; k++) {
        if (k) mil_expect(p, ',');
        read_items(p, scalar, tensor, axis + 1, i);
    }
    mil_expect(p, ']');
}

/* path = string("..."), offset = uint64(64) */
static void read_blob(mil_parser *p, const mil_scalar *scalar, anex_tensor *tensor) {
    char *path = NULL, *end = NULL;
    unsigned long long offset = 0;
    bool has_offset = false;
    mil_next(p);
    mil_expect(p, '(');
    do {
        char *key = mil_word(p);
        mil_expect(p, '=');
        mil_type type = mil_read_type(p);
        mil_expect(p, '(');
        if (type.kind == MIL_TENSOR && !type.rank && type.scalar->kind == 's' && !strcmp(key, "path")) {
            path = mil_text(p);
        } else if (type.kind == MIL_TENSOR && !type.rank && type.scalar->kind == 'u' && !strcmp(key, "offset")) {
            errno = 0;
            offset = p->token.kind == MIL_NUMBER && *p->token.start != '-' ? strtoull(p->token.start, &end, 10) : 0;
            if (end != p->token.start + p->token.length || errno)
                mil_fail(p, "expected an offset, found %s", mil_shown(p));
            mil_next(p);
            has_offset = true;
        } else {
            mil_fail(p, "BLOBFILE has a path (string) and an offset (uint64), no '%.200s' of this type", key);
        }
        mil_expect(p, ')');
    } while (mil_accept(p, ','));
    mil_expect(p, ')');
    if (!p->failed && (!path || !has_offset)) mil_fail(p, "BLOBFILE needs a path and an offset");
    if (!p->failed) mil_read_blob(p, path, offset, scalar, tensor);
}

/* Brackets of any kind around items: of a list, tuple or dict, read for its form only */
static void skip_literal(mil_parser *p) {
    if (++p->depth > MIL_MAX_DEPTH) mil_fail(p, "literals nested more than %d deep", MIL_MAX_DEPTH);
    char close = mil_sees(p, '(') ? ')' : mil_sees(p, '[') ? ']' : mil_sees(p, '{') ? '}' : 0;
    if (!close && (p->token.kind == MIL_END || p->token.kind == MIL_SIGN || p->token.kind == MIL_ARROW))
        mil_fail(p, "expected a literal, found %s", mil_shown(p));
    mil_next(p);
    if (close && !mil_accept(p, close)) {
        do skip_literal(p);
        while (mil_accept(p, ','));
        mil_expect(p, close);
    }
    p->depth--;
}

static void read_string(mil_parser *p, anex_tensor *tensor) {
    char *text = mil_text(p);
    if (p->failed) return;
    int64_t bytes = (int64_t)strlen(text) + 1;
    anex_tensor_init(tensor, ANEX_STRING, 1, &bytes, 0, NULL);
    tensor->data = text;
}

mil_value *mil_read_value(mil_parser *p) {
    mil_value *value = mil_new(p, sizeof *value);
    mil_type type = mil_read_type(p);
    mil_expect(p, '(');
    if (p->failed) return NULL;
    value->index = -1;
    anex_tensor *tensor = &value->tensor;
    if (type.kind == MIL_OTHER) {
        value->is_opaque = true;
        do {
            if (!mil_sees(p, ')')) skip_literal(p);
        } while (mil_accept(p, ','));
    } else if (type.kind == MIL_STATE) {
        mil_fail(p, "a state has no literal");
    } else if (type.scalar->kind == 's') {
        if (type.rank) {
            value->is_opaque = true;
            skip_literal(p);
        } else {
            read_string(p, tensor);
        }
    } else {
        mil_tensor_of(p, &type, "a value", tensor);
        if (p->failed) return NULL;
        if (mil_sees_word(p, "BLOBFILE")) {
            read_blob(p, type.scalar, tensor);
        } else if (anex_tensor_size(tensor) > p->end - p->token.start) { /* each element takes a byte of text */
            mil_fail(p, "a literal with fewer elements than its type has");
        } else {
            int64_t i = 0;
            tensor->data = mil_new(p, (size_t)anex_tensor_nbytes(tensor));
            read_items(p, type.scalar, tensor, 0, &i);
        }
    }
    mil_expect(p, ')');
    return p->failed ? NULL : value;
}
