// SPDX-License-Identifier: Apache-2.0
//
// Tells ThreadSanitizer what Swift's libraries, which are built without it, do between threads: that what was done
// before a continuation is resumed is seen by the task that awaits it, and what was done under a mutex by whoever waited
// for that. Loaded in front of them (LD_PRELOAD) by Tests/sanitize.sh.
//
// (Swift's runtime itself tells of tasks that go from one thread to another. It does not where a continuation was
// resumed before its task came to wait, and neither does the part of a mutex that is not inlined. Swift 6.2.)
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

extern void __tsan_acquire(void *);
extern void __tsan_release(void *);
extern void *swift_task_getCurrent(void);

#define ASYNC __attribute__((swiftasynccall))
#define ASYNC_CONTEXT __attribute__((swift_async_context))
#define SWIFT __attribute__((swiftcall))
#define SELF __attribute__((swift_context))

static void *next(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

// --- continuations ---

// Whoever resumes a task's continuation.
#define RESUMING(name, parameters, arguments)                                                                          \
    void name parameters {                                                                                             \
        static void(*volatile real) parameters;                                                                        \
        if (!real) real = next(#name);                                                                                 \
        __tsan_release(task);                                                                                          \
        real arguments;                                                                                                \
    }
RESUMING(swift_continuation_resume, (void *task), (task))
RESUMING(swift_continuation_throwingResume, (void *task), (task))
RESUMING(swift_continuation_throwingResumeWithError, (void *task, void *error), (task, error))

// How the task goes on. The first two words of its context, as in Swift's ABI.
typedef ASYNC void Resume(ASYNC_CONTEXT void *);
struct context {
    void *parent;
    Resume *resume;
};

// Where those go on that are waiting at the moment, by their contexts' addresses.
enum { PLACES = 1 << 16 };
static struct { struct context *context; Resume *resume; } waiting[PLACES];
// (A mutex would be seen, and taken for an order of what has none.)
static atomic_flag lock = ATOMIC_FLAG_INIT;

static void take_lock(void) {
    while (atomic_flag_test_and_set_explicit(&lock, memory_order_acquire)) {
    }
}

static void leave_lock(void) { atomic_flag_clear_explicit(&lock, memory_order_release); }

// Called with the lock held.
static unsigned place(struct context *context) {
    unsigned start = (uintptr_t)context >> 4, at = start;
    while (waiting[at % PLACES].context && waiting[at % PLACES].context != context)
        if (++at == start + PLACES) abort();
    return at % PLACES;
}

// Goes on with what was resumed already.
static ASYNC void resumed(ASYNC_CONTEXT void *argument) {
    __tsan_acquire(swift_task_getCurrent());
    take_lock();
    Resume *resume = waiting[place(argument)].resume;
    leave_lock();
    __attribute__((musttail)) return resume(argument);
}

// (One that has to wait goes on where the runtime has noted it before, and not by way of `resumed`.)
ASYNC void swift_continuation_await(struct context *context) {
    static ASYNC void(*volatile real)(struct context *);
    if (!real) real = next("swift_continuation_await");
    take_lock();
    unsigned at = place(context);
    waiting[at].context = context;
    waiting[at].resume = context->resume;
    leave_lock();
    context->resume = resumed;
    __attribute__((musttail)) return real(context);
}

// --- Synchronization.Mutex ---

#define LOCK "$s15Synchronization12_MutexHandleV9_lockSlowyys6UInt32VF"
#define UNLOCK "$s15Synchronization12_MutexHandleV11_unlockSlowyyF"

SWIFT void lock_slowly(uint32_t thread, SELF void *mutex) __asm__(LOCK);
SWIFT void lock_slowly(uint32_t thread, SELF void *mutex) {
    static SWIFT void(*volatile real)(uint32_t, SELF void *);
    if (!real) real = next(LOCK);
    real(thread, mutex);
    __tsan_acquire(mutex);
}

SWIFT void unlock_slowly(SELF void *mutex) __asm__(UNLOCK);
SWIFT void unlock_slowly(SELF void *mutex) {
    static SWIFT void(*volatile real)(SELF void *);
    if (!real) real = next(UNLOCK);
    __tsan_release(mutex);
    real(mutex);
}
