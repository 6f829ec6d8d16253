//! What is said about keys that a table should have or should not have.

use toml::de::DeValue;

use super::{Table, plain};
use crate::config::{
    raw::TOP_LEVEL_KEYS,
    words::{nearest, quote},
};

/// Where keys of the top level belong. In TOML they cannot follow a table.
const OF_TOP_LEVEL: &str = "it belongs to the top of the file, before the first [table]";

impl Table<'_, '_> {
    /// Keys asked for so far that unknown keys of this table were probably meant to be: reported as misspelt
    /// when the reading ends, so nobody may complain that they are missing.
    pub(in crate::config) fn misspelt(&self) -> Vec<&'static str> {
        let mut misspelt = Vec::new();
        for (key, value) in self.entries.iter().filter(|(key, _)| !self.asked.contains(&&**key.get_ref())) {
            match nearest(key.get_ref(), self.asked.iter().copied()) {
                Some(near) => misspelt.push(near),
                // [vip.www.example]: whatever is needed is probably there.
                None if self.named && value.get_ref().is_table() => misspelt.extend(&self.asked),
                None => {}
            }
        }
        misspelt
    }

    pub(super) fn report_missing_keys(&self) {
        let misspelt = self.misspelt();
        for (key, message) in &self.missing {
            if !misspelt.contains(key) {
                self.report.error(self.at, message.as_str());
            }
        }
    }

    /// Where a key belongs that is right in another table.
    fn place_of(&self, key: &str) -> Option<&'static str> {
        let here = self.elsewhere.iter().find(|(known, _)| *known == key).map(|(_, place)| *place);
        let top_level = !self.path.is_empty() && TOP_LEVEL_KEYS.contains(&key);
        here.or(top_level.then_some(OF_TOP_LEVEL))
    }

    pub(super) fn report_unknown_keys(&self) {
        if self.open {
            return;
        }
        for (key, at, _, value) in self.in_file_order() {
            if self.asked.contains(&key) {
                continue;
            }
            let table = matches!(value, DeValue::Table(_) | DeValue::Array(_)) && self.path.is_empty();
            let unknown = if table {
                format!("unknown table [{}]", plain(key))
            } else if self.path.is_empty() {
                format!("unknown key {} at the top level", quote(key))
            } else {
                format!("unknown key {} in {}", quote(key), self.label())
            };
            let hint = match (self.place_of(key), nearest(key, self.asked.iter().copied())) {
                (Some(place), _) => place.into(),
                (None, Some(near)) if table => format!("did you mean [{near}]?"),
                (None, Some(near)) => format!("did you mean {near:?}?"),
                (None, None) if self.named && matches!(value, DeValue::Table(_)) => {
                    "a name with dots in it needs quotes, as in [vip.\"www.example.com\"]".into()
                }
                (None, None) => format!("the keys are {}", self.asked.join(", ")),
            };
            self.report.error(at, format!("{unknown}; {hint}"));
        }
    }
}
