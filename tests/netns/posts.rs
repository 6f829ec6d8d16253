//! POSTs, which must not be done twice: through servers that are killed (R14), and one that ends idle connections (E3).

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use lb_tests::{
    address::Family,
    client,
    daemon::Balancer,
    http::Web,
    needs_balancer,
    netns::Netns,
    topology::{Layout, Topology},
    wait,
};

use crate::l7::ask;

const LIMIT: Duration = Duration::from_secs(60);

fn full() -> bool {
    std::env::var_os("LB_TEST_FULL").is_some()
}

/// A VIP of mode `http` on port 80 with all servers of a network.
fn config(net: &Topology, target: SocketAddr) -> String {
    let server = |host: &lb_tests::topology::Host| {
        format!("{{ name = \"{}\", address = \"{}\" }}", host.name, host.address.of(Family::V4))
    };
    let servers: Vec<_> = net.servers.iter().map(server).collect();
    format!(
        "[health]\ninterval = \"200ms\"\n[pool.web]\nservers = [{}]\n\
         [vip.web]\naddress = \"{}\"\nport = 80\nmode = \"http\"\npool = \"web\"\n",
        servers.join(", "),
        target.ip()
    )
}

/// One POST with a number of its own; whether it was answered with 200.
fn post(target: SocketAddr, id: &str) -> Result<bool, String> {
    let mut stream = client::connect(target, None, LIMIT)?;
    let request = format!(
        "POST /order HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Id: {id}\r\nContent-Length: 4\r\n\r\nbody"
    );
    stream.write_all(request.as_bytes()).map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).map_err(|error| error.to_string())?;
    Ok(answer.starts_with(b"HTTP/1.1 200 "))
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }
}

#[test]
fn posts_are_done_once_at_most_while_servers_are_killed() {
    needs_balancer!();
    // R14.
    let net = Topology::build(Layout::default());
    let start = |index: usize| {
        let host = &net.servers[index];
        Web::start(&host.ns, &host.name, host.address.of(Family::V4), 80)
    };
    let target = net.vip(200).at(Family::V4, 80);
    let mut webs = vec![start(0), start(1), start(2)];
    let balancer = Balancer::start(&net.lb.ns, &["eth0"], &config(&net, target));
    let _ = balancer.wait_all_up();
    wait::until(LIMIT, "the first answer", || net.client().ns.run(|| ask(target)));

    let (clients, each) = (8, if full() { 625 } else { 100 });
    let (good, over) = (Mutex::new(Vec::new()), AtomicBool::new(false));
    let kills = thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let (mut random, mut alive, mut kills) = (Random(4_711), [0, 1, 2], 0);
            while !over.load(SeqCst) {
                let index = random.next() as usize % alive.len();
                webs[alive[index]].end();
                kills += 1;
                thread::sleep(Duration::from_millis(random.next() % 60));
                // What the former one was asked is looked at in the end.
                alive[index] = webs.len();
                webs.push(start(index));
                thread::sleep(Duration::from_millis(random.next() % 60));
            }
            kills
        });
        let ask_all = |client: usize| {
            let good = &good;
            move || {
                for number in 0..each {
                    let id = format!("{client}-{number}");
                    // Whatever else becomes of it is the kills' fault.
                    if post(target, &id).unwrap_or(false) {
                        good.lock().expect("ids").push(id);
                    }
                    thread::sleep(Duration::from_millis(2));
                }
            }
        };
        net.client().ns.run(|| {
            thread::scope(|scope| (0..clients).for_each(|client| drop(scope.spawn(ask_all(client)))));
        });
        over.store(true, SeqCst);
        killer.join().expect("the killer")
    });
    let (good, all) = (good.into_inner().expect("ids"), clients * each);
    let mut seen = BTreeMap::<String, usize>::new();
    for asked in webs.iter().flat_map(Web::asked) {
        if let Some(id) = asked.header("x-id") {
            *seen.entry(id.to_owned()).or_default() += 1;
        }
    }
    eprintln!("R14: {} of {all} POSTs were answered with 200 while {kills} servers were killed", good.len());
    let twice: Vec<_> = seen.iter().filter(|(_, times)| **times > 1).collect();
    assert!(twice.is_empty(), "done twice: {twice:?}");
    assert!(good.iter().all(|id| seen.contains_key(id)), "answered without having been asked");
    assert!(good.len() > all * 3 / 4, "most go well: {} of {all}", good.len());
}

/// A server that ends connections when they have been idle for exactly a second.
struct Impatient {
    listener: TcpListener,
    /// Connections that it has ended.
    ended: Arc<AtomicUsize>,
    answered: Arc<AtomicUsize>,
}

impl Impatient {
    fn start(ns: &Netns, address: SocketAddr) -> Self {
        let listener = ns.run(|| TcpListener::bind(address)).expect("a port");
        let (ended, answered) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
        let accepting = listener.try_clone().expect("a copy of a socket");
        let counters = (Arc::clone(&ended), Arc::clone(&answered));
        thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                let (ended, answered) = (Arc::clone(&counters.0), Arc::clone(&counters.1));
                thread::spawn(move || serve(&stream, &ended, &answered));
            }
        });
        Self { listener, ended, answered }
    }
}

impl Drop for Impatient {
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.listener, rustix::net::Shutdown::Both);
    }
}

fn serve(stream: &TcpStream, ended: &AtomicUsize, answered: &AtomicUsize) {
    let _ = stream.set_read_timeout(Some(Duration::from_secs(1)));
    let mut input = BufReader::new(stream);
    let mut used = false;
    loop {
        let mut head = String::new();
        while !head.ends_with("\r\n\r\n") {
            match input.read_line(&mut head) {
                Ok(1..) => {}
                // It has been idle for a second.
                Err(_) if head.is_empty() && used => {
                    ended.fetch_add(1, SeqCst);
                    return;
                }
                _ => return,
            }
        }
        let mut body = [0; 4];
        if head.starts_with("POST ") && input.read_exact(&mut body).is_err() {
            return;
        }
        used = true;
        answered.fetch_add(1, SeqCst);
        if (&*stream).write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").is_err() {
            return;
        }
    }
}

#[test]
fn posts_to_a_server_that_ends_idle_connections_after_a_second_get_their_answers() {
    needs_balancer!();
    // E3.
    let net = Topology::build(Layout { servers: 1, ..Layout::default() });
    let server = Impatient::start(&net.servers[0].ns, net.servers[0].address.at(Family::V4, 80));
    let target = net.vip(200).at(Family::V4, 80);
    let balancer = Balancer::start(&net.lb.ns, &["eth0"], &config(&net, target));
    let _ = balancer.wait_all_up();
    wait::until(LIMIT, "the VIP to be open", || net.client().ns.run(|| client::connect(target, None, LIMIT)));
    let (clients, rounds) = if full() { (100, 20) } else { (40, 3) };
    let client = |number: u64| {
        move || -> Result<(), String> {
            let mut stream = client::connect(target, None, LIMIT)?;
            for round in 0..rounds {
                let text = |error: std::io::Error| format!("{round}: {error}");
                stream
                    .write_all(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody")
                    .map_err(text)?;
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\nok") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).map_err(text)?;
                    answer.push(byte[0]);
                    if answer.ends_with(b"\r\n\r\n") && !answer.starts_with(b"HTTP/1.1 200 ") {
                        return Err(format!("{round}: {}", String::from_utf8_lossy(&answer)));
                    }
                }
                // Just when the server is about to end the connection, a little before or after.
                thread::sleep(Duration::from_millis(980 + (number * 7 + round * 3) % 40));
            }
            Ok(())
        }
    };
    let running: Vec<_> = (0..clients).map(|number| net.client().ns.spawn(client(number))).collect();
    let failed: Vec<_> = running.into_iter().filter_map(|one| one.join().expect("a client").err()).collect();
    assert!(failed.is_empty(), "{} clients have seen it: {:?}", failed.len(), failed[0]);
    let (answered, ended) = (server.answered.load(SeqCst), server.ended.load(SeqCst));
    eprintln!("E3: {answered} answers, {ended} idle connections were ended by the server");
    assert!(answered as u64 >= clients * rounds, "{answered} answers");
}
