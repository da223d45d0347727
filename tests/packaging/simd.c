/* Tries every tier of _simd.h that the machine runs against loops over single bytes.
 *
 * It needs no Python, so it can be cross-compiled and run by an emulator. It prints the tried tiers, or the first fault,
 * and then ends with status 1.
 */
#include <stdio.h>
#include <stdlib.h>

#include "_simd.h"

enum { LENGTHS = 301, LONG_LENGTHS = 70, OFFSETS = 16, ROOM = 8192, BEHIND = 256, TEXTS = 20000, GUARD = 0xA5 };

static uint64_t seed = 0x9E3779B97F4A7C15u;

static uint32_t draw(uint32_t below)
{
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % below;
}

static void check(int holds, const duck_tier *tier, const char *what, size_t length, size_t offset)
{
    if (holds)
        return;
    printf("%s: %s is wrong, length %zu, offset %zu\n", tier->name, what, length, offset);
    exit(1);
}

/* ---- the loops to compare with ---- */

static int mask_naively(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask)
{
    uint8_t key[4];
    int high = 0;
    memcpy(key, &mask, 4);
    for (size_t i = 0; i < n; i++) {
        dst[i] = src[i] ^ key[i % 4];
        high |= dst[i] >= 0x80;
    }
    return high;
}

enum { WHOLE, PARTIAL, REFUSED };

/* RFC 3629, section 4, by code points: the state of a text that may be cut off. */
static int judge_naively(const uint8_t *p, size_t n)
{
    static const uint32_t smallest[] = {0, 0x80, 0x800, 0x10000};
    for (size_t i = 0; i < n;) {
        uint32_t lead = p[i++], point, low, high;
        int missing;
        if (lead < 0x80)
            continue;
        if (lead < 0xC0 || lead >= 0xF8)
            return REFUSED;
        missing = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
        point = lead & (0x3Fu >> missing);
        /* The code points that this may still become; one of them must be a character's. */
        for (int left = missing;; left--) {
            low = point << (6 * left);
            high = low | ((1u << (6 * left)) - 1);
            if (high < smallest[missing] || low > 0x10FFFF || (low >= 0xD800 && high <= 0xDFFF))
                return REFUSED;
            if (left == 0)
                break;
            if (i == n)
                return PARTIAL;
            if ((p[i] & 0xC0) != 0x80)
                return REFUSED;
            point = point << 6 | (p[i++] & 0x3F);
        }
    }
    return WHOLE;
}

static int kind(uint32_t state) { return state == 0 ? WHOLE : state == DUCK_UTF8_REJECT ? REFUSED : PARTIAL; }

/* ---- masking ---- */

static void try_mask(const duck_tier *tier, int ascii)
{
    static uint8_t src[ROOM], dst[ROOM], expected[ROOM];
    uint32_t mask = ascii ? 0x0703050Bu : 0xF1A27C4Du;
    for (size_t i = 0; i < ROOM; i++)
        src[i] = (uint8_t)(ascii ? draw(0x78) : draw(0x100));
    for (size_t i = 0; i < LENGTHS + LONG_LENGTHS; i++)
        for (size_t offset = 0; offset < OFFSETS; offset++) {
            /* The long ones are about where stores begin to be aligned. */
            size_t length = i < LENGTHS ? i : DUCK_ALIGNED - 2 + i - LENGTHS;
            size_t to = (offset * 7 + length) % OFFSETS, end = to + length + BEHIND;
            size_t at = offset + (ascii && length ? draw((uint32_t)length) : 0);
            uint8_t before = src[at];
            if (ascii && length) /* one byte above ASCII, at any place, or none */
                src[at] ^= draw(2) ? 0x80 : 0;
            memset(expected, GUARD, end);
            memset(dst, GUARD, end);
            int high = mask_naively(expected + to, src + offset, length, mask);
            uint64_t seen = tier->mask(dst + to, src + offset, length, mask);
            check(memcmp(dst, expected, end) == 0, tier, "mask", length, offset);
            check(!seen == !high, tier, "the detection of bytes beyond ASCII", length, offset);
            memset(dst, GUARD, end);
            memcpy(dst + to, src + offset, length);
            tier->mask(dst + to, dst + to, length, mask);
            check(memcmp(dst, expected, end) == 0, tier, "mask in place", length, offset);
            src[at] = before;
        }
}

static void try_rotate(const duck_tier *tier)
{
    uint8_t src[64], whole[64], pieces[64];
    for (size_t i = 0; i < 64; i++)
        src[i] = (uint8_t)draw(0x100);
    mask_naively(whole, src, 64, 0xF1A27C4Du);
    for (size_t cut = 0; cut <= 64; cut++) {
        tier->mask(pieces, src, cut, 0xF1A27C4Du);
        tier->mask(pieces + cut, src + cut, 64 - cut, duck_rotate(0xF1A27C4Du, cut & 3));
        check(memcmp(pieces, whole, 64) == 0, tier, "mask in two pieces", 64, cut);
    }
}

/* ---- ASCII ---- */

static void try_ascii(const duck_tier *tier)
{
    static uint8_t text[ROOM];
    memset(text, 0x7F, ROOM);
    for (size_t length = 0; length < LENGTHS; length++)
        for (size_t offset = 0; offset < OFFSETS; offset++)
            for (size_t at = 0; at <= length; at += 1 + length / 16) {
                if (at < length)
                    text[offset + at] = 0x80;
                size_t found = tier->ascii(text + offset, length);
                text[offset + at] = 0x7F;
                check(found <= at, tier, "ASCII", length, offset);
                check(at - found < 32, tier, "the reach of ASCII", length, offset);
            }
}

/* ---- UTF-8 ---- */

static size_t put_character(uint8_t *p)
{
    static const uint32_t edges[] = {0x00, 0x7F, 0x80, 0x7FF, 0x800, 0xD7FF, 0xE000, 0xFFFF, 0x10000, 0x10FFFF};
    static const uint32_t above[] = {0x80, 0x800, 0x10000, 0x110000};
    uint32_t c = draw(8) ? draw(above[draw(4)]) : edges[draw(10)];
    if (c >= 0xD800 && c <= 0xDFFF)
        c -= 0x800;
    if (c < 0x80)
        return p[0] = (uint8_t)c, 1;
    size_t n = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    p[0] = (uint8_t)((0xF00u >> n & 0xFF) | c >> (6 * n));
    for (size_t i = 1; i <= n; i++)
        p[i] = (uint8_t)(0x80 | (c >> (6 * (n - i)) & 0x3F));
    return n + 1;
}

static void try_text(const duck_tier *tier, const uint8_t *p, size_t n, size_t offset)
{
    static uint8_t masked[ROOM], text[ROOM];
    int expected = judge_naively(p, n);
    check(kind(duck_utf8(tier, p, n, 0)) == expected, tier, "UTF-8", n, offset);
    size_t cut = draw((uint32_t)n + 1);
    uint32_t state = duck_utf8(tier, p, cut, 0);
    check(kind(state) == judge_naively(p, cut), tier, "UTF-8 of a start", cut, offset);
    check(kind(duck_utf8(tier, p + cut, n - cut, state)) == expected, tier, "UTF-8 in two pieces", n, offset);
    mask_naively(masked + offset, p, n, 0xF1A27C4Du);
    state = duck_mask_utf8(tier, text, masked + offset, n, 0xF1A27C4Du, 0);
    check(kind(state) == expected, tier, "UTF-8 that is masked", n, offset);
    check(expected == REFUSED || memcmp(text, p, n) == 0, tier, "mask of text", n, offset);
}

static void try_utf8(const duck_tier *tier)
{
    static uint8_t room[ROOM];
    for (size_t length = 0; length < LENGTHS; length++)
        for (size_t offset = 0; offset < OFFSETS; offset++) {
            size_t n = 0;
            while (n < length)
                n += put_character(room + offset + n);
            try_text(tier, room + offset, length, offset); /* the last character may be cut */
        }
    for (int i = 0; i < TEXTS; i++) {
        size_t length = draw(300), offset = draw(OFFSETS), n = 0;
        while (n < length)
            n += put_character(room + offset + n);
        for (uint32_t faults = draw(3); faults && n; faults--)
            room[offset + draw((uint32_t)n)] = (uint8_t)(draw(2) ? draw(0x100) : 0x80 + draw(0x40));
        try_text(tier, room + offset, n, offset);
    }
    /* Every lead with every second byte, and the edges of the third and fourth, at each place in two blocks. */
    static const uint8_t edges[] = {0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xFF};
    for (unsigned lead = 0x80; lead < 0x100; lead++)
        for (unsigned second = 0; second < 0x100; second++) {
            uint8_t *text = room + draw(OFFSETS);
            size_t at = 2 * draw(32);
            for (size_t k = 0; k < 96; k += 2)
                memcpy(text + k, "\xC3\xA9", 2);
            text[at] = (uint8_t)lead;
            text[at + 1] = (uint8_t)second;
            text[at + 2] = edges[draw(10)];
            text[at + 3] = edges[draw(10)];
            try_text(tier, text, 96, at);
        }
}

int main(void)
{
    for (int i = 0; i <= duck_best_tier(); i++) {
        const duck_tier *tier = &duck_tiers[i];
        try_mask(tier, 0);
        try_mask(tier, 1);
        try_rotate(tier);
        try_ascii(tier);
        try_utf8(tier);
        printf("%s%s", i ? " " : "", tier->name);
    }
    printf("\n");
    return 0;
}
