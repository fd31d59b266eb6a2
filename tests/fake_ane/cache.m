/* Compiled programs that outlive their models: one folder per identifier with the text and the blobs.

   By default a folder of this process's own, removed at exit. With the switch cache_dir processes share one. */
#import "fake.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* And the process, and what makes it unique. */
static NSString *prefix(void) { return [NSTemporaryDirectory() stringByAppendingPathComponent:@"fake_ane_cache_"]; }

static NSString *own; /* made at first use */
static pid_t owner;

static void remove_own(void) {
    @autoreleasepool {
        if (own && owner == getpid()) [[NSFileManager defaultManager] removeFileAtPath:own handler:nil];
    }
}

/* Folders of processes that were killed. */
static void sweep(void) {
    NSFileManager *files = [NSFileManager defaultManager];
    NSString *folder = [prefix() stringByDeletingLastPathComponent];
    NSString *start = [prefix() lastPathComponent];
    for (NSString *name in [files directoryContentsAtPath:folder]) {
        int maker = [name hasPrefix:start] ? [[name substringFromIndex:[start length]] intValue] : 0;
        if (maker > 0 && kill(maker, 0) && errno == ESRCH)
            [files removeFileAtPath:[folder stringByAppendingPathComponent:name] handler:nil];
    }
}

static NSString *root(void) {
    char text[FAKE_TEXT];
    if (*fake_text(FAKE_AT_cache_dir, text)) {
        NSString *path = [NSString stringWithUTF8String:text];
        [[NSFileManager defaultManager] createDirectoryAtPath:path
                                  withIntermediateDirectories:YES
                                                   attributes:nil
                                                        error:NULL];
        return path;
    }
    @synchronized([_ANEClient class]) {
        if (!own || owner != getpid()) { /* a forked child has one of its own */
            char path[1024];
            sweep();
            snprintf(path, sizeof path, "%s%d_XXXXXX", [prefix() fileSystemRepresentation], (int)getpid());
            if (!mkdtemp(path)) return @"/nonexistent";
            if (!own) atexit(remove_own);
            own = [[NSString alloc] initWithUTF8String:path];
            owner = getpid();
        }
        return own;
    }
}

static NSString *folder(NSString *identifier) { return [root() stringByAppendingPathComponent:identifier]; }

BOOL fake_cache_has(NSString *identifier) {
    return [identifier length] && [[NSFileManager defaultManager] fileExistsAtPath:folder(identifier)];
}

/* Written aside and renamed, so that another process sees all or nothing. */
BOOL fake_cache_put(NSString *identifier, NSData *text, NSDictionary *blobs) {
    static int count;
    NSFileManager *files = [NSFileManager defaultManager];
    NSString *aside = [root() stringByAppendingPathComponent:
        [NSString stringWithFormat:@"part-%d-%d", (int)getpid(), __sync_add_and_fetch(&count, 1)]];
    BOOL is_written = [files createDirectoryAtPath:aside withIntermediateDirectories:YES attributes:nil error:NULL] &&
                      [text writeToFile:[aside stringByAppendingPathComponent:@"model.mil"] atomically:NO];
    NSArray *paths = [blobs allKeys];
    for (NSUInteger i = 0; is_written && i < [paths count]; i++) {
        NSString *name = [NSString stringWithFormat:@"blob%u", (unsigned)i];
        NSData *blob = [blobs objectForKey:[paths objectAtIndex:i]];
        is_written = [blob writeToFile:[aside stringByAppendingPathComponent:name] atomically:NO];
    }
    is_written = is_written && [paths writeToFile:[aside stringByAppendingPathComponent:@"paths"] atomically:NO];
    if (is_written) {
        fake_cache_purge(identifier);
        if (!rename([aside fileSystemRepresentation], [folder(identifier) fileSystemRepresentation])) return YES;
    }
    [files removeFileAtPath:aside handler:nil];
    return is_written && fake_cache_has(identifier); /* another process may have been faster with the same */
}

BOOL fake_cache_get(NSString *identifier, NSData **text, NSDictionary **blobs) {
    if (!fake_cache_has(identifier)) return NO;
    NSString *from = folder(identifier);
    NSArray *paths = [NSArray arrayWithContentsOfFile:[from stringByAppendingPathComponent:@"paths"]];
    NSMutableDictionary *found = [NSMutableDictionary dictionary];
    for (NSUInteger i = 0; i < [paths count]; i++) {
        NSString *name = [NSString stringWithFormat:@"blob%u", (unsigned)i];
        NSData *blob = [NSData dataWithContentsOfFile:[from stringByAppendingPathComponent:name]];
        if (!blob) return NO;
        [found setObject:blob forKey:[paths objectAtIndex:i]];
    }
    *blobs = found;
    *text = [NSData dataWithContentsOfFile:[from stringByAppendingPathComponent:@"model.mil"]];
    return *text && paths;
}

void fake_cache_purge(NSString *identifier) {
    if (fake_cache_has(identifier)) [[NSFileManager defaultManager] removeFileAtPath:folder(identifier) handler:nil];
}

void fake_forget_cache(void) {
    @autoreleasepool {
        NSFileManager *files = [NSFileManager defaultManager];
        NSString *from = root();
        for (NSString *name in [files directoryContentsAtPath:from])
            if ([name length] > 128) /* an identifier: the folder may hold what others put there */
                [files removeFileAtPath:[from stringByAppendingPathComponent:name] handler:nil];
    }
}
