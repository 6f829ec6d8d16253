//! QUIC datagrams whose connection IDs say where they want to go, and what must hold for all of them.

use lb_common::{
    abi::QuicLb,
    quic::{
        cid, encode,
        lb::{self, Encoding, Key},
    },
};

use crate::dice::Dice;

/// Octets before the payload in the frames made here: no offset may be taken for another.
const BEFORE: usize = 42;

/// The server ID that the packet path reads in a UDP payload.
#[must_use]
pub fn read(payload: &[u8], entry: &QuicLb) -> Option<u64> {
    let frame = [&[0xee; BEFORE], payload].concat();
    let dcid = cid::locate(&frame[..], BEFORE, payload.len())?;
    lb::decode(&frame[..], &dcid, entry)
}

/// A datagram with a long header (version 1, no source ID) or a short one, to this connection ID.
#[must_use]
pub fn datagram(long: bool, id: &[u8], rest: &[u8]) -> Vec<u8> {
    if long {
        [&[0xc0, 0, 0, 0, 1, id.len() as u8], id, &[0], rest].concat()
    } else {
        [&[0x40], id, rest].concat()
    }
}

/// Any encoding there can be.
pub fn encoding(dice: &mut Dice<'_>) -> Encoding {
    let server_id = 1 + dice.below(8) as u8;
    let nonce = 4 + dice.below(usize::from(lb::MAX_BLOCK - server_id) - 3) as u8;
    let key = dice.chance(200).then(|| Key(core::array::from_fn(|_| dice.byte())));
    Encoding::new(server_id, nonce, key).expect("lengths within their ranges")
}

/// A payload is read as a slower reader reads it, octet by octet.
///
/// # Panics
/// If it is not.
pub fn agrees(payload: &[u8], encoding: &Encoding) {
    let id = match payload {
        [0x80..=0xff, _, _, _, _, length, rest @ ..] => rest.get(..usize::from(*length)),
        [0x80..=0xff, ..] => None,
        [_, rest @ ..] => Some(rest),
        [] => None,
    };
    let length = encoding.server_id_length() + encoding.nonce_length();
    let expected = id.and_then(|id| encode::plaintext(id, length, encoding.key())).map(|plain| {
        plain[..usize::from(encoding.server_id_length())]
            .iter()
            .fold(0, |number, octet| number << 8 | u64::from(*octet))
    });
    assert_eq!(read(payload, &encoding.entry()), expected, "{encoding:?} {payload:02x?}");
}

/// What a server has written is read, whatever surrounds it; with an octet less it is not.
///
/// # Panics
/// If it is not so.
pub fn comes_back(dice: &mut Dice<'_>) {
    let encoding = encoding(dice);
    let rotation = dice.below(7) as u8;
    let server_id: Vec<u8> = (0..encoding.server_id_length()).map(|_| dice.byte()).collect();
    let nonce: Vec<u8> = (0..encoding.nonce_length()).map(|_| dice.byte()).collect();
    let mut id =
        encode::encode(rotation, &server_id, &nonce, encoding.key()).expect("lengths that QUIC-LB has");
    let exact = id.len();
    // Servers may add octets of their own (§5.4).
    id.extend(dice.bytes(21 - exact));
    let rest = dice.bytes(64);
    let number = server_id.iter().fold(0, |number, octet| number << 8 | u64::from(*octet));

    for long in [true, false] {
        let payload = datagram(long, &id, &rest);
        assert_eq!(read(&payload, &encoding.entry()), Some(number), "{encoding:?} {payload:02x?}");
        let located = cid::locate(&payload[..], 0, payload.len()).expect("an ID");
        assert_eq!(located.rotation(), rotation);
        agrees(&payload, &encoding);
        // As a long header tells it, and as the end of the datagram does.
        let short = datagram(long, &id[..exact - 1], &[]);
        assert_eq!(read(&short, &encoding.entry()), None, "{encoding:?} {short:02x?}");
    }
}

/// Choices as they come: IDs of servers, damaged ones, and no IDs at all; also with entries that no encoding
/// makes.
///
/// # Panics
/// If a law is broken.
pub fn hold(data: &[u8]) {
    let mut dice = Dice::new(data);
    comes_back(&mut dice.clone());
    let encoding = encoding(&mut dice);
    let mut entry = encoding.entry();
    (entry.length, entry.shift, entry.cipher) = (dice.byte(), dice.byte(), dice.byte() % 6);
    (entry.middle, entry.left.high_end, entry.right.low_shift) = (dice.byte(), dice.byte(), dice.byte());
    let payload = dice.bytes(80);
    agrees(&payload, &encoding);
    // Whatever is read: it is no server's, and the point is that it returns.
    let _ = read(&payload, &entry);
    agrees(data, &encoding);
}
