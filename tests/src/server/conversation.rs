//! What is said on a connection, and to a datagram.

use std::{
    io::{self, BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream, UdpSocket},
    time::Duration,
};

use super::{Purpose, State, lock};
use crate::pattern::{Hash, Pattern};

/// A client that says nothing for so long is gone.
const SILENCE: Duration = Duration::from_secs(120);

/// One connection, from accept to close. Errors end it: the client sees them, and the client is the judge.
pub(super) fn converse(state: &State, stream: TcpStream, peer: SocketAddr) {
    let Ok(local) = stream.local_addr() else { return };
    let visit = state.note(peer, local, Purpose::Unknown);
    if let Ok(handle) = stream.try_clone() {
        lock(&state.open).insert(visit, handle);
    }
    let _ = answer(state, visit, &stream);
    lock(&state.open).remove(&visit);
}

fn answer(state: &State, visit: usize, stream: &TcpStream) -> io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(SILENCE))?;
    stream.set_write_timeout(Some(SILENCE))?;
    stream.set_nodelay(true)?;
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    let purpose = |purpose| lock(&state.visits)[visit].purpose = purpose;
    // A reset instead of a close is a probe too: some checkers close that way.
    if reader.read_line(&mut line).unwrap_or(0) == 0 {
        purpose(Purpose::Probe);
        return Ok(());
    }
    let words: Vec<_> = line.split_whitespace().collect();
    match words[..] {
        ["ECHO"] => {
            purpose(Purpose::Echo);
            writeln!(&mut &*stream, "{}", state.name)?;
            io::copy(&mut reader, &mut &*stream).map(drop)
        }
        ["TRANSFER", length, seed] => {
            purpose(Purpose::Transfer);
            let bad = |_| io::Error::other("TRANSFER needs two numbers");
            transfer(reader, stream, length.parse().map_err(bad)?, seed.parse().map_err(bad)?)
        }
        _ => {
            purpose(Purpose::Request);
            while reader.read_line(&mut line)? > 0 && !line.ends_with("\r\n\r\n") {}
            let name = &state.name;
            let length = name.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            (&*stream).write_all(format!("{head}{name}").as_bytes())
        }
    }
}

fn transfer(mut reader: impl io::Read, mut stream: &TcpStream, length: usize, seed: u64) -> io::Result<()> {
    let mut hash = Hash::default();
    let mut buffer = [0; 16 * 1024];
    let mut left = length;
    while left > 0 {
        let now = left.min(buffer.len());
        reader.read_exact(&mut buffer[..now])?;
        hash.update(&buffer[..now]);
        left -= now;
    }
    writeln!(stream, "{}", hash.value())?;
    Pattern::chunks(seed + 1, length, |bytes| stream.write_all(bytes))
}

pub(super) fn answer_datagrams(state: &State, socket: &UdpSocket) {
    let mut buffer = [0; 2048];
    while let Ok((length, peer)) = socket.recv_from(&mut buffer) {
        if let Ok(local) = socket.local_addr() {
            state.note(peer, local, Purpose::Datagram);
        }
        let mut answer = format!("{} ", state.name).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        let _ = socket.send_to(&answer, peer);
    }
}
