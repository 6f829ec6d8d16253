//! Who is measured. Both are told the same: TLS and plain, routes, X-Forwarded-For and -Proto, counters, limits on each
//! client that nobody reaches, and a line for each request, sent to a syslog receiver in HAProxy's own format.

use std::path::PathBuf;

use anyhow::Result;
use serde_json::json;

use super::server::{LOG_PORT, PORT};
use crate::{daemon::binary, folder::Folder, netns::Netns, process::Running};

/// File with the certificate and its key.
pub const CERTIFICATE: &str = "both.pem";

/// Name that is in it.
pub const NAME: &str = "bench.example";

/// Number of a contender that is started while others run.
pub const EXTRA: u16 = 8;

/// A limit that nobody reaches.
const MANY: u32 = 1_000_000;

/// Who is measured.
#[derive(Clone, Debug)]
pub enum Contender {
    /// The l7-proxy in this file.
    L7(PathBuf),
    /// Debian's HAProxy.
    Haproxy,
}

/// Where a contender listens, on 127.0.0.1.
#[derive(Clone, Copy, Debug)]
pub struct Ports {
    /// HTTP/1.1.
    pub plain: u16,
    /// TLS; HTTP/2 is offered.
    pub tls: u16,
    /// Statistics.
    admin: u16,
}

/// A contender at work; it ends with this.
#[derive(Debug)]
pub struct Proxy {
    /// The process.
    pub running: Running,
    /// Its ports.
    pub ports: Ports,
}

impl Contender {
    /// The l7-proxy that was built.
    #[must_use]
    pub fn own() -> Self {
        Self::L7(binary("l7-proxy"))
    }

    /// Name in tables.
    #[must_use]
    pub fn name(&self) -> String {
        match self {
            Self::Haproxy => "haproxy".into(),
            Self::L7(file) if *file == binary("l7-proxy") => "l7-proxy".into(),
            Self::L7(file) => file.display().to_string(),
        }
    }

    /// Starts it. `number` tells those apart that run at a time.
    ///
    /// # Errors
    /// None so far; it is waited for elsewhere.
    ///
    /// # Panics
    /// When its program is missing.
    pub fn start(&self, ns: &Netns, folder: &Folder, number: u16) -> Result<Proxy> {
        let (program, arguments) = self.command(folder, number)?;
        let running = Running::start(&self.name(), ns.command(program).args(arguments));
        Ok(Proxy { running, ports: Ports::of(number) })
    }

    /// The program and its arguments, its files being written.
    pub(super) fn command(&self, folder: &Folder, number: u16) -> Result<(PathBuf, Vec<String>)> {
        let ports = Ports::of(number);
        let path = |file: PathBuf| file.display().to_string();
        Ok(match self {
            Self::L7(program) => {
                let text = serde_json::to_vec_pretty(&l7(folder, ports))?;
                let file = folder.write(&format!("l7-{number}.json"), text);
                (program.clone(), vec!["--spec".into(), path(file)])
            }
            Self::Haproxy => {
                let file = folder.write(&format!("haproxy-{number}.cfg"), haproxy(folder, ports));
                ("haproxy".into(), vec!["-db".into(), "-f".into(), path(file)])
            }
        })
    }
}

impl Ports {
    /// Those of the contender with this number.
    pub(super) fn of(number: u16) -> Self {
        let first = 9_000 + 10 * number;
        Self { plain: first, tls: first + 1, admin: first + 2 }
    }
}

fn l7(folder: &Folder, ports: Ports) -> serde_json::Value {
    let service = |name: &str, port: u16, tls: Option<serde_json::Value>| {
        json!({
            "name": name, "listen": [format!("127.0.0.1:{port}")], "mode": "http", "pool": "web",
            "routes": [
                { "hosts": ["static.example", "*.cdn.example"], "pool": "other" },
                { "paths": ["/api", "/login"], "pool": "other" },
                { "paths": ["/app"], "pool": "web" },
            ],
            // Who is slow is thrown out while others are measured, and not afterwards.
            "timeouts": { "request_header": "2s" },
            "limits": { "connections_per_client": MANY, "requests_per_second": MANY },
            // HAProxy offers it wherever there is no TLS.
            "h2c": tls.is_none(),
            "tls": tls,
        })
    };
    let servers = json!([
        { "name": "a", "address": "127.0.0.2", "port": PORT },
        { "name": "b", "address": "127.0.0.3", "port": PORT },
    ]);
    json!({
        "services": [
            service("plain", ports.plain, None),
            service("tls", ports.tls, Some(json!({ "certificates": [folder.file(CERTIFICATE)] }))),
        ],
        "pools": [{ "name": "web", "servers": servers }, { "name": "other", "servers": servers }],
        "workers": 1,
        "limits": { "connections": 12_000 },
        "log": { "to": { "syslog": format!("127.0.0.1:{LOG_PORT}") }, "format": "haproxy" },
        "admin": format!("127.0.0.1:{}", ports.admin),
    })
}

/// What HAProxy does with a request. Rules of one kind stand together, or it warns of their order.
const RULES: &str = "stick-table type ip size 100k expire 60s store conn_cur,http_req_rate(1s)
 tcp-request connection track-sc0 src
 tcp-request connection reject if { sc0_conn_cur gt 1000000 }
 http-request deny deny_status 429 if { sc0_http_req_rate gt 1000000 }
 http-request set-header X-Forwarded-Proto https if { ssl_fc }
 http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
 use_backend other if { req.hdr(host),field(1,:),lower -m str static.example }
 use_backend other if { req.hdr(host),field(1,:),lower -m end .cdn.example }
 use_backend other if { path -m dir /api /login }
 use_backend web if { path -m dir /app }
 default_backend web
";

fn haproxy(folder: &Folder, ports: Ports) -> String {
    let Ports { plain, tls, admin } = ports;
    let certificate = folder.file(CERTIFICATE);
    let certificate = certificate.display();
    let servers = format!("balance roundrobin\n server a 127.0.0.2:{PORT}\n server b 127.0.0.3:{PORT}\n");
    // Two sockets for each connection may be more than it may open; it is told not to mind. The cipher that clients and
    // l7-proxy agree upon, so that both have the same to do.
    format!(
        "global\n nbthread 1\n maxconn 12000\n no strict-limits\n log 127.0.0.1:{LOG_PORT} local0\n \
         ssl-default-bind-options ssl-min-ver TLSv1.2\n \
         ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384\n\
         defaults\n mode http\n log global\n option httplog\n option forwardfor\n http-reuse always\n \
         timeout connect 5s\n timeout client 75s\n timeout server 60s\n timeout http-request 2s\n \
         timeout http-keep-alive 75s\n timeout tunnel 1h\n\
         frontend statistics\n bind 127.0.0.1:{admin}\n no log\n stats enable\n stats uri /\n\
         frontend plain\n bind 127.0.0.1:{plain}\n {RULES}\
         frontend tls\n bind 127.0.0.1:{tls} ssl crt {certificate} alpn h2,http/1.1\n {RULES}\
         backend web\n {servers}backend other\n {servers}"
    )
}
