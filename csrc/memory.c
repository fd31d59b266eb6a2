/* Counted memory of tensors, and large pieces of it that are kept for the next one.

   The kernel clears each page when it is first touched, which takes several times as long as filling it. So large pieces
   are mapped here, the largest in huge pages, and a few that were given back are kept, the largest with their pages marked
   as the kernel's to take when it needs some. They stand in slots, each taken and given by one exchange: no lock for
   a fork to leave held in the child. */
#define _GNU_SOURCE
#include "memory.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#if defined(__SANITIZE_ADDRESS__)
#define KEEPS 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define KEEPS 0 /* what is used after it was given back is to be found */
#endif
#endif
#ifndef KEEPS
#define KEEPS 1
#endif

enum {
    SLOTS = 8,
    PAGE = 1 << 12,
    HUGE_PAGE = 1 << 21,
    MAPPED = 1 << 17,     /* bytes from which a piece is mapped; smaller ones are the heap's */
    HUGE = 1 << 22,       /* bytes from which it is made of huge pages */
    KEPT_SMALL = 1 << 25, /* bytes kept at most of pieces below HUGE */
    KEPT_HUGE = 1 << 29   /* and of those from it on, which the kernel may take back */
};

typedef struct pages {
    void *data;
    size_t bytes;
} pages;

static _Atomic(pages *) kept[SLOTS];
static atomic_size_t kept_bytes[2]; /* of pieces below HUGE, and of the others */

static bool is_huge(size_t bytes) { return bytes >= HUGE; }

static void *map(size_t bytes) {
    size_t more = is_huge(bytes) ? HUGE_PAGE : 0; /* to begin at a multiple of it */
    char *data = mmap(NULL, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) return NULL;
    if (more) {
        size_t before = (size_t)(-(uintptr_t)data % HUGE_PAGE), after = more - before;
        if (before) munmap(data, before);
        if (after) munmap(data + before + bytes, after);
        data += before;
#if defined(MADV_HUGEPAGE)
        madvise(data, bytes, MADV_HUGEPAGE);
#endif
    }
    return data;
}

static void drop(pages *p) {
    atomic_fetch_sub(&kept_bytes[is_huge(p->bytes)], p->bytes);
    munmap(p->data, p->bytes);
    free(p);
}

/* One that was given back, of the same number of pages or a few more */
static pages *take(size_t bytes) {
    for (int32_t i = 0; i < SLOTS; i++) {
        pages *p = atomic_load(&kept[i]) ? atomic_exchange(&kept[i], NULL) : NULL;
        if (!p) continue;
        if (p->bytes >= bytes && p->bytes - bytes <= bytes / 8) { /* looked at only once it is ours */
            atomic_fetch_sub(&kept_bytes[is_huge(p->bytes)], p->bytes);
            return p;
        }
        pages *empty = NULL;
        if (!atomic_compare_exchange_strong(&kept[i], &empty, p)) drop(p);
    }
    return NULL;
}

static bool keep(void *data, size_t bytes) {
    atomic_size_t *total = &kept_bytes[is_huge(bytes)];
    pages *p = KEEPS ? malloc(sizeof *p) : NULL;
    if (!p) return false;
    *p = (pages){data, bytes};
    if (atomic_fetch_add(total, bytes) + bytes <= (is_huge(bytes) ? KEPT_HUGE : KEPT_SMALL)) {
#if defined(MADV_FREE)
        if (is_huge(bytes)) madvise(data, bytes, MADV_FREE);
#endif
        for (int32_t i = 0; i < SLOTS; i++) {
            pages *empty = NULL;
            if (atomic_compare_exchange_strong(&kept[i], &empty, p)) return true;
        }
    }
    atomic_fetch_sub(total, bytes);
    free(p);
    return false;
}

void *anex_pages_new(size_t *bytes, bool *clear) {
    const size_t unit = is_huge(*bytes) ? HUGE_PAGE : PAGE;
    if (*bytes > SIZE_MAX / 2) return NULL;
    *bytes = (*bytes + unit - 1) / unit * unit;
    pages *p = take(*bytes);
    *clear = !p;
    if (p) {
        void *data = p->data;
        *bytes = p->bytes;
        free(p);
        return data;
    }
    void *data = map(*bytes);
    if (data) return data;
    for (int32_t i = 0; i < SLOTS; i++) /* what is kept may be what is missing */
        if ((p = atomic_exchange(&kept[i], NULL))) drop(p);
    return map(*bytes);
}

void anex_pages_free(void *data, size_t bytes) {
    if (data && !keep(data, bytes)) munmap(data, bytes);
}

/* ---- counted memory ------------------------------------------------------------------------- */

anex_status anex_memory_wrap(void *data, void (*give_back)(void *owner), void *owner, anex_memory **memory,
                             anex_error *error) {
    anex_memory *m = calloc(1, sizeof *m);
    if (!m) return anex_fail(error, ANEX_MEMORY, "out of memory");
    atomic_init(&m->references, 1);
    m->data = data, m->give_back = give_back, m->owner = owner;
    *memory = m;
    return ANEX_OK;
}

static anex_status wrap_surface(anex_surface *surface, anex_memory **memory, anex_error *error) {
    anex_status status = anex_memory_wrap(anex_surface_data(surface), NULL, NULL, memory, error);
    if (status) {
        anex_surface_free(surface, NULL);
        return status;
    }
    (*memory)->bytes = anex_surface_bytes(surface), (*memory)->surface = surface;
    return ANEX_OK;
}

static void free_pages(void *owner) {
    pages *p = owner;
    anex_pages_free(p->data, p->bytes);
    free(p);
}

/* Memory whose data lies in `owner`, which is freed if there is none for the rest. */
static anex_status wrap_own(void *data, void (*give_back)(void *), void *owner, size_t bytes, anex_memory **memory,
                            anex_error *error) {
    if (!data) {
        free(owner);
        return anex_fail(error, ANEX_MEMORY, "no memory for a tensor of %zu bytes", bytes);
    }
    anex_status status = anex_memory_wrap(data, give_back, owner, memory, error);
    if (status)
        give_back(owner);
    else
        (*memory)->bytes = bytes;
    return status;
}

anex_status anex_memory_new(size_t bytes, bool zeroed, anex_memory **memory, anex_error *error) {
    if (anex_ane_is_open()) {
        anex_surface *surface;
        anex_status status = anex_surface_new(bytes, &surface, error);
        return status ? status : wrap_surface(surface, memory, error);
    }
    if (bytes < MAPPED) {
        char *heap = calloc(1, bytes + ANEX_ALIGNMENT);
        char *data = heap ? heap + (-(uintptr_t)heap & (ANEX_ALIGNMENT - 1)) : NULL;
        return wrap_own(data, free, heap, bytes, memory, error);
    }
    pages *p = malloc(sizeof *p);
    bool clear = true;
    if (p) *p = (pages){NULL, bytes}, p->data = anex_pages_new(&p->bytes, &clear);
    if (p && p->data && zeroed && !clear) memset(p->data, 0, bytes);
    return wrap_own(p ? p->data : NULL, free_pages, p, bytes, memory, error);
}

anex_status anex_memory_of_surface(uint32_t id, anex_memory **memory, anex_error *error) {
    anex_surface *surface;
    anex_status status = anex_surface_find(id, &surface, error);
    return status ? status : wrap_surface(surface, memory, error);
}

void *anex_memory_data(const anex_memory *memory) { return memory->data; }

size_t anex_memory_bytes(const anex_memory *memory) { return memory->bytes; }

uint32_t anex_memory_surface_id(const anex_memory *memory) {
    return memory->surface ? anex_surface_id(memory->surface) : 0;
}

void anex_memory_lock(anex_memory *memory) {
    if (memory->surface) anex_surface_lock(memory->surface);
}

void anex_memory_unlock(anex_memory *memory) {
    if (memory->surface) anex_surface_unlock(memory->surface);
}

anex_memory *anex_memory_retain(anex_memory *memory) {
    atomic_fetch_add_explicit(&memory->references, 1, memory_order_relaxed);
    return memory;
}

void anex_memory_release(anex_memory *memory) {
    if (!memory || atomic_fetch_sub_explicit(&memory->references, 1, memory_order_acq_rel) != 1) return;
    if (memory->surface) anex_surface_free(memory->surface, memory);
    if (memory->give_back) memory->give_back(memory->owner);
    free(memory);
}
