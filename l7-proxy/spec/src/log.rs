//! The log of requests and connections.

use std::{net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

/// A line for each request and each connection of mode `tcp`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Where lines go; nowhere unless given.
    pub to: Option<LogTarget>,
    /// What they look like.
    pub format: LogFormat,
    /// Lines that may wait to be written. What comes when so many wait is dropped and counted.
    pub queue: u32,
}

impl Default for Log {
    fn default() -> Self {
        Self { to: None, format: LogFormat::Json, queue: 8_192 }
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogTarget {
    /// Standard output.
    Stdout,
    /// A file, appended to; opened again on SIGHUP, so that it may be rotated.
    File(PathBuf),
    /// A syslog receiver over UDP (RFC 5424, facility local0).
    Syslog(SocketAddr),
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogFormat {
    /// One JSON object.
    #[default]
    Json,
    /// HAProxy's `httplog` and `tcplog`.
    Haproxy,
}
