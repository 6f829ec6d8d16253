//! What is different between two configuration files, in the words of the files: keys and values as they are written.
//! Pure.

use std::{collections::BTreeSet, fmt};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::config::secrets;

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

/// The differences between two files, sorted by key. One that is not TOML counts as empty: it is refused elsewhere.
#[must_use]
pub fn changes(old: &str, new: &str) -> Vec<Change> {
    let read = |text: &str| text.parse::<Table>().unwrap_or_default();
    let mut changes = Vec::new();
    compare_tables("", &read(old), &read(new), &mut changes);
    changes
}

fn compare_tables(path: &str, old: &Table, new: &Table, changes: &mut Vec<Change>) {
    let keys: BTreeSet<_> = old.keys().chain(new.keys()).collect();
    for key in keys {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        compare(path, old.get(key), new.get(key), changes);
    }
}

fn compare(path: String, old: Option<&Value>, new: Option<&Value>, changes: &mut Vec<Change>) {
    if old == new {
        return;
    }
    match (old.map(named), new.map(named)) {
        // A VIP or a pool that comes or goes is one thing; so is a server.
        (Some(Some(before)), Some(Some(after))) => {
            compare_tables(&path, &before, &after, changes);
            if let (Some(old), Some(new)) = (old.and_then(order), new.and_then(order))
                && old != new
                && before.len() == after.len()
                && before.keys().eq(after.keys())
            {
                changes.push(Change { key: format!("{path} (order)"), old: Some(old), new: Some(new) });
            }
        }
        (Some(Some(all)), None) if is_group(&path) => compare_tables(&path, &all, &Table::new(), changes),
        (None, Some(Some(all))) if is_group(&path) => compare_tables(&path, &Table::new(), &all, changes),
        _ => {
            // What is told here stands in logs.
            let shown = |value: &Value| {
                let hidden = || Value::from(secrets::HIDDEN);
                if secrets::is_secret(&path) { hidden() } else { secrets::without(value) }.to_string()
            };
            let written = |value: Option<&Value>| value.map(shown);
            let (old, new) = (written(old), written(new));
            changes.push(Change { key: path, old, new });
        }
    }
}

/// The names in a list, in its order, which some algorithms go by.
fn order(value: &Value) -> Option<String> {
    let names = value.as_array()?.iter().map(|entry| entry.get("name")?.as_str());
    Some(names.collect::<Option<Vec<_>>>()?.join(", "))
}

/// Whether it only holds things that have names.
fn is_group(path: &str) -> bool {
    matches!(path, "vip" | "pool")
}

/// A value as a table, if what is in it has names: a table, or a list of tables that each have one.
fn named(value: &Value) -> Option<Table> {
    match value {
        Value::Table(table) => Some(table.clone()),
        Value::Array(list) if !list.is_empty() => list
            .iter()
            .map(|entry| {
                let mut entry = entry.as_table()?.clone();
                let Value::String(name) = entry.remove("name")? else { return None };
                Some((name, Value::Table(entry)))
            })
            .collect(),
        _ => None,
    }
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
        assert_eq!(changes(OLD, "this is not TOML").len(), 4);
    }
}
