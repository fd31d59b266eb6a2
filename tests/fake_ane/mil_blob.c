/* Weight files: a header, then records of 64 bytes, each with the place and type of its data. Little endian. */
#include "mil.h"

#include <string.h>

enum { HEADER = 64, RECORD = 64, VERSION = 2 };
static const uint32_t SENTINEL = 0xDEADBEEF;

static uint32_t read_u32(const uint8_t *p) {
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}
static uint64_t read_u64(const uint8_t *p) { return read_u32(p) | (uint64_t)read_u32(p + 4) << 32; }

static const mil_file *find_file(const mil_parser *p, const char *path) {
    for (int32_t i = 0; i < p->n_files; i++)
        if (!strcmp(p->files[i].path, path)) return &p->files[i];
    return NULL;
}

/* Element i of a little-endian bit stream; int4 comes back with its sign. */
static uint8_t read_bits(const uint8_t *data, int64_t i, const mil_scalar *scalar) {
    uint32_t value = 0;
    for (int32_t k = 0; k < scalar->bits; k++) {
        int64_t bit = i * scalar->bits + k;
        value |= (uint32_t)(data[bit / 8] >> bit % 8 & 1) << k;
    }
    if (scalar->kind == 'i' && value >> (scalar->bits - 1)) value |= ~0u << scalar->bits;
    return (uint8_t)value;
}

void mil_read_blob(mil_parser *p, const char *path, uint64_t offset, const mil_scalar *scalar, anex_tensor *tensor) {
    const mil_file *file = find_file(p, path);
    if (!file) {
        mil_fail(p, "no weights were given for BLOBFILE path '%.200s'", path);
        return;
    }
    const uint8_t *bytes = file->data;
    if (file->bytes < HEADER || read_u32(bytes + 4) != VERSION) {
        mil_fail(p, "'%.200s' is no weight file: version 2 stands nowhere in its header", path);
        return;
    }
    if (offset < HEADER || file->bytes < RECORD || offset > file->bytes - RECORD) {
        mil_fail(p, "offset %llu is outside '%.200s', which has %zu bytes", (unsigned long long)offset, path,
                 file->bytes);
        return;
    }
    const uint8_t *record = bytes + offset;
    if (read_u32(record) != SENTINEL) {
        mil_fail(p, "'%.200s' has no record at offset %llu: 0x%08x stands there", path, (unsigned long long)offset,
                 (unsigned)read_u32(record));
        return;
    }
    if (!scalar->blob || read_u32(record + 4) != (uint32_t)scalar->blob) {
        mil_fail(p, "the record at offset %llu of '%.200s' holds data type %u, not %s", (unsigned long long)offset,
                 path, (unsigned)read_u32(record + 4), scalar->name);
        return;
    }
    uint64_t size = read_u64(record + 8), at = read_u64(record + 16);
    int64_t n = anex_tensor_size(tensor);
    uint64_t wanted = ((uint64_t)n * (uint64_t)scalar->bits + 7) / 8;
    if (!at) at = offset + RECORD; /* some writers leave it out */
    if (size != wanted || at > file->bytes || size > file->bytes - at) {
        mil_fail(p, "the record at offset %llu of '%.200s' has %llu bytes at %llu of %zu; its type asks for %llu",
                 (unsigned long long)offset, path, (unsigned long long)size, (unsigned long long)at, file->bytes,
                 (unsigned long long)wanted);
        return;
    }
    tensor->data = mil_new(p, (size_t)anex_tensor_nbytes(tensor));
    if (!tensor->data) return;
    if (scalar->bits >= 8)
        memcpy(tensor->data, bytes + at, (size_t)size);
    else
        for (int64_t i = 0; i < n; i++) ((uint8_t *)tensor->data)[i] = read_bits(bytes + at, i, scalar);
}
