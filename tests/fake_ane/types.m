/* Methods that shall have other types than anex expects. The file is linked last: by then all classes are known. */
#import <Foundation/Foundation.h>

#import <objc/runtime.h>

#include "faults.h"

#include <stdlib.h>
#include <string.h>

/* As libobjc of gcc lays a method out; it has no function that sets the types. */
struct method {
    SEL name;
    const char *types;
    IMP implementation;
};

static void change_methods_of(Class class) {
    unsigned count = 0;
    Method *methods = class_copyMethodList(class, &count);
    for (unsigned i = 0; i < count; i++) {
        const char *name = sel_getName(method_getName(methods[i]));
        if (fake_lists(FAKE_AT_wrong_types, name, strlen(name))) ((struct method *)methods[i])->types = "v16@0:8";
    }
    free(methods);
}

__attribute__((constructor)) static void change_types(void) {
    char text[FAKE_TEXT];
    if (!*fake_text(FAKE_AT_wrong_types, text)) return;
    int count = objc_getClassList(NULL, 0);
    Class *classes = calloc((size_t)count, sizeof *classes);
    count = objc_getClassList(classes, count);
    for (int i = 0; i < count; i++) {
        if (strncmp(class_getName(classes[i]), "_ANE", 4)) continue;
        change_methods_of(classes[i]);
        change_methods_of(object_getClass((id)classes[i]));
    }
    free(classes);
}
