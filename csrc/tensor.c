/* Tensors of no device in particular: layout, counted memory, strided copies, errors. */
#define _POSIX_C_SOURCE 200112L
#include "anex.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu/isa.h"
#include "cpu/team.h"

const anex_dtype_info anex_dtypes[ANEX_DTYPE_COUNT] = {
#define ANEX_DTYPE(name, numpy, format, bits, dlpack) {numpy, format, bits, dlpack},
#include "dtypes.inc"
#undef ANEX_DTYPE
};

anex_status anex_fail(anex_error *error, anex_status status, const char *format, ...) {
    if (error) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
    }
    return status;
}

const char *anex_status_exception(anex_status status) {
    static const char *const names[] = {
        "Error",
#define ANEX_STATUS(name, exception, text) exception,
#include "status.inc"
#undef ANEX_STATUS
    };
    return status < ANEX_STATUS_COUNT ? names[status] : names[0];
}

/* ---- layout --------------------------------------------------------------------------------- */

anex_status anex_tensor_init(anex_tensor *tensor, anex_dtype dtype, int32_t rank, const int64_t *shape,
                             int64_t row_alignment, anex_error *error) {
    const int64_t limit = (int64_t)1 << 46;
    int32_t bits = anex_dtypes[dtype].bits;
    *tensor = (anex_tensor){.dtype = dtype, .rank = rank};
    if (rank < 0 || rank > ANEX_MAX_RANK)
        return anex_fail(error, ANEX_SHAPE, "rank %d is outside 0 to %d", rank, ANEX_MAX_RANK);
    int64_t stride = bits < 8 ? 1 : bits / 8; /* 4-bit tensors have no true strides: they are a bit stream */
    for (int32_t i = rank - 1; i >= 0; i--) {
        if (shape[i] < 0)
            return anex_fail(error, ANEX_SHAPE, "dimension %d is %lld, which is no size", i, (long long)shape[i]);
        if (shape[i] > limit / stride) return anex_fail(error, ANEX_SHAPE, "a tensor of more than 2^46 bytes");
        tensor->shape[i] = shape[i];
        tensor->strides[i] = stride;
        stride *= shape[i] ? shape[i] : 1; /* as numpy has it: nothing to step over, but no step of 0 */
        if (i == rank - 1 && row_alignment && bits >= 8 && rank > 1)
            stride = (stride + row_alignment - 1) / row_alignment * row_alignment;
    }
    return ANEX_OK;
}

int64_t anex_tensor_size(const anex_tensor *tensor) {
    int64_t n = 1;
    for (int32_t i = 0; i < tensor->rank; i++) n *= tensor->shape[i];
    return n;
}

int64_t anex_tensor_nbytes(const anex_tensor *tensor) {
    return (anex_tensor_size(tensor) * anex_dtypes[tensor->dtype].bits + 7) / 8;
}

int64_t anex_tensor_extent(const anex_tensor *tensor) {
    int32_t bits = anex_dtypes[tensor->dtype].bits;
    if (bits < 8 || !anex_tensor_size(tensor)) return anex_tensor_nbytes(tensor);
    int64_t last = 0;
    for (int32_t i = 0; i < tensor->rank; i++) {
        int64_t step = tensor->strides[i] < 0 ? -tensor->strides[i] : tensor->strides[i];
        last += (tensor->shape[i] - 1) * step;
    }
    return last + bits / 8;
}

bool anex_tensor_is_packed(const anex_tensor *tensor) {
    int32_t bits = anex_dtypes[tensor->dtype].bits;
    if (bits < 8 || !anex_tensor_size(tensor)) return true;
    int64_t stride = bits / 8;
    for (int32_t i = tensor->rank - 1; i >= 0; i--) {
        if (tensor->shape[i] != 1 && tensor->strides[i] != stride) return false;
        stride *= tensor->shape[i];
    }
    return true;
}

/* ---- copying -------------------------------------------------------------------------------- */

/* `past`: the row is part of more than any cache holds, and may be written past them */
typedef void copy_row(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t n, bool past);

#define COPY_ROW(bits)                                                                                      \
    static void copy_row_##bits(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t n,   \
                                bool past) {                                                                \
        (void)past;                                                                                         \
        if (to_step == bits / 8 && from_step == bits / 8) {                                                 \
            memmove(to, from, (size_t)n * (bits / 8));                                                      \
            return;                                                                                         \
        }                                                                                                   \
        for (int64_t i = 0; i < n; i++) memcpy(to + i * to_step, from + i * from_step, bits / 8);           \
    }
COPY_ROW(8)
COPY_ROW(16)
COPY_ROW(32)

/* Strided rows go through a small buffer, so that one conversion loop serves them all. */
enum { CONVERT = 256 };

static bool contiguous(const char *p, int64_t step, int64_t bytes) {
    return step == bytes && (uintptr_t)p % (uintptr_t)bytes == 0;
}

static void widen_row(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t n, bool past) {
    if (contiguous(to, to_step, 4) && contiguous(from, from_step, 2)) {
        const anex_isa *isa = anex_isa_find(NULL);
        (past ? isa->widen_past : isa->widen)((float *)(void *)to, (const half *)(const void *)from, n);
        return;
    }
    half narrow[CONVERT];
    float wide[CONVERT];
    for (int64_t i = 0; i < n; i += CONVERT) {
        int64_t m = n - i < CONVERT ? n - i : CONVERT;
        copy_row_16((char *)narrow, 2, from + i * from_step, from_step, m, false);
        anex_widen(wide, narrow, m);
        copy_row_32(to + i * to_step, to_step, (const char *)wide, 4, m, false);
    }
}

static void narrow_row(char *to, int64_t to_step, const char *from, int64_t from_step, int64_t n, bool past) {
    if (contiguous(to, to_step, 2) && contiguous(from, from_step, 4)) {
        const anex_isa *isa = anex_isa_find(NULL);
        (past ? isa->narrow_past : isa->narrow)((half *)(void *)to, (const float *)(const void *)from, n);
        return;
    }
    half narrow[CONVERT];
    float wide[CONVERT];
    for (int64_t i = 0; i < n; i += CONVERT) {
        int64_t m = n - i < CONVERT ? n - i : CONVERT;
        copy_row_32((char *)wide, 4, from + i * from_step, from_step, m, false);
        anex_narrow(narrow, wide, m);
        copy_row_16(to + i * to_step, to_step, (const char *)narrow, 2, m, false);
    }
}

static copy_row *choose_row(anex_dtype to, anex_dtype from) {
    if (to == ANEX_F32 && from == ANEX_F16) return widen_row;
    if (to == ANEX_F16 && from == ANEX_F32) return narrow_row;
    if (to != from) return NULL;
    return anex_dtypes[to].bits == 8 ? copy_row_8 : anex_dtypes[to].bits == 16 ? copy_row_16 : copy_row_32;
}

/* A long run of packed elements, cut for the threads of the engine: each also touches its part of new pages first. */
enum { LONG_RUN = 1 << 21, LEAST_CHUNK = 1 << 15, MOST_CHUNK = 1 << 20 }; /* bytes read and written; elements */
typedef struct long_run {
    copy_row *row;
    char *to;
    const char *from;
    int64_t to_step, from_step;
    bool past;
} long_run;

static void copy_chunk(void *context, int32_t worker, int64_t begin, int64_t end) {
    const long_run *r = context;
    (void)worker;
    r->row(r->to + begin * r->to_step, r->to_step, r->from + begin * r->from_step, r->from_step, end - begin, r->past);
}

static void copy_run(long_run run, int64_t n) {
    bool is_long = run.to_step > 0 && run.from_step > 0 && n >= LONG_RUN / (run.to_step + run.from_step);
    int32_t workers = is_long ? anex_team_borrow() : 1;
    int64_t chunk = n / (workers * 4) & -LEAST_CHUNK;
    if (workers == 1)
        copy_chunk(&run, 0, 0, n);
    else
        anex_team_run(workers, n, chunk < LEAST_CHUNK ? LEAST_CHUNK : chunk > MOST_CHUNK ? MOST_CHUNK : chunk,
                      copy_chunk, &run);
    anex_team_return(workers);
}

static bool can_merge(const anex_tensor *t, int32_t outer, int64_t inner_shape, int64_t inner_stride) {
    return t->strides[outer] == inner_shape * inner_stride;
}

anex_status anex_tensor_copy(const anex_tensor *to, const anex_tensor *from, anex_error *error) {
    if (to->rank != from->rank || memcmp(to->shape, from->shape, sizeof(int64_t) * (size_t)to->rank))
        return anex_fail(error, ANEX_SHAPE, "a copy needs equal shapes");
    if (to->dtype == from->dtype && anex_dtypes[to->dtype].bits < 8) {
        memmove(to->data, from->data, (size_t)anex_tensor_nbytes(to));
        return ANEX_OK;
    }
    copy_row *row = choose_row(to->dtype, from->dtype);
    if (!row)
        return anex_fail(error, ANEX_DTYPE, "no copy from %s to %s: convert it first", anex_dtypes[from->dtype].name,
                         anex_dtypes[to->dtype].name);

    if (!anex_tensor_size(to)) return ANEX_OK;
    /* the innermost run: as many trailing axes as both sides hold contiguously, counted as one */
    int32_t axis = to->rank - 1;
    int64_t n = 1, to_step = anex_dtypes[to->dtype].bits / 8, from_step = anex_dtypes[from->dtype].bits / 8;
    for (; axis >= 0; axis--) {
        if (to->shape[axis] == 1) continue;
        if (n == 1) {
            n = to->shape[axis], to_step = to->strides[axis], from_step = from->strides[axis];
        } else if (can_merge(to, axis, n, to_step) && can_merge(from, axis, n, from_step)) {
            n *= to->shape[axis];
        } else {
            break;
        }
    }
    int64_t index[ANEX_MAX_RANK] = {0};
    char *t = to->data;
    const char *f = from->data;
    if (axis < 0) {
        copy_run((long_run){row, t, f, to_step, from_step, anex_isa_past(n * to_step)}, n);
        return ANEX_OK;
    }
    for (;;) {
        row(t, to_step, f, from_step, n, false);
        int32_t i = axis;
        for (; i >= 0; i--) { /* the next row: count up like an odometer */
            t += to->strides[i], f += from->strides[i];
            if (++index[i] < to->shape[i]) break;
            t -= to->strides[i] * to->shape[i], f -= from->strides[i] * to->shape[i];
            index[i] = 0;
        }
        if (i < 0) return ANEX_OK;
    }
}
