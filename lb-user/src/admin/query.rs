//! The part of a request behind the question mark: `name=value` pairs, with everything unusual as `%XX`
//! (RFC 3986 §2.1, §3.4).

use std::str::FromStr;

use super::{error::Refusal, routes::Route};

/// The pairs of one request. Each must be in the request's row of the table, and be asked for, or [`Self::finish`] complains about it.
#[derive(Debug)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Takes a query apart.
    ///
    /// # Errors
    /// When it is not one.
    pub fn parse(text: Option<&str>) -> Result<Self, Refusal> {
        let pairs = text.unwrap_or("").split('&').filter(|pair| !pair.is_empty());
        let decoded = pairs.map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            Some((decode(name)?, decode(value)?))
        });
        let pairs: Option<_> = decoded.collect();
        pairs.map(Self).ok_or_else(|| Refusal::BadRequest("the query is not properly encoded".into()))
    }

    /// The query of a request for a row of the table.
    ///
    /// # Errors
    /// When it is none, or says something twice or that the row does not have.
    pub fn of(route: &Route, text: Option<&str>) -> Result<Self, Refusal> {
        let query = Self::parse(text)?;
        for (place, (name, _)) in query.0.iter().enumerate() {
            if !route.parameters().any(|parameter| parameter.name == name) {
                let names: Vec<_> = route.parameters().map(|parameter| parameter.name).collect();
                let names = if names.is_empty() { "nothing".into() } else { names.join(", ") };
                let path = route.path;
                return Err(Refusal::BadRequest(format!(
                    "{name:?} means nothing to {path}, which takes {names}"
                )));
            }
            if query.0[..place].iter().any(|(other, _)| other == name) {
                return Err(Refusal::BadRequest(format!("{name} is given twice")));
            }
        }
        Ok(query)
    }

    /// The value of a name that must be there.
    ///
    /// # Errors
    /// When it is not.
    pub fn need(&mut self, name: &str) -> Result<String, Refusal> {
        self.take(name).ok_or_else(|| Refusal::BadRequest(format!("{name} is missing: which one?")))
    }

    /// The value of a name, if it is there.
    pub fn take(&mut self, name: &str) -> Option<String> {
        let place = self.0.iter().position(|(known, _)| known == name)?;
        Some(self.0.remove(place).1)
    }

    /// The same, read as a `T`.
    ///
    /// # Errors
    /// When it is none; `right` says what would be.
    pub fn take_as<T: FromStr>(&mut self, name: &str, right: &str) -> Result<Option<T>, Refusal> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let wrong = || Refusal::BadRequest(format!("{name} is {value:?}; it must be {right}"));
        value.parse().map(Some).map_err(|_| wrong())
    }

    /// Refuses what nobody has asked for.
    ///
    /// # Errors
    /// When something is left.
    pub fn finish(self) -> Result<(), Refusal> {
        match self.0.first() {
            None => Ok(()),
            Some((name, _)) => Err(Refusal::BadRequest(format!("{name:?} is not understood here"))),
        }
    }
}

/// Takes `%XX` back; `None` if that is no text.
fn decode(text: &str) -> Option<String> {
    let mut bytes = Vec::new();
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                (digit(rest.next()?)? * 16 + digit(rest.next()?)?) as u8
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}

/// A query of pairs.
#[must_use]
pub fn encode(pairs: &[(&str, &str)]) -> String {
    let encoded = |text: &str| {
        let one = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                char::from(byte).to_string()
            }
            byte => format!("%{byte:02X}"),
        };
        text.bytes().map(one).collect::<String>()
    };
    let pairs: Vec<_> =
        pairs.iter().map(|(name, value)| format!("{}={}", encoded(name), encoded(value))).collect();
    pairs.join("&")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::routes;

    #[test]
    fn what_is_encoded_comes_back() {
        let filter = "host 2001:db8::1 and net 10.0.0.0/8 & vip=späti%20";
        let text = encode(&[("filter", filter), ("n", "7"), ("empty", "")]);
        assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{text}");
        let mut query = Query::parse(Some(&text)).unwrap();
        assert_eq!(query.take("filter").as_deref(), Some(filter));
        assert_eq!(query.take_as::<u32>("n", "a number").unwrap(), Some(7));
        assert_eq!((query.take("empty").as_deref(), query.take("n")), (Some(""), None));
        query.finish().unwrap();
        Query::parse(None).unwrap().finish().unwrap();
    }

    #[test]
    fn a_query_says_only_what_its_row_has_and_that_once() {
        let row = |path| routes::find(&hyper::Method::POST, path).unwrap();
        assert!(Query::of(row("/v1/vip"), Some("dry_run=true")).is_ok());
        for (path, text, why) in [
            ("/v1/vip", "dry_run=true&dry_run=false", "dry_run is given twice"),
            ("/v1/vip", "force=1", "\"force\" means nothing to /v1/vip, which takes dry_run"),
            ("/v1/rollback", "numer=1", "which takes number, dry_run"),
        ] {
            let error = Query::of(row(path), Some(text)).unwrap_err().body().error.message;
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn what_is_wrong_is_refused() {
        for text in ["a=%", "a=%4", "a=%zz", "a=%ff"] {
            assert!(Query::parse(Some(text)).is_err(), "{text}");
        }
        assert!(Query::parse(Some("a=1")).unwrap().finish().is_err());
        let error = Query::parse(Some("n=x")).unwrap().take_as::<u32>("n", "a number").unwrap_err();
        assert!(error.body().error.message.contains("n is \"x\"; it must be a number"));
    }
}
