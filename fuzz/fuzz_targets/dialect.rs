#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| live_likes_fuzz::dialect(bytes));
