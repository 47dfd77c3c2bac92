/* Threads by Win32 or POSIX; on platforms that have neither, the call's own thread does it all. */

#define _GNU_SOURCE /* sched_getaffinity */

#include "pixels_threads.h"

#include <stdlib.h>

#define MOST 1024

struct team {
    void (*work)(void *);
    void *shared;
};

#if defined(_WIN32)
#include <windows.h>

typedef HANDLE thread;

static DWORD WINAPI begin(LPVOID given) {
    const struct team *team = given;
    team->work(team->shared);
    return 0;
}

static int start(thread *new, struct team *team) {
    *new = CreateThread(NULL, 0, begin, team, 0, NULL);
    return *new != NULL;
}

static void finish(thread started) {
    WaitForSingleObject(started, INFINITE);
    CloseHandle(started);
}

static long processors(void) {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (long)info.dwNumberOfProcessors;
}

#elif defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <unistd.h>

typedef pthread_t thread;

static void *begin(void *given) {
    const struct team *team = given;
    team->work(team->shared);
    return NULL;
}

static int start(thread *new, struct team *team) {
    return pthread_create(new, NULL, begin, team) == 0;
}

static void finish(thread started) { pthread_join(started, NULL); }

static long processors(void) {
#ifdef __linux__
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

#else

typedef char thread;

static int start(thread *new, struct team *team) { return (void)new, (void)team, 0; }
static void finish(thread started) { (void)started; }
static long processors(void) { return 1; }

#endif

int doubtmap_threads(void) {
    const char *asked = getenv("OMP_NUM_THREADS");
    long count = asked ? strtol(asked, NULL, 10) : 0;
    if (count < 1) count = processors();
    return count < 1 ? 1 : count > MOST ? MOST : (int)count;
}

void doubtmap_together(void (*work)(void *), void *shared, int threads) {
    struct team team = {work, shared};
    thread started[MOST];
    int count = 0;
    while (count + 1 < threads && count < MOST && start(started + count, &team)) count++;
    work(shared);
    while (count) finish(started[--count]);
}
