/* Plans as test_arm64.py wrote them down, made and run on another machine: replay FILE [instruction set].
   The file is records of int64 numbers, texts and tensors (record.py); what the runs give goes to stdout,
   byte after byte. Without a file: the instruction sets of this machine. */
#include "anex.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PLANS = 1 << 16, MOST_NUMBERS = 256 };

static const char *at, *end;
static const char *isa;

static void stop(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}
static void need(anex_status status, const anex_error *error) {
    if (status) stop(error->text);
}

static const void *take(size_t bytes) {
    if ((size_t)(end - at) < bytes) stop("the file ends in a record");
    const void *here = at;
    at += bytes;
    return here;
}
static int64_t number(void) {
    int64_t n;
    memcpy(&n, take(sizeof n), sizeof n);
    return n;
}
static const char *text(void) { /* ends with a 0 */
    return take((size_t)number());
}
static int32_t numbers(int32_t *to) {
    int32_t n = (int32_t)number();
    if (n > MOST_NUMBERS) stop("too many numbers");
    for (int32_t i = 0; i < n; i++) to[i] = (int32_t)number();
    return n;
}
/* Memory stays until the process ends. */
static anex_tensor tensor(bool has_data) {
    anex_tensor t;
    anex_error error;
    int64_t shape[ANEX_MAX_RANK];
    anex_dtype dtype = (anex_dtype)number();
    int32_t rank = (int32_t)number();
    if (rank > ANEX_MAX_RANK) stop("a rank is too high");
    for (int32_t i = 0; i < rank; i++) shape[i] = number();
    need(anex_tensor_init(&t, dtype, rank, shape, 0, &error), &error);
    if (has_data) {
        anex_memory *memory;
        size_t bytes = (size_t)anex_tensor_nbytes(&t);
        need(anex_memory_new(bytes, true, &memory, &error), &error);
        t.data = anex_memory_data(memory);
        memcpy(t.data, take(bytes), bytes);
    }
    return t;
}

static void run(anex_plan *plan, const anex_value *out, int32_t n_out) {
    anex_tensor inputs[MOST_NUMBERS], outputs[MOST_NUMBERS];
    const anex_tensor *x[MOST_NUMBERS], *y[MOST_NUMBERS];
    anex_error error;
    int32_t n = (int32_t)number();
    for (int32_t i = 0; i < n; i++) inputs[i] = tensor(true), x[i] = &inputs[i];
    for (int32_t i = 0; i < n_out; i++) {
        anex_memory *memory;
        outputs[i] = *anex_plan_tensor(plan, out[i]), y[i] = &outputs[i];
        need(anex_memory_new((size_t)anex_tensor_nbytes(y[i]), true, &memory, &error), &error);
        outputs[i].data = anex_memory_data(memory);
    }
    need(anex_plan_run(plan, x, y, &error), &error);
    for (int32_t i = 0; i < n_out; i++) fwrite(y[i]->data, 1, (size_t)anex_tensor_nbytes(y[i]), stdout);
}

static void replay(void) {
    static anex_plan *plans[MOST_PLANS];
    static anex_value out[MOST_PLANS][MOST_NUMBERS];
    static int32_t n_out[MOST_PLANS];
    anex_error error;
    while (at < end) {
        char kind = *text();
        int64_t p = number();
        if (p < 0 || p >= MOST_PLANS) stop("too many plans");
        anex_plan **plan = &plans[p];
        anex_value value;
        anex_tensor t;
        switch (kind) {
        case 'P': need(anex_plan_new(isa, number(), plan, &error), &error); break;
        case 'I':
            t = tensor(false);
            need(anex_plan_input(*plan, t.dtype, t.rank, t.shape, &value, &error), &error);
            break;
        case 'V':
            t = tensor(false);
            need(anex_plan_value(*plan, t.dtype, t.rank, t.shape, &value, &error), &error);
            break;
        case 'C':
            t = tensor(true);
            need(anex_plan_constant(*plan, &t, &value, &error), &error);
            break;
        case 'O': {
            const char *op = text();
            anex_value in[MOST_NUMBERS], list[MOST_NUMBERS], to[MOST_NUMBERS];
            int32_t blocks[MOST_NUMBERS], n_in = numbers(in), n_list = numbers(list), n_to = numbers(to);
            int32_t n_blocks = numbers(blocks), through = (int32_t)number();
            anex_plan *inner[MOST_NUMBERS];
            for (int32_t i = 0; i < n_blocks; i++) inner[i] = plans[blocks[i]];
            need(n_blocks ? anex_plan_control(*plan, op, op, n_in, in, n_list, list, n_to, to, n_blocks, inner, &error)
                          : anex_plan_op(*plan, op, op, n_in, in, n_list, list, n_to, to, through, &error),
                 &error);
            break;
        }
        case 'F':
            n_out[p] = numbers(out[p]);
            need(anex_plan_finish(*plan, n_out[p], out[p], &error), &error);
            break;
        case 'R': run(*plan, out[p], n_out[p]); break;
        case 'D': anex_plan_free(*plan); break;
        default: stop("a record of an unknown kind");
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 2) {
        const char *names[8];
        int32_t n = anex_isa_list(names, 8);
        for (int32_t i = 0; i < n; i++) puts(names[i]);
        return 0;
    }
    isa = argc > 2 ? argv[2] : NULL;
    FILE *file = fopen(argv[1], "rb");
    if (!file || fseek(file, 0, SEEK_END)) stop("cannot read the file");
    size_t bytes = (size_t)ftell(file);
    char *content = malloc(bytes + 1);
    rewind(file);
    if (!content || fread(content, 1, bytes, file) != bytes) stop("cannot read the file");
    at = content, end = content + bytes;
    anex_set_num_threads(1);
    replay();
    return 0;
}
