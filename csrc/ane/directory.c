/* model.mil and the blobs in a directory of the program's identifier. */
#define _XOPEN_SOURCE 700
#ifdef __APPLE__
#define _DARWIN_C_SOURCE
#endif
#include "directory.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *anex_ane_blob_name(const char *path) {
    static const char prefix[] = "@model_path/";
    if (!path || strncmp(path, prefix, sizeof prefix - 1)) return NULL;
    const char *name = path + sizeof prefix - 1;
    for (const char *part = name;; part++) {
        size_t n = strcspn(part, "/");
        if (!n || (n <= 2 && !strncmp(part, "..", n))) return NULL; /* "", "." and ".." */
        part += n;
        if (!*part) return name;
    }
}

static anex_status fail_file(anex_error *error, const char *what, const char *path) {
    return anex_fail(error, ANEX_DEVICE,
                     "cannot %s %s, where the Neural Engine's compiler looks for the program: %s; "
                     "make room or point TMPDIR to a directory that can be written",
                     what, path, strerror(errno));
}

/* Whole or not at all: another process may be at the same, equal, file. */
static anex_status write_file(const char *path, const void *data, size_t bytes, anex_error *error) {
    char beside[1200];
    snprintf(beside, sizeof beside, "%s.%ld", path, (long)getpid());
    FILE *file = fopen(beside, "wb");
    if (!file) return fail_file(error, "create", beside);
    bool written = !bytes || fwrite(data, 1, bytes, file) == bytes;
    int reason = errno; /* fclose may set its own */
    if (fclose(file) && written) written = false, reason = errno;
    if (!written) {
        unlink(beside);
        errno = reason;
        return fail_file(error, "write", path);
    }
    if (rename(beside, path)) {
        reason = errno;
        unlink(beside);
        errno = reason;
        return fail_file(error, "put in its place", path);
    }
    return ANEX_OK;
}

static anex_status make_folder(const char *path, anex_error *error) {
    return mkdir(path, 0700) && errno != EEXIST ? fail_file(error, "create", path) : ANEX_OK;
}

anex_status anex_ane_write_files(anex_ane_directory *directory, const char *text, size_t text_bytes, int32_t n_blobs,
                                 const anex_ane_blob *blobs, anex_error *error) {
    char path[1152]; /* the directory's, and room for a name */
    anex_status status = make_folder(directory->path, error);
    if (status) return status;
    directory->is_ours = true;
    size_t root = (size_t)snprintf(path, sizeof path, "%s/weights", directory->path);
    if ((status = make_folder(path, error))) return status; /* expected even where there are none */
    root -= strlen("/weights");
    for (int32_t i = 0; i < n_blobs; i++) {
        const char *name = anex_ane_blob_name(blobs[i].path);
        if ((size_t)snprintf(path + root, sizeof path - root, "/%s", name) >= sizeof path - root)
            return anex_fail(error, ANEX_INVALID, "the blob path %s is longer than a file's may be", blobs[i].path);
        for (char *slash = path + root + 1; (slash = strchr(slash, '/')); *slash++ = '/') {
            *slash = 0;
            if ((status = make_folder(path, error))) return status;
        }
        if ((status = write_file(path, blobs[i].data, blobs[i].bytes, error))) return status;
    }
    snprintf(path + root, sizeof path - root, "/model.mil");
    return write_file(path, text, text_bytes, error);
}

static int remove_one(const char *path, const struct stat *info, int type, struct FTW *place) {
    (void)info, (void)type, (void)place;
    remove(path);
    return 0;
}

void anex_ane_remove_files(anex_ane_directory *directory) {
    if (directory->is_ours) nftw(directory->path, remove_one, 8, FTW_DEPTH | FTW_PHYS);
    directory->is_ours = false;
}
