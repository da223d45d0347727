/* Writing to a socket past its transport, where the transport has nothing queued. */
#ifndef DUCK_SOCKET_H
#define DUCK_SOCKET_H

#include <stddef.h>

#ifdef _WIN32
static inline ptrdiff_t duck_send(int fd, const void *p, size_t n)
{
    (void)fd, (void)p, (void)n;
    return 0;
}
#else
#include <sys/socket.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS has none; Python ignores SIGPIPE */
#endif

/* The bytes that went at once. An error shows when the transport tries the rest. */
static inline ptrdiff_t duck_send(int fd, const void *p, size_t n)
{
    ptrdiff_t sent = send(fd, p, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? 0 : sent;
}
#endif

#endif
