#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ketch_fuzz::targets::nodes::run(bytes));
