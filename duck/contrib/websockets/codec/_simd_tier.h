/* The loops over payload bytes in the vectors of one tier: part of _simd.h, which includes it once for each tier.
 *
 *     TIER, TARGET      its name; the attribute that lets the compiler use its instructions
 *     VECTOR            the type of a vector
 *     LOAD(p)           the vector in memory at p, with any alignment
 *     STORE(p, v)       writes a vector to memory at p, with any alignment
 *     WORDS(w)          a vector in which each 32-bit word is w
 *     BYTES(b)          a vector in which each byte is b
 *     AND, OR, XOR      of two vectors
 *     NOT_ASCII(v)      not zero if a byte of v is above 0x7F
 *
 * and, if the tier can look up bytes in a table, for UTF-8 in blocks:
 *
 *     TABLE(p)          the table of 16 bytes at p
 *     LOOKUP(table, v)  the entries of the table at the indexes of v, each 0 to 15
 *     HIGH_NIBBLES(v)   the upper four bits of each byte, as 0 to 15
 *     MINUS(v, w)       the difference of each pair of bytes, or 0 if the byte of w is larger
 *     BACK(last, v, n)  the bytes n positions before those of v; those before its first byte are in `last`
 *     IS_ZERO(v)        whether all bytes of v are zero
 */

TARGET
static uint64_t DUCK_NAMED(duck_mask, TIER)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask)
{
    const size_t width = sizeof(VECTOR);
    uint64_t high = 0;
    size_t i = 0;
    if (n >= DUCK_ALIGNED) {
        i = (0 - (uintptr_t)dst) & (width - 1);
        high = duck_mask_words(dst, src, i, mask);
        mask = duck_rotate(mask, i);
    }
    VECTOR wide = WORDS(mask), seen = BYTES(0);
    for (; i + 2 * width <= n; i += 2 * width) {
        VECTOR a = XOR(LOAD(src + i), wide), b = XOR(LOAD(src + i + width), wide);
        seen = OR(seen, OR(a, b));
        STORE(dst + i, a);
        STORE(dst + i + width, b);
    }
    if (i + width <= n) {
        VECTOR a = XOR(LOAD(src + i), wide);
        seen = OR(seen, a);
        STORE(dst + i, a);
        i += width;
    }
    return high | duck_mask_words(dst + i, src + i, n - i, mask) | (uint64_t)NOT_ASCII(seen);
}

TARGET
static size_t DUCK_NAMED(duck_ascii, TIER)(const uint8_t *p, size_t n)
{
    const size_t width = sizeof(VECTOR);
    size_t i = 0;
    while (i + 4 * width <= n) {
        VECTOR first = OR(LOAD(p + i), LOAD(p + i + width));
        VECTOR second = OR(LOAD(p + i + 2 * width), LOAD(p + i + 3 * width));
        if (NOT_ASCII(OR(first, second)))
            break;
        i += 4 * width;
    }
    while (i + width <= n && !NOT_ASCII(LOAD(p + i)))
        i += width;
    return i;
}

#ifdef LOOKUP
TARGET
static size_t DUCK_NAMED(duck_blocks, TIER)(const uint8_t *p, size_t n)
{
    const VECTOR before_high = TABLE(duck_before_high), before_low = TABLE(duck_before_low),
                 own_high = TABLE(duck_own_high), low_nibble = BYTES(0x0F), high_bit = BYTES(0x80),
                 below_lead3 = BYTES(0xE0 - 0x80), below_lead4 = BYTES(0xF0 - 0x80);
    VECTOR last = BYTES(0), wrong = BYTES(0);
    size_t i = 0;
    for (; i + sizeof(VECTOR) <= n; i += sizeof(VECTOR)) {
        VECTOR v = LOAD(p + i);
        VECTOR one = BACK(last, v, 1), two = BACK(last, v, 2), three = BACK(last, v, 3);
        VECTOR ways = AND(AND(LOOKUP(before_high, HIGH_NIBBLES(one)), LOOKUP(before_low, AND(one, low_nibble))),
                          LOOKUP(own_high, HIGH_NIBBLES(v)));
        VECTOR goes_on = AND(OR(MINUS(two, below_lead3), MINUS(three, below_lead4)), high_bit);
        wrong = OR(wrong, XOR(ways, goes_on));
        last = v;
    }
    return IS_ZERO(wrong) ? i : DUCK_INVALID;
}
#endif

#undef TIER
#undef TARGET
#undef VECTOR
#undef LOAD
#undef STORE
#undef WORDS
#undef BYTES
#undef AND
#undef OR
#undef XOR
#undef NOT_ASCII
#undef TABLE
#undef LOOKUP
#undef HIGH_NIBBLES
#undef MINUS
#undef BACK
#undef IS_ZERO
