//! Any bytes, cut into datagrams, through every decoder of datagrams.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| dvs_stream_fuzz::datagrams(bytes));
