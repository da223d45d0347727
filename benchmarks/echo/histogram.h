/* Latencies, counted in buckets with an error of at most 1.6 %: any number of them in the same memory. */

#ifndef HISTOGRAM_H
#define HISTOGRAM_H

#include <stdint.h>

enum { STEPS_BITS = 6, STEPS = 1 << STEPS_BITS }; /* buckets for each power of two */

static uint64_t histogram[64 * STEPS], histogram_count;

static int bucket_of(uint64_t ns) {
    if (ns < STEPS)
        return (int)ns;
    int power = 63 - __builtin_clzll(ns) - STEPS_BITS;
    return (power + 1) * STEPS + (int)(ns >> power & (STEPS - 1));
}

static void histogram_add(uint64_t ns) {
    histogram[bucket_of(ns)]++;
    histogram_count++;
}

/* The latency in microseconds below which the share lies. */
static double histogram_quantile(double share) {
    uint64_t rank = (uint64_t)(share * (double)histogram_count), seen = 0;
    for (int bucket = 0; bucket < 64 * STEPS; bucket++) {
        seen += histogram[bucket];
        if (seen > rank || (seen && seen == histogram_count)) {
            if (bucket < STEPS)
                return bucket / 1e3;
            int power = bucket / STEPS - 1;
            return (double)((uint64_t)(STEPS + bucket % STEPS) << power) / 1e3;
        }
    }
    return 0;
}

#endif
