/* The modes `group` and `chat`: all connections are members of one group, and some of them publish to it. Part of `load.c`.
 *
 * A message is `t=` and 16 hexadecimal digits, the time at which it was sent in ns; 4, the number of its publisher; 8,
 * its number among those of the publisher; and then letters up to its size. Each publisher has one message on its way.
 * Each member checks that it gets each message of each publisher once, and in order unless --any-order is given.
 *
 * Other messages, such as those of protocols above WebSocket, are ignored.
 */

enum { WORDS = 30, PROBE_SIZE = 64, LARGE = 48 * 1024, FILLS = 8, NOBODY = 0xffff, PUBLISHERS = 1024 };
enum { TEXT_SIZE = LARGE + 4096 }; /* of a message with its envelope */

typedef struct {
    uint32_t all;   /* all messages up to this number have come */
    uint64_t later; /* and of those behind it, a bit for each: the lowest is for the next */
} progress;

typedef struct {
    char *text;    /* of the message that is being received */
    progress *got; /* of each publisher */
    bool probed;
} member;

static struct {
    const char *greeting, *before, *after; /* a first message; the envelope of each message */
    int publishers;
    bool any_order;
} group = {"", "", "", 1, false};

static member *members;
static uint32_t sent[PUBLISHERS];
static uint64_t sent_in_all, received_in_all;
static int unprobed; /* members that the probe at hand has not reached */
static bool stopping;

/* Texts are small beside the socket's buffer, which is empty when the next one is due. */
static void send_text(conn *c, const char *text, size_t size) {
    static uint8_t frame[TEXT_SIZE + 14];
    size_t length = build_frame(frame, TEXT, (const uint8_t *)text, size);
    if (put(c, frame, length) != length)
        fail("the server does not read");
}

static void publish(conn *c, unsigned publisher, uint32_t number, int size) {
    static char text[TEXT_SIZE];
    int length = snprintf(text, sizeof text, "%s", group.before), end = length + size;
    length += snprintf(text + length, sizeof text - (size_t)length, "t=%016llx%04x%08x",
                       (unsigned long long)clock_of(CLOCK_MONOTONIC), publisher, number);
    memset(text + length, 'x', (size_t)(end - length));
    end += snprintf(text + end, sizeof text - (size_t)end, "%s", group.after);
    send_text(c, text, (size_t)end);
}

static void publish_next(unsigned publisher) {
    sent_in_all++;
    publish(conns + publisher, publisher, ++sent[publisher], options.size);
}

static uint64_t hexadecimal(const char *digits, int count) {
    uint64_t value = 0;
    for (int i = 0; i < count; i++)
        value = value << 4 | (uint64_t)(digits[i] <= '9' ? digits[i] - '0' : digits[i] - 'a' + 10);
    return value;
}

static void gather(conn *c, const uint8_t *data, size_t size) {
    memcpy(members[c - conns].text + c->message_size, data, size);
    c->message_size += size;
}

static void note(int member, unsigned publisher, progress *got, uint32_t number) {
    uint32_t ahead = number - got->all - 1;
    if (ahead && !group.any_order)
        fail("member %d got message %u of publisher %u instead of %u", member, number, publisher, got->all + 1);
    if (ahead >= 64 || got->later >> ahead & 1)
        fail("member %d got message %u of publisher %u twice or far too early", member, number, publisher);
    got->later |= (uint64_t)1 << ahead;
    for (; got->later & 1; got->later >>= 1)
        got->all++;
}

static void on_group_message(conn *c) {
    member *m = members + (c - conns);
    const char *words = memmem(m->text, c->message_size, "t=", 2);
    if (!words) {
        if (c->message_size == 1 && m->text[0] == '2') /* a ping of Engine.IO */
            send_text(c, "3", 1);
        return;
    }
    if (words + WORDS > m->text + c->message_size)
        fail("a message is cut off");
    unsigned publisher = (unsigned)hexadecimal(words + 18, 4);
    uint32_t number = (uint32_t)hexadecimal(words + 22, 8);
    if (publisher == NOBODY) {
        unprobed -= !m->probed;
        m->probed = true;
        return;
    }
    if (publisher >= (unsigned)group.publishers)
        fail("a message of a publisher that does not exist");
    note((int)(c - conns), publisher, m->got + publisher, number);
    received_in_all++;
    count_in(hexadecimal(words + 2, 16));
    if (conns + publisher == c && !stopping)
        publish_next(publisher);
}

/* Publishes a message that is no load, and waits until all members have it. */
static void probe(conn *c, int size) {
    unprobed = options.connections;
    for (int i = 0; i < options.connections; i++)
        members[i].probed = false;
    publish(c, NOBODY, 0, size);
    while (unprobed)
        turn("a message was to reach all members of the group");
}

static void greet(conn *c) {
    if (*group.greeting)
        send_text(c, group.greeting, strlen(group.greeting));
}

/* Reports that all members are reached, and takes orders: `fill` to publish large messages, and `run` to begin. */
static void prepare(void) {
    char order[16];
    for (int i = 0; i < port_count; i++)
        probe(conns + i, PROBE_SIZE);
    for (;;) {
        puts("{\"reached\": true}");
        fflush(stdout);
        if (!fgets(order, sizeof order, stdin))
            exit(0);
        if (!strcmp(order, "run\n"))
            return;
        for (int i = 0; i < FILLS; i++)
            probe(conns, LARGE);
    }
}

static void check_group(void) {
    bool chat = !strcmp(options.mode, "chat");
    if (chat)
        group.publishers = options.connections;
    if (group.publishers < 1 || group.publishers > PUBLISHERS)
        fail("there are from 1 to %d publishers: in the mode chat, as many as --connections", PUBLISHERS);
    if (!chat && strcmp(options.mode, "group"))
        return;
    if (options.size < WORDS || options.size > LARGE || group.publishers > options.connections ||
        port_count > options.connections)
        fail("--size is from %d to %d, and there are as many --connections as --publishers and ports", WORDS, LARGE);
}

static void open_group(void) {
    take_part = gather;
    largest = TEXT_SIZE;
    members = checked(calloc((size_t)options.connections, sizeof *members));
    for (int i = 0; i < options.connections; i++) {
        members[i].text = checked(malloc(TEXT_SIZE));
        members[i].got = checked(calloc((size_t)group.publishers, sizeof(progress)));
    }
    open_all(greet, on_group_message);
    usleep(SETTLES_US);
}

static void converse(void) {
    now = clock_of(CLOCK_MONOTONIC);
    uint64_t warm = now + nanoseconds(options.warmup);
    for (int i = 0; i < group.publishers; i++)
        publish_next((unsigned)i);
    while (go_on(warm))
        turn("messages of the group were awaited");
    report("messages");
}

static void run_chat(void) {
    open_group();
    probe(conns, PROBE_SIZE);
    converse();
}

static void run_group(void) {
    open_group();
    prepare();
    converse();
    fflush(stdout);
    measuring = false;
    stopping = true;
    while (received_in_all < sent_in_all * (uint64_t)options.connections)
        turn("the last messages of the group were awaited");
    puts("{\"complete\": true}");
}
