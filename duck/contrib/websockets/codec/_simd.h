/* The loops over payload bytes: masking (RFC 6455, section 5.3) and UTF-8 validation (RFC 3629).
 *
 * Every loop exists in several tiers: 64-bit words; the vector unit of all machines of an architecture (SSE2, NEON);
 * and SSSE3 and AVX2, if the processor and the operating system support them at run time. _simd_tier.h has the vector
 * loops. No tier needs a compiler flag, and the linker chooses none, so one binary runs everywhere.
 */
#ifndef DUCK_SIMD_H
#define DUCK_SIMD_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__x86_64__) || defined(_M_X64)
#define DUCK_X86 1
#include <immintrin.h>
#ifdef _MSC_VER
#include <intrin.h>
#define DUCK_TARGET(instructions)
#else
#include <cpuid.h>
#define DUCK_TARGET(instructions) __attribute__((target(instructions)))
#endif
enum { DUCK_WORDS, DUCK_SSE2, DUCK_SSSE3, DUCK_AVX2, DUCK_TIERS };
#elif defined(__aarch64__) || defined(_M_ARM64)
#define DUCK_ARM 1
#include <arm_neon.h>
enum { DUCK_WORDS, DUCK_NEON, DUCK_TIERS };
#else
enum { DUCK_WORDS, DUCK_TIERS };
#endif

/* Rotates a mask by a number of bytes. A mask holds its four bytes in the order of the frame. */
static inline uint32_t duck_rotate(uint32_t mask, size_t bytes)
{
    uint8_t from[4], to[4];
    memcpy(from, &mask, 4);
    for (unsigned i = 0; i < 4; i++)
        to[i] = from[(i + bytes) & 3];
    memcpy(&mask, to, 4);
    return mask;
}

/* ---- masking: dst = src XOR mask; dst may be src. Returns zero if all bytes of the result are ASCII. ---- */

/* Size in bytes from which stores are aligned, so that no vector crosses a cache line. */
#define DUCK_ALIGNED 1024

typedef uint64_t (*duck_mask_function)(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask);

static uint64_t duck_mask_words(uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask)
{
    uint64_t wide = (uint64_t)mask << 32 | mask, word, seen = 0;
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, src + i, 8);
        word ^= wide;
        seen |= word;
        memcpy(dst + i, &word, 8);
    }
    if (i < n) {
        word = 0;
        memcpy(&word, src + i, n - i);
        word ^= wide;
        memcpy(dst + i, &word, n - i);
        uint8_t last[8];
        memcpy(last, &word, 8);
        for (size_t k = 0; k < n - i; k++)
            seen |= last[k];
    }
    return seen & 0x8080808080808080u;
}

/* ---- ASCII: returns a number of bytes at the start of p that are all ASCII ---- */

typedef size_t (*duck_ascii_function)(const uint8_t *p, size_t n);

static size_t duck_ascii_words(const uint8_t *p, size_t n)
{
    size_t i = 0;
    uint64_t word;
    for (; i + 8 <= n; i += 8) {
        memcpy(&word, p + i, 8);
        if (word & 0x8080808080808080u)
            break;
    }
    return i;
}

/* ---- UTF-8 in blocks: validates the whole blocks at the start of p, which begins at a character ----
 *
 * Returns the number of validated bytes; 0 without a whole block, or in a tier without this loop; DUCK_INVALID for
 * bytes that are not UTF-8. The last character may be incomplete. The nibbles of the previous byte and the high nibble
 * of the byte itself are looked up in three tables, whose bits stand for errors. A bit that is set in all three results
 * is an error. The exceptions are second and third continuation bytes, which the lead bytes two and three positions
 * before require (Keiser and Lemire, "Validating UTF-8 in less than one instruction per byte", 2021).
 */

#define DUCK_INVALID ((size_t)-1)

typedef size_t (*duck_blocks_function)(const uint8_t *p, size_t n);

static size_t duck_blocks_none(const uint8_t *p, size_t n)
{
    (void)p, (void)n;
    return 0;
}

#if defined(DUCK_X86) || defined(DUCK_ARM)
#define SHORT 1      /* a lead without its continuation: 11______ 0_______, 11______ 11______ */
#define LONG 2       /* a continuation without a lead: 0_______ 10______ */
#define OVER3 4      /* 11100000 100_____ */
#define LARGE 8      /* above U+10FFFF: 11110100 1001____, and leads above */
#define SURROGATE 16 /* 11101101 101_____ */
#define OVER2 32     /* 1100000_ 10______ */
#define OVER4 64     /* 11110000 1000____, and above U+10FFFF: 11110101 1000____ and so on */
#define TWO 128      /* 10______ 10______, valid only within a longer sequence */
#define CARRY (SHORT | LONG | TWO)
#define ABOVE (CARRY | LARGE | OVER4)

static const uint8_t duck_before_high[16] = {
    LONG, LONG, LONG, LONG, LONG, LONG, LONG, LONG, TWO, TWO, TWO, TWO,
    SHORT | OVER2, SHORT, SHORT | OVER3 | SURROGATE, SHORT | LARGE | OVER4,
};
static const uint8_t duck_before_low[16] = {
    CARRY | OVER3 | OVER2 | OVER4, CARRY | OVER2, CARRY, CARRY, CARRY | LARGE, ABOVE, ABOVE, ABOVE,
    ABOVE, ABOVE, ABOVE, ABOVE, ABOVE, ABOVE | SURROGATE, ABOVE, ABOVE,
};
static const uint8_t duck_own_high[16] = {
    SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT, SHORT,
    LONG | OVER2 | TWO | OVER3 | OVER4, LONG | OVER2 | TWO | OVER3 | LARGE,
    LONG | OVER2 | TWO | SURROGATE | LARGE, LONG | OVER2 | TWO | SURROGATE | LARGE, SHORT, SHORT, SHORT, SHORT,
};

#undef SHORT
#undef LONG
#undef OVER3
#undef LARGE
#undef SURROGATE
#undef OVER2
#undef OVER4
#undef TWO
#undef CARRY
#undef ABOVE
#endif

/* ---- the tiers: the same loops with the vectors of each ---- */

#define DUCK_JOIN(a, b) a##_##b
#define DUCK_NAMED(a, b) DUCK_JOIN(a, b)

#if defined(DUCK_X86)
#define TIER sse2
#define TARGET
#define VECTOR __m128i
#define LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define STORE(p, v) _mm_storeu_si128((__m128i *)(p), v)
#define WORDS(w) _mm_set1_epi32((int)(w))
#define BYTES(b) _mm_set1_epi8((char)(b))
#define AND _mm_and_si128
#define OR _mm_or_si128
#define XOR _mm_xor_si128
#define NOT_ASCII(v) _mm_movemask_epi8(v)
#include "_simd_tier.h"

#define TIER ssse3
#define TARGET DUCK_TARGET("ssse3")
#define VECTOR __m128i
#define LOAD(p) _mm_loadu_si128((const __m128i *)(p))
#define STORE(p, v) _mm_storeu_si128((__m128i *)(p), v)
#define WORDS(w) _mm_set1_epi32((int)(w))
#define BYTES(b) _mm_set1_epi8((char)(b))
#define AND _mm_and_si128
#define OR _mm_or_si128
#define XOR _mm_xor_si128
#define NOT_ASCII(v) _mm_movemask_epi8(v)
#define TABLE(p) LOAD(p)
#define LOOKUP(table, v) _mm_shuffle_epi8(table, v)
#define HIGH_NIBBLES(v) _mm_and_si128(_mm_srli_epi16(v, 4), BYTES(0x0F))
#define MINUS(v, w) _mm_subs_epu8(v, w)
#define BACK(last, v, n) _mm_alignr_epi8(v, last, 16 - (n))
#define IS_ZERO(v) (_mm_movemask_epi8(_mm_cmpeq_epi8(v, _mm_setzero_si128())) == 0xFFFF)
#include "_simd_tier.h"

#define TIER avx2
#define TARGET DUCK_TARGET("avx2")
#define VECTOR __m256i
#define LOAD(p) _mm256_loadu_si256((const __m256i *)(p))
#define STORE(p, v) _mm256_storeu_si256((__m256i *)(p), v)
#define WORDS(w) _mm256_set1_epi32((int)(w))
#define BYTES(b) _mm256_set1_epi8((char)(b))
#define AND _mm256_and_si256
#define OR _mm256_or_si256
#define XOR _mm256_xor_si256
#define NOT_ASCII(v) (uint32_t)_mm256_movemask_epi8(v)
#define TABLE(p) _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(p))) /* one for each half */
#define LOOKUP(table, v) _mm256_shuffle_epi8(table, v)
#define HIGH_NIBBLES(v) _mm256_and_si256(_mm256_srli_epi16(v, 4), BYTES(0x0F))
#define MINUS(v, w) _mm256_subs_epu8(v, w)
#define BACK(last, v, n) _mm256_alignr_epi8(v, _mm256_permute2x128_si256(last, v, 0x21), 16 - (n))
#define IS_ZERO(v) _mm256_testz_si256(v, v)
#include "_simd_tier.h"
#elif defined(DUCK_ARM)
#define TIER neon
#define TARGET
#define VECTOR uint8x16_t
#define LOAD(p) vld1q_u8(p)
#define STORE(p, v) vst1q_u8(p, v)
#define WORDS(w) vreinterpretq_u8_u32(vdupq_n_u32(w))
#define BYTES(b) vdupq_n_u8(b)
#define AND vandq_u8
#define OR vorrq_u8
#define XOR veorq_u8
#define NOT_ASCII(v) (vmaxvq_u8(v) & 0x80)
#define TABLE(p) LOAD(p)
#define LOOKUP(table, v) vqtbl1q_u8(table, v)
#define HIGH_NIBBLES(v) vshrq_n_u8(v, 4)
#define MINUS(v, w) vqsubq_u8(v, w)
#define BACK(last, v, n) vextq_u8(last, v, 16 - (n))
#define IS_ZERO(v) (vmaxvq_u8(v) == 0)
#include "_simd_tier.h"
#endif

typedef struct {
    const char *name;
    duck_mask_function mask;
    duck_ascii_function ascii;
    duck_blocks_function blocks;
} duck_tier;

static const duck_tier duck_tiers[DUCK_TIERS] = {
    {"words", duck_mask_words, duck_ascii_words, duck_blocks_none},
#if defined(DUCK_X86)
    {"sse2", duck_mask_sse2, duck_ascii_sse2, duck_blocks_none},
    {"ssse3", duck_mask_ssse3, duck_ascii_ssse3, duck_blocks_ssse3},
    {"avx2", duck_mask_avx2, duck_ascii_avx2, duck_blocks_avx2},
#elif defined(DUCK_ARM)
    {"neon", duck_mask_neon, duck_ascii_neon, duck_blocks_neon},
#endif
};

/* Returns the highest tier that this processor supports. */
static int duck_best_tier(void)
{
#if defined(DUCK_X86)
    unsigned features, extended = 0, saved;
#ifdef _MSC_VER
    int regs[4];
    __cpuid(regs, 0);
    const int leaves = regs[0];
    __cpuid(regs, 1);
    features = (unsigned)regs[2];
    if (leaves >= 7) {
        __cpuidex(regs, 7, 0);
        extended = (unsigned)regs[1];
    }
#else
    unsigned a, b, c, d;
    __cpuid(1, a, b, c, d);
    features = c;
    if (__get_cpuid_max(0, NULL) >= 7) {
        __cpuid_count(7, 0, a, b, c, d);
        extended = b;
    }
#endif
    if (!(features & 1u << 9)) /* SSSE3 */
        return DUCK_SSE2;
    if (!(features & 1u << 27) || !(features & 1u << 28) || !(extended & 1u << 5)) /* OSXSAVE, AVX, AVX2 */
        return DUCK_SSSE3;
#ifdef _MSC_VER
    saved = (unsigned)_xgetbv(0);
#else
    __asm__ volatile("xgetbv" : "=a"(saved), "=d"(d) : "c"(0));
#endif
    return (saved & 6) == 6 ? DUCK_AVX2 : DUCK_SSSE3; /* the system saves XMM and YMM */
#elif defined(DUCK_ARM)
    return DUCK_NEON;
#else
    return DUCK_WORDS;
#endif
}

/* ---- UTF-8 ----
 *
 * A state holds the number of missing continuation bytes (bits 0-7) and the range of the next one (bits 8-15 and
 * 16-23). 0 is the state between characters, and DUCK_UTF8_REJECT is final.
 */

#define DUCK_UTF8_REJECT 1u
#define DUCK_UTF8(missing, low, high) ((uint32_t)(missing) | (uint32_t)(low) << 8 | (uint32_t)(high) << 16)

static inline uint32_t duck_utf8_step(uint32_t state, uint8_t byte)
{
    if (state == 0) {
        if (byte < 0x80) return 0;
        if (byte < 0xC2) return DUCK_UTF8_REJECT; /* a continuation, or an overlong form of ASCII */
        if (byte < 0xE0) return DUCK_UTF8(1, 0x80, 0xBF);
        if (byte == 0xE0) return DUCK_UTF8(2, 0xA0, 0xBF); /* overlong below */
        if (byte == 0xED) return DUCK_UTF8(2, 0x80, 0x9F); /* surrogates above */
        if (byte < 0xF0) return DUCK_UTF8(2, 0x80, 0xBF);
        if (byte == 0xF0) return DUCK_UTF8(3, 0x90, 0xBF); /* overlong below */
        if (byte < 0xF4) return DUCK_UTF8(3, 0x80, 0xBF);
        if (byte == 0xF4) return DUCK_UTF8(3, 0x80, 0x8F); /* beyond U+10FFFF above */
        return DUCK_UTF8_REJECT;
    }
    if (state == DUCK_UTF8_REJECT || byte < (state >> 8 & 0xFF) || byte > (state >> 16))
        return DUCK_UTF8_REJECT;
    uint32_t missing = (state & 0xFF) - 1;
    return missing ? DUCK_UTF8(missing, 0x80, 0xBF) : 0;
}

static inline int duck_continues(uint8_t byte) { return (byte & 0xC0) == 0x80; }

/* Returns the number of bytes directly before p that begin a character whose rest is at p; at least 3 precede p. */
static inline size_t duck_unfinished(const uint8_t *p)
{
    if (p[-1] >= 0xC0) return 1;
    if (p[-2] >= 0xE0) return 2;
    if (p[-3] >= 0xF0) return 3;
    return 0;
}

#define DUCK_BLOCKS_FROM 64 /* bytes from which blocks are faster than single characters */

static uint32_t duck_utf8(const duck_tier *tier, const uint8_t *p, size_t n, uint32_t state)
{
    size_t i = 0;
    while (state > DUCK_UTF8_REJECT && i < n)
        state = duck_utf8_step(state, p[i++]);
    if (state == DUCK_UTF8_REJECT)
        return state;
    while (n - i >= 4) {
        uint8_t lead = p[i];
        if (lead >= 0x80 && n - i >= DUCK_BLOCKS_FROM) {
            size_t some = tier->blocks(p + i, n - i);
            if (some == DUCK_INVALID)
                return DUCK_UTF8_REJECT;
            if (some) {
                i += some;
                i -= duck_unfinished(p + i);
                break;
            }
        }
        if (lead < 0x80) {
            size_t ascii = n - i >= 32 ? tier->ascii(p + i, n - i) : 0;
            i += ascii;
            while (i < n && p[i] < 0x80)
                i++;
        } else if (lead < 0xE0) {
            if (lead < 0xC2 || !duck_continues(p[i + 1]))
                return DUCK_UTF8_REJECT;
            i += 2;
        } else if (lead < 0xF0) {
            uint8_t next = p[i + 1];
            if (!duck_continues(next) || !duck_continues(p[i + 2]) || (lead == 0xE0 && next < 0xA0) ||
                (lead == 0xED && next > 0x9F))
                return DUCK_UTF8_REJECT;
            i += 3;
        } else {
            uint8_t next = p[i + 1];
            if (lead > 0xF4 || !duck_continues(next) || !duck_continues(p[i + 2]) || !duck_continues(p[i + 3]) ||
                (lead == 0xF0 && next < 0x90) || (lead == 0xF4 && next > 0x8F))
                return DUCK_UTF8_REJECT;
            i += 4;
        }
    }
    while (i < n && state != DUCK_UTF8_REJECT)
        state = duck_utf8_step(state, p[i++]);
    return state;
}

/* Masks and validates while the bytes are in the first-level cache; returns the new state. */
static uint32_t duck_mask_utf8(const duck_tier *tier, uint8_t *dst, const uint8_t *src, size_t n, uint32_t mask,
                               uint32_t state)
{
    const size_t block = 8192; /* a multiple of 4, so that the mask needs no rotation */
    for (size_t i = 0; i < n && state != DUCK_UTF8_REJECT; i += block) {
        size_t some = n - i < block ? n - i : block;
        if (tier->mask(dst + i, src + i, some, mask) || state)
            state = duck_utf8(tier, dst + i, some, state);
    }
    return state;
}

#endif
