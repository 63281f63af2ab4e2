// The kernels compiled for the CPU, and how Rust starts them there. Not for two threads at once.
#include "cuda_host.h"

// As much as a block of any GPU has.
alignas(16) float shared[64 * 1024];

#include "rollout.cu"

extern "C" void rollout_on_host(unsigned grid, unsigned block, unsigned reversed,
                                const float* weights, float* state, const unsigned* layers,
                                const unsigned* plan, float* out, float* trace, float* saved,
                                const unsigned* numbers) {
    cuda_host::launch(grid, block, reversed != 0, [=] {
        rollout(weights, state, layers, plan, out, trace, saved, numbers[0], numbers[1], numbers[2],
                numbers[3], numbers[4], numbers[5], numbers[6], numbers[7], numbers[8]);
    });
}
