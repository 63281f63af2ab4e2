//! Any bytes through the decoder of `faery-t64`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::decode("faery-t64", bytes));
