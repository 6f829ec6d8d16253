//! Heads of requests: the end of one does not depend on how it is cut; and what goes to a server is a request
//! that can be read in one way only, with the same body, one host, and without the cookie that is ours.

#![no_main]

use std::sync::{Arc, LazyLock};

use l7_proxy::{
    http::{Client, Intent, find_cookie, write_request},
    model::{Service, check},
    server::Ends,
    spec::Spec,
    wire::{Framing, HeadLimits, Known, Method, Request, Scan},
};
use libfuzzer_sys::fuzz_target;

const SPEC: &str = r#"{ "services": [{ "name": "web", "listen": ["127.0.0.1:80"], "mode": "http", "pool": "web",
    "persistence": { "type": "cookie", "name": "SRV" },
    "headers": { "forwarded_client_certificate": "sanitize_set", "remove_request": ["X-Secret"],
        "forwarding": { "x_forwarded_host": true, "x_forwarded_port": true, "forwarded": true, "via": true } } }],
    "pools": [{ "name": "web", "servers": [] }], "workers": 1 }"#;

static SERVICE: LazyLock<Arc<Service>> = LazyLock::new(|| {
    let ready = check(&Spec::from_json(SPEC).expect("it is JSON"), None).expect("it can be served");
    Arc::clone(&ready.services[0])
});

const LIMITS: HeadLimits = HeadLimits { bytes: 4_096, lines: 32, target: 1_024 };

fuzz_target!(|data: &[u8]| {
    let mut whole = Scan::default();
    let end = whole.end(data, &LIMITS);
    let mut by_bytes = Scan::default();
    let cut = (0..=data.len()).map(|length| by_bytes.end(&data[..length], &LIMITS));
    let first = cut.into_iter().find(|found| !matches!(found, Ok(None))).unwrap_or(Ok(None));
    if let Ok(Some(end)) = end {
        // What is refused before it is whole is refused when it is.
        let is_refused = Request::default().parse(&data[..end], &LIMITS).is_err();
        assert!(first == Ok(Some(end)) || (first.is_err() && is_refused), "{first:?}");
        request(&data[..end]);
    }
});

fn request(head: &[u8]) {
    let mut request = Request::default();
    if request.parse(head, &LIMITS).is_err() {
        return;
    }
    let Ok(intent) = Intent::of(&request, false) else { return };
    let service = &*SERVICE;
    let address = std::net::SocketAddr::from(([192, 0, 2, 1], 4_567));
    let local = std::net::SocketAddr::from(([192, 0, 2, 2], 80));
    let client = Client::new(Ends { client: address, local }, false, None, None, service);
    let mut out = Vec::new();
    write_request(&mut out, &intent, &client, &service.edits, service.cookie.as_ref());
    let limits = HeadLimits { bytes: 1 << 20, lines: 1_000, target: 1 << 20 };
    let mut scan = Scan::default();
    assert_eq!(scan.end(&out, &limits), Ok(Some(out.len())), "one head and nothing else");
    let mut passed = Request::default();
    passed.parse(&out, &limits).expect("what we write can be read");
    let again = Intent::of(&passed, false).expect("and understood");
    assert_eq!(again.method, intent.method);
    assert_eq!(passed.method_name(), request.method_name());
    assert_eq!(again.framing, intent.framing, "the body ends where it did");
    let fields = &passed.fields;
    let count = |known: Known| fields.all(known).count();
    assert_eq!((count(Known::Host), count(Known::XForwardedFor), count(Known::XForwardedProto)), (1, 1, 1));
    assert_eq!(fields.first(Known::XForwardedFor), Some(&b"192.0.2.1"[..]));
    assert!(count(Known::ContentLength) + count(Known::TransferEncoding) <= 1);
    assert_eq!(count(Known::TransferEncoding), usize::from(intent.framing == Framing::Chunked));
    assert_eq!((count(Known::XForwardedClientCert), count(Known::KeepAlive)), (0, 0));
    assert!(fields.named(b"x-secret").next().is_none());
    assert!(find_cookie(fields, b"SRV").is_none());
    assert!(
        intent.method == Method::Connect || again.asked.path.starts_with(b"/") || again.asked.path == b"*"
    );
}
