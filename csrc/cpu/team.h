/* The threads of the CPU engine: one pool per process, lent to one run at a time. */
#ifndef ANEX_TEAM_H
#define ANEX_TEAM_H

#include <stdbool.h>
#include <stdint.h>

/* Processors that this process may use: what tasks are planned for, whatever number of threads is asked for later */
int32_t anex_processors(void);

/* Workers 1 .. n-1 and the caller, worker 0. Returns how many the caller has got: 1 when the pool is
   lent to another run already, which then simply works alone. */
int32_t anex_team_borrow(void);
void anex_team_return(int32_t workers);

/* Calls body(context, worker, begin, end) until all `tasks` are done, `chunk` at a time; returns after the last. */
typedef void anex_team_body(void *context, int32_t worker, int64_t begin, int64_t end);
void anex_team_run(int32_t workers, int64_t tasks, int64_t chunk, anex_team_body *body, void *context);

#endif
