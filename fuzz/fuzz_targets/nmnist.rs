//! Any bytes through the decoder of `nmnist`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::decode("nmnist", bytes));
