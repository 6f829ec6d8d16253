//! Values that are plain data of another crate: what `l7-spec` says of itself is what may be written.

use l7_spec::{Log, LogTarget};
use serde::de::DeserializeOwned;
use serde_json::{Map, Number, Value};
use toml::de::DeValue;

use super::{Read, found};

/// A value of a type that reads itself; what is wrong is told with the way to it.
pub(in crate::config) fn plain<T: DeserializeOwned>(value: &DeValue<'_>) -> Read<T> {
    let value = json(value)?;
    serde_json::from_value(value).map_err(|error| error.to_string())
}

/// Where the lines of an access log go: l7-proxy, which writes them, has no right to write files.
pub(in crate::config) fn access_log(value: &DeValue<'_>) -> Read<Log> {
    let log: Log = plain(value)?;
    match log.to {
        Some(LogTarget::File(_)) => Err(
            "l7-proxy, which writes the access log, may write no files; use to = \"stdout\", which systemd keeps in its \
             journal, or to = { syslog = \"127.0.0.1:514\" }"
                .into(),
        ),
        _ => Ok(log),
    }
}

/// The same value in JSON, in which those types are told to l7-proxy as well.
fn json(value: &DeValue<'_>) -> Read<Value> {
    Ok(match value {
        DeValue::String(text) => Value::String(text.to_string()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            Value::Number(Number::from(number.map_err(|_| format!("{} is out of range", found(value)))?))
        }
        DeValue::Boolean(yes) => Value::Bool(*yes),
        DeValue::Array(items) => {
            Value::Array(items.iter().map(|item| json(item.get_ref())).collect::<Read<_>>()?)
        }
        DeValue::Table(entries) => {
            let entry =
                |(key, value): (&toml::Spanned<std::borrow::Cow<'_, str>>, &toml::Spanned<DeValue<'_>>)| {
                    Ok((key.get_ref().to_string(), json(value.get_ref())?))
                };
            Value::Object(entries.iter().map(entry).collect::<Read<Map<_, _>>>()?)
        }
        DeValue::Float(_) | DeValue::Datetime(_) => {
            return Err(format!(
                "expected a text, a whole number, true or false, a list or a table, found {}",
                found(value)
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use l7_spec::{Headers, Limits, Outliers};
    use toml::de::DeTable;

    use super::*;

    fn read<T: DeserializeOwned>(text: &str) -> Read<T> {
        let document = DeTable::parse(text).unwrap();
        let (_, value) = document.get_ref().iter().next().unwrap();
        plain(value.get_ref())
    }

    #[test]
    fn what_another_crate_reads_is_what_may_be_written() {
        let limits: Limits = read("limits = { connections = 0x10, http2 = { streams = 7 } }").unwrap();
        assert_eq!((limits.connections, limits.http2.streams), (Some(16), 7));
        let headers: Headers = read(
            "headers = { forwarding = { via = true }, set_request = [{ name = \"X-A\", value = \"b\" }] }",
        )
        .unwrap();
        assert!(headers.forwarding.via && headers.set_request[0].name == "X-A");
        let outliers: Outliers = read("outliers = { failures = 3, pause = \"5s\" }").unwrap();
        assert_eq!(outliers.failures, 3);
    }

    #[test]
    fn what_is_wrong_is_named_with_what_would_be_right() {
        for (text, part) in [
            ("limits = { conections = 1 }", "unknown field `conections`, expected one of `connections`"),
            ("limits = { connections = -1 }", "invalid value: integer `-1`"),
            ("limits = { connections = 1.5 }", "expected a text, a whole number"),
            ("limits = { connections = 9999999999999999999 }", "out of range"),
        ] {
            let error = read::<Limits>(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
