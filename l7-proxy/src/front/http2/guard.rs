//! Looks at the frames of a client as they come: the h2 crate ends connections for what is wrong with them, but
//! does not always say so with the code of RFC 9113, lets pseudo-fields pass in trailers and settings be missing,
//! and does not count frames that are there to keep us busy. Pure.
//!
//! The nine bytes before each frame are followed through everything, how its payload begins where that is of interest, and the
//! bytes of trailers.

use super::{
    block::{Trailers, begins_with_pseudo},
    frame::{
        ACK, BEGIN, CONTINUATION, DATA, END_HEADERS, END_STREAM, ENHANCE_YOUR_CALM, FRAME_SIZE_ERROR, Frame,
        GOAWAY, HEAD, HEADERS, PING, PRIORITY, PROTOCOL_ERROR, PUSH_PROMISE, RESET, SETTINGS, STREAM_CLOSED,
        UNKNOWN, WINDOW_UPDATE,
    },
};
use crate::io::Watch;

/// As how many frames of no use one that takes a request back counts.
const RESET_COSTS: u32 = 5;

/// Bytes that must have been sent for each window that a client opens: it may open that of a stream and that of the connection for
/// each frame of a byte, which is ten long. No more than so many are remembered.
const OPENED: usize = 5;
const MOST_SENT: usize = 256 * 1024;

/// As so many windows counts a change of all of them, and as so many frames of no use.
const ALL_WINDOWS: u32 = 1_024;
const CHANGE_COSTS: u32 = 50;

/// Frames of a connection before it is the turn of others: each may have a task do something, and hundreds come together. Fewer
/// would be answered with a write of their own, each a record of TLS.
const TURN: u32 = 16;

/// Bytes of the preface (RFC 9113 §3.4).
const PREFACE: usize = 24;

/// What is known of a connection's frames.
#[derive(Debug)]
pub(super) struct Guard {
    /// Bytes of the preface or of a frame that are still to come.
    skip: usize,
    head: [u8; HEAD],
    have: usize,
    /// The begin of a payload that did not come with its head: what is there, and how much is still to come.
    begin: [u8; BEGIN],
    begun: usize,
    missing: usize,
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
    most_bytes: usize,
    /// Bytes that were sent, and that windows may be opened for; and those that were, until that is asked.
    sent: usize,
    opened: u32,
    /// The trailers that a frame, or some of them, are about.
    trailers: Option<Trailers>,
    /// Whether settings have come, which must be first.
    began: bool,
    /// Whether the connection has to end, and nothing more of it counts; and the code, until that is asked.
    is_over: bool,
    end: Option<u32>,
    /// What is left of a turn.
    turn: u32,
}

impl Guard {
    /// Nothing has come yet. `most_idle` frames of no use may come in a second. Trailers have `most_fields` at most, and fewer than
    /// `most_bytes`: of more than it says it takes, the h2 crate leaves the last ones out in silence.
    pub(super) fn new(most_idle: u32, most_fields: usize, most_bytes: usize) -> Self {
        Self {
            skip: PREFACE,
            head: [0; HEAD],
            have: 0,
            begin: [0; BEGIN],
            begun: 0,
            missing: 0,
            top: 0,
            ended: 0,
            block: None,
            verdict: None,
            second: 0,
            idle: 0,
            most_idle,
            most_fields,
            most_bytes,
            sent: 0,
            opened: 0,
            trailers: None,
            began: false,
            is_over: false,
            end: None,
            turn: TURN,
        }
    }

    /// The code with which the connection has to end for what the h2 crate does not mind; told once.
    pub(super) fn take_end(&mut self) -> Option<u32> {
        self.end.take()
    }

    /// The connection has to end; the first reason is the one that is told.
    fn end(&mut self, code: u32) {
        if !self.is_over {
            (self.is_over, self.end) = (true, Some(code));
        }
    }

    /// A frame has begun. Trailers with a pseudo-field, which must come first, lose their END_STREAM, and are then the error of
    /// the stream that they should be (RFC 9113 §8.1). Where their type and flags (`head`) have passed, they must not come whole, and
    /// the connection ends: so it does where only a later frame of theirs shows it.
    fn frame(&mut self, frame: &Frame<'_>, mut head: Option<&mut [u8; 2]>) {
        let has_ended = matches!(frame.kind, DATA | HEADERS) && frame.stream == self.ended && self.ended > 0;
        let are_trailers = frame.kind == HEADERS && !has_ended && frame.stream <= self.top;
        let mut is_open = are_trailers && frame.flags & END_STREAM != 0;
        if is_open
            && begins_with_pseudo(frame.block()) == Some(true)
            && let Some([_, flags]) = &mut head
        {
            *flags &= !END_STREAM;
            is_open = false;
        }
        self.trailers = match (frame.kind, self.trailers.take()) {
            (HEADERS, _) if are_trailers => Some(Trailers::new(frame, is_open)),
            (CONTINUATION, Some(trailers)) => Some(trailers.go_on(frame)),
            _ => None,
        };
        let is_new = frame.stream > self.top && frame.stream % 2 == 1;
        self.verdict = self.verdict.or_else(|| self.wrong(frame, is_new));
        self.count(frame);
        // The h2 crate takes a hundred in the life of a connection for abuse. They are counted here, by the second; those with
        // padding, which windows count, by it as well.
        if frame.is_empty_data()
            && frame.length == 0
            && self.verdict.is_none()
            && let Some(head) = head
        {
            *head = [UNKNOWN, 0];
        }
        if !self.began {
            self.began = true;
            if frame.kind != SETTINGS || frame.flags & ACK != 0 {
                self.end(PROTOCOL_ERROR);
            }
        }
        if has_ended {
            // RFC 9113 §5.1: nobody who has ended a stream sends more of it.
            self.end(self.verdict.unwrap_or(STREAM_CLOSED));
        }
        if matches!(frame.kind, HEADERS | CONTINUATION) {
            self.block = (frame.flags & END_HEADERS == 0).then_some(frame.stream);
            self.top = self.top.max(frame.stream);
        }
        if matches!(frame.kind, DATA | HEADERS) && frame.flags & END_STREAM != 0 {
            self.ended = frame.stream;
        }
    }

    /// The code for what is wrong with the connection since this frame.
    fn wrong(&self, frame: &Frame<'_>, is_new: bool) -> Option<u32> {
        let Frame { kind, stream, .. } = *frame;
        let is_in_block = self.block.is_some_and(|block| kind == CONTINUATION && block == stream);
        if self.block.is_some() != is_in_block || (kind == CONTINUATION && !is_in_block) {
            return Some(PROTOCOL_ERROR);
        }
        if frame.length_is_wrong() {
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
        if place_is_wrong {
            return Some(PROTOCOL_ERROR);
        }
        let is_late = matches!(kind, DATA | HEADERS) && stream == self.ended;
        frame.payload_is_wrong().or(is_late.then_some(STREAM_CLOSED))
    }

    /// What is in a frame. Trailers are kept until the body before them has been read, and a byte can be a field of them: they
    /// have as many as a head at most.
    fn pass(&mut self, bytes: &[u8]) {
        if let Some(trailers) = &mut self.trailers {
            trailers.take(bytes);
            let code = if trailers.begin_with_pseudo() {
                PROTOCOL_ERROR
            } else if trailers.fields() > self.most_fields || trailers.size() >= self.most_bytes {
                ENHANCE_YOUR_CALM
            } else {
                return;
            };
            self.trailers = None;
            self.end(code);
        }
    }

    fn count(&mut self, frame: &Frame<'_>) {
        let is_of_use = match frame.kind {
            HEADERS | GOAWAY => true,
            // Nobody opens windows again and again through which nothing has gone.
            WINDOW_UPDATE => self.sent >= OPENED,
            DATA => !frame.is_empty_data(),
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
        self.idle = self.idle.saturating_add(frames);
        if self.idle > self.most_idle {
            self.end(ENHANCE_YOUR_CALM);
        }
    }
}

impl Watch for Guard {
    fn came(&mut self, bytes: &mut [u8]) -> usize {
        let mut at = 0;
        // Nothing is begun for what comes after the end.
        while at < bytes.len() && !self.is_over {
            if self.missing > 0 {
                let more = self.missing.min(bytes.len() - at);
                self.begin[self.begun..self.begun + more].copy_from_slice(&bytes[at..at + more]);
                self.begun += more;
                self.missing -= more;
                if self.missing == 0 {
                    let begin = self.begin;
                    self.frame(&Frame::new(self.head, &begin[..self.begun]), None);
                    self.pass(&begin[..self.begun]);
                    if self.is_over {
                        break;
                    }
                }
                self.skip -= more;
                at += more;
                continue;
            }
            if self.skip > 0 {
                let skipped = self.skip.min(bytes.len() - at);
                self.skip -= skipped;
                self.pass(&bytes[at..at + skipped]);
                if self.is_over {
                    // What ended it must not pass: the h2 crate would make of it what it can.
                    break;
                }
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
            let (before, rest) = bytes.split_at_mut(at);
            let frame = Frame::new(self.head, rest);
            self.turn = self.turn.saturating_sub(u32::from(frame.kind != RESET));
            self.skip = frame.length;
            let needs = frame.needs();
            if needs > rest.len() {
                (self.begun, self.missing) = (0, needs);
                continue;
            }
            let head = before.last_chunk_mut::<HEAD>().filter(|_| taken == HEAD);
            let head = head.and_then(|head| head[3..].first_chunk_mut());
            self.frame(&Frame::new(self.head, &rest[..needs]), head);
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
    use super::{
        super::frame::{FLOW_CONTROL_ERROR, PADDED, WITH_PRIORITY},
        *,
    };

    fn frame(kind: u8, flags: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, flags, 0, 0, 0, stream][..], payload].concat()
    }

    /// One to which settings have come, which change all windows, and to which it is the turn of others.
    fn begun(most_idle: u32, most_fields: usize) -> Guard {
        let mut guard = Guard::new(most_idle, most_fields, 64 * 1024);
        guard.came(&mut [&[0; PREFACE][..], &frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 0])].concat());
        guard.next_turn();
        guard
    }

    /// The code that a GOAWAY gets after these bytes, which come in pieces of `step`.
    fn code(bytes: &[u8], step: usize) -> u32 {
        let mut guard = Guard::new(1_000, 128, 64 * 1024);
        for piece in [&[0; PREFACE][..], bytes].concat().chunks_mut(step) {
            let mut left = piece;
            while !left.is_empty() && !guard.is_over {
                let passed = guard.came(left);
                assert!(passed > 0 || guard.is_over, "each turn gets on");
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
            for (wrong, error) in [
                (frame(PING, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
                (frame(GOAWAY, 0, 0, &[0; 7]), FRAME_SIZE_ERROR),
                (frame(DATA, PADDED, 1, &[]), FRAME_SIZE_ERROR),
                (frame(HEADERS, PADDED | WITH_PRIORITY | END_HEADERS, 3, &[0; 5]), FRAME_SIZE_ERROR),
                (frame(WINDOW_UPDATE, 0, 0, &[0x80, 0, 0, 0]), PROTOCOL_ERROR),
                (frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 1, 0, 4, 0x80, 0, 0, 0]), FLOW_CONTROL_ERROR),
                (frame(HEADERS, PADDED | END_HEADERS, 3, &[9, 0x82]), PROTOCOL_ERROR),
            ] {
                let all = [&before[..], &wrong, &frame(PING, 0, 0, &[0; 7])].concat();
                assert_eq!(code(&all, step), error, "{step}");
            }
            let mut right = [before.clone(), frame(WINDOW_UPDATE, 0, 0, &[0x40, 0, 0, 0])].concat();
            right.extend(frame(
                HEADERS,
                PADDED | WITH_PRIORITY,
                3,
                &[9, 0, 0, 0, 0, 0, 0x82, 0, 0, 0, 0, 0, 0, 0, 0, 0],
            ));
            right.extend(frame(CONTINUATION, END_HEADERS, 3, &[]));
            right.extend(frame(PING, 0, 0, &[0; 7]));
            assert_eq!(code(&right, step), FRAME_SIZE_ERROR, "{step}");
        }
    }

    /// The code with which a connection ends that may have ten fields in trailers, after these frames in pieces of `step`.
    fn end(frames: &[Vec<u8>], step: usize) -> Option<u32> {
        let mut guard = Guard::new(1_000, 10, 64 * 1024);
        let begin =
            [vec![0; PREFACE], frame(SETTINGS, 0, 0, &[]), frame(HEADERS, END_HEADERS, 1, &[0x82; 20])];
        for piece in [begin.concat(), frames.concat()].concat().chunks_mut(step) {
            guard.next_turn();
            if guard.came(piece) < piece.len() {
                assert_eq!(guard.came(piece), 0, "nothing comes after the end");
                break;
            }
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
            let four = trailers(0, &[&[0xbe; 3][..], &[0x40, 1, b'a', 12], &[b'x'; 12]].concat());
            assert_eq!(end(&[four.clone(), six.clone()], step), None, "{step}");
            assert_eq!(end(&[four, six.clone(), more], step), Some(ENHANCE_YOUR_CALM));
            // A head is for others to judge.
            let head = [frame(HEADERS, 0, 3, &[0xbe; 50]), frame(CONTINUATION, 0, 3, &[0xbe; 50])];
            assert_eq!(end(&head, step), None);
        }
    }

    #[test]
    fn a_turn_is_sixteen_frames_and_ends_between_two() {
        let mut guard = begun(1_000, 128);
        let mut all = frame(DATA, 0, 1, b"some").repeat(40);
        let mut passed = Vec::new();
        let mut at = 0;
        while at < all.len() {
            passed.push(guard.came(&mut all[at..]));
            assert_eq!(guard.came(&mut all[at + passed[passed.len() - 1]..]), 0, "no more in this turn");
            at += passed[passed.len() - 1];
            guard.next_turn();
        }
        assert_eq!(passed, [16 * 13, 16 * 13, 8 * 13]);
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
        let mut all = begun(1_000, 128);
        for (number, (block, spoilt)) in [
            (&[0x82][..], true),
            (&[0x20, 0x82], true),
            (&[0x20, 0x3f, 0xe1, 0x1f, 0x82], true),
            (&[0x20, 0x20, 0x20, 0, 1, b'x', 1, b'y'], true),
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
            let stream = 4 * number as u8 + 1;
            all.next_turn();
            all.came(&mut frame(HEADERS, END_HEADERS, stream, &[0x82, 0x86, 0x84]));
            let mut trailers = frame(HEADERS, END_HEADERS | END_STREAM, stream, block);
            all.came(&mut trailers);
            assert_eq!(trailers[4] & END_STREAM == 0, spoilt, "{block:?}");
            // Where that is seen in a later frame only, they do not come whole.
            for cut in 0..block.len() {
                for more in 0..block.len() - cut {
                    let parts = [&block[..cut], &block[cut..cut + more], &block[cut + more..]];
                    let flags = [END_STREAM, 0, END_HEADERS];
                    let kinds = [HEADERS, CONTINUATION, CONTINUATION];
                    let mut parts =
                        [0, 1, 2].map(|part| frame(kinds[part], flags[part], 1, parts[part])).concat();
                    let is_seen_at_once = begins_with_pseudo(&block[..cut]) == Some(true);
                    for step in [1, 9, 10, 11, parts.len()] {
                        let mut guard = begun(1_000, 128);
                        guard.came(&mut frame(HEADERS, END_HEADERS, 1, &[0x82]));
                        let passed: usize = parts.chunks_mut(step).map(|part| guard.came(part)).sum();
                        let is_whole = passed == parts.len();
                        let lost_its_end = parts[4] & END_STREAM == 0;
                        parts[4] |= END_STREAM;
                        assert_eq!(
                            is_whole && !lost_its_end,
                            !spoilt,
                            "{block:?} at {cut} and {more}, {step}"
                        );
                        assert!(!lost_its_end || is_seen_at_once);
                        let code = spoilt.then_some(PROTOCOL_ERROR);
                        assert_eq!(guard.take_end(), code.filter(|_| !lost_its_end));
                    }
                }
            }
            // Where it is seen too late, they do not come whole.
            for cut in 1..trailers.len() {
                let mut guard = begun(1_000, 128);
                guard.came(&mut frame(HEADERS, END_HEADERS, 1, &[0x82]));
                let mut trailers = frame(HEADERS, END_HEADERS | END_STREAM, 1, block);
                let (begin, rest) = trailers.split_at_mut(cut);
                let all = guard.came(begin) + guard.came(rest);
                let is_whole = all == begin.len() + rest.len();
                assert_eq!((is_whole, guard.take_end().is_none()), (!spoilt, !spoilt), "{block:?} at {cut}");
            }
        }
    }

    #[test]
    fn frames_of_no_use_are_counted() {
        let mut guard = Guard::new(10, 128, 64 * 1024);
        guard.came(&mut [0; PREFACE]);
        let mut get = frame(HEADERS, END_HEADERS | END_STREAM, 1, &[0x82]);
        guard.came(&mut get);
        assert_eq!((guard.take_end(), guard.came(&mut get)), (Some(PROTOCOL_ERROR), 0), "no settings came");
        let mut guard = begun(10, 128);
        guard.came(&mut frame(HEADERS, END_HEADERS, 1, &[0x82]));
        for _ in 0..100 {
            guard.next_turn();
            guard.came(&mut frame(DATA, 0, 1, b"x"));
            guard.goes(&mut frame(DATA, 0, 1, b"x"), 10);
            guard.came(&mut frame(WINDOW_UPDATE, 0, 1, &[0, 0, 0, 1]));
        }
        assert_eq!(guard.take_end(), None);
        // Two seconds at most begin meanwhile.
        for _ in 0..40 {
            guard.next_turn();
            guard.came(&mut frame(DATA, 0, 1, b""));
        }
        assert_eq!((guard.take_end(), guard.take_end()), (Some(ENHANCE_YOUR_CALM), None));
        let mut guard = begun(10, 128);
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
        let mut guard = begun(10, 128);
        guard.came(&mut frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]).repeat(4));
        assert_eq!((guard.take_opened(), guard.take_end()), (ALL_WINDOWS, None));
        guard.came(&mut frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1]).repeat(3));
        assert_eq!((guard.take_opened(), guard.take_end()), (ALL_WINDOWS, Some(ENHANCE_YOUR_CALM)));
        let mut guard = begun(10, 128);
        for number in 0..6 {
            let stream = 2 * number + 1;
            guard.next_turn();
            guard.came(&mut frame(HEADERS, END_HEADERS | END_STREAM, stream, &[0x82]));
            guard.came(&mut frame(RESET, 0, stream, &[0, 0, 0, 8]));
        }
        assert_eq!(guard.take_end(), Some(ENHANCE_YOUR_CALM), "requests that are taken back one by one");
    }
}
