/* What a disk would hold after a power cut: preloaded into foreman, this copies what is written to the database and to its
 * logs into files beside them, but only when it is synced.
 *
 * CRASH_DURABLE is the path of the database. The synced content of NAME, NAME-wal and NAME-journal is in NAME.durable, ...; a file
 * that was never synced has none.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILES 3
#define PIECE 65536

struct range { off_t from, to; };
struct file { struct range *ranges; size_t count, room; };

static const char *const ends[FILES] = {"", "-wal", "-journal"};
static struct file files[FILES];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Which of the files PATH is, -1 for none. */
static int named(const char *path) {
    const char *database = getenv("CRASH_DURABLE");
    if (!database) return -1;
    size_t length = strlen(database);
    if (strncmp(path, database, length) != 0) return -1;
    for (int i = 0; i < FILES; i++)
        if (strcmp(path + length, ends[i]) == 0) return i;
    return -1;
}

static int opened(int fd, char *path, size_t room) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, room - 1);
    if (length < 0) return -1;
    path[length] = 0;
    return named(path);
}

static void wrote(int fd, off_t from, ssize_t count) {
    char path[4096];
    int which = count > 0 ? opened(fd, path, sizeof path) : -1;
    if (which < 0) return;
    pthread_mutex_lock(&lock);
    struct file *file = &files[which];
    if (file->count == file->room) {
        file->room = file->room ? 2 * file->room : 256;
        file->ranges = realloc(file->ranges, file->room * sizeof *file->ranges);
        if (!file->ranges) abort();
    }
    file->ranges[file->count++] = (struct range){from, from + count};
    pthread_mutex_unlock(&lock);
}

/* What was written is copied only after the system call has reported that it is on the disk. */
static void synced(int fd) {
    char path[4096], durable[4200];
    int which = opened(fd, path, sizeof path);
    if (which < 0) return;
    pthread_mutex_lock(&lock);
    struct file *file = &files[which];
    snprintf(durable, sizeof durable, "%s.durable", path);
    int from = open(path, O_RDONLY | O_CLOEXEC), to = open(durable, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    struct stat now;
    if (from < 0 || to < 0 || fstat(from, &now) != 0) abort();
    static char buffer[PIECE];
    for (size_t i = 0; i < file->count; i++) {
        struct range range = file->ranges[i];
        while (range.from < range.to) {
            size_t length = range.to - range.from < PIECE ? (size_t)(range.to - range.from) : PIECE;
            ssize_t got = pread(from, buffer, length, range.from);
            if (got <= 0) break; /* it has been truncated since */
            if (REAL(pwrite)(to, buffer, (size_t)got, range.from) != got) abort();
            range.from += got;
        }
    }
    file->count = 0;
    if (REAL(ftruncate)(to, now.st_size) != 0) abort();
    close(from);
    close(to);
    pthread_mutex_unlock(&lock);
}

ssize_t pwrite(int fd, const void *data, size_t count, off_t at) {
    ssize_t done = REAL(pwrite)(fd, data, count, at);
    wrote(fd, at, done);
    return done;
}

ssize_t pwrite64(int fd, const void *data, size_t count, off64_t at) {
    ssize_t done = REAL(pwrite64)(fd, data, count, at);
    wrote(fd, at, done);
    return done;
}

ssize_t write(int fd, const void *data, size_t count) {
    ssize_t done = REAL(write)(fd, data, count);
    if (done > 0) {
        off_t after = lseek(fd, 0, SEEK_CUR);
        if (after >= done) wrote(fd, after - done, done);
    }
    return done;
}

int fsync(int fd) {
    int failed = REAL(fsync)(fd);
    if (!failed) synced(fd);
    return failed;
}

int fdatasync(int fd) {
    int failed = REAL(fdatasync)(fd);
    if (!failed) synced(fd);
    return failed;
}

int unlink(const char *path) {
    int failed = REAL(unlink)(path);
    if (!failed && named(path) >= 0) {
        char durable[4200];
        snprintf(durable, sizeof durable, "%s.durable", path);
        REAL(unlink)(durable);
        pthread_mutex_lock(&lock);
        files[named(path)].count = 0;
        pthread_mutex_unlock(&lock);
    }
    return failed;
}
