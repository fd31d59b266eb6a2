/* Classes and methods that shall be missing get another name in memory, before the Objective-C runtime
   registers what this library holds: nothing can be taken back afterwards. */
#include <link.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "faults.h"

/* Each C string between `from` and `to` that the switch names loses its first letter. */
__attribute__((no_sanitize("address"))) static void rename_strings(fake_switch at, char *from, char *to) {
    char *page = (char *)((uintptr_t)from & ~(uintptr_t)(sysconf(_SC_PAGESIZE) - 1));
    if (mprotect(page, (size_t)(to - page), PROT_READ | PROT_WRITE)) {
        perror("fake_ane: missing_class or missing_selector");
        return;
    }
    for (char *text = from; text < to; text++) {
        char *end = text; /* strnlen would stumble over AddressSanitizer's red zones */
        while (end < to && *end) end++;
        size_t length = (size_t)(end - text);
        char word[128];
        if (length && length < sizeof word && end < to) {
            for (size_t i = 0; i < length; i++) word[i] = text[i];
            if (fake_lists(at, word, length)) *text = '?';
        }
        text = end;
    }
    mprotect(page, (size_t)(to - page), PROT_READ);
}

/* Strings stand in segments that may be read and neither written nor executed. */
static int visit(struct dl_phdr_info *info, size_t size, void *context) {
    (void)size;
    uintptr_t here = (uintptr_t)visit;
    bool is_ours = false;
    for (int i = 0; i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        uintptr_t start = info->dlpi_addr + p->p_vaddr;
        is_ours |= p->p_type == PT_LOAD && here >= start && here < start + p->p_memsz;
    }
    for (int i = 0; is_ours && i < info->dlpi_phnum; i++) {
        const ElfW(Phdr) *p = &info->dlpi_phdr[i];
        char *start = (char *)(info->dlpi_addr + p->p_vaddr);
        if (p->p_type == PT_LOAD && p->p_flags == PF_R)
            rename_strings(*(fake_switch *)context, start, start + p->p_memsz);
    }
    return is_ours;
}

__attribute__((constructor(102))) static void hide_what_is_missing(void) {
    static const fake_switch both[] = {FAKE_AT_missing_class, FAKE_AT_missing_selector};
    char text[FAKE_TEXT];
    for (int i = 0; i < 2; i++)
        if (*fake_text(both[i], text)) dl_iterate_phdr(visit, (void *)&both[i]);
}
