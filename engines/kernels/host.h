// Compiles the kernels for the processor, so that they can be run and compared without a card.
//
// Blocks run one after another, and the threads of a block too, until one waits at a barrier: the others then go on beside it
// as fibres. A barrier that not all threads of a block reach is reported, and so that an order of threads that a kernel relies
// on is seen, threads and blocks can be run from the last to the first.
//
// What this cannot show: threads that really run at once (a missing barrier is seen only if one of the two orders needs it),
// atomics that lose updates, reads beyond a buffer (unless it is compiled with a sanitizer), and rounding where the card's own
// functions (expf) are not those of the C library.
#ifndef LIPSTREAM_HOST_H
#define LIPSTREAM_HOST_H

#include <math.h>
#include <setjmp.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

#include <vector>

#define __device__
#define __forceinline__ inline
#define __shared__ static thread_local
#define __constant__ static const
#define UNROLL

namespace host {

struct Index {
    unsigned x, y, z;
};

constexpr size_t STACK = 128 * 1024;

// A fibre begins by its context, and goes on by its jump, which asks nothing of the system.
struct Fibre {
    ucontext_t context;
    jmp_buf jump;
    bool fresh = true;
    std::vector<char> stack = std::vector<char>(STACK);
    Index thread;
    bool waits = false;
};

// What runs in this thread of the processor.
struct Run {
    void (*body)(const void*);
    const void* arguments;
    Index grid, block, block_index, thread_index;
    bool reversed;
    unsigned begun, finished;
    std::vector<Fibre*> fibres;
    Fibre* current;
    jmp_buf scheduler;
};

inline thread_local Run run;
// For the next launches of this thread of the processor.
inline thread_local bool reverse = false;

inline Index place(unsigned i, Index size) { return {i % size.x, i / size.x % size.y, i / size.x / size.y}; }

inline unsigned count(Index size) { return size.x * size.y * size.z; }

// Runs threads that have not begun until all have, or one waits.
inline void work() {
    Fibre* own = run.current;
    unsigned threads = count(run.block);
    while (run.begun < threads) {
        unsigned i = run.begun++;
        run.thread_index = own->thread = place(run.reversed ? threads - 1 - i : i, run.block);
        run.body(run.arguments);
        run.finished++;
    }
    own->waits = false;
    _longjmp(run.scheduler, 1);
}

inline void resume(Fibre* fibre) {
    run.current = fibre;
    run.thread_index = fibre->thread;
    if (_setjmp(run.scheduler)) return;
    if (!fibre->fresh) _longjmp(fibre->jump, 1);
    fibre->fresh = false;
    setcontext(&fibre->context);
}

inline void barrier() {
    Fibre* own = run.current;
    own->waits = true;
    if (!_setjmp(own->jump)) _longjmp(run.scheduler, 1);
}

// False where a barrier was not reached by all threads.
inline bool one_block() {
    unsigned threads = count(run.block);
    size_t used = 0;
    run.begun = run.finished = 0;
    while (run.begun < threads) {
        if (used == run.fibres.size()) run.fibres.push_back(new Fibre);
        Fibre* fibre = run.fibres[used++];
        fibre->waits = false;
        fibre->fresh = true;
        getcontext(&fibre->context);
        fibre->context.uc_stack.ss_sp = fibre->stack.data();
        fibre->context.uc_stack.ss_size = fibre->stack.size();
        fibre->context.uc_link = nullptr;
        makecontext(&fibre->context, work, 0);
        resume(fibre);
    }
    while (run.finished < threads) {
        // Where one waits, all do: one fibre each.
        if (run.finished != 0) return false;
        for (size_t i = 0; i < used; i++) resume(run.fibres[i]);
    }
    return true;
}

inline int launch(void (*body)(const void*), const void* arguments, const unsigned* grid, const unsigned* block) {
    run.body = body;
    run.arguments = arguments;
    run.grid = {grid[0], grid[1], grid[2]};
    run.block = {block[0], block[1], block[2]};
    run.reversed = reverse;
    unsigned blocks = count(run.grid);
    for (unsigned i = 0; i < blocks; i++) {
        run.block_index = place(run.reversed ? blocks - 1 - i : i, run.grid);
        if (!one_block()) return 1;
    }
    return 0;
}

}  // namespace host

#define threadIdx (host::run.thread_index)
#define blockIdx (host::run.block_index)
#define blockDim (host::run.block)
#define gridDim (host::run.grid)
#define __syncthreads host::barrier

template <class T>
inline T atomicAdd(T* at, T value) {
    T old = *at;
    *at += value;
    return old;
}

template <class T>
inline T atomicOr(T* at, T value) {
    T old = *at;
    *at |= value;
    return old;
}

inline unsigned __float_as_uint(float v) {
    unsigned bits;
    memcpy(&bits, &v, 4);
    return bits;
}

inline float __uint_as_float(unsigned bits) {
    float v;
    memcpy(&v, &bits, 4);
    return v;
}

// A kernel with one argument, a structure `a`. On the processor it is a function that is given the sizes of grid and block,
// `[3]` each, and returns other than 0 where a barrier was not reached by all threads; `<name>_size` is that of the structure.
#define KERNEL(name, Arguments)                                                                       \
    static void name##_body(const Arguments& a);                                                      \
    static void name##_erased(const void* a) { name##_body(*static_cast<const Arguments*>(a)); }      \
    extern "C" int name(const void* a, const unsigned* grid, const unsigned* block) {                 \
        return host::launch(name##_erased, a, grid, block);                                           \
    }                                                                                                 \
    extern "C" size_t name##_size() { return sizeof(Arguments); }                                     \
    static void name##_body(const Arguments& a)

// Whether the next launches run their threads and blocks from the last to the first.
extern "C" inline __attribute__((used)) void lipstream_reverse(int on) { host::reverse = on != 0; }

#endif
