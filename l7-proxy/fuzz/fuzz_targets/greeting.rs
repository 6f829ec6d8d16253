//! The greeting of a TLS client: what is clear of its beginning stays so, and names are what they may be.

#![no_main]

use l7_proxy::tcp::greeting::{Greeting, greeting};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let whole = greeting(data);
    for length in [0, 1, 4, 5, 9, data.len() / 2, data.len().saturating_sub(1)] {
        let part = &data[..length.min(data.len())];
        match greeting(part) {
            Greeting::More => {}
            clear => assert_eq!(clear, whole, "after {length} bytes"),
        }
    }
    if let Greeting::Name(Some(name)) = whole {
        assert_eq!(name, name.to_ascii_lowercase());
    }
});
