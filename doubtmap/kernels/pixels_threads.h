/* Threads of one call: the platform's own, since a second OpenMP beside PyTorch's ends or stops the
 * process on some platforms.
 *
 * They end with the call. Nothing is kept that a fork could break, and calls from many threads at
 * once know nothing of each other.
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

/* Call work(shared) in so many threads, this one among them, and wait for all; in fewer where the
 * system gives no more. The work shares itself out, with `take`. */
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
