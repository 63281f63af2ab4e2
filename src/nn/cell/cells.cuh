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
