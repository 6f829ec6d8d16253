//! The TCP probe: connect, then close. No byte is sent.

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{Outcome, Peer, connect};

/// How long the server may take to close its side; the result does not depend on it.
const FAREWELL: Duration = Duration::from_millis(100);

/// Of what it has left to say no more is read than this many buffers of 4 KiB.
const PATIENCE: usize = 16;

/// Connects, or says why not.
pub(super) async fn probe(peer: impl Into<Peer>) -> Result<String, Outcome> {
    close(connect(peer).await?).await;
    Ok("connected".into())
}

/// Ends the connection as a client would that has nothing to say. A greeting that arrives meanwhile is
/// read, because closing over unread data sends a reset, which servers log or even punish.
pub(super) async fn close(mut stream: TcpStream) {
    let farewell = async {
        if stream.shutdown().await.is_ok() {
            let mut greeting = [0; 4096];
            for _ in 0..PATIENCE {
                if stream.read(&mut greeting).await.is_ok_and(|length| length > 0) {
                    continue;
                }
                break;
            }
        }
    };
    // Neither an error nor a server that does not close says anything about the server's health.
    let _ = timeout(FAREWELL, farewell).await;
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::health::probe::failure;

    #[tokio::test]
    async fn an_open_port_is_a_success_in_either_family() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let listener = TcpListener::bind(address).await.unwrap();
            assert_eq!(probe(listener.local_addr().unwrap()).await, Ok("connected".into()));
        }
    }

    #[tokio::test]
    async fn a_closed_port_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        drop(listener);
        assert_eq!(probe(address).await, Err(failure("connection refused")));
    }

    #[tokio::test]
    async fn a_listener_whose_queue_is_full_does_not_answer() {
        // Linux drops further SYNs once a queue of length 0 holds one connection.
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let listener = socket.listen(0).unwrap();
        let address = listener.local_addr().unwrap();
        let _first = TcpStream::connect(address).await.unwrap();
        assert!(timeout(Duration::from_millis(200), probe(address)).await.is_err());
    }

    #[tokio::test]
    async fn the_server_sees_an_orderly_end_and_no_data() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"220 hello\r\n").await.unwrap();
            let mut received = Vec::new();
            stream.read_to_end(&mut received).await.map(|_| received)
        };
        let (outcome, received) = tokio::join!(probe(address), server);
        assert_eq!(outcome, Ok("connected".into()));
        assert_eq!(received.expect("no reset"), b"");
    }
}
