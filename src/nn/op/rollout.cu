// The chain of cells over many windows of many streams, in one launch: a block takes one stream at a
// time, threads are neurons, windows go inside. State is changed in place; a stream without a window
// is not touched. Every sum starts from 0 and goes over ascending addresses, as on the CPU.
#ifndef __CUDACC__
#include "cuda_host.h"
#endif
#include "../cell/cells.cuh"
#include "layer.cuh"

#define RESET 0x80000000u
// Weights that are loaded together, before they are added in their order.
#define BATCH 8
#define INPUT_BATCH 16

// What a layer puts out; one of the two.
struct Outputs {
    const unsigned short* spikes;  // neurons, ascending
    const float* values;           // dense
    unsigned n;
};

// A window's active inputs: addresses and counts, in one word or two; the first of them in shared
// memory too.
struct Inputs {
    const unsigned *entries, *staged;
    unsigned n, n_staged;
    bool wide;
};

// A window that is stepped: row of out and RESET, end of its entries.
struct Step {
    unsigned word, end;
};

// What a batch lacks adds +0, which changes no sum that began with +0. All weights are fewer than 2^27
// floats, so an index has 32 bits.
__device__ __forceinline__ float add_spikes(const unsigned short* spikes, unsigned n,
                                            const float* rows, unsigned width, unsigned neuron) {
    float sum = 0.0f;
#pragma unroll 1
    for (unsigned k = 0; k < n; k += BATCH) {
        float weights[BATCH];
#pragma unroll
        for (unsigned j = 0; j < BATCH; ++j)
            weights[j] = k + j < n ? rows[spikes[k + j] * width + neuron] : 0.0f;
#pragma unroll
        for (unsigned j = 0; j < BATCH; ++j) sum = sum + weights[j];
    }
    return sum;
}

template <bool wide>
__device__ __forceinline__ float add_entries(float sum, const unsigned* entries, unsigned k,
                                             unsigned end, const float* rows, unsigned width,
                                             unsigned neuron) {
#pragma unroll 1
    for (; k < end; k += INPUT_BATCH) {
        float counts[INPUT_BATCH], weights[INPUT_BATCH];
#pragma unroll
        for (unsigned j = 0; j < INPUT_BATCH; ++j) {
            const unsigned at = k + j, word = at < end ? entries[wide ? 2 * at : at] : 0;
            const unsigned address = wide ? word : word & 0xffffu;
            const unsigned count = wide ? (at < end ? entries[2 * at + 1] : 0) : word >> 16;
            counts[j] = (float)count;
            weights[j] = rows[address * width + neuron];
        }
#pragma unroll
        for (unsigned j = 0; j < INPUT_BATCH; ++j)
            sum = sum + (counts[j] != 0.0f ? counts[j] * weights[j] : 0.0f);
    }
    return sum;
}

__device__ __forceinline__ float gather(const Inputs& inputs, const float* rows, unsigned width,
                                        unsigned neuron) {
    const unsigned n = inputs.n, n_staged = inputs.n_staged;
    if (inputs.wide) {
        const float sum = add_entries<true>(0.0f, inputs.staged, 0, n_staged, rows, width, neuron);
        return add_entries<true>(sum, inputs.entries, n_staged, n, rows, width, neuron);
    }
    const float sum = add_entries<false>(0.0f, inputs.staged, 0, n_staged, rows, width, neuron);
    return add_entries<false>(sum, inputs.entries, n_staged, n, rows, width, neuron);
}

__device__ __forceinline__ float gather(const Outputs& from, const float* rows, unsigned width,
                                        unsigned neuron) {
    if (from.spikes) return add_spikes(from.spikes, from.n, rows, width, neuron);
    float sum = 0.0f;
#pragma unroll 4
    for (unsigned k = 0; k < from.n; ++k)
        sum = sum + from.values[k] * rows[k * width + neuron];
    return sum;
}

// From the kept weights where the matrix is among them, else from the device's memory.
__device__ __forceinline__ float project(const Outputs& from, const float* weights, unsigned at,
                                         const float* kept, unsigned kept_at, unsigned width,
                                         unsigned neuron) {
    if (kept && kept_at != NONE) return gather(from, kept + kept_at, width, neuron);
    return gather(from, weights + at, width, neuron);
}

// Rows are whole lines of 16 floats, and both memories start on 16 bytes.
__device__ __forceinline__ void keep(float* kept, unsigned kept_at, const float* weights,
                                     unsigned at, unsigned n) {
    if (kept_at == NONE) return;
    const float4* from = (const float4*)(weights + at);
    float4* to = (float4*)(kept + kept_at);
#pragma unroll 1
    for (unsigned k = threadIdx.x; k < n / 4; k += BATCH * blockDim.x) {
        float4 weights[BATCH];
#pragma unroll
        for (unsigned j = 0; j < BATCH; ++j)
            if (k + j * blockDim.x < n / 4) weights[j] = from[k + j * blockDim.x];
#pragma unroll
        for (unsigned j = 0; j < BATCH; ++j)
            if (k + j * blockDim.x < n / 4) to[k + j * blockDim.x] = weights[j];
    }
}

// Lists a layer's spikes out of their bits: each neuron that fired finds its place, the last one how
// many there are.
__device__ __forceinline__ void list_spikes(const unsigned* bits, unsigned neurons,
                                            unsigned short* list, unsigned* count) {
    for (unsigned n = threadIdx.x; n < neurons; n += blockDim.x) {
        const unsigned word = bits[n / 32], fired = word >> n % 32 & 1u;
        if (!fired && n + 1 != neurons) continue;
        unsigned place = (unsigned)__popc((int)(word & ((1u << n % 32) - 1u)));
#pragma unroll 4
        for (unsigned k = 0; k < n / 32; ++k) place += (unsigned)__popc((int)bits[k]);
        if (fired) list[place] = (unsigned short)n;
        if (n + 1 == neurons) *count = place + fired;
    }
}

// Those of this window for the layer above, those of the last one for the layer itself.
__device__ __forceinline__ Outputs outputs_of(const Layer* chain, unsigned l,
                                              const unsigned short* lists, const unsigned* counts,
                                              const float* row) {
    const Layer& layer = chain[l];
    if (layer.spikes) return {lists + 32 * layer.words, nullptr, counts[l]};
    return {nullptr, row + layer.output, layer.neurons};
}

__device__ __forceinline__ Step step_at(const unsigned* steps, unsigned k, unsigned end) {
    Step step = {0, 0};
    if (k < end) step = {steps[2 * k], steps[2 * k + 1]};
    return step;
}

// This thread's word of a window's first entries.
__device__ __forceinline__ unsigned word_of(const unsigned* entries, unsigned from, unsigned end,
                                            unsigned entry_words) {
    const bool there = from < end && threadIdx.x < (end - from) * entry_words;
    return there ? entries[from * entry_words + threadIdx.x] : 0;
}

// Shared memory, in words: layers, sums [widest recurrent dense layer], bits of spikes [2, n_words],
// how many each layer fired, their lists [16, n_words], a window's first entries [threads], kept
// weights from the next 16 bytes on. Plan, in words: runs (slot, end of its steps), steps (row of out
// and RESET, end of its entries), entries; runs and steps begin where the one before ends.
extern "C" __global__ void __launch_bounds__(1024, 1)
rollout(const float* __restrict__ weights, float* state, const unsigned* __restrict__ layers,
        const unsigned* __restrict__ plan, float* out, float* trace, float* saved,
        unsigned n_layers, unsigned row_len, unsigned saved_len, unsigned n_words, unsigned n_sums,
        unsigned n_runs, unsigned n_steps, unsigned wide, unsigned keeps) {
    extern __shared__ __align__(16) float shared[];
    const unsigned thread = threadIdx.x, n_threads = blockDim.x;
    const unsigned layer_words = n_layers * (sizeof(Layer) / sizeof(float));
    const Layer* chain = (const Layer*)shared;
    float* sums = shared + layer_words;
    unsigned* bits = (unsigned*)(sums + n_sums);
    unsigned* counts = bits + 2 * n_words;
    unsigned short* lists = (unsigned short*)(counts + n_layers);
    unsigned* staged = counts + n_layers + 16 * n_words;
    const unsigned working = layer_words + n_sums + 18 * n_words + n_layers + n_threads;
    float* kept = keeps ? shared + (working + 3) / 4 * 4 : nullptr;
    const unsigned* steps = plan + 2 * n_runs;
    const unsigned* entries = steps + 2 * n_steps;
    const unsigned entry_words = wide ? 2 : 1;

    for (unsigned k = thread; k < layer_words; k += n_threads) ((unsigned*)shared)[k] = layers[k];
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
        float* row = state + (size_t)plan[2 * run] * row_len;
        const unsigned first = run ? plan[2 * run - 1] : 0;
        const unsigned end = plan[2 * run + 1];
        unsigned from = first ? steps[2 * first - 1] : 0;
        // A window's words are asked for while windows before it are stepped.
        Step step = step_at(steps, first, end), next = step_at(steps, first + 1, end);
        staged[thread] = word_of(entries, from, step.end, entry_words);
        for (unsigned k = thread; k < 2 * n_words; k += n_threads) bits[k] = 0;
        __syncthreads();
        for (unsigned l = 0; l < n_layers; ++l) {
            const Layer& layer = chain[l];
            if (!layer.spikes) continue;
            for (unsigned n = thread; n < layer.neurons; n += n_threads)
                if (row[layer.output + n] != 0.0f)
                    atomicOr(&bits[layer.words + n / 32], 1u << n % 32);
        }
        __syncthreads();
        for (unsigned l = 0; l < n_layers; ++l) {
            const Layer& layer = chain[l];
            if (layer.spikes)
                list_spikes(bits + layer.words, layer.neurons, lists + 32 * layer.words, counts + l);
        }
        __syncthreads();
        // Two sets of bits in turn: one is set, the other, which has been listed, is emptied.
        unsigned* now = bits;
        unsigned* before = bits + n_words;
        for (unsigned k = first; k < end; ++k) {
            unsigned* const set = before;
            before = now;
            now = set;
            const unsigned place = step.word & ~RESET;
            if (step.word & RESET) {
                for (unsigned n = thread; n < row_len; n += n_threads) row[n] = 0.0f;
                for (unsigned l = thread; l < n_layers; l += n_threads) counts[l] = 0;
                __syncthreads();
            }
            const unsigned n_inputs = step.end - from, most = n_threads / entry_words;
            const Inputs inputs = {entries + from * entry_words, staged, n_inputs,
                                   n_inputs < most ? n_inputs : most, wide != 0};
            const unsigned ahead = word_of(entries, step.end, next.end, entry_words);
            from = step.end;
            step = next;
            next = step_at(steps, k + 2, end);
            for (unsigned l = 0; l < n_layers; ++l) {
                const Layer& layer = chain[l];
                const unsigned width = layer.width;
                const bool recurrent = layer.recurrent_weights != NONE;
                const Outputs own = outputs_of(chain, l, lists, counts, row);
                if (layer.spikes) {
                    for (unsigned n = thread; 32 * n < layer.neurons; n += n_threads)
                        before[layer.words + n] = 0;
                } else if (recurrent) {
                    // dense outputs change in place: all sums before any change
                    for (unsigned n = thread; n < layer.neurons; n += n_threads)
                        sums[n] = project(own, weights, layer.recurrent_weights, kept,
                                          layer.kept_recurrent, width, n);
                    __syncthreads();
                }
                for (unsigned n = thread; n < layer.neurons; n += n_threads) {
                    const float a = l ? project(outputs_of(chain, l - 1, lists, counts, row), weights,
                                                layer.input_weights, kept, layer.kept_input, width, n)
                                      : gather(inputs, weights + layer.input_weights, width, n);
                    float b = 0.0f, peak = 0.0f;
                    if (recurrent)
                        b = layer.spikes ? project(own, weights, layer.recurrent_weights, kept,
                                                   layer.kept_recurrent, width, n)
                                         : sums[n];
                    const bool fires = step_cell(layer.cell, layer.constants, a, recurrent, b,
                                                 row + layer.state + n, width, &peak);
                    if (fires) atomicOr(&now[layer.words + n / 32], 1u << n % 32);
                    if (saved && layer.saved != NONE)
                        saved[(size_t)place * saved_len + layer.saved + n] = peak;
                    if (l + 1 == n_layers)
                        out[(size_t)place * layer.neurons + n] = row[layer.output + n];
                    if (trace)
                        for (unsigned v = 0; v < layer.variables; ++v) {
                            const unsigned at = layer.state + v * width + n;
                            trace[(size_t)place * row_len + at] = row[at];
                        }
                }
                __syncthreads();
                // What was read up to here, lists and entries, may change, and is there for all again
                // from the next barrier on.
                if (layer.spikes)
                    list_spikes(now + layer.words, layer.neurons, lists + 32 * layer.words,
                                counts + l);
                if (l == 0) staged[thread] = ahead;
                if (layer.spikes || l == 0) __syncthreads();
            }
        }
    }
}
