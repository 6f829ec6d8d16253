//! What is wrong with a specification.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One thing that is wrong: where, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    place: String,
    message: String,
}

impl Problem {
    /// `place` as a path of keys (`service web: tls.certificates[1]`), empty where it is the whole.
    #[must_use]
    pub fn new(place: impl Into<String>, message: impl Into<String>) -> Self {
        Self { place: place.into(), message: message.into() }
    }

    /// The same, found within `outer`.
    #[must_use]
    pub fn within(self, outer: &str) -> Self {
        let place = if self.place.is_empty() { outer.to_owned() } else { format!("{outer}: {}", self.place) };
        Self { place, ..self }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.place.is_empty() {
            f.write_str(&self.message)
        } else {
            write!(f, "{}: {}", self.place, self.message)
        }
    }
}

impl std::error::Error for Problem {}
