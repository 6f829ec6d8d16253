//! The head of a request as a server gets it.

use super::{Client, Intent};
use crate::{
    model::{CookieLine, Edits},
    spec::ForwardedClientCertificate,
    tls::{PREFIX, Shown},
    wire::{Fields, Framing, Known, Method, Sink, put_number},
};

/// Writes the head: hop-by-hop lines and what `Connection` names are left out, what servers are told about the
/// client is added, and the operator's changes are made (RFC 9110 §7.6).
pub fn write_request(
    out: &mut Vec<u8>,
    intent: &Intent<'_>,
    client: &Client,
    edits: &Edits,
    cookie: Option<&CookieLine>,
) {
    let asked = &intent.asked;
    start_line(out, intent);
    let local;
    let host = if asked.authority.is_empty() {
        local = client.ends.local.to_string();
        local.as_bytes()
    } else {
        asked.authority
    };
    out.line(b"Host", host);
    let told = Told::by(client, asked.fields, edits);
    let certificate = Certificate::by(client, asked.fields, edits);
    let named = asked.fields.names_lines();
    for (known, name, value) in asked.fields.iter() {
        if known != Known::Other {
            match known {
                Known::XForwardedClientCert if !certificate.keeps => continue,
                Known::Host | Known::ContentLength => continue,
                _ if known.is_hop_by_hop() => continue,
                Known::Expect if !intent.waits => continue,
                Known::MaxForwards if hops_left(intent).is_some() => continue,
                Known::Cookie => {
                    if let Some(cookie) = cookie {
                        without_cookie(out, name, value, &cookie.name);
                        continue;
                    }
                }
                _ if told.replaces(known) => continue,
                _ => {}
            }
        } else if looks_like(name, |known| is_framing(known) || (!client.trusted && is_forwarding(known)))
            || (certificate.guards && certificate.is_of_it(name))
        {
            continue;
        }
        let is_named = named && known != Known::Cookie && asked.fields.has_element(Known::Connection, name);
        if is_named || edits.drops_request(name) || told.is_request_id(name) {
            continue;
        }
        out.line(name, value);
    }
    told.write(out, client, intent, host);
    certificate.write(out);
    if let Some(left) = hops_left(intent) {
        out.extend_from_slice(b"Max-Forwards: ");
        put_number(out, u64::from(left.saturating_sub(1)));
        out.extend_from_slice(b"\r\n");
    }
    for (name, value) in &edits.set_request {
        out.line(name, value);
    }
    ending(out, intent);
}

/// How many proxies a request may still pass, this one included, where that counts (RFC 9110 §7.6.2).
#[must_use]
pub fn hops_left(intent: &Intent<'_>) -> Option<u32> {
    if !matches!(intent.method, Method::Trace | Method::Options) {
        return None;
    }
    let value = intent.asked.fields.first(Known::MaxForwards)?;
    std::str::from_utf8(value).ok()?.parse().ok()
}

fn start_line(out: &mut Vec<u8>, intent: &Intent<'_>) {
    let asked = &intent.asked;
    out.reserve(asked.path.len() + asked.authority.len() + 512);
    out.extend_from_slice(asked.method);
    out.push(b' ');
    if intent.method == Method::Connect {
        out.extend_from_slice(asked.authority);
    } else if !matches!(asked.path, [b'/', ..] | b"*") {
        out.push(b'/');
        out.extend_from_slice(asked.path);
    } else {
        out.extend_from_slice(asked.path);
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
}

/// What says how the connection and the body go on.
fn ending(out: &mut Vec<u8>, intent: &Intent<'_>) {
    let fields = intent.asked.fields;
    match (intent.upgrade, fields.first(Known::Connection)) {
        // As the client wrote it, where it says nothing else.
        (Some(upgrade), Some(connection)) if only_upgrades(fields) => {
            out.line(b"Upgrade", upgrade);
            out.line(b"Connection", connection);
        }
        (Some(upgrade), _) => {
            out.line(b"Upgrade", upgrade);
            out.line(b"Connection", b"Upgrade");
        }
        (None, _) if intent.takes_trailers => {
            out.line(b"TE", b"trailers");
            out.line(b"Connection", b"TE");
        }
        (None, _) => {}
    }
    match intent.framing {
        Framing::Length(length) => {
            out.extend_from_slice(b"Content-Length: ");
            put_number(out, length);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked | Framing::UntilClose => out.line(b"Transfer-Encoding", b"chunked"),
        // An empty body that was announced is announced to the server too: some ask for it.
        Framing::None
            if fields.first(Known::ContentLength).is_some()
                || matches!(intent.method, Method::Post | Method::Put) =>
        {
            out.line(b"Content-Length", b"0");
        }
        Framing::None => {}
    }
    out.extend_from_slice(b"\r\n");
}

fn only_upgrades(fields: &Fields) -> bool {
    fields.all(Known::Connection).count() == 1
        && fields
            .elements(Known::Connection)
            .all(|name| name.eq_ignore_ascii_case(b"upgrade") || name.eq_ignore_ascii_case(b"keep-alive"))
}

/// Passes a `Cookie` line on without the cookie that is ours (RFC 6265 §4.2).
fn without_cookie(out: &mut Vec<u8>, name: &[u8], value: &[u8], ours: &[u8]) {
    if memchr::memmem::find(value, ours).is_none() {
        return out.line(name, value);
    }
    let before = out.len();
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    let begin = out.len();
    for pair in value.split(|&byte| byte == b';').map(<[u8]>::trim_ascii) {
        if pair.is_empty() || cookie_value(pair, ours).is_some() {
            continue;
        }
        if out.len() > begin {
            out.extend_from_slice(b"; ");
        }
        out.extend_from_slice(pair);
    }
    if out.len() == begin {
        out.truncate(before);
    } else {
        out.extend_from_slice(b"\r\n");
    }
}

fn cookie_value<'a>(pair: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    pair.strip_prefix(name)?.strip_prefix(b"=")
}

/// The value of the cookie of this name that a request brings; lines are looked at, not taken apart.
#[must_use]
pub fn find_cookie<'a>(fields: &'a Fields, name: &[u8]) -> Option<&'a [u8]> {
    let lines = fields.all(Known::Cookie);
    let mut pairs = lines.flat_map(|line| line.split(|&byte| byte == b';').map(<[u8]>::trim_ascii));
    pairs.find_map(|pair| cookie_value(pair, name))
}

/// Whether a name is one of some lines in a spelling that servers of CGI's kind cannot tell from it.
fn looks_like(name: &[u8], is_one: impl Fn(Known) -> bool) -> bool {
    if memchr::memchr(b'_', name).is_none() || name.len() > 24 {
        return false;
    }
    let dashed: Vec<u8> = name.iter().map(|&byte| if byte == b'_' { b'-' } else { byte }).collect();
    is_one(Known::of(&dashed))
}

/// What a server is told about the client's certificate (E4).
struct Certificate<'a> {
    /// What the client says about it is passed on.
    keeps: bool,
    /// What it says in the other lines about it is not.
    guards: bool,
    /// What we say instead.
    set: Option<&'a Shown>,
    /// What we say in the other lines.
    shown: Option<&'a Shown>,
}

impl<'a> Certificate<'a> {
    fn by(client: &'a Client, fields: &Fields, edits: &Edits) -> Self {
        use ForwardedClientCertificate::{
            AlwaysForwardOnly, ForwardOnly, ForwardOnlyIfRouteService, SanitizeSet,
        };
        let shown = client.certificate.as_deref();
        let of_route_service = || fields.named(b"x-cf-proxy-signature").next().is_some();
        let keeps = match edits.client_certificate {
            AlwaysForwardOnly => true,
            ForwardOnly => shown.is_some(),
            SanitizeSet => false,
            ForwardOnlyIfRouteService => shown.is_none() && of_route_service(),
        };
        let sets = matches!(edits.client_certificate, SanitizeSet | ForwardOnlyIfRouteService);
        Self { keeps, guards: edits.guards_certificates, set: shown.filter(|_| sets), shown }
    }

    /// Whether a line says something about it that only we may say.
    fn is_of_it(&self, name: &[u8]) -> bool {
        let begins = || {
            name.iter()
                .zip(PREFIX)
                .all(|(&byte, &dashed)| dashed == if byte == b'_' { b'-' } else { byte.to_ascii_lowercase() })
        };
        (name.len() >= PREFIX.len() && begins())
            || (!self.keeps && looks_like(name, |known| known == Known::XForwardedClientCert))
    }

    fn write(&self, out: &mut Vec<u8>) {
        if let Some(shown) = self.set {
            out.line(b"X-Forwarded-Client-Cert", shown.certificate.as_bytes());
        }
        if let Some(shown) = self.shown {
            shown.write(out);
        }
    }
}

fn is_framing(known: Known) -> bool {
    matches!(known, Known::ContentLength | Known::TransferEncoding)
}

fn is_forwarding(known: Known) -> bool {
    matches!(
        known,
        Known::Forwarded
            | Known::XForwardedFor
            | Known::XForwardedHost
            | Known::XForwardedPort
            | Known::XForwardedProto
    )
}

/// Which lines about the client are ours to write.
struct Told<'a> {
    for_: bool,
    proto: bool,
    host: bool,
    port: bool,
    forwarded: bool,
    via: bool,
    request_id: Option<&'a str>,
    trusted: bool,
}

impl<'a> Told<'a> {
    fn by(client: &Client, fields: &Fields, edits: &'a Edits) -> Self {
        let forwarding = &edits.forwarding;
        let trusted = client.trusted;
        let ours = |wanted: bool, known: Known| wanted && !(trusted && fields.first(known).is_some());
        Self {
            for_: forwarding.x_forwarded_for,
            proto: ours(forwarding.x_forwarded_proto, Known::XForwardedProto),
            host: ours(forwarding.x_forwarded_host, Known::XForwardedHost),
            port: ours(forwarding.x_forwarded_port, Known::XForwardedPort),
            forwarded: forwarding.forwarded,
            via: forwarding.via,
            request_id: forwarding
                .request_id
                .as_deref()
                .filter(|name| !(trusted && fields.named(name.as_bytes()).next().is_some())),
            trusted,
        }
    }

    /// Whether a line that came is not passed on as it is.
    fn replaces(&self, known: Known) -> bool {
        match known {
            Known::XForwardedFor => self.for_ || !self.trusted,
            Known::Forwarded => self.forwarded || !self.trusted,
            Known::Via => self.via,
            _ => is_forwarding(known) && !self.trusted,
        }
    }

    fn is_request_id(&self, name: &[u8]) -> bool {
        self.request_id.is_some_and(|id| name.eq_ignore_ascii_case(id.as_bytes()))
    }

    fn write(&self, out: &mut Vec<u8>, client: &Client, intent: &Intent<'_>, host: &[u8]) {
        let fields = intent.asked.fields;
        let proto: &[u8] = if intent.asked.secure { b"https" } else { b"http" };
        if self.for_ {
            list(out, b"X-Forwarded-For", self.kept(fields, Known::XForwardedFor), |out| {
                out.extend_from_slice(client.address.as_bytes());
            });
        }
        if self.proto {
            out.line(b"X-Forwarded-Proto", proto);
        }
        if self.host {
            out.line(b"X-Forwarded-Host", host);
        }
        if self.port {
            out.extend_from_slice(b"X-Forwarded-Port: ");
            put_number(out, u64::from(client.ends.local.port()));
            out.extend_from_slice(b"\r\n");
        }
        if self.forwarded {
            list(out, b"Forwarded", self.kept(fields, Known::Forwarded), |out| {
                // RFC 7239 §6: what is no token must be quoted; IPv6 addresses stand in brackets.
                out.extend_from_slice(b"for=");
                if client.ip().is_ipv6() {
                    out.extend_from_slice(b"\"[");
                    out.extend_from_slice(client.address.as_bytes());
                    out.extend_from_slice(b"]\"");
                } else {
                    out.extend_from_slice(client.address.as_bytes());
                }
                out.extend_from_slice(b";host=\"");
                out.extend_from_slice(host);
                out.extend_from_slice(b"\";proto=");
                out.extend_from_slice(proto);
            });
        }
        if self.via {
            list(out, b"Via", fields.all(Known::Via), |out| {
                out.extend_from_slice(super::via_of(intent.version));
            });
        }
        if let Some(name) = self.request_id {
            out.line(name.as_bytes(), &super::request_id());
        }
    }

    /// Lines that came and are continued; none of a client that is not trusted.
    fn kept<'f>(&self, fields: &'f Fields, known: Known) -> impl Iterator<Item = &'f [u8]> {
        let count = if self.trusted { usize::MAX } else { 0 };
        fields.all(known).take(count)
    }
}

/// Writes a line whose value is a list: what came, then ours.
fn list<'a>(
    out: &mut Vec<u8>,
    name: &[u8],
    came: impl Iterator<Item = &'a [u8]>,
    ours: impl FnOnce(&mut Vec<u8>),
) {
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    for value in came.filter(|value| !value.is_empty()) {
        out.extend_from_slice(value);
        out.extend_from_slice(b", ");
    }
    ours(out);
    out.extend_from_slice(b"\r\n");
}
