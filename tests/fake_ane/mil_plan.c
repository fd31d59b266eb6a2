/* An op as a plan of the CPU engine with that op alone: constants in it, everything else its inputs. */
#include "mil.h"

#include <stdio.h>
#include <string.h>

typedef struct signature {
    const char *op;
    mil_rule rule;
    int32_t results;
    const char *arguments;
} signature;

static const signature signatures[] = {
#define MIL_OP(op, rule, results, arguments) {#op, MIL_##rule, results, arguments},
#include "mil_ops.inc"
#undef MIL_OP
};

enum { MOST_INPUTS = 24 };

/* ---- arguments ------------------------------------------------------------------------------ */

static const mil_argument *find_argument(const mil_op *op, const char *name, size_t length) {
    for (const mil_argument *a = op->arguments; a; a = a->next)
        if (strlen(a->name) == length && !memcmp(a->name, name, length)) return a;
    return NULL;
}

mil_value *mil_argument_of(const mil_op *op, const char *name) {
    const mil_argument *a = find_argument(op, name, strlen(name));
    return a && !a->is_list ? a->values[0] : NULL;
}

/* The word of `words` that is `name`, and its length without marks; NULL: none is */
static const char *find_word(const char *words, const char *name, size_t length) {
    for (const char *at = words; *at; at += strspn(at, " ")) {
        size_t n = strcspn(at, " ?!$");
        if (n == length && !memcmp(at, name, n)) return at;
        at += strcspn(at, " ");
    }
    return NULL;
}

static bool is_variadic(const char *type) {
    return !strcmp(type, "concat") || !strcmp(type, "stack") || !strcmp(type, "einsum");
}

/* reshape_like's lists say what the type of its result says already */
static bool is_needless(const mil_op *op, const mil_argument *a) {
    return !strcmp(op->type, "reshape_like") && strcmp(a->name, "x");
}

static void check_value(mil_parser *p, const mil_op *op, const char *word, size_t length, const mil_value *value) {
    const char *marks = word + length;
    size_t n = strcspn(marks, " ");
    bool wants_text = memchr(marks, '$', n), wants_constant = wants_text || memchr(marks, '!', n);
    bool is_text = value->tensor.dtype == ANEX_STRING && value->tensor.data;
    if (value->is_opaque || is_text != wants_text)
        mil_fail(p, "%.100s '%.200s': argument '%.*s' must be a %s", op->type, op->name, (int)length, word,
                 wants_text ? "string" : "tensor");
    else if (wants_constant && !value->tensor.data)
        mil_fail(p, "%.100s '%.200s': argument '%.*s' must be a constant", op->type, op->name, (int)length, word);
}

/* Each argument is one the op has, and of its kind; each the op needs is there. */
static void check_arguments(mil_parser *p, const mil_op *op, const char *words) {
    bool is_state_op = !strcmp(op->type, "read_state") || !strcmp(op->type, "write_state");
    for (const mil_argument *a = op->arguments; a && !p->failed; a = a->next) {
        size_t length = strlen(a->name);
        const char *word = find_word(words, a->name, length);
        bool is_list = is_variadic(op->type) && !strcmp(a->name, "values");
        if (is_needless(op, a)) continue;
        if (!word && !is_list)
            mil_fail(p, "%.100s '%.200s' has no argument '%.200s'", op->type, op->name, a->name);
        else if (a->is_list && !is_list && a->n != 1)
            mil_fail(p, "%.100s '%.200s': argument '%.200s' is no list", op->type, op->name, a->name);
        for (int32_t i = 0; i < a->n && !p->failed; i++) {
            const mil_value *value = a->values[i];
            check_value(p, op, word ? word : a->name, length, value);
            if (value->is_state != (is_state_op && !strcmp(a->name, "input")))
                mil_fail(p, "%.100s '%.200s': argument '%.200s' must%s be a state", op->type, op->name, a->name,
                         value->is_state ? " not" : "");
        }
    }
    if (is_variadic(op->type) && !find_argument(op, "values", 6))
        mil_fail(p, "%.100s '%.200s' needs its argument 'values'", op->type, op->name);
    for (const char *at = words; *at && !p->failed; at += strspn(at, " ")) {
        size_t length = strcspn(at, " ?!$");
        const char *word = at;
        at += strcspn(at, " ");
        if (!memchr(word, '?', (size_t)(at - word)) && !find_argument(op, word, length))
            mil_fail(p, "%.100s '%.200s' needs its argument '%.*s'", op->type, op->name, (int)length, word);
    }
}

/* ---- plans ---------------------------------------------------------------------------------- */

typedef struct making {
    anex_plan *plan;
    mil_op *op;
    anex_error error;
    anex_status status;
    int32_t n_inputs;
} making;

static anex_value add_value(making *m, mil_value *value) {
    const anex_tensor *t = &value->tensor;
    anex_value number = -1;
    if (m->status) return number;
    if (t->data) {
        m->status = anex_plan_constant(m->plan, t, &number, &m->error);
    } else {
        m->status = anex_plan_input(m->plan, t->dtype, t->rank, t->shape, &number, &m->error);
        m->op->inputs[m->n_inputs++] = value;
    }
    return number;
}

/* The op's inputs in the kernel's order. `without`: one to leave out, or NULL. */
static int32_t add_inputs(making *m, const char *words, const char *without, anex_value *inputs) {
    int32_t n = 0;
    for (; *words && n < MOST_INPUTS; words += strspn(words, " ")) {
        size_t length = strcspn(words, " ");
        bool skip = without && strlen(without) == length && !memcmp(without, words, length);
        const mil_argument *a = skip ? NULL : find_argument(m->op, words, length);
        inputs[n++] = a ? add_value(m, a->values[0]) : -1;
        words += length;
    }
    return n;
}

/* NULL after a failure */
static anex_plan *make_plan(mil_parser *p, mil_op *op, const anex_kernel_info *kernel, const char *without) {
    making m = {.op = op};
    const mil_argument *list = is_variadic(op->type) ? find_argument(op, "values", 6) : NULL;
    int32_t n_list = list ? list->n : 0, n_results = 0;
    anex_value inputs[MOST_INPUTS];
    anex_value *several = mil_new(p, ((size_t)n_list + 1) * sizeof *several);
    anex_value *results = mil_new(p, ((size_t)op->n_results + 1) * sizeof *results);
    if (p->failed) return NULL;
    m.status = anex_plan_new(NULL, true, &m.plan, &m.error);
    int32_t n = add_inputs(&m, kernel->inputs, without, inputs);
    for (int32_t i = 0; i < n_list; i++) several[i] = add_value(&m, list->values[i]);
    for (; n_results < op->n_results && !m.status; n_results++) {
        const anex_tensor *t = &op->results[n_results]->tensor;
        m.status = anex_plan_value(m.plan, t->dtype, t->rank, t->shape, &results[n_results], &m.error);
    }
    if (!m.status)
        m.status = anex_plan_op(m.plan, kernel->op, op->name, n, inputs, n_list, several, n_results, results, -1,
                                &m.error);
    if (!m.status) m.status = anex_plan_finish(m.plan, n_results, results, &m.error);
    op->n_inputs = m.n_inputs;
    if (!m.status) return m.plan;
    anex_plan_free(m.plan);
    mil_fail(p, "%s", m.error.text);
    return NULL;
}

/* Everything is constant: the results are too. */
static void fold(mil_parser *p, mil_op *op) {
    const anex_tensor **outputs = mil_new(p, (size_t)op->n_results * sizeof *outputs);
    for (int32_t i = 0; i < op->n_results && !p->failed; i++) {
        anex_tensor *t = &op->results[i]->tensor;
        t->data = mil_new(p, (size_t)anex_tensor_nbytes(t));
        outputs[i] = t;
    }
    anex_error error = {""};
    if (!p->failed && anex_plan_run(op->plan, NULL, outputs, &error)) mil_fail(p, "%s", error.text);
    anex_plan_free(op->plan);
    op->plan = NULL;
}

static mil_trait trait_of(const mil_op *op) {
    static const struct {
        const char *op;
        mil_trait trait;
    } traits[] = {{"reduce_sum", MIL_REDUCE},     {"reduce_mean", MIL_REDUCE},  {"matmul", MIL_MATMUL},
                  {"linear", MIL_MATMUL},         {"einsum", MIL_MATMUL},
                  {"slice_by_index", MIL_SLICE}, {"slice_by_size", MIL_SLICE},
                  {"scaled_dot_product_attention", MIL_ATTENTION}};
    for (size_t i = 0; i < sizeof traits / sizeof *traits; i++)
        if (!strcmp(op->type, traits[i].op)) return traits[i].trait;
    return MIL_PLAIN;
}

static const anex_kernel_info *find_kernel(const char *type) {
    if (!strcmp(type, "write_state")) { /* the engine's op takes the same two under other names */
        static const anex_kernel_info write_state = {"coreml_update_state", "input data", ~0u};
        return &write_state;
    }
    int32_t n;
    const anex_kernel_info *list = anex_kernel_list(&n);
    for (int32_t i = 0; i < n; i++)
        if (!strcmp(list[i].op, type)) return &list[i];
    return NULL;
}

void mil_plan_op(mil_parser *p, mil_op *op) {
    const anex_kernel_info *kernel = find_kernel(op->type);
    const signature *s = NULL;
    for (size_t i = 0; i < sizeof signatures / sizeof *signatures; i++)
        if (!strcmp(signatures[i].op, op->type)) s = &signatures[i];
    if (!kernel || !s) {
        mil_fail(p, "'%.200s' is no op that this machine has", op->type);
        return;
    }
    check_arguments(p, op, s->arguments);
    if (!p->failed) mil_check_op(p, op, s->rule, s->arguments, s->results);
    const mil_argument *list = find_argument(op, "values", 6);
    op->inputs = mil_new(p, (size_t)(MOST_INPUTS + (list ? list->n : 0)) * sizeof *op->inputs);
    if (p->failed) return;
    op->trait = trait_of(op);
    op->mask = -1;
    if (op->trait == MIL_ATTENTION && find_argument(op, "attn_mask", 9)) {
        const mil_value *mask = mil_argument_of(op, "attn_mask");
        op->unmasked = make_plan(p, op, kernel, "attn_mask");
        if (!mask->tensor.data) op->mask = op->n_inputs; /* the kernel's last: what comes before stays where it is */
    }
    op->plan = make_plan(p, op, kernel, NULL);
    bool is_random = !strncmp(op->type, "random_", 7);
    if (op->plan && !op->n_inputs && op->n_results && !is_random) fold(p, op);
    if (p->failed) { /* not among the function's ops yet, which go with the program */
        anex_plan_free(op->plan);
        anex_plan_free(op->unmasked);
        op->plan = op->unmasked = NULL;
    }
}
