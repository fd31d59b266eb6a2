/* MIL text: programs, functions and ops. Values are known by name once they are made, never before. */
#include "mil.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- arrays in the arena: room doubles at powers of two -------------------------------------- */

static void *append(mil_parser *p, void *array, int32_t n, void *item) {
    void **items = array;
    if (!(n & (n - 1))) { /* 0, 1, 2, 4: full */
        void **grown = mil_new(p, (size_t)(n ? 2 * n : 1) * sizeof *grown);
        if (!grown) return array;
        if (n) memcpy(grown, items, (size_t)n * sizeof *grown);
        items = grown;
    }
    items[n] = item;
    return items;
}

/* ---- names ---------------------------------------------------------------------------------- */

static uint32_t bucket_of(const char *name) {
    uint32_t hash = 2166136261u;
    for (; *name; name++) hash = (hash ^ (uint8_t)*name) * 16777619u;
    return hash % MIL_BUCKETS;
}

static mil_value *find(const mil_function *f, const char *name) {
    mil_value *value = f->names[bucket_of(name)];
    while (value && strcmp(value->name, name)) value = value->next;
    return value;
}

static void declare(mil_parser *p, mil_value *value, const char *name) {
    if (p->failed) return;
    if (find(p->function, name)) {
        mil_fail(p, "'%.200s' is defined twice", name);
        return;
    }
    uint32_t bucket = bucket_of(name);
    value->name = name;
    value->next = p->function->names[bucket];
    p->function->names[bucket] = value;
}

/* ---- type name: inputs and results ------------------------------------------------------------ */

/* NULL after a failure. `opaque`: the type may be one that no op computes, for a const says no more than its value. */
static mil_value *read_typed_name(mil_parser *p, bool opaque, const char **name) {
    mil_type type = mil_read_type(p);
    *name = mil_word(p);
    mil_value *value = mil_new(p, sizeof *value);
    if (!value) return NULL;
    value->index = -1, value->last_use = -1;
    value->is_state = type.kind == MIL_STATE;
    value->is_opaque = type.kind == MIL_OTHER || type.scalar->kind == 's';
    if (value->is_opaque && !opaque) mil_fail(p, "'%.200s' is no tensor of numbers", *name);
    if (!value->is_opaque) mil_tensor_of(p, &type, *name, &value->tensor);
    return p->failed ? NULL : value;
}

/* [name = value, ...], each as an argument; the text of `name` is handed out */
static void read_attributes(mil_parser *p, mil_op *op) {
    if (!mil_accept(p, '[')) return;
    mil_argument **tail = &op->arguments;
    while (*tail) tail = &(*tail)->next;
    do {
        mil_argument *a = mil_new(p, sizeof *a);
        mil_value **values = mil_new(p, sizeof *values);
        char *name = mil_word(p);
        mil_expect(p, '=');
        mil_value *value = mil_read_value(p);
        if (!a || !value) return;
        *values = value;
        *a = (mil_argument){.name = name, .values = values, .n = 1};
        if (!strcmp(name, "name") && value->tensor.dtype == ANEX_STRING && value->tensor.data) {
            op->name = value->tensor.data;
        } else {
            *tail = a;
            tail = &a->next;
        }
    } while (mil_accept(p, ','));
    mil_expect(p, ']');
}

/* ---- ops ------------------------------------------------------------------------------------ */

/* A name, or an inline value; NULL after a failure */
static mil_value *read_operand(mil_parser *p) {
    if (p->token.kind == MIL_WORD && mil_is_type_word(p)) {
        const char *after = p->at; /* a name may be a word like that: a type is followed by < or ( */
        while (after < p->end && strchr(" \t\r\n", *after)) after++;
        if (*after == '<' || *after == '(') return mil_read_value(p);
    }
    char *name = mil_word(p);
    if (p->failed) return NULL;
    mil_value *value = find(p->function, name);
    if (!value) mil_fail(p, "'%.200s' is used, but nothing before defines it", name);
    return value;
}

static void read_arguments(mil_parser *p, mil_op *op) {
    mil_expect(p, '(');
    mil_argument **tail = &op->arguments;
    while (!p->failed && !mil_sees(p, ')')) {
        if (op->arguments) mil_expect(p, ',');
        mil_argument *a = mil_new(p, sizeof *a);
        char *name = mil_word(p);
        mil_expect(p, '=');
        if (!a) return;
        a->name = name;
        for (mil_argument *other = op->arguments; other; other = other->next)
            if (!strcmp(other->name, name)) mil_fail(p, "argument '%.200s' is given twice", name);
        a->is_list = mil_accept(p, '(');
        do {
            mil_value *value = read_operand(p);
            a->values = append(p, a->values, a->n, value);
            a->n += a->values != NULL;
        } while (a->is_list && mil_accept(p, ','));
        if (a->is_list) mil_expect(p, ')');
        *tail = a;
        tail = &a->next;
    }
    mil_expect(p, ')');
}

static bool same_type(const anex_tensor *a, const anex_tensor *b) {
    return a->dtype == b->dtype && a->rank == b->rank &&
           !memcmp(a->shape, b->shape, (size_t)a->rank * sizeof *a->shape);
}

/* const: its result is the value of the attribute `val` */
static void define_const(mil_parser *p, mil_op *op) {
    mil_value *given = mil_argument_of(op, "val");
    if (!given || op->n_results != 1) {
        mil_fail(p, "const has one result and an attribute 'val'");
        return;
    }
    mil_value *result = op->results[0];
    bool fits = result->is_opaque ? given->is_opaque || given->tensor.dtype == ANEX_STRING
                                  : !given->is_opaque && same_type(&result->tensor, &given->tensor);
    if (!fits) {
        mil_fail(p, "const '%.200s': the type of its value is not the type of its result", result->name);
        return;
    }
    result->tensor = given->tensor;
    result->is_opaque = given->is_opaque;
}

/* What a run needs to know of an op: the places of what it makes, and how long what it reads is needed. */
static void number_op(mil_parser *p, mil_op *op) {
    mil_function *f = p->function;
    for (int32_t i = 0; i < op->n_results && op->plan; i++) {
        op->results[i]->index = f->n_values++;
        op->results[i]->last_use = f->n_ops;
    }
    for (int32_t i = 0; i < op->n_inputs; i++) op->inputs[i]->last_use = f->n_ops;
    if (op->n_inputs > f->most_inputs) f->most_inputs = op->n_inputs;
    if (op->n_results > f->most_results) f->most_results = op->n_results;
    f->ops = append(p, f->ops, f->n_ops, op);
    f->n_ops += !p->failed;
}

static void define_op(mil_parser *p, mil_op *op) {
    if (!strcmp(op->type, "const")) {
        define_const(p, op);
        return;
    }
    for (int32_t i = 0; i < op->n_results; i++)
        if (op->results[i]->is_opaque || op->results[i]->is_state)
            mil_fail(p, "%.200s '%.200s' makes something that is no tensor of numbers", op->type, op->name);
    mil_plan_op(p, op);
    number_op(p, op);
}

static void read_op(mil_parser *p) {
    mil_op *op = mil_new(p, sizeof *op);
    const char **names = NULL;
    if (!op) return;
    op->line = p->token.line;
    const char *after = p->at;
    while (after < p->end && strchr(" \t\r\n", *after)) after++;
    if (mil_is_type_word(p) || *after != '(') { /* otherwise an op without results */
        do {
            const char *name;
            mil_value *value = read_typed_name(p, true, &name);
            op->results = append(p, op->results, op->n_results, value);
            names = append(p, names, op->n_results, (void *)name);
            op->n_results += !p->failed;
        } while (mil_accept(p, ','));
        mil_expect(p, '=');
    }
    op->type = mil_word(p);
    op->name = op->n_results ? names[0] : op->type;
    read_arguments(p, op);
    read_attributes(p, op);
    if (mil_sees(p, '(')) mil_fail(p, "%.200s has blocks, and the Neural Engine no control flow", op->type);
    mil_expect(p, ';');
    for (int32_t i = 0; i < op->n_results && !p->failed; i++) declare(p, op->results[i], names[i]);
    if (p->failed) return;
    int32_t next = p->token.line;
    p->token.line = op->line; /* for messages */
    define_op(p, op);
    if (!p->failed) p->token.line = next;
}

/* ---- functions and programs ------------------------------------------------------------------- */

static void add_port(mil_parser *p, bool is_output, mil_value *value) {
    mil_function *f = p->function;
    f->ports[is_output] = append(p, f->ports[is_output], f->n_ports[is_output], value);
    f->n_ports[is_output] += !p->failed;
}

static void read_inputs(mil_parser *p) {
    mil_expect(p, '(');
    while (!p->failed && !mil_sees(p, ')')) {
        if (p->function->n_ports[0]) mil_expect(p, ',');
        const char *name;
        mil_value *value = read_typed_name(p, false, &name);
        declare(p, value, name);
        if (p->failed) return;
        value->index = p->function->n_values++;
        add_port(p, false, value);
    }
    mil_expect(p, ')');
}

static void read_outputs(mil_parser *p) {
    mil_expect(p, '(');
    while (!p->failed && !mil_sees(p, ')')) {
        if (p->function->n_ports[1]) mil_expect(p, ',');
        char *name = mil_word(p);
        if (p->failed) return;
        mil_value *value = find(p->function, name);
        if (!value)
            mil_fail(p, "output '%.200s' is nothing that the function makes", name);
        else if (value->is_opaque || value->is_state || value->tensor.dtype == ANEX_STRING)
            mil_fail(p, "output '%.200s' is no tensor of numbers", name);
        else
            value->last_use = p->function->n_ops;
        add_port(p, true, value);
    }
    if (!p->failed && !p->function->n_ports[1]) mil_fail(p, "a function without outputs");
    mil_expect(p, ')');
}

static void read_function(mil_parser *p) {
    mil_program *program = p->program;
    mil_function *f = p->function = mil_new(p, sizeof *f);
    mil_expect_word(p, "func");
    char *name = mil_word(p);
    if (!f || p->failed) return;
    f->name = name;
    for (int32_t i = 0; i < program->n_functions; i++)
        if (!strcmp(program->functions[i]->name, name)) mil_fail(p, "function '%.200s' is defined twice", name);
    program->functions = append(p, program->functions, program->n_functions, f);
    program->n_functions += !p->failed;
    mil_expect(p, '<');
    mil_word(p); /* the opset */
    mil_expect(p, '>');
    read_inputs(p);
    mil_op attributes = {.name = ""}; /* FlexibleShapeInformation and the like */
    read_attributes(p, &attributes);
    mil_expect(p, '{');
    while (!p->failed && !mil_sees(p, '}')) read_op(p);
    mil_expect(p, '}');
    if (p->token.kind != MIL_ARROW) mil_fail(p, "expected '->', found %s", mil_shown(p));
    mil_next(p);
    read_outputs(p);
    mil_expect(p, ';');
}

static void read_program(mil_parser *p) {
    mil_next(p);
    mil_expect_word(p, "program");
    mil_expect(p, '(');
    bool is_known = p->token.kind == MIL_NUMBER && p->token.length == 3 &&
                    (!memcmp(p->token.start, "1.0", 3) || !memcmp(p->token.start, "1.3", 3));
    if (!is_known) mil_fail(p, "expected a version, 1.0 or 1.3, found %s", mil_shown(p));
    mil_next(p);
    mil_expect(p, ')');
    mil_op attributes = {.name = ""};
    if (!mil_sees(p, '[')) mil_fail(p, "expected [buildInfo = ...], found %s", mil_shown(p));
    read_attributes(p, &attributes);
    mil_expect(p, '{');
    while (!p->failed && !mil_sees(p, '}')) read_function(p);
    mil_expect(p, '}');
    if (!p->failed && p->token.kind != MIL_END) mil_fail(p, "%s after the end of the program", mil_shown(p));
    if (!p->program->n_functions) mil_fail(p, "a program without functions");
}

mil_program *mil_parse(const char *text, size_t bytes, const mil_file *files, int n_files, char *error, size_t room) {
    mil_program *program = calloc(1, sizeof *program);
    if (room) *error = 0;
    if (!program) {
        if (room) snprintf(error, room, "no memory for a program");
        return NULL;
    }
    mil_parser parser = {.line = 1, .error = error, .room = room, .files = files, .n_files = n_files,
                         .program = program, .token = {.line = 1, .start = ""}};
    char *copy = mil_new(&parser, bytes + 1); /* ends in a NUL, which strtod needs */
    if (copy) {
        if (bytes) memcpy(copy, text, bytes);
        parser.at = copy, parser.end = copy + bytes;
        read_program(&parser);
    }
    if (!parser.failed) return program;
    mil_free(program);
    return NULL;
}

void mil_free(mil_program *program) {
    if (!program) return;
    for (int32_t f = 0; f < program->n_functions; f++)
        for (int32_t i = 0; i < program->functions[f]->n_ops; i++) {
            anex_plan_free(program->functions[f]->ops[i]->plan);
            anex_plan_free(program->functions[f]->ops[i]->unmasked);
        }
    mil_memory_free(program->memory);
    free(program);
}

/* ---- what was read ---------------------------------------------------------------------------- */

static const mil_function *function_at(const mil_program *program, int f) {
    return f >= 0 && f < program->n_functions ? program->functions[f] : NULL;
}

static const mil_value *port_at(const mil_program *program, int f, int is_output, int i) {
    const mil_function *function = function_at(program, f);
    return function && i >= 0 && i < function->n_ports[!!is_output] ? function->ports[!!is_output][i] : NULL;
}

int mil_function_count(const mil_program *program) { return program->n_functions; }

const char *mil_function_name(const mil_program *program, int f) {
    const mil_function *function = function_at(program, f);
    return function ? function->name : NULL;
}

int mil_port_count(const mil_program *program, int f, int is_output) {
    const mil_function *function = function_at(program, f);
    return function ? function->n_ports[!!is_output] : 0;
}

const char *mil_port_name(const mil_program *program, int f, int is_output, int i) {
    const mil_value *value = port_at(program, f, is_output, i);
    return value ? value->name : NULL;
}

const anex_tensor *mil_port_type(const mil_program *program, int f, int is_output, int i) {
    const mil_value *value = port_at(program, f, is_output, i);
    return value ? &value->tensor : NULL;
}

int mil_op_count(const mil_program *program, int f) {
    const mil_function *function = function_at(program, f);
    return function ? function->n_ops : 0;
}

const char *mil_op_type(const mil_program *program, int f, int i) {
    const mil_function *function = function_at(program, f);
    return function && i >= 0 && i < function->n_ops ? function->ops[i]->type : NULL;
}
