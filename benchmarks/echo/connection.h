/* The connections of the load client: their opening, the sending of the ring's frames, and the check of the replies. Part
 * of `load.c`, whose options it reads.
 *
 * A connection moves   SECURING -> UPGRADING -> OPEN -> CLOSING   and SECURING is for TLS alone. All is driven by epoll
 * but connect(), which loopback answers at once.
 *
 * Replies are compared as they arrive and stored nowhere; compressed ones are decompressed, and then compared.
 */

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "handshake.h"
#include "tls.h"

enum { EVENTS = 512, BUFFER = 1 << 18, HEAD = 8192, CONTROL = 125, TLS_RECORD = 1 << 14 };
enum { DIALS_AT_ONCE = 64, READS_AT_ONCE = 32 };
enum { STALL_MS = 10000 };

/* The fields of every message come first: with a thousand connections the cache is the limit of the client. */
typedef struct {
    int fd;
    enum { SECURING, UPGRADING, OPEN, CLOSING } state;
    SSL *ssl;
    bool wants_output; /* the socket took less than there is to write */
    bool closed;       /* the server's close frame came */

    bool in_payload, in_message, final, compressed; /* where in a frame and message it is being received */
    uint8_t header[10];
    unsigned header_size, opcode;
    uint64_t frame_left, message_size; /* bytes to come; bytes of the message that were checked */

    z_stream *inflater;
    int port;
    unsigned first;                   /* of the ring's frames, where its messages begin */
    unsigned reply_size, reply_done;  /* of `reply` */
    uint64_t asked, written, checked; /* messages, in the order in which they pass */
    size_t part;                      /* bytes that have been written of the frame after those */
    uint64_t *asked_at;               /* when each message on its way was asked for, in ns */

    uint64_t dialed; /* when, in ns */
    char *head;      /* of the response, while UPGRADING */
    size_t head_size;
    char accept[ACCEPT_LENGTH + 1]; /* the expected Sec-WebSocket-Accept */
    unsigned control_size;
    uint8_t control[CONTROL];   /* payload of the control frame that is being received */
    uint8_t reply[6 + CONTROL]; /* a control frame to send between two frames */
} conn;

static int epoll;
static conn *conns;
static int dialed, opened;
static uint8_t buffer[BUFFER];
static uint64_t largest; /* bytes of a message that may come */
static uint64_t now;     /* the time of the current event, in ns */

/* Functions of the mode: for an opened connection, for a whole message, and for a connection that has been closed. */
static void (*on_open)(conn *);
static void (*on_message)(conn *);
static void (*on_end)(conn *);

static uint64_t clock_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (uint64_t)time.tv_sec * 1000000000 + (uint64_t)time.tv_nsec;
}

/* The socket, encrypted or not */

static void watch(conn *c, bool output) {
    if (c->wants_output == output)
        return;
    c->wants_output = output;
    struct epoll_event event = {.events = EPOLLIN | (output ? EPOLLOUT : 0), .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event);
}

/* The number of bytes that passed; 0 if it has to wait; -1 at the end of the stream. */
static ssize_t tls_result(conn *c, int result) {
    if (result > 0)
        return result;
    int reason = tls.get_error(c->ssl, result);
    if (reason == TLS_WANTS_WRITE)
        watch(c, true);
    if (reason == TLS_WANTS_READ || reason == TLS_WANTS_WRITE)
        return 0;
    tls.clear_errors();
    return -1;
}

static ssize_t take(conn *c) {
    if (c->ssl)
        return tls_result(c, tls.read(c->ssl, buffer, BUFFER));
    ssize_t got = read(c->fd, buffer, BUFFER);
    if (got < 0 && errno == EAGAIN)
        return 0;
    return got > 0 ? got : -1;
}

static size_t put(conn *c, const uint8_t *data, size_t size) {
    ssize_t wrote;
    if (c->ssl) {
        wrote = tls_result(c, tls.write(c->ssl, data, size > INT32_MAX ? INT32_MAX : (int)size));
    } else {
        wrote = write(c->fd, data, size);
        if (wrote < 0 && errno == EAGAIN)
            wrote = 0;
    }
    if (wrote < 0)
        fail("the server hung up while it was written to");
    return (size_t)wrote;
}

/* Writes all that is due, in as few calls as the ring allows, as far as the socket takes it. */
static void flush(conn *c) {
    while (c->reply_size || c->written < c->asked) {
        /* A control frame may leave between two frames, but neither within one nor before a call is repeated, for which
         * TLS needs the same bytes. */
        bool control = c->reply_done || (c->reply_size && !c->part && !c->wants_output) || c->written == c->asked;
        if (control) {
            size_t wrote = put(c, c->reply + c->reply_done, c->reply_size - c->reply_done);
            c->reply_done += (unsigned)wrote;
            if (c->reply_done < c->reply_size) {
                watch(c, true);
                return;
            }
            c->reply_size = c->reply_done = 0;
            continue;
        }
        unsigned index = (unsigned)((c->first + c->written) % ring);
        uint64_t run = c->asked - c->written;
        if (run > ring - index)
            run = ring - index;
        size_t size = frame_at[index + run] - frame_at[index] - c->part;
        size_t wrote = put(c, frames + frame_at[index] + c->part, size);
        c->part += wrote;
        while (index < ring && c->part >= frame_at[index + 1] - frame_at[index]) {
            c->part -= frame_at[index + 1] - frame_at[index];
            c->written++;
            index++;
        }
        if (wrote < size && !(c->ssl && wrote)) {
            watch(c, true);
            return;
        }
    }
    watch(c, false);
}

static void ask(conn *c, int messages) {
    for (int i = 0; i < messages; i++)
        c->asked_at[c->asked++ % (unsigned)options.depth] = now;
    flush(c);
}

static void send_control(conn *c, unsigned opcode, const uint8_t *payload, unsigned size) {
    if (c->reply_done) /* the last one is half written; a peer that pings so fast gets one pong for two */
        return;
    c->reply_size = (unsigned)build_frame(c->reply, opcode, payload, size);
    flush(c);
}

/* Opening and closing */

static void send_request(conn *c) {
    uint8_t nonce[16];
    char key[KEY_LENGTH + 1], request[512];
    fill_random(nonce, sizeof nonce);
    base64(nonce, sizeof nonce, key);
    accept_for(key, c->accept);
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                        options.path, c->port, key,
                        options.deflate /* as a browser offers it */
                            ? "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
                            : "");
    if (put(c, (uint8_t *)request, (size_t)size) != (size_t)size)
        fail("a new connection does not take %d bytes", size);
    c->state = UPGRADING;
    c->head = checked(malloc(HEAD));
    c->head_size = 0;
}

static void secure(conn *c) {
    ssize_t result = tls_result(c, tls.connect(c->ssl));
    if (result < 0)
        fail("the TLS handshake failed");
    if (result > 0) {
        watch(c, false);
        send_request(c);
    }
}

static void dial(conn *c) {
    uint64_t *asked_at = c->asked_at;
    unsigned first = c->first;
    int port = c->port;
    memset(c, 0, sizeof *c);
    c->asked_at = asked_at;
    c->first = first;
    c->port = port;
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int one = 1;
    c->dialed = clock_of(CLOCK_MONOTONIC);
    c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (c->fd < 0)
        fail("cannot open socket %d of %d: %s (see ulimit -n)", dialed + 1, options.connections, strerror(errno));
    setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(c->fd, (struct sockaddr *)&address, sizeof address) < 0)
        fail("cannot connect to port %d: %s", port, strerror(errno));
    fcntl(c->fd, F_SETFL, O_NONBLOCK);
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event);
    if (options.tls) {
        c->ssl = tls.new_session(tls.context);
        tls.set_fd(c->ssl, c->fd);
        c->state = SECURING;
        secure(c);
    } else {
        send_request(c);
    }
}

static void dial_next(void) {
    while (dialed < options.connections && dialed - opened < DIALS_AT_ONCE)
        dial(conns + dialed++);
}

/* Resets the connection, so that none is left behind in TIME_WAIT. */
static void drop(conn *c) {
    struct linger linger = {1, 0};
    setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &linger, sizeof linger);
    if (c->ssl)
        tls.free_session(c->ssl);
    if (c->inflater) {
        zlib.inflate_end(c->inflater);
        free(c->inflater);
    }
    close(c->fd);
    c->fd = -1;
}

static void check_extensions(conn *c) {
    char *extensions = strcasestr(c->head, "\r\nsec-websocket-extensions:");
    if (!options.deflate) {
        if (extensions)
            fail("the server uses an extension that was not offered");
        return;
    }
    if (!extensions || !strstr(extensions, "permessage-deflate"))
        fail("the server does not compress");
    char *bits = strstr(extensions, "client_max_window_bits=");
    if (bits && atoi(bits + strlen("client_max_window_bits=")) < DEFLATE_BITS)
        fail("the server wants a window of less than %d bits", DEFLATE_BITS);
    c->inflater = checked(calloc(1, sizeof *c->inflater));
    if (zlib.inflate_init(c->inflater, -15, zlib.version(), (int)sizeof(z_stream)))
        fail("zlib gives no decompressor");
}

/* Takes the response's head; returns how many bytes of `data` belong to it. */
static size_t take_response(conn *c, const uint8_t *data, size_t size) {
    size_t used = 0;
    while (used < size) {
        if (c->head_size == HEAD - 1)
            fail("the response's head is over %d bytes", HEAD);
        c->head[c->head_size++] = (char)data[used++];
        if (c->head_size >= 4 && !memcmp(c->head + c->head_size - 4, "\r\n\r\n", 4))
            break;
    }
    c->head[c->head_size] = 0;
    if (c->head_size < 4 || memcmp(c->head + c->head_size - 4, "\r\n\r\n", 4))
        return used;
    if (strncmp(c->head, "HTTP/1.1 101 ", 13)) {
        c->head[strcspn(c->head, "\r\n")] = 0;
        fail("the server refuses: %s", c->head);
    }
    char *accept = strcasestr(c->head, "\r\nsec-websocket-accept:");
    if (accept) {
        accept += strlen("\r\nsec-websocket-accept:");
        accept += strspn(accept, " \t");
    }
    if (!accept || strncmp(accept, c->accept, ACCEPT_LENGTH))
        fail("wrong Sec-WebSocket-Accept");
    check_extensions(c);
    free(c->head);
    c->head = NULL;
    c->state = OPEN;
    opened++;
    on_open(c);
    return used;
}

/* Receiving */

static void compare(conn *c, const uint8_t *data, size_t size) {
    size_t index = (c->first + c->checked) % ring;
    if (size > (uint64_t)options.size - c->message_size)
        fail("wrong echo: more than %d bytes", options.size);
    if (memcmp(data, payloads + index * (size_t)options.size + c->message_size, size))
        fail("wrong echo: message %llu of its connection has a wrong byte", (unsigned long long)c->checked);
    c->message_size += size;
}

static void (*take_part)(conn *, const uint8_t *, size_t) = compare; /* of a message */

static void inflate_and_compare(conn *c, const uint8_t *data, size_t size) {
    static uint8_t inflated[1 << 16];
    z_stream *stream = c->inflater;
    stream->next_in = data;
    stream->avail_in = (unsigned)size;
    do {
        stream->next_out = inflated;
        stream->avail_out = sizeof inflated;
        int result = zlib.inflate(stream, Z_SYNC_FLUSH);
        if (result != Z_OK && result != Z_BUF_ERROR)
            fail("wrong echo: message %llu of its connection does not inflate", (unsigned long long)c->checked);
        compare(c, inflated, sizeof inflated - stream->avail_out);
    } while (stream->avail_in || !stream->avail_out);
}

static void end_message(conn *c) {
    if (c->compressed)
        inflate_and_compare(c, (const uint8_t *)"\x00\x00\xff\xff", DEFLATE_TAIL);
    if (take_part == compare && c->message_size != (uint64_t)options.size)
        fail("wrong echo: %llu bytes instead of %d", (unsigned long long)c->message_size, options.size);
    c->in_message = false;
    on_message(c);
    c->message_size = 0;
    c->checked++;
}

static void fail_closed(const conn *c) {
    bool bare = c->control_size < 2;
    fail("the server closed the connection: %d %.*s", bare ? 1005 : c->control[0] << 8 | c->control[1],
         bare ? 0 : (int)c->control_size - 2, c->control + 2);
}

static void end_frame(conn *c) {
    c->in_payload = false;
    c->header_size = 0;
    if (c->opcode < CLOSE) {
        if (c->final)
            end_message(c);
    } else if (c->opcode == PING) {
        send_control(c, PONG, c->control, c->control_size);
    } else if (c->opcode == CLOSE) {
        if (c->state != CLOSING)
            fail_closed(c);
        c->closed = true;
    }
}

static void begin_frame(conn *c) {
    uint64_t size = c->header[1];
    if (size >= 126) {
        size = 0;
        for (unsigned i = 2; i < c->header_size; i++)
            size = size << 8 | c->header[i];
    }
    c->final = c->header[0] >> 7;
    c->opcode = c->header[0] & 15;
    c->frame_left = size;
    c->in_payload = true;
    if (c->header[0] & (options.deflate && (c->opcode == TEXT || c->opcode == BINARY) ? 0x30 : 0x70))
        fail("reserved bits are set");
    if (c->opcode >= CLOSE) {
        if (size > CONTROL || !c->final)
            fail("a control frame is fragmented or too long");
        c->control_size = 0;
    } else {
        unsigned wanted = c->in_message ? CONTINUATION : options.text ? TEXT : BINARY;
        if (c->opcode != wanted)
            fail("wrong echo: opcode %u instead of %u", c->opcode, wanted);
        if (c->state != OPEN)
            fail("a message that nobody asked for");
        if (!c->in_message)
            c->compressed = c->header[0] & RSV1;
        if (!c->compressed && size > largest - c->message_size)
            fail("wrong echo: more than %llu bytes", (unsigned long long)largest);
        c->in_message = true;
    }
    if (!size)
        end_frame(c);
}

static size_t take_header(conn *c, const uint8_t *data, size_t size) {
    size_t used = 0;
    while (used < size) {
        c->header[c->header_size++] = data[used++];
        if (c->header_size < 2)
            continue;
        if (c->header[1] & 0x80)
            fail("a frame from the server is masked");
        if (c->header_size == (c->header[1] < 126 ? 2u : c->header[1] == 126 ? 4u : 10u)) {
            begin_frame(c);
            break;
        }
    }
    return used;
}

static size_t take_payload(conn *c, const uint8_t *data, size_t size) {
    if (size > c->frame_left)
        size = c->frame_left;
    if (c->opcode >= CLOSE) {
        memcpy(c->control + c->control_size, data, size);
        c->control_size += (unsigned)size;
    } else if (c->compressed) {
        inflate_and_compare(c, data, size);
    } else {
        take_part(c, data, size);
    }
    c->frame_left -= size;
    if (!c->frame_left)
        end_frame(c);
    return size;
}

static void end_connection(conn *c);

static void receive(conn *c) {
    if (c->state == SECURING) {
        secure(c);
        return;
    }
    for (int reads = 0; reads < READS_AT_ONCE; reads++) {
        ssize_t got = take(c);
        now = clock_of(CLOCK_MONOTONIC);
        if (got == 0)
            return;
        if (got < 0) {
            end_connection(c);
            return;
        }
        uint64_t asked = c->asked;
        for (size_t at = 0; at < (size_t)got;) {
            const uint8_t *data = buffer + at;
            size_t left = (size_t)got - at;
            if (c->state == UPGRADING)
                at += take_response(c, data, left);
            else
                at += c->in_payload ? take_payload(c, data, left) : take_header(c, data, left);
        }
        if (c->asked != asked)
            flush(c);
        if (!c->ssl || got < TLS_RECORD) /* epoll tells if there is more: OpenSSL reads no record before it has to */
            return;
    }
}

static void end_connection(conn *c) {
    if (!c->closed)
        fail("the server hung up %s", c->state == OPEN      ? "on an open connection"
                                      : c->state == CLOSING ? "without a close frame"
                                                            : "during the handshake");
    drop(c);
    opened--;
    on_end(c);
}

/* One pass over the events. */
static void turn(const char *what) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(epoll, events, EVENTS, STALL_MS);
    now = clock_of(CLOCK_MONOTONIC);
    if (count == 0)
        fail("nothing came for %d s while %s; %d of %d connections are open", STALL_MS / 1000, what, opened,
             options.connections);
    for (int i = 0; i < count; i++) {
        conn *c = events[i].data.ptr;
        if (!c)
            continue; /* standard input, which `hold` looks at */
        if (events[i].events & EPOLLOUT && c->state >= OPEN)
            flush(c);
        if (events[i].events & ~EPOLLOUT || c->state == SECURING)
            receive(c);
    }
}
