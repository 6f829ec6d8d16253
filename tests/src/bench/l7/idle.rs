//! Clients that have had an answer and stay: TLS connections by the thousand.

use std::{fs, net::Ipv4Addr, path::Path, sync::Arc};

use anyhow::{Result, ensure};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinSet,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{contender::NAME, cost};
use crate::netns::Netns;

/// Connections that are made at a time.
const AT_A_TIME: usize = 50;

/// Has so many TLS connections to a port open, each after one request, and looks at something once `process`, which is at
/// their other end, has nothing left to do.
///
/// # Errors
/// When a connection or its request fails, or `look` does.
pub fn hold<T: Send>(
    ns: &Netns,
    certificate: &Path,
    port: u16,
    process: u32,
    connections: usize,
    look: impl FnOnce() -> Result<T> + Send,
) -> Result<T> {
    let connector = connector(certificate)?;
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build();
    ns.run(|| {
        runtime()?.block_on(async {
            let mut held = Vec::with_capacity(connections);
            while held.len() < connections {
                let mut made = JoinSet::new();
                for _ in 0..AT_A_TIME.min(connections - held.len()) {
                    made.spawn(open(connector.clone(), port));
                }
                held.append(&mut made.join_all().await.into_iter().collect::<Result<_>>()?);
            }
            // Nothing of ours has anything to do meanwhile.
            cost::rest(process)?;
            let seen = look();
            drop(held);
            seen
        })
    })
}

/// A client that trusts one certificate.
fn connector(certificate: &Path) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(&fs::read(certificate)?)?)?;
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let config = config.with_safe_default_protocol_versions()?.with_root_certificates(roots);
    Ok(TlsConnector::from(Arc::new(config.with_no_client_auth())))
}

/// A connection that has had one answer.
async fn open(connector: TlsConnector, port: u16) -> Result<TlsStream<TcpStream>> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
    let mut stream = connector.connect(ServerName::try_from(NAME)?, stream).await?;
    stream.write_all(format!("GET /app/1k HTTP/1.1\r\nHost: {NAME}\r\n\r\n").as_bytes()).await?;
    let mut answer = vec![0; 4096];
    let mut came = 0;
    while !answer[..came].ends_with(&[b'x'; 1024]) {
        let read = stream.read(&mut answer[came..]).await?;
        ensure!(read > 0, "the answer is not whole: {}", String::from_utf8_lossy(&answer[..came]));
        came += read;
    }
    ensure!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer[..came]));
    Ok(stream)
}
