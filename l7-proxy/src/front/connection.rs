//! What is done with a connection that was accepted.

use std::sync::Arc;

use bytes::BytesMut;
use socket2::SockRef;
use tokio::net::TcpStream;

use super::{Door, http1};
use crate::{http::Client, io::Stream, server::Ends, spec::Mode, state::Refusal};

/// Serves a connection until it ends.
pub async fn welcome(door: Door, socket: TcpStream, ends: Ends) {
    let service = Arc::clone(&door.entry.service());
    let counters = service.state.counters(door.worker);
    let _connected = match service.state.connect(ends.client.ip(), &service.limits) {
        Ok(connected) => connected,
        Err(refusal) => return counters.refused(refusal),
    };
    counters.connection();
    let _ = SockRef::from(&socket).set_tcp_nodelay(true);
    let client = Client::new(ends, false, None, &service);
    match service.mode {
        Mode::Http => {
            http1::serve(door, service.clone(), Stream::Plain(socket), BytesMut::new(), client).await
        }
        Mode::Tcp => counters.refused(Refusal::Malformed),
    }
}
