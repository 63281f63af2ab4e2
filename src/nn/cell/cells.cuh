// The cells' equations on the GPU, numbered by their place in CELLS: the same operations in the same
// order as their slice kernels, so that every bit is the same. Constants come from Cell::constants.
#pragma once

// One neuron, one window: `a` is the sum of its inputs, `b` of its recurrent ones. Variables stand
// `width` apart. Returns whether it fires; `peak` is the voltage before the reset.
__device__ __forceinline__ bool step_cell(unsigned cell, const float* constants, float a,
                                          bool recurrent, float b, float* variables, unsigned width,
                                          float* peak) {
    const float membrane_step = constants[0], synapse_step = constants[1], v_leak = constants[2];
    switch (cell) {
    case 0: {  // lif: z, v, i
        const float v_reset = constants[3], v_th = constants[4];
        float jump = variables[2 * width] + a;
        if (recurrent) jump = jump + b;
        float v = variables[width];
        v = v + membrane_step * ((v_leak - v) + jump);
        const bool fires = v - v_th > 0.0f;
        variables[0] = fires ? 1.0f : 0.0f;
        variables[width] = fires ? v_reset : v;
        variables[2 * width] = jump - synapse_step * jump;
        *peak = v;
        return fires;
    }
    case 1: {  // li: v, i
        float jump = variables[width] + a;
        if (recurrent) jump = jump + b;
        const float v = variables[0];
        variables[0] = v + membrane_step * ((v_leak - v) + jump);
        variables[width] = jump - synapse_step * jump;
        return false;
    }
    default:  // linear: y
        variables[0] = recurrent ? a + b : a;
        return false;
    }
}

// One neuron's gradient, one window: `carried` holds the loss's gradient with respect to the
// variables after the window, then with respect to those before it. Returns that of the sum of
// inputs. Through the reset none flows.
__device__ __forceinline__ float back_cell(unsigned cell, const float* constants, float peak,
                                           float* carried, unsigned width) {
    const float membrane_step = constants[0], synapse_step = constants[1];
    switch (cell) {
    case 0: {  // lif: z, v, i
        const float i = carried[2 * width];
        const float above = peak - constants[4];
        const float steepness = constants[5] * fabsf(above) + 1.0f;
        const float held = above > 0.0f ? 0.0f : carried[width];
        const float v = carried[0] / (steepness * steepness) + held;
        const float jump = membrane_step * v + (i - synapse_step * i);
        carried[0] = 0.0f;
        carried[width] = v - membrane_step * v;
        carried[2 * width] = jump;
        return jump;
    }
    case 1: {  // li: v, i
        const float v = carried[0], i = carried[width];
        const float jump = membrane_step * v + (i - synapse_step * i);
        carried[0] = v - membrane_step * v;
        carried[width] = jump;
        return jump;
    }
    default: {  // linear: y
        const float jump = carried[0];
        carried[0] = 0.0f;
        return jump;
    }
    }
}
