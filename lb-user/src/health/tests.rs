//! The runner against a prober without a network and a clock that jumps.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::{sleep, timeout};

use super::*;

/// Ports on which nothing listens; everything else answers. Counts probes per port.
#[derive(Clone, Default)]
struct Fake {
    closed: Arc<Mutex<Vec<u16>>>,
    probes: Arc<Mutex<BTreeMap<u16, u32>>>,
    /// How long each probe takes.
    takes: Duration,
    at_once: Arc<AtomicUsize>,
    most_at_once: Arc<AtomicUsize>,
}

impl Fake {
    fn close(&self, port: u16) {
        self.closed.lock().unwrap().push(port);
    }

    fn open(&self, port: u16) {
        self.closed.lock().unwrap().retain(|closed| *closed != port);
    }

    fn probes(&self, port: u16) -> u32 {
        self.probes.lock().unwrap().get(&port).copied().unwrap_or_default()
    }
}

impl Prober for Fake {
    async fn probe(&self, target: &Target) -> Outcome {
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(now, Ordering::Relaxed);
        sleep(self.takes).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);

        let port = target.address.port();
        *self.probes.lock().unwrap().entry(port).or_default() += 1;
        if self.closed.lock().unwrap().contains(&port) {
            Outcome::Failure("connection refused".into())
        } else {
            Outcome::Success("connected".into())
        }
    }
}

fn target(vip: &str, server: &str, port: u16) -> Target {
    Target {
        id: TargetId { vip: vip.into(), server: server.into() },
        address: SocketAddr::from(([192, 0, 2, 1], port)),
        check: HealthCheck {
            check: Check::Tcp,
            interval: Duration::from_secs(2),
            timeout: Duration::from_secs(2),
            rise: 2,
            fall: 5,
            port: None,
        },
    }
}

/// A running checker with its events.
struct Bench {
    fake: Fake,
    checker: Checker,
    events: mpsc::Receiver<HealthEvent>,
}

fn bench(fake: Fake) -> Bench {
    bench_knowing(fake, Vec::new())
}

fn bench_knowing(fake: Fake, known: Vec<HealthEvent>) -> Bench {
    let (sender, events) = mpsc::channel(16);
    Bench { checker: Checker::spawn_with(fake.clone(), known, sender), fake, events }
}

impl Bench {
    /// The next event that changes the health of this server, and how long it took to come.
    async fn change(&mut self, server: &str) -> (Health, Duration) {
        let start = Instant::now();
        loop {
            let event = timeout(Duration::from_secs(60), self.events.recv());
            let event = event.await.expect("an event within a minute").expect("a running checker");
            if event.changed && event.id.server == server {
                return (event.state, start.elapsed());
            }
        }
    }

    /// Lets time pass; gives the events that came meanwhile.
    async fn pass(&mut self, time: Duration) -> Vec<HealthEvent> {
        let end = Instant::now() + time;
        let mut events = Vec::new();
        while let Ok(event) = tokio::time::timeout_at(end, self.events.recv()).await {
            events.push(event.expect("a running checker"));
        }
        events
    }
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_closed_port_is_noticed_and_an_opened_one_too_within_the_promised_time() {
    let mut bench = bench(Fake::default());
    bench.checker.set_targets(vec![target("vip", "one", 1), target("vip", "two", 2)]);
    assert_eq!(bench.change("one").await.0, Health::Unknown);
    let (health, took) = bench.change("one").await;
    assert_eq!(health, Health::Up);
    assert!(took <= SECOND / 2, "first probe after {took:?}");

    // Whatever the moment within the interval.
    for step in 0..20u32 {
        bench.pass(SECOND * 20 + SECOND * step / 10).await;
        bench.fake.close(1);
        let (health, took) = bench.change("one").await;
        assert_eq!(health, Health::Down);
        assert!((8 * SECOND..=10 * SECOND).contains(&took), "down after {took:?}");

        bench.pass(SECOND * 20 + SECOND * step / 10).await;
        bench.fake.open(1);
        let (health, took) = bench.change("one").await;
        assert_eq!(health, Health::Up);
        assert!((2 * SECOND..=4 * SECOND).contains(&took), "up after {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn each_target_is_probed_exactly_once_per_interval() {
    for takes in [0, 700, 1999] {
        let mut bench = bench(Fake { takes: Duration::from_millis(takes), ..Fake::default() });
        bench.checker.set_targets(vec![target("vip", "one", 1)]);
        bench.pass(SECOND * 2000).await;
        let probes = bench.fake.probes(1);
        assert!((999..=1001).contains(&probes), "{probes} probes of {takes} ms in 2000 s");
    }
}

#[tokio::test(start_paused = true)]
async fn probes_that_take_the_whole_interval_still_keep_its_rhythm() {
    let mut bench = bench(Fake { takes: SECOND * 2, ..Fake::default() });
    bench.checker.set_targets(vec![target("vip", "one", 1)]);
    bench.pass(SECOND * 200).await;
    let probes = bench.fake.probes(1);
    assert!((95..=100).contains(&probes), "{probes} probes in 200 s");
}

#[tokio::test(start_paused = true)]
async fn health_is_per_vip_and_server() {
    let mut bench = bench(Fake::default());
    bench.fake.close(2);
    bench.checker.set_targets(vec![target("a", "one", 1), target("b", "one", 2), target("c", "one", 3)]);
    let mut health = BTreeMap::new();
    for event in bench.pass(SECOND).await {
        health.insert(event.id.vip, event.state);
    }
    let expected = [("a", Health::Up), ("b", Health::Down), ("c", Health::Up)];
    assert_eq!(health, expected.map(|(vip, health)| (vip.to_owned(), health)).into());
}

#[tokio::test(start_paused = true)]
async fn no_more_probes_run_at_once_than_allowed() {
    let bench_of = |count: u16| {
        let mut bench = bench(Fake { takes: SECOND, ..Fake::default() });
        let targets = (0..count).map(|n| target("vip", &n.to_string(), n)).collect();
        bench.checker.set_targets(targets);
        async move {
            bench.pass(SECOND * 10).await;
            bench.fake.most_at_once.load(Ordering::Relaxed)
        }
    };
    assert_eq!(bench_of(2000).await, MAX_AT_ONCE);
    assert!(bench_of(100).await <= 100);
}

#[tokio::test(start_paused = true)]
async fn targets_that_stay_keep_health_and_rhythm() {
    let mut bench = bench(Fake::default());
    bench.checker.set_targets(vec![target("vip", "one", 1), target("vip", "two", 2)]);
    bench.pass(SECOND).await;
    // A reload each 0.3 s must not bring forward or put off a probe.
    for _ in 0..100 {
        bench.checker.set_targets(vec![target("vip", "one", 1), target("vip", "three", 3)]);
        for event in bench.pass(SECOND * 3 / 10).await {
            assert_eq!(event.id.server, "three", "nothing new about the one that stayed");
        }
    }
    let probes = bench.fake.probes(1);
    assert!((15..=17).contains(&probes), "{probes} probes in 31 s");
    assert_eq!(bench.fake.probes(2), 1, "the removed target was probed once, before it went");
}

#[tokio::test(start_paused = true)]
async fn a_changed_check_keeps_the_health_and_a_changed_address_does_not() {
    let mut bench = bench(Fake::default());
    bench.checker.set_targets(vec![target("vip", "one", 1)]);
    bench.pass(SECOND).await;

    bench.fake.close(2);
    let mut changed = target("vip", "one", 2);
    changed.check.fall = 2;
    bench.checker.set_targets(vec![changed.clone()]);
    let events = bench.pass(SECOND).await;
    assert!(events.iter().all(|event| event.state == Health::Up && !event.changed), "{events:?}");
    let (health, took) = bench.change("one").await;
    assert_eq!(health, Health::Down);
    assert!(took <= 2 * SECOND, "the second failure decides, with the new threshold; it took {took:?}");

    changed.address.set_ip([192, 0, 2, 2].into());
    bench.checker.set_targets(vec![changed]);
    assert_eq!(bench.change("one").await.0, Health::Unknown);
    assert_eq!(bench.change("one").await.0, Health::Down, "the first result decides again");
}

#[tokio::test(start_paused = true)]
async fn a_target_without_a_check_is_up_at_once_and_never_probed() {
    let mut bench = bench(Fake::default());
    let mut unchecked = target("vip", "one", 1);
    unchecked.check.check = Check::None;
    bench.checker.set_targets(vec![unchecked]);
    assert_eq!(bench.change("one").await, (Health::Up, Duration::ZERO));
    assert_eq!(bench.pass(SECOND * 100).await, []);
    assert_eq!(bench.fake.probes(1), 0);
}

#[tokio::test(start_paused = true)]
async fn reasons_are_told_while_a_server_is_on_its_way_down() {
    let mut bench = bench(Fake::default());
    bench.checker.set_targets(vec![target("vip", "one", 1)]);
    bench.pass(SECOND).await;
    bench.fake.close(1);
    let events = bench.pass(SECOND * 20).await;
    let reasons: Vec<_> = events.iter().map(|event| (event.changed, event.reason.as_str())).collect();
    assert_eq!(
        reasons,
        [
            (false, "connection refused (1 of 5 before it counts as down)"),
            (false, "connection refused (2 of 5 before it counts as down)"),
            (false, "connection refused (3 of 5 before it counts as down)"),
            (false, "connection refused (4 of 5 before it counts as down)"),
            (true, "connection refused"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn probing_ends_with_the_checker() {
    let Bench { fake, checker, mut events } = bench(Fake::default());
    checker.set_targets(vec![target("vip", "one", 1)]);
    sleep(SECOND).await;
    drop(checker);
    while events.recv().await.is_some() {}
    let probes = fake.probes(1);
    sleep(SECOND * 100).await;
    assert_eq!(fake.probes(1), probes);
}

#[tokio::test]
async fn a_real_listener_goes_away_and_comes_back() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, events) = mpsc::channel(16);
    let checker = Checker::spawn(Vec::new(), sender);
    let mut one = target("vip", "one", address.port());
    one.address = address;
    one.check.interval = Duration::from_millis(20);
    checker.set_targets(vec![one]);
    let mut bench = Bench { fake: Fake::default(), checker, events };
    assert_eq!(bench.change("one").await.0, Health::Unknown);
    assert_eq!(bench.change("one").await.0, Health::Up);
    drop(listener);
    assert_eq!(bench.change("one").await.0, Health::Down);
    let _listener = tokio::net::TcpListener::bind(address).await.unwrap();
    assert_eq!(bench.change("one").await.0, Health::Up);
}

#[tokio::test(start_paused = true)]
async fn what_was_known_before_a_restart_stays_until_enough_probes_speak_against_it() {
    let fake = Fake::default();
    fake.close(1);
    let id = TargetId { vip: "vip".into(), server: "one".into() };
    let known = HealthEvent { id, state: Health::Up, reason: "connected".into(), since: 7, changed: false };
    let mut bench = bench_knowing(fake, vec![known]);
    bench.checker.set_targets(vec![target("vip", "one", 1)]);
    let (health, took) = bench.change("one").await;
    assert_eq!(health, Health::Up, "at once, without a probe");
    assert!(took < SECOND / 10, "{took:?}");
    let (health, took) = bench.change("one").await;
    assert_eq!(health, Health::Down);
    assert!(took >= 7 * SECOND, "not with the first failure, but after {took:?}");
}
