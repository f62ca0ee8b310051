/* Makes the wall clock of a process jump by hours, forwards and backwards, each second (LD_PRELOAD). Other clocks stay right.
   It jumps in Python processes alone: Ray's own servers use it for their deadlines, and might wait for a year. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

typedef int (*reader)(clockid_t, struct timespec *);

static int read_clock(clockid_t clock, struct timespec *now) {
    static reader real;
    if (!real)
        real = (reader)dlsym(RTLD_NEXT, "clock_gettime");
    return real(clock, now);
}

static long jump(void) {
    static const long hours[] = {0, 5, -30, 2, -1, 8760, -8760};
    struct timespec up;
    if (strncmp(program_invocation_short_name, "python", 6))
        return 0;
    read_clock(CLOCK_MONOTONIC, &up);
    return 3600 * hours[up.tv_sec % (sizeof hours / sizeof *hours)];
}

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = read_clock(clock, now);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE))
        now->tv_sec += jump();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec precise;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &precise);
    now->tv_sec = precise.tv_sec;
    now->tv_usec = precise.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec precise;
    clock_gettime(CLOCK_REALTIME, &precise);
    if (at)
        *at = precise.tv_sec;
    return precise.tv_sec;
}
