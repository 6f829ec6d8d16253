//! The lines of an answer as a client gets them.

use super::{Client, Intent};
use crate::{
    model::{Page, Service},
    wire::{Answer, Fields, Known, Sink, split_authority},
};

/// What an answer is made of.
#[derive(Clone, Copy, Debug)]
pub struct Lines<'a> {
    /// Its origin.
    pub from: From<'a>,
    /// The service it is given by.
    pub service: &'a Service,
    /// The client.
    pub client: &'a Client,
    /// The request, where it was understood.
    pub intent: Option<&'a Intent<'a>>,
    /// The value of `Set-Cookie` by which the client finds its server again.
    pub set_cookie: Option<&'a [u8]>,
    /// The host and port of the server, to recognise links that lead to it.
    pub server: Option<std::net::SocketAddr>,
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug)]
pub enum From<'a> {
    /// A server.
    Server(&'a Answer),
    /// Ourselves.
    Page(&'a Page),
}

impl Lines<'_> {
    /// Status code.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self.from {
            From::Server(answer) => answer.status,
            From::Page(page) => page.status,
        }
    }

    /// The words behind it.
    #[must_use]
    pub fn reason(&self) -> &[u8] {
        match self.from {
            From::Server(answer) => answer.reason(),
            From::Page(page) => &page.reason,
        }
    }

    /// Writes all lines but those that say how the message is framed. `with_date` writes the date where there
    /// is none (RFC 9110 §6.6.1).
    pub fn write<S: Sink>(&self, sink: &mut S, date: Option<&[u8]>) {
        let dated = match self.from {
            From::Server(answer) => {
                self.of_server(sink, &answer.fields);
                answer.fields.first(Known::Date).is_some()
            }
            From::Page(page) => {
                for (name, value) in &page.lines {
                    sink.line(name, value);
                }
                false
            }
        };
        if let Some(date) = date.filter(|_| !dated) {
            sink.line(b"date", date);
        }
    }

    fn of_server<S: Sink>(&self, sink: &mut S, fields: &Fields) {
        let edits = &self.service.edits;
        let named = fields.names_lines();
        for (known, name, value) in fields.iter() {
            match known {
                Known::Other => {}
                Known::ContentLength => continue,
                _ if known.is_hop_by_hop() => continue,
                Known::CacheControl if self.set_cookie.is_some() => continue,
                Known::Via if edits.forwarding.via => continue,
                _ => {}
            }
            if (named && known != Known::SetCookie && fields.has_element(Known::Connection, name))
                || edits.drops_response(name)
            {
                continue;
            }
            match known {
                Known::Location | Known::ContentLocation if edits.rewrite.location => {
                    match self.rewritten(value) {
                        Some(value) => sink.line(name, &value),
                        None => sink.line(name, value),
                    }
                }
                Known::SetCookie
                    if edits.rewrite.secure_cookies && self.client.secure && !is_secure(value) =>
                {
                    sink.line(name, &[value, b"; Secure"].concat());
                }
                _ => sink.line(name, value),
            }
        }
        if edits.forwarding.via {
            let mut value = Vec::new();
            for came in fields.all(Known::Via).filter(|value| !value.is_empty()) {
                value.extend_from_slice(came);
                value.extend_from_slice(b", ");
            }
            value.extend_from_slice(super::via_of(crate::wire::Version::V1_1));
            sink.line(b"via", &value);
        }
        if let Some(cookie) = self.set_cookie {
            sink.line(b"set-cookie", cookie);
            // Shared caches would hand one client's server to all.
            let mut value = Vec::new();
            for came in fields.all(Known::CacheControl).filter(|value| !value.is_empty()) {
                value.extend_from_slice(came);
                value.extend_from_slice(b", ");
            }
            value.extend_from_slice(b"private");
            sink.line(b"cache-control", &value);
        }
        for (name, value) in &edits.set_response {
            sink.line(name, value);
        }
    }

    /// A link to `http://` and the host that was asked for, or to the server's own address, as it is right for
    /// a client that came over TLS.
    fn rewritten(&self, link: &[u8]) -> Option<Vec<u8>> {
        let (true, Some(intent)) = (self.client.secure, self.intent) else { return None };
        let scheme = link.get(..7).filter(|scheme| scheme.eq_ignore_ascii_case(b"http://"))?;
        let rest = &link[scheme.len()..];
        let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?' | b'#')).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        let (host, port) = split_authority(authority);
        let (asked, _) = split_authority(intent.asked.authority);
        let is_server = self.server.is_some_and(|server| {
            let text = server.to_string();
            authority.eq_ignore_ascii_case(text.as_bytes())
                || (port.is_none() && host == split_authority(text.as_bytes()).0)
        });
        // Another port of the same host may be another service; the usual one, or the one we were asked at, is
        // this one.
        let local = self.client.ends.local.port().to_string();
        let server_port = self.server.map(|server| server.port().to_string()).unwrap_or_default();
        let same_port = port.is_none_or(|port| {
            port.is_empty() || port == b"80" || port == local.as_bytes() || port == server_port.as_bytes()
        });
        if is_server || (host.eq_ignore_ascii_case(asked) && same_port) {
            return Some([b"https://", intent.asked.authority, path].concat());
        }
        None
    }
}

fn is_secure(cookie: &[u8]) -> bool {
    cookie
        .split(|&byte| byte == b';')
        .skip(1)
        .any(|attribute| attribute.trim_ascii().eq_ignore_ascii_case(b"secure"))
}
