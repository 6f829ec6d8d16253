//! What a request asks for, worked out once, before anything is decided (RFC 9112 §3.2, §6.3; trap of many
//! proxies: a missing, double or odd `Host`, or two lengths, are refused here and reach no server).

use crate::{
    model::Asked,
    wire::{Fault, Framing, Known, Method, Request, Target, Version, authority_is_valid, request_framing},
};

/// A request that was understood.
#[derive(Clone, Copy, Debug)]
pub struct Intent<'a> {
    /// What is asked for, as routes see it.
    pub asked: Asked<'a>,
    /// Method.
    pub method: Method,
    /// Version the client speaks.
    pub version: Version,
    /// How long the request's body is.
    pub framing: Framing,
    /// What the client would have the connection become (`Upgrade`, or `:protocol` of RFC 8441).
    pub upgrade: Option<&'a [u8]>,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub waits: bool,
    /// Whether the client's connection may serve another request.
    pub keeps: bool,
    /// Whether the client takes lines after the last chunk.
    pub takes_trailers: bool,
}

impl<'a> Intent<'a> {
    /// Understands a request of HTTP/1.x; `secure` where it came over TLS.
    ///
    /// # Errors
    /// Why it is refused.
    pub fn of(request: &'a Request, secure: bool) -> Result<Self, Fault> {
        let fields = &request.fields;
        let host = host(request)?;
        let (authority, path) = match Target::parse(request.method, request.target())? {
            Target::Origin(path) => (host.unwrap_or_default(), path),
            // RFC 9112 §3.2.2: the target decides, whatever `Host` says.
            Target::Absolute { authority, path } if path.is_empty() && request.method == Method::Options => {
                (authority, &b"*"[..])
            }
            Target::Absolute { authority, path } => (authority, path),
            Target::Authority(authority) => (authority, &b""[..]),
            Target::Asterisk => (host.unwrap_or_default(), &b"*"[..]),
        };
        let framing = request_framing(request)?;
        let current = request.version == Version::V1_1;
        if request.method == Method::Connect && framing != Framing::None {
            // It has no body (RFC 9110 §9.3.6): what follows would be read as two things.
            return Err(Fault::Length);
        }
        if current {
            expectation(fields)?;
        }
        Ok(Self {
            asked: Asked { authority, path, method: request.method_name(), fields, secure },
            method: request.method,
            version: request.version,
            framing,
            upgrade: if current && request.method != Method::Connect { upgrade(request) } else { None },
            waits: current
                && framing != Framing::None
                && fields
                    .first(Known::Expect)
                    .is_some_and(|value| value.eq_ignore_ascii_case(b"100-continue")),
            keeps: keeps_alive(request.version, fields),
            takes_trailers: current && fields.has_element(Known::Te, b"trailers"),
        })
    }

    /// Whether it is the opening handshake of a WebSocket (RFC 6455 §4.1), as far as others than its server have to know.
    #[must_use]
    pub fn opens_websocket(&self) -> bool {
        let has_key = || self.asked.fields.named(b"sec-websocket-key").next().is_some();
        self.upgrade.is_some_and(|upgrade| upgrade.eq_ignore_ascii_case(b"websocket"))
            && self.method == Method::Get
            && self.framing == Framing::None
            && has_key()
    }
}

/// Whether no more is expected of us than we can do (RFC 9110 §10.1.1).
///
/// # Errors
/// [`Fault::Expectation`].
pub fn expectation(fields: &crate::wire::Fields) -> Result<(), Fault> {
    let is_known = |element: &[u8]| element.eq_ignore_ascii_case(b"100-continue");
    fields.elements(Known::Expect).all(is_known).then_some(()).ok_or(Fault::Expectation)
}

/// The one value of `Host`; only HTTP/1.0 may be without.
fn host(request: &Request) -> Result<Option<&[u8]>, Fault> {
    let mut hosts = request.fields.all(Known::Host);
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if authority_is_valid(host) => Ok(Some(host)),
        (None, _) if request.version == Version::V1_0 => Ok(None),
        _ => Err(Fault::Host),
    }
}

/// What the client would have the connection become, if it says so properly. HTTP/2 is not asked for in this
/// way any more (RFC 9113 §3.1), and passed on it would take requests past us.
fn upgrade(request: &Request) -> Option<&[u8]> {
    let mut values = request.fields.all(Known::Upgrade);
    let value = values.next().filter(|value| !value.is_empty())?;
    let is_single = values.next().is_none();
    let asked = request.fields.has_element(Known::Connection, b"upgrade");
    let http2 = request.fields.elements(Known::Upgrade).any(|name| {
        let name = name.get(..2).unwrap_or(name);
        name.eq_ignore_ascii_case(b"h2") || name.eq_ignore_ascii_case(b"ht")
    });
    (asked && is_single && !http2).then_some(value)
}

/// Whether a connection may carry another message after this one (RFC 9112 §9.3).
pub fn keeps_alive(version: Version, fields: &crate::wire::Fields) -> bool {
    match version {
        Version::V1_0 => {
            fields.has_element(Known::Connection, b"keep-alive")
                && !fields.has_element(Known::Connection, b"close")
        }
        _ => !fields.has_element(Known::Connection, b"close"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::HeadLimits;

    fn with<T>(text: &str, look: impl FnOnce(Result<Intent<'_>, Fault>) -> T) -> T {
        let mut request = Request::default();
        request
            .parse(
                text.replace('\n', "\r\n").as_bytes(),
                &HeadLimits { bytes: 4_096, lines: 32, target: 1_024 },
            )
            .unwrap();
        look(Intent::of(&request, false))
    }

    #[test]
    fn a_request_says_once_what_host_it_is_for() {
        let authority = |text| with(text, |intent| intent.map(|intent| intent.asked.authority.to_vec()));
        assert_eq!(authority("GET / HTTP/1.1\nHost: a:80\n\n"), Ok(b"a:80".to_vec()));
        assert_eq!(authority("GET / HTTP/1.0\n\n"), Ok(Vec::new()));
        assert_eq!(
            authority("GET http://b/x HTTP/1.1\nHost: a\n\n"),
            Ok(b"b".to_vec()),
            "the target decides"
        );
        for odd in [
            "GET / HTTP/1.1\n\n",
            "GET / HTTP/1.1\nHost: a\nHost: a\n\n",
            "GET / HTTP/1.0\nHost: a\nHost: b\n\n",
            "GET / HTTP/1.1\nHost:\n\n",
            "GET / HTTP/1.1\nHost: a, b\n\n",
            "GET / HTTP/1.1\nHost: u@a\n\n",
            "GET http://b/ HTTP/1.1\n\n",
        ] {
            assert_eq!(authority(odd), Err(Fault::Host), "{odd}");
        }
    }

    #[test]
    fn only_a_proper_wish_to_upgrade_is_one() {
        let upgrade = |lines: &str| {
            with(&format!("GET / HTTP/1.1\nHost: a\n{lines}\n\n"), |i| i.unwrap().upgrade.map(<[u8]>::to_vec))
        };
        assert_eq!(
            upgrade("Connection: keep-alive, Upgrade\nUpgrade: websocket"),
            Some(b"websocket".to_vec())
        );
        assert_eq!(upgrade("Upgrade: websocket"), None);
        let connect = "CONNECT a:1 HTTP/1.1\nHost: a:1\nConnection: Upgrade\nUpgrade: websocket\n\n";
        assert!(with(connect, |intent| intent.unwrap().upgrade.is_none()), "that is no WebSocket");
        assert_eq!(upgrade("Connection: upgrade\nUpgrade: h2c"), None);
        assert_eq!(upgrade("Connection: upgrade\nUpgrade: websocket, h2c"), None);
        assert_eq!(upgrade("Connection: upgrade\nUpgrade: HTTP/2.0"), None);
    }

    #[test]
    fn connections_last_as_long_as_both_say() {
        let keeps = |text| with(text, |intent| intent.unwrap().keeps);
        assert!(keeps("GET / HTTP/1.1\nHost: a\n\n"));
        assert!(!keeps("GET / HTTP/1.1\nHost: a\nConnection: x, Close\n\n"));
        assert!(!keeps("GET / HTTP/1.0\n\n"));
        assert!(keeps("GET / HTTP/1.0\nConnection: Keep-Alive\n\n"));
    }
}
