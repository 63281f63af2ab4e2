//! Any bytes through the decoder of `aedat3`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::decode("aedat3", bytes));
