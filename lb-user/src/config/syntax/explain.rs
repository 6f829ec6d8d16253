//! The parser's errors in plain words, with the remedy.

use toml::de::Error;

use super::outline::Outline;
use crate::config::words::quote;

/// One error, as far as the parser's own words for it are known; those words otherwise.
pub(super) fn explain(text: &str, outline: &Outline<'_>, error: &Error) -> String {
    let span = error.span().unwrap_or_default();
    let written = text.get(span.clone()).unwrap_or_default();
    let whole = || outline.value_at(span.start).and_then(|value| text.get(value)).unwrap_or(written);
    let message = error.message();
    let starts = |known: &[&str]| known.iter().any(|known| message.starts_with(known));
    if starts(&["string values must be quoted"]) {
        unquoted(written)
    } else if starts(&["unexpected leading zero"]) {
        let number = bare(whole());
        format!("{number} is not a number; write {}", number.trim_start_matches('0'))
    } else if starts(&["invalid float", "invalid integer", "invalid date", "invalid time"]) {
        format!("{} is not a number; a string stands in quotes: {}", bare(whole()), quote(whole()))
    } else if starts(&["invalid boolean"]) {
        format!("{} is neither true nor false; a string stands in quotes: {}", bare(written), quote(written))
    } else if starts(&["key with no value", "invalid key-value pair", "missing value"]) {
        "expected KEY = VALUE, a [TABLE] or a # comment in this line".into()
    } else if starts(&["unclosed table", "unclosed array table"]) {
        let rest = text[span.start..].lines().next().unwrap_or_default().trim();
        let hint = if rest.is_empty() || rest.starts_with('#') {
            ""
        } else {
            "; a name with other signs than letters, digits, \"_\" and \"-\" needs quotes"
        };
        format!("the header of this table has no closing \"]\"{hint}")
    } else if starts(&["invalid basic string", "invalid literal string"]) {
        "this string has no closing quote, or contains a sign it cannot".into()
    } else if starts(&["missing escaped value", "too few unicode", "invalid value"]) {
        "this is not an escape; write a single backslash as \\\\".into()
    } else if starts(&["unexpected key or value", "unexpected content"]) {
        let rest = text[span.start..].lines().next().unwrap_or_default().trim();
        let hint = match rest {
            _ if rest.starts_with(',') => "; several values stand in one string or in a [list]",
            _ if rest.starts_with('/') => "; a comment starts with #",
            _ => "",
        };
        format!("unexpected {} after the end of the value or header{hint}", quote(rest))
    } else if starts(&["invalid unquoted key", "unquoted keys cannot be empty"]) {
        "a key consists of letters, digits, \"_\" and \"-\"; one with other signs needs quotes".into()
    } else if starts(&[
        "missing key for inline table element",
        "missing assignment between key-value pairs",
        "extra assignment between key-value pairs",
        "invalid inline table element",
    ]) {
        "expected KEY = VALUE, a comma or \"}\" here".into()
    } else if starts(&["unexpected `=` in array"]) {
        "expected a value, a comma or \"]\" here; KEY = VALUE stands in { }".into()
    } else if starts(&["missing inline table opening", "missing array opening"]) {
        "this closes what was never opened".into()
    } else if starts(&["missing comma"]) {
        "a comma is missing before this".into()
    } else if starts(&["extra comma"]) {
        "there is a comma too many".into()
    } else if starts(&["extra `=`"]) {
        "there is a \"=\" too many".into()
    } else if starts(&["cannot extend value of type "]) {
        format!("{written} already has a value, so no keys can stand below it")
    } else if starts(&["recursion limit"]) {
        "this key has too many parts".into()
    } else {
        format!("this is not TOML: {message}")
    }
}

/// User text without quotes, cut and escaped like [`quote`] does it.
fn bare(text: &str) -> String {
    let quoted = quote(text);
    quoted.replace('"', "")
}

/// A value that is neither a number nor in quotes.
fn unquoted(written: &str) -> String {
    match written {
        "" => "the value is missing".into(),
        "yes" | "on" | "True" | "TRUE" => {
            format!("{written} is not a value; write true, or \"{written}\" for a string")
        }
        "no" | "off" | "False" | "FALSE" => {
            format!("{written} is not a value; write false, or \"{written}\" for a string")
        }
        _ if written.contains(['“', '”', '„', '‘', '’', '«', '»']) => {
            format!("{} stands in typographic quotes; use plain ones: \"", bare(written))
        }
        _ if written.contains(" //") => format!("{} is not a value; a comment starts with #", quote(written)),
        _ => format!("a string stands in quotes: {}", quote(written)),
    }
}
