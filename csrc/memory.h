/* What a counted memory is made of. Surfaces are IOSurfaces, known here by their plain C side only:
   csrc/ane/surface.m, or csrc/ane/absent.c where there are none. */
#ifndef ANEX_MEMORY_H
#define ANEX_MEMORY_H

#include <stdatomic.h>

#include "anex.h"

typedef struct anex_surface anex_surface;

struct anex_memory {
    atomic_int references;
    void *data;
    void (*give_back)(void *owner);
    void *owner;
    size_t bytes;          /* 0: not known, somebody else's */
    anex_surface *surface; /* NULL: plain memory */
};

/* Large pieces of memory, in huge pages and kept for the next who asks (memory.c). NULL: there is none. `bytes`, at least
   128 KiB, become what the piece has; `clear`: whether all of it is zero. */
void *anex_pages_new(size_t *bytes, bool *clear);
void anex_pages_free(void *data, size_t bytes);

/* Zeroed, of at least `bytes`; `anex_surface_find` takes a reference to one that exists, maybe in another process. */
anex_status anex_surface_new(size_t bytes, anex_surface **surface, anex_error *error);
anex_status anex_surface_find(uint32_t id, anex_surface **surface, anex_error *error);
/* The requests built on `memory` go first, then the surface. */
void anex_surface_free(anex_surface *surface, const anex_memory *memory);
void *anex_surface_data(const anex_surface *surface);
size_t anex_surface_bytes(const anex_surface *surface);
uint32_t anex_surface_id(const anex_surface *surface);
void anex_surface_lock(anex_surface *surface);
void anex_surface_unlock(anex_surface *surface);

#endif
