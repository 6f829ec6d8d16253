//! JSON's values as YAML (1.2): blocks for lists and tables, texts in quotes where they could be taken for something else.

use serde_json::Value;

/// A document, ended by a newline.
#[must_use]
pub fn render(value: &Value) -> String {
    let mut text = String::new();
    match value {
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut text),
        Value::Object(table) if !table.is_empty() => block(value, 0, &mut text),
        _ => text = scalar(value) + "\n",
    }
    text
}

/// A list or table that is not empty, each line indented.
fn block(value: &Value, indent: usize, text: &mut String) {
    let margin = " ".repeat(indent);
    match value {
        Value::Array(list) => {
            for item in list {
                // What follows the dash stands as if it were indented by two.
                let from = text.len();
                entry(item, indent + 2, text);
                let inner = text.split_off(from);
                let inner = inner.strip_prefix('\n').unwrap_or(&inner).trim_start_matches(' ');
                *text += &format!("{margin}- {inner}");
            }
        }
        Value::Object(table) => {
            for (key, value) in table {
                *text += &format!("{margin}{}:", string(key));
                let same_line = !matches!(value, Value::Array(_) | Value::Object(_)) || is_empty(value);
                if same_line {
                    text.push(' ');
                }
                entry(value, indent + 2, text);
            }
        }
        _ => {}
    }
}

/// What stands behind a key or a dash: a scalar on the same line, or a block on the next ones.
fn entry(value: &Value, indent: usize, text: &mut String) {
    match value {
        Value::Array(_) | Value::Object(_) if !is_empty(value) => {
            text.push('\n');
            block(value, indent, text);
        }
        _ => *text += &(scalar(value) + "\n"),
    }
}

fn is_empty(value: &Value) -> bool {
    value.as_array().is_some_and(Vec::is_empty) || value.as_object().is_some_and(serde_json::Map::is_empty)
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => other.to_string(),
    }
}

/// Plain where nobody could read anything else into it, else as in JSON, which YAML reads alike.
fn string(text: &str) -> String {
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/' | ' ');
    let begins = text.starts_with(|c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '/'));
    let words = ["true", "false", "null", "yes", "no", "on", "off", "y", "n"];
    let word = words.iter().any(|word| text.eq_ignore_ascii_case(word));
    if begins && !word && !text.ends_with(' ') && text.chars().all(safe) {
        text.to_owned()
    } else {
        Value::from(text).to_string()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn lists_and_tables_are_blocks() {
        let value = json!({
            "name": "web", "empty": [], "none": null, "count": 7, "nothing": {},
            "servers": [{ "name": "s1", "ports": [80, 443] }, { "name": "s 2", "tags": { "a": true } }, "x", [1, [2]]],
        });
        let expected = "\
name: web
empty: []
none: null
count: 7
nothing: {}
servers:
  - name: s1
    ports:
      - 80
      - 443
  - name: s 2
    tags:
      a: true
  - x
  - - 1
    - - 2
";
        assert_eq!(render(&value), expected);
    }

    #[test]
    fn texts_that_mean_something_else_are_quoted() {
        for (text, expected) in [
            ("snat", "snat"),
            ("/run/lb/admin.sock", "/run/lb/admin.sock"),
            ("10.0.0.1", "\"10.0.0.1\""),
            ("80", "\"80\""),
            ("no", "\"no\""),
            ("Null", "\"Null\""),
            ("", "\"\""),
            ("- a", "\"- a\""),
            ("a: b", "\"a: b\""),
            ("a\nb", "\"a\\nb\""),
            ("2001:db8::1", "\"2001:db8::1\""),
            ("a ", "\"a \""),
            ("~", "\"~\""),
        ] {
            assert_eq!(render(&json!(text)), format!("{expected}\n"));
        }
        assert_eq!((render(&json!(null)), render(&json!([]))), ("null\n".into(), "[]\n".into()));
    }
}
