//! What of a configuration must not be shown to everybody who may see a log or a bundle for support: passwords, keys, and
//! what is said to servers, which may have some in it. Files that hold secrets are only named in a configuration.

use toml::{Table, Value};

/// Keys whose values are hidden, whatever they are.
const SECRET: [&str; 5] = ["password", "key", "cookie_key", "send", "headers"];

/// What is shown instead.
pub const HIDDEN: &str = "(hidden)";

/// Whether the value of a key is hidden; it may be a path, of which any part is enough.
#[must_use]
pub fn is_secret(path: &str) -> bool {
    path.split('.').any(|word| SECRET.contains(&word))
}

/// A value without the secrets in it.
#[must_use]
pub fn without(value: &Value) -> Value {
    match value {
        Value::Table(table) => Value::Table(without_of(table)),
        Value::Array(list) => Value::Array(list.iter().map(without).collect()),
        other => other.clone(),
    }
}

/// A table without them.
fn without_of(table: &Table) -> Table {
    let entry = |(key, value): (&String, &Value)| {
        let value = if is_secret(key) { Value::from(HIDDEN) } else { without(value) };
        (key.clone(), value)
    };
    table.iter().map(entry).collect()
}

/// The text of a configuration without secrets, and without comments, which nobody can know; what is no TOML is left out
/// altogether.
#[must_use]
pub fn text_without(text: &str) -> String {
    match text.parse::<Table>() {
        Ok(table) => without_of(&table).to_string(),
        Err(_) => "# It is no TOML, and left out.\n".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_hidden_wherever_they_stand_and_nothing_else_is() {
        let text = r#"
            # password = "secret-0"
            [health]
            check = "redis"
            password = "secret-1"
            password_file = "redis.pass"
            [pool.p]
            servers = [{ name = "s", address = "10.0.0.1" }]
            health = { check = "script", script = [{ send = "AUTH secret-2" }, { expect = "+OK" }] }
            [proxy]
            cookie_key = "secret-5-and-longer"
            [vip.v]
            quic = [{ server_id_length = 3, nonce_length = 4, key = "secret-3" }]
            health = { check = "http", headers = { Authorization = "secret-4" }, path = "/x" }
        "#;
        let shown = text_without(text);
        assert!(!shown.contains("secret"), "{shown}");
        assert_eq!(shown.matches(HIDDEN).count(), 5, "{shown}");
        for kept in ["redis.pass", "10.0.0.1", "+OK", "/x", "server_id_length = 3"] {
            assert!(shown.contains(kept), "{kept}: {shown}");
        }
        assert!(!text_without("password = \"secret\"\n[").contains("secret"));
    }
}
