/* The messages of the load client: a ring of frames that are built and masked once, each with a payload and a mask of its
 * own, so that a reply that is late, doubled, torn or out of order is as wrong as one with a wrong byte.
 *
 * With --deflate, messages are JSON, and each is compressed beforehand without reference to another.
 */

#ifndef RING_H
#define RING_H

#include <stdbool.h>
#include <string.h>

#include "deflate.h"
#include "errors.h"
#include "random.h"

enum { CONTINUATION = 0, TEXT = 1, BINARY = 2, CLOSE = 8, PING = 9, PONG = 10 };
enum { RSV1 = 0x40 };

static uint8_t *payloads, *frames; /* all payloads, and all frames */
static unsigned ring;              /* the number of each */
static size_t *frame_at;           /* where each frame begins, and behind the last */

/* Valid UTF-8 of an exact size: mostly ASCII, the rest two, three and four bytes long. */
static void fill_text(uint8_t *to, size_t size) {
    static const char *const others[] = {"\u00e9", "\u0436", "\u20ac", "\u6f22", "\U0001f986"};
    for (size_t at = 0; at < size;) {
        unsigned any = to[at];
        const char *other = others[any % 5];
        size_t length = strlen(other);
        if (any >= 240 && length <= size - at) {
            memcpy(to + at, other, length);
            at += length;
        } else {
            to[at++] = (uint8_t)(' ' + any % 95);
        }
    }
}

/* A list of trades, as servers send them, of an exact size; random bytes choose its content. */
static void fill_json(uint8_t *to, size_t size, unsigned number) {
    static const char *const sides[] = {"buy", "sell"}, *const words[] = {"limit", "market", "stop", "iceberg"};
    uint32_t any[3];
    char piece[160];
    size_t at = 0;
    int length = snprintf(piece, sizeof piece, "{\"type\": \"trades\", \"id\": %u, \"trades\": [", number + 100000);
    for (;;) {
        if (at + (size_t)length + 2 > size)
            break;
        memcpy(to + at, piece, (size_t)length);
        at += (size_t)length;
        fill_random((uint8_t *)any, sizeof any);
        length = snprintf(piece, sizeof piece,
                          "{\"symbol\": \"%c%c%c%c\", \"price\": %u.%02u, \"volume\": %u, \"side\": \"%s\", "
                          "\"order\": \"%s\"}, ",
                          'A' + any[0] % 10, 'A' + any[0] / 10 % 10, 'A' + any[0] / 100 % 10, 'A' + any[0] / 1000 % 10,
                          any[1] % 1000, any[1] / 1000 % 100, any[2] % 100000, sides[any[0] / 10000 % 2],
                          words[any[1] / 100000 % 4]);
    }
    memset(to + at, ' ', size - at);
    if (size >= 2)
        memcpy(to + size - 2, "]}", 2);
}

static size_t build_header(uint8_t *to, unsigned opcode, uint64_t size) {
    to[0] = (uint8_t)(0x80 | opcode);
    if (size < 126) {
        to[1] = (uint8_t)(0x80 | size);
        return 2;
    }
    size_t bytes = size < 65536 ? 2 : 8;
    to[1] = bytes == 2 ? 0x80 | 126 : 0x80 | 127;
    for (size_t i = 0; i < bytes; i++)
        to[2 + i] = (uint8_t)(size >> 8 * (bytes - 1 - i));
    return 2 + bytes;
}

static size_t build_frame(uint8_t *to, unsigned opcode, const uint8_t *payload, size_t size) {
    size_t header = build_header(to, opcode, size);
    uint8_t *mask = to + header;
    fill_random(mask, 4);
    for (size_t i = 0; i < size; i++)
        mask[4 + i] = payload[i] ^ mask[i & 3];
    return header + 4 + size;
}

/* Builds as many frames as stay in the cache, and no fewer than are on their way on one connection. */
static void build_ring(size_t size, unsigned depth, bool text, bool deflate) {
    size_t fit = (1 << 18) / (size + 14);
    ring = (unsigned)(fit > 256 ? 256 : fit);
    if (ring <= depth)
        ring = depth + 1;
    payloads = checked(malloc(ring * size + 1));
    frames = checked(malloc(ring * (deflate_bound(size) + 14)));
    frame_at = checked(calloc(ring + 1, sizeof *frame_at));
    fill_random(payloads, ring * size);
    uint8_t *compressed = checked(malloc(deflate_bound(size)));
    for (unsigned i = 0; i < ring; i++) {
        uint8_t *payload = payloads + i * size, *frame = frames + frame_at[i];
        unsigned opcode = text ? TEXT : BINARY;
        size_t length;
        if (deflate) {
            fill_json(payload, size, i);
            size_t some = deflate_message(compressed, payload, size);
            if (!some)
                fail("a message cannot be compressed");
            length = build_frame(frame, RSV1 | opcode, compressed, some);
        } else {
            if (text)
                fill_text(payload, size);
            length = build_frame(frame, opcode, payload, size);
        }
        frame_at[i + 1] = frame_at[i] + length;
    }
    free(compressed);
}

#endif
