/* The self-test's messages where the binding is not built: there is nobody to send them to. */
#include "../anex.h"

anex_status anex_ane_raw_new(const char *text, size_t text_bytes, int32_t n_blobs, const anex_ane_blob *blobs,
                             bool nil_weights, anex_ane_raw **raw, anex_ane_answer *answer, anex_error *error) {
    (void)text, (void)text_bytes, (void)n_blobs, (void)blobs, (void)nil_weights;
    *raw = NULL;
    *answer = (anex_ane_answer){0};
    return anex_ane_open(error);
}

void anex_ane_raw_free(anex_ane_raw *raw) { (void)raw; }

void anex_ane_raw_send(anex_ane_raw *raw, anex_ane_message message, uint32_t qos, anex_ane_answer *answer) {
    (void)raw, (void)message, (void)qos;
    *answer = (anex_ane_answer){0};
}

void anex_ane_raw_get_state(anex_ane_raw *raw, anex_ane_raw_state *state) {
    (void)raw;
    *state = (anex_ane_raw_state){0};
}

size_t anex_ane_raw_attributes(anex_ane_raw *raw, char *json, size_t room) {
    (void)raw, (void)json, (void)room;
    return 0;
}

anex_status anex_ane_raw_surface(size_t bytes, anex_memory **memory, anex_error *error) {
    (void)bytes;
    *memory = NULL;
    return anex_ane_open(error);
}

void anex_ane_raw_evaluate(anex_ane_raw *raw, const anex_ane_raw_run *run, anex_ane_answer *answer) {
    (void)raw, (void)run;
    *answer = (anex_ane_answer){0};
}

void anex_ane_raw_chain(anex_ane_raw *raw, const anex_ane_raw_run *run, anex_ane_answer *answer) {
    (void)raw, (void)run;
    *answer = (anex_ane_answer){0};
}

int32_t anex_ane_raw_qos(anex_ane_qos *classes, int32_t room, anex_ane_answer *answer) {
    (void)classes, (void)room;
    *answer = (anex_ane_answer){0};
    return 0;
}
