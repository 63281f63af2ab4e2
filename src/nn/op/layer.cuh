// A layer as packed.rs packs it, for every kernel.
#pragma once

#define NONE 0xffffffffu

struct Layer {
    unsigned cell, spikes, inputs, neurons, width;
    unsigned input_weights, recurrent_weights;  // where in the weights, or NONE
    unsigned kept_input, kept_recurrent;        // where in the kept weights, or NONE
    unsigned variables, state, output;          // how many, and where in a stream's row
    unsigned words;                             // where in a set of spikes
    unsigned saved;                             // where in a window's saved row, or NONE
    unsigned back_input, back_recurrent;        // where in the weights as stored, or NONE
    unsigned jumps;                             // width of all layers below
    float constants[6];
};
