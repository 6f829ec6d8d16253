//! Connection IDs of QUIC-LB: the vectors of the draft (appendix B of revision 21), and what holds for all
//! others.

use lb_common::quic::{
    encode::{encode, plaintext},
    lb::{Encoding, Key},
};
use lb_testkit::{
    dice::{self, Dice},
    quic::{self, datagram, read},
};
use proptest::prelude::*;

/// The key of appendix B.2.
const KEY: Key = Key(0x8f95_f092_4576_5f80_2569_34e5_0c66_207f_u128.to_be_bytes());

/// Rotation, server ID, nonce, key, connection ID.
type Vector = (u8, &'static str, &'static str, Option<Key>, &'static str);

const VECTORS: [Vector; 7] = [
    (0, "c4605e", "4504cc4f", None, "07c4605e4504cc4f"),
    // The draft's second line has a nonce of nine digits, which no octets can be, and accordingly an ID that
    // is half an octet short. Here they are whole.
    (1, "350d28b420", "03487d970b", None, "2a350d28b42003487d970b"),
    (0, "ed793a", "ee080dbf", Some(KEY), "0720b1d07b359d3c"),
    (1, "ed793a51d49b8f5fab65", "ee080dbf48", Some(KEY), "2fcc381bc74cb4fbad2823a3d1f8fed2"),
    (2, "ed793a51d49b8f5f", "ee080dbf48c0d1e5", Some(KEY), "504dd2d05a7b0de9b2b9907afb5ecf8cc3"),
    // Its sixth line says rotation 3, which the first octet of its ID does not.
    (0, "ed793a51d49b8f5fab", "ee080dbf48c0d1e55d", Some(KEY), "125779c9cc86beb3a3a4a3ca96fce4bfe0cdbc"),
    // The example of §5.4.2.4.
    (
        0,
        "31441a",
        "9c69c275",
        Some(Key(0xfdf7_26a9_893e_c05c_0632_d395_6680_baf0_u128.to_be_bytes())),
        "0767947d29be054a",
    ),
];

fn octets(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn servers_write_the_ids_of_the_draft() {
    for (rotation, server_id, nonce, key, id) in VECTORS {
        assert_eq!(encode(rotation, &octets(server_id), &octets(nonce), key), Some(octets(id)), "{id}");
        let whole = octets(&[server_id, nonce].concat());
        assert_eq!(plaintext(&octets(id), whole.len() as u8, key), Some(whole), "{id}");
    }
}

#[test]
fn the_server_ids_of_the_draft_are_read() {
    for (rotation, server_id, nonce, key, id) in VECTORS {
        // Of longer server IDs the first eight octets, as the documents of `quic::lb` recommend.
        let (known, rest) = server_id.split_at(server_id.len().min(16));
        let nonce_length = (rest.len() + nonce.len()) / 2;
        let encoding = Encoding::new((known.len() / 2) as u8, nonce_length as u8, key).unwrap();
        for long in [true, false] {
            let payload = datagram(long, &octets(id), &[0x55; 21]);
            let found = read(&payload, &encoding.entry());
            assert_eq!(found, Some(u64::from_str_radix(known, 16).unwrap()), "{rotation} {id}");
        }
    }
}

#[test]
fn lengths_that_quic_lb_does_not_have_are_no_scheme() {
    for (server_id, nonce) in [(0, 4), (9, 4), (1, 3), (1, 19), (8, 12), (255, 255)] {
        assert_eq!(Encoding::new(server_id, nonce, None), None, "{server_id} and {nonce}");
    }
    for (server_id, nonce) in [(1, 4), (8, 4), (8, 11), (1, 18)] {
        assert!(Encoding::new(server_id, nonce, Some(KEY)).is_some(), "{server_id} and {nonce}");
    }
}

#[test]
fn the_largest_server_id_fills_its_octets() {
    let largest = |length| Encoding::new(length, 4, None).unwrap().max_server_id();
    assert_eq!([largest(1), largest(3), largest(8)], [0xff, 0xff_ffff, u64::MAX]);
}

#[test]
fn every_pair_of_lengths_comes_back_with_and_without_a_key() {
    let noise = dice::noise(1, 100_000);
    let mut dice = Dice::new(&noise);
    let pairs = (1..=8_u8).flat_map(|server| (4..=19 - server).map(move |nonce| (server, nonce)));
    for ((server_length, nonce_length), key) in pairs.flat_map(|pair| [(pair, None), (pair, Some(KEY))]) {
        let encoding = Encoding::new(server_length, nonce_length, key).unwrap();
        let largest = encoding.max_server_id();
        for number in [0, largest, largest & 0x0123_4567_89ab_cdef] {
            let server_id = &number.to_be_bytes()[usize::from(8 - server_length)..];
            let nonce: Vec<u8> = (0..nonce_length).map(|_| dice.byte()).collect();
            let id = encode(6, server_id, &nonce, key).unwrap();
            for long in [true, false] {
                let found = read(&datagram(long, &id, &[]), &encoding.entry());
                assert_eq!(found, Some(number), "{encoding:?}");
            }
        }
    }
}

#[test]
fn a_block_as_long_as_the_datagram_is_read_and_a_longer_one_is_not() {
    // Also where the datagram is the whole rest of the frame: nothing behind it is touched.
    for length in 5..=19 {
        let encoding = Encoding::new(1, length - 1, Some(KEY)).unwrap();
        let id = encode(0, &[0x99], &vec![0x77; usize::from(length) - 1], Some(KEY)).unwrap();
        let payload = datagram(false, &id, &[]);
        assert_eq!(read(&payload, &encoding.entry()), Some(0x99));
        assert_eq!(read(&payload[..payload.len() - 1], &encoding.entry()), None);
    }
}

#[test]
fn an_entry_of_zeros_or_of_no_known_cipher_reads_nothing() {
    let mut entry = Encoding::new(3, 4, Some(KEY)).unwrap().entry();
    let payload = datagram(false, &[7; 20], &[7; 30]);
    assert!(read(&payload, &entry).is_some());
    for cipher in [0, 5, 255] {
        entry.cipher = cipher;
        assert_eq!(read(&payload, &entry), None);
    }
}

#[test]
fn the_key_is_in_no_log() {
    let encoding = Encoding::new(3, 4, Some(Key([0xa5; 16]))).unwrap();
    let text = format!("{encoding:?} {:?}", encoding.entry());
    assert!(!text.contains("165") && !text.to_lowercase().contains("a5"), "{text}");
}

proptest! {
    #[test]
    fn what_servers_write_comes_back(choices in proptest::collection::vec(any::<u8>(), 0..160)) {
        quic::comes_back(&mut Dice::new(&choices));
    }

    #[test]
    fn any_octets_are_read_as_a_slower_reader_reads_them(
        choices in proptest::collection::vec(any::<u8>(), 0..160),
    ) {
        quic::hold(&choices);
    }
}

#[test]
fn the_laws_hold_for_many_seeds() {
    for seed in 0..20_000 {
        quic::hold(&dice::noise(seed, 120));
    }
}
