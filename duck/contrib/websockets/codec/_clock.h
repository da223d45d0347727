/* The clocks of the hot path. */

#ifndef DUCK_CLOCK_H
#define DUCK_CLOCK_H

#ifdef _WIN32
#include <windows.h>
#else
#include <time.h>
#endif

/* Returns milliseconds since an arbitrary time, by a coarse and cheap clock if the system has one; on Linux the time of
   the kernel's last tick, 1 to 10 ms ago. */
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

/* Returns seconds since an arbitrary time, with an error of less than a microsecond. */
static inline double duck_seconds(void)
{
#ifdef _WIN32
    LARGE_INTEGER now, frequency;
    QueryPerformanceFrequency(&frequency);
    QueryPerformanceCounter(&now);
    return (double)now.QuadPart / (double)frequency.QuadPart;
#else
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec * 1e-9;
#endif
}

#endif
