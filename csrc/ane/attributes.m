/* What a loaded program says of its tensors: `modelAttributes`, read with distrust.

     ANEFModelDescription
       ANEFModelProcedures[]: ANEFModelProcedureID, ANEFModelInputSymbolIndexArray[], ANEFModelOutputSymbolIndexArray[]
       kANEFModelInputSymbolsArrayKey[], kANEFModelOutputSymbolsArrayKey[]   "x", "y@output": sorted by name
     NetworkStatusList[], one per procedure: Name, LiveInputList[], LiveOutputList[]
       each: Name, Type, Batches, Channels, Depth, Height, Width, BatchStride, PlaneStride, DepthStride, RowStride */
#import "internal.h"

#include <stdio.h>
#include <string.h>

typedef struct reading {
    NSDictionary *attributes, *description, *procedure, *network;
    NSArray *networks;
    const char *name; /* of the function */
} reading;

/* ---- getting at things ------------------------------------------------------------------------------------- */

/* The value under the framework's own constant of that name if it exports one, else under the literal seen. */
static id look_up(NSDictionary *dictionary, const char *constant, NSString *literal, Class class) {
    NSString *key = constant ? anex_ane_constant(constant) : nil;
    id found = key ? anex_ane_typed([dictionary objectForKey:key], class) : nil;
    return found ? found : anex_ane_typed([dictionary objectForKey:literal], class);
}

static NSArray *array(NSDictionary *dictionary, const char *constant, NSString *literal) {
    return look_up(dictionary, constant, literal, [NSArray class]);
}

static id at(NSArray *list, NSUInteger i, Class class) {
    return i < [list count] ? anex_ane_typed([list objectAtIndex:i], class) : nil;
}

static bool is_text(id object, const char *text) {
    const char *utf8 = [anex_ane_typed(object, [NSString class]) UTF8String];
    return utf8 && !strcmp(utf8, text);
}

/* "y@output" is y: the compiler marks outputs. */
static bool is_symbol(id object, const char *name) {
    const char *utf8 = [anex_ane_typed(object, [NSString class]) UTF8String];
    size_t n = strlen(name);
    return utf8 && !strncmp(utf8, name, n) && (!utf8[n] || !strcmp(utf8 + n, "@output"));
}

static NSDictionary *named(NSArray *list, const char *name) {
    for (NSUInteger i = 0; i < [list count]; i++) {
        NSDictionary *entry = at(list, i, [NSDictionary class]);
        if (is_symbol([entry objectForKey:@"Name"], name)) return entry;
    }
    return nil;
}

/* ---- the function ------------------------------------------------------------------------------------------ */

static int64_t index_of_network(const reading *r) {
    for (NSUInteger i = 0; r->name && i < [r->networks count]; i++)
        if (is_text([at(r->networks, i, [NSDictionary class]) objectForKey:@"Name"], r->name)) return (int64_t)i;
    return -1;
}

static int64_t id_by_name(const reading *r) {
    NSDictionary *map = look_up(r->description, "kANEFModelProcedureNameToIDMapKey", @"ANEFModelProcedureNameToIDMap",
                                [NSDictionary class]);
    NSString *name = r->name ? [NSString stringWithUTF8String:r->name] : nil;
    NSNumber *found = name ? anex_ane_typed([map objectForKey:name], [NSNumber class]) : nil;
    return found ? [found longLongValue] : -1;
}

static int64_t id_of(NSDictionary *procedure, int64_t otherwise) {
    NSNumber *found = look_up(procedure, "kANEFModelProcedureIDKey", @"ANEFModelProcedureID", [NSNumber class]);
    return found ? [found longLongValue] : otherwise;
}

/* Its number, its symbols and its tensors. A program of one function needs no name. */
static anex_status find_procedure(reading *r, int32_t *number, anex_error *error) {
    NSArray *procedures = array(r->description, "kANEFModelProceduresArrayKey", @"ANEFModelProcedures");
    NSUInteger n = [procedures count];
    int64_t network = index_of_network(r), id = id_by_name(r), i = -1;
    for (NSUInteger k = 0; id >= 0 && k < n; k++)
        if (id_of(at(procedures, k, [NSDictionary class]), (int64_t)k) == id) i = (int64_t)k;
    if (i < 0) i = network;
    if (i < 0 && n <= 1 && [r->networks count] <= 1) i = 0;
    if (i < 0)
        return anex_fail(error, ANEX_ARGUMENT, "the loaded program has %lu functions, and none is called %s",
                         (unsigned long)(n ? n : [r->networks count]), r->name ? r->name : "(no name given)");
    r->procedure = at(procedures, (NSUInteger)i, [NSDictionary class]);
    r->network = at(r->networks, (NSUInteger)(network >= 0 ? network : i), [NSDictionary class]);
    id = id_of(r->procedure, i);
    if (id < 0 || id > 128) /* the framework's own limit */
        return anex_fail(error, ANEX_DEVICE, "the loaded program numbers its function %s %lld, beyond 128", r->name,
                         (long long)id);
    *number = (int32_t)id;
    return ANEX_OK;
}

/* ---- symbols ----------------------------------------------------------------------------------------------- */

static NSArray *symbols_of(const reading *r, bool output) {
    const char *constant = output ? "kANEFModelOutputSymbolsArrayKey" : "kANEFModelInputSymbolsArrayKey";
    NSString *literal = output ? @"kANEFModelOutputSymbolsArrayKey" : @"kANEFModelInputSymbolsArrayKey";
    NSArray *symbols = array(r->description, constant, literal);
    return symbols ? symbols : array(r->attributes, constant, literal);
}

static NSArray *indices_of(const reading *r, bool output) {
    return output ? array(r->procedure, "kANEFModelOutputSymbolIndexArrayKey", @"ANEFModelOutputSymbolIndexArray")
                  : array(r->procedure, "kANEFModelInputSymbolIndexArrayKey", @"ANEFModelInputSymbolIndexArray");
}

static void list_symbols(const reading *r, bool output, char *to, size_t room) {
    NSArray *symbols = symbols_of(r, output), *indices = indices_of(r, output);
    size_t used = 0;
    *to = 0;
    for (NSUInteger k = 0; k < (indices ? [indices count] : [symbols count]) && used + 80 < room; k++) {
        char name[64];
        NSUInteger i = indices ? [at(indices, k, [NSNumber class]) unsignedIntegerValue] : k;
        anex_ane_copy_text(name, sizeof name, at(symbols, i, [NSString class]));
        used += (size_t)snprintf(to + used, room - used, "%s%s", used ? ", " : "", name);
    }
    if (!used) snprintf(to, room, "none");
}

/* The place of a name among the symbols; those of other functions do not count. */
static anex_status find_symbol(const reading *r, anex_ane_port *port, bool output, anex_error *error) {
    NSArray *symbols = symbols_of(r, output), *indices = indices_of(r, output);
    for (NSUInteger k = 0; k < (indices ? [indices count] : [symbols count]); k++) {
        NSUInteger i = k;
        if (indices) {
            NSNumber *index = at(indices, k, [NSNumber class]);
            if (!index) continue;
            i = [index unsignedIntegerValue];
        }
        if (i >= 255 || !is_symbol(at(symbols, i, [NSString class]), port->name)) continue;
        port->symbol = (int32_t)i;
        return ANEX_OK;
    }
    char known[400];
    list_symbols(r, output, known, sizeof known);
    return anex_fail(error, ANEX_INVALID,
                     "%s %s is not among the compiled program's %ss, which are %s: the compiler dropped or renamed it",
                     output ? "output" : "input", port->name, output ? "output" : "input", known);
}

/* ---- layout ------------------------------------------------------------------------------------------------ */

enum { AXES = 5 }; /* batch, channel, depth, row, column */

typedef struct layout {
    int64_t shape[AXES], strides[AXES];
} layout;

static int64_t number(NSDictionary *entry, NSString *key, int64_t otherwise) {
    NSNumber *found = anex_ane_typed([entry objectForKey:key], [NSNumber class]);
    int64_t value = found ? [found longLongValue] : otherwise;
    return value < 0 || value > (int64_t)1 << 46 ? -1 : value;
}

static anex_status read_layout(NSDictionary *entry, const anex_ane_port *port, layout *l, anex_error *error) {
    static NSString *const sizes[] = {@"Batches", @"Channels", @"Depth", @"Height", @"Width"};
    static NSString *const steps[] = {@"BatchStride", @"PlaneStride", @"DepthStride", @"RowStride"};
    l->strides[AXES - 1] = anex_dtypes[port->tensor.dtype].bits / 8;
    bool is_whole = entry != nil;
    for (int32_t i = AXES; i-- > 0;) {
        l->shape[i] = number(entry, sizes[i], 1);
        /* a stride that is left out: what lies within follows without a gap */
        if (i < AXES - 1) l->strides[i] = number(entry, steps[i], i == 2 ? l->strides[3] * l->shape[3] : -1);
        is_whole = is_whole && l->shape[i] > 0 && l->strides[i] > 0;
    }
    if (!is_whole)
        return anex_fail(error, ANEX_DEVICE,
                         "the loaded program does not say how %s lies in memory (its NetworkStatusList lacks it, or "
                         "its sizes or strides)",
                         port->name);
    if (number(entry, @"Interleave", 1) != 1)
        return anex_fail(error, ANEX_UNSUPPORTED,
                         "the compiled program wants %s interleaved, which anex does not write",
                         port->name);
    return ANEX_OK;
}

static anex_status check_type(NSDictionary *entry, const anex_ane_port *port, anex_error *error) {
    static const struct {
        const char *name;
        anex_dtype dtype;
    } types[] = {{"Float16", ANEX_F16}, {"Float32", ANEX_F32}, {"Int8", ANEX_I8},   {"UInt8", ANEX_U8},
                 {"Int16", ANEX_I16},   {"UInt16", ANEX_U16},  {"Int32", ANEX_I32}, {"Bool", ANEX_BOOL}};
    char found[64];
    anex_ane_copy_text(found, sizeof found, [entry objectForKey:@"Type"]);
    if (!*found) return ANEX_OK; /* it says nothing, so nothing contradicts */
    for (size_t i = 0; i < sizeof types / sizeof *types; i++)
        if (types[i].dtype == port->tensor.dtype && !strcmp(types[i].name, found)) return ANEX_OK;
    return anex_fail(error, ANEX_DTYPE, "%s is declared as %s, and the compiled program takes %s", port->name,
                     anex_dtypes[port->tensor.dtype].name, found);
}

static void write_shape(char *to, size_t room, int32_t rank, const int64_t *shape) {
    size_t used = (size_t)snprintf(to, room, "[");
    for (int32_t i = 0; i < rank && used + 24 < room; i++)
        used += (size_t)snprintf(to + used, room - used, i ? ", %lld" : "%lld", (long long)shape[i]);
    snprintf(to + used, room - used, "]");
}

static anex_status fail_shape(const anex_ane_port *port, const layout *l, anex_error *error) {
    char declared[160], found[160];
    write_shape(declared, sizeof declared, port->tensor.rank, port->tensor.shape);
    write_shape(found, sizeof found, AXES, l->shape);
    return anex_fail(error, ANEX_SHAPE,
                     "%s is declared as %s, and the compiled program holds it as %s "
                     "(batch, channel, depth, height, width)",
                     port->name, declared, found);
}

/* The stride that an axis of length 1 would have: that of the next reported axis that holds what lies within it. */
static int64_t idle_stride(const layout *l, int64_t within) {
    for (int32_t k = AXES - 1; k-- > 0;)
        if (l->strides[k] >= within) return l->strides[k];
    return within;
}

/* Axes longer than 1 must be the same on both sides, in order, from the innermost; where the others stand makes no
   difference. A reported axis may also hold several declared ones, as the batch does for rank 5. */
static anex_status lay_out(anex_ane_port *port, const layout *l, anex_error *error) {
    anex_tensor *t = &port->tensor;
    int32_t axis = AXES;
    int64_t held = 1; /* of the reported axis, in declared elements */
    for (int32_t i = t->rank; i-- > 0;) {
        int64_t within = i == t->rank - 1 ? l->strides[AXES - 1] : t->strides[i + 1] * t->shape[i + 1];
        if (t->shape[i] == 1) {
            t->strides[i] = i == t->rank - 1 ? within : idle_stride(l, within);
            continue;
        }
        if (axis == AXES || held == l->shape[axis]) {
            held = 1;
            do axis--;
            while (axis >= 0 && l->shape[axis] == 1);
            if (axis < 0) return fail_shape(port, l, error);
        }
        t->strides[i] = l->strides[axis] * held;
        held *= t->shape[i];
        if (l->shape[axis] % held) return fail_shape(port, l, error);
    }
    if (axis < AXES && held != l->shape[axis]) return fail_shape(port, l, error);
    while (--axis >= 0)
        if (l->shape[axis] != 1) return fail_shape(port, l, error);
    port->bytes = l->shape[0] * l->strides[0];
    if (anex_tensor_extent(t) > port->bytes)
        return anex_fail(error, ANEX_DEVICE, "the loaded program gives %s %lld bytes, fewer than its strides reach",
                         port->name, (long long)port->bytes);
    return ANEX_OK;
}

/* The entry of a port: in its function's list, or in any if the lists have no names to go by. */
static NSDictionary *find_entry(const reading *r, const anex_ane_port *port, bool output) {
    NSString *list = output ? @"LiveOutputList" : @"LiveInputList";
    NSDictionary *entry = named(array(r->network, NULL, list), port->name);
    for (NSUInteger i = 0; !entry && i < [r->networks count]; i++)
        entry = named(array(at(r->networks, i, [NSDictionary class]), NULL, list), port->name);
    return entry;
}

static anex_status read_side(const reading *r, int32_t n, anex_ane_port *ports, bool output, anex_error *error) {
    NSArray *indices = indices_of(r, output);
    NSUInteger found = indices ? [indices count] : [symbols_of(r, output) count];
    for (int32_t i = 0; i < n; i++) {
        layout l;
        anex_status status = find_symbol(r, &ports[i], output, error);
        NSDictionary *entry = find_entry(r, &ports[i], output);
        if (!status) status = check_type(entry, &ports[i], error);
        if (!status) status = read_layout(entry, &ports[i], &l, error);
        if (!status) status = lay_out(&ports[i], &l, error);
        if (status) return status;
    }
    if (found == (NSUInteger)n) return ANEX_OK;
    char known[400];
    list_symbols(r, output, known, sizeof known);
    return anex_fail(error, ANEX_INVALID, "%d %ss are declared, and the compiled program has %lu: %s", n,
                     output ? "output" : "input", (unsigned long)found, known);
}

anex_status anex_ane_read_ports(NSDictionary *attributes, const char *name, int32_t n_inputs, anex_ane_port *inputs,
                                int32_t n_outputs, anex_ane_port *outputs, int32_t *procedure, anex_error *error) {
    reading r = {.attributes = anex_ane_typed(attributes, [NSDictionary class]), .name = name};
    r.description = look_up(r.attributes, "kANEFModelDescriptionKey", @"ANEFModelDescription", [NSDictionary class]);
    r.networks = array(r.attributes, NULL, @"NetworkStatusList");
    if (!r.description)
        return anex_fail(error, ANEX_DEVICE,
                         "the loaded program does not describe itself (modelAttributes lacks ANEFModelDescription)");
    anex_status status = find_procedure(&r, procedure, error);
    if (!status) status = read_side(&r, n_inputs, inputs, false, error);
    return status ? status : read_side(&r, n_outputs, outputs, true, error);
}
