//! Header names that mean something to a proxy.

/// A field name that means something to us; all others are [`Known::Other`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is named as the field it stands for")]
#[repr(u8)]
pub enum Known {
    #[default]
    Other,
    CacheControl,
    Connection,
    ContentLength,
    ContentLocation,
    Cookie,
    Date,
    Expect,
    Forwarded,
    Host,
    Http2Settings,
    KeepAlive,
    Location,
    MaxForwards,
    ProxyConnection,
    Server,
    SetCookie,
    Te,
    Trailer,
    TransferEncoding,
    Upgrade,
    Via,
    XForwardedClientCert,
    XForwardedFor,
    XForwardedHost,
    XForwardedPort,
    XForwardedProto,
}

impl Known {
    /// What `name` means, in whatever case it is written.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        // By length first: a comparison is made for few names only.
        let candidates: &[(&[u8], Self)] = match name.len() {
            2 => &[(b"te", Self::Te)],
            3 => &[(b"via", Self::Via)],
            4 => &[(b"host", Self::Host), (b"date", Self::Date)],
            6 => &[(b"cookie", Self::Cookie), (b"expect", Self::Expect), (b"server", Self::Server)],
            7 => &[(b"upgrade", Self::Upgrade), (b"trailer", Self::Trailer)],
            8 => &[(b"location", Self::Location)],
            9 => &[(b"forwarded", Self::Forwarded)],
            10 => &[
                (b"connection", Self::Connection),
                (b"keep-alive", Self::KeepAlive),
                (b"set-cookie", Self::SetCookie),
            ],
            12 => &[(b"max-forwards", Self::MaxForwards)],
            13 => &[(b"cache-control", Self::CacheControl)],
            14 => &[(b"content-length", Self::ContentLength), (b"http2-settings", Self::Http2Settings)],
            15 => &[(b"x-forwarded-for", Self::XForwardedFor)],
            16 => &[
                (b"content-location", Self::ContentLocation),
                (b"proxy-connection", Self::ProxyConnection),
                (b"x-forwarded-host", Self::XForwardedHost),
                (b"x-forwarded-port", Self::XForwardedPort),
            ],
            17 => &[
                (b"transfer-encoding", Self::TransferEncoding),
                (b"x-forwarded-proto", Self::XForwardedProto),
            ],
            23 => &[(b"x-forwarded-client-cert", Self::XForwardedClientCert)],
            _ => return Self::Other,
        };
        let same = candidates.iter().find(|(known, _)| name.eq_ignore_ascii_case(known));
        same.map_or(Self::Other, |(_, known)| *known)
    }

    /// Whether the field is about one connection and never passed on (RFC 9110 §7.6.1). `Connection`, `TE`,
    /// `Upgrade` and the framing are then said anew as needed.
    #[must_use]
    pub fn is_hop_by_hop(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Http2Settings
                | Self::KeepAlive
                | Self::ProxyConnection
                | Self::Te
                | Self::TransferEncoding
                | Self::Upgrade
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_known_in_any_case() {
        assert_eq!(Known::of(b"Transfer-Encoding"), Known::TransferEncoding);
        assert_eq!(Known::of(b"HOST"), Known::Host);
        assert_eq!(Known::of(b"X-Forwarded-Proto"), Known::XForwardedProto);
        assert_eq!(Known::of(b"X-Forwarded-Pro_o"), Known::Other);
        assert_eq!(Known::of(b""), Known::Other);
    }
}
