//! Which certificate a name gets.

use std::collections::HashMap;

/// Certificates, as numbers, by the names they are for.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    exact: HashMap<String, Vec<usize>>,
    /// By what follows the one label that may be anything, without the dot.
    below: HashMap<String, Vec<usize>>,
}

impl Names {
    /// Certificate `number` is for `name`, which may be `*.example`.
    pub(super) fn add(&mut self, name: &str, number: usize) {
        let name = name.to_ascii_lowercase();
        let list = match name.strip_prefix("*.") {
            Some(below) => self.below.entry(below.to_owned()),
            None => self.exact.entry(name),
        }
        .or_default();
        if !list.contains(&number) {
            list.push(number);
        }
    }

    /// The certificates for `name`, in lower case: those for exactly this name, else those for a wildcard of
    /// it. A wildcard is one label (RFC 9525 §6.3).
    pub(super) fn find(&self, name: &str) -> &[usize] {
        if let Some(found) = self.exact.get(name) {
            return found;
        }
        let below = name.split_once('.').filter(|(label, _)| !label.is_empty()).map(|(_, below)| below);
        below.and_then(|below| self.below.get(below)).map_or(&[], Vec::as_slice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_is_one_label() {
        // R30.
        let mut names = Names::default();
        names.add("*.Apps.example", 0);
        names.add("www.apps.example", 1);
        names.add("www.apps.example", 2);
        assert_eq!(names.find("a.apps.example"), [0]);
        assert_eq!(names.find("www.apps.example"), [1, 2]);
        for none in ["x.y.apps.example", "apps.example", ".apps.example", "example", ""] {
            assert!(names.find(none).is_empty(), "{none}");
        }
    }
}
