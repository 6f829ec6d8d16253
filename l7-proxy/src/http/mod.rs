//! One request: what it asks for, what becomes of it, and how it and its answer are passed on. Which HTTP the
//! client speaks is the matter of [`crate::front`].

mod answer;
mod client;
mod decide;
mod exchange;
mod handshake;
mod intent;
mod over2;
mod reach;
mod request;
mod serve;
mod side;

pub use answer::{From, Lines};
pub use client::Client;
pub use decide::{Decision, decide};
pub use exchange::{End, Exchange, Failure, Told};
pub(crate) use exchange::{MOST_INFORMATIONAL, chunk_begin, may_trail, put_trailers, status_line};
pub use intent::{Intent, expectation, keeps_alive};
pub use reach::{Line, Reached, Try, Unreached, Which, reach};
pub use request::{find_cookie, hops_left, write_request};
pub use serve::{Job, Outcome, Report, serve};
pub use side::{Side, SideFault};

use std::{
    cell::{Cell, RefCell},
    time::SystemTime,
};

use crate::wire::Version;

/// What `Via` says of a message that came with this version (RFC 9110 §7.6.3).
#[must_use]
pub fn via_of(version: Version) -> &'static [u8] {
    match version {
        Version::V1_0 => b"1.0 l7-proxy",
        Version::V1_1 => b"1.1 l7-proxy",
        Version::V2 => b"2 l7-proxy",
    }
}

/// The current date as `Date` has it, made once a second.
pub fn with_date<T>(use_it: impl FnOnce(&[u8]) -> T) -> T {
    thread_local! {
        static DATE: RefCell<(u64, String)> = const { RefCell::new((0, String::new())) };
    }
    DATE.with_borrow_mut(|(made, text)| {
        let now = crate::server::now();
        if now - *made >= 500 {
            *text = httpdate::fmt_http_date(SystemTime::now());
            *made = now;
        }
        use_it(text.as_bytes())
    })
}

/// Thirty-two digits that no other request has: random ones of this worker, then a count.
#[must_use]
pub fn request_id() -> [u8; 32] {
    thread_local! {
        static COUNT: Cell<(u64, u64)> = const { Cell::new((0, 0)) };
    }
    let (seed, count) = COUNT.get();
    let seed = if seed == 0 {
        let mut bytes = [0_u8; 8];
        // Without randomness the clock has to do: the name need not be secret, only unlikely to be another's.
        if aws_lc_rs::rand::fill(&mut bytes).is_err() {
            bytes = (SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(1, |t| t.as_nanos())
                as u64)
                .to_ne_bytes();
        }
        u64::from_ne_bytes(bytes) | 1
    } else {
        seed
    };
    COUNT.set((seed, count.wrapping_add(1)));
    let mut text = [0_u8; 32];
    let number = (u128::from(seed) << 64) | u128::from(count);
    for (at, digit) in text.iter_mut().enumerate() {
        let nibble = (number >> (124 - 4 * at)) & 15;
        *digit = b"0123456789abcdef"[nibble as usize];
    }
    text
}
