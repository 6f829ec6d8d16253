//! The proxy as `lb-user` has it: told over a socket what to serve, given listening sockets and files.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::{
        fd::{AsFd, OwnedFd},
        unix::net::{UnixListener, UnixStream},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use l7_proxy::spec::{Ask, Channel, Mode, Reply, Service, Spec};

const LIMIT: Duration = Duration::from_secs(10);

/// A process that is looked after; killed on drop.
pub(crate) struct Proxy {
    pub(crate) child: Child,
    pub(crate) channel: Channel,
    pub(crate) path: std::path::PathBuf,
}

impl Proxy {
    pub(crate) fn start(name: &str) -> Self {
        Self::start_as(name, &mut Command::new(env!("CARGO_BIN_EXE_l7-proxy")))
    }

    /// Starts one by a command that comes to it.
    pub(crate) fn start_as(name: &str, command: &mut Command) -> Self {
        let path = std::env::temp_dir().join(format!("l7-control-{}-{name}.sock", std::process::id()));
        let _ = std::fs::remove_file(&path);
        let listener = UnixListener::bind(&path).unwrap();
        let child = command.arg("--control").stdin(Stdio::from(OwnedFd::from(listener))).spawn().unwrap();
        let channel = Channel::new(UnixStream::connect(&path).unwrap(), Some(LIMIT)).unwrap();
        Self { child, channel, path }
    }

    /// Another lb-user comes.
    pub(crate) fn reconnect(&mut self) {
        self.channel = Channel::new(UnixStream::connect(&self.path).unwrap(), Some(LIMIT)).unwrap();
    }

    pub(crate) fn ask(&mut self, ask: &Ask) -> Reply {
        self.channel.send(ask, &[]).unwrap();
        self.channel.receive().unwrap().expect("an answer").0
    }

    pub(crate) fn give(&mut self, listener: &TcpListener) {
        let ask = Ask::Listeners(vec![listener.local_addr().unwrap()]);
        self.channel.send(&ask, &[listener.as_fd()]).unwrap();
        assert_eq!(self.channel.receive::<Reply>().unwrap().unwrap().0, Reply::Done);
    }

    pub(crate) fn give_file(&mut self, path: &str, contents: &[u8]) {
        self.channel
            .send(&Ask::File { path: path.into(), contents: Ok(contents.len() as u64) }, &[])
            .unwrap();
        self.channel.send_bytes(contents).unwrap();
        assert_eq!(self.channel.receive::<Reply>().unwrap().unwrap().0, Reply::Done);
    }

    pub(crate) fn ends(&mut self) {
        let until = Instant::now() + LIMIT;
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "it does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_file(&self.path);
    }
}

/// A service that answers every request with 404, for it leads nowhere.
pub(crate) fn nowhere(address: SocketAddr) -> Spec {
    Spec { services: vec![Service::new("web", vec![address], Mode::Http)], ..Spec::default() }
}

pub(crate) fn get(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn serve(proxy: &mut Proxy, spec: &Spec) -> Reply {
    proxy.ask(&Ask::Serve(Box::new(spec.clone())))
}
