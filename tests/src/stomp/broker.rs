//! A broker: it gives what is sent to a destination to those who have subscribed to it there, and remembers nothing.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use super::{BEAT, Frame, is_silence};
use crate::netns::Netns;

/// Version 1.2 says that a broker may end connections of clients that have been silent for longer than they said: so often.
const PATIENCE: u32 = 40;

/// A broker on one address and port; it ends on drop.
#[derive(Debug)]
pub struct Broker {
    shared: Arc<Shared>,
    listener: TcpListener,
}

#[derive(Debug)]
struct Shared {
    name: String,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    ended: bool,
    /// Clients that have said hello.
    clients: usize,
    connections: Vec<TcpStream>,
    subscriptions: Vec<Subscription>,
}

#[derive(Debug)]
struct Subscription {
    client: SocketAddr,
    id: String,
    destination: String,
    to: TcpStream,
}

impl Broker {
    /// Starts one that says `name` of itself (`server` in its `CONNECTED`).
    ///
    /// # Panics
    /// When the port cannot be had.
    #[track_caller]
    #[must_use]
    pub fn start(ns: &Netns, name: &str, address: impl Into<IpAddr>, port: u16) -> Self {
        let address = SocketAddr::new(address.into(), port);
        let listener = ns.run(|| TcpListener::bind(address));
        let listener = listener.unwrap_or_else(|error| panic!("{name}: listen on {address}: {error}"));
        let shared = Arc::new(Shared { name: name.to_owned(), state: Mutex::default() });
        let (of_thread, accepting) = (Arc::clone(&shared), listener.try_clone().expect("a copy of a socket"));
        thread::spawn(move || {
            for stream in accepting.incoming() {
                // A socket that was shut down gives errors for ever.
                if of_thread.state().ended {
                    return;
                }
                let Ok(stream) = stream else { continue };
                let shared = Arc::clone(&of_thread);
                thread::spawn(move || shared.serve(&stream));
            }
        });
        Self { shared, listener }
    }

    /// Clients so far that have said hello.
    #[must_use]
    pub fn clients(&self) -> usize {
        self.shared.state().clients
    }

    /// Ends it at once, its connections included.
    pub fn end(&self) {
        let mut state = self.shared.state();
        state.ended = true;
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
        for connection in state.connections.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One connection. Errors end it: the client sees them, and the client is the judge.
    fn serve(&self, stream: &TcpStream) {
        let (Ok(client), Ok(copy)) = (stream.peer_addr(), stream.try_clone()) else { return };
        self.state().connections.push(copy);
        let _ = self.converse(stream, client);
        let _ = stream.shutdown(Shutdown::Both);
        let mut state = self.state();
        state.subscriptions.retain(|one| one.client != client);
        state.connections.retain(|one| one.peer_addr().is_ok_and(|peer| peer != client));
    }

    fn converse(&self, mut stream: &TcpStream, client: SocketAddr) -> io::Result<()> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_millis(BEAT / 2)))?;
        let (mut arrived, mut beats, mut silent, mut connected) = (Vec::new(), 0, 0, false);
        let mut buffer = [0; 4096];
        loop {
            while let Some(frame) = Frame::take(&mut arrived, &mut beats) {
                connected |= matches!(&*frame.command, "CONNECT" | "STOMP");
                if !self.answer(stream, client, &frame)? {
                    return Ok(());
                }
            }
            match stream.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => {
                    arrived.extend_from_slice(&buffer[..length]);
                    silent = 0;
                }
                Err(error) if is_silence(&error) => silent += 1,
                Err(error) => return Err(error),
            }
            if silent > PATIENCE {
                return Ok(());
            }
            if connected {
                let _one_at_a_time = self.state();
                stream.write_all(b"\n")?;
            }
        }
    }

    /// Does as it is told; `false` when that was the last.
    fn answer(&self, mut stream: &TcpStream, client: SocketAddr, frame: &Frame) -> io::Result<bool> {
        let header = |name: &str| frame.header(name).unwrap_or_default();
        let mut state = self.state();
        let mut goes_on = true;
        match &*frame.command {
            "CONNECT" | "STOMP" => {
                state.clients += 1;
                let beat = format!("{BEAT},{BEAT}");
                let lines = [("version", "1.2"), ("heart-beat", &*beat), ("server", &*self.name)];
                stream.write_all(&Frame::new("CONNECTED", &lines, "").bytes())?;
            }
            "SUBSCRIBE" => state.subscriptions.push(Subscription {
                client,
                id: header("id").to_owned(),
                destination: header("destination").to_owned(),
                to: stream.try_clone()?,
            }),
            "SEND" => {
                for one in state.subscriptions.iter().filter(|one| one.destination == header("destination")) {
                    let lines =
                        [("subscription", &*one.id), ("message-id", "1"), ("destination", &*one.destination)];
                    let message = Frame::new("MESSAGE", &lines, &*frame.body);
                    // Whoever is gone has no use for it.
                    let _ = (&one.to).write_all(&message.bytes());
                }
            }
            "DISCONNECT" => goes_on = false,
            _ => {
                let lines = [("message", "not understood")];
                stream.write_all(&Frame::new("ERROR", &lines, "").bytes())?;
                goes_on = false;
            }
        }
        if let Some(receipt) = frame.header("receipt") {
            stream.write_all(&Frame::new("RECEIPT", &[("receipt-id", receipt)], "").bytes())?;
        }
        Ok(goes_on)
    }
}
