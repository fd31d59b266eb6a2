/* Memory of a plan's constants, packed or as they are: large ones side by side in huge pages, which are cleared many at a time. */
#ifndef ANEX_STORE_H
#define ANEX_STORE_H

#include <stdbool.h>
#include <stddef.h>

typedef struct anex_store {
    struct store_chunk *last;
    size_t asked; /* bytes so far */
} anex_store;

/* Aligned, and `zeroed` or of unchosen values; NULL: there is none. */
void *anex_store_take(anex_store *store, size_t bytes, bool zeroed);
/* What was taken; memory in a chunk that is not its last stays until the store is freed. */
void anex_store_give(anex_store *store, void *data, size_t bytes);
void anex_store_free(anex_store *store);

#endif
