// Gradients of a batch that rollout.cu stepped: back through time, then those of the weights, then a
// step of Adam, and the weights as the next way back wants them. Rows are those of bptt.rs: one for
// each window of each sample, and a row of zeros after each sample. Sums go in the CPU's order.
#ifndef __CUDACC__
#include "cuda_host.h"
#endif
#include "../cell/cells.cuh"
#include "layer.cuh"

// A block takes a sample, threads are neurons. `samples` holds each sample's first row and number of
// windows; `back` the weights as stored, [neurons, padded inputs]; `gradient` the loss's with respect
// to the outputs, [rows, outputs]; `carried` [samples, row_len], zero at the start, and `below`
// [samples, widest], written before it is read, are working memory; `jumps` is filled, for each layer
// [rows, width].
extern "C" __global__ void __launch_bounds__(1024, 1)
back_through_time(const float* __restrict__ back, const unsigned* __restrict__ layers,
                  const unsigned* __restrict__ samples, const float* __restrict__ saved,
                  const float* __restrict__ gradient, float* carried, float* below, float* jumps,
                  unsigned n_layers, unsigned row_len, unsigned saved_len, unsigned widest,
                  unsigned n_rows) {
    const Layer* chain = (const Layer*)layers;
    const unsigned thread = threadIdx.x, n_threads = blockDim.x, sample = blockIdx.x;
    const unsigned first = samples[2 * (size_t)sample], windows = samples[2 * (size_t)sample + 1];
    float* own = carried + (size_t)sample * row_len;
    float* above = below + (size_t)sample * widest;
    for (unsigned t = windows; t-- > 0;) {
        const size_t row = first + t;
        for (unsigned l = n_layers; l-- > 0;) {
            const Layer& layer = chain[l];
            const unsigned width = layer.width;
            float* jump = jumps + (size_t)layer.jumps * n_rows + row * width;
            for (unsigned n = thread; n < layer.neurons; n += n_threads) {
                own[layer.output + n] += l + 1 == n_layers ? gradient[row * layer.neurons + n] : above[n];
                const float peak = layer.saved == NONE ? 0.0f : saved[row * saved_len + layer.saved + n];
                jump[n] = back_cell(layer.cell, layer.constants, peak, own + layer.state + n, width);
            }
            __syncthreads();
            // What a neuron adds up here, the same thread takes up: no barrier.
            if (l > 0) {
                const unsigned pitch = (layer.inputs + 15) / 16 * 16;
                for (unsigned n = thread; n < layer.inputs; n += n_threads) {
                    float sum = 0.0f;
                    for (unsigned k = 0; k < layer.neurons; ++k)
                        sum = sum + jump[k] * back[layer.back_input + (size_t)k * pitch + n];
                    above[n] = sum;
                }
            }
            if (layer.back_recurrent != NONE && t > 0) {
                for (unsigned n = thread; n < layer.neurons; n += n_threads) {
                    float sum = 0.0f;
                    for (unsigned k = 0; k < layer.neurons; ++k)
                        sum = sum + jump[k] * back[layer.back_recurrent + (size_t)k * width + n];
                    own[layer.output + n] += sum;
                }
            }
        }
    }
}

// A block takes a row of weights, from one input, threads are neurons: the sum of jumps over the rows
// in which that input was active. `trace` holds every variable, [rows, row_len]; `ends` and `entries`
// the batch's frames by address: rows ascending, and counts. Layer and side are given; grid is the
// side's inputs.
extern "C" __global__ void __launch_bounds__(1024, 1)
weight_gradients(const unsigned* __restrict__ layers, const float* __restrict__ trace,
                 const float* __restrict__ jumps, const unsigned* __restrict__ ends,
                 const unsigned* __restrict__ entries, float* gradients, unsigned l,
                 unsigned recurrent, unsigned autapses, unsigned row_len, unsigned n_rows) {
    const Layer* chain = (const Layer*)layers;
    const Layer& layer = chain[l];
    const unsigned input = blockIdx.x, width = layer.width;
    // A spike comes back in the window after it.
    const float* jump = jumps + (size_t)layer.jumps * n_rows + (recurrent ? width : 0);
    const unsigned at = recurrent ? layer.recurrent_weights : layer.input_weights;
    for (unsigned n = threadIdx.x; n < width; n += blockDim.x) {
        float sum = 0.0f;
        if (l == 0 && !recurrent) {
            for (unsigned k = ends[input]; k < ends[input + 1]; ++k)
                sum = sum + (float)entries[2 * (size_t)k + 1] *
                                jump[(size_t)entries[2 * (size_t)k] * width + n];
        } else {
            const Layer& source = recurrent ? layer : chain[l - 1];
            for (unsigned row = 0; row + 1 < n_rows; ++row) {
                const float value = trace[(size_t)row * row_len + source.output + input];
                if (!source.spikes)
                    sum = sum + value * jump[(size_t)row * width + n];
                else if (value != 0.0f)
                    sum = sum + jump[(size_t)row * width + n];
            }
        }
        const bool self = recurrent && !autapses && n == input;
        gradients[at + (size_t)input * width + n] = self ? 0.0f : sum;
    }
}

// How often each layer fired: `counts` has a number for each, zero at the start. Blocks share the rows,
// threads are neurons; a sum of whole numbers knows no order.
extern "C" __global__ void __launch_bounds__(1024, 1)
count_spikes(const unsigned* __restrict__ layers, const float* __restrict__ trace, unsigned* counts,
             unsigned n_layers, unsigned row_len, unsigned n_rows) {
    const Layer* chain = (const Layer*)layers;
    for (unsigned l = 0; l < n_layers; ++l) {
        const Layer& layer = chain[l];
        if (!layer.spikes) continue;
        unsigned count = 0;
        for (unsigned row = blockIdx.x; row < n_rows; row += gridDim.x)
            for (unsigned n = threadIdx.x; n < layer.neurons; n += blockDim.x)
                count += trace[(size_t)row * row_len + layer.output + n] != 0.0f;
        if (count) atomicAdd(&counts[l], count);
    }
}

// A step of Adam; threads are weights. The last numbers are those of AdamStep, in its order.
extern "C" __global__ void __launch_bounds__(1024, 1)
adam(float* weights, const float* __restrict__ gradients, float* means, float* squares,
     unsigned n_weights, float mean_share, float square_decay, float square_share,
     float root_correction, float epsilon, float step_size, float weight_decay,
     float gradient_scale) {
    for (unsigned k = blockIdx.x * blockDim.x + threadIdx.x; k < n_weights;
         k += gridDim.x * blockDim.x) {
        const float weight = weights[k];
        const float gradient = gradients[k] * gradient_scale + weight * weight_decay;
        const float mean = means[k] + (gradient - means[k]) * mean_share;
        const float square = squares[k] * square_decay + gradient * gradient * square_share;
        const float root = sqrtf(square) / root_correction + epsilon;
        weights[k] = weight - step_size * (mean / root);
        means[k] = mean;
        squares[k] = square;
    }
}

// A matrix of weights as it is stored in a model, [neurons, padded inputs]: a block takes an input,
// threads are neurons. Layer and side are given; grid is the side's inputs.
extern "C" __global__ void __launch_bounds__(1024, 1)
store_weights(const float* __restrict__ weights, const unsigned* __restrict__ layers, float* back,
              unsigned l, unsigned recurrent) {
    const Layer& layer = ((const Layer*)layers)[l];
    const unsigned inputs = recurrent ? layer.neurons : layer.inputs;
    const unsigned from = recurrent ? layer.recurrent_weights : layer.input_weights;
    const unsigned to = recurrent ? layer.back_recurrent : layer.back_input;
    const unsigned input = blockIdx.x, pitch = (inputs + 15) / 16 * 16;
    for (unsigned n = threadIdx.x; n < layer.neurons; n += blockDim.x)
        back[to + (size_t)n * pitch + input] = weights[from + (size_t)input * layer.width + n];
}
