/* Random bytes of the system, for masks and contents. */

#ifndef RANDOM_H
#define RANDOM_H

#include <stddef.h>
#include <stdint.h>
#include <sys/random.h>
#include <sys/types.h>

static void fill_random(void *to, size_t size) {
    for (size_t at = 0; at < size;) {
        ssize_t got = getrandom((uint8_t *)to + at, size - at, 0);
        if (got > 0)
            at += (size_t)got;
    }
}

#endif
