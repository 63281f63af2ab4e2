// The chain of cells over many windows of many streams, in one launch: a block takes one stream at a
// time, threads are neurons, windows go inside. State is changed in place; a stream without a window
// is not touched. Every sum starts from 0 and goes over ascending addresses, as on the CPU.
#ifndef __CUDACC__
#include "cuda_host.h"
#endif
#include "../cell/cells.cuh"
#include "layer.cuh"

#define RESET 0x80000000u

// What a layer is given in one window; one of the three.
struct Active {
    const unsigned* entries;  // addresses and counts, in one word or two
    const unsigned* spikes;   // bits
    const float* values;      // dense
    unsigned n;
    bool wide;
};

__device__ __forceinline__ float gather(const Active& active, const float* rows, unsigned width,
                                        unsigned neuron) {
    float sum = 0.0f;
    if (active.spikes) {
        for (unsigned word = 0; 32 * word < active.n; ++word) {
            for (unsigned bits = active.spikes[word]; bits; bits &= bits - 1) {
                const unsigned input = 32 * word + __ffs((int)bits) - 1;
                sum = sum + rows[(size_t)input * width + neuron];
            }
        }
    } else if (active.values) {
#pragma unroll 4
        for (unsigned input = 0; input < active.n; ++input)
            sum = sum + active.values[input] * rows[(size_t)input * width + neuron];
    } else if (active.wide) {
#pragma unroll 4
        for (unsigned k = 0; k < active.n; ++k)
            sum = sum + (float)active.entries[2 * (size_t)k + 1] *
                            rows[(size_t)active.entries[2 * (size_t)k] * width + neuron];
    } else {
#pragma unroll 8
        for (unsigned k = 0; k < active.n; ++k) {
            const unsigned entry = active.entries[k];
            sum = sum + (float)(entry >> 16) * rows[(size_t)(entry & 0xffffu) * width + neuron];
        }
    }
    return sum;
}

// From the kept weights where the matrix is among them, else from the device's memory.
__device__ __forceinline__ float project(const Active& active, const float* weights,
                                         unsigned at, const float* kept, unsigned kept_at,
                                         unsigned width, unsigned neuron) {
    if (kept && kept_at != NONE) return gather(active, kept + kept_at, width, neuron);
    return gather(active, weights + at, width, neuron);
}

__device__ __forceinline__ void keep(float* kept, unsigned kept_at, const float* weights,
                                     unsigned at, unsigned n) {
    if (kept_at == NONE) return;
    for (unsigned k = threadIdx.x; k < n; k += blockDim.x) kept[kept_at + k] = weights[at + k];
}

// Shared memory, in words: layers, sums [widest recurrent dense layer], spikes [3, n_words], kept
// weights. Plan, in words: runs (slot, end of its steps), steps (row of out and RESET, end of its
// entries), entries; runs and steps begin where the one before ends.
extern "C" __global__ void __launch_bounds__(1024, 1)
rollout(const float* __restrict__ weights, float* state, const unsigned* __restrict__ layers,
        const unsigned* __restrict__ plan, float* out, float* trace, float* saved,
        unsigned n_layers, unsigned row_len, unsigned saved_len, unsigned n_words, unsigned n_sums,
        unsigned n_runs, unsigned n_steps, unsigned wide, unsigned keeps) {
    extern __shared__ float shared[];
    const Layer* chain = (const Layer*)shared;
    float* sums = shared + n_layers * (sizeof(Layer) / sizeof(float));
    unsigned* spikes = (unsigned*)(sums + n_sums);
    float* kept = keeps ? (float*)(spikes + 3 * n_words) : nullptr;
    const unsigned thread = threadIdx.x, n_threads = blockDim.x;
    const unsigned* steps = plan + 2 * (size_t)n_runs;
    const unsigned* entries = steps + 2 * (size_t)n_steps;
    const unsigned entry_words = wide ? 2 : 1;

    for (unsigned k = thread; k < n_layers * (sizeof(Layer) / sizeof(float)); k += n_threads)
        ((unsigned*)shared)[k] = layers[k];
    __syncthreads();
    if (keeps) {
        for (unsigned l = 0; l < n_layers; ++l) {
            const Layer& layer = chain[l];
            keep(kept, layer.kept_input, weights, layer.input_weights, layer.inputs * layer.width);
            keep(kept, layer.kept_recurrent, weights, layer.recurrent_weights,
                 layer.neurons * layer.width);
        }
    }
    for (unsigned run = blockIdx.x; run < n_runs; run += gridDim.x) {
        float* row = state + (size_t)plan[2 * (size_t)run] * row_len;
        const unsigned first = run ? plan[2 * (size_t)run - 1] : 0;
        const unsigned end = plan[2 * (size_t)run + 1];
        for (unsigned k = thread; k < 3 * n_words; k += n_threads) spikes[k] = 0;
        __syncthreads();
        for (unsigned l = 0; l < n_layers; ++l) {
            const Layer& layer = chain[l];
            if (!layer.spikes) continue;
            for (unsigned n = thread; n < layer.neurons; n += n_threads)
                if (row[layer.output + n] != 0.0f)
                    atomicOr(&spikes[layer.words + n / 32], 1u << n % 32);
        }
        __syncthreads();
        // Three sets of spikes in turn: of the last window, of this one, and one that is emptied;
        // so one barrier a layer is enough.
        unsigned last = 0;
        for (unsigned step = first; step < end; ++step) {
            const unsigned place = steps[2 * (size_t)step] & ~RESET;
            if (steps[2 * (size_t)step] & RESET) {
                for (unsigned k = thread; k < row_len; k += n_threads) row[k] = 0.0f;
                for (unsigned k = thread; k < n_words; k += n_threads)
                    spikes[last * n_words + k] = 0;
                __syncthreads();
            }
            const unsigned now = (last + 1) % 3, spare = (last + 2) % 3;
            const unsigned from = step ? steps[2 * (size_t)step - 1] : 0;
            const unsigned to = steps[2 * (size_t)step + 1];
            Active active = {entries + (size_t)from * entry_words, nullptr, nullptr, to - from,
                             wide != 0};
            for (unsigned l = 0; l < n_layers; ++l) {
                const Layer& layer = chain[l];
                const unsigned width = layer.width;
                const bool recurrent = layer.recurrent_weights != NONE;
                const Active own = {nullptr,
                                    layer.spikes ? spikes + last * n_words + layer.words : nullptr,
                                    layer.spikes ? nullptr : row + layer.output, layer.neurons,
                                    false};
                if (layer.spikes) {
                    for (unsigned k = thread; 32 * k < layer.neurons; k += n_threads)
                        spikes[spare * n_words + layer.words + k] = 0;
                } else if (recurrent) {
                    // dense outputs change in place: all sums before any change
                    for (unsigned n = thread; n < layer.neurons; n += n_threads)
                        sums[n] = project(own, weights, layer.recurrent_weights, kept,
                                          layer.kept_recurrent, width, n);
                    __syncthreads();
                }
                for (unsigned n = thread; n < layer.neurons; n += n_threads) {
                    const float a = project(active, weights, layer.input_weights, kept,
                                            layer.kept_input, width, n);
                    float b = 0.0f, peak = 0.0f;
                    if (recurrent)
                        b = layer.spikes ? project(own, weights, layer.recurrent_weights, kept,
                                                   layer.kept_recurrent, width, n)
                                         : sums[n];
                    const bool fires = step_cell(layer.cell, layer.constants, a, recurrent, b,
                                                 row + layer.state + n, width, &peak);
                    if (fires)
                        atomicOr(&spikes[now * n_words + layer.words + n / 32], 1u << n % 32);
                    if (saved && layer.saved != NONE)
                        saved[(size_t)place * saved_len + layer.saved + n] = peak;
                    if (l + 1 == n_layers)
                        out[(size_t)place * layer.neurons + n] = row[layer.output + n];
                    if (trace)
                        for (unsigned k = 0; k < layer.variables; ++k) {
                            const unsigned at = layer.state + k * width + n;
                            trace[(size_t)place * row_len + at] = row[at];
                        }
                }
                __syncthreads();
                active.spikes = layer.spikes ? spikes + now * n_words + layer.words : nullptr;
                active.values = layer.spikes ? nullptr : row + layer.output;
                active.n = layer.neurons;
            }
            last = now;
        }
    }
}
