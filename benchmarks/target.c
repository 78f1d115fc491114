/* A pretended Ollama that costs nothing: one thread, one line for each send, and the times of all that happens.
 *
 * A chat says itself how it wants to be answered, by numbers anywhere in its body:
 *   "bench_id"        what the record is called
 *   "bench_lines"     lines in all, the one with done:true included
 *   "bench_first_us"  from the request to the head and the first line
 *   "bench_pace_us"   from line to line; counted from the line before, so that lines never catch up in a bunch
 *   "stream":false    one JSON object after the time that the lines would have taken
 *
 * GET /bench/progress answers "CHATS LINES": chats and lines so far. GET /bench/records/N answers the records from the
 * N-th chat on, a line for each: ID WHOLE FIRST END CLOSED LINES, in nanoseconds of CLOCK_MONOTONIC, 0 for what has not
 * happened: the request was there; the first byte left; the last byte left; the peer closed before that.
 *
 * The port stands on stdout; the end of stdin ends the target. */
#define _GNU_SOURCE
#include "net.h"

#define IN 16384
#define MODEL "bench:latest"
#define DETAILS                                                                                                        \
    "\"details\":{\"parent_model\":\"\",\"format\":\"gguf\",\"family\":\"llama\",\"families\":[\"llama\"],"            \
    "\"parameter_size\":\"3.2B\",\"quantization_level\":\"Q4_K_M\""
#define ENTRY                                                                                                          \
    "{\"name\":\"" MODEL "\",\"model\":\"" MODEL "\",\"size\":2019393189,"                                             \
    "\"digest\":\"a80c4f17acd55265feec403c7aef86be0c25983ab279d83f3bcd3abbcb5b8b72\","
#define LINE "{\"model\":\"" MODEL "\",\"created_at\":\"2026-01-01T00:00:00.123456789Z\",\"message\":{\"role\":\"assistant\",\"content\":\""
#define LAST                                                                                                           \
    "\"},\"done\":true,\"done_reason\":\"stop\",\"total_duration\":18791425,\"load_duration\":1829961,"                \
    "\"prompt_eval_count\":30,\"prompt_eval_duration\":2400000,\"eval_count\":6,\"eval_duration\":9208000}"

static const char TAGS[] = "{\"models\":[" ENTRY "\"modified_at\":\"2026-01-01T00:00:00.123456789Z\"," DETAILS
                           ",\"context_length\":8192,\"embedding_length\":3072},\"capabilities\":[\"completion\"]}]}";
static const char PS[] = "{\"models\":[" ENTRY DETAILS "},\"expires_at\":\"2318-01-01T00:00:00Z\",\"size_vram\":0,\"context_length\":8192}]}";
static const char SHOW[] = "{" DETAILS "},\"model_info\":{},\"capabilities\":[\"completion\"]}";
static const char JSON[] = "application/json; charset=utf-8";

struct record {
    long id, lines;
    int64_t whole, first, end, closed;
};

struct connection {
    int fd;
    size_t held; /* bytes of `in` */
    bool chatting, streamed, closing, dead;
    long record, lines, said; /* of the chat that is being answered */
    int64_t pace, due, sending; /* `sending`: just before the latest send */
    char *out;
    size_t out_size, out_from, out_to;
    char in[IN + 1];
};

static struct record *records;
static size_t record_count, record_room;
static long total_lines;
static struct connection **connections;
static size_t connection_count;

static long number(const char *body, const char *key, long otherwise) {
    const char *at = strstr(body, key);
    return at == NULL ? otherwise : strtol(at + strlen(key), NULL, 10);
}

static void put(struct connection *c, const char *bytes, size_t size) {
    if (c->out_from == c->out_to) c->out_from = c->out_to = 0;
    if (c->out_to + size > c->out_size) {
        c->out_size = 2 * (c->out_to + size);
        c->out = room(c->out, c->out_size, 1);
    }
    memcpy(c->out + c->out_to, bytes, size);
    c->out_to += size;
}

static void put_head(struct connection *c, const char *status, const char *type, const char *framing) {
    char head[512];
    int size = snprintf(head, sizeof head, "HTTP/1.1 %s\r\nContent-Type: %s\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n%s%s\r\n",
                        status, type, framing, c->closing ? "Connection: close\r\n" : "");
    put(c, head, (size_t)size);
}

static void put_answer(struct connection *c, const char *status, const char *type, const char *body, size_t size, bool head_only) {
    char framing[64];
    snprintf(framing, sizeof framing, "Content-Length: %zu\r\n", size);
    put_head(c, status, type, framing);
    if (!head_only) put(c, body, size);
}

/* The next line of a streamed chat, or the whole answer of one that is not. */
static void put_line(struct connection *c) {
    char line[1024], size[16];
    bool last = !c->streamed || c->said + 1 >= c->lines;
    int length = snprintf(line, sizeof line, LINE "%s%s%s", last && c->streamed ? "" : " word", last ? LAST : "\"},\"done\":false}",
                          c->streamed ? "\n" : "");
    if (c->streamed) {
        if (c->said == 0) put_head(c, "200 OK", "application/x-ndjson", "Transfer-Encoding: chunked\r\n");
        put(c, size, (size_t)snprintf(size, sizeof size, "%x\r\n", (unsigned)length));
        put(c, line, (size_t)length);
        put(c, last ? "\r\n0\r\n\r\n" : "\r\n", last ? 7 : 2);
    } else {
        put_answer(c, "200 OK", JSON, line, (size_t)length, false);
        c->said = c->lines - 1;
    }
}

static void leave(struct connection *c) {
    if (c->chatting) records[c->record].closed = now_ns();
    close(c->fd);
    c->dead = true;
}

/* Send what is there. True when nothing is left and the peer is still connected. */
static bool flush(struct connection *c) {
    while (c->out_from < c->out_to) {
        c->sending = now_ns(); /* not after: whom a send wakes may take the core */
        ssize_t sent = send(c->fd, c->out + c->out_from, c->out_to - c->out_from, 0);
        if (sent < 0) {
            if (!would_block()) leave(c);
            return false;
        }
        c->out_from += (size_t)sent;
    }
    return true;
}

static void begin_chat(struct connection *c, const char *body, int64_t now) {
    if (record_count == record_room) {
        record_room = record_room ? 2 * record_room : 1024;
        records = room(records, record_room, sizeof *records);
    }
    c->record = (long)record_count;
    records[record_count++] = (struct record){.id = number(body, "\"bench_id\":", -1), .whole = now};
    c->streamed = strstr(body, "\"stream\":false") == NULL;
    c->lines = number(body, "\"bench_lines\":", 1);
    c->pace = number(body, "\"bench_pace_us\":", 0) * US;
    c->due = now + number(body, "\"bench_first_us\":", 0) * US + (c->streamed ? 0 : (c->lines - 1) * c->pace);
    c->said = 0;
    c->chatting = true;
}

static void put_records(struct connection *c, size_t from) {
    size_t size = 0, full = (record_count > from ? record_count - from : 0) * 128 + 1;
    char *text = room(NULL, full, 1);
    for (size_t i = from; i < record_count; i++) {
        struct record *r = &records[i];
        size += (size_t)snprintf(text + size, full - size, "%ld %lld %lld %lld %lld %ld\n", r->id, (long long)r->whole,
                                 (long long)r->first, (long long)r->end, (long long)r->closed, r->lines);
    }
    put_answer(c, "200 OK", "text/plain", text, size, false);
    free(text);
}

static void route(struct connection *c, const char *method, const char *path, const char *body, int64_t now) {
    bool head_only = strcmp(method, "HEAD") == 0;
    char text[64];
    if (strcmp(path, "/api/chat") == 0) begin_chat(c, body, now);
    else if (strcmp(path, "/api/tags") == 0) put_answer(c, "200 OK", JSON, TAGS, sizeof TAGS - 1, head_only);
    else if (strcmp(path, "/api/ps") == 0) put_answer(c, "200 OK", JSON, PS, sizeof PS - 1, head_only);
    else if (strcmp(path, "/api/show") == 0) put_answer(c, "200 OK", JSON, SHOW, sizeof SHOW - 1, head_only);
    else if (strcmp(path, "/api/version") == 0) put_answer(c, "200 OK", JSON, "{\"version\":\"0.33.0\"}", 20, head_only);
    else if (strcmp(path, "/") == 0) put_answer(c, "200 OK", "text/plain; charset=utf-8", "Ollama is running", 17, head_only);
    else if (strncmp(path, "/bench/records/", 15) == 0) put_records(c, strtoul(path + 15, NULL, 10));
    else if (strcmp(path, "/bench/progress") == 0)
        put_answer(c, "200 OK", "text/plain", text, (size_t)snprintf(text, sizeof text, "%zu %ld\n", record_count, total_lines), false);
    else put_answer(c, "404 Not Found", "text/plain", "404 page not found", 18, head_only);
}

/* Take one request out of what has arrived, when it is whole and the one before has been answered. */
static bool read_request(struct connection *c, int64_t now) {
    char method[16], path[256];
    if (c->chatting || c->out_from < c->out_to) return false;
    c->in[c->held] = 0;
    char *head_end = strstr(c->in, "\r\n\r\n");
    if (head_end == NULL) return false;
    head_end[2] = 0;
    const char *length = strcasestr(c->in, "\r\ncontent-length:");
    size_t head_size = (size_t)(head_end - c->in) + 4, size = length ? strtoul(length + 17, NULL, 10) : 0;
    c->closing = strcasestr(c->in, "\r\nconnection: close\r\n") != NULL || strstr(c->in, " HTTP/1.0\r\n") != NULL;
    bool chunked = strcasestr(c->in, "\r\ntransfer-encoding:") != NULL;
    head_end[2] = '\r';
    if (chunked || head_size + size > IN || sscanf(c->in, "%15s %255s", method, path) != 2) {
        fprintf(stderr, "target: a request that it cannot read: %.80s\n", c->in);
        leave(c);
        return false;
    }
    if (c->held < head_size + size) return false;
    char after = c->in[head_size + size];
    c->in[head_size + size] = 0;
    route(c, method, path, c->in + head_size, now);
    c->in[head_size + size] = after;
    c->held -= head_size + size;
    memmove(c->in, c->in + head_size + size, c->held);
    return true;
}

/* Say what is due: at most 64 lines in one go, so that the others are heard too. */
static void speak(struct connection *c) {
    for (int i = 0; i < 64; i++) {
        if (!flush(c)) return;
        int64_t now = now_ns();
        if (c->chatting && c->said >= c->lines) {
            records[c->record].end = c->sending;
            c->chatting = false;
        }
        if (!c->chatting) {
            if (c->closing) leave(c);
            else if (!read_request(c, now)) return;
            if (c->dead) return;
            continue;
        }
        if (c->due > now) return;
        put_line(c);
        flush(c);
        if (c->dead) return;
        struct record *r = &records[c->record];
        if (r->first == 0) r->first = c->sending;
        c->said++;
        r->lines++;
        total_lines++;
        c->due = now_ns() + c->pace;
    }
}

static void listen_to(struct connection *c) {
    ssize_t got = recv(c->fd, c->in + c->held, IN - c->held, 0);
    if (got == 0 || (got < 0 && !would_block())) leave(c);
    else if (got > 0) c->held += (size_t)got;
}

static void take_in(int door) {
    for (int fd; (fd = accept(door, NULL, NULL)) >= 0;) {
        never_block(fd);
        struct connection *c = room(NULL, 1, sizeof *c);
        memset(c, 0, sizeof *c);
        c->fd = fd;
        connections = room(connections, connection_count + 1, sizeof *connections);
        connections[connection_count++] = c;
    }
}

int main(void) {
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof address;
    int door = socket(AF_INET, SOCK_STREAM, 0);
    struct pollfd *fds = NULL;
    char ignored[64];
    be_punctual();
    if (bind(door, (struct sockaddr *)&address, size) || listen(door, 4096) || getsockname(door, (struct sockaddr *)&address, &size)) {
        perror("target");
        return 1;
    }
    never_block(door);
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        int64_t until = NEVER;
        size_t count = connection_count;
        fds = room(fds, count + 2, sizeof *fds);
        fds[0] = (struct pollfd){.fd = door, .events = POLLIN};
        fds[1] = (struct pollfd){.fd = STDIN_FILENO, .events = POLLIN};
        for (size_t i = 0; i < count; i++) {
            struct connection *c = connections[i];
            bool full = c->out_from < c->out_to;
            fds[i + 2] = (struct pollfd){.fd = c->fd, .events = (short)(POLLIN | (full ? POLLOUT : 0))};
            if (c->chatting && !full && c->due < until) until = c->due;
        }
        wait_until(fds, count + 2, until);
        if (fds[1].revents && read(STDIN_FILENO, ignored, sizeof ignored) <= 0) return 0;
        for (size_t i = 0; i < count; i++) {
            if (fds[i + 2].revents & (POLLIN | POLLHUP | POLLERR)) listen_to(connections[i]);
            if (!connections[i]->dead) speak(connections[i]);
        }
        if (fds[0].revents) take_in(door);
        size_t alive = 0;
        for (size_t i = 0; i < connection_count; i++) {
            if (connections[i]->dead) {
                free(connections[i]->out);
                free(connections[i]);
            } else connections[alive++] = connections[i];
        }
        connection_count = alive;
    }
}
