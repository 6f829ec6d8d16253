//! Where requests go, by host, path and header lines; answers that need no server.

use serde::{Deserialize, Serialize};

/// Requests that go elsewhere than the service's own pool. The first route of a service that matches decides.
/// It matches where all that it has matches, and it has exactly one of `pool`, `redirect` and `answer`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Route {
    /// Any of these hosts, without port: `www.example.org`, or `*.example.org` for all names below it (of any
    /// depth).
    pub hosts: Vec<String>,
    /// Any of these beginnings of the path, whole segments: `/api` is `/api` and `/api/x`, not `/apis`. Both are compared
    /// with escapes undone that need not be, `.`, `..` and empty segments taken out, and in upper and lower case as they are. A
    /// semicolon and a backslash are characters like others: `/api;v=1` and `/api\x` are not below `/api`. Servers that
    /// see that otherwise should be kept from it by a route of their own.
    pub paths: Vec<String>,
    /// Any of these methods.
    pub methods: Vec<String>,
    /// All of these header lines.
    pub headers: Vec<HeaderMatch>,
    /// The pool to go to.
    pub pool: Option<String>,
    /// The redirect to answer with.
    pub redirect: Option<Redirect>,
    /// The answer to give.
    pub answer: Option<Answer>,
}

/// A header line that must be there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderMatch {
    /// Name, in any case.
    pub name: String,
    /// The whole value of one of its lines; any value unless given.
    #[serde(default)]
    pub value: Option<String>,
}

/// An answer that sends the client elsewhere. What is not given is kept as it was asked for; the query always
/// is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Redirect {
    /// Scheme to go to.
    #[serde(default)]
    pub scheme: Option<Scheme>,
    /// Host to go to.
    #[serde(default)]
    pub host: Option<String>,
    /// Port to go to. Without it, the port that was asked for is kept unless it is the usual one of the
    /// scheme, or there is another `host`.
    #[serde(default)]
    pub port: Option<u16>,
    /// Path to go to.
    #[serde(default)]
    pub path: Option<String>,
    /// 301, 302, 303, 307 or 308.
    #[serde(default = "found")]
    pub status: u16,
}

impl Redirect {
    /// To the same place by another scheme.
    #[must_use]
    pub fn to_scheme(scheme: Scheme) -> Self {
        Self { scheme: Some(scheme), host: None, port: None, path: None, status: found() }
    }
}

fn found() -> u16 {
    302
}

/// Scheme of a URL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// A fixed answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Answer {
    /// 200 to 599. Where the service has an error page for it and no `body` is given here, that is the answer.
    pub status: u16,
    /// Its body; none unless given.
    #[serde(default)]
    pub body: Option<String>,
    /// Its `Content-Type`.
    #[serde(default = "plain")]
    pub content_type: String,
}

fn plain() -> String {
    "text/plain; charset=utf-8".to_owned()
}

/// Connections of mode `tcp` that go elsewhere than the service's own pool, by the server name in the client's
/// TLS greeting. TLS is not ended for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SniRoute {
    /// Any of these names: `www.example.org`, or `*.example.org` for all names below it.
    pub names: Vec<String>,
    /// The pool to go to.
    pub pool: String,
}
