//! Looks at the frames of a client as they come: the h2 crate ends connections for what is wrong with them, but
//! does not always say so with the code of RFC 9113, lets pseudo-fields pass in trailers and settings be missing,
//! and does not count frames that are there to keep us busy. Pure.
//!
//! The nine bytes before each frame are followed through everything, and the bytes of trailers; of what else is in a frame, what
//! lies in the same piece.

use super::block::{Fields, begins_with_pseudo};
use crate::io::Watch;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const PRIORITY: u8 = 2;
const RESET: u8 = 3;
const SETTINGS: u8 = 4;
const PUSH_PROMISE: u8 = 5;
const PING: u8 = 6;
const GOAWAY: u8 = 7;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 32;

/// As how many frames of no use one that takes a request back counts.
const RESET_COSTS: u32 = 5;

/// Bytes that must have been sent for each window that a client opens: it may open that of a stream and that of the connection for
/// each frame of a byte, which is ten long. No more than so many are remembered.
const OPENED: usize = 5;
const MOST_SENT: usize = 256 * 1024;

/// As so many windows counts a change of all of them, and as so many frames of no use.
const ALL_WINDOWS: u32 = 1_024;
const CHANGE_COSTS: u32 = 50;

/// Error codes (RFC 9113 §7).
const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE_ERROR: u32 = 6;
const ENHANCE_YOUR_CALM: u32 = 11;

/// Frames of a connection before it is the turn of others: each may have a task do something, and hundreds come together. Fewer
/// would be answered with a write of their own, each a record of TLS.
const TURN: u32 = 16;

/// Bytes of the preface (RFC 9113 §3.4) and of a frame's head.
const PREFACE: usize = 24;
const HEAD: usize = 9;

/// What is known of a connection's frames.
#[derive(Debug)]
pub(super) struct Guard {
    /// Bytes of the preface or of a frame that are still to come.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    /// The highest stream that was begun, and the one whose request ended last.
    top: u32,
    ended: u32,
    /// The stream whose header block is open.
    block: Option<u32>,
    /// The code for what was wrong first.
    verdict: Option<u32>,
    /// Frames of no use, in this second, and how many there may be.
    second: u64,
    idle: u32,
    most_idle: u32,
    most_fields: usize,
    /// Bytes that were sent, and that windows may be opened for; and those that were, until that is asked.
    sent: usize,
    opened: u32,
    /// The trailers that a frame, or some of them, are about.
    trailers: Option<Trailers>,
    /// Whether settings have come, which must be first.
    began: bool,
    end: Option<u32>,
    /// What is left of a turn.
    turn: u32,
}

/// Trailers that come.
#[derive(Debug)]
struct Trailers {
    fields: Fields,
    /// Of this frame: whether the length of its padding is still to come, bytes before the block, and bytes of the block.
    is_padded: bool,
    before: usize,
    left: usize,
}

impl Trailers {
    fn new(frame: &Frame<'_>) -> Self {
        let is_padded = frame.flags & PADDED != 0;
        let before = if frame.flags & WITH_PRIORITY != 0 { 5 } else { 0 };
        Self { fields: Fields::default(), is_padded, before, left: frame.length.saturating_sub(before) }
    }

    fn take(&mut self, mut bytes: &[u8]) {
        if let (true, Some((&padding, rest))) = (self.is_padded, bytes.split_first()) {
            self.is_padded = false;
            self.left = self.left.saturating_sub(1 + usize::from(padding));
            bytes = rest;
        }
        let before = self.before.min(bytes.len());
        self.before -= before;
        bytes = &bytes[before..];
        let block = self.left.min(bytes.len());
        self.left -= block;
        self.fields.take(&bytes[..block]);
    }
}

/// A frame, and its bytes if they are there.
struct Frame<'a> {
    kind: u8,
    flags: u8,
    stream: u32,
    length: usize,
    payload: Option<&'a [u8]>,
}

impl Guard {
    /// Nothing has come yet. `most_idle` frames of no use may come in a second, and `most_fields` in trailers.
    pub(super) fn new(most_idle: u32, most_fields: usize) -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            have: 0,
            top: 0,
            ended: 0,
            block: None,
            verdict: None,
            second: 0,
            idle: 0,
            most_idle,
            most_fields,
            sent: 0,
            opened: 0,
            trailers: None,
            began: false,
            end: None,
            turn: TURN,
        }
    }

    /// The code with which the connection has to end for what the h2 crate does not mind; told once.
    pub(super) fn take_end(&mut self) -> Option<u32> {
        self.end.take()
    }

    /// A frame has begun. Says whether it has to lose its END_STREAM: trailers with a pseudo-field, which must
    /// come first, are then the error of the stream that they should be (RFC 9113 §8.1).
    fn frame(&mut self, frame: &Frame<'_>) -> bool {
        let is_over = matches!(frame.kind, DATA | HEADERS) && frame.stream == self.ended && self.ended > 0;
        let are_trailers = frame.kind == HEADERS && !is_over && frame.stream <= self.top;
        let spoils =
            are_trailers && frame.flags & END_STREAM != 0 && frame.fields().is_some_and(begins_with_pseudo);
        self.trailers = match (frame.kind, self.trailers.take()) {
            (HEADERS, _) if are_trailers => Some(Trailers::new(frame)),
            (CONTINUATION, Some(Trailers { fields, .. })) => {
                Some(Trailers { fields, is_padded: false, before: 0, left: frame.length })
            }
            _ => None,
        };
        let is_new = frame.stream > self.top && frame.stream % 2 == 1;
        self.verdict = self.verdict.or_else(|| self.wrong(frame, is_new));
        self.count(frame);
        if !self.began {
            self.began = true;
            if frame.kind != SETTINGS || frame.flags & ACK != 0 {
                self.end = Some(PROTOCOL_ERROR);
            }
        }
        if is_over && self.end.is_none() {
            // RFC 9113 §5.1: nobody who has ended a stream sends more of it.
            self.end = Some(STREAM_CLOSED);
        }
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            self.block = (frame.flags & END_HEADERS == 0).then_some(frame.stream);
            self.top = self.top.max(frame.stream);
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            self.ended = frame.stream;
        }
        spoils
    }

    /// The code for what is wrong with the connection since this frame.
    fn wrong(&self, frame: &Frame<'_>, is_new: bool) -> Option<u32> {
        let Frame { kind, flags, stream, length, .. } = *frame;
        let is_in_block = self.block.is_some_and(|block| kind == CONTINUATION && block == stream);
        if self.block.is_some() != is_in_block || (kind == CONTINUATION && !is_in_block) {
            return Some(PROTOCOL_ERROR);
        }
        let size_is_wrong = match kind {
            PRIORITY => length != 5,
            RESET | WINDOW_UPDATE => length != 4,
            PING => length != 8,
            SETTINGS => length % 6 != 0 || (flags & ACK != 0 && length != 0),
            _ => false,
        };
        if size_is_wrong {
            return Some(FRAME_SIZE_ERROR);
        }
        let is_idle = stream > self.top;
        let place_is_wrong = match kind {
            DATA | RESET => stream == 0 || is_idle,
            WINDOW_UPDATE => is_idle,
            HEADERS => stream == 0 || (is_idle && !is_new),
            PRIORITY => stream == 0,
            SETTINGS | PING | GOAWAY => stream != 0,
            PUSH_PROMISE => true,
            _ => false,
        };
        if place_is_wrong || frame.padding_is_wrong() {
            return Some(PROTOCOL_ERROR);
        }
        match (kind, frame.payload) {
            (DATA | HEADERS, _) if stream == self.ended => Some(STREAM_CLOSED),
            (WINDOW_UPDATE, Some([_, 0, 0, 0])) if stream == 0 => Some(PROTOCOL_ERROR),
            (SETTINGS, Some(payload)) => payload.chunks_exact(6).find_map(setting_is_wrong),
            _ => None,
        }
    }

    /// What is in a frame. Trailers are kept until the body before them has been read, and a byte can be a field of them: they
    /// have as many as a head at most.
    fn pass(&mut self, bytes: &[u8]) {
        if let Some(trailers) = &mut self.trailers {
            trailers.take(bytes);
            if trailers.fields.count() > self.most_fields {
                self.trailers = None;
                self.end = Some(ENHANCE_YOUR_CALM);
            }
        }
    }

    fn count(&mut self, frame: &Frame<'_>) {
        let is_of_use = match frame.kind {
            HEADERS | GOAWAY => true,
            // Nobody opens windows again and again through which nothing has gone.
            WINDOW_UPDATE => self.sent >= OPENED,
            DATA => frame.length > 0 || frame.flags & END_STREAM != 0,
            CONTINUATION => frame.length > 0,
            _ => false,
        };
        if frame.kind == WINDOW_UPDATE {
            self.sent = self.sent.saturating_sub(OPENED);
            self.opened = self.opened.saturating_add(1);
        } else if frame.changes_windows() {
            self.opened = self.opened.saturating_add(ALL_WINDOWS);
        }
        if is_of_use {
            return;
        }
        self.add_idle(match frame.kind {
            // A request that is taken back has cost a server work by then.
            RESET => RESET_COSTS,
            // All streams that wait are looked at.
            SETTINGS if self.began && frame.changes_windows() => CHANGE_COSTS,
            _ => 1,
        });
    }

    /// How many windows were opened since it was asked last.
    pub(super) fn take_opened(&mut self) -> u32 {
        std::mem::take(&mut self.opened)
    }

    /// A request was refused that the client may ask again, without an end.
    pub(super) fn add_refused(&mut self) {
        self.add_idle(RESET_COSTS);
    }

    /// In each second all is counted anew.
    fn tick(&mut self) {
        let second = crate::server::now() / 1_000;
        if self.second != second {
            (self.second, self.idle) = (second, 0);
        }
    }

    fn add_idle(&mut self, frames: u32) {
        self.tick();
        let before = self.idle;
        self.idle = before.saturating_add(frames);
        if before <= self.most_idle && self.idle > self.most_idle {
            self.end = Some(ENHANCE_YOUR_CALM);
        }
    }
}

/// The code for a setting that may not be (RFC 9113 §6.5.2, RFC 8441 §3).
fn setting_is_wrong(setting: &[u8]) -> Option<u32> {
    let [high, low, value @ ..] = setting else { return None };
    let value = value.iter().fold(0_u32, |value, &byte| value << 8 | u32::from(byte));
    match u16::from_be_bytes([*high, *low]) {
        2 | 8 if value > 1 => Some(PROTOCOL_ERROR),
        4 if value > 0x7fff_ffff => Some(FLOW_CONTROL_ERROR),
        5 if !(1 << 14..1 << 24).contains(&value) => Some(PROTOCOL_ERROR),
        _ => None,
    }
}

impl Frame<'_> {
    /// Whether it changes the windows of all streams (SETTINGS_INITIAL_WINDOW_SIZE); what is not there may.
    fn changes_windows(&self) -> bool {
        let has_it = |payload: &[u8]| payload.chunks_exact(6).any(|setting| setting.starts_with(&[0, 4]));
        self.kind == SETTINGS && self.flags & ACK == 0 && self.payload.is_none_or(has_it)
    }

    fn padding_is_wrong(&self) -> bool {
        let before = if self.kind == HEADERS && self.flags & WITH_PRIORITY != 0 { 6 } else { 1 };
        matches!(self.kind, DATA | HEADERS)
            && self.flags & PADDED != 0
            && self.payload.is_some_and(|payload| {
                payload.first().is_none_or(|&padding| usize::from(padding) + before > payload.len())
            })
    }

    /// What of a header block is in it.
    fn fields(&self) -> Option<&[u8]> {
        let payload = self.payload?;
        let priority = if self.flags & WITH_PRIORITY != 0 { 5 } else { 0 };
        if self.flags & PADDED == 0 {
            return payload.get(priority..);
        }
        let (&padding, rest) = payload.split_first()?;
        rest.get(priority..rest.len().checked_sub(usize::from(padding))?)
    }
}

impl Watch for Guard {
    fn came(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() - at);
                self.skip -= skipped;
                self.pass(&bytes[at..at + skipped]);
                at += skipped;
                continue;
            }
            // What takes a request back comes through with it, so that nothing is begun for it.
            if self.turn == 0 && self.have == 0 && bytes.get(at + 3) != Some(&RESET) {
                break;
            }
            let taken = (HEAD - self.have).min(bytes.len() - at);
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[at..at + taken]);
            self.have += taken;
            at += taken;
            if self.have < HEAD {
                break;
            }
            self.have = 0;
            let [a, b, c, kind, flags, stream @ ..] = self.head;
            self.turn = self.turn.saturating_sub(u32::from(kind != RESET));
            self.skip = usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c);
            let frame = Frame {
                kind,
                flags,
                stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
                length: self.skip,
                payload: bytes.get(at..at + self.skip),
            };
            if self.frame(&frame) && taken == HEAD {
                bytes[at - HEAD + 4] &= !END_STREAM;
            }
        }
        at
    }

    fn next_turn(&mut self) {
        self.turn = TURN;
    }

    fn goes(&mut self, bytes: &mut [u8], new: usize) {
        self.sent = (self.sent + new).min(MOST_SENT);
        // GOAWAY is the last that is written.
        let Some([0, 0, 8, GOAWAY, 0, 0, 0, 0, 0, _, _, _, _, code @ ..]) = bytes.last_chunk_mut::<17>()
        else {
            return;
        };
        if let Some(verdict) = self.verdict
            && *code == PROTOCOL_ERROR.to_be_bytes()
        {
            *code = verdict.to_be_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream][..], payload].concat()
    }

    /// The code that a GOAWAY gets after these bytes, which come in pieces of `step`.
    fn code(bytes: &[u8], step: usize) -> u32 {
        let mut guard = Guard::new(1_000, 128);
        for piece in [&[0; PREFACE][..], bytes].concat().chunks_mut(step) {
            let mut left = piece;
            while !left.is_empty() {
                let passed = guard.came(left);
                assert!(passed > 0, "each turn gets on");
                left = &mut left[passed..];
                guard.next_turn();
            }
        }
        let mut goaway = frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]);
        guard.goes(&mut goaway, 17);
        u32::from_be_bytes(goaway[13..].try_into().unwrap())
    }

    #[test]
    fn frames_are_followed_however_they_are_cut() {
        let get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82, 0x86, 0x84]);
        let before = [frame(SETTINGS, 0, 0, &[0; 6]), get, frame(PING, 0, 0, &[0; 8])].concat();
        for step in 1..60 {
            assert_eq!(code(&before, step), PROTOCOL_ERROR);
            let short = [before.clone(), frame(PING, 0, 0, &[0; 7])].concat();
            assert_eq!(code(&short, step), FRAME_SIZE_ERROR, "{step}");
        }
    }

    /// The code with which a connection ends that may have ten fields in trailers, after these frames in pieces of `step`.
    fn end(frames: &[Vec<u8>], step: usize) -> Option<u32> {
        let mut guard = Guard::new(1_000, 10);
        let begin =
            [vec![0; PREFACE], frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &[0x82; 20])];
        for piece in [begin.concat(), frames.concat()].concat().chunks_mut(step) {
            guard.next_turn();
            assert_eq!(guard.came(piece), piece.len());
        }
        guard.take_end()
    }

    #[test]
    fn trailers_have_no_more_fields_than_a_head_however_they_are_cut() {
        let trailers = |flags, block: &[u8]| frame(HEADERS, END_STREAM | flags, 1, block);
        for step in 1..100 {
            let of = |many: usize| trailers(END_HEADERS, &vec![0xbe; many]);
            assert_eq!(end(&[of(10)], step), None, "{step}");
            assert_eq!(end(&[of(11)], step), Some(ENHANCE_YOUR_CALM), "{step}");
            // What is long is not many.
            let long = [&[0x40, 1, b'a', 0x7f, 0x49][..], &[0xbe; 200]].concat();
            assert_eq!(end(&[trailers(END_HEADERS, &long)], step), None, "{step}");
            let padded = [&[100, 0, 0, 0, 0, 0][..], &[0xbe; 10], &[0; 100]].concat();
            let flags = END_HEADERS | PADDED | WITH_PRIORITY;
            assert_eq!(end(&[trailers(flags, &padded)], step), None, "{step}");
            // In several frames.
            let [six, more] = [0, END_HEADERS].map(|flags| frame(CONTINUATION, flags, 1, &[0xbe; 6]));
            assert_eq!(end(&[trailers(0, &[0xbe; 4]), six.clone()], step), None, "{step}");
            assert_eq!(end(&[trailers(0, &[0xbe; 4]), six.clone(), more], step), Some(ENHANCE_YOUR_CALM));
            // A head is for others to judge.
            let head = [frame(HEADERS, 0, 3, &[0xbe; 50]), frame(CONTINUATION, 0, 3, &[0xbe; 50])];
            assert_eq!(end(&head, step), None);
        }
    }

    #[test]
    fn a_turn_is_sixteen_frames_and_ends_between_two() {
        let mut guard = Guard::new(1_000, 128);
        let mut all = [&[0; PREFACE][..], &frame(DATA, 0, 1, b"some").repeat(40)].concat();
        let mut passed = Vec::new();
        let mut at = 0;
        while at < all.len() {
            passed.push(guard.came(&mut all[at..]));
            assert_eq!(guard.came(&mut all[at + passed[passed.len() - 1]..]), 0, "no more in this turn");
            at += passed[passed.len() - 1];
            guard.next_turn();
        }
        assert_eq!(passed, [PREFACE + 16 * 13, 16 * 13, 8 * 13]);
        // What takes a request back belongs to it.
        guard.next_turn();
        let mut more = [frame(DATA, 0, 1, b"some"), frame(RESET, 0, 1, &[0; 4])].concat().repeat(20);
        assert_eq!(guard.came(&mut more), 16 * 26);
        // A frame that comes in two pieces is one frame.
        guard.next_turn();
        let mut more = frame(DATA, 0, 1, b"some").repeat(20);
        assert_eq!((guard.came(&mut more[..5]), guard.came(&mut more[5..])), (5, 16 * 13 - 5));
    }

    #[test]
    fn trailers_with_pseudo_fields_do_not_end_the_stream() {
        let mut guard = Guard::new(1_000, 128);
        guard.came(&mut [0; PREFACE]);
        for (number, (block, spoilt)) in [
            (&[0x82][..], true),
            (&[0x20, 0x82], true),
            (&[0x20, 0x3f, 0xe1, 0x1f, 0x82], true),
            (&[0x3f, 0xe1, 0x1f, 0, 1, b'x', 1, b'y'], false),
            (&[0x3f, 0xe1], false),
            (&[0x42, 1, b'x'], true),
            (&[0, 2, b':', b'x', 0], true),
            (&[0x40, 0x85, 0xb9, 0x49, 0x53, 0x39, 0xe4, 0x01, b'x'], true),
            (&[0, 1, b'x', 1, b'y'], false),
            (&[0x40, 0x85, 0xf2, 0xb2, 0x4a, 0x84, 0xff, 1, b'y'], false),
        ]
        .into_iter()
        .enumerate()
        {
            let stream = 2 * number as u8 + 1;
            guard.next_turn();
            guard.came(&mut frame(HEADERS, END_HEADERS, stream, &[0x82, 0x86, 0x84]));
            let mut trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
            guard.came(&mut trailers);
            assert_eq!(trailers[4] & END_STREAM == 0, spoilt, "{block:?}");
        }
    }

    #[test]
    fn frames_of_no_use_are_counted() {
        let mut guard = Guard::new(10, 128);
        guard.came(&mut [0; PREFACE]);
        for _ in 0..100 {
            guard.next_turn();
            guard.came(&mut frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82]));
            guard.came(&mut frame(DATA, 0, 1, b"x"));
            guard.goes(&mut frame(DATA, 0, 1, b"x"), 10);
            guard.came(&mut frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
        }
        assert_eq!(guard.take_end(), Some(PROTOCOL_ERROR), "no settings came");
        // Two seconds at most begin meanwhile.
        for _ in 0..40 {
            guard.next_turn();
            guard.came(&mut frame(DATA, 0, 1, b""));
        }
        assert_eq!((guard.take_end(), guard.take_end()), (Some(ENHANCE_YOUR_CALM), None));
        let with_settings = || {
            let mut guard = Guard::new(10, 128);
            guard.came(&mut [0; PREFACE]);
            guard.came(&mut frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0]));
            guard
        };
        let mut guard = with_settings();
        // The windows of the stream and of the connection for each byte that came: all it can.
        for _ in 0..10_000 {
            guard.next_turn();
            guard.goes(&mut [], 10);
            guard.came(&mut frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]).repeat(2));
        }
        assert_eq!((guard.take_opened(), guard.take_opened()), (21_024, 0));
        assert_eq!(guard.take_end(), None);
        for _ in 0..40 {
            guard.next_turn();
            guard.came(&mut frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
        }
        assert_eq!(guard.take_end(), Some(ENHANCE_YOUR_CALM));
        // All windows at once, and something else.
        let mut guard = with_settings();
        guard.came(&mut frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(4));
        assert_eq!((guard.take_opened(), guard.take_end()), (ALL_WINDOWS, None));
        guard.came(&mut frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).repeat(3));
        assert_eq!((guard.take_opened(), guard.take_end()), (3 * ALL_WINDOWS, Some(ENHANCE_YOUR_CALM)));
        let mut guard = with_settings();
        for _ in 0..6 {
            guard.next_turn();
            guard.came(&mut frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82]));
            guard.came(&mut frame(RESET, 0, 1, &[0, 0, 0, 8]));
        }
        assert_eq!(guard.take_end(), Some(ENHANCE_YOUR_CALM), "requests that are taken back one by one");
    }
}
