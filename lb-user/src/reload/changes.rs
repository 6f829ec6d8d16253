//! What is different between two configuration files, in the words of the files: keys and values as they are written.
//! Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::{Written, secrets};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// What it is about, e.g. `vip.shop.port`, `pool.web.servers.web3`.
    pub key: String,
    /// What is written now; none if it is not there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub old: Option<String>,
    /// What is to be; none if it is to go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub new: Option<String>,
}

impl fmt::Display for Change {
    /// As in `vip.shop.port: 80 -> "80,443"`; what is new has a plus, what goes a minus.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { key, old, new } = self;
        match (old, new) {
            (Some(old), Some(new)) => write!(f, "~ {key}: {old} -> {new}"),
            (Some(old), None) => write!(f, "- {key}: {old}"),
            (None, Some(new)) => write!(f, "+ {key}: {new}"),
            (None, None) => f.write_str(key),
        }
    }
}

/// The differences between what two files say, sorted by key.
#[must_use]
pub fn changes(old: &Written, new: &Written) -> Vec<Change> {
    let (old, new) = old.apart(new);
    of_tables(&old, &new)
}

/// The same of two texts. One that is no TOML says nothing.
#[must_use]
pub fn between(old: &str, new: &str) -> Vec<Change> {
    of_tables(&old.parse().unwrap_or_default(), &new.parse().unwrap_or_default())
}

fn of_tables(old: &Table, new: &Table) -> Vec<Change> {
    let mut changes = Vec::new();
    compare_entries("", &entries(old), &entries(new), &mut changes);
    changes
}

/// What stands where names do, in their order.
type Entries<'a> = BTreeMap<&'a str, Entry<'a>>;

/// What a name stands for.
#[derive(Clone, Copy, PartialEq)]
enum Entry<'a> {
    /// A value.
    Value(&'a Value),
    /// A table in a list, which is known by its `name`.
    Listed(&'a Table),
}

fn compare_entries(path: &str, old: &Entries<'_>, new: &Entries<'_>, changes: &mut Vec<Change>) {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let (old, new) = (old.get(key).copied(), new.get(key).copied());
        // Mostly they are, so nothing is made of them.
        if old != new {
            let path = if path.is_empty() { (*key).to_owned() } else { format!("{path}.{key}") };
            compare(path, old, new, changes);
        }
    }
}

fn compare(path: String, old: Option<Entry<'_>>, new: Option<Entry<'_>>, changes: &mut Vec<Change>) {
    match (old.map(named), new.map(named)) {
        // A VIP or a pool that comes or goes is one thing; so is a server.
        (Some(Some(before)), Some(Some(after))) => {
            compare_entries(&path, &before, &after, changes);
            if let (Some(old), Some(new)) = (old.and_then(order), new.and_then(order))
                && old != new
                && before.len() == after.len()
                && before.keys().eq(after.keys())
            {
                changes.push(Change { key: format!("{path} (order)"), old: Some(old), new: Some(new) });
            }
        }
        (Some(Some(all)), None) if is_group(&path) => compare_entries(&path, &all, &Entries::new(), changes),
        (None, Some(Some(all))) if is_group(&path) => compare_entries(&path, &Entries::new(), &all, changes),
        _ => {
            // What is told here stands in logs.
            let shown = |entry: Entry<'_>| {
                let hidden = || Value::from(secrets::HIDDEN);
                let told = |value: &Value| {
                    if secrets::is_secret(&path) { hidden() } else { secrets::without(value) }.to_string()
                };
                match entry {
                    Entry::Value(value) => told(value),
                    Entry::Listed(table) => told(&Value::Table(without_name(table))),
                }
            };
            let (old, new) = (old.map(shown), new.map(shown));
            changes.push(Change { key: path, old, new });
        }
    }
}

fn without_name(table: &Table) -> Table {
    let others = table.iter().filter(|(key, _)| *key != "name");
    others.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The names in a list, in its order, which some algorithms go by.
fn order(entry: Entry<'_>) -> Option<String> {
    let Entry::Value(value) = entry else { return None };
    let names = value.as_array()?.iter().map(|entry| entry.get("name")?.as_str());
    Some(names.collect::<Option<Vec<_>>>()?.join(", "))
}

/// Whether it only holds things that have names.
fn is_group(path: &str) -> bool {
    matches!(path, "vip" | "pool")
}

/// What is in an entry by name, if it has names: in a table, or in a list of tables that each have one.
fn named(entry: Entry<'_>) -> Option<Entries<'_>> {
    match entry {
        Entry::Listed(table) => {
            let mut all = entries(table);
            all.remove("name");
            Some(all)
        }
        Entry::Value(Value::Table(table)) => Some(entries(table)),
        Entry::Value(Value::Array(list)) if !list.is_empty() => list
            .iter()
            .map(|entry| {
                let table = entry.as_table()?;
                Some((table.get("name")?.as_str()?, Entry::Listed(table)))
            })
            .collect(),
        Entry::Value(_) => None,
    }
}

fn entries(table: &Table) -> Entries<'_> {
    table.iter().map(|(key, value)| (key.as_str(), Entry::Value(value))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const OLD: &str = r#"
        [health]
        interval = "2s"
        [pool.web]
        servers = [{ name = "a", address = "10.0.0.1" }, { name = "b", address = "10.0.0.2", weight = 50 }]
        [vip.shop]
        address = "192.0.2.1"
        port = 80
        pool = "web"
        [vip.old]
        port = 1
    "#;

    fn changes(old: &str, new: &str) -> Vec<Change> {
        super::between(old, new)
    }

    fn told(new: &str) -> Vec<String> {
        changes(OLD, new).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn differences_are_told_in_the_words_of_the_file() {
        let new = OLD
            .replace("port = 80", "port = \"80,443\"\nmode = \"dr\"")
            .replace("\"2s\"", "\"1s\"")
            .replace(", weight = 50", "")
            .replace("{ name = \"a\", address = \"10.0.0.1\" }", "{ name = \"c\", address = \"10.0.0.3\" }")
            .replace("[vip.old]", "[vip.new]");
        assert_eq!(
            told(&new),
            [
                "~ health.interval: \"2s\" -> \"1s\"",
                "- pool.web.servers.a: { address = \"10.0.0.1\" }",
                "- pool.web.servers.b.weight: 50",
                "+ pool.web.servers.c: { address = \"10.0.0.3\" }",
                "+ vip.new: { port = 1 }",
                "- vip.old: { port = 1 }",
                "+ vip.shop.mode: \"dr\"",
                "~ vip.shop.port: 80 -> \"80,443\"",
            ]
        );
    }

    #[test]
    fn comments_and_style_are_no_differences_but_the_order_of_servers_is() {
        let other = r#"
            # The same.
            health.interval = '2s'
            [vip.old]
            port = 0x1
            [vip.shop]
            port = 80
            pool = "web"
            address = "192.0.2.1"
            [[pool.web.servers]]
            name = "b"
            address = "10.0.0.2"
            weight = 50
            [[pool.web.servers]]
            name = "a"
            address = "10.0.0.1"
        "#;
        assert_eq!(told(other), ["~ pool.web.servers (order): a, b -> b, a"]);
        assert_eq!(told(OLD), Vec::<String>::new());
    }

    #[test]
    fn that_a_secret_is_another_is_told_and_the_secret_is_not() {
        let file =
            |password: &str| format!("[vip.v]\nhealth = {{ check = \"redis\", password = \"{password}\" }}");
        let one = &changes(&file("one"), &file("two"))[0].to_string();
        assert_eq!(one, "~ vip.v.health.password: \"(hidden)\" -> \"(hidden)\"");
        let all = &changes("", &file("one"))[0].to_string();
        assert!(all.contains("(hidden)") && !all.contains("one"), "{all}");
    }

    #[test]
    fn everything_may_come_or_go_at_once() {
        let all = changes("", OLD);
        let keys: Vec<_> = all.iter().map(|change| change.key.as_str()).collect();
        assert_eq!(keys, ["health", "pool.web", "vip.old", "vip.shop"]);
        assert!(all.iter().all(|change| change.old.is_none()));
        assert_eq!(changes(OLD, "").len(), 4);
    }
}
