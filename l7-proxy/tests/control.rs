//! The proxy as `lb-user` has it: told over a socket what to serve, given listening sockets and files.

mod common;

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use common::{
    eventually,
    looked_after::{Proxy, get, nowhere, serve},
};
use l7_proxy::spec::{Ask, CONTROL_VERSION, Memory, Reply, ServerState, Span, StickyTable};
use rustix::process::{Pid, Signal, kill_process};

#[test]
fn it_serves_what_it_is_told_on_sockets_it_is_given() {
    let mut proxy = Proxy::start("serves");
    let Reply::Hello { control, pid, workers, .. } = proxy.ask(&Ask::Hello) else { panic!("no greeting") };
    assert_eq!((control, pid), (CONTROL_VERSION, proxy.child.id()));
    assert!(workers > 0);
    // The kernel says the same, should it ever not answer: not the number of whoever made the socket.
    let another = UnixStream::connect(&proxy.path).unwrap();
    let peer = rustix::net::sockopt::socket_peercred(&another).unwrap();
    assert_eq!(peer.pid.as_raw_nonzero().get().cast_unsigned(), pid);
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    proxy.give(&listener);
    let mut spec = nowhere(address);
    assert_eq!(serve(&mut proxy, &spec), Reply::Done);
    assert!(get(address).starts_with("HTTP/1.1 404"));
    let Reply::Status(status) = proxy.ask(&Ask::Status) else { panic!("no status") };
    assert_eq!((status.services[0].accepted, status.services[0].requests), (1, 1));

    // Nobody is let in, and the socket stays with who opened it: clients wait.
    spec.services[0].closed = true;
    assert_eq!(serve(&mut proxy, &spec), Reply::Done);
    let waiting = std::thread::spawn(move || get(address));
    proxy.give(&listener);
    spec.services[0].closed = false;
    assert_eq!(serve(&mut proxy, &spec), Reply::Done);
    assert!(waiting.join().unwrap().starts_with("HTTP/1.1 404"));
    drop(listener);
    assert_eq!(proxy.ask(&Ask::End { within: Span::from_secs(5), gently: false }), Reply::Done);
    proxy.ends();
    assert!(TcpStream::connect(address).is_err());
}

#[test]
fn it_reads_no_files_but_those_it_is_given() {
    let mut proxy = Proxy::start("files");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut spec = nowhere(address);
    // There is such a file, but not for it.
    spec.services[0].error_pages.insert(404, "/etc/hostname".into());
    let Reply::Wrong(problems) = proxy.ask(&Ask::Check(Box::new(spec.clone()))) else {
        panic!("not refused")
    };
    assert!(
        problems[0].to_string().contains("cannot read /etc/hostname: it was not handed over"),
        "{problems:?}"
    );
    proxy.give_file("/etc/hostname", b"HTTP/1.1 404 Gone Fishing\r\n\r\nbody");
    assert_eq!(proxy.ask(&Ask::Check(Box::new(spec.clone()))), Reply::Done);
    proxy.give(&listener);
    assert_eq!(serve(&mut proxy, &spec), Reply::Done);
    assert!(get(address).ends_with("body"));
    proxy
        .channel
        .send(&Ask::File { path: "/etc/hostname".into(), contents: Err("not to be read".into()) }, &[])
        .unwrap();
    assert_eq!(proxy.channel.receive::<Reply>().unwrap().unwrap().0, Reply::Done);
    let Reply::Wrong(problems) = serve(&mut proxy, &spec) else { panic!("not refused") };
    assert!(problems[0].to_string().contains("not to be read"), "{problems:?}");
    assert!(get(address).ends_with("body"), "what was served still is");
}

#[test]
fn another_lb_user_finds_everything_and_another_proxy_takes_over() {
    let mut old = Proxy::start("old");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    old.give(&listener);
    drop(listener);
    assert_eq!(serve(&mut old, &nowhere(address)), Reply::Done);
    let table = StickyTable {
        service: "web".into(),
        pool: "p".into(),
        last: Some("s1".into()),
        clients: vec![("10.0.0.1".parse().unwrap(), "s1".into(), 5_000)],
    };
    let memory = Memory { sticky: vec![table], counted: None };
    assert_eq!(old.ask(&Ask::Remember(memory)), Reply::Done);
    let mut kept = TcpStream::connect(address).unwrap();
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut some = [0; 512];
    let got = kept.read(&mut some).unwrap();
    assert!(some[..got].starts_with(b"HTTP/1.1 404"));

    old.reconnect();
    old.channel.send(&Ask::HandBack, &[]).unwrap();
    let (reply, mut files) = old.channel.receive::<Reply>().unwrap().unwrap();
    let Reply::Listeners { addresses, last: true } = reply else { panic!("{reply:?}") };
    // One for each worker.
    assert!(addresses.iter().all(|one| *one == address) && addresses.len() == files.len());
    let listener = TcpListener::from(files.remove(0));
    let Reply::Memory(memory) = old.ask(&Ask::Memory) else { panic!("no memory") };
    assert_eq!(memory.sticky[0].clients[0].1, "s1");
    // A request is counted when its answer is out, and we may be quicker than that.
    let until = Instant::now() + Duration::from_secs(20);
    let (status, counted) = loop {
        let Reply::Status(status) = old.ask(&Ask::Status) else { panic!("no status") };
        let counted = status.services[0].requests;
        if counted == 1 {
            break (status, counted);
        }
        assert!(counted == 0 && Instant::now() < until, "{status:?}");
        std::thread::sleep(Duration::from_millis(5));
    };

    let mut new = Proxy::start("new");
    new.give(&listener);
    drop(listener);
    assert_eq!(serve(&mut new, &nowhere(address)), Reply::Done);
    new.ask(&Ask::Remember(Memory { counted: Some(status), ..memory.clone() }));
    assert_eq!(old.ask(&Ask::End { within: Span::from_secs(60), gently: true }), Reply::Done);
    for _ in 0..50 {
        assert!(get(address).starts_with("HTTP/1.1 404"));
    }
    // The idle connection to the old one is good for one more request.
    kept.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    let mut last = String::new();
    kept.read_to_string(&mut last).unwrap();
    assert!(
        last.starts_with("HTTP/1.1 404") && last.to_ascii_lowercase().contains("connection: close"),
        "{last}"
    );
    old.ends();
    let Reply::Status(status) = new.ask(&Ask::Status) else { panic!("no status") };
    // The old one may have served some of them to the end.
    assert!(status.services[0].requests > counted, "what was counted before counts on: {status:?}");
    let Reply::Memory(after) = new.ask(&Ask::Memory) else { panic!("no memory") };
    assert_eq!(after.sticky[0].last, memory.sticky[0].last);
    assert!(after.sticky[0].clients[0].2 >= 5_000, "it goes on ageing: {after:?}");
    let unknown = Ask::Servers(vec![l7_proxy::spec::ServerChange {
        pool: "p".into(),
        server: "s1".into(),
        state: ServerState::Down,
    }]);
    assert!(matches!(new.ask(&unknown), Reply::Wrong(_)));
}

#[test]
fn it_outlives_who_spoke_to_it_and_minds_nobody_who_speaks_nonsense() {
    let mut proxy = Proxy::start("outlives");
    proxy.channel.send_bytes(&[0, 0, 0, 2, b'!', b'!']).unwrap();
    assert!(proxy.channel.receive::<Reply>().map_or(true, |reply| reply.is_none()));
    proxy.reconnect();
    assert!(matches!(proxy.ask(&Ask::Hello), Reply::Hello { .. }));
    let output =
        Command::new(env!("CARGO_BIN_EXE_l7-proxy")).arg("--control").stdin(Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(71));
    assert!(String::from_utf8_lossy(&output.stderr).contains("must be a listening Unix socket"));
}

#[test]
fn who_is_told_to_end_by_somebody_else_says_so_and_lets_nobody_in() {
    let mut proxy = Proxy::start("signal");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    proxy.give(&listener);
    assert_eq!(serve(&mut proxy, &nowhere(address)), Reply::Done);
    // It may ask for something yet.
    let _waits = TcpStream::connect(address).unwrap();
    let asked = std::cell::RefCell::new(proxy);
    let status = || match asked.borrow_mut().ask(&Ask::Status) {
        Reply::Status(status) => status,
        other => panic!("no status but {other:?}"),
    };
    eventually("the client is in", || status().services[0].connections == 1);
    kill_process(Pid::from_child(&asked.borrow().child), Signal::TERM).unwrap();
    eventually("it says that it ends", || status().is_draining());
    let mut proxy = asked.into_inner();
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = other.local_addr().unwrap();
    proxy.give(&other);
    let Reply::Wrong(problems) = serve(&mut proxy, &nowhere(elsewhere)) else { panic!("not refused") };
    assert!(problems[0].to_string().contains("about to end"), "{problems:?}");
    drop(other);
    assert!(TcpStream::connect(elsewhere).is_err(), "a socket that it keeps lets clients in to nobody");
}
