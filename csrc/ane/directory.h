/* The files of a program, as the compiler wants to find them: plain POSIX. */
#ifndef ANEX_ANE_DIRECTORY_H
#define ANEX_ANE_DIRECTORY_H

#include <pthread.h>

#include "../anex.h"

/* One per identifier, shared by the programs that have it. */
typedef struct anex_ane_directory {
    struct anex_ane_directory *next;
    int32_t users;
    pthread_mutex_t mutex; /* held while it is written, compiled from, loaded from or removed by an unload */
    bool is_ours;          /* written by this process, which therefore removes it */
    char path[1024];
} anex_ane_directory;

/* A blob's path below the directory, without "@model_path/"; NULL for one that would lead out of it. */
const char *anex_ane_blob_name(const char *path);
anex_status anex_ane_write_files(anex_ane_directory *directory, const char *text, size_t text_bytes, int32_t n_blobs,
                                 const anex_ane_blob *blobs, anex_error *error);
void anex_ane_remove_files(anex_ane_directory *directory);

#endif
