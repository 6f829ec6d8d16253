//! Header lines that are changed, as they are needed for each request.

use crate::spec::{self, CookiePersistence, ForwardedClientCertificate, Problem, SameSite};
use crate::wire::is_token;

/// Changes to header lines.
#[derive(Clone, Debug, Default)]
pub struct Edits {
    /// What servers are told about the client.
    pub forwarding: spec::Forwarding,
    /// Names of request lines that are not passed on as they came.
    pub drop_request: Vec<Vec<u8>>,
    /// Request lines that are added.
    pub set_request: Vec<(Vec<u8>, Vec<u8>)>,
    /// Names of answer lines that are not passed on as they came.
    pub drop_response: Vec<Vec<u8>>,
    /// Answer lines that are added.
    pub set_response: Vec<(Vec<u8>, Vec<u8>)>,
    /// Changes to answers of servers that do not know they are behind TLS.
    pub rewrite: spec::Rewrite,
    /// What becomes of a header line with a client's certificate.
    pub client_certificate: ForwardedClientCertificate,
    /// What clients say about their certificates in `X-SSL-Client-*` is not passed on.
    pub guards_certificates: bool,
    /// `TRACE` is answered with 405.
    pub refuse_trace: bool,
    /// `CONNECT` is passed on.
    pub allow_connect: bool,
}

/// Names that say how a message is framed, where it goes or how long a connection lasts: to change them by a
/// setting would break what we do with them.
const OURS: [&str; 7] =
    ["connection", "content-length", "host", "keep-alive", "te", "transfer-encoding", "upgrade"];

impl Edits {
    pub(super) fn new(headers: &spec::Headers, asks_certificates: bool, problems: &mut Vec<Problem>) -> Self {
        let mut names = |names: &[String], key: &str| -> Vec<Vec<u8>> {
            names.iter().filter_map(|name| name_of(name, key, problems)).collect()
        };
        let mut drop_request = names(&headers.remove_request, "headers.remove_request");
        let mut drop_response = names(&headers.remove_response, "headers.remove_response");
        if let Some(name) = &headers.forwarding.request_id {
            names(std::slice::from_ref(name), "headers.forwarding.request_id");
        }
        let mut lines = |lines: &[spec::HeaderLine], key: &str| -> Vec<(Vec<u8>, Vec<u8>)> {
            lines.iter().filter_map(|line| line_of(line, key, problems)).collect()
        };
        let set_request = lines(&headers.set_request, "headers.set_request");
        let set_response = lines(&headers.set_response, "headers.set_response");
        drop_request.extend(set_request.iter().map(|(name, _)| name.clone()));
        drop_response.extend(set_response.iter().map(|(name, _)| name.clone()));
        Self {
            forwarding: headers.forwarding.clone(),
            drop_request,
            set_request,
            drop_response,
            set_response,
            rewrite: headers.rewrite.clone(),
            client_certificate: headers.forwarded_client_certificate,
            guards_certificates: asks_certificates
                || headers.forwarded_client_certificate != ForwardedClientCertificate::AlwaysForwardOnly,
            refuse_trace: headers.refuse_trace,
            allow_connect: headers.allow_connect,
        }
    }

    /// Whether a request line of this name is not passed on as it came.
    #[must_use]
    pub fn drops_request(&self, name: &[u8]) -> bool {
        self.drop_request.iter().any(|drop| drop.eq_ignore_ascii_case(name))
    }

    /// Whether an answer line of this name is not passed on as it came.
    #[must_use]
    pub fn drops_response(&self, name: &[u8]) -> bool {
        self.drop_response.iter().any(|drop| drop.eq_ignore_ascii_case(name))
    }
}

fn name_of(name: &str, key: &str, problems: &mut Vec<Problem>) -> Option<Vec<u8>> {
    let lower = name.to_ascii_lowercase();
    let wrong = if !is_token(name.as_bytes()) {
        "is no name of a header line"
    } else if OURS.contains(&lower.as_str()) {
        "says how messages are framed and where they go; it cannot be set or removed"
    } else {
        return Some(lower.into_bytes());
    };
    problems.push(Problem::new(key, format!("\"{name}\" {wrong}")));
    None
}

fn line_of(line: &spec::HeaderLine, key: &str, problems: &mut Vec<Problem>) -> Option<(Vec<u8>, Vec<u8>)> {
    let name = name_of(&line.name, key, problems)?;
    if line.value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
        return Some((name, line.value.trim().into()));
    }
    problems
        .push(Problem::new(key, format!("the value of \"{}\" is not visible ASCII and spaces", line.name)));
    None
}

/// The cookie by which clients find their server again.
#[derive(Clone, Debug)]
pub struct CookieLine {
    /// Its name.
    pub name: Vec<u8>,
    attributes: String,
    secure: Option<bool>,
}

impl CookieLine {
    pub(super) fn new(cookie: &CookiePersistence, problems: &mut Vec<Problem>) -> Self {
        if !is_token(cookie.name.as_bytes()) {
            problems.push(Problem::new(
                "persistence.name",
                format!("\"{}\" is no name of a cookie", cookie.name),
            ));
        }
        for (key, value) in [("path", Some(&cookie.path)), ("domain", cookie.domain.as_ref())] {
            if value.is_some_and(|value| !value.bytes().all(|byte| byte.is_ascii_graphic() && byte != b';')) {
                let message = "is not visible ASCII without semicolons".to_owned();
                problems.push(Problem::new(format!("persistence.{key}"), message));
            }
        }
        let mut attributes = format!("; Path={}", cookie.path);
        if let Some(domain) = &cookie.domain {
            attributes += &format!("; Domain={domain}");
        }
        if cookie.http_only {
            attributes += "; HttpOnly";
        }
        match cookie.same_site {
            Some(SameSite::Strict) => attributes += "; SameSite=Strict",
            Some(SameSite::Lax) => attributes += "; SameSite=Lax",
            Some(SameSite::None) => attributes += "; SameSite=None",
            None => {}
        }
        Self { name: cookie.name.clone().into_bytes(), attributes, secure: cookie.secure }
    }

    /// The value of `Set-Cookie` that names a server.
    #[must_use]
    pub fn set(&self, value: &str, over_tls: bool) -> Vec<u8> {
        let secure = if self.secure.unwrap_or(over_tls) { "; Secure" } else { "" };
        [&self.name, &b"="[..], value.as_bytes(), self.attributes.as_bytes(), secure.as_bytes()].concat()
    }
}
