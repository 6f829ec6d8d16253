//! `/v1/server` and `/v1/vip`: what the operator wants of servers and VIPs for the time being.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::plan::Admin;

/// What is to become of a server for the time being: another state, another weight, or both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ServerRequest {
    /// Name of a VIP; `*` for every one that has the server.
    pub vip: String,
    /// Name of the server in its pool.
    pub server: String,
    /// `ready`, `drain` or `halt`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<Admin>,
    /// Its share of new flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<Weight>,
}

/// A weight for the time being.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged, expecting = "a weight is a number from 0 to 65535, or \"file\"")]
pub enum Weight {
    /// This one, whatever the configuration says.
    Now(u16),
    /// The one in the configuration again.
    File(OfFile),
}

/// The word `file`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OfFile {
    /// What the configuration file says.
    File,
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Now(weight) => weight.fmt(f),
            Self::File(_) => f.write_str("in the file"),
        }
    }
}

/// A server that a request was for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ServerChange {
    /// Name of the VIP.
    pub vip: String,
    /// Name of the server.
    pub server: String,
    /// What it is now.
    pub state: Admin,
    /// The weight it has instead of the one in the configuration.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight: Option<u16>,
    /// With `dry_run`: what would become of the VIP, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
}

impl fmt::Display for ServerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { vip, server, state, weight, .. } = self;
        write!(f, "VIP {vip}: server {server} is {state}")?;
        weight.map_or(Ok(()), |weight| write!(f, " with weight {weight}"))
    }
}

/// Whether a VIP is to take new flows, for the time being.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct VipRequest {
    /// Name of the VIP; `*` for all.
    pub vip: String,
    /// `false`: new flows are refused as on a port where nobody listens; those that are open go on.
    pub enabled: bool,
}

/// A VIP that a request was for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct VipChange {
    /// Name of the VIP.
    pub vip: String,
    /// Whether it takes new flows now.
    pub enabled: bool,
    /// With `dry_run`: what would become of the VIP, in words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub effects: Vec<String>,
}

impl fmt::Display for VipChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "VIP {} is {}", self.vip, if self.enabled { "enabled" } else { "disabled" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weight_is_a_number_or_the_word_file() {
        let read = |weight: &str| {
            let text = format!("{{\"vip\":\"a\",\"server\":\"b\",\"weight\":{weight}}}");
            serde_json::from_str::<ServerRequest>(&text).map(|request| request.weight.unwrap())
        };
        assert_eq!(read("0").unwrap(), Weight::Now(0));
        assert_eq!(read("65535").unwrap(), Weight::Now(65_535));
        assert_eq!(read("\"file\"").unwrap(), Weight::File(OfFile::File));
        for wrong in ["65536", "-1", "1.5", "\"other\"", "[]"] {
            let error = read(wrong).unwrap_err().to_string();
            assert!(error.contains("a number from 0 to 65535, or \"file\""), "{error}");
        }
        let both = ServerRequest {
            vip: "a".into(),
            server: "b".into(),
            state: Some(Admin::Drain),
            weight: Some(Weight::File(OfFile::File)),
        };
        let text = serde_json::to_string(&both).unwrap();
        assert_eq!(text, r#"{"vip":"a","server":"b","state":"drain","weight":"file"}"#);
    }
}
