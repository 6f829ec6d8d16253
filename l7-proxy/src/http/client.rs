//! What is known of a client's connection, written once and used for each of its requests.

use std::{net::IpAddr, sync::Arc};

use crate::{front::Guest, model::Service, server::Ends, tls::Shown};

/// A client's connection.
#[derive(Clone, Debug)]
pub struct Client {
    /// Both ends, as the PROXY protocol says where it is spoken.
    pub ends: Ends,
    /// The client's address as text.
    pub address: String,
    /// The name the client asked for when it began TLS, in lower case.
    pub server_name: Option<Arc<str>>,
    /// Whether it came over TLS.
    pub secure: bool,
    /// The certificate it has shown.
    pub certificate: Option<Arc<Shown>>,
    /// Whether what it says about its own clients counts.
    pub trusted: bool,
    /// What becomes of the connection.
    pub guest: Arc<Guest>,
}

impl Client {
    /// A client of `service`.
    #[must_use]
    pub fn new(
        ends: Ends,
        secure: bool,
        server_name: Option<Arc<str>>,
        certificate: Option<Arc<Shown>>,
        service: &Service,
    ) -> Self {
        let address = ends.client.ip().to_canonical();
        Self {
            ends,
            address: address.to_string(),
            server_name,
            secure,
            certificate,
            trusted: service.trusts(address),
            guest: Arc::default(),
        }
    }

    /// The client's address; IPv4 in IPv6 clothes is undressed.
    #[must_use]
    pub fn ip(&self) -> IpAddr {
        self.ends.client.ip().to_canonical()
    }
}
