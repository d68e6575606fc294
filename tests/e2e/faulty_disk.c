/* A disk that fails on command, for one process: put before the C library with LD_PRELOAD.
 *
 * FAULTY_DISK_ROOT is the directory whose files are on the faulty disk, FAULTY_DISK_ORDERS a file
 * of lines "<call> <errno>", read again at every call, so that a test makes the disk fail and
 * mends it while the server runs. The calls: write (also creating a file, and with EROFS opening
 * one to write to it), sync. A write that fails has stored nothing; a sync that fails has done
 * nothing.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* The errno that the orders name for a call, or 0. */
static int ordered(const char *call) {
    const char *path = getenv("FAULTY_DISK_ORDERS");
    char order[32];
    int found = 0, code;
    int before = errno;
    FILE *orders = path ? fopen(path, "re") : NULL;
    while (orders && !found && fscanf(orders, "%31s %d", order, &code) == 2)
        if (strcmp(order, call) == 0)
            found = code;
    if (orders)
        fclose(orders);
    errno = before;
    return found;
}

static int is_below(const char *path) {
    const char *root = getenv("FAULTY_DISK_ROOT");
    size_t length = root ? strlen(root) : 0;
    return length && strncmp(path, root, length) == 0 && (path[length] == '/' || !path[length]);
}

static int is_on_disk(int descriptor) {
    char link[64], path[PATH_MAX];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0)
        return 0;
    path[length] = 0;
    return is_below(path);
}

static int fails(const char *call, int descriptor) {
    int code = is_on_disk(descriptor) ? ordered(call) : 0;
    if (code)
        errno = code;
    return code;
}

#define WRITES(name, result, parameters, ...)                                  \
    result name parameters {                                                   \
        return fails("write", descriptor) ? -1 : REAL(name)(__VA_ARGS__);      \
    }

WRITES(write, ssize_t, (int descriptor, const void *data, size_t size), descriptor, data, size)
WRITES(writev, ssize_t, (int descriptor, const struct iovec *data, int count), descriptor, data,
       count)
WRITES(pwrite, ssize_t, (int descriptor, const void *data, size_t size, off_t at), descriptor,
       data, size, at)
WRITES(pwrite64, ssize_t, (int descriptor, const void *data, size_t size, off64_t at),
       descriptor, data, size, at)
WRITES(pwritev, ssize_t, (int descriptor, const struct iovec *data, int count, off_t at),
       descriptor, data, count, at)
WRITES(pwritev64, ssize_t, (int descriptor, const struct iovec *data, int count, off64_t at),
       descriptor, data, count, at)
WRITES(pwritev2, ssize_t,
       (int descriptor, const struct iovec *data, int count, off_t at, int flags), descriptor,
       data, count, at, flags)
WRITES(pwritev64v2, ssize_t,
       (int descriptor, const struct iovec *data, int count, off64_t at, int flags), descriptor,
       data, count, at, flags)

int fdatasync(int descriptor) { return fails("sync", descriptor) ? -1 : REAL(fdatasync)(descriptor); }

int fsync(int descriptor) { return fails("sync", descriptor) ? -1 : REAL(fsync)(descriptor); }

/* A file that would have to be made takes room, too; of a read-only disk all may only be read. */
static int may_not_open(const char *path, int flags) {
    if (!(flags & (O_CREAT | O_WRONLY | O_RDWR)) || !is_below(path))
        return 0;
    int code = ordered("write");
    if (code != EROFS && (!(flags & O_CREAT) || access(path, F_OK) == 0))
        return 0;
    if (code)
        errno = code;
    return code;
}

#define OPENS(name)                                                            \
    int name(const char *path, int flags, ...) {                               \
        va_list rest;                                                          \
        va_start(rest, flags);                                                 \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0;              \
        va_end(rest);                                                          \
        return may_not_open(path, flags) ? -1 : REAL(name)(path, flags, mode); \
    }

OPENS(open)
OPENS(open64)
