//! A frame as far as a guard has to know it: its head (RFC 9113 §4.1), and how its payload begins. Pure.

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const PRIORITY: u8 = 2;
pub(super) const RESET: u8 = 3;
pub(super) const SETTINGS: u8 = 4;
pub(super) const PUSH_PROMISE: u8 = 5;
pub(super) const PING: u8 = 6;
pub(super) const GOAWAY: u8 = 7;
pub(super) const WINDOW_UPDATE: u8 = 8;
pub(super) const CONTINUATION: u8 = 9;
/// One that nobody knows: such frames are disregarded (RFC 9113 §5.5).
pub(super) const UNKNOWN: u8 = 0xff;

pub(super) const END_STREAM: u8 = 1;
pub(super) const ACK: u8 = 1;
pub(super) const END_HEADERS: u8 = 4;
pub(super) const PADDED: u8 = 8;
pub(super) const WITH_PRIORITY: u8 = 32;

/// Error codes (RFC 9113 §7).
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const FLOW_CONTROL_ERROR: u32 = 3;
pub(super) const STREAM_CLOSED: u32 = 5;
pub(super) const FRAME_SIZE_ERROR: u32 = 6;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// Bytes of a frame's head, and of its payload that are looked at: ten settings, more than there are.
pub(super) const HEAD: usize = 9;
pub(super) const BEGIN: usize = 60;

/// A frame.
pub(super) struct Frame<'a> {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    pub(super) length: usize,
    /// What is there of its payload; [`Self::needs`] as many bytes when it is looked at.
    pub(super) begin: &'a [u8],
}

impl<'a> Frame<'a> {
    pub(super) fn new(head: [u8; HEAD], begin: &'a [u8]) -> Self {
        let [a, b, c, kind, flags, stream @ ..] = head;
        Self {
            kind,
            flags,
            stream: u32::from_be_bytes(stream) & 0x7fff_ffff,
            length: usize::from(a) << 16 | usize::from(b) << 8 | usize::from(c),
            begin,
        }
    }

    /// Bytes of the payload without which nothing can be said of it.
    pub(super) fn needs(&self) -> usize {
        let needs = match self.kind {
            DATA => usize::from(self.flags & PADDED != 0),
            HEADERS | SETTINGS | WINDOW_UPDATE => BEGIN,
            _ => 0,
        };
        needs.min(self.length)
    }

    /// Whether it changes the windows of all streams (SETTINGS_INITIAL_WINDOW_SIZE); what is not there may.
    pub(super) fn changes_windows(&self) -> bool {
        let has_it = || self.begin.chunks_exact(6).any(|setting| setting.starts_with(&[0, 4]));
        self.kind == SETTINGS && self.flags & ACK == 0 && (self.length > BEGIN || has_it())
    }

    /// Whether it is of a length that it may not have.
    pub(super) fn length_is_wrong(&self) -> bool {
        let Self { kind, flags, length, .. } = *self;
        match kind {
            PRIORITY => length != 5,
            RESET | WINDOW_UPDATE => length != 4,
            PING => length != 8,
            GOAWAY => length < 8,
            SETTINGS => length % 6 != 0 || (flags & ACK != 0 && length != 0),
            DATA | HEADERS => length < self.before(),
            _ => false,
        }
    }

    /// Bytes in front of what DATA and HEADERS are about: the length of the padding, a priority.
    fn before(&self) -> usize {
        let priority = if self.kind == HEADERS && self.flags & WITH_PRIORITY != 0 { 5 } else { 0 };
        priority + usize::from(self.flags & PADDED != 0)
    }

    /// The code for what is in it and may not be there.
    pub(super) fn payload_is_wrong(&self) -> Option<u32> {
        match (self.kind, self.begin) {
            (DATA | HEADERS, _) if self.padding_is_wrong() => Some(PROTOCOL_ERROR),
            (WINDOW_UPDATE, [0 | 0x80, 0, 0, 0]) if self.stream == 0 => Some(PROTOCOL_ERROR),
            (SETTINGS, settings) => settings.chunks_exact(6).find_map(setting_is_wrong),
            _ => None,
        }
    }

    /// Bytes of the padding of DATA or HEADERS.
    fn padding(&self) -> usize {
        if self.flags & PADDED == 0 { 0 } else { self.begin.first().map_or(0, |&padding| padding.into()) }
    }

    /// Whether it is DATA that has nothing in it but padding, and ends nothing.
    pub(super) fn is_empty_data(&self) -> bool {
        let is_empty = self.kind == DATA && self.before() + self.padding() >= self.length;
        is_empty && self.flags & END_STREAM == 0
    }

    fn padding_is_wrong(&self) -> bool {
        self.before() + self.padding() > self.length
    }

    /// The begin of the header block of HEADERS.
    pub(super) fn block(&self) -> &[u8] {
        let end = self.length.saturating_sub(self.padding()).min(self.begin.len());
        self.begin.get(self.before()..end).unwrap_or_default()
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
