//! Any bytes through the decoder of `aedat2`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::decode("aedat2", bytes));
