/* The tables of a compiled program: symbols in the compiler's order, strides, and the dictionary that tells of them. */
#import "fake.h"

#include <stdlib.h>
#include <string.h>

enum { ROW_ALIGNMENT = 64 };

/* [N, C, H, W], the last axes given and the others 1; with rank 5 the first two are the batches. */
static void lay_out(fake_symbol *symbol, const anex_tensor *type) {
    int64_t shape[4] = {1, 1, 1, 1}, item = anex_dtypes[type->dtype].bits / 8;
    for (int axis = type->rank - 1, at = 3; axis >= 0; axis--, at--) shape[at > 0 ? at : 0] *= type->shape[axis];
    symbol->batches = shape[0];
    symbol->channels = shape[1];
    symbol->height = shape[2];
    symbol->width = shape[3];
    symbol->row_stride = (shape[3] * item + ROW_ALIGNMENT - 1) / ROW_ALIGNMENT * ROW_ALIGNMENT;
    symbol->plane_stride = symbol->height * symbol->row_stride;
    symbol->batch_stride = symbol->channels * symbol->plane_stride;
    int64_t strides[4] = {symbol->batch_stride, symbol->plane_stride, symbol->row_stride, item};
    symbol->tensor = *type;
    symbol->tensor.data = NULL;
    for (int axis = type->rank - 1, at = 3; axis >= 0; axis--, at--)
        symbol->tensor.strides[axis] =
            at >= 0 ? strides[at] : symbol->tensor.strides[axis + 1] * type->shape[axis + 1];
}

/* ASCII order of names, within a procedure or over all of them. */
static const mil_program *sorted; /* with the lock held: qsort takes no context */
static int sorted_output;
static bool sorted_globally;

static int compare(const void *left, const void *right) {
    const fake_symbol *a = left, *b = right;
    int names = strcmp(mil_port_name(sorted, a->procedure, sorted_output, a->port),
                       mil_port_name(sorted, b->procedure, sorted_output, b->port));
    int procedures = a->procedure - b->procedure;
    if (sorted_globally) return names ? names : procedures;
    return procedures ? procedures : names;
}

fake_symbols fake_symbols_of(const mil_program *program, int is_output) {
    fake_symbols table = {0};
    for (int f = 0; f < mil_function_count(program); f++) table.count += mil_port_count(program, f, is_output);
    fake_symbol *next = table.items = calloc((size_t)table.count + 1, sizeof *table.items);
    for (int f = 0; f < mil_function_count(program); f++)
        for (int i = 0; i < mil_port_count(program, f, is_output); i++) {
            next->procedure = f;
            next->port = i;
            lay_out(next++, mil_port_type(program, f, is_output, i));
        }
    @synchronized([_ANEProgramForEvaluation class]) {
        sorted = program;
        sorted_output = is_output;
        sorted_globally = fake_is(FAKE_AT_symbols, "global");
        qsort(table.items, (size_t)table.count, sizeof *table.items, compare);
    }
    return table;
}

static NSString *name_of(const mil_program *program, const fake_symbol *symbol, int is_output, BOOL has_suffix) {
    const char *name = mil_port_name(program, symbol->procedure, is_output, symbol->port);
    return [NSString stringWithFormat:is_output && has_suffix ? @"%s@output" : @"%s", name];
}

static NSArray *indices_of(const fake_symbols *table, int procedure) {
    NSMutableArray *indices = [NSMutableArray array];
    for (int i = 0; i < table->count; i++)
        if (table->items[i].procedure == procedure) [indices addObject:[NSNumber numberWithInt:i]];
    return indices;
}

static NSNumber *number(int64_t value) { return [NSNumber numberWithLongLong:value]; }

/* "Float16": the framework's name of a dtype. Those with a question mark are guesses. */
static NSString *type_of(anex_dtype dtype) {
    static NSString *const names[ANEX_DTYPE_COUNT] = {
        [ANEX_F16] = @"Float16", [ANEX_F32] = @"Float32", [ANEX_I8] = @"Int8", [ANEX_U8] = @"UInt8",
        [ANEX_I16] = @"Int16", [ANEX_U16] = @"UInt16", [ANEX_I32] = @"Int32", [ANEX_U32] = @"UInt32",
        [ANEX_BOOL] = @"Bool"};
    return names[dtype] ? names[dtype] : @"Unknown";
}

/* The declared order: whoever binds by it is caught. */
static NSArray *live_list(const mil_program *program, const fake_symbols *table, int procedure, int is_output) {
    NSMutableArray *list = [NSMutableArray array];
    BOOL has_suffix = fake_is(FAKE_AT_status_names, "suffix");
    for (int port = 0; port < mil_port_count(program, procedure, is_output); port++)
        for (int i = 0; i < table->count; i++) {
            const fake_symbol *s = &table->items[i];
            if (s->procedure != procedure || s->port != port) continue;
            NSMutableDictionary *entry = [NSMutableDictionary dictionary];
            [entry setObject:name_of(program, s, is_output, has_suffix) forKey:@"Name"];
            [entry setObject:type_of(s->tensor.dtype) forKey:@"Type"];
            [entry setObject:number(s->batches) forKey:@"Batches"];
            [entry setObject:number(s->batch_stride) forKey:@"BatchStride"];
            [entry setObject:number(s->plane_stride) forKey:@"PlaneStride"];
            [entry setObject:number(s->row_stride) forKey:@"RowStride"];
            [entry setObject:number(s->width) forKey:@"Width"];
            [entry setObject:number(s->height) forKey:@"Height"];
            [entry setObject:number(s->channels) forKey:@"Channels"];
            [entry setObject:number(1) forKey:@"Depth"];
            [list addObject:entry];
        }
    return list;
}

NSDictionary *fake_attributes(const mil_program *program, const fake_symbols tables[2]) {
    NSMutableArray *symbols[2], *procedures = [NSMutableArray array], *statuses = [NSMutableArray array];
    NSMutableDictionary *ids = [NSMutableDictionary dictionary], *description = [NSMutableDictionary dictionary];
    for (int side = 0; side < 2; side++) {
        symbols[side] = [NSMutableArray array];
        for (int i = 0; i < tables[side].count; i++)
            [symbols[side] addObject:name_of(program, &tables[side].items[i], side, YES)];
    }
    for (int f = 0; f < mil_function_count(program); f++) {
        NSString *name = [NSString stringWithUTF8String:mil_function_name(program, f)];
        NSMutableDictionary *procedure = [NSMutableDictionary dictionary], *status = [NSMutableDictionary dictionary];
        [procedure setObject:number(f) forKey:@"ANEFModelProcedureID"];
        [procedure setObject:indices_of(&tables[0], f) forKey:@"ANEFModelInputSymbolIndexArray"];
        [procedure setObject:indices_of(&tables[1], f) forKey:@"ANEFModelOutputSymbolIndexArray"];
        [procedures addObject:procedure];
        [ids setObject:number(f) forKey:name];
        [status setObject:name forKey:@"Name"];
        [status setObject:live_list(program, &tables[0], f, 0) forKey:@"LiveInputList"];
        [status setObject:live_list(program, &tables[1], f, 1) forKey:@"LiveOutputList"];
        [status setObject:[NSArray array] forKey:@"LiveInputParamList"];
        [status setObject:[NSArray array] forKey:@"LiveStateList"];
        [statuses addObject:status];
    }
    [description setObject:procedures forKey:@"ANEFModelProcedures"];
    [description setObject:symbols[0] forKey:@"kANEFModelInputSymbolsArrayKey"];
    [description setObject:symbols[1] forKey:@"kANEFModelOutputSymbolsArrayKey"];
    [description setObject:ids forKey:@"kANEFModelProcedureNameToIDMapKey"];
    return [NSDictionary dictionaryWithObjectsAndKeys:description, @"ANEFModelDescription", statuses,
                                                      @"NetworkStatusList", nil];
}
