// Runs a kernel on one thread of the CPU: every CUDA thread of a block is a fiber, a barrier switches
// fibers, blocks run one after another. The kernel's source is unchanged. Fibers go in either order,
// which shows most barriers that are missing.
#pragma once
#include <ucontext.h>

#include <cmath>
#include <cstddef>
#include <cstring>
#include <functional>
#include <memory>
#include <vector>

#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n)
#define __restrict__ __restrict
#define __shared__  // dynamic alone: `extern __shared__ float shared[]`, defined by host.cpp

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};
struct float4 {
    float x, y, z, w;
};
inline dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace cuda_host {
constexpr std::size_t stack_bytes = 64 << 10;

struct Fiber {
    ucontext_t context;
    std::unique_ptr<char[]> stack{new char[stack_bytes]};
    bool done = false;
};

inline ucontext_t scheduler;
inline Fiber* current;
inline const std::function<void()>* body;

inline void entry() {
    (*body)();
    current->done = true;
    swapcontext(&current->context, &scheduler);
}

inline void launch(unsigned grid, unsigned block, bool reversed, const std::function<void()>& kernel) {
    gridDim = {grid, 1, 1};
    blockDim = {block, 1, 1};
    body = &kernel;
    std::vector<Fiber> fibers(block);
    for (unsigned b = 0; b < grid; ++b) {
        for (Fiber& fiber : fibers) {
            getcontext(&fiber.context);
            fiber.context.uc_stack.ss_sp = fiber.stack.get();
            fiber.context.uc_stack.ss_size = stack_bytes;
            fiber.context.uc_link = nullptr;
            fiber.done = false;
            makecontext(&fiber.context, entry, 0);
        }
        for (bool live = true; live;) {
            live = false;
            for (unsigned k = 0; k < block; ++k) {
                const unsigned thread = reversed ? block - 1 - k : k;
                if (fibers[thread].done) continue;
                threadIdx = {thread, 0, 0};
                blockIdx = {b, 0, 0};
                current = &fibers[thread];
                swapcontext(&scheduler, &current->context);
                live |= !fibers[thread].done;
            }
        }
    }
}
}  // namespace cuda_host

inline void __syncthreads() {
    const dim3 thread = threadIdx;
    swapcontext(&cuda_host::current->context, &cuda_host::scheduler);
    threadIdx = thread;
}

inline unsigned atomicOr(unsigned* word, unsigned bits) {
    const unsigned before = *word;
    *word |= bits;
    return before;
}

inline unsigned atomicAdd(unsigned* word, unsigned value) {
    const unsigned before = *word;
    *word += value;
    return before;
}

inline int __popc(int bits) { return __builtin_popcount((unsigned)bits); }
