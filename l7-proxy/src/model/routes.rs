//! Which requests go where.

use std::{borrow::Cow, sync::Arc};

use super::Page;
use crate::{
    server::Pool,
    spec::{self, Scheme},
    wire::{Fields, split_authority},
};

/// What becomes of a request.
#[derive(Debug)]
pub enum Action {
    /// It goes to a server of this pool.
    Pool(Arc<Pool>),
    /// The client is sent elsewhere.
    Redirect(Location),
    /// A fixed answer.
    Answer(Page),
    /// The service's own answer with this status.
    Status(u16),
}

/// Requests that match, and what becomes of them.
#[derive(Debug)]
pub struct Matching {
    hosts: Vec<String>,
    paths: Vec<Vec<u8>>,
    methods: Vec<Vec<u8>>,
    headers: Vec<(Vec<u8>, Option<Vec<u8>>)>,
    /// What becomes of them.
    pub action: Action,
}

/// What was asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Host and port, as the client said.
    pub authority: &'a [u8],
    /// Path and query.
    pub path: &'a [u8],
    /// Method, as it was written.
    pub method: &'a [u8],
    /// Header lines.
    pub fields: &'a Fields,
    /// Whether the client came over TLS.
    pub secure: bool,
}

impl Matching {
    pub(super) fn new(route: &spec::Route, action: Action) -> Self {
        let texts = |texts: &[String]| texts.iter().map(|text| text.clone().into_bytes()).collect();
        Self {
            hosts: route.hosts.iter().map(|host| plain_host(host)).collect(),
            paths: route.paths.iter().map(|path| plain_beginning(path)).collect(),
            methods: texts(&route.methods),
            headers: route
                .headers
                .iter()
                .map(|header| {
                    (header.name.clone().into_bytes(), header.value.clone().map(String::into_bytes))
                })
                .collect(),
            action,
        }
    }

    /// Whether a request is one of these.
    #[must_use]
    pub fn matches(&self, asked: &Asked<'_>) -> bool {
        (self.hosts.is_empty() || self.hosts.iter().any(|host| host_matches(host, asked.authority)))
            && (self.paths.is_empty() || {
                let path = plain_path(asked.path);
                self.paths.iter().any(|prefix| path_begins(&path, prefix))
            })
            && (self.methods.is_empty() || self.methods.iter().any(|method| method == asked.method))
            && self.headers.iter().all(|(name, value)| {
                asked.fields.named(name).any(|other| value.as_ref().is_none_or(|value| value == other))
            })
    }
}

/// A host as it is compared: in lower case, without the dot of the root.
pub(super) fn plain_host(host: &str) -> String {
    host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase()
}

/// The beginning of a path as it is compared: spelt as requests are, or none would ever have it.
fn plain_beginning(path: &str) -> Vec<u8> {
    let plain = plain_path(path.as_bytes());
    let end = plain.iter().rposition(|&byte| byte != b'/').map_or(0, |last| last + 1);
    plain[..end].to_vec()
}

/// Whether `pattern` (lower case; `*.example` for all below) is the host of `authority`.
pub(super) fn host_matches(pattern: &str, authority: &[u8]) -> bool {
    let (host, _) = split_authority(authority);
    let host = host.strip_suffix(b".").unwrap_or(host);
    match pattern.strip_prefix('*') {
        Some(suffix) => host
            .split_at_checked(host.len().saturating_sub(suffix.len()))
            .is_some_and(|(label, end)| !label.is_empty() && end.eq_ignore_ascii_case(suffix.as_bytes())),
        None => host.eq_ignore_ascii_case(pattern.as_bytes()),
    }
}

fn path_begins(path: &[u8], prefix: &[u8]) -> bool {
    path.strip_prefix(prefix).is_some_and(|rest| matches!(rest.first(), None | Some(b'/')))
}

/// The path without query as a server will understand it: escapes of what needs none undone, `.` and `..`
/// resolved. Only for comparing: a route must not be evaded by another spelling of the path it is for.
fn plain_path(target: &[u8]) -> Cow<'_, [u8]> {
    let end = memchr::memchr(b'?', target).unwrap_or(target.len());
    let path = &target[..end];
    if memchr::memchr(b'%', path).is_none()
        && memchr::memmem::find(path, b"/.").is_none()
        && memchr::memmem::find(path, b"//").is_none()
    {
        return Cow::Borrowed(path);
    }
    let mut decoded = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'%', [high, low, tail @ ..]) => match (hex(*high), hex(*low)) {
                (Some(high), Some(low)) if (high << 4 | low).is_ascii_graphic() => {
                    decoded.push(high << 4 | low);
                    rest = tail;
                }
                _ => decoded.push(byte),
            },
            _ => decoded.push(byte),
        }
    }
    let mut plain: Vec<u8> = Vec::with_capacity(decoded.len());
    let mut segments = decoded.split(|&byte| byte == b'/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        match segment {
            b"." => {}
            b".." => plain.truncate(memchr::memrchr(b'/', &plain).unwrap_or(0)),
            b"" if segments.peek().is_some() => continue,
            _ => {
                plain.push(b'/');
                plain.extend_from_slice(segment);
                continue;
            }
        }
        if segments.peek().is_none() {
            plain.push(b'/');
        }
    }
    Cow::Owned(plain)
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok())
}

/// Where a redirect leads.
#[derive(Clone, Debug)]
pub struct Location {
    scheme: Option<&'static str>,
    host: Option<String>,
    port: Option<u16>,
    path: Option<String>,
    /// Status of the answer.
    pub status: u16,
}

impl From<&spec::Redirect> for Location {
    fn from(redirect: &spec::Redirect) -> Self {
        Self {
            scheme: redirect.scheme.map(|scheme| match scheme {
                Scheme::Http => "http",
                Scheme::Https => "https",
            }),
            host: redirect.host.clone(),
            port: redirect.port,
            path: redirect.path.clone(),
            status: redirect.status,
        }
    }
}

impl Location {
    /// The address for the client.
    #[must_use]
    pub fn of(&self, asked: &Asked<'_>) -> Vec<u8> {
        let old_scheme = if asked.secure { "https" } else { "http" };
        let scheme = self.scheme.unwrap_or(old_scheme);
        let (host, port) = split_authority(asked.authority);
        // A port that only repeats the old scheme says nothing about the new one.
        let usual: &[u8] = if asked.secure { b"443" } else { b"80" };
        let port = port.filter(|port| self.host.is_none() && !port.is_empty() && *port != usual);
        let mut location = Vec::with_capacity(asked.authority.len() + asked.path.len() + 16);
        location.extend_from_slice(scheme.as_bytes());
        location.extend_from_slice(b"://");
        location.extend_from_slice(self.host.as_ref().map_or(host, |host| host.as_bytes()));
        match (self.port, port) {
            (Some(port), _) => location.extend_from_slice(format!(":{port}").as_bytes()),
            (None, Some(port)) => {
                location.push(b':');
                location.extend_from_slice(port);
            }
            (None, None) => {}
        }
        let query = memchr::memchr(b'?', asked.path).unwrap_or(asked.path.len());
        let (path, query) = asked.path.split_at(query);
        location.extend_from_slice(self.path.as_ref().map_or(path, |path| path.as_bytes()));
        if self.path.is_none() && path.is_empty() {
            location.push(b'/');
        }
        location.extend_from_slice(query);
        location
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked<'a>(authority: &'a str, path: &'a str, fields: &'a Fields) -> Asked<'a> {
        Asked {
            authority: authority.as_bytes(),
            path: path.as_bytes(),
            method: b"GET",
            fields,
            secure: false,
        }
    }

    fn route(hosts: &[&str], paths: &[&str]) -> Matching {
        let texts = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        let route = spec::Route { hosts: texts(hosts), paths: texts(paths), ..spec::Route::default() };
        Matching::new(&route, Action::Status(404))
    }

    #[test]
    fn hosts_match_exactly_or_below() {
        let fields = Fields::default();
        let exact = route(&["WWW.example"], &[]);
        let below = route(&["*.example"], &[]);
        assert!(exact.matches(&asked("www.EXAMPLE:80", "/", &fields)));
        assert!(!exact.matches(&asked("a.www.example", "/", &fields)));
        assert!(
            below.matches(&asked("a.b.example", "/", &fields))
                && below.matches(&asked("a.example.", "/", &fields))
        );
        assert!(
            !below.matches(&asked("example", "/", &fields))
                && !below.matches(&asked("badexample", "/", &fields))
        );
    }

    #[test]
    fn paths_match_by_segments_however_they_are_spelt() {
        let fields = Fields::default();
        let api = route(&[], &["/api/"]);
        for path in [
            "/api",
            "/api/",
            "/api/x",
            "/api?x",
            "/x/../api/y",
            "/%61pi/x",
            "/./api",
            "//api/x",
            "/x/%2e%2e/api",
        ] {
            assert!(api.matches(&asked("h", path, &fields)), "{path}");
        }
        for path in ["/apis", "/", "/x/api", "/api/../x", "/API", "/api%00"] {
            assert!(!api.matches(&asked("h", path, &fields)), "{path}");
        }
        assert!(route(&[], &["/"]).matches(&asked("h", "/anything", &fields)));
        for (told, path) in [("/%7Euser", "/~user/x"), ("/a//b/", "/a/b"), ("/x/../y", "/y"), ("//", "/z")] {
            assert!(route(&[], &[told]).matches(&asked("h", path, &fields)), "{told} {path}");
        }
        assert!(route(&["A.example."], &[]).matches(&asked("a.example", "/", &fields)));
        // What only some servers take for the end of a segment is none here.
        assert!(
            !api.matches(&asked("h", "/api;v=1", &fields)) && !api.matches(&asked("h", "/api\\x", &fields))
        );
    }

    #[test]
    fn a_redirect_keeps_what_it_does_not_name() {
        let fields = Fields::default();
        let location = |redirect: &str, authority, path| {
            let redirect: spec::Redirect = serde_json::from_str(redirect).unwrap();
            String::from_utf8(Location::from(&redirect).of(&asked(authority, path, &fields))).unwrap()
        };
        let https = r#"{ "scheme": "https" }"#;
        assert_eq!(location(https, "a.example", "/a?b=1"), "https://a.example/a?b=1");
        assert_eq!(location(https, "a.example:80", "/"), "https://a.example/");
        assert_eq!(location(https, "a.example:8000", "/"), "https://a.example:8000/");
        assert_eq!(
            location(r#"{ "scheme": "https", "port": 8443 }"#, "[::1]:8000", "/"),
            "https://[::1]:8443/"
        );
        assert_eq!(location(r#"{ "host": "b", "path": "/new" }"#, "a:81", "/old?q"), "http://b/new?q");
    }
}
