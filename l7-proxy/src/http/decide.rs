//! What becomes of a request.

use std::{borrow::Cow, sync::Arc};

use super::{Client, Intent, hops_left};
use crate::{
    model::{Action, Page, Service},
    server::Pool,
    wire::{Framing, Known, Method},
};

/// What becomes of a request.
#[derive(Debug)]
pub enum Decision<'s> {
    /// It goes to a server of this pool.
    Pool(&'s Arc<Pool>),
    /// It is answered here.
    Page(Cow<'s, Page>),
}

/// Decides. Whatever a client may not do is refused before routes are looked at.
#[must_use]
pub fn decide<'s>(service: &'s Service, client: &Client, intent: &Intent<'_>) -> Decision<'s> {
    let own = |status| Decision::Page(Cow::Owned(service.pages.get(status)));
    match intent.method {
        Method::Connect if !service.edits.allow_connect => {
            return Decision::Page(Cow::Owned(not_allowed(service)));
        }
        Method::Trace if service.edits.refuse_trace => {
            return Decision::Page(Cow::Owned(not_allowed(service)));
        }
        _ => {}
    }
    if hops_left(intent) == Some(0) {
        // It is for us: what we can do for any target, and what it was that reached us.
        return Decision::Page(Cow::Owned(match intent.method {
            Method::Trace => Page::with_body(200, "message/http", trace(intent)),
            _ => Page::with_body(200, "text/plain", String::new()),
        }));
    }
    if let (Framing::Length(length), Some(most)) = (intent.framing, service.limits.body_bytes)
        && length > most
    {
        return own(413);
    }
    if let Some(tls) = &service.tls
        && tls.is_fronting(client.server_name.as_deref(), intent.asked.authority)
    {
        return own(421);
    }
    let route = service.routes.iter().find(|route| route.matches(&intent.asked));
    match route.map_or(&service.action, |route| &route.action) {
        Action::Pool(pool) if pool.has_server() => Decision::Pool(pool),
        Action::Pool(pool) => match &service.fallback {
            Some(fallback) if fallback.has_server() => Decision::Pool(fallback),
            // Servers that drain still take those who persist on them.
            _ if pool.has_draining() => Decision::Pool(pool),
            _ => own(503),
        },
        Action::Redirect(location) => {
            Decision::Page(Cow::Owned(Page::redirect(location.status, location.of(&intent.asked))))
        }
        Action::Answer(page) => Decision::Page(Cow::Borrowed(page)),
        Action::Status(status) => own(*status),
    }
}

/// Says which methods are allowed (RFC 9110 §15.5.6), as far as it is us who refuse some.
fn not_allowed(service: &Service) -> Page {
    let mut page = service.pages.get(405);
    if !page.lines.iter().any(|(name, _)| name == b"allow") {
        let methods = "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS";
        let trace = if service.edits.refuse_trace { "" } else { ", TRACE" };
        page.lines.push((b"allow".to_vec(), format!("{methods}{trace}").into_bytes()));
    }
    page
}

/// The request as it came, less what may be secret (RFC 9110 §9.3.8).
fn trace(intent: &Intent<'_>) -> String {
    let asked = &intent.asked;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let mut message = format!("TRACE {} HTTP/1.1\r\n", text(asked.path));
    for (known, name, value) in asked.fields.iter() {
        let is_secret = known == Known::Cookie
            || [&b"authorization"[..], b"proxy-authorization"]
                .iter()
                .any(|secret| name.eq_ignore_ascii_case(secret));
        if !is_secret {
            message += &format!("{}: {}\r\n", text(name), text(value));
        }
    }
    message + "\r\n"
}
