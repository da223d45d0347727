/* The client side of TLS by the system's OpenSSL, loaded at run time. The build needs neither its headers nor the
 * library, and a machine without libssl can still measure the plain workloads. */

#ifndef TLS_H
#define TLS_H

#include "dynamic.h"

#include <stdbool.h>
#include <stddef.h>

typedef struct ssl_st SSL;
typedef struct ssl_ctx_st SSL_CTX;

enum { TLS_WANTS_READ = 2, TLS_WANTS_WRITE = 3, TLS_SYSCALL_FAILED = 5, TLS_WAS_CLOSED = 6 }; /* SSL_ERROR_... */

static struct {
    const void *(*client_method)(void);
    SSL_CTX *(*new_context)(const void *method);
    long (*control_context)(SSL_CTX *, int command, long number, void *);
    SSL *(*new_session)(SSL_CTX *);
    int (*set_fd)(SSL *, int fd);
    int (*connect)(SSL *);
    int (*read)(SSL *, void *, int);
    int (*write)(SSL *, const void *, int);
    int (*get_error)(const SSL *, int result);
    void (*clear_errors)(void);
    void (*free_session)(SSL *);
    SSL_CTX *context;
} tls;

/* Loads libssl; returns NULL, or the error. Certificates are not verified, because the server is known. */
static const char *tls_load(void) {
    static const char *const names[] = {"libssl.so.3", "libssl.so.1.1", "libssl.so"};
    void *library = NULL;
    for (size_t i = 0; !library && i < sizeof names / sizeof *names; i++)
        library = dlopen(names[i], RTLD_NOW);
    if (!library)
        return "TLS needs OpenSSL's libssl, and none was found: install openssl, or leave the TLS workloads out";
    const struct symbol symbols[] = {
        {"TLS_client_method", &tls.client_method}, {"SSL_CTX_new", &tls.new_context},
        {"SSL_CTX_ctrl", &tls.control_context},    {"SSL_new", &tls.new_session},
        {"SSL_set_fd", &tls.set_fd},               {"SSL_connect", &tls.connect},
        {"SSL_read", &tls.read},                   {"SSL_write", &tls.write},
        {"SSL_get_error", &tls.get_error},         {"ERR_clear_error", &tls.clear_errors},
        {"SSL_free", &tls.free_session},
    };
    if (!dynamic_load(library, symbols, sizeof symbols / sizeof *symbols))
        return "libssl is too old: OpenSSL 1.1 or later is needed";
    tls.context = tls.new_context(tls.client_method());
    if (!tls.context)
        return "libssl gives no context";
    enum { SET_MODE = 33, PARTIAL_WRITES = 1, MOVING_BUFFER = 2 };
    tls.control_context(tls.context, SET_MODE, PARTIAL_WRITES | MOVING_BUFFER, NULL);
    return NULL;
}

#endif
