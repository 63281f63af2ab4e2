//! Any bytes through the probe, and on through the decoder that it names.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::probe(bytes));
