/* A layer between a program and the C library that counts what is written below one folder, and lets the n-th
 * operation fail, fall short, or kill the process. Loaded with LD_PRELOAD; a program arms it by faults_arm(), or by
 * the environment before it starts.
 *
 *   FAULTS_BELOW  absolute path of the folder          FAULTS_AT   n, from 1; 0 only counts
 *   FAULTS_HOW    enospc, eio, short or kill           FAULTS_LOG  file that gets the number of operations at exit
 *
 * Operations: open for writing, write, pwrite, writev, ftruncate, fsync, fdatasync, rename, mkdir.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

enum { FDS = 65536 };
static char below[4096], how[16], seen[4096];
static long at = 0, count = 0;
static char ours[FDS];

#define REAL(type, name, ...) \
    static type (*real)(__VA_ARGS__); \
    if (!real) real = dlsym(RTLD_NEXT, #name)

void faults_arm(const char *folder, const char *kind, long n) {
    snprintf(below, sizeof below, "%s", folder);
    snprintf(how, sizeof how, "%s", kind);
    at = n;
    __atomic_store_n(&count, 0, __ATOMIC_SEQ_CST);
}

long faults_count(void) { return __atomic_load_n(&count, __ATOMIC_SEQ_CST); }

const char *faults_seen(void) { return seen; }

__attribute__((constructor)) static void begin(void) {
    const char *folder = getenv("FAULTS_BELOW"), *n = getenv("FAULTS_AT"), *kind = getenv("FAULTS_HOW");
    if (folder) faults_arm(folder, kind ? kind : "eio", n ? atol(n) : 0);
}

__attribute__((destructor)) static void end(void) {
    const char *log = getenv("FAULTS_LOG");
    if (!log || !*below) return;
    *below = 0;
    FILE *file = fopen(log, "w");
    if (!file) return;
    fprintf(file, "%ld\n", faults_count());
    fclose(file);
}

static int inside(const char *path) { return *below && path && !strncmp(path, below, strlen(below)); }

static int watched(int fd) { return *below && fd >= 0 && fd < FDS && ours[fd]; }

/* Counts one operation. Returns 1 when it must fail, 2 when it must fall short. */
static int hit(const char *name) {
    long n = __atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST);
    if (!at || n != at) return 0;
    snprintf(seen, sizeof seen, "%s", name);
    if (!strcmp(how, "kill")) raise(SIGKILL);
    if (!strcmp(how, "short")) return !strncmp(name, "write", 5) || !strncmp(name, "pwrite", 6) ? 2 : 0;
    errno = !strcmp(how, "enospc") ? ENOSPC : EIO;
    return 1;
}

static int opened(int fd, const char *path) {
    if (fd >= 0 && fd < FDS) ours[fd] = inside(path);
    return fd;
}

#define OPEN(name) \
int name(const char *path, int flags, ...) { \
    REAL(int, name, const char *, int, ...); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if (inside(path) && (flags & (O_WRONLY | O_RDWR | O_CREAT)) && hit("open") == 1) return -1; \
    return opened(real(path, flags, mode), path); \
}
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
int name(int folder, const char *path, int flags, ...) { \
    REAL(int, name, int, const char *, int, ...); \
    va_list rest; va_start(rest, flags); mode_t mode = va_arg(rest, mode_t); va_end(rest); \
    if (inside(path) && (flags & (O_WRONLY | O_RDWR | O_CREAT)) && hit("open") == 1) return -1; \
    return opened(real(folder, path, flags, mode), path); \
}
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
    REAL(int, close, int);
    if (fd >= 0 && fd < FDS) ours[fd] = 0;
    return real(fd);
}

ssize_t write(int fd, const void *data, size_t size) {
    REAL(ssize_t, write, int, const void *, size_t);
    int how_far = watched(fd) && size ? hit("write") : 0;
    return how_far == 1 ? -1 : real(fd, data, how_far == 2 && size > 1 ? size / 2 : size);
}

#define PWRITE(name, offset) \
ssize_t name(int fd, const void *data, size_t size, offset place) { \
    REAL(ssize_t, name, int, const void *, size_t, offset); \
    int how_far = watched(fd) && size ? hit("pwrite") : 0; \
    return how_far == 1 ? -1 : real(fd, data, how_far == 2 && size > 1 ? size / 2 : size, place); \
}
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

ssize_t writev(int fd, const struct iovec *parts, int n) {
    REAL(ssize_t, writev, int, const struct iovec *, int);
    int how_far = watched(fd) ? hit("writev") : 0;
    return how_far == 1 ? -1 : real(fd, parts, how_far == 2 ? 1 : n);
}

#define ON_FILE(name) \
int name(int fd) { \
    REAL(int, name, int); \
    return watched(fd) && hit(#name) == 1 ? -1 : real(fd); \
}
ON_FILE(fsync)
ON_FILE(fdatasync)

#define TRUNCATE(name, offset) \
int name(int fd, offset size) { \
    REAL(int, name, int, offset); \
    return watched(fd) && hit("ftruncate") == 1 ? -1 : real(fd, size); \
}
TRUNCATE(ftruncate, off_t)
TRUNCATE(ftruncate64, off64_t)

int rename(const char *from, const char *to) {
    REAL(int, rename, const char *, const char *);
    return inside(to) && hit("rename") == 1 ? -1 : real(from, to);
}

int renameat(int a, const char *from, int b, const char *to) {
    REAL(int, renameat, int, const char *, int, const char *);
    return inside(to) && hit("rename") == 1 ? -1 : real(a, from, b, to);
}

int mkdir(const char *path, mode_t mode) {
    REAL(int, mkdir, const char *, mode_t);
    return inside(path) && hit("mkdir") == 1 ? -1 : real(path, mode);
}
