//! A value that knows how often it was changed.

use std::ops::Deref;

/// The value. It is changed through [`Self::edit`] only, so what was made of it is as good as new while [`Self::edits`] is
/// the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Edited<T> {
    value: T,
    edits: u64,
}

impl<T> Edited<T> {
    /// To change it.
    pub(crate) fn edit(&mut self) -> &mut T {
        self.edits += 1;
        &mut self.value
    }

    /// How often it was to be changed.
    pub(crate) fn edits(&self) -> u64 {
        self.edits
    }
}

impl<T: PartialEq> Edited<T> {
    /// Puts another value in its place, unless it is the same.
    pub(crate) fn become_like(&mut self, value: T) {
        if self.value != value {
            *self.edit() = value;
        }
    }
}

impl<T> From<T> for Edited<T> {
    fn from(value: T) -> Self {
        Self { value, edits: 0 }
    }
}

impl<T> Deref for Edited<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}
