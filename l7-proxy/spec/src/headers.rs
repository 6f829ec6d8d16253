//! Header lines that are added, changed and removed.

use serde::{Deserialize, Serialize};

use super::ForwardedClientCertificate;

/// What is done to the header lines of requests and answers, beside what RFC 9110 asks of every proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Headers {
    /// What servers are told about the client.
    pub forwarding: Forwarding,
    /// Lines of requests that are removed, by name; before others are set.
    pub remove_request: Vec<String>,
    /// Lines of requests that are set; those of the same name that came are replaced.
    pub set_request: Vec<HeaderLine>,
    /// Lines of answers that are removed, by name; before others are set.
    pub remove_response: Vec<String>,
    /// Lines of answers that are set; those of the same name that came are replaced.
    pub set_response: Vec<HeaderLine>,
    /// Changes to answers of servers that do not know they are behind TLS.
    pub rewrite: Rewrite,
    /// What becomes of a header line with a client's certificate.
    pub forwarded_client_certificate: ForwardedClientCertificate,
    /// Whether `TRACE` is answered with 405 instead of being passed on.
    pub refuse_trace: bool,
    /// Whether `CONNECT` is passed on to servers; refused with 405 otherwise.
    pub allow_connect: bool,
}

/// A header line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HeaderLine {
    /// Name, in any case.
    pub name: String,
    /// Value; visible ASCII and spaces.
    pub value: String,
}

/// What servers are told about the client. Lines of these names that came from a client outside the service's
/// `trusted_proxies` are removed, whether they are set here or not.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Forwarding {
    /// `X-Forwarded-For`: the client's address, appended to what a trusted proxy said.
    pub x_forwarded_for: bool,
    /// `X-Forwarded-Proto`: `http` or `https`, unless a trusted proxy said.
    pub x_forwarded_proto: bool,
    /// `X-Forwarded-Host`: the host that was asked for, unless a trusted proxy said.
    pub x_forwarded_host: bool,
    /// `X-Forwarded-Port`: the port the client connected to, unless a trusted proxy said.
    pub x_forwarded_port: bool,
    /// `Forwarded` (RFC 7239), appended to what a trusted proxy said.
    pub forwarded: bool,
    /// `Via` on requests and answers.
    pub via: bool,
    /// Name of a line with a number of ours that is unique to each request; kept as it is when a trusted
    /// proxy set it. None unless given.
    pub request_id: Option<String>,
}

impl Default for Forwarding {
    fn default() -> Self {
        Self {
            x_forwarded_for: true,
            x_forwarded_proto: true,
            x_forwarded_host: false,
            x_forwarded_port: false,
            forwarded: false,
            via: false,
            request_id: None,
        }
    }
}

/// Changes to answers of servers that do not know they are behind TLS. Only of use to services with TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Rewrite {
    /// `Location` and `Content-Location` to `http://` and the host that was asked for, or to the server's own
    /// address, lead to `https://` and the host that was asked for.
    pub location: bool,
    /// `Secure` is added to cookies of servers that lack it.
    pub secure_cookies: bool,
}
