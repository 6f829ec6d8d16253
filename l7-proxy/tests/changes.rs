//! Changes while clients are busy: nobody fails for them.

mod common;

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

use common::{Client, Proxy, Server, eventually, header, listener, next_request, spec};
use l7_proxy::{process::Engine, process::Listeners, spec::Spec};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

#[test]
fn twenty_changes_under_load_fail_nobody() {
    let servers = [Server::echo("a"), Server::echo("b"), Server::echo("c")];
    let told = |number: usize, address| {
        // Servers come, go and change their weight; header lines change.
        let of_now = [&servers[number % 3], &servers[(number + 1) % 3]].map(|server| server.address);
        let more =
            if number.is_multiple_of(2) { r#", "headers": { "forwarding": { "via": true } }"# } else { "" };
        let mut told: Spec = spec(address, more, &of_now, "", "");
        told.pools[0].servers[0].weight = 1 + (number % 5) as u16;
        told.workers = Some(2);
        told
    };
    let proxy = Proxy::start_changed(|address| told(0, address));
    let address = proxy.address;
    let (ended, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> = (0..4)
        .map(|number| {
            let (ended, served) = (Arc::clone(&ended), Arc::clone(&served));
            thread::spawn(move || {
                let mut client = Client::connect(address);
                while !ended.load(SeqCst) {
                    client.send(GET);
                    let (head, _) = client.message();
                    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
                    served.fetch_add(1, SeqCst);
                    if number % 2 == 0 {
                        client = Client::connect(address);
                    }
                }
            })
        })
        .collect();
    for number in 1..=20 {
        let before = served.load(SeqCst);
        eventually("clients are served", || served.load(SeqCst) >= before + 50);
        proxy.engine().apply(&told(number, address), Listeners::none()).unwrap();
    }
    ended.store(true, SeqCst);
    clients.into_iter().for_each(|client| client.join().unwrap());
}

#[test]
fn an_address_that_goes_to_another_service_stays_open() {
    let (one, other) = (Server::echo("one"), Server::echo("other"));
    let listener = listener();
    let address = listener.local_addr().unwrap();
    let mut listeners = Listeners::none();
    listeners.hand_over(listener).unwrap();
    let told = |name: &str, server: &Server| {
        let mut told = spec(address, "", &[server.address], "", "");
        told.services[0].name = name.into();
        told
    };
    let engine = Engine::start(&told("first", &one), listeners).unwrap();
    let by = |client: &mut Client| {
        client.send(GET);
        header(&client.message().0, "server").unwrap().to_owned()
    };
    let mut before = Client::connect(address);
    assert_eq!(by(&mut before), "one");
    engine.apply(&told("second", &other), Listeners::none()).unwrap();
    // The service of the connection is gone: it ends. The address never refused anyone.
    assert_eq!(before.rest(), "");
    eventually("the other service accepts", || by(&mut Client::connect(address)) == "other");
}

#[test]
fn who_waits_where_nobody_listens_any_more_is_served() {
    let server = Server::echo("a");
    let (proxy, stays, goes) = {
        let (stays, goes) = (listener(), listener());
        let addresses = (stays.local_addr().unwrap(), goes.local_addr().unwrap());
        let mut listeners = Listeners::none();
        listeners.hand_over(stays).unwrap();
        listeners.hand_over(goes).unwrap();
        let mut told = spec(addresses.0, "", &[server.address], "", "");
        told.services[0].listen.push(addresses.1);
        (Engine::start(&told, listeners).unwrap(), addresses.0, addresses.1)
    };
    // More than are accepted at once.
    let mut clients: Vec<Client> = (0..300).map(|_| Client::connect(goes)).collect();
    for client in &mut clients {
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
    }
    proxy.apply(&spec(stays, "", &[server.address], "", ""), Listeners::none()).unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        let answer = client.rest();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{number}: {answer}");
    }
    eventually("nobody listens there", || std::net::TcpStream::connect(goes).is_err());
}

#[test]
fn who_waits_for_a_server_keeps_its_place_over_changes() {
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let order: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&order);
    let server = Server::script(move |client, _| {
        while let Some(request) = next_request(client) {
            seen.lock().unwrap().push(request.split(' ').nth(1).unwrap().into());
            held.lock().unwrap().recv().unwrap();
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let told = |address| {
        let mut told: Spec = spec(address, "", &[server.address], "", "");
        told.pools[0].servers[0].max_connections = Some(1);
        told
    };
    let proxy = Proxy::start_changed(told);
    let mut clients = Vec::new();
    for number in 0..9 {
        let mut client = proxy.connect();
        client.send(format!("GET /{number} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        eventually("the first is served, and the others wait", || {
            let ready = proxy.engine().current().ready();
            !order.lock().unwrap().is_empty() && ready.services[0].pools()[0].waiting() == number
        });
        proxy.engine().apply(&told(proxy.address), Listeners::none()).unwrap();
        clients.push(client);
    }
    for client in &mut clients {
        let_go.send(()).unwrap();
        assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 200 "));
    }
    let expected: Vec<String> = (0..9).map(|number| format!("/{number}")).collect();
    assert_eq!(*order.lock().unwrap(), expected);
}

#[test]
fn who_waits_has_the_room_that_a_change_makes() {
    let (let_go, held) = mpsc::channel::<()>();
    let held = Mutex::new(held);
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = Server::script(move |client, _| {
        while next_request(client).is_some() {
            counter.fetch_add(1, SeqCst);
            held.lock().unwrap().recv().unwrap();
            client.send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let told = |address, most| {
        let mut told: Spec = spec(address, "", &[server.address], "", "");
        told.pools[0].servers[0].max_connections = most;
        told
    };
    for most in [Some(4), None] {
        asked.store(0, SeqCst);
        let proxy = Proxy::start_changed(|address| told(address, Some(1)));
        let ask = || {
            let mut client = proxy.connect();
            client.send(GET);
            client
        };
        let waiting = || proxy.engine().current().ready().services[0].pools()[0].waiting();
        let mut clients: Vec<_> = (0..4).map(|_| ask()).collect();
        eventually("one is served, and three wait", || asked.load(SeqCst) == 1 && waiting() == 3);
        proxy.engine().apply(&told(proxy.address, most), Listeners::none()).unwrap();
        eventually("all are served", || asked.load(SeqCst) == 4);
        for _ in &clients {
            let_go.send(()).unwrap();
        }
        clients.iter_mut().for_each(|client| assert!(client.until("\r\n\r\n").starts_with("HTTP/1.1 200 ")));
    }
}
