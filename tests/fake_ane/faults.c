/* Switches, counters and the environment variable FAKE_ANE="arch=h15g;evaluate=throw". */
#include "faults.h"

#include <errno.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef enum kind { FAULT, FLAG, NUMBER, TEXT, CHOICE, START } kind;

static const struct {
    const char *name, *value;
    kind kind;
} switches[] = {
#define FAKE_SWITCH(name, kind, value) {#name, value, kind},
#include "switches.inc"
#undef FAKE_SWITCH
};
static const struct {
    const char *name;
    bool is_live;
} counters[] = {
#define FAKE_COUNTER(name, is_live) {#name, is_live},
#include "counters.inc"
#undef FAKE_COUNTER
};

typedef struct setting {
    char text[FAKE_TEXT];
    int64_t number;
    double since; /* of the first failure under "once" */
    bool has_failed;
} setting;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER; /* some switch */
static setting settings[FAKE_SWITCH_COUNT];
static atomic_int_fast64_t counts[FAKE_COUNTER_COUNT];
static atomic_bool evaluates_nothing;
static char reason[2048];

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool starts(const char *text, const char *with) { return !strncmp(text, with, strlen(with)); }

static bool is_number(const char *text, int64_t *number) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || value < 0) return false;
    *number = value;
    return true;
}

static const char *const fault_kinds[] = {"slow:", "once:", "code:", "status:", NULL}; /* those with a number */

static bool is_fault(const char *text) {
    static const char *const words[] = {"ok", "yes", "no", "silent", "once", "throw", "never"};
    int64_t ms;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        if (!strcmp(text, words[i])) return true;
    for (const char *const *kind = fault_kinds; *kind; kind++)
        if (starts(text, *kind)) return is_number(text + strlen(*kind), &ms);
    return false;
}

/* Whether `value` stands in "one|two|three". */
static bool is_choice(const char *choices, const char *value) {
    size_t length = strlen(value);
    for (const char *at = choices; length && (at = strstr(at, value)); at++)
        if ((at == choices || at[-1] == '|') && (!at[length] || at[length] == '|')) return true;
    return false;
}

static int put(int i, const char *value) { /* with the mutex held */
    int64_t number = !strcmp(value, "yes");
    bool is_flag = number || !strcmp(value, "no");
    if (strlen(value) >= FAKE_TEXT || (switches[i].kind == FAULT && !is_fault(value)) ||
        (switches[i].kind == FLAG && !is_flag) ||
        (switches[i].kind == CHOICE && !is_choice(switches[i].value, value)) ||
        (switches[i].kind == NUMBER && !is_flag && !is_number(value, &number)))
        return -2;
    memset(&settings[i], 0, sizeof settings[i]);
    strcpy(settings[i].text, value);
    settings[i].number = number;
    if (i == FAKE_AT_empty_evaluate) evaluates_nothing = settings[i].number;
    pthread_cond_broadcast(&changed);
    return 0;
}

static void put_default(int i) {
    char value[FAKE_TEXT];
    snprintf(value, sizeof value, "%s", switches[i].value);
    if (switches[i].kind == CHOICE) value[strcspn(value, "|")] = 0;
    put(i, value);
}

static int find(const char *name) {
    for (int i = 0; i < FAKE_SWITCH_COUNT; i++)
        if (!strcmp(name, switches[i].name)) return i;
    return -1;
}

/* Before any class is registered: see missing.c, whose constructor comes next. */
__attribute__((constructor(101))) static void read_environment(void) {
    for (int i = 0; i < FAKE_SWITCH_COUNT; i++) put_default(i);
    const char *variable = getenv("FAKE_ANE");
    char *text = variable ? strdup(variable) : NULL, *rest = NULL;
    for (char *item = text ? strtok_r(text, ";", &rest) : NULL; item; item = strtok_r(NULL, ";", &rest)) {
        char *equals = strchr(item, '=');
        if (equals) *equals = 0;
        int i = find(item);
        if (!equals || i < 0 || put(i, equals + 1))
            fprintf(stderr, "fake_ane: FAKE_ANE has no use for %s=%s\n", item, equals ? equals + 1 : "");
    }
    free(text);
}

int fake_ane_set(const char *name, const char *value) {
    int i = name ? find(name) : -1;
    if (i < 0) return -1;
    if (!value) return -2;
    if (switches[i].kind == START) return -3;
    pthread_mutex_lock(&mutex);
    int result = put(i, value);
    pthread_mutex_unlock(&mutex);
    return result;
}

int fake_ane_get(const char *name, char *value, size_t room) {
    int i = name ? find(name) : -1;
    char text[FAKE_TEXT];
    if (i < 0) return -1;
    snprintf(value, room, "%s", fake_text((fake_switch)i, text));
    return 0;
}

int64_t fake_ane_count(const char *counter) {
    for (int i = 0; counter && i < FAKE_COUNTER_COUNT; i++)
        if (!strcmp(counter, counters[i].name)) return counts[i];
    return -1;
}

void fake_ane_reset(void) {
    fake_forget_cache();
    pthread_mutex_lock(&mutex);
    for (int i = 0; i < FAKE_SWITCH_COUNT; i++)
        if (switches[i].kind != START && i != FAKE_AT_cache_dir) put_default(i);
    for (int i = 0; i < FAKE_COUNTER_COUNT; i++)
        if (!counters[i].is_live) counts[i] = 0;
    *reason = 0;
    pthread_mutex_unlock(&mutex);
}

const char *fake_ane_name(int is_counter, int i) {
    if (i < 0 || i >= (is_counter ? (int)FAKE_COUNTER_COUNT : (int)FAKE_SWITCH_COUNT)) return NULL;
    return is_counter ? counters[i].name : switches[i].name;
}

const char *fake_ane_reason(void) {
    static _Thread_local char copy[sizeof reason];
    pthread_mutex_lock(&mutex);
    memcpy(copy, reason, sizeof copy);
    pthread_mutex_unlock(&mutex);
    return copy;
}

void fake_explain(const char *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    pthread_mutex_lock(&mutex);
    vsnprintf(reason, sizeof reason, format, arguments);
    pthread_mutex_unlock(&mutex);
    va_end(arguments);
}

fake_fault fake_fault_at(fake_switch point) {
    fake_fault fault = FAKE_OK;
    int64_t ms = 0;
    pthread_mutex_lock(&mutex);
    setting *s = &settings[point];
    while (!strcmp(s->text, "never")) pthread_cond_wait(&changed, &mutex);
    if (!strcmp(s->text, "no")) fault = FAKE_NO;
    if (starts(s->text, "code:") || starts(s->text, "status:")) fault = FAKE_NO;
    if (!strcmp(s->text, "silent")) fault = FAKE_SILENT;
    if (!strcmp(s->text, "throw")) fault = FAKE_THROW;
    if (!strcmp(s->text, "once") && !s->has_failed) fault = FAKE_NO;
    if (starts(s->text, "once:") && (!s->has_failed || now() < s->since + 1e-3 * atof(s->text + 5))) fault = FAKE_NO;
    if (starts(s->text, "slow:")) ms = atoll(s->text + 5);
    if (fault == FAKE_NO && !s->has_failed) {
        s->has_failed = true;
        s->since = now();
    }
    pthread_mutex_unlock(&mutex);
    if (ms) nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000}, NULL);
    if (fault) fake_explain("the switch %s", switches[point].name);
    return fault;
}

bool fake_flag(fake_switch at) { return fake_number(at) != 0; }

int64_t fake_number(fake_switch at) {
    pthread_mutex_lock(&mutex);
    int64_t number = settings[at].number;
    pthread_mutex_unlock(&mutex);
    return number;
}

const char *fake_text(fake_switch at, char *text) {
    pthread_mutex_lock(&mutex);
    memcpy(text, settings[at].text, FAKE_TEXT);
    pthread_mutex_unlock(&mutex);
    return text;
}

bool fake_is(fake_switch at, const char *value) {
    char text[FAKE_TEXT];
    return !strcmp(fake_text(at, text), value);
}

bool fake_lists(fake_switch at, const char *word, size_t length) {
    char text[FAKE_TEXT];
    for (const char *item = fake_text(at, text); *item; item += *item == ',') {
        size_t n = strcspn(item, ",");
        if (n == length && !memcmp(item, word, n)) return true;
        item += n;
    }
    return false;
}

bool fake_take(fake_switch at) {
    pthread_mutex_lock(&mutex);
    bool has = settings[at].number > 0;
    if (has) settings[at].number--;
    pthread_mutex_unlock(&mutex);
    return has;
}

bool fake_evaluates_nothing(void) { return atomic_load_explicit(&evaluates_nothing, memory_order_relaxed); }

void fake_add(fake_counter counter, int64_t n) { atomic_fetch_add_explicit(&counts[counter], n, memory_order_relaxed); }
