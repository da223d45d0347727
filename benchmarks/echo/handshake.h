/* The opening handshake's proof (RFC 6455, section 4.2.2): SHA-1 and base64, as far as it needs them. */

#ifndef HANDSHAKE_H
#define HANDSHAKE_H

#include <stdint.h>
#include <string.h>

#define KEY_LENGTH 24    /* base64 of 16 bytes */
#define ACCEPT_LENGTH 28 /* base64 of a SHA-1 digest */

static inline uint32_t rotate_left(uint32_t word, int by) { return word << by | word >> (32 - by); }

/* One block of SHA-1 (FIPS 180-4, section 6.1.2). */
static void sha1_block(uint32_t state[5], const uint8_t block[64]) {
    uint32_t schedule[80];
    for (int i = 0; i < 16; i++)
        schedule[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
                      block[4 * i + 3];
    for (int i = 16; i < 80; i++)
        schedule[i] = rotate_left(schedule[i - 3] ^ schedule[i - 8] ^ schedule[i - 14] ^ schedule[i - 16], 1);
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4];
    for (int i = 0; i < 80; i++) {
        uint32_t mixed;
        if (i < 20)
            mixed = ((b & c) | (~b & d)) + 0x5a827999;
        else if (i < 40)
            mixed = (b ^ c ^ d) + 0x6ed9eba1;
        else if (i < 60)
            mixed = ((b & c) | (b & d) | (c & d)) + 0x8f1bbcdc;
        else
            mixed = (b ^ c ^ d) + 0xca62c1d6;
        uint32_t next = rotate_left(a, 5) + mixed + e + schedule[i];
        e = d;
        d = c;
        c = rotate_left(b, 30);
        b = a;
        a = next;
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
}

/* SHA-1 of at most 119 bytes, which pad to no more than two blocks. */
static void sha1_short(const uint8_t *data, size_t length, uint8_t digest[20]) {
    uint8_t blocks[128] = {0};
    size_t end = length < 56 ? 64 : 128;
    memcpy(blocks, data, length);
    blocks[length] = 0x80;
    blocks[end - 2] = (uint8_t)(length * 8 >> 8);
    blocks[end - 1] = (uint8_t)(length * 8);
    uint32_t state[5] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476, 0xc3d2e1f0};
    for (size_t at = 0; at < end; at += 64)
        sha1_block(state, blocks + at);
    for (int i = 0; i < 20; i++)
        digest[i] = (uint8_t)(state[i / 4] >> (24 - 8 * (i % 4)));
}

/* Writes 4 characters for each 3 bytes, padded, and a NUL. */
static void base64(const uint8_t *data, size_t length, char *text) {
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < length; i += 3) {
        size_t left = length - i;
        uint32_t group = (uint32_t)data[i] << 16;
        if (left > 1)
            group |= (uint32_t)data[i + 1] << 8;
        if (left > 2)
            group |= data[i + 2];
        *text++ = alphabet[group >> 18];
        *text++ = alphabet[group >> 12 & 63];
        *text++ = left > 1 ? alphabet[group >> 6 & 63] : '=';
        *text++ = left > 2 ? alphabet[group & 63] : '=';
    }
    *text = 0;
}

/* The Sec-WebSocket-Accept that answers a Sec-WebSocket-Key. */
static void accept_for(const char key[KEY_LENGTH], char accept[ACCEPT_LENGTH + 1]) {
    static const char magic[] = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    uint8_t proof[KEY_LENGTH + sizeof magic - 1], digest[20];
    memcpy(proof, key, KEY_LENGTH);
    memcpy(proof + KEY_LENGTH, magic, sizeof magic - 1);
    sha1_short(proof, sizeof proof, digest);
    base64(digest, sizeof digest, accept);
}

#endif
