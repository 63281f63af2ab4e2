//! Any bytes through the decoder of `npy`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::decode("npy", bytes));
