//! What is written in a configuration file: keys and values without places, to tell one file from the next.
//!
//! Of thousands of VIPs and pools mostly one is another than before, so those that are the same are shared with the file
//! before instead of being made, compared and thrown away again.

use std::{collections::BTreeMap, sync::Arc};

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

/// Tables in which every key is a name that the user chose.
const GROUPS: [&str; 2] = ["pool", "vip"];

/// Keys and values of a file.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    groups: BTreeMap<&'static str, BTreeMap<String, Arc<Value>>>,
    /// Everything else.
    others: Table,
}

impl Written {
    /// Of a document. What is the same in the file `before` is taken from there.
    pub(super) fn of(document: &DeTable<'_>, before: &Self) -> Self {
        let mut written = Self::default();
        for (key, value) in document {
            let (key, value) = (key.get_ref(), value.get_ref());
            let group = GROUPS.into_iter().find(|group| *group == key);
            match (group, value) {
                (Some(group), DeValue::Table(entries)) => {
                    let before = before.groups.get(group);
                    let entries = entries.iter().map(|(name, value)| {
                        let (name, value) = (name.get_ref(), value.get_ref());
                        let known = before.and_then(|group| group.get(&**name));
                        let known = known.filter(|known| is_same(value, known));
                        (name.to_string(), known.map_or_else(|| Arc::new(plain(value)), Arc::clone))
                    });
                    written.groups.insert(group, entries.collect());
                }
                _ => {
                    written.others.insert(key.to_string(), plain(value));
                }
            }
        }
        written
    }

    /// What is written only here, and what only in the other: the same without all VIPs and pools that are equal.
    #[must_use]
    pub fn apart(&self, other: &Self) -> (Table, Table) {
        (self.but(other), other.but(self))
    }

    fn but(&self, other: &Self) -> Table {
        let mut table = self.others.clone();
        for (group, entries) in &self.groups {
            let others = other.groups.get(group);
            let differs = |(name, value): &(&String, &Arc<Value>)| {
                let known = others.and_then(|others| others.get(*name));
                known.is_none_or(|known| !Arc::ptr_eq(known, value) && known != *value)
            };
            let entries = entries.iter().filter(differs);
            let entries = entries.map(|(name, value)| (name.clone(), Value::clone(value)));
            table.insert((*group).to_owned(), Value::Table(entries.collect()));
        }
        table
    }
}

/// Whether a value says the same as a plain one.
fn is_same(value: &DeValue<'_>, known: &Value) -> bool {
    match (value, known) {
        (DeValue::String(text), Value::String(known)) => text == known,
        (DeValue::Array(items), Value::Array(known)) => {
            let same = |(item, known): (&Spanned<DeValue<'_>>, &Value)| is_same(item.get_ref(), known);
            items.len() == known.len() && items.iter().zip(known).all(same)
        }
        (DeValue::Table(entries), Value::Table(known)) => {
            let same = |((key, value), known): ((&Spanned<_>, &Spanned<DeValue<'_>>), (&String, &Value))| {
                key.get_ref() == known.0 && is_same(value.get_ref(), known.1)
            };
            // Both are in the order of their keys.
            entries.len() == known.len() && entries.iter().zip(known).all(same)
        }
        (DeValue::Array(_) | DeValue::Table(_), _) => false,
        (scalar, known) => plain(scalar) == *known,
    }
}

/// A value without places.
fn plain(value: &DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::String(text.to_string()),
        // What does not fit is refused by whoever reads the key.
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or_else(|_| Value::String(number.to_string()), Value::Integer),
        DeValue::Float(number) => {
            number.as_str().parse().map_or_else(|_| Value::String(number.to_string()), Value::Float)
        }
        DeValue::Boolean(yes) => Value::Boolean(*yes),
        DeValue::Datetime(time) => Value::Datetime(*time),
        DeValue::Array(items) => Value::Array(items.iter().map(|item| plain(item.get_ref())).collect()),
        DeValue::Table(entries) => {
            let entries = entries.iter();
            let entries = entries.map(|(key, value)| (key.get_ref().to_string(), plain(value.get_ref())));
            Value::Table(entries.collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str, before: &Written) -> Written {
        Written::of(DeTable::parse(text).unwrap().get_ref(), before)
    }

    const TEXT: &str = r#"
        a = [1, 0x1f, -3, 1_000, 1.5, 1e3, -inf, true, "x", 'y', 1979-05-27T07:32:00Z, { b = 1, a.c = [[]] }]
        [pool.p]
        servers = [{ name = "s", address = "10.0.0.1", weight = 0b11 }, { name = "t" }]
        [[pool.q.servers]]
        name = "u"
        [vip.v]
        port = 80
    "#;

    #[test]
    fn it_says_what_a_reader_of_toml_reads() {
        let (own, none) = Written::default().apart(&written(TEXT, &Written::default()));
        assert_eq!((own, none), (Table::new(), TEXT.parse().unwrap()));
    }

    #[test]
    fn what_is_the_same_is_shared_and_only_the_rest_differs() {
        let old = written(TEXT, &Written::default());
        for (from, to) in [
            ("weight = 0b11", "weight = 4"),
            ("name = \"t\"", "name = \"w\""),
            (", { name = \"t\" }", ""),
            ("weight = 0b11", "weight = \"3\""),
            ("weight = 0b11", "port = 3"),
            ("weight = 0b11", "weight = [3]"),
        ] {
            let new = written(&TEXT.replace(from, to), &old);
            for (group, name) in [("pool", "q"), ("vip", "v")] {
                assert!(Arc::ptr_eq(&old.groups[group][name], &new.groups[group][name]), "{from} -> {to}");
            }
            let (before, after) = old.apart(&new);
            let names = |table: &Table| table["pool"].as_table().unwrap().keys().cloned().collect::<Vec<_>>();
            assert_eq!(
                (names(&before), names(&after)),
                (vec!["p".to_owned()], vec!["p".to_owned()]),
                "{from} -> {to}"
            );
            assert!(before["vip"].as_table().unwrap().is_empty());
        }
        let same = written(&TEXT.replace("0b11", "3"), &old);
        assert!(
            Arc::ptr_eq(&old.groups["pool"]["p"], &same.groups["pool"]["p"]),
            "another way to write a number"
        );
    }
}
