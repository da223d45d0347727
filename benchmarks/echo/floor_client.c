/* The floor of clients: a WebSocket client that does the least that a correct one can do.
 *
 * One thread, one connection, epoll. For each event there is one read, and its messages are compared where they lie; the
 * next ones are masked, each with a fresh mask of the system's random numbers, and leave in one write. It checks the
 * proof of the handshake and every byte that comes, answers pings, and ends connections as RFC 6455 demands: close frame
 * out, close frame in, the end of the stream. The additional time of another client is therefore its own, and not the
 * kernel's.
 *
 *   CONNECTING -> UPGRADING -> OPEN -> CLOSING
 *
 * Usage: floor_client echo|receive|connect --url ws://ADDRESS:PORT/PATH --warmup S --seconds S [--depth N] [--size N]
 *
 * It prints a line when it begins to measure, and a line of JSON with the result, as the other clients do.
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
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "handshake.h"
#include "random.h"

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9 };
enum { HEADER = 14, CONTROL = 125, MASKS = 64, SCRATCH = 1 << 18 };

static struct {
    const char *mode, *path;
    struct sockaddr_in address;
    size_t depth, size;
    double warmup, seconds;
} options = {.mode = "", .path = "", .depth = 1, .size = 32};

static int epoll, fd;
static enum { CONNECTING, UPGRADING, OPEN, CLOSING } state;
static bool closed; /* the server's close frame came */
static char accept_[ACCEPT_LENGTH + 1];
static uint8_t *in, *out; /* received bytes, from the first unused one on; bytes to be sent */
static size_t in_size, in_room, out_size, out_room, out_done;
static uint8_t *payload;

static uint64_t count, count_before;
static double began, began_cpu;
static volatile sig_atomic_t alarms; /* the warm-up is over; so is the measurement */

static _Noreturn void fail(const char *words) {
    fprintf(stderr, "floor_client: %s\n", words);
    exit(1);
}

static void *checked(void *memory) {
    if (!memory)
        fail("out of memory");
    return memory;
}

static void watch(int operation, uint32_t events) {
    struct epoll_event event = {.events = events};
    epoll_ctl(epoll, operation, fd, &event);
}

/* Sending */

/* Writes the waiting bytes, as far as the socket takes them. */
static void flush(void) {
    bool waited = out_done;
    ssize_t wrote = send(fd, out + out_done, out_size - out_done, MSG_NOSIGNAL);
    if (wrote < 0 && errno != EAGAIN)
        fail("the server hung up while it was written to");
    out_done += wrote > 0 ? (size_t)wrote : 0;
    if (out_done == out_size) {
        out_size = out_done = 0;
        if (waited)
            watch(EPOLL_CTL_MOD, EPOLLIN);
    } else if (!waited) {
        watch(EPOLL_CTL_MOD, EPOLLIN | EPOLLOUT);
    }
}

static uint32_t next_mask(void) {
    static uint32_t masks[MASKS];
    static unsigned spent = MASKS;
    if (spent == MASKS) {
        fill_random(masks, sizeof masks);
        spent = 0;
    }
    return masks[spent++];
}

static void put_frame(unsigned opcode, const uint8_t *data, size_t size) {
    if (out_size + HEADER + size > out_room)
        out = checked(realloc(out, out_room = 2 * (out_size + HEADER + size)));
    uint8_t *to = out + out_size;
    uint32_t mask = next_mask();
    size_t bytes = size < 126 ? 0 : size < 65536 ? 2 : 8;
    *to++ = (uint8_t)(0x80 | opcode);
    *to++ = (uint8_t)(0x80 | (bytes == 0 ? size : bytes == 2 ? 126 : 127));
    for (size_t i = 0; i < bytes; i++)
        *to++ = (uint8_t)((uint64_t)size >> 8 * (bytes - 1 - i));
    memcpy(to, &mask, 4);
    to += 4;
    uint64_t masks = (uint64_t)mask << 32 | mask, word;
    size_t i = 0;
    for (; i + 8 <= size; i += 8) {
        memcpy(&word, data + i, 8);
        word ^= masks;
        memcpy(to + i, &word, 8);
    }
    for (; i < size; i++)
        to[i] = data[i] ^ (uint8_t)(masks >> 8 * (i & 3));
    out_size = (size_t)(to - out) + size;
}

static void put_close(void) {
    static const uint8_t normal_closure[] = {1000 >> 8, 1000 & 255};
    put_frame(CLOSE, normal_closure, sizeof normal_closure);
    state = CLOSING;
}

/* Opening */

static void dial(void) {
    int one = 1;
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        fail("no socket");
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, (struct sockaddr *)&options.address, sizeof options.address) < 0 && errno != EINPROGRESS)
        fail("cannot connect");
    state = CONNECTING;
    closed = false;
    in_size = out_size = out_done = 0;
    watch(EPOLL_CTL_ADD, EPOLLOUT);
}

static void request(void) {
    uint8_t nonce[16];
    char key[KEY_LENGTH + 1], text[512];
    fill_random(nonce, sizeof nonce);
    base64(nonce, sizeof nonce, key);
    accept_for(key, accept_);
    int size = snprintf(text, sizeof text,
                        "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        options.path, ntohs(options.address.sin_port), key);
    if (send(fd, text, (size_t)size, MSG_NOSIGNAL) != size)
        fail("cannot connect, or a new connection does not take the request");
    state = UPGRADING;
    watch(EPOLL_CTL_MOD, EPOLLIN);
}

/* Takes the head of the response; returns its size, 0 if it is not all there yet. */
static size_t take_response(void) {
    uint8_t *end = memmem(in, in_size, "\r\n\r\n", 4);
    if (!end)
        return 0;
    end[2] = 0;
    char *proof = strcasestr((char *)in, "\r\nsec-websocket-accept:");
    if (strncmp((char *)in, "HTTP/1.1 101 ", 13) || !strcasestr((char *)in, "\r\nupgrade: websocket\r\n") ||
        !strcasestr((char *)in, "\r\nconnection: upgrade\r\n"))
        fail("the server refuses");
    if (proof)
        proof += strlen("\r\nsec-websocket-accept:");
    while (proof && (*proof == ' ' || *proof == '\t'))
        proof++;
    if (!proof || strncmp(proof, accept_, ACCEPT_LENGTH))
        fail("wrong Sec-WebSocket-Accept");
    state = OPEN;
    if (*options.mode == 'c') {
        count++;
        put_close();
    } else if (*options.mode == 'e') {
        for (size_t i = 0; i < options.depth; i++)
            put_frame(BINARY, payload, options.size);
    }
    return (size_t)(end - in) + 4;
}

/* Receiving */

static void take_message(const uint8_t *data, size_t size) {
    if (state != OPEN)
        return;
    count++;
    if (*options.mode == 'r')
        return;
    if (*options.mode != 'e' || size != options.size || memcmp(data, payload, size))
        fail("a message came that is no echo");
    put_frame(BINARY, payload, size);
}

/* Takes the frame at the beginning of `data`; returns its size, 0 if it is not all there yet. */
static size_t take_frame(const uint8_t *data, size_t left) {
    if (left < 2)
        return 0;
    unsigned opcode = data[0] & 15;
    uint64_t size = data[1];
    size_t header = size < 126 ? 2 : size == 126 ? 4 : 10;
    if (data[1] & 0x80 || data[0] & 0x70 || !(data[0] & 0x80))
        fail("a frame is masked, a fragment, or has reserved bits set"); /* no server here sends fragments */
    if (left < header)
        return 0;
    if (header > 2) {
        size = 0;
        for (size_t i = 2; i < header; i++)
            size = size << 8 | data[i];
    }
    if (size > (opcode >= CLOSE ? CONTROL : 1 << 24))
        fail("a frame is too large");
    if (left < header + size)
        return 0;
    if (opcode == BINARY || opcode == TEXT)
        take_message(data + header, size);
    else if (opcode == PING)
        put_frame(PING + 1, data + header, size);
    else if (opcode == CLOSE)
        closed = true;
    else if (opcode != PING + 1)
        fail("a frame has a wrong opcode");
    return header + size;
}

static void hang_up(void) {
    if (state != CLOSING || !closed)
        fail("the server hung up");
    close(fd);
    if (alarms < 2)
        dial();
}

static void receive(void) {
    ssize_t got = read(fd, in + in_size, in_room - in_size);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0) {
        hang_up();
        return;
    }
    in_size += (size_t)got;
    size_t at = 0, used;
    do {
        used = state == UPGRADING ? take_response() : closed ? 0 : take_frame(in + at, in_size - at);
        at += used;
    } while (used);
    if (closed && state == OPEN)
        fail("the server closed the connection");
    in_size -= at;
    memmove(in, in + at, in_size);
    if (out_size)
        flush();
}

/* Measuring */

static double seconds_of(clockid_t clock) {
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void on_alarm(int number) {
    (void)number;
    alarms++;
}

static void set_alarm(double seconds) {
    long micros = (long)(seconds * 1e6) + 1;
    struct itimerval timer = {.it_value = {.tv_sec = micros / 1000000, .tv_usec = micros % 1000000}};
    setitimer(ITIMER_REAL, &timer, NULL);
}

static void turn(void) {
    struct epoll_event event;
    if (epoll_wait(epoll, &event, 1, -1) < 1)
        return; /* an alarm */
    if (state == CONNECTING) {
        request();
        return;
    }
    if (event.events & EPOLLOUT)
        flush();
    if (event.events & ~(uint32_t)EPOLLOUT)
        receive();
}

static void measure(void) {
    set_alarm(options.warmup);
    while (!alarms || !count)
        turn();
    alarms = 1;
    set_alarm(options.seconds);
    began = seconds_of(CLOCK_MONOTONIC);
    began_cpu = seconds_of(CLOCK_PROCESS_CPUTIME_ID);
    count_before = count;
    puts("{}");
    fflush(stdout);
    while (alarms < 2 || count == count_before) /* on a busy machine, a short time may pass without a message */
        turn();
    printf("{\"seconds\": %.6f, \"cpu\": %.6f, \"count\": %llu}\n", seconds_of(CLOCK_MONOTONIC) - began,
           seconds_of(CLOCK_PROCESS_CPUTIME_ID) - began_cpu, (unsigned long long)(count - count_before));
}

/* The command line */

static void parse(int argc, char **argv) {
    static char address[64], path[256];
    int port = 0;
    options.mode = argc > 1 ? argv[1] : "";
    for (int i = 2; i + 1 < argc; i += 2) {
        const char *name = argv[i], *value = argv[i + 1];
        if (!strcmp(name, "--url"))
            sscanf(value, "ws://%63[0-9.]:%d%255s", address, &port, path);
        else if (!strcmp(name, "--depth"))
            options.depth = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--size"))
            options.size = strtoul(value, NULL, 10);
        else if (!strcmp(name, "--warmup"))
            options.warmup = atof(value);
        else if (!strcmp(name, "--seconds"))
            options.seconds = atof(value);
    }
    if (strcmp(options.mode, "echo") && strcmp(options.mode, "receive") && strcmp(options.mode, "connect"))
        fail("the mode is echo, receive or connect");
    options.path = path;
    options.address.sin_family = AF_INET;
    options.address.sin_port = htons((uint16_t)port);
    if (inet_pton(AF_INET, address, &options.address.sin_addr) != 1 || port < 1 || *path != '/')
        fail("--url is ws://ADDRESS:PORT/PATH");
}

int main(int argc, char **argv) {
    parse(argc, argv);
    signal(SIGALRM, on_alarm); /* interrupts epoll_wait in any case; the interruption of another call does no harm */
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to outlive the parent process */
    epoll = epoll_create1(EPOLL_CLOEXEC);
    payload = checked(malloc(options.size + 1));
    fill_random(payload, options.size);
    in = checked(malloc(in_room = SCRATCH + options.size));
    dial();
    measure();
    return 0;
}
