// The kernels compiled for the CPU, and how Rust starts them there. Not for two threads at once.
#include "cuda_host.h"

// As much as a block of any GPU has, and more.
alignas(16) float shared[64 * 1024];

#include "bptt.cu"
#include "rollout.cu"

static const float* in(void* array) { return (const float*)array; }
static float* out(void* array) { return (float*)array; }
static const unsigned* words(void* array) { return (const unsigned*)array; }
static unsigned* counts(void* array) { return (unsigned*)array; }
static float real(unsigned bits) {
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

// Arrays and numbers are the kernel's arguments, in its order.
extern "C" void kernel_on_host(unsigned which, unsigned grid, unsigned block, unsigned reversed,
                               void* const* a, const unsigned* n) {
    cuda_host::launch(grid, block, reversed != 0, [=] {
        switch (which) {
        case 0:
            rollout(in(a[0]), out(a[1]), words(a[2]), words(a[3]), out(a[4]), out(a[5]), out(a[6]),
                    n[0], n[1], n[2], n[3], n[4], n[5], n[6], n[7], n[8]);
            break;
        case 1:
            back_through_time(in(a[0]), words(a[1]), words(a[2]), in(a[3]), in(a[4]), out(a[5]),
                              out(a[6]), out(a[7]), n[0], n[1], n[2], n[3], n[4]);
            break;
        case 2:
            weight_gradients(words(a[0]), in(a[1]), in(a[2]), words(a[3]), words(a[4]), out(a[5]),
                             n[0], n[1], n[2], n[3], n[4]);
            break;
        case 3:
            count_spikes(words(a[0]), in(a[1]), counts(a[2]), n[0], n[1], n[2]);
            break;
        case 4:
            adam(out(a[0]), in(a[1]), out(a[2]), out(a[3]), n[0], real(n[1]), real(n[2]), real(n[3]),
                 real(n[4]), real(n[5]), real(n[6]), real(n[7]), real(n[8]));
            break;
        default:
            store_weights(in(a[0]), words(a[1]), out(a[2]), n[0], n[1]);
        }
    });
}
