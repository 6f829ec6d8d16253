//! How records of a former program are read by one that lays out its own differently. Pure.

use lb_common::abi::layout::Field;
use serde::{Deserialize, Serialize};

/// Where the fields of a record lie: name, bytes before it, bytes of it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout(Vec<(String, usize, usize)>);

impl From<&[Field]> for Layout {
    fn from(fields: &[Field]) -> Self {
        Self(fields.iter().map(|field| (field.name.to_owned(), field.offset, field.size)).collect())
    }
}

impl Layout {
    /// Where a field lies that has so many bytes.
    #[must_use]
    pub fn offset(&self, name: &str, size: usize) -> Option<usize> {
        let field = self.0.iter().find(|(other, _, bytes)| other == name && *bytes == size);
        field.map(|(_, offset, _)| *offset)
    }
}

/// What becomes of a record: which bytes go where. All others become zero, which every new field can begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Translation(Vec<Move>);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    from: usize,
    to: usize,
    size: usize,
}

impl Translation {
    /// From one layout to another; `None` between equal ones, where nothing is to be done.
    ///
    /// # Errors
    /// The field that cannot be translated, for it is as long as another number.
    pub fn between(old: &Layout, new: &Layout) -> Result<Option<Self>, String> {
        if old == new {
            return Ok(None);
        }
        let mut moves = Vec::new();
        for (name, to, size) in &new.0 {
            match old.0.iter().find(|(other, ..)| other == name) {
                Some((_, from, bytes)) if bytes == size => {
                    moves.push(Move { from: *from, to: *to, size: *size });
                }
                Some((_, _, bytes)) => return Err(format!("{name} had {bytes} bytes, and has {size} here")),
                None => {}
            }
        }
        Ok(Some(Self(moves)))
    }

    /// A record as it is to be, `length` bytes long.
    ///
    /// # Errors
    /// When a field lies beyond either record: the layout that was told is not that of the record.
    pub fn of(&self, old: &[u8], length: usize) -> Result<Vec<u8>, String> {
        let mut new = vec![0; length];
        for &Move { from, to, size } in &self.0 {
            let beyond = || format!("a record of {} bytes has none at {from}", old.len());
            let field = from.checked_add(size).and_then(|end| old.get(from..end)).ok_or_else(beyond)?;
            let room = to.checked_add(size).and_then(|end| new.get_mut(to..end)).ok_or_else(beyond)?;
            room.copy_from_slice(field);
        }
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use lb_common::abi::layout::{FLOW4, FLOW6};

    use super::*;

    fn layout(fields: &[(&str, usize, usize)]) -> Layout {
        Layout(fields.iter().map(|(name, offset, size)| ((*name).to_owned(), *offset, *size)).collect())
    }

    #[test]
    fn fields_are_found_by_name_and_new_ones_begin_as_zero() {
        let old = layout(&[("client", 0, 4), ("port", 4, 2), ("gone", 6, 2)]);
        let new = layout(&[("opened", 0, 4), ("port", 4, 2), ("client", 8, 4)]);
        let translation = Translation::between(&old, &new).unwrap().unwrap();
        let record = [10, 0, 0, 1, 0xb8, 0x22, 7, 7, 9, 9, 9, 9, 9, 9, 9, 9];
        assert_eq!(
            translation.of(&record, 16).unwrap(),
            [0, 0, 0, 0, 0xb8, 0x22, 0, 0, 10, 0, 0, 1, 0, 0, 0, 0]
        );
        let back = Translation::between(&new, &old).unwrap().unwrap();
        let there_and_back = back.of(&translation.of(&record, 16).unwrap(), 8).unwrap();
        assert_eq!(there_and_back, [10, 0, 0, 1, 0xb8, 0x22, 0, 0], "what the other has no room for is lost");
    }

    #[test]
    fn equal_ones_need_nothing_and_strange_ones_are_refused() {
        for fields in [FLOW4, FLOW6] {
            assert_eq!(Translation::between(&fields.into(), &fields.into()), Ok(None));
        }
        let (short, long) = (layout(&[("seen", 0, 4)]), layout(&[("seen", 0, 8)]));
        assert_eq!(Translation::between(&short, &long).unwrap_err(), "seen had 4 bytes, and has 8 here");
        let beyond = layout(&[("seen", usize::MAX, 4)]);
        let translation = Translation::between(&beyond, &short).unwrap().unwrap();
        assert!(translation.of(&[0; 64], 64).unwrap_err().contains("64 bytes"));
    }

    #[test]
    fn what_is_written_down_is_read_again() {
        let text = serde_json::to_string(&Layout::from(FLOW4)).unwrap();
        assert_eq!(serde_json::from_str::<Layout>(&text).unwrap(), FLOW4.into());
        assert_eq!(Layout::from(FLOW4).offset("client", 4), Some(0));
        assert_eq!(Layout::from(FLOW4).offset("client", 16), None);
    }
}
