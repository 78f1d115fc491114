/* What the target and the client share: one clock, and sockets that never block. */
#ifndef BENCHMARKS_NET_H
#define BENCHMARKS_NET_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#define NEVER INT64_MAX
#define US 1000LL /* nanoseconds */

/* Nanoseconds of CLOCK_MONOTONIC, which all processes of a machine share. */
static inline int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000LL + t.tv_nsec;
}

static inline void never_block(int fd) {
    int on = 1;
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

static inline bool would_block(void) { return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR; }

/* Room for `count` things of `size` bytes; there is nothing to do without memory. */
static inline void *room(void *old, size_t count, size_t size) {
    void *p = realloc(old, count * size);
    if (p == NULL) {
        perror("memory");
        exit(1);
    }
    return p;
}

/* A timer that is 50 us late, as Linux allows by default, would be most of what is measured. */
static inline void be_punctual(void) {
#ifdef __linux__
    prctl(PR_SET_TIMERSLACK, 1000UL, 0UL, 0UL, 0UL);
#endif
    signal(SIGPIPE, SIG_IGN);
}

/* Wait for one of the descriptors, at most until the clock shows `until`. */
static inline int wait_until(struct pollfd *fds, nfds_t count, int64_t until) {
    int64_t left = until == NEVER ? 0 : until - now_ns();
    if (left < 0) left = 0;
#ifdef __linux__
    struct timespec t = {left / 1000000000LL, left % 1000000000LL};
    return ppoll(fds, count, until == NEVER ? NULL : &t, NULL);
#else
    return poll(fds, count, until == NEVER ? -1 : (int)((left + 999999) / 1000000));
#endif
}

#endif
