//! Which clients stay with which server.

use serde::{Deserialize, Serialize};

use super::Span;

/// How a client finds its server again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Persistence {
    /// A cookie of ours names the server; mode `http` only.
    Cookie(CookiePersistence),
    /// All requests and connections of one client address go to one server.
    SourceIp {
        /// A client that was not seen for this long is chosen for anew.
        #[serde(default = "half_an_hour")]
        timeout: Span,
        /// Clients that are remembered at most; the one not seen for longest gives way.
        #[serde(default = "many")]
        entries: u32,
    },
    /// All clients go to one server until it fails; no fail-back.
    LastSuccessful,
}

impl Persistence {
    /// By the client's address, with this timeout or the usual one.
    #[must_use]
    pub fn source_ip(timeout: Option<Span>) -> Self {
        Self::SourceIp { timeout: timeout.unwrap_or_else(half_an_hour), entries: many() }
    }
}

impl CookiePersistence {
    /// By a cookie of this name; everything else as if it were not given.
    #[must_use]
    pub fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            http_only: yes(),
            same_site: None,
            secure: None,
            domain: None,
            path: root(),
        }
    }
}

fn half_an_hour() -> Span {
    Span::from_secs(1_800)
}

fn many() -> u32 {
    100_000
}

/// The cookie that names a client's server. Its value is made of the server's name by a keyed hash; it is not
/// passed to servers, and an answer that sets it is marked as not to be stored by shared caches.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CookiePersistence {
    /// Name of the cookie.
    pub name: String,
    /// Whether scripts of a page are kept from reading it.
    #[serde(default = "yes")]
    pub http_only: bool,
    /// Whether browsers send it on requests that other sites caused; left to the browser unless given.
    #[serde(default)]
    pub same_site: Option<SameSite>,
    /// Whether it is only sent over TLS; follows from whether the client came over TLS unless given.
    #[serde(default)]
    pub secure: Option<bool>,
    /// Domain it is valid for; the host that was asked unless given.
    #[serde(default)]
    pub domain: Option<String>,
    /// Path it is valid below.
    #[serde(default = "root")]
    pub path: String,
}

fn yes() -> bool {
    true
}

fn root() -> String {
    "/".to_owned()
}

/// Whether browsers send a cookie on requests that other sites caused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SameSite {
    /// Never.
    Strict,
    /// Only when a link is followed.
    Lax,
    /// Always; browsers want `secure` with it.
    None,
}
