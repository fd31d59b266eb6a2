/* What the framework says when it refuses, and when it refuses without a word. */
#import "internal.h"

#include <stdio.h>
#include <string.h>

id anex_ane_typed(id object, Class class) { return [object isKindOfClass:class] ? object : nil; }

void anex_ane_copy_text(char *to, size_t room, id text) {
    const char *utf8 = [anex_ane_typed(text, [NSString class]) UTF8String];
    snprintf(to, room, "%s", utf8 ? utf8 : "");
}

/* ---- NSError ----------------------------------------------------------------------------------------------- */

static const char GENERIC[] = "com.apple.appleneuralengine", COMPILER[] = "com.apple.appleneuralengine.compiler";

/* Codes of the generic domain that have a meaning for the caller. ANEX_OK: the status of the call stays. */
static const struct advice {
    int code;
    anex_status status;
    const char *text;
} advice[] = {
    {1, ANEX_UNSUPPORTED, "this needs an entitlement that Apple gives to its own programs only"},
    {2, ANEX_UNSUPPORTED, "real-time priority needs an entitlement that Apple gives to its own programs only"},
    {3, ANEX_OK, "the device did not answer in time: try again, or split the program"},
    {4, ANEX_OK, "the compiled program could not be set up: compile it again with recompile"},
    {6, ANEX_OK, "too many programs may be loaded: close some, and if it lasts compile again with recompile=True"},
    {9, ANEX_OK, "the program's files cannot be read: is the temporary directory in place?"},
    {10, ANEX_OK, "the framework takes this for no model: files or blobs of it are missing or damaged"},
    {13, ANEX_UNSUPPORTED, "programs compiled from text cannot map surfaces; running them does not need it"},
    {15, ANEX_UNSUPPORTED, "chaining is refused to programs compiled from text; run them one after the other"},
    {16, ANEX_OK, "a file of the program is gone: compile it again"},
    {17, ANEX_OK, "the cache has forgotten the program: compile it again"},
    {22, ANEX_UNSUPPORTED, "this is a virtual machine, whose host lends it no Neural Engine; use device=\"cpu\""},
    {23, ANEX_OK, "the daemon has forgotten the program: compile it again"},
    {25, ANEX_UNSUPPORTED, "this macOS does not offer it"},
    {42, ANEX_SHAPE, "a surface is smaller than the program expects"},
};

static const struct advice *find_advice(NSError *why, const char *domain, const char *text) {
    static const struct advice too_small = {0, ANEX_SHAPE, "a surface is smaller than the program expects"},
                               no_symbol = {0, ANEX_OK, "a surface was bound to an index that the program lacks"},
                               bad_text = {0, ANEX_INVALID,
                                           "an op, a shape or a dtype of the program is not for it; device=\"cpu\" runs "
                                           "the program all the same"},
                               other = {0, ANEX_OK,
                                        "try again, and if it lasts compile with recompile=True; what `anex doctor` "
                                        "says helps whoever looks into it"};
    if (!strcmp(domain, COMPILER) || strstr(text, "ANECCompile")) return &bad_text;
    if (strcmp(domain, GENERIC)) return &other;
    if (strstr(text, "status=0x1d") || strstr(text, "status=0x1D")) return &too_small;
    if (strstr(text, "status=0x2 ") || strstr(text, "underlying=0x2)")) return &no_symbol;
    for (size_t i = 0; i < sizeof advice / sizeof *advice; i++)
        if (advice[i].code == [why code]) return &advice[i];
    return &other;
}

anex_status anex_ane_fail(anex_error *error, anex_status status, const char *what, NSError *why, const char *silent) {
    if (!anex_ane_typed(why, [NSError class]))
        return anex_fail(error, status, "%s failed, and the framework gives no reason; %s", what, silent);
    char text[512], domain[128];
    anex_ane_copy_text(text, sizeof text, [why localizedDescription]);
    anex_ane_copy_text(domain, sizeof domain, [why domain]);
    const struct advice *more = find_advice(why, domain, text);
    return anex_fail(error, more->status ? more->status : status, "%s failed: %s (%s, code %ld); %s", what, text,
                     domain, (long)[why code], more->text);
}

bool anex_ane_was_forgotten(NSError *error) {
    char domain[128];
    if (!anex_ane_typed(error, [NSError class])) return false;
    anex_ane_copy_text(domain, sizeof domain, [error domain]);
    return !strcmp(domain, GENERIC) && ([error code] == 23 || [error code] == 17);
}

/* ---- NSException ------------------------------------------------------------------------------------------- */

anex_status anex_ane_fail_exception(anex_error *error, const char *what, NSException *exception) {
    char name[128], reason[512];
    anex_ane_copy_text(name, sizeof name, [exception name]);
    anex_ane_copy_text(reason, sizeof reason, [exception reason]);
    return anex_fail(error, ANEX_DEVICE,
                     "%s failed: the framework raised %s: %s; this is a defect in it or in anex, please report it",
                     what, name, reason);
}
