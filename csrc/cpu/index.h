/* Indices that come as data: read in blocks, brought into range, so that no value of theirs can
   make a kernel leave its tensors. */
#ifndef ANEX_INDEX_H
#define ANEX_INDEX_H

#include "kernel.h"

enum { ANEX_INDEX_BLOCK = 256 };

/* row[i] = element first + i * step of `indices`, i < n <= ANEX_INDEX_BLOCK */
static inline void anex_read_indices(int64_t *restrict row, const anex_tensor *indices, int64_t first, int64_t step,
                                     int64_t n) {
    switch (indices->dtype) {
#define ANEX_READ(dtype, type)                                                                         \
    case dtype:                                                                                        \
        for (int64_t i = 0; i < n; i++) row[i] = ((const type *)indices->data)[first + i * step];      \
        break;
        ANEX_READ(ANEX_I8, int8_t)
        ANEX_READ(ANEX_U8, uint8_t)
        ANEX_READ(ANEX_I16, int16_t)
        ANEX_READ(ANEX_U16, uint16_t)
        ANEX_READ(ANEX_U32, uint32_t)
        ANEX_READ(ANEX_I32, int32_t)
#undef ANEX_READ
    default: /* refused by anex_check_indices */
        for (int64_t i = 0; i < n; i++) row[i] = 0;
    }
}

/* `validate_indices`: an index outside is a fault, and so is a negative one */
static inline void anex_validate(const anex_node *node, const anex_slice *slice, const int64_t *row, int64_t n,
                                 int64_t size) {
    for (int64_t i = 0; i < n; i++)
        if (row[i] < 0 || row[i] >= size) {
            anex_fault_set(slice, node, "index %lld is outside 0 to %lld", (long long)row[i], (long long)size - 1);
            break;
        }
}

/* As anex_read_indices, for an axis of `size` that is read: every row is inside. Negative ones count from the
   end; what is still outside is moved to the nearest end: MIL leaves it undefined but safe. */
static inline void anex_resolve(const anex_node *node, const anex_slice *slice, int64_t *restrict row,
                                const anex_tensor *indices, int64_t first, int64_t step, int64_t n, int64_t size,
                                bool validate) {
    anex_read_indices(row, indices, first, step, n);
    if (validate) anex_validate(node, slice, row, n, size);
    for (int64_t i = 0; i < n; i++) {
        int64_t r = row[i] + (row[i] < 0 ? size : 0);
        r = r < 0 ? 0 : r;
        row[i] = r >= size ? size - 1 : r;
    }
}

/* Integers, for an axis that has elements if anything is to be found there. */
static inline anex_status anex_check_indices(const anex_node *node, const anex_tensor *indices, int64_t size,
                                             anex_error *error) {
    switch (indices->dtype) {
    case ANEX_I8: case ANEX_U8: case ANEX_I16: case ANEX_U16: case ANEX_I32: case ANEX_U32: break;
    default:
        return anex_node_fail(node, error, ANEX_DTYPE, "indices are %s; they must be integers of at most 32 bits",
                              anex_dtypes[indices->dtype].name);
    }
    if (!size && anex_tensor_size(indices))
        return anex_node_fail(node, error, ANEX_SHAPE, "an empty axis has nothing to index");
    return ANEX_OK;
}

#endif
