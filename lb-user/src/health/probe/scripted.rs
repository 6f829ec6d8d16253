//! Test servers on loopback that do exactly what they are told, also what no honest server would.

use std::{net::SocketAddr, time::Duration};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::{sleep, timeout},
};

/// What a server does next.
pub(super) enum Turn {
    /// Reads until this has come.
    HearUntil(&'static [u8]),
    /// Says this. Whoever listens may hang up before the end.
    Say(Vec<u8>),
    /// Says this byte by byte, so often.
    Drip(&'static [u8], Duration),
    /// Says the first, then the second for ever.
    SayForEver(&'static [u8], &'static [u8]),
    /// Says no more, but listens on.
    HalfClose,
    /// Waits until the other side has closed.
    Wait,
}

/// A server for one connection; it closes when it is through with its turns.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    task: JoinHandle<Vec<u8>>,
}

impl Server {
    pub(super) async fn start(turns: Vec<Turn>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut heard = Vec::new();
            for turn in turns {
                if play(&mut stream, turn, &mut heard).await.is_err() {
                    break;
                }
            }
            // What is still said is heard, for a moment.
            let _ = timeout(Duration::from_millis(200), stream.read_to_end(&mut heard)).await;
            heard
        });
        Self { address, task }
    }

    /// Everything that was said to it.
    pub(super) async fn heard(self) -> Vec<u8> {
        self.task.await.unwrap()
    }
}

async fn play(stream: &mut TcpStream, turn: Turn, heard: &mut Vec<u8>) -> std::io::Result<()> {
    match turn {
        Turn::HearUntil(end) => {
            while !heard.ends_with(end) {
                heard.push(stream.read_u8().await?);
            }
        }
        Turn::Say(words) => stream.write_all(&words).await?,
        Turn::Drip(words, pause) => {
            for byte in words {
                stream.write_all(&[*byte]).await?;
                sleep(pause).await;
            }
        }
        Turn::SayForEver(first, again) => {
            stream.write_all(first).await?;
            loop {
                stream.write_all(again).await?;
            }
        }
        Turn::HalfClose => stream.shutdown().await?,
        Turn::Wait => drop(stream.read_to_end(heard).await?),
    }
    Ok(())
}
