//! TLS that ends on the server: `openssl` on both sides, each server with a certificate of its own.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command, time::Duration};

use crate::{client, folder::Folder, netns::Netns, process, process::Running, wait};

const LIMIT: Duration = Duration::from_secs(20);

/// A TLS server with a self-signed certificate; ends on drop.
#[derive(Debug)]
pub struct TlsServer {
    folder: Folder,
    _openssl: Running,
}

impl TlsServer {
    /// Starts a server that answers each line with the line reversed. `port` is open when this returns.
    ///
    /// # Panics
    /// When `openssl` is missing or fails.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, name: &str, port: u16) -> Self {
        let folder = Folder::new();
        let (key, certificate) = (folder.file("key.pem"), folder.file("certificate.pem"));
        let mut request = Command::new("openssl");
        request.args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]);
        request.args(["-days", "2", "-subj", &format!("/CN={name}"), "-keyout"]).arg(&key);
        let made = process::output("openssl req", request.arg("-out").arg(&certificate), LIMIT);
        assert!(made.status.success(), "make a certificate: {}", String::from_utf8_lossy(&made.stderr));

        let mut command = ns.command("openssl");
        command.args(["s_server", "-rev", "-quiet", "-accept", &port.to_string()]);
        let openssl =
            Running::start("openssl s_server", command.arg("-key").arg(key).arg("-cert").arg(certificate));
        let here = SocketAddr::from(([127, 0, 0, 1], port));
        wait::until(LIMIT, "openssl s_server to listen", || {
            ns.run(|| client::connect(here, None, LIMIT))
                .map_err(|error| format!("{error}; {}", openssl.log()))
        });
        Self { folder, _openssl: openssl }
    }

    /// The certificate it shows, as a PEM file.
    #[must_use]
    pub fn certificate(&self) -> PathBuf {
        self.folder.file("certificate.pem")
    }
}

/// What a TLS client learned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// Common name of the server's certificate.
    pub name: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// The answer to the line `hello`.
    pub answer: String,
}

/// Connects from a namespace, trusting only the certificates in `trusted`, and says `hello`.
///
/// # Errors
/// What `openssl s_client` printed when the handshake failed or the certificate was not trusted.
pub fn handshake(ns: &Netns, target: SocketAddr, trusted: &[PathBuf]) -> Result<Handshake, String> {
    handshake_for(ns, target, None, trusted)
}

/// The same, and asks for a server by this name.
///
/// # Errors
/// Likewise.
pub fn handshake_for(
    ns: &Netns,
    target: SocketAddr,
    name: Option<&str>,
    trusted: &[PathBuf],
) -> Result<Handshake, String> {
    let folder = Folder::new();
    let bundle: Vec<_> =
        trusted.iter().map(|path| fs::read_to_string(path).expect("a certificate")).collect();
    let bundle = folder.write("trusted.pem", bundle.concat());
    let hello = folder.write("hello", "hello\n");
    let mut command = ns.command("openssl");
    command.args(["s_client", "-connect", &target.to_string(), "-verify_return_error", "-showcerts"]);
    command.args(name.into_iter().flat_map(|name| ["-servername", name])).arg("-CAfile");
    command.arg(bundle).stdin(fs::File::open(hello).expect("the file just written"));
    // The client ends when its input does; `-ign_eof` lets it wait for the answer and the server's close.
    let mut client = Running::start("openssl s_client", command.arg("-ign_eof"));
    let seen = wait::until(LIMIT, "a TLS handshake", || {
        let said = client.stdout();
        match client.exited() {
            _ if said.contains("olleh") => Ok(Ok(said)),
            Some(_) => Ok(Err(client.log())),
            None => Err(client.log()),
        }
    })?;
    let certificate = between(&seen, "-----BEGIN CERTIFICATE-----", "-----END CERTIFICATE-----");
    let name = seen.lines().find_map(|line| line.strip_prefix("subject=")).unwrap_or_default();
    let name = name.replace(' ', "").trim_start_matches("CN=").to_owned();
    Ok(Handshake { name, certificate, answer: "olleh".into() })
}

/// The first part of `text` from `start` to `end`, both included, with a final line end.
fn between(text: &str, start: &str, end: &str) -> String {
    let from = text.find(start).unwrap_or(text.len());
    let to = text[from..].find(end).map_or(from, |at| from + at + end.len());
    format!("{}\n", &text[from..to])
}
