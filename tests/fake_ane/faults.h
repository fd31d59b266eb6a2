/* The stand-in's switches and counters, and what is exported for ctypes (control.py). Plain C11. */
#ifndef FAKE_FAULTS_H
#define FAKE_FAULTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FAKE_EXPORT __attribute__((visibility("default")))

typedef enum fake_switch {
#define FAKE_SWITCH(name, kind, value) FAKE_AT_##name,
#include "switches.inc"
#undef FAKE_SWITCH
    FAKE_SWITCH_COUNT
} fake_switch;

typedef enum fake_counter {
#define FAKE_COUNTER(name, is_live) FAKE_COUNT_##name,
#include "counters.inc"
#undef FAKE_COUNTER
    FAKE_COUNTER_COUNT
} fake_counter;

typedef enum fake_fault { FAKE_OK, FAKE_NO, FAKE_SILENT, FAKE_THROW } fake_fault;

enum { FAKE_TEXT = 1024 }; /* the longest value of a switch */

/* What the call at this point shall do; a slow one sleeps here. */
fake_fault fake_fault_at(fake_switch point);
bool fake_flag(fake_switch at);
int64_t fake_number(fake_switch at);
/* The value, copied to `text` of FAKE_TEXT bytes. */
const char *fake_text(fake_switch at, char *text);
bool fake_is(fake_switch at, const char *value);
/* Whether `word` stands in the switch's list. */
bool fake_lists(fake_switch at, const char *word, size_t length);
/* Take one from a number, unless it is 0. */
bool fake_take(fake_switch at);
bool fake_evaluates_nothing(void); /* empty_evaluate, without a lock */

void fake_add(fake_counter counter, int64_t n);
/* Keep why the stand-in refused, which the framework would not say, for fake_ane_reason. */
void fake_explain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* For each owner of state that a reset clears. */
void fake_forget_cache(void);

/* 0, -1 unknown switch, -2 a value it cannot have, -3 only the environment can set it. */
FAKE_EXPORT int fake_ane_set(const char *name, const char *value);
FAKE_EXPORT int fake_ane_get(const char *name, char *value, size_t room);
FAKE_EXPORT int64_t fake_ane_count(const char *counter); /* -1 unknown */
FAKE_EXPORT void fake_ane_reset(void);
FAKE_EXPORT const char *fake_ane_reason(void);
FAKE_EXPORT const char *fake_ane_name(int is_counter, int i); /* of switch or counter i; NULL past the last */

#endif
