/* Many clients in one thread: asks what a plan says, checks that each answer is whole, and tells when what happened.
 *
 *   client PORT SECONDS < plan > report
 *
 * A line of the plan: ID SLOT WAIT_US LINES LEAVE PATH [BODY]. The requests of a slot follow each other on one connection;
 * WAIT_US counts from the answer before (from the start, for the first). LINES: how many an answer must have, 0 for any.
 * LEAVE: "-", or "tN" (closes N us after the request was sent), or "lN" (after N lines). With a BODY it is a POST.
 *
 * The report: "sent" once all has been sent, and in the end a line for each request:
 *   ID OUTCOME STATUS SENT FIRST END LINES CHUNKS
 * in nanoseconds of CLOCK_MONOTONIC; FIRST is the first byte of the body that is not a space. OUTCOME: whole, left (END says
 * when), torn (the connection ended too early), unfinished (framing whole, but no done:true or another number of lines),
 * refused (status), odd (not HTTP), silent (nothing within SECONDS), unasked.
 *
 * SIGTERM: all leave at once. */
#define _GNU_SOURCE
#include "net.h"

#define HEAD 8192

enum outcome { UNASKED, ASKED, WHOLE, LEFT, TORN, UNFINISHED, REFUSED, ODD, SILENT };
static const char *OUTCOMES[] = {"unasked", "silent", "whole", "left", "torn", "unfinished", "refused", "odd", "silent"};

struct request {
    long id, slot, expected, leave_lines, next;
    int64_t wait, leave_after;
    char *bytes;
    size_t size;
    bool chat;
    enum outcome outcome;
    int status;
    long lines, chunks;
    int64_t sent, first, end;
};

enum place { IN_HEAD, IN_SIZE, IN_CHUNK, AFTER_CHUNK, IN_TRAILER, IN_LENGTH, UNTIL_CLOSE };

struct slot {
    long current, last; /* requests; -1: none */
    int fd;
    bool asking;
    int64_t due;
    size_t sent, held, left;
    enum place place;
    bool closing;
    char head[HEAD + 1];
    size_t line_held; /* the last line so far */
    bool line_over;
    char line[1024];
};

static struct request *requests;
static struct slot **slots;
static size_t request_count, slot_count, finished, sent_count;
static struct sockaddr_in address = {.sin_family = AF_INET};
static volatile sig_atomic_t told_to_leave;

static void hear_term(int ignored) {
    (void)ignored;
    told_to_leave = 1;
}

static void end_with(struct slot *s, enum outcome outcome, int64_t now, bool keep) {
    struct request *r = &requests[s->current];
    r->outcome = outcome;
    r->end = now;
    finished++;
    if (!keep) {
        close(s->fd);
        s->fd = -1;
    }
    s->asking = false;
    s->current = r->next;
    if (s->current >= 0) s->due = now + requests[s->current].wait;
}

static void answer_over(struct slot *s, int64_t now) {
    struct request *r = &requests[s->current];
    s->line[s->line_held] = 0;
    bool whole = !r->chat || (strstr(s->line, "\"done\":true") != NULL && (r->expected == 0 || r->lines == r->expected));
    end_with(s, r->status != 200 ? REFUSED : whole ? WHOLE : UNFINISHED, now, !s->closing && s->held == 0);
}

/* Read `size` bytes of a body: count lines, keep the last one. */
static void taste(struct slot *s, const char *p, size_t size, int64_t now) {
    struct request *r = &requests[s->current];
    const char *end = p + size;
    while (r->first == 0 && p < end && *p == ' ') p++;
    if (p == end) return;
    if (r->first == 0) r->first = now;
    while (p < end) {
        const char *newline = memchr(p, '\n', (size_t)(end - p));
        size_t n = (size_t)((newline ? newline : end) - p);
        if (s->line_over) s->line_held = 0;
        if (n > sizeof s->line - 1 - s->line_held) n = sizeof s->line - 1 - s->line_held;
        memcpy(s->line + s->line_held, p, n);
        s->line_held += n;
        s->line_over = newline != NULL;
        if (newline) r->lines++;
        p = newline ? newline + 1 : end;
    }
}

static bool read_head(struct slot *s) {
    s->head[s->held] = 0;
    struct request *r = &requests[s->current];
    const char *length = strcasestr(s->head, "\r\ncontent-length:");
    if (sscanf(s->head, "HTTP/1.%*1d %3d", &r->status) != 1) return false;
    s->closing = strcasestr(s->head, "\r\nconnection: close") != NULL;
    if (strcasestr(s->head, "\r\ntransfer-encoding: chunked")) s->place = IN_SIZE;
    else if (length) s->place = IN_LENGTH, s->left = strtoul(length + 17, NULL, 10);
    else s->place = UNTIL_CLOSE, s->closing = true;
    s->held = 0;
    return true;
}

/* Collect a line of the framing in `head`. True when it is there; its end of line is taken off. */
static bool framing_line(struct slot *s, const char **p, const char *end) {
    while (*p < end && s->held < HEAD) {
        char c = s->head[s->held++] = *(*p)++;
        if (c == '\n') {
            s->head[--s->held] = 0;
            if (s->held > 0 && s->head[s->held - 1] == '\r') s->head[--s->held] = 0;
            return true;
        }
    }
    return false;
}

static void listen_to(struct slot *s, const char *p, size_t size, int64_t now) {
    const char *end = p + size;
    long request = s->current;
    while (s->asking && s->current == request && (p < end || (s->place == IN_LENGTH && s->left == 0))) {
        struct request *r = &requests[request];
        size_t n = (size_t)(end - p);
        switch (s->place) {
        case IN_HEAD:
            s->head[s->held++] = *p++;
            if (s->held >= 4 && memcmp(s->head + s->held - 4, "\r\n\r\n", 4) == 0) {
                if (!read_head(s)) return end_with(s, ODD, now, false);
            } else if (s->held == HEAD) return end_with(s, ODD, now, false);
            break;
        case IN_SIZE:
            if (!framing_line(s, &p, end)) break;
            s->left = strtoul(s->head, NULL, 16);
            s->held = 0;
            s->place = s->left ? IN_CHUNK : IN_TRAILER;
            r->chunks += s->left != 0;
            break;
        case IN_TRAILER:
            if (!framing_line(s, &p, end)) break;
            if (s->held == 0) return answer_over(s, now);
            s->held = 0;
            break;
        case AFTER_CHUNK:
            if (!framing_line(s, &p, end)) break;
            if (s->held) return end_with(s, ODD, now, false);
            s->place = IN_SIZE;
            break;
        case IN_CHUNK:
        case IN_LENGTH:
            if (n > s->left) n = s->left;
            taste(s, p, n, now);
            p += n;
            s->left -= n;
            if (s->left) break;
            if (s->place == IN_LENGTH) return answer_over(s, now);
            s->place = AFTER_CHUNK;
            break;
        case UNTIL_CLOSE:
            taste(s, p, n, now);
            p = end;
            break;
        }
        if (r->leave_lines && r->lines >= r->leave_lines) return end_with(s, LEFT, now_ns(), false);
    }
}

static void read_answer(struct slot *s) {
    static char bytes[262144];
    ssize_t got = recv(s->fd, bytes, sizeof bytes, 0);
    int64_t now = now_ns();
    if (got > 0) listen_to(s, bytes, (size_t)got, now);
    else if (got < 0 && would_block()) return;
    else if (got == 0 && s->place == UNTIL_CLOSE) answer_over(s, now);
    else end_with(s, TORN, now, false);
}

static void ask(struct slot *s) {
    struct request *r = &requests[s->current];
    if (!s->asking) {
        s->asking = true;
        s->place = IN_HEAD;
        s->sent = s->held = s->line_held = 0;
        s->line_over = false;
        r->outcome = ASKED;
        if (s->fd < 0) {
            s->fd = socket(AF_INET, SOCK_STREAM, 0);
            if (s->fd < 0) {
                perror("client");
                exit(1);
            }
            never_block(s->fd);
            if (connect(s->fd, (struct sockaddr *)&address, sizeof address) && errno != EINPROGRESS) return end_with(s, TORN, now_ns(), false);
        }
    }
    if (s->sent == 0) r->sent = now_ns();
    ssize_t n = send(s->fd, r->bytes + s->sent, r->size - s->sent, 0);
    if (n < 0 && (would_block() || errno == ENOTCONN)) return;
    if (n < 0) return end_with(s, TORN, now_ns(), false);
    s->sent += (size_t)n;
    if (s->sent == r->size && ++sent_count == request_count) {
        puts("sent");
        fflush(stdout);
    }
}

static void add(char *line, int port) {
    struct request r = {.next = -1};
    char leave[32], path[256];
    int body_at = 0;
    if (sscanf(line, "%ld %ld %lld %ld %31s %255s %n", &r.id, &r.slot, (long long *)&r.wait, &r.expected, leave, path, &body_at) < 6 || r.slot < 0) {
        fprintf(stderr, "client: a plan that it cannot read: %s", line);
        exit(1);
    }
    char *body = line + body_at;
    body[strcspn(body, "\n")] = 0;
    r.wait *= US;
    r.chat = body[0] != 0;
    r.leave_after = leave[0] == 't' ? strtoll(leave + 1, NULL, 10) * US : NEVER;
    r.leave_lines = leave[0] == 'l' ? strtol(leave + 1, NULL, 10) : 0;
    r.bytes = room(NULL, strlen(body) + 512, 1);
    r.size = r.chat ? (size_t)sprintf(r.bytes, "POST %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                                      path, port, strlen(body), body)
                    : (size_t)sprintf(r.bytes, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", path, port);
    while (slot_count <= (size_t)r.slot) {
        slots = room(slots, slot_count + 1, sizeof *slots);
        struct slot *s = slots[slot_count++] = room(NULL, 1, sizeof *s);
        memset(s, 0, sizeof *s);
        s->fd = -1;
        s->current = s->last = -1;
    }
    struct slot *s = slots[r.slot];
    requests = room(requests, request_count + 1, sizeof *requests);
    if (s->last >= 0) requests[s->last].next = (long)request_count;
    else s->current = (long)request_count;
    s->last = (long)request_count;
    requests[request_count++] = r;
}

/* When this slot must be looked at next, whatever its connection says. */
static int64_t deadline(const struct slot *s) {
    const struct request *r = &requests[s->current];
    if (!s->asking) return s->due;
    return r->leave_after == NEVER || s->sent < r->size ? NEVER : r->sent + r->leave_after;
}

static void run(int64_t over) {
    struct pollfd *fds = room(NULL, slot_count, sizeof *fds);
    while (finished < request_count && !told_to_leave && now_ns() < over) {
        int64_t now = now_ns(), until = now + 50000 * US < over ? now + 50000 * US : over; /* a signal is seen within 50 ms */
        for (size_t i = 0; i < slot_count; i++) {
            struct slot *s = slots[i];
            fds[i] = (struct pollfd){.fd = -1};
            if (s->current < 0) continue;
            int64_t due = deadline(s);
            if (due <= now_ns()) {
                if (s->asking) end_with(s, LEFT, now_ns(), false);
                else ask(s);
                until = 0;
                continue;
            }
            if (due < until) until = due;
            if (s->asking) fds[i] = (struct pollfd){.fd = s->fd, .events = (short)(POLLIN | (s->sent < requests[s->current].size ? POLLOUT : 0))};
        }
        if (wait_until(fds, slot_count, until) <= 0) continue;
        for (size_t i = 0; i < slot_count; i++) {
            struct slot *s = slots[i];
            if (fds[i].revents & POLLOUT) ask(s);
            else if (fds[i].revents) read_answer(s);
        }
    }
    enum outcome outcome = told_to_leave ? LEFT : SILENT;
    for (size_t i = 0; i < slot_count; i++)
        if (slots[i]->asking) end_with(slots[i], outcome, now_ns(), false);
}

int main(int argc, char **argv) {
    if (argc != 3) {
        fputs("usage: client PORT SECONDS < plan > report\n", stderr);
        return 2;
    }
    int port = atoi(argv[1]);
    char *line = NULL;
    size_t size = 0;
    be_punctual();
    signal(SIGTERM, hear_term);
    while (getline(&line, &size, stdin) > 0) add(line, port);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)port);
    int64_t start = now_ns();
    for (size_t i = 0; i < slot_count; i++)
        if (slots[i]->current >= 0) slots[i]->due = start + requests[slots[i]->current].wait;
    run(start + atoll(argv[2]) * 1000000000LL);
    for (size_t i = 0; i < request_count; i++) {
        struct request *r = &requests[i];
        printf("%ld %s %d %lld %lld %lld %ld %ld\n", r->id, OUTCOMES[r->outcome], r->status, (long long)r->sent, (long long)r->first,
               (long long)r->end, r->lines, r->chunks);
    }
    return 0;
}
