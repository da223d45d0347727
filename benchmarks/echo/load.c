/* The load client: keeps a WebSocket server busy from one thread, and checks every byte that comes back.
 *
 *   echo       C connections, each with D messages on their way at any time
 *   connect    C connections at a time, each opened, closed and begun anew: handshakes
 *   broadcast  C connections; the first keeps D messages on their way, each until all of them have got it
 *   idle       opens C connections, has each echo D messages, and holds them until a line or the end of standard input
 *   chat       C connections, each of which publishes to all, and its next message once it has got its last one
 *   group      C members of a group, some of which publish to it; see group.h
 *
 * Its messages are in ring.h, its connections in connection.h.
 *
 * It prints one line of JSON when it begins to measure, which is after the warm-up, and one with the result. A
 * failure is {"error": ...} and exit status 1.
 */

#define _GNU_SOURCE
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>

#include "deflate.h"
#include "errors.h"
#include "histogram.h"
#include "ring.h"

enum { SETTLES_US = 500000, PORTS = 8 };

static struct {
    const char *mode, *path;
    int connections, depth, size;
    double seconds, warmup;
    bool text, tls, deflate;
} options = {"echo", "/", 1, 1, 32, 2.0, 0.5, false, false, false};

static int ports[PORTS], port_count; /* the connections are divided among them */

#include "connection.h"

/* Measuring */

static bool measuring;
static uint64_t began, ends, done, began_cpu;

static uint64_t nanoseconds(double seconds) { return (uint64_t)(seconds * 1e9); }

/* Counts a message or a connection that has begun at that time. */
static void count_in(uint64_t begun) {
    if (measuring) {
        histogram_add(now - begun);
        done++;
    }
}

/* Begins to measure, and reports it: the caller then begins to measure the server. */
static void measure_from_now_on(void) {
    puts("{\"measuring\": true}");
    fflush(stdout);
    measuring = true;
    began = now;
    began_cpu = clock_of(CLOCK_PROCESS_CPUTIME_ID);
    ends = began + nanoseconds(options.seconds);
    done = 0;
}

static bool go_on(uint64_t warm) {
    if (!measuring && now >= warm)
        measure_from_now_on();
    return !measuring || now < ends || !done; /* on a busy machine, a short time may pass without a message */
}

static void report(const char *unit) {
    double seconds = (double)(now - began) / 1e9;
    double cpu = (double)(clock_of(CLOCK_PROCESS_CPUTIME_ID) - began_cpu) / 1e9;
    printf("{\"%s\": %llu, \"seconds\": %.6f, \"client_cpu\": %.3f, "
           "\"p50_us\": %.1f, \"p90_us\": %.1f, \"p99_us\": %.1f, \"max_us\": %.1f}\n",
           unit, (unsigned long long)done, seconds, cpu / seconds, histogram_quantile(.5),
           histogram_quantile(.9), histogram_quantile(.99), histogram_quantile(1));
}

/* Modes */

static void nothing(conn *c) { (void)c; }

static void fail_unasked(conn *c) {
    (void)c;
    fail("a message that nobody asked for");
}

static void open_all(void (*opens)(conn *), void (*takes)(conn *)) {
    on_open = opens;
    on_message = takes;
    while (opened < options.connections) {
        dial_next();
        if (opened < options.connections)
            turn("connections are opened");
    }
}

/* Asks for the next message after a reply; it leaves with others once the whole read has been checked. */
static void on_echo(conn *c) {
    unsigned slot = (unsigned)(c->checked % (unsigned)options.depth);
    if (c->checked == c->asked)
        fail("a message that nobody asked for");
    count_in(c->asked_at[slot]);
    c->asked_at[slot] = now;
    c->asked++;
}

static void run_echo(void) {
    open_all(nothing, fail_unasked);
    on_message = on_echo;
    now = clock_of(CLOCK_MONOTONIC);
    uint64_t warm = now + nanoseconds(options.warmup);
    for (int i = 0; i < options.connections; i++)
        ask(conns + i, options.depth);
    while (go_on(warm))
        turn("echoes were awaited");
    report("messages");
}

static int *missing;  /* of each message on its way: the receivers that it has not reached */
static int delivered; /* messages that have reached all since the last request for others */

static void on_broadcast(conn *c) {
    unsigned slot = (unsigned)(c->checked % (unsigned)options.depth);
    if (c->checked == conns->asked)
        fail("a message that nobody asked for");
    if (--missing[slot])
        return;
    if (measuring) {
        histogram_add(now - conns->asked_at[slot]);
        done += (uint64_t)options.connections;
    }
    delivered++;
}

static void ask_for_broadcasts(int messages) {
    for (int i = 0; i < messages; i++)
        missing[(conns->asked + (unsigned)i) % (unsigned)options.depth] = options.connections;
    ask(conns, messages);
}

static void run_broadcast(void) {
    open_all(nothing, fail_unasked);
    usleep(SETTLES_US); /* a server may count a connection in only after it has answered it */
    on_message = on_broadcast;
    missing = checked(calloc((size_t)options.depth, sizeof *missing));
    now = clock_of(CLOCK_MONOTONIC);
    uint64_t warm = now + nanoseconds(options.warmup);
    ask_for_broadcasts(options.depth);
    while (go_on(warm)) {
        turn("broadcasts were awaited");
        if (delivered) {
            now = clock_of(CLOCK_MONOTONIC);
            ask_for_broadcasts(delivered);
            delivered = 0;
        }
    }
    report("messages");
}

static bool over;

static void close_at_once(conn *c) {
    static const uint8_t normal_closure[] = {1000 >> 8, 1000 & 255};
    c->state = CLOSING;
    send_control(c, CLOSE, normal_closure, sizeof normal_closure);
}

static void begin_anew(conn *c) {
    count_in(c->dialed);
    if (!over)
        dial(c);
}

static void run_connect(void) {
    on_open = close_at_once;
    on_message = fail_unasked;
    on_end = begin_anew;
    now = clock_of(CLOCK_MONOTONIC);
    uint64_t warm = now + nanoseconds(options.warmup);
    for (int i = 0; i < options.connections; i++)
        dial(conns + i);
    while (go_on(warm))
        turn("handshakes were awaited");
    over = true;
    report("connects");
}

static int unechoed; /* messages of idle connections */

static void on_idle_echo(conn *c) {
    if (c->checked == c->asked)
        fail("a message that nobody asked for");
    unechoed--;
}

/* Answers pings until standard input has a line or is at its end. */
static void hold(void) {
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = NULL}, events[EVENTS];
    if (epoll_ctl(epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) < 0) {
        while (getchar() > '\n') /* a file: there is nothing to wait for */
            ;
        return;
    }
    for (;;) {
        int count = epoll_wait(epoll, events, EVENTS, -1);
        now = clock_of(CLOCK_MONOTONIC);
        for (int i = 0; i < count; i++) {
            conn *c = events[i].data.ptr;
            if (!c)
                return;
            if (events[i].events & EPOLLOUT)
                flush(c);
            if (events[i].events & ~EPOLLOUT)
                receive(c);
        }
    }
}

static void run_idle(void) {
    open_all(nothing, fail_unasked);
    on_message = on_idle_echo;
    unechoed = options.connections * options.depth;
    for (int i = 0; i < options.connections; i++)
        if (options.depth)
            ask(conns + i, options.depth);
    while (unechoed)
        turn("echoes were awaited");
    printf("{\"open\": %d}\n", opened);
    fflush(stdout);
    hold();
}

#include "group.h"

/* The command line */

static const char *value_of(int argc, char **argv, int *at) {
    if (*at + 1 >= argc)
        fail("%s needs a value", argv[*at]);
    return argv[++*at];
}

static void parse_ports(const char *value) {
    char *end;
    for (port_count = 0; port_count < PORTS; value = end + 1) {
        ports[port_count++] = (int)strtol(value, &end, 10);
        if (*end != ',')
            return;
    }
}

static void parse(int argc, char **argv) {
    for (int i = 1; i < argc; i++) {
        const char *name = argv[i];
        if (!strcmp(name, "--text"))
            options.text = true;
        else if (!strcmp(name, "--tls"))
            options.tls = true;
        else if (!strcmp(name, "--deflate"))
            options.deflate = true;
        else if (!strcmp(name, "--mode"))
            options.mode = value_of(argc, argv, &i);
        else if (!strcmp(name, "--path"))
            options.path = value_of(argc, argv, &i);
        else if (!strcmp(name, "--port"))
            parse_ports(value_of(argc, argv, &i));
        else if (!strcmp(name, "--connections"))
            options.connections = atoi(value_of(argc, argv, &i));
        else if (!strcmp(name, "--depth"))
            options.depth = atoi(value_of(argc, argv, &i));
        else if (!strcmp(name, "--size"))
            options.size = atoi(value_of(argc, argv, &i));
        else if (!strcmp(name, "--seconds"))
            options.seconds = atof(value_of(argc, argv, &i));
        else if (!strcmp(name, "--warmup"))
            options.warmup = atof(value_of(argc, argv, &i));
        else if (!strcmp(name, "--any-order"))
            group.any_order = true;
        else if (!strcmp(name, "--publishers"))
            group.publishers = atoi(value_of(argc, argv, &i));
        else if (!strcmp(name, "--greeting"))
            group.greeting = value_of(argc, argv, &i);
        else if (!strcmp(name, "--before"))
            group.before = value_of(argc, argv, &i);
        else if (!strcmp(name, "--after"))
            group.after = value_of(argc, argv, &i);
        else
            fail("there is no option %s", name);
    }
    bool idle = !strcmp(options.mode, "idle");
    if (ports[0] < 1 || options.connections < 1 || options.depth < !idle || options.size < 0)
        fail("--port and --connections must be over 0, --depth too unless the mode is idle");
    check_group();
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {{"echo", run_echo}, {"connect", run_connect}, {"broadcast", run_broadcast}, {"idle", run_idle}, {"chat", run_chat}, {"group", run_group}};
    parse(argc, argv);
    signal(SIGPIPE, SIG_IGN);
    prctl(PR_SET_PDEATHSIG, SIGKILL); /* not to outlive the parent process */
    const char *problem = options.tls ? tls_load() : NULL;
    if (!problem && options.deflate)
        problem = deflate_load();
    if (problem)
        fail("%s", problem);
    epoll = epoll_create1(EPOLL_CLOEXEC);
    largest = (uint64_t)options.size;
    build_ring((size_t)options.size, (unsigned)options.depth, options.text, options.deflate);
    conns = checked(calloc((size_t)options.connections, sizeof *conns));
    for (int i = 0; i < options.connections; i++) {
        if (options.depth)
            conns[i].asked_at = checked(calloc((size_t)options.depth, sizeof(uint64_t)));
        conns[i].port = ports[i % port_count];
        conns[i].first = !strcmp(options.mode, "broadcast") ? 0 : (unsigned)(i * 7) % ring;
    }
    for (size_t i = 0; i < sizeof modes / sizeof *modes; i++)
        if (!strcmp(options.mode, modes[i].name)) {
            modes[i].run();
            return 0;
        }
    fail("there is no mode %s", options.mode);
}