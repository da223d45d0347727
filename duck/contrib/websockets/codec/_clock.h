/* A clock that is read for each message: coarse, and cheap where the system has one that is. */

#ifndef DUCK_CLOCK_H
#define DUCK_CLOCK_H

#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

/* Milliseconds since some time; on Linux as of the last tick of the kernel, 1 to 10 ms ago. */
static inline long long duck_clock(void)
{
#ifdef _WIN32
    return (long long)GetTickCount64();
#else
    struct timespec now;
#ifdef CLOCK_MONOTONIC_COARSE
    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
#else
    clock_gettime(CLOCK_MONOTONIC, &now);
#endif
    return (long long)now.tv_sec * 1000 + now.tv_nsec / 1000000;
#endif
}

#endif
