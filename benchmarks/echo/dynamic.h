/* Functions of a library that is loaded at run time. */

#ifndef DYNAMIC_H
#define DYNAMIC_H

#include <dlfcn.h>
#include <stdbool.h>
#include <stddef.h>

struct symbol {
    const char *name;
    void *to; /* the pointer to set */
};

/* Sets the pointers; returns false if the library lacks a function. */
static bool dynamic_load(void *library, const struct symbol *symbols, size_t count) {
    for (size_t i = 0; i < count; i++) {
        void *symbol = dlsym(library, symbols[i].name);
        if (!symbol)
            return false;
        *(void **)symbols[i].to = symbol;
    }
    return true;
}

#endif
