//! Waiting without guessing: poll until something is true, or say what it was instead.

use std::{
    thread,
    time::{Duration, Instant},
};

/// Pause between two looks, in milliseconds: short against every deadline, long against a look's own cost.
const PAUSE: Duration = Duration::from_millis(10);

/// Polls `look` until it gives `Ok`, at most for `limit`. `Err` carries what was seen instead.
///
/// # Panics
/// When the limit passes; the message names `what` and the last thing seen.
#[track_caller]
pub fn until<T>(limit: Duration, what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let start = Instant::now();
    loop {
        let seen = match look() {
            Ok(value) => return value,
            Err(seen) => seen,
        };
        assert!(start.elapsed() < limit, "waited {limit:?} for {what}; last seen: {seen}");
        thread::sleep(PAUSE);
    }
}

/// [`until`] for a condition that has nothing to show but itself.
///
/// # Panics
/// When the limit passes.
#[track_caller]
pub fn until_true(limit: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    until(limit, what, || if condition() { Ok(()) } else { Err("not yet".into()) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_the_value_as_soon_as_it_is_there() {
        let mut looks = 0;
        let value = until(Duration::from_secs(5), "three looks", || {
            looks += 1;
            if looks == 3 { Ok(looks) } else { Err(format!("{looks}")) }
        });
        assert_eq!(value, 3);
    }

    #[test]
    #[should_panic(expected = "waited 20ms for rain; last seen: sunshine")]
    fn says_what_it_waited_for_and_what_it_saw() {
        until::<()>(Duration::from_millis(20), "rain", || Err("sunshine".into()));
    }
}
