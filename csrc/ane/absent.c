/* The Neural Engine where its binding was not built: every function is there and says so. */
#include "../anex.h"

#include "../memory.h"

static anex_status absent(anex_error *error) {
#ifdef __linux__
    return anex_fail(error, ANEX_UNSUPPORTED, "this is Linux; the Neural Engine is part of Apple silicon under macOS");
#else
    return anex_fail(error, ANEX_UNSUPPORTED,
                     "the Neural Engine is part of Apple silicon under macOS, which this system is not");
#endif
}

anex_status anex_ane_open(anex_error *error) { return absent(error); }
bool anex_ane_is_open(void) { return false; }
anex_status anex_ane_get_device(anex_ane_device *device, anex_error *error) {
    (void)device;
    return absent(error);
}
int32_t anex_ane_selector_count(void) { return 0; }
anex_status anex_ane_get_selector(int32_t i, anex_ane_selector *selector, anex_error *error) {
    (void)i, (void)selector;
    return absent(error);
}

anex_status anex_ane_compile(const char *text, size_t text_bytes, int32_t n_blobs, const anex_ane_blob *blobs,
                             const anex_ane_options *options, anex_ane_program **program, anex_error *error) {
    (void)text, (void)text_bytes, (void)n_blobs, (void)blobs, (void)options, (void)program;
    return absent(error);
}
void anex_ane_free(anex_ane_program *program) { (void)program; }
anex_status anex_ane_unload(anex_ane_program *program, anex_error *error) {
    (void)program;
    return absent(error);
}
void anex_ane_keep(anex_ane_program *program, bool keep) { (void)program, (void)keep; }
void anex_ane_get_info(anex_ane_program *program, anex_ane_info *info) {
    (void)program;
    *info = (anex_ane_info){0};
}

anex_status anex_ane_bind(anex_ane_program *program, const char *name, int32_t n_inputs, anex_ane_port *inputs,
                          int32_t n_outputs, anex_ane_port *outputs, anex_ane_function **function, anex_error *error) {
    (void)program, (void)name, (void)n_inputs, (void)inputs, (void)n_outputs, (void)outputs, (void)function;
    return absent(error);
}
void anex_ane_function_free(anex_ane_function *function) { (void)function; }
anex_status anex_ane_run(anex_ane_function *function, anex_memory *const *memories, anex_error *error) {
    (void)function, (void)memories;
    return absent(error);
}
anex_status anex_ane_submit(anex_ane_function *function, anex_memory *const *memories, anex_ane_done *done,
                            void *context, anex_error *error) {
    (void)function, (void)memories, (void)done, (void)context;
    return absent(error);
}
anex_status anex_ane_run_measured(anex_ane_function *function, anex_memory *const *memories, anex_ane_stats *stats,
                                  anex_error *error) {
    (void)function, (void)memories, (void)stats;
    return absent(error);
}
const char *anex_ane_counter_name(int32_t i) {
    (void)i;
    return "";
}

anex_ane_account anex_ane_get_account(void) { return (anex_ane_account){0}; }
void anex_ane_set_limits(int32_t compile_limit, int32_t load_limit) { (void)compile_limit, (void)load_limit; }
anex_status anex_ane_cache_has(const char *identifier, bool *has, anex_error *error) {
    (void)identifier, (void)has;
    return absent(error);
}
anex_status anex_ane_cache_purge(const char *identifier, anex_error *error) {
    (void)identifier;
    return absent(error);
}

/* ---- surfaces: none are ever made, so only the first two are reached -------------------------------------- */

anex_status anex_surface_new(size_t bytes, anex_surface **surface, anex_error *error) {
    (void)bytes, (void)surface;
    return absent(error);
}
anex_status anex_surface_find(uint32_t id, anex_surface **surface, anex_error *error) {
    (void)id, (void)surface;
    return absent(error);
}
void anex_surface_free(anex_surface *surface, const anex_memory *memory) { (void)surface, (void)memory; }
void *anex_surface_data(const anex_surface *surface) {
    (void)surface;
    return NULL;
}
size_t anex_surface_bytes(const anex_surface *surface) {
    (void)surface;
    return 0;
}
uint32_t anex_surface_id(const anex_surface *surface) {
    (void)surface;
    return 0;
}
void anex_surface_lock(anex_surface *surface) { (void)surface; }
void anex_surface_unlock(anex_surface *surface) { (void)surface; }
