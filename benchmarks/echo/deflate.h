/* zlib, loaded at run time like TLS: it compresses the messages, and decompresses their echoes. */

#ifndef DEFLATE_H
#define DEFLATE_H

#include "dynamic.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    const uint8_t *next_in;
    unsigned avail_in;
    unsigned long total_in;
    uint8_t *next_out;
    unsigned avail_out;
    unsigned long total_out;
    const char *msg;
    void *state, *allocate, *release, *opaque;
    int data_type;
    unsigned long adler, reserved;
} z_stream; /* as zlib.h has it */

enum { Z_SYNC_FLUSH = 2, Z_OK = 0, Z_BUF_ERROR = -5, Z_DEFLATED = 8, Z_LEVEL = 6, Z_MEMORY = 8 };
enum { DEFLATE_TAIL = 4, DEFLATE_BITS = 10 };

static struct {
    int (*deflate_init)(z_stream *, int level, int method, int bits, int memory, int strategy, const char *, int);
    int (*deflate)(z_stream *, int flush);
    int (*deflate_reset)(z_stream *);
    int (*inflate_init)(z_stream *, int bits, const char *version, int size);
    int (*inflate)(z_stream *, int flush);
    int (*inflate_end)(z_stream *);
    const char *(*version)(void);
    z_stream compressor;
} zlib;

/* Loads libz; returns NULL, or the error. */
static const char *deflate_load(void) {
    void *library = dlopen("libz.so.1", RTLD_NOW);
    if (!library)
        return "compression needs zlib, and libz.so.1 was not found: install it, or leave its workloads out";
    const struct symbol symbols[] = {
        {"deflateInit2_", &zlib.deflate_init}, {"deflate", &zlib.deflate},
        {"deflateReset", &zlib.deflate_reset}, {"inflateInit2_", &zlib.inflate_init},
        {"inflate", &zlib.inflate},            {"inflateEnd", &zlib.inflate_end},
        {"zlibVersion", &zlib.version},
    };
    if (!dynamic_load(library, symbols, sizeof symbols / sizeof *symbols))
        return "libz.so.1 lacks functions of zlib";
    if (zlib.deflate_init(&zlib.compressor, Z_LEVEL, Z_DEFLATED, -DEFLATE_BITS, Z_MEMORY, 0, zlib.version(),
                          (int)sizeof(z_stream)))
        return "zlib gives no compressor";
    return NULL;
}

/* Room that a compressed message may need. */
static size_t deflate_bound(size_t size) { return size + size / 8 + 64; }

/* Compresses a message that refers to none before it, without the tail (RFC 7692, section 7.2.1); 0 if it fails. */
static size_t deflate_message(uint8_t *to, const uint8_t *payload, size_t size) {
    z_stream *stream = &zlib.compressor;
    zlib.deflate_reset(stream);
    stream->next_in = payload;
    stream->avail_in = (unsigned)size;
    stream->next_out = to;
    stream->avail_out = (unsigned)deflate_bound(size);
    if (zlib.deflate(stream, Z_SYNC_FLUSH) || stream->avail_in || !stream->avail_out)
        return 0;
    return deflate_bound(size) - stream->avail_out - DEFLATE_TAIL;
}

#endif
