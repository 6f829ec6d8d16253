//! The opening handshake of WebSockets (RFC 6455 §4.2.2) where only one side of us has one: in HTTP/2 there is none (RFC 8441 §5).

use crate::wire::{Answer, Fields, Known, Sink, base64};

/// What a server that has understood a key answers with.
fn accept(key: &[u8]) -> String {
    const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let sha1 = &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY;
    base64(aws_lc_rs::digest::digest(sha1, &[key, GUID].concat()).as_ref())
}

/// Whether an answer of 101 opens the WebSocket that was asked for: its client cannot see that itself.
pub(super) fn opens(answer: &Answer, asked: &Fields) -> bool {
    let accepted = answer.fields.named(b"sec-websocket-accept").next();
    let key = asked.named(b"sec-websocket-key").next();
    answer.fields.has_element(Known::Upgrade, b"websocket")
        && answer.fields.has_element(Known::Connection, b"upgrade")
        && key.is_some_and(|key| accepted.is_some_and(|accepted| accepted == accept(key).as_bytes()))
}

/// Makes of an answer that opens a tunnel the one by which HTTP/1.1 does.
pub(super) fn shake_hands(answer: &mut Answer, asked: &Fields) {
    let lines: Vec<(Vec<u8>, Vec<u8>)> = answer
        .fields
        .iter()
        .filter(|(known, name, _)| {
            *known != Known::ContentLength && !name.eq_ignore_ascii_case(b"sec-websocket-accept")
        })
        .map(|(_, name, value)| (name.to_vec(), value.to_vec()))
        .collect();
    answer.begin(101);
    answer.fields.line(b"Upgrade", b"websocket");
    answer.fields.line(b"Connection", b"Upgrade");
    for (name, value) in lines {
        answer.fields.line(&name, &value);
    }
    if let Some(key) = asked.named(b"sec-websocket-key").next() {
        answer.fields.line(b"Sec-WebSocket-Accept", accept(key).as_bytes());
    }
}
