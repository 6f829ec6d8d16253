//! A key of a table once it was read: absent, broken, or a value with its place.

use crate::config::report::Place;

/// A value with where it was written.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Located<T> {
    pub(in crate::config) value: T,
    /// Where its key starts.
    pub(in crate::config) key: Place,
    /// Where the value itself starts.
    pub(in crate::config) at: Place,
}

/// What became of a key that was asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(in crate::config) enum Field<T> {
    /// It was not written.
    #[default]
    Absent,
    /// It was written, but is wrong; that was reported. Nobody may complain again that it is missing.
    Broken,
    /// It was written.
    Set(Located<T>),
}

impl<T> Field<T> {
    /// This field if it was written in any way, else the one it inherits from.
    pub(in crate::config) fn or<'f>(&'f self, inherited: &'f Self) -> &'f Self {
        if self.is_absent() { inherited } else { self }
    }

    pub(in crate::config) fn get(&self) -> Option<&Located<T>> {
        match self {
            Self::Set(located) => Some(located),
            Self::Absent | Self::Broken => None,
        }
    }

    /// The bare value.
    pub(in crate::config) fn value(&self) -> Option<&T> {
        self.get().map(|located| &located.value)
    }

    pub(in crate::config) fn is_absent(&self) -> bool {
        matches!(self, Self::Absent)
    }

    pub(in crate::config) fn is_broken(&self) -> bool {
        matches!(self, Self::Broken)
    }

    /// Makes it known that the field is there in some wrong form.
    pub(in crate::config) fn break_if_absent(&mut self) {
        if self.is_absent() {
            *self = Self::Broken;
        }
    }

    /// The same field with another value.
    pub(in crate::config) fn map<U>(self, change: impl FnOnce(T) -> U) -> Field<U> {
        match self {
            Self::Absent => Field::Absent,
            Self::Broken => Field::Broken,
            Self::Set(Located { value, key, at }) => Field::Set(Located { value: change(value), key, at }),
        }
    }

    /// The bare value, taken out.
    pub(in crate::config) fn into_value(self) -> Option<T> {
        match self {
            Self::Set(located) => Some(located.value),
            Self::Absent | Self::Broken => None,
        }
    }

    /// `Err` where the field is broken, so that `?` ends what cannot be decided any more.
    pub(in crate::config) fn known(&self) -> Result<Option<&Located<T>>, Broken> {
        if self.is_broken() { Err(Broken) } else { Ok(self.get()) }
    }
}

impl<T> Field<Field<T>> {
    /// A table that stands for one value: the value, at the place of the table.
    pub(in crate::config) fn flatten(self) -> Field<T> {
        match self {
            Self::Absent => Field::Absent,
            Self::Set(Located { value: Field::Set(inner), key, at }) => {
                Field::Set(Located { value: inner.value, key, at })
            }
            Self::Broken | Self::Set(_) => Field::Broken,
        }
    }
}

/// Something needed was wrong, and that was reported.
#[derive(Clone, Copy, Debug)]
pub(in crate::config) struct Broken;
