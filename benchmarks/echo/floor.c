/* The floor: a WebSocket echo server that does the least that one can do.
 *
 * One thread and epoll. For each event there is one read, the frames in it are unmasked and turned into replies where
 * they lie, and one write. It takes any client's handshake, answers pings and close frames, and checks nothing else. The
 * additional time of a real server is therefore its own, and not the kernel's.
 *
 * A connection owns no memory but its own few fields unless part of a frame is left over, or part of a reply.
 * A message to a path that begins with /broadcast goes to all connections with such a path.
 *
 * Usage: floor PORT
 */

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "handshake.h"

enum { CLOSE = 8, PING = 9, PONG = 10 };
enum { EVENTS = 512, SCRATCH = 1 << 18, HEADER = 14 };

typedef struct conn {
    int fd;
    bool open, gone;
    int seat;           /* among the members of the broadcast; -1 for none */
    uint8_t *in, *out;  /* left over from the last read and the last write; NULL for nothing */
    size_t in_size, in_room, out_size, out_done;
    struct conn *next_dead;
} conn;

static int epoll;
static uint8_t scratch[SCRATCH];
static conn **members;
static int member_count, member_room;
static conn *dead;

static void *checked(void *memory) {
    if (!memory) {
        fputs("floor: out of memory\n", stderr);
        exit(1);
    }
    return memory;
}

static void watch(conn *c, int operation, uint32_t events) {
    struct epoll_event event = {.events = events, .data.ptr = c};
    epoll_ctl(epoll, operation, c->fd, &event);
}

/* The connection is freed once all events at hand are through, and not here: one of them may be its own. */
static void hang_up(conn *c) {
    if (c->gone)
        return;
    c->gone = true;
    c->next_dead = dead;
    dead = c;
    close(c->fd);
    if (c->seat >= 0) {
        members[c->seat] = members[--member_count];
        members[c->seat]->seat = c->seat;
    }
}

static void bury(void) {
    while (dead) {
        conn *c = dead;
        dead = c->next_dead;
        free(c->in);
        free(c->out);
        free(c);
    }
}

/* Writes as much as the socket takes, and keeps the rest; until that has left, nothing more is read. */
static void put(conn *c, const uint8_t *data, size_t size) {
    if (c->gone)
        return;
    if (!c->out) {
        ssize_t wrote = write(c->fd, data, size);
        if (wrote < 0 && errno != EAGAIN) {
            hang_up(c);
            return;
        }
        if (wrote > 0) {
            data += wrote;
            size -= (size_t)wrote;
        }
        if (size)
            watch(c, EPOLL_CTL_MOD, EPOLLOUT);
    }
    if (size) {
        c->out = checked(realloc(c->out, c->out_size + size));
        memcpy(c->out + c->out_size, data, size);
        c->out_size += size;
    }
}

static void put_rest(conn *c) {
    ssize_t wrote = write(c->fd, c->out + c->out_done, c->out_size - c->out_done);
    if (wrote < 0) {
        if (errno != EAGAIN)
            hang_up(c);
        return;
    }
    c->out_done += (size_t)wrote;
    if (c->out_done == c->out_size) {
        free(c->out);
        c->out = NULL;
        c->out_size = c->out_done = 0;
        watch(c, EPOLL_CTL_MOD, EPOLLIN);
    }
}

static void join_broadcast(conn *c) {
    if (member_count == member_room) {
        member_room = member_room ? member_room * 2 : 64;
        members = checked(realloc(members, sizeof *members * (size_t)member_room));
    }
    c->seat = member_count;
    members[member_count++] = c;
}

/* Answers the upgrade request; returns its size, 0 if it is not all there yet. */
static size_t upgrade(conn *c, const uint8_t *data, size_t size) {
    const uint8_t *end = memmem(data, size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    size_t head_size = (size_t)(end - data) + 4;
    char head[8192];
    if (head_size > sizeof head - 1) {
        hang_up(c);
        return 0;
    }
    memcpy(head, data, head_size);
    head[head_size] = 0;
    char *key = strcasestr(head, "\r\nsec-websocket-key:");
    if (key)
        key += strlen("\r\nsec-websocket-key:");
    while (key && (*key == ' ' || *key == '\t'))
        key++;
    if (!key || strcspn(key, " \t\r") != KEY_LENGTH) {
        hang_up(c);
        return 0;
    }
    char accept[ACCEPT_LENGTH + 1], response[256];
    accept_for(key, accept);
    int length = snprintf(response, sizeof response,
                          "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                          "Sec-WebSocket-Accept: %s\r\n\r\n",
                          accept);
    put(c, (uint8_t *)response, (size_t)length);
    if (!strncmp(head, "GET /broadcast", 14))
        join_broadcast(c);
    c->open = true;
    return head_size;
}

/* Size of the header that `data` begins with and the frame's payload; 0 if it is not all there yet. */
static size_t parse_header(const uint8_t *data, size_t size, uint64_t *payload) {
    if (size < 2)
        return 0;
    unsigned length = data[1] & 127;
    size_t header = length < 126 ? 6 : length == 126 ? 8 : 14;
    if (size < header)
        return 0;
    *payload = length;
    if (length >= 126) {
        *payload = 0;
        for (size_t i = 2; i < header - 4; i++)
            *payload = *payload << 8 | data[i];
    }
    return header;
}

/* Turns a frame into its reply, further down in the same memory: headers without a mask are shorter. */
static size_t reply(uint8_t *to, const uint8_t *frame, size_t header, uint64_t size) {
    uint8_t mask[8];
    memcpy(mask, frame + header - 4, 4);
    memcpy(mask + 4, mask, 4);
    uint64_t mask_word, word;
    memcpy(&mask_word, mask, 8);
    const uint8_t *payload = frame + header;
    size_t reply_header = header - 4;
    to[0] = (frame[0] & 15) == PING ? 0x80 | PONG : frame[0];
    to[1] = frame[1] & 127;
    memmove(to + 2, frame + 2, reply_header - 2);
    uint8_t *unmasked = to + reply_header;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, payload + i, 8);
        word ^= mask_word;
        memcpy(unmasked + i, &word, 8);
    }
    for (; i < size; i++)
        unmasked[i] = payload[i] ^ mask[i & 3];
    return reply_header + size;
}

/* Keeps the rest of a read, with room for the rest of its frame. */
static void keep(conn *c, const uint8_t *data, size_t size, size_t room) {
    if (!size) {
        free(c->in);
        c->in = NULL;
        c->in_size = c->in_room = 0;
        return;
    }
    if (c->in && room <= c->in_room) {
        memmove(c->in, data, size);
    } else {
        uint8_t *in = checked(malloc(room));
        memcpy(in, data, size);
        free(c->in);
        c->in = in;
        c->in_room = room;
    }
    c->in_size = size;
}

static void handle(conn *c, uint8_t *data, size_t size) {
    size_t at = 0, replies = 0, room = SCRATCH;
    bool closing = false;
    if (!c->open) {
        at = upgrade(c, data, size);
        if (c->gone)
            return;
    }
    uint8_t *out = data + at;
    while (c->open && !closing) {
        uint64_t payload = 0;
        size_t header = parse_header(data + at, size - at, &payload);
        if (!header)
            break;
        if (payload > UINT32_MAX) {
            hang_up(c);
            return;
        }
        if (size - at < header + payload) {
            room = header + payload + SCRATCH;
            break;
        }
        int opcode = data[at] & 15;
        closing = opcode == CLOSE;
        if (opcode != PONG)
            replies += reply(out + replies, data + at, header, payload);
        at += header + payload;
    }
    if (replies) {
        if (c->seat < 0 || closing)
            put(c, out, replies);
        else
            for (int i = member_count - 1; i >= 0; i--) /* backwards, because one that has gone leaves its seat */
                put(members[i], out, replies);
    }
    if (closing)
        hang_up(c);
    if (!c->gone)
        keep(c, data + at, size - at, room);
}

static void receive(conn *c) {
    uint8_t *buffer = c->in ? c->in : scratch;
    size_t room = c->in ? c->in_room : sizeof scratch;
    if (c->in_size == room) { /* a head that never ends */
        hang_up(c);
        return;
    }
    ssize_t got = read(c->fd, buffer + c->in_size, room - c->in_size);
    if (got > 0)
        handle(c, buffer, c->in_size + (size_t)got);
    else if (got == 0 || errno != EAGAIN)
        hang_up(c);
}

static void accept_all(int listener) {
    int fd, one = 1;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        conn *c = checked(calloc(1, sizeof *c));
        c->fd = fd;
        c->seat = -1;
        watch(c, EPOLL_CTL_ADD, EPOLLIN);
    }
}

static int listen_on(int port) {
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || bind(fd, (struct sockaddr *)&address, sizeof address) || listen(fd, 4096)) {
        perror("floor: cannot listen");
        exit(1);
    }
    return fd;
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fputs("usage: floor PORT\n", stderr);
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to outlive the parent process */
    int listener = listen_on(atoi(argv[1]));
    epoll = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        for (int i = 0; i < count; i++) {
            conn *c = events[i].data.ptr;
            if (!c) {
                accept_all(listener);
                continue;
            }
            if (!c->gone && events[i].events & EPOLLOUT)
                put_rest(c);
            if (!c->gone && events[i].events & (EPOLLIN | EPOLLHUP | EPOLLERR))
                receive(c);
        }
        bury();
    }
}
