//! Routes: another spelling of the same path leads to the same place, and hosts are told apart.

#![no_main]

use std::sync::{Arc, LazyLock};

use l7_proxy::{
    model::{Asked, Service, check},
    spec::Spec,
    wire::{Fields, Method, Target, authority_is_valid},
};
use libfuzzer_sys::fuzz_target;

const SPEC: &str = r#"{ "services": [{ "name": "web", "listen": ["127.0.0.1:80"], "mode": "http", "routes": [
    { "paths": ["/admin", "/a/b"], "answer": { "status": 403 } },
    { "hosts": ["*.example", "b"], "paths": ["/"], "answer": { "status": 200 } }] }], "workers": 1 }"#;

static SERVICE: LazyLock<Arc<Service>> = LazyLock::new(|| {
    let ready = check(&Spec::from_json(SPEC).expect("it is JSON"), None).expect("it can be served");
    Arc::clone(&ready.services[0])
});

fuzz_target!(|data: &[u8]| {
    let Some((&place, data)) = data.split_first() else { return };
    let (path, host) = data.split_at(data.len() - data.len() / 4);
    let path = [b"/", path].concat();
    if !authority_is_valid(host) || !matches!(Target::parse(Method::Get, &path), Ok(Target::Origin(_))) {
        return;
    }
    let fields = Fields::default();
    let leads_to = |path: &[u8]| {
        let asked = Asked { authority: host, path, method: b"GET", fields: &fields, secure: false };
        SERVICE.routes.iter().position(|route| route.matches(&asked))
    };
    let before = leads_to(&path);
    // One of its bytes as an escape, unless that is within one.
    let at = usize::from(place) % path.len();
    let in_escape = path[at] == b'%' || path[at.saturating_sub(2)..at].contains(&b'%');
    let in_query = path[..=at].contains(&b'?');
    if !in_escape && !in_query && path[at].is_ascii_alphanumeric() {
        let escape = format!("%{:02x}", path[at]).into_bytes();
        let escaped = [&path[..at], &escape, &path[at + 1..]].concat();
        assert_eq!(leads_to(&escaped), before, "{}", String::from_utf8_lossy(&escaped));
    }
    for same in [[b"/.", &path[..]].concat(), [b"/x/..", &path[..]].concat(), [b"/", &path[..]].concat()] {
        assert_eq!(leads_to(&same), before, "{}", String::from_utf8_lossy(&same));
    }
});
