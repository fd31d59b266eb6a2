/* Preloaded: counts what a thread takes from the heap while it says so. Frees are not counted, nor other threads. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* glibc's own names for them: dlsym would allocate before there is anything to allocate with. */
void *__libc_malloc(size_t bytes);
void *__libc_calloc(size_t n, size_t bytes);
void *__libc_realloc(void *block, size_t bytes);
void *__libc_memalign(size_t alignment, size_t bytes);

static __thread bool is_counting __attribute__((tls_model("initial-exec")));
static __thread int64_t taken __attribute__((tls_model("initial-exec")));

static inline void note(void) { taken += is_counting; }

void *malloc(size_t bytes) {
    note();
    return __libc_malloc(bytes);
}

void *calloc(size_t n, size_t bytes) {
    note();
    return __libc_calloc(n, bytes);
}

void *realloc(void *block, size_t bytes) {
    note();
    return __libc_realloc(block, bytes);
}

void *memalign(size_t alignment, size_t bytes) {
    note();
    return __libc_memalign(alignment, bytes);
}

void *aligned_alloc(size_t alignment, size_t bytes) { return memalign(alignment, bytes); }

int posix_memalign(void **block, size_t alignment, size_t bytes) {
    *block = memalign(alignment, bytes);
    return *block || !bytes ? 0 : 12 /* ENOMEM */;
}

void allocations_begin(void) { taken = 0, is_counting = true; }

int64_t allocations_end(void) {
    is_counting = false;
    return taken;
}
