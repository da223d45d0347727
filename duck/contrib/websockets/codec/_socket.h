/* Direct writing to the socket of a transport whose buffer is empty. */
#ifndef DUCK_SOCKET_H
#define DUCK_SOCKET_H

#include <stddef.h>

/* The largest number of pieces for one call. */
#define DUCK_PIECES 64

#ifdef _WIN32
struct iovec {
    void *iov_base;
    size_t iov_len;
};

static inline ptrdiff_t duck_send(int fd, struct iovec *pieces, int n)
{
    (void)fd, (void)pieces, (void)n;
    return 0;
}
#else
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#ifndef MSG_NOSIGNAL
#define MSG_NOSIGNAL 0 /* macOS has none; Python ignores SIGPIPE */
#endif

/* Returns the number of bytes sent without blocking; 0 after an error, which recurs when the transport writes. */
static inline ptrdiff_t duck_send(int fd, struct iovec *pieces, int n)
{
    ptrdiff_t sent;
    if (n == 1) {
        sent = send(fd, pieces->iov_base, pieces->iov_len, MSG_DONTWAIT | MSG_NOSIGNAL);
    } else {
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = pieces;
        message.msg_iovlen = (size_t)n;
        sent = sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }
    return sent < 0 ? 0 : sent;
}
#endif

#endif
