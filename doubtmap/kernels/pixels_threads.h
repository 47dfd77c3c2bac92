/* Threads by the platform's own means: a second OpenMP beside PyTorch's ends or stops the process on
 * some platforms. Calls may come from many threads at once, and from forked children.
 */

#ifndef DOUBTMAP_PIXELS_THREADS_H
#define DOUBTMAP_PIXELS_THREADS_H

#include <stdint.h>

#ifdef _MSC_VER
#include <intrin.h>
#endif

/* How many threads to take where nobody says: OMP_NUM_THREADS, else one a processor that the
 * process may use; 1 on platforms without threads. */
int doubtmap_threads(void);

/* Call work(shared) in this thread and in up to threads - 1 others at once, and wait for these. How
 * many come is left to chance, so that the work shares itself out, with `take`. */
void doubtmap_together(void (*work)(void *), void *shared, int threads);

/* What *from is, before it grows by `more`, both in one step. */
static inline int64_t take(int64_t *from, int64_t more) {
#ifdef _MSC_VER
    return _InterlockedExchangeAdd64(from, more);
#else
    return __atomic_fetch_add(from, more, __ATOMIC_RELAXED);
#endif
}

#endif
