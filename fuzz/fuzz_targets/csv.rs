//! Any bytes through the decoder of `csv`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::decode("csv", bytes));
