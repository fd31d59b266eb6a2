/* Counted memory of tensors, and large pieces of it that are kept for the next one.

   The kernel clears each page when it is first touched, which takes several times as long as filling it. So large pieces
   are mapped here, the largest in huge pages, and those that were given back last are kept, the largest with their pages
   marked as the kernel's to take when it needs some. They stand in slots, each taken and given by one exchange: no lock
   for a fork to leave held in the child. */
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
    SLOTS = 32,
    PAGE = 1 << 12,
    HUGE_PAGE = 1 << 21,
    MAPPED = 1 << 17,     /* bytes from which a piece is mapped; smaller ones are the heap's */
    HUGE = 1 << 22,       /* bytes from which it is made of huge pages */
    KEPT_SMALL = 1 << 25, /* bytes kept at most of pieces below HUGE */
    KEPT_HUGE = 1 << 29,  /* and of those from it on, */
    KEPT_HOT = 1 << 26    /* of which the kernel may take back those that come after so many */
};

typedef struct pages {
    void *data;
    size_t bytes;
} pages;

static struct slot {
    _Atomic(pages *) pages;
    atomic_size_t bytes; /* of what was put here last; whoever takes it looks again, once it is theirs */
} kept[SLOTS];
static atomic_uint_fast32_t oldest; /* the slot to be emptied next */
static atomic_size_t kept_bytes[2]; /* of pieces below HUGE, and of the others */

static bool is_huge(size_t bytes) { return bytes >= HUGE; }

static void *map(size_t bytes) {
    const size_t more = is_huge(bytes) ? HUGE_PAGE : 0; /* to begin at a multiple of it */
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
    if (!p) return;
    atomic_fetch_sub(&kept_bytes[is_huge(p->bytes)], p->bytes);
    munmap(p->data, p->bytes);
    free(p);
}

static bool put(struct slot *slot, pages *p) {
    pages *empty = NULL;
    const size_t bytes = p->bytes; /* as soon as it is there it may be somebody else's, and freed */
    if (!atomic_compare_exchange_strong(&slot->pages, &empty, p)) return false;
    atomic_store(&slot->bytes, bytes);
    return true;
}

static bool fits(size_t found, size_t bytes) { return found >= bytes && found - bytes <= bytes / 8; }

/* One that was given back, of the same number of pages or the fewest more */
static pages *take(size_t bytes) {
    struct slot *best = NULL;
    size_t least = SIZE_MAX;
    for (struct slot *slot = kept; slot < kept + SLOTS; slot++) {
        const size_t found = atomic_load(&slot->bytes);
        if (fits(found, bytes) && found < least && atomic_load(&slot->pages)) best = slot, least = found;
    }
    pages *p = best ? atomic_exchange(&best->pages, NULL) : NULL;
    if (p && fits(p->bytes, bytes)) {
        atomic_fetch_sub(&kept_bytes[is_huge(p->bytes)], p->bytes);
        return p;
    }
    if (p && !put(best, p)) drop(p); /* another thread was faster, in both */
    return NULL;
}

/* Old pieces make room: sizes that were in use a while ago may never be asked for again. */
static bool keep(void *data, size_t bytes) {
    const bool huge = is_huge(bytes);
    const size_t most = huge ? KEPT_HUGE : KEPT_SMALL;
    pages *p = KEEPS && bytes <= most ? malloc(sizeof *p) : NULL;
    if (!p) return false;
    *p = (pages){data, bytes};
    const size_t before = atomic_fetch_add(&kept_bytes[huge], bytes);
#if defined(MADV_FREE)
    if (huge && before + bytes > KEPT_HOT) madvise(data, bytes, MADV_FREE);
#else
    (void)before;
#endif
    for (int32_t i = 0; i < SLOTS && atomic_load(&kept_bytes[huge]) > most; i++) {
        struct slot *slot = &kept[atomic_fetch_add(&oldest, 1) % SLOTS];
        if (is_huge(atomic_load(&slot->bytes)) == huge) drop(atomic_exchange(&slot->pages, NULL));
    }
    for (struct slot *slot = kept; slot < kept + SLOTS; slot++)
        if (put(slot, p)) return true;
    struct slot *slot = &kept[atomic_fetch_add(&oldest, 1) % SLOTS];
    drop(atomic_exchange(&slot->pages, p));
    atomic_store(&slot->bytes, bytes);
    return true;
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
    for (struct slot *slot = kept; slot < kept + SLOTS; slot++) /* what is kept may be what is missing */
        drop(atomic_exchange(&slot->pages, NULL));
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
