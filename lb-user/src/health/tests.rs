//! The runner against a prober without a network and a clock that jumps.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::time::{Instant, sleep, timeout};

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
    async fn probe(&self, subject: &Subject) -> Outcome {
        let now = self.at_once.fetch_add(1, Ordering::Relaxed) + 1;
        self.most_at_once.fetch_max(now, Ordering::Relaxed);
        sleep(self.takes).await;
        self.at_once.fetch_sub(1, Ordering::Relaxed);

        let port = subject.address.port();
        *self.probes.lock().unwrap().entry(port).or_default() += 1;
        if self.closed.lock().unwrap().contains(&port) {
            Outcome::Failure("connection refused".into())
        } else {
            Outcome::Success("connected".into())
        }
    }
}

fn at(address: SocketAddr) -> Place {
    Place::At { server: address.ip(), probe: address }
}

fn target(vip: &str, server: &str, port: u16) -> Target {
    Target {
        id: TargetId { vip: vip.into(), server: server.into() },
        place: at(SocketAddr::from(([192, 0, 2, 1], port))),
        check: HealthCheck { fall: 5, ..HealthCheck::default() },
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
async fn no_more_probes_run_at_once_than_allowed_and_all_get_their_turn() {
    let most_at_once = async |count: u16, allowed: usize| {
        let fake = Fake { takes: SECOND, ..Fake::default() };
        let (sender, events) = mpsc::channel(16);
        let checker = Checker::start(fake.clone(), Vec::new(), sender, allowed);
        checker.set_targets((0..count).map(|n| target("vip", &n.to_string(), n)).collect());
        let mut bench = Bench { fake, checker, events };
        bench.pass(SECOND * 20).await;
        assert!((0..count).all(|port| bench.fake.probes(port) > 0), "{count} targets, {allowed} at once");
        bench.fake.most_at_once.load(Ordering::Relaxed)
    };
    assert_eq!(most_at_once(2000, 300).await, 300);
    assert!(most_at_once(100, 300).await <= 100);
}

#[tokio::test(start_paused = true)]
async fn who_is_probed_alike_shares_the_probes_and_each_counts_for_itself() {
    let mut bench = bench(Fake::default());
    let mut targets: Vec<_> = (0..23).map(|n| target(&format!("vip{n}"), "one", 1)).collect();
    targets[1].check.fall = 2;
    targets.push(target("vip", "other port", 2));
    let mut slower = target("vip", "slower", 1);
    slower.check.interval = 4 * SECOND;
    targets.push(slower);
    bench.checker.set_targets(targets);
    let events = bench.pass(SECOND).await;
    let up = events.iter().filter(|event| event.state == Health::Up).count();
    assert_eq!(up, 25, "all of them within a second");
    let before = bench.fake.probes(1);
    bench.pass(SECOND * 40).await;
    let probes = bench.fake.probes(1) - before;
    assert!((28..=32).contains(&probes), "{probes} probes in 40 s, every 2 s for 23 and every 4 s for one");

    bench.fake.close(1);
    let mut down = Vec::new();
    for event in bench.pass(SECOND * 30).await {
        if event.changed {
            assert_eq!(event.state, Health::Down);
            down.push(event.id.vip);
        }
    }
    assert_eq!((down.len(), down[0].as_str()), (24, "vip1"), "two failures are enough for it: {down:?}");
}

#[tokio::test(start_paused = true)]
async fn a_newcomer_learns_at_once_what_the_last_probe_found() {
    let mut bench = bench(Fake::default());
    let mut hourly = target("a", "one", 1);
    hourly.check.interval = SECOND * 3_600;
    bench.checker.set_targets(vec![hourly.clone()]);
    bench.pass(SECOND).await;
    let newcomer = Target { id: TargetId { vip: "b".into(), server: "one".into() }, ..hourly.clone() };
    bench.checker.set_targets(vec![hourly, newcomer]);
    assert_eq!(bench.change("one").await, (Health::Up, Duration::ZERO));
    assert_eq!(bench.fake.probes(1), 1);
}

#[tokio::test(start_paused = true)]
async fn probes_are_closer_together_while_a_server_changes_and_further_apart_while_it_is_down() {
    let mut bench = bench(Fake::default());
    let mut one = target("vip", "one", 1);
    one.check.fast_interval = Some(SECOND / 2);
    one.check.down_interval = Some(SECOND * 10);
    bench.checker.set_targets(vec![one]);
    bench.pass(SECOND * 10).await;
    let before = bench.fake.probes(1);
    bench.pass(SECOND * 20).await;
    let probes = bench.fake.probes(1) - before;
    assert!((9..=11).contains(&probes), "it is well: {probes} probes in 20 s, every two seconds");

    bench.fake.close(1);
    let (health, took) = bench.change("one").await;
    assert_eq!(health, Health::Down);
    assert!((SECOND * 2..=SECOND * 4).contains(&took), "four of five failures half a second apart: {took:?}");
    let before = bench.fake.probes(1);
    bench.pass(SECOND * 100).await;
    let probes = bench.fake.probes(1) - before;
    assert!((9..=11).contains(&probes), "it is down: {probes} probes in 100 s, every ten seconds");

    bench.fake.open(1);
    let (health, took) = bench.change("one").await;
    assert_eq!(health, Health::Up);
    assert!(
        took <= SECOND * 10 + SECOND / 2,
        "the second success comes half a second after the first: {took:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_server_whose_address_is_sought_waits_and_one_that_has_none_is_down() {
    let mut bench = bench(Fake::default());
    let placed = |place: Place| vec![Target { place, ..target("vip", "one", 1) }];
    bench.checker.set_targets(placed(Place::Sought));
    let events = bench.pass(SECOND).await;
    assert_eq!(events.len(), 1);
    assert_eq!(
        (events[0].state, events[0].reason.as_str()),
        (Health::Unknown, "its name is being looked up")
    );
    bench.checker.set_targets(placed(Place::Nowhere("its name does not resolve".into())));
    assert_eq!(bench.change("one").await, (Health::Down, Duration::ZERO));
    bench.checker.set_targets(placed(target("vip", "one", 1).place));
    assert_eq!(bench.change("one").await.0, Health::Unknown);
    assert_eq!(bench.change("one").await.0, Health::Up);
    let mut unchecked = target("vip", "one", 1);
    unchecked.check.check = Check::None;
    unchecked.place = Place::Nowhere("gone".into());
    bench.checker.set_targets(vec![unchecked]);
    assert_eq!(bench.change("one").await.0, Health::Down, "even one that nobody checks");
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

    changed.place = at(SocketAddr::from(([192, 0, 2, 2], 2)));
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
    let checker = Checker::spawn(Vec::new(), sender, Path::new(""));
    let mut one = target("vip", "one", address.port());
    one.place = at(address);
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

#[tokio::test(start_paused = true)]
async fn what_was_known_before_a_restart_is_forgotten_when_nobody_is_to_be_checked() {
    let id = TargetId { vip: "vip".into(), server: "one".into() };
    let known = HealthEvent { id, state: Health::Down, reason: "refused".into(), since: 7, changed: false };
    let mut bench = bench_knowing(Fake::default(), vec![known]);
    bench.checker.set_targets(Vec::new());
    bench.pass(SECOND).await;
    bench.checker.set_targets(vec![target("vip", "one", 1)]);
    assert_eq!(bench.change("one").await.0, Health::Unknown, "it is another one of that name");
    assert_eq!(bench.change("one").await.0, Health::Up);
}
