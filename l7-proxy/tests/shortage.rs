//! A process that may have no more files open: what waits for better times makes room for what is asked for now, and
//! whoever could not be let in is let in later.

mod common;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use common::{
    Client, Server, eventually, find, listener,
    looked_after::{Proxy, nowhere, serve},
    next_request,
    tls::Folder,
};
use l7_proxy::spec::{Ask, Reply};
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};

/// `l7-proxy` with so many files at most; what comes behind are its arguments.
fn with_files(most: u32) -> Command {
    let mut command = Command::new("sh");
    let limit = format!("ulimit -n {most}; exec \"$0\" \"$@\"");
    command.args(["-c", &limit, env!("CARGO_BIN_EXE_l7-proxy")]);
    command
}

/// A process that ends with the test.
struct Ends(Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn connections_that_wait_make_room_for_those_that_are_needed() {
    const AT_ONCE: usize = 18;
    const ROUNDS: usize = 15;
    // Servers that answer when all have asked, so that as many connections are left to wait.
    let servers: Vec<Server> = (0..ROUNDS)
        .map(|_| {
            let here = AtomicUsize::new(0);
            Server::script(move |client, _| {
                while next_request(client).is_some() {
                    here.fetch_add(1, Ordering::SeqCst);
                    let until = Instant::now() + Duration::from_secs(5);
                    while here.load(Ordering::SeqCst) < AT_ONCE && Instant::now() < until {
                        std::thread::sleep(Duration::from_millis(2));
                    }
                    client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
                }
            })
        })
        .collect();
    let (folder, taken): (_, Vec<_>) = (Folder::new(), (0..ROUNDS).map(|_| listener()).collect());
    let addresses: Vec<_> = taken.iter().map(|one| one.local_addr().unwrap()).collect();
    let (mut services, mut pools) = (Vec::new(), Vec::new());
    for (number, (server, address)) in servers.iter().zip(&addresses).enumerate() {
        services.push(format!(
            r#"{{ "name": "s{number}", "listen": ["{address}"], "mode": "http", "pool": "p{number}" }}"#
        ));
        pools.push(format!(
            r#"{{ "name": "p{number}", "servers": [{{ "name": "a", "address": "127.0.0.1", "port": {} }}] }}"#,
            server.address.port()
        ));
    }
    let (services, pools) = (services.join(", "), pools.join(", "));
    let spec = format!(r#"{{ "services": [{services}], "pools": [{pools}], "workers": 1 }}"#);
    let spec = folder.write("spec.json", &spec);
    drop(taken);
    // 128 are for everything else, and each client may need one more for its server. That makes 56 clients: those of a round,
    // and others about to be gone, of the round before and of those who asked whether it serves.
    let mut command = with_files(240);
    let _process = Ends(command.arg("--spec").arg(spec).stderr(Stdio::null()).spawn().unwrap());
    eventually("it serves", || addresses.iter().all(|at| std::net::TcpStream::connect(at).is_ok()));
    for address in addresses {
        let mut clients: Vec<_> = (0..AT_ONCE).map(|_| Client::connect(address)).collect();
        for client in &mut clients {
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n");
        }
        for client in &mut clients {
            let (head, _) = client.message();
            assert!(head.starts_with("HTTP/1.1 200 "), "{address}: {head}");
        }
    }
}

#[test]
fn sockets_for_clients_addresses_take_no_room_where_nobody_wants_them() {
    let mut proxy = Proxy::start_as("room", with_files(400).args(["--workers", "1"]));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    proxy.give(&listener);
    assert_eq!(serve(&mut proxy, &nowhere(address)), Reply::Done);
    let mut clients: Vec<_> = (0..100).map(|_| Client::connect(address)).collect();
    for client in &mut clients {
        client.stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
        assert!(client.message().0.starts_with("HTTP/1.1 404 "));
    }
}

/// Files that a process has open.
fn open_files(process: &Child) -> Vec<u64> {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", process.id())).unwrap();
    folder.map(|file| file.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn sockets_are_handed_back_though_no_file_is_left() {
    let mut proxy = Proxy::start_as("back", &mut Command::new(env!("CARGO_BIN_EXE_l7-proxy")));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    proxy.give(&listener);
    assert_eq!(serve(&mut proxy, &nowhere(address)), Reply::Done);
    // No number below the highest is left, and none above may be had.
    let (mut clients, mut most) = (Vec::new(), 0);
    eventually("no number is free", || {
        let open = open_files(&proxy.child);
        most = open.iter().max().unwrap() + 1;
        let free = most - open.len() as u64;
        clients.extend((0..free).map(|_| Client::connect(address)));
        free == 0
    });
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    let process = Some(Pid::from_child(&proxy.child));
    prlimit(process, Resource::Nofile, Rlimit { current: Some(most), maximum }).unwrap();
    proxy.channel.send(&Ask::HandBack, &[]).unwrap();
    let (reply, sockets) = proxy.channel.receive::<Reply>().unwrap().expect("an answer");
    let Reply::Listeners { addresses, last: true } = reply else { panic!("{reply:?}") };
    assert!(!sockets.is_empty() && addresses == vec![address; sockets.len()], "{addresses:?}");
}

#[test]
fn a_shortage_does_not_keep_the_next_lb_user_out_for_good() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_l7-proxy"));
    let mut proxy = Proxy::start_as("short", command.stderr(Stdio::piped()));
    assert!(matches!(proxy.ask(&Ask::Hello), Reply::Hello { .. }));
    let said: Arc<Mutex<String>> = Arc::default();
    let (heard, lines) = (Arc::clone(&said), BufReader::new(proxy.child.stderr.take().unwrap()));
    std::thread::spawn(move || {
        lines.lines().map_while(Result::ok).for_each(|line| heard.lock().unwrap().push_str(&(line + "\n")));
    });
    let process = Pid::from_child(&proxy.child);
    // The most that it may have is what we may have.
    let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
    prlimit(Some(process), Resource::Nofile, Rlimit { current: Some(3), maximum }).unwrap();
    // It notices that the former one has gone, and has no file left for this one.
    proxy.reconnect();
    eventually("it says why", || find(said.lock().unwrap().as_bytes(), b"Too many open files").is_some());
    prlimit(Some(process), Resource::Nofile, Rlimit { current: maximum, maximum }).unwrap();
    assert!(matches!(proxy.ask(&Ask::Hello), Reply::Hello { .. }));
}
