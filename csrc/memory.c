/* Counted memory of tensors, and blocks that are kept for the next tensor.

   The kernel clears each page when it is first touched, which takes several times as long as filling it. So large blocks
   are mapped here, the largest in huge pages, and a few that were given back are kept, those with their pages marked as
   the kernel's to take when it needs some. Kept blocks stand in slots, each taken and given by one exchange: no lock for
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
    MAPPED = 1 << 17,     /* bytes from which a block is mapped; smaller ones are the heap's */
    HUGE = 1 << 22,       /* bytes from which it is made of huge pages */
    KEPT_SMALL = 1 << 25, /* bytes kept at most of blocks below HUGE */
    KEPT_HUGE = 1 << 29   /* and of those from it on, which the kernel may take back */
};

typedef struct block {
    void *data;
    size_t bytes; /* mapped */
} block;

static _Atomic(block *) kept[SLOTS];
static atomic_size_t kept_bytes[2]; /* of blocks below HUGE, and of the others */

static bool is_huge(size_t bytes) { return bytes >= HUGE; }

static void unmap(block *b) {
    munmap(b->data, b->bytes);
    free(b);
}

static block *map(size_t bytes) {
    block *b = malloc(sizeof *b);
    if (!b) return NULL;
    size_t more = is_huge(bytes) ? HUGE_PAGE : 0; /* to begin at a multiple of it */
    char *data = mmap(NULL, bytes + more, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) {
        free(b);
        return NULL;
    }
    if (more) {
        size_t before = (size_t)(-(uintptr_t)data % HUGE_PAGE), after = more - before;
        if (before) munmap(data, before);
        if (after) munmap(data + before + bytes, after);
        data += before;
#if defined(MADV_HUGEPAGE)
        madvise(data, bytes, MADV_HUGEPAGE);
#endif
    }
    *b = (block){data, bytes};
    return b;
}

/* One that was given back, of the same number of pages or a few more */
static block *take(size_t bytes) {
    for (int32_t i = 0; i < SLOTS; i++) {
        block *b = atomic_load(&kept[i]);
        if (!b || !(b = atomic_exchange(&kept[i], NULL))) continue;
        size_t has = b->bytes; /* looked at only once it is ours */
        if (has >= bytes && has - bytes <= bytes / 8) {
            atomic_fetch_sub(&kept_bytes[is_huge(has)], has);
            return b;
        }
        block *empty = NULL;
        if (atomic_compare_exchange_strong(&kept[i], &empty, b)) continue;
        atomic_fetch_sub(&kept_bytes[is_huge(has)], has);
        unmap(b);
    }
    return NULL;
}

static void give_back_block(void *owner) {
    block *b = owner;
    atomic_size_t *total = &kept_bytes[is_huge(b->bytes)];
    size_t most = is_huge(b->bytes) ? KEPT_HUGE : KEPT_SMALL, bytes = b->bytes;
    if (KEEPS && atomic_fetch_add(total, bytes) + bytes <= most) {
#if defined(MADV_FREE)
        if (is_huge(bytes)) madvise(b->data, bytes, MADV_FREE);
#endif
        for (int32_t i = 0; i < SLOTS; i++) {
            block *empty = NULL;
            if (atomic_compare_exchange_strong(&kept[i], &empty, b)) return;
        }
    }
    if (KEEPS) atomic_fetch_sub(total, bytes);
    unmap(b);
}

static void drop_kept(void) {
    for (int32_t i = 0; i < SLOTS; i++) {
        block *b = atomic_exchange(&kept[i], NULL);
        if (!b) continue;
        atomic_fetch_sub(&kept_bytes[is_huge(b->bytes)], b->bytes);
        unmap(b);
    }
}

static anex_status new_block(size_t bytes, bool zeroed, anex_memory **memory, anex_error *error) {
    const size_t unit = is_huge(bytes) ? HUGE_PAGE : PAGE, whole = bytes <= SIZE_MAX / 2 ? (bytes + unit - 1) / unit * unit : 0;
    block *b = take(whole);
    if (b && zeroed) memset(b->data, 0, bytes);
    if (!b && whole) b = map(whole);
    if (!b && whole) {
        drop_kept();
        b = map(whole);
    }
    if (!b) return anex_fail(error, ANEX_MEMORY, "no memory for a tensor of %zu bytes", bytes);
    anex_status status = anex_memory_wrap(b->data, give_back_block, b, memory, error);
    if (status) unmap(b);
    return status;
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

anex_status anex_memory_new(size_t bytes, bool zeroed, anex_memory **memory, anex_error *error) {
    if (anex_ane_is_open()) {
        anex_surface *surface;
        anex_status status = anex_surface_new(bytes, &surface, error);
        return status ? status : wrap_surface(surface, memory, error);
    }
    anex_status status;
    if (bytes >= MAPPED) {
        status = new_block(bytes, zeroed, memory, error);
    } else {
        char *heap = calloc(1, bytes + ANEX_ALIGNMENT);
        if (!heap) return anex_fail(error, ANEX_MEMORY, "no memory for a tensor of %zu bytes", bytes);
        void *data = (void *)(((uintptr_t)heap + ANEX_ALIGNMENT - 1) & ~(uintptr_t)(ANEX_ALIGNMENT - 1));
        status = anex_memory_wrap(data, free, heap, memory, error);
        if (status) free(heap);
    }
    if (!status) (*memory)->bytes = bytes;
    return status;
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
