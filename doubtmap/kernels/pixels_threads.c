/* One pool of helpers for the process, which sleep between calls; by Win32 or POSIX. On platforms
 * that have neither, the caller does it all.
 *
 * A caller does not wait for helpers that have not begun when its work is taken: on a busy machine
 * they come too late, and find nothing to do.
 */

#define _GNU_SOURCE /* sched_getaffinity */

#include "pixels_threads.h"

#include <stdlib.h>

#define MOST 1024

#if defined(_WIN32)
#include <windows.h>

typedef SRWLOCK mutex;
typedef CONDITION_VARIABLE condition;
#define UNLOCKED SRWLOCK_INIT
#define UNTOLD CONDITION_VARIABLE_INIT
static void lock(mutex *m) { AcquireSRWLockExclusive(m); }
static void unlock(mutex *m) { ReleaseSRWLockExclusive(m); }
static void wait_for(condition *c, mutex *m) { SleepConditionVariableSRW(c, m, INFINITE, 0); }
static void tell(condition *c) { WakeConditionVariable(c); }

static long processors(void) {
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return (long)info.dwNumberOfProcessors;
}

#elif defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <unistd.h>

typedef pthread_mutex_t mutex;
typedef pthread_cond_t condition;
#define UNLOCKED PTHREAD_MUTEX_INITIALIZER
#define UNTOLD PTHREAD_COND_INITIALIZER
static void lock(mutex *m) { pthread_mutex_lock(m); }
static void unlock(mutex *m) { pthread_mutex_unlock(m); }
static void wait_for(condition *c, mutex *m) { pthread_cond_wait(c, m); }
static void tell(condition *c) { pthread_cond_signal(c); }

static long processors(void) {
#ifdef __linux__
    cpu_set_t allowed;
    if (sched_getaffinity(0, sizeof allowed, &allowed) == 0) return CPU_COUNT(&allowed);
#endif
    return sysconf(_SC_NPROCESSORS_ONLN);
}

#else
#define WITHOUT_THREADS
static long processors(void) { return 1; }
#endif

int doubtmap_threads(void) {
    const char *asked = getenv("OMP_NUM_THREADS");
    long count = asked ? strtol(asked, NULL, 10) : 0;
    if (count < 1) count = processors();
    return count < 1 ? 1 : count > MOST ? MOST : (int)count;
}

#ifdef WITHOUT_THREADS

void doubtmap_together(void (*work)(void *), void *shared, int threads) {
    (void)threads;
    work(shared);
}

#else

struct call {
    void (*work)(void *);
    void *shared;
    int wanted, inside; /* helpers that may still come, and that are at it */
    condition left;     /* told when the last one has left */
    struct call *next;
};

/* All that follows is touched by who holds `at`. */
static struct {
    mutex at;
    condition called;
    struct call *calls; /* that still want helpers or have some */
    int helpers;
} pool = {.at = UNLOCKED, .called = UNTOLD};

static void help(void) {
    lock(&pool.at);
    for (;;) {
        struct call *call = pool.calls;
        while (call && !call->wanted) call = call->next;
        if (!call) {
            wait_for(&pool.called, &pool.at);
            continue;
        }
        call->wanted--;
        call->inside++;
        unlock(&pool.at);
        call->work(call->shared);
        lock(&pool.at);
        if (--call->inside == 0) tell(&call->left);
    }
}

#ifdef _WIN32

static DWORD WINAPI begin(LPVOID nothing) {
    (void)nothing;
    help();
    return 0;
}

static int start(void) {
    const HANDLE helper = CreateThread(NULL, 0, begin, NULL, 0, NULL);
    return helper && CloseHandle(helper);
}

static void mind_forks(void) {}

#else

static void *begin(void *nothing) {
    help();
    return nothing;
}

/* Start a helper, which leaves signals to the program's own threads. */
static int start(void) {
    pthread_t helper;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    const int started = !pthread_create(&helper, NULL, begin, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return started && !pthread_detach(helper);
}

static void before_fork(void) { lock(&pool.at); }
static void after_fork(void) { unlock(&pool.at); }

/* A forked child has neither helpers nor the other callers. */
static void in_child(void) {
    pool.at = (mutex)UNLOCKED;
    pool.called = (condition)UNTOLD;
    pool.calls = NULL;
    pool.helpers = 0;
}

static void mind_forks(void) {
    static int minded;
    if (!minded) minded = !pthread_atfork(before_fork, after_fork, in_child);
}

#endif

void doubtmap_together(void (*work)(void *), void *shared, int threads) {
    struct call call = {.work = work, .shared = shared, .left = UNTOLD};
    call.wanted = (threads < MOST ? threads : MOST) - 1;
    if (call.wanted < 1) {
        work(shared);
        return;
    }
    lock(&pool.at);
    mind_forks();
    while (pool.helpers < call.wanted && start()) pool.helpers++;
    call.next = pool.calls;
    pool.calls = &call;
    for (int helper = 0; helper < call.wanted; helper++) tell(&pool.called);
    unlock(&pool.at);
    work(shared);
    lock(&pool.at);
    call.wanted = 0;
    while (call.inside) wait_for(&call.left, &pool.at);
    struct call **place = &pool.calls;
    while (*place != &call) place = &(*place)->next;
    *place = call.next;
    unlock(&pool.at);
}

#endif
