/* What a plan keeps: small and few pieces from the heap, the rest from large chunks, one after the other. */
#include "store.h"

#include "../memory.h"
#include "kernel.h"

#include <stdlib.h>
#include <string.h>

enum {
    PIECE = 1 << 16, /* bytes from which a piece is not the heap's, */
    SEVERAL = 1 << 22, /* once so many have been asked for: a small plan takes no huge page */
    CHUNK = 1 << 25
};

typedef struct store_chunk {
    struct store_chunk *before;
    char *data;
    size_t bytes, used;
    bool clear; /* all that was not handed out is zero */
} store_chunk;

static store_chunk *add_chunk(anex_store *store, size_t bytes) {
    store_chunk *c = malloc(sizeof *c);
    if (!c) return NULL;
    *c = (store_chunk){.before = store->last, .bytes = bytes > CHUNK ? bytes : CHUNK};
    c->data = anex_pages_new(&c->bytes, &c->clear);
    if (!c->data) {
        free(c);
        return NULL;
    }
    return store->last = c;
}

static void *from_heap(size_t bytes, bool zeroed) {
    void *data = aligned_alloc(ANEX_ALIGNMENT, bytes);
    return data && zeroed ? memset(data, 0, bytes) : data;
}

static bool is_in(const store_chunk *c, const void *data) {
    return (const char *)data >= c->data && (const char *)data < c->data + c->bytes;
}

void *anex_store_take(anex_store *store, size_t bytes, bool zeroed) {
    bytes = anex_align(bytes ? bytes : 1);
    store->asked += bytes;
    if (bytes < PIECE || store->asked < SEVERAL) return from_heap(bytes, zeroed);
    store_chunk *c = store->last;
    if (!c || c->bytes - c->used < bytes) c = add_chunk(store, bytes);
    if (!c) return NULL;
    char *data = c->data + c->used;
    c->used += bytes;
    return c->clear || !zeroed ? data : memset(data, 0, bytes);
}

void anex_store_give(anex_store *store, void *data, size_t bytes) {
    bytes = anex_align(bytes ? bytes : 1);
    store_chunk *last = store->last;
    for (store_chunk *c = last; c; c = c->before) {
        if (!is_in(c, data)) continue;
        if (c == last && (char *)data + bytes == c->data + c->used) c->used -= bytes, c->clear = false;
        return;
    }
    free(data);
}

void anex_store_free(anex_store *store) {
    for (store_chunk *c = store->last, *before; c; c = before) {
        before = c->before;
        anex_pages_free(c->data, c->bytes);
        free(c);
    }
    store->last = NULL;
}
