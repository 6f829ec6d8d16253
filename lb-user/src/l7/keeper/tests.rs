use std::{fs, time::Duration};

use l7_spec::{Mode, Pool, Server, Service};
use tempfile::TempDir;
use tokio::sync::oneshot;

use super::*;
use crate::l7::{Ending, fake, found::leaving_socket};

/// Where a keeper's files are: gone with this.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn socket(&self) -> PathBuf {
        self.0.path().join("a.l7.sock")
    }

    fn keeper(&self) -> (Keeper, watch::Receiver<Arc<Report>>) {
        let (report, reported) = watch::channel(Arc::default());
        (Keeper::new(self.options(), report), reported)
    }

    fn options(&self) -> Options {
        Options { socket: self.socket(), program: None, user: String::new(), folder: self.0.path().into() }
    }

    /// What lies in the files, in the order of their names.
    fn files(&self) -> Vec<(String, String)> {
        let files = fs::read_dir(self.0.path()).unwrap().map(|file| file.unwrap().path());
        let mut files: Vec<_> = files
            .map(|path| {
                (path.file_name().unwrap().to_string_lossy().into_owned(), fs::read_to_string(path).unwrap())
            })
            .collect();
        files.sort();
        files
    }
}

/// A service whose servers see their clients.
fn spec(server: &str) -> Spec {
    let service = Service {
        source: Source::Client,
        server_port: Some(80),
        ..Service::new("web", vec!["127.0.0.1:0".parse().unwrap()], Mode::Tcp)
    };
    let pool = Pool {
        name: "web".into(),
        servers: vec![Server::new("a", server.parse().unwrap())],
        ..Pool::default()
    };
    Spec { services: vec![service], pools: vec![pool], ..Spec::default() }
}

fn serves(ask: &Ask, server: &str) -> bool {
    matches!(ask, Ask::Serve(spec) if spec.pools[0].servers[0].address.to_string() == server)
}

#[tokio::test]
async fn a_proxy_that_was_found_has_whom_to_ask_for_sockets_before_anything_is_wanted_and_always() {
    let place = Place::new();
    let (proxy, fake) = fake::proxy(1, false);
    let (handle, thread) = Keeper::start(place.options(), Some(Found::of(proxy).unwrap())).unwrap();
    let is_supply = |ask: &Ask| *ask == Ask::Supply;
    fake.until_asked("to take whom to ask", is_supply);
    let before = fake.asked();
    drop(fake.supply.lock().unwrap().take());
    fake.until_asked("to take somebody else", is_supply);
    assert!(!before.iter().any(|ask| matches!(ask, Ask::End { .. })), "{before:?}");
    handle.end(Ending::Soon).await;
    thread.join().unwrap();
}

#[test]
fn a_replacement_that_fails_is_undone_and_the_one_before_hears_what_is_wanted() {
    let place = Place::new();
    let (mut keeper, _) = place.keeper();
    let (former, of_former) = fake::proxy(1, false);
    keeper.proxy = Some(former);
    keeper.want(spec("10.0.0.1"));
    keeper.serve();
    assert!(of_former.asked().iter().any(|ask| serves(ask, "10.0.0.1")));

    keeper.want(spec("10.0.0.2"));
    fs::write(place.socket(), "former").unwrap();
    fs::write(place.socket().with_extension("next.sock"), "next").unwrap();
    let (next, of_next) = fake::proxy(2, true);
    keeper.put_in_place(next);
    assert!(of_next.asked().iter().any(|ask| serves(ask, "10.0.0.2")));
    assert_eq!(keeper.proxy.as_ref().map(|proxy| proxy.pid), Some(1));
    assert!(keeper.leaving.is_empty());
    assert_eq!(place.files(), [("a.l7.sock".into(), "former".into())]);
    keeper.serve();
    let asked = of_former.asked();
    assert!(asked.iter().any(|ask| serves(ask, "10.0.0.2")), "{asked:?}");
    assert!(!asked.iter().any(|ask| matches!(ask, Ask::End { .. })), "{asked:?}");
}

#[test]
fn servers_that_may_be_connected_to_are_told_as_long_as_nobody_goes_by_something_else() {
    let place = Place::new();
    let (mut keeper, reported) = place.keeper();
    let told = |keeper: &Keeper| {
        keeper.tell();
        reported
            .borrow()
            .seen_clients
            .as_ref()
            .map(|servers| servers.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    assert_eq!(told(&keeper), Some(vec![]), "nobody serves");
    let (former, of_former) = fake::proxy(1, false);
    keeper.proxy = Some(former);
    keeper.want(spec("10.0.0.1"));
    assert_eq!(told(&keeper), None, "what was found may serve anything");
    keeper.serve();
    keeper.want(spec("10.0.0.2"));
    assert_eq!(told(&keeper), Some(vec!["10.0.0.1:80".into()]), "it has not heard of the other one");

    fs::write(place.socket(), "former").unwrap();
    fs::write(place.socket().with_extension("next.sock"), "next").unwrap();
    let (next, _of_next) = fake::proxy(2, false);
    keeper.put_in_place(next);
    assert!(of_former.asked().iter().any(|ask| matches!(ask, Ask::End { gently: true, .. })));
    let leaving = leaving_socket(&place.socket(), 1);
    assert_eq!(fs::read_to_string(&leaving).unwrap(), "former");
    assert_eq!(told(&keeper), None, "clients of the former one are led to 10.0.0.1");
    of_former.end();
    let until = Instant::now() + Duration::from_secs(10);
    while !keeper.leaving.is_empty() {
        assert!(Instant::now() < until, "it is still there");
        keeper.look();
    }
    assert!(keeper.news && !leaving.exists());
    assert_eq!(told(&keeper), Some(vec!["10.0.0.2:80".into()]));
}

#[test]
fn a_vip_that_is_objected_to_is_known_as_it_is_served_whatever_becomes_of_servers() {
    let (mut keeper, _) = Place::new().keeper();
    let (proxy, of_proxy) = fake::proxy(1, false);
    keeper.proxy = Some(proxy);
    keeper.want(spec("10.0.0.1"));
    keeper.serve();
    // As if the one at 10.0.0.2 had been objected to.
    let mut wanted = spec("10.0.0.2");
    (keeper.asked, keeper.wanted) = (Some(wanted.clone()), wanted.clone());
    wanted.pools[0].servers[0].state = l7_spec::ServerState::Down;
    keeper.want(wanted);
    keeper.serve();
    assert!(of_proxy.asked().iter().any(|ask| matches!(ask, Ask::Servers(_))));
    let served = &keeper.served.as_ref().unwrap().pools[0].servers[0];
    assert_eq!((served.address.to_string().as_str(), served.state), ("10.0.0.1", l7_spec::ServerState::Down));
}

#[test]
fn at_a_stop_those_that_are_leaving_have_no_more_time_than_the_others() {
    let (mut keeper, _) = Place::new().keeper();
    keeper.wanted.drain.timeout = Span::from_secs(7);
    let (proxy, of_proxy) = fake::proxy(1, false);
    let (leaving, of_leaving) = fake::proxy(2, false);
    keeper.proxy = Some(proxy);
    keeper.leaving = vec![leaving];
    let began = Instant::now();
    keeper.end(Ending::Soon, oneshot::channel().0);
    for fake in [of_proxy, of_leaving] {
        let end = Ask::End { within: Span::from_secs(7), gently: false };
        assert!(fake.asked().contains(&end));
    }
    assert!(began.elapsed() < Duration::from_secs(7), "both ended when they were told to");
}
