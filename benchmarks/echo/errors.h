/* Errors of the load client: a line of JSON, and exit status 1. */

#ifndef ERRORS_H
#define ERRORS_H

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static void fail(const char *format, ...) {
    char words[512];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(words, sizeof words, format, arguments);
    va_end(arguments);
    for (char *c = words; *c; c++)
        if (*c == '"' || *c == '\\' || *c < ' ' || *c > '~')
            *c = ' ';
    printf("{\"error\": \"%s\"}\n", words);
    exit(1);
}

static void *checked(void *memory) {
    if (!memory)
        fail("out of memory");
    return memory;
}

#endif
