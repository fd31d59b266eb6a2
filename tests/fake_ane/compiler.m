/* What the compiler daemon does: reads the model's directory, and is strict about it. */
#import "fake.h"

#include <stdlib.h>
#include <string.h>

enum { RECORD = 64 }; /* bytes of the header before each tensor in a blob file */
static const unsigned char MAGIC[4] = {0xEF, 0xBE, 0xAD, 0xDE};

static NSString *objection(NSString *format, ...) NS_FORMAT_FUNCTION(1, 2);
static NSString *objection(NSString *format, ...) {
    va_list arguments;
    va_start(arguments, format);
    NSString *why = [[[NSString alloc] initWithFormat:format arguments:arguments] autorelease];
    va_end(arguments);
    return why;
}

/* nil, or what is wrong with the record at `offset`. */
static NSString *check_record(NSData *blob, NSString *path, uint64_t offset) {
    const unsigned char *bytes = [blob bytes];
    uint64_t length = [blob length], size, at;
    if (offset % RECORD || offset < RECORD)
        return objection(@"offset %llu in %@ is not aligned to 64 bytes", (unsigned long long)offset, path);
    if (offset + RECORD > length)
        return objection(@"offset %llu is past the end of %@", (unsigned long long)offset, path);
    if (memcmp(bytes + offset, MAGIC, sizeof MAGIC))
        return objection(@"no 0xDEADBEEF at offset %llu of %@", (unsigned long long)offset, path);
    memcpy(&size, bytes + offset + 8, sizeof size);
    memcpy(&at, bytes + offset + 16, sizeof at);
    if (at % RECORD || at > length || size > length - at)
        return objection(@"the record at offset %llu of %@ points outside the file", (unsigned long long)offset, path);
    return nil;
}

/* The text between the next two quotes. NULL at the end. */
static const char *quoted(const char *from, const char *end, size_t *length) {
    const char *open = memchr(from, '"', (size_t)(end - from));
    const char *close = open ? memchr(open + 1, '"', (size_t)(end - open - 1)) : NULL;
    *length = close ? (size_t)(close - open - 1) : 0;
    return close ? open + 1 : NULL;
}

/* Every BLOBFILE(path = string("..."), offset = uint64(n)) of the text: its file, read once, and its record. */
static NSString *read_blobs(NSData *text, NSString *directory, NSMutableDictionary *blobs) {
    static const char word[] = "BLOBFILE";
    const char *at = [text bytes], *end = at + [text length];
    while ((at = memmem(at, (size_t)(end - at), word, sizeof word - 1))) {
        size_t length;
        const char *name = quoted(at, end, &length);
        const char *offset = name ? memmem(name + length, (size_t)(end - name) - length, "offset", 6) : NULL;
        while (offset && offset < end && *offset != '(') offset++;
        if (!name || !offset || end - offset < 2) return @"a BLOBFILE without path and offset";
        at = offset;
        NSString *path = [[[NSString alloc] initWithBytes:name length:length
                                                 encoding:NSUTF8StringEncoding] autorelease];
        if (![path hasPrefix:@"@model_path/"]) return objection(@"%@ does not begin with @model_path/", path);
        NSData *blob = [blobs objectForKey:path];
        if (!blob) {
            NSString *file = [directory stringByAppendingPathComponent:[path substringFromIndex:12]];
            blob = [NSData dataWithContentsOfFile:file];
            if (!blob) return objection(@"there is no %@", file);
            [blobs setObject:blob forKey:path];
        }
        char digits[24] = ""; /* NSData does not end with a zero */
        memcpy(digits, offset + 1, (size_t)(end - offset - 1) < 23 ? (size_t)(end - offset - 1) : 23);
        NSString *why = check_record(blob, path, strtoull(digits, NULL, 10));
        if (why) return why;
    }
    return nil;
}

mil_program *fake_parse(NSData *text, NSDictionary *blobs, NSString **why) {
    char error[1024] = "";
    mil_file *files = calloc([blobs count] + 1, sizeof *files);
    int n = 0;
    for (NSString *path in blobs) {
        NSData *blob = [blobs objectForKey:path];
        files[n++] = (mil_file){[path UTF8String], [blob bytes], [blob length]};
    }
    mil_program *program = mil_parse([text bytes], [text length], files, n, error, sizeof error);
    free(files);
    if (!program && why) *why = objection(@"%s", error);
    return program;
}

/* The largest axes that were seen to compile: [N, C, H, W], and at most five of them (FRG). */
static NSString *check_limits(const mil_program *program, int f, int side) {
    char arch[FAKE_TEXT];
    int64_t axis = atoi(fake_text(FAKE_AT_arch, arch) + (*arch != 0)) < 16 ? 16384 : 65536, channels = 65536;
    for (int i = 0; i < mil_port_count(program, f, side); i++) {
        const anex_tensor *type = mil_port_type(program, f, side, i);
        if (type->rank > 5) return objection(@"rank %d", type->rank);
        for (int a = 0; a < type->rank; a++)
            if (type->shape[a] > (a == type->rank - 3 ? channels : axis))
                return objection(@"axis %d of %s has %lld elements", a, mil_port_name(program, f, side, i),
                                 (long long)type->shape[a]);
    }
    return nil;
}

/* What the interpreter accepts and the compiler would not. */
static NSString *check_program(const mil_program *program) {
    for (int f = 0; f < mil_function_count(program) && fake_flag(FAKE_AT_chip_limits); f++)
        for (int side = 0; side < 2; side++) {
            NSString *why = check_limits(program, f, side);
            if (why) return why;
        }
    for (int f = 0; f < mil_function_count(program); f++)
        for (int i = 0; i < mil_op_count(program, f); i++) {
            const char *op = mil_op_type(program, f, i);
            if (fake_lists(FAKE_AT_reject, op, strlen(op))) return objection(@"the op %s is to be rejected", op);
        }
    return nil;
}

NSString *fake_compile(NSString *identifier, NSString *directory, NSData *text) {
    NSData *written = [NSData dataWithContentsOfFile:[directory stringByAppendingPathComponent:@"model.mil"]];
    if (!written) return objection(@"there is no %@/model.mil", directory);
    if (![written isEqualToData:text]) return objection(@"model.mil is not the text that the descriptor was given");
    NSMutableDictionary *blobs = [NSMutableDictionary dictionary];
    NSString *why = read_blobs(text, directory, blobs);
    if (why) return why;
    mil_program *program = fake_parse(text, blobs, &why);
    if (!program) return why;
    why = check_program(program);
    mil_free(program);
    if (!why && !fake_cache_put(identifier, text, blobs)) why = @"the cache cannot be written";
    return why;
}
