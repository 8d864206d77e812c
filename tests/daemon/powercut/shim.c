/* Records what a process does to the files of one folder, and cuts its power.
 *
 * Loaded with LD_PRELOAD. Every write, truncation, rename, removal and sync below POWERCUT_DIR is
 * appended to POWERCUT_LOG in the order in which it happened; after POWERCUT_AT records the
 * process dies at once. Whoever reads the log can tell what a disk that lost all it was not told
 * to keep would hold. Syncs are only recorded, not carried out: the log is the disk.
 *
 * The disk can be made to fail on order. POWERCUT_FAIL names a file, not below POWERCUT_DIR, that is
 * looked for at each sync and write. "sync NAME" in it: the next sync of that file (NAME is relative
 * to POWERCUT_DIR) fails with EIO, once for each descriptor that is open on it, as Linux does it: a
 * sync that is tried again succeeds and has stored nothing. "flush NAME": the next fdatasync of that
 * file fails with EIO and nobody else is told, as when the device could not flush its cache. "write NAME":
 * the next write to that file is cut short and those after it fail with ENOSPC, for as long as the
 * order stands. A failed sync is recorded as such, a failed write is none.
 *
 * A record: u32 kind, u32 path length, u64 offset, u64 data length, path, data (host byte order).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { CREATE = 1, WRITE = 2, TRUNCATE = 3, SYNC = 4, RENAME = 5, UNLINK = 6, MKDIR = 7, RMDIR = 8, SYNC_FAILED = 9 };

#define FILES_MAX 65536

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char *paths[FILES_MAX]; /* the watched path behind each descriptor, or NULL */
static char is_told[FILES_MAX]; /* of the failed sync, by descriptor */
static const char *order_path;
static int is_full, has_flushed;
static char root[PATH_MAX];
static size_t root_length;
static int log_fd = -1;
static unsigned long records, cut_at;

static void start(void) __attribute__((constructor));
static void start(void)
{
    const char *dir = getenv("POWERCUT_DIR"), *log = getenv("POWERCUT_LOG"), *at = getenv("POWERCUT_AT");
    if (!dir || !log || !at || !realpath(dir, root))
        return;
    root_length = strlen(root);
    cut_at = strtoul(at, NULL, 10);
    order_path = getenv("POWERCUT_FAIL");
    log_fd = (int)syscall(SYS_openat, AT_FDCWD, log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    unsetenv("LD_PRELOAD"); /* children keep their power */
}

static int is_below(const char *path)
{
    return log_fd >= 0 && strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

/* The absolute path of `path`, which need not exist; links in its folder are followed. */
static int absolute(const char *path, char *out)
{
    char folder[PATH_MAX], real[PATH_MAX];
    if (realpath(path, out))
        return 1;
    if (snprintf(folder, sizeof folder, "%s", path) >= (int)sizeof folder)
        return 0;
    char *slash = strrchr(folder, '/');
    const char *name = slash ? path + (slash - folder) + 1 : path;
    if (slash)
        *slash = 0;
    if (!realpath(slash ? (folder[0] ? folder : "/") : ".", real))
        return 0;
    return snprintf(out, PATH_MAX, "%s/%s", real, name) < PATH_MAX;
}

/* Called with the lock held. */
static void record(uint32_t kind, const char *path, uint64_t offset, const void *data, uint64_t length)
{
    if (cut_at && ++records >= cut_at)
        kill(getpid(), SIGKILL), pause();
    struct { uint32_t kind, path_length; uint64_t offset, length; } head = { kind, (uint32_t)strlen(path), offset, length };
    struct iovec parts[3] = { { &head, sizeof head }, { (void *)path, head.path_length }, { (void *)data, length } };
    size_t whole = sizeof head + head.path_length + length;
    if (syscall(SYS_writev, log_fd, parts, 3) != (long)whole) {
        static const char message[] = "powercut: the log cannot be written\n";
        syscall(SYS_write, 2, message, sizeof message - 1);
        _exit(97);
    }
}

/* Whether `act` on the file at `path` is ordered to fail. */
static int is_to_fail(const char *act, const char *path)
{
    char order[PATH_MAX], wanted[PATH_MAX + 16];
    int from = order_path ? (int)syscall(SYS_openat, AT_FDCWD, order_path, O_RDONLY | O_CLOEXEC) : -1;
    if (from < 0)
        return 0;
    long length = syscall(SYS_read, from, order, sizeof order - 1);
    syscall(SYS_close, from);
    order[length > 0 ? length : 0] = 0;
    const char *name = path + root_length;
    snprintf(wanted, sizeof wanted, "%s %s", act, *name == '/' ? name + 1 : name);
    return strcmp(order, wanted) == 0;
}

static void opened(int fd, const char *path, int flags, int existed)
{
    char full[PATH_MAX];
    if (fd < 0 || fd >= FILES_MAX || log_fd < 0 || !absolute(path, full) || !is_below(full))
        return;
    free(paths[fd]);
    paths[fd] = strdup(full);
    is_told[fd] = 0;
    if (!existed)
        record(CREATE, full, 0, NULL, 0);
    else if (flags & O_TRUNC)
        record(TRUNCATE, full, 0, NULL, 0);
}

static int open_recorded(int dirfd, const char *path, int flags, mode_t mode)
{
    struct stat ignored;
    pthread_mutex_lock(&lock);
    int existed = !(flags & O_CREAT) || stat(path, &ignored) == 0;
    int fd = (int)syscall(SYS_openat, dirfd, path, flags, mode);
    int error = errno;
    if (dirfd == AT_FDCWD || path[0] == '/')
        opened(fd, path, flags, existed);
    pthread_mutex_unlock(&lock);
    errno = error;
    return fd;
}

#define MODE_OF(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list list; va_start(list, last); mode = va_arg(list, mode_t); va_end(list); }

int open(const char *path, int flags, ...) { MODE_OF(flags, flags) return open_recorded(AT_FDCWD, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags, flags) return open_recorded(AT_FDCWD, path, flags | O_LARGEFILE, mode); }
int openat(int dirfd, const char *path, int flags, ...) { MODE_OF(flags, flags) return open_recorded(dirfd, path, flags, mode); }
int openat64(int dirfd, const char *path, int flags, ...) { MODE_OF(flags, flags) return open_recorded(dirfd, path, flags | O_LARGEFILE, mode); }

static const char *watched(int fd) { return fd >= 0 && fd < FILES_MAX ? paths[fd] : NULL; }

int close(int fd)
{
    pthread_mutex_lock(&lock);
    if (watched(fd)) {
        free(paths[fd]);
        paths[fd] = NULL;
    }
    int result = (int)syscall(SYS_close, fd);
    pthread_mutex_unlock(&lock);
    return result;
}

static int duplicated(int from, int to)
{
    if (to >= 0 && to < FILES_MAX) {
        free(paths[to]);
        paths[to] = watched(from) ? strdup(paths[from]) : NULL;
        is_told[to] = watched(from) && is_told[from];
    }
    return to;
}

int fcntl64(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    int result = (int)syscall(SYS_fcntl, fd, command, argument);
    if (result >= 0 && (command == F_DUPFD || command == F_DUPFD_CLOEXEC)) {
        pthread_mutex_lock(&lock);
        duplicated(fd, result);
        pthread_mutex_unlock(&lock);
    }
    return result;
}

int fcntl(int fd, int command, ...)
{
    va_list list;
    va_start(list, command);
    void *argument = va_arg(list, void *);
    va_end(list);
    return fcntl64(fd, command, argument);
}

static ssize_t written(int fd, const void *data, size_t length, off64_t offset, int is_positioned)
{
    pthread_mutex_lock(&lock);
    const char *path = watched(fd);
    if (path && is_to_fail("write", path)) {
        if (is_full || length < 2) {
            pthread_mutex_unlock(&lock);
            errno = ENOSPC;
            return -1;
        }
        is_full = 1;
        length /= 2;
    }
    if (path && !is_positioned) {
        int flags = (int)syscall(SYS_fcntl, fd, F_GETFL, 0);
        struct stat now;
        offset = (flags & O_APPEND) && fstat(fd, &now) == 0 ? now.st_size : (off64_t)syscall(SYS_lseek, fd, 0, SEEK_CUR);
    }
    ssize_t done = is_positioned ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
    int error = errno;
    if (path && done > 0)
        record(WRITE, path, (uint64_t)offset, data, (uint64_t)done);
    pthread_mutex_unlock(&lock);
    errno = error;
    return done;
}

ssize_t write(int fd, const void *data, size_t length)
{
    return watched(fd) ? written(fd, data, length, 0, 0) : syscall(SYS_write, fd, data, length);
}
ssize_t pwrite(int fd, const void *data, size_t length, off_t offset) { return written(fd, data, length, offset, 1); }
ssize_t pwrite64(int fd, const void *data, size_t length, off64_t offset) { return written(fd, data, length, offset, 1); }

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!watched(fd))
        return syscall(SYS_writev, fd, parts, count);
    ssize_t whole = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = written(fd, parts[i].iov_base, parts[i].iov_len, 0, 0);
        if (done < 0)
            return whole ? whole : done;
        whole += done;
        if ((size_t)done < parts[i].iov_len)
            break;
    }
    return whole;
}

static int truncated(int fd, off64_t length)
{
    pthread_mutex_lock(&lock);
    int result = (int)syscall(SYS_ftruncate, fd, length), error = errno;
    if (watched(fd) && result == 0)
        record(TRUNCATE, paths[fd], (uint64_t)length, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int ftruncate(int fd, off_t length) { return truncated(fd, length); }
int ftruncate64(int fd, off64_t length) { return truncated(fd, length); }

static int synced(int fd, long number)
{
    if (!watched(fd))
        return (int)syscall(number, fd);
    pthread_mutex_lock(&lock);
    int fails = watched(fd) && !is_told[fd] && is_to_fail("sync", paths[fd]);
    if (fails)
        is_told[fd] = 1;
    else if (watched(fd) && number == SYS_fdatasync && !has_flushed && is_to_fail("flush", paths[fd]))
        fails = has_flushed = 1;
    if (watched(fd))
        record(fails ? SYNC_FAILED : SYNC, paths[fd], 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = fails ? EIO : 0;
    return fails ? -1 : 0;
}
int fsync(int fd) { return synced(fd, SYS_fsync); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync); }

int rename(const char *from, const char *to)
{
    char a[PATH_MAX], b[PATH_MAX];
    pthread_mutex_lock(&lock);
    int is_watched = log_fd >= 0 && absolute(from, a) && absolute(to, b) && is_below(a) && is_below(b);
    int result = (int)syscall(SYS_renameat, AT_FDCWD, from, AT_FDCWD, to), error = errno;
    if (is_watched && result == 0) {
        record(RENAME, a, 0, b, strlen(b));
        for (int fd = 0; fd < FILES_MAX; fd++)
            if (paths[fd] && strcmp(paths[fd], a) == 0) {
                free(paths[fd]);
                paths[fd] = strdup(b);
            }
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static int recorded_path(uint32_t kind, const char *path, long number, int dirfd, long argument)
{
    char full[PATH_MAX];
    pthread_mutex_lock(&lock);
    int is_watched = log_fd >= 0 && (dirfd == AT_FDCWD || path[0] == '/') && absolute(path, full) && is_below(full);
    int result = (int)syscall(number, dirfd, path, argument), error = errno;
    if (is_watched && result == 0)
        record(kind, full, 0, NULL, 0);
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}
int unlink(const char *path) { return recorded_path(UNLINK, path, SYS_unlinkat, AT_FDCWD, 0); }
int rmdir(const char *path) { return recorded_path(RMDIR, path, SYS_unlinkat, AT_FDCWD, AT_REMOVEDIR); }
int unlinkat(int dirfd, const char *path, int flags) { return recorded_path(flags & AT_REMOVEDIR ? RMDIR : UNLINK, path, SYS_unlinkat, dirfd, flags); }
int mkdir(const char *path, mode_t mode) { return recorded_path(MKDIR, path, SYS_mkdirat, AT_FDCWD, (long)mode); }
