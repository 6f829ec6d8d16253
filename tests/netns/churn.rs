//! No established connection breaks but those of servers that died, were halted or removed: in every mode, while
//! servers come, go, drain and change their weight in a random order that is the same each time.

use std::{
    collections::HashSet,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use lb_tests::{
    address::Family, daemon::Balancer, decapsulator::Decapsulator, needs_balancer, netns::Netns,
    packet::Draft, streams::Streams, topology::Layout,
};
use rustix::{
    net::{AddressFamily, SendFlags, SocketType, ipproto, sendto, socket},
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

use crate::{bed::Bed, config::Config};

const MODES: [&str; 4] = ["dr", "ipip", "gue", "snat"];

/// As many of them as need flow tags.
const TAGGED: usize = 3;

/// Servers that are never removed or halted, and those that may be.
const LASTING: usize = 4;
const SERVERS: usize = 6;

/// Connections to each VIP from the beginning, and changes: as many as the operators' requirements say where
/// `LB_TEST_FULL` is set, which takes ten minutes.
fn figures() -> (usize, usize) {
    if std::env::var_os("LB_TEST_FULL").is_some() { (500, 200) } else { (150, 50) }
}

/// Each connection says something once in this time.
const PAUSE: Duration = Duration::from_secs(1);

/// Numbers that look random and are the same every time (SplitMix64).
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (value ^ (value >> 31)) % sides
    }
}

/// What the configuration says of a server, and the operator.
#[derive(Clone, Copy)]
struct Condition {
    configured: bool,
    weight: u16,
    state: &'static str,
}

/// The network: servers that take packets out of tunnels, too.
struct Town {
    bed: Bed,
    _decapsulators: Vec<Decapsulator>,
}

/// What is configured.
struct Plan {
    servers: [Condition; SERVERS],
    top: String,
    /// How many of the modes are in use.
    modes: usize,
}

impl Plan {
    fn new(modes: usize, top: &str) -> Self {
        let server = |place| {
            let weight = if place == 0 { 200 } else { 100 };
            Condition { configured: place < LASTING, weight, state: "ready" }
        };
        // On a machine with so much to do a probe may take long.
        let health = "[health]\ninterval = \"1s\"\ntimeout = \"1s\"\nfall = 30\n";
        Self { servers: std::array::from_fn(server), top: format!("{health}{top}"), modes }
    }

    fn config(&self, bed: &Bed) -> Config {
        let members: Vec<_> = (0..SERVERS)
            .filter(|&place| self.servers[place].configured)
            .map(|place| (&bed.net.servers[place], format!(", weight = {}", self.servers[place].weight)))
            .collect();
        let config = Config::with_top(&self.top).pool_of("all", Family::V4, &members);
        MODES[..self.modes]
            .iter()
            .enumerate()
            .fold(config, |config, (place, mode)| config.vip(mode, vip(bed, place), "80", mode, "all", ""))
    }

    /// One change. Gives what was done.
    fn change(&mut self, dice: &mut Dice, bed: &Bed, balancer: &Balancer<'_>) -> String {
        let place = dice.roll(SERVERS as u64) as usize;
        let name = format!("s{}", place + 1);
        let mortal = place >= LASTING;
        let Condition { configured, state, .. } = self.servers[place];
        let server = &mut self.servers[place];
        match dice.roll(6) {
            0 | 1 if mortal => {
                server.configured = !configured;
                server.state = "ready";
            }
            // Someone has to take new connections.
            2 if configured && place > 0 => server.state = if state == "drain" { "ready" } else { "drain" },
            3 if configured && mortal => server.state = if state == "halt" { "ready" } else { "halt" },
            // And no small part of them all.
            _ if place == 0 => server.weight = [150, 200][dice.roll(2) as usize],
            _ => server.weight = [0, 25, 50, 100][dice.roll(4) as usize],
        }
        let server = *server;
        if server.state != state && server.configured && configured {
            balancer.server(server.state, "*", &name);
        } else {
            let told = balancer.reload(self.config(bed).text());
            told.unwrap_or_else(|error| panic!("reload: {error}"));
        }
        let kept = if server.configured { "configured" } else { "removed" };
        format!("{name}: {kept}, weight {}, {}", server.weight, server.state)
    }
}

impl Town {
    fn new(queues: u8) -> Self {
        let bed = Bed::new(Layout { servers: SERVERS as u8, queues, ..Layout::default() }, &[80]);
        for place in 0..MODES.len() {
            bed.net.servers_accept(vip(&bed, place));
        }
        let _decapsulators = Decapsulator::start_all(&bed.net);
        Self { bed, _decapsulators }
    }

    /// Streams to each VIP.
    fn connect(&self, modes: usize, count: usize) -> Vec<(usize, Streams)> {
        let client = &self.bed.net.client().ns;
        (0..modes)
            .map(|place| {
                let target = SocketAddr::new(vip(&self.bed, place), 80);
                (place, Streams::start_with(client, target, count, PAUSE))
            })
            .collect()
    }
}

fn vip(bed: &Bed, place: usize) -> IpAddr {
    bed.net.vip(202 + place as u8).of(Family::V4)
}

/// Insists that nothing broke but connections of servers that may be gone.
#[track_caller]
fn check(all: &[(usize, Streams)], diary: &[String]) {
    let mortal: HashSet<_> = (LASTING..SERVERS).map(|place| format!("s{}", place + 1)).collect();
    for (place, streams) in all {
        for report in streams.reports() {
            if let Some(why) = &report.broken
                && !mortal.contains(&report.server)
            {
                let last = diary.len().saturating_sub(40);
                panic!(
                    "{}: a connection to {} broke after {} echoes: {why}\n{}",
                    MODES[*place],
                    report.server,
                    report.echoes,
                    diary[last..].join("\n")
                );
            }
        }
    }
}

fn play(town: &Town, mut plan: Plan, seed: u64, mut beside: impl FnMut(&Balancer<'_>)) {
    let ((connections, changes), mut dice) = (figures(), Dice(seed));
    let balancer = town.bed.start(&plan.config(&town.bed));
    let _ = balancer.wait_all_up();
    let mut streams = town.connect(plan.modes, connections);
    let mut diary = Vec::new();
    let begin = Instant::now();
    for number in 1..=changes {
        let done = plan.change(&mut dice, &town.bed, &balancer);
        diary.push(format!("{:?} {number} {done}", begin.elapsed()));
        beside(&balancer);
        if number % 20 == 0 {
            check(&streams, &diary);
            streams.extend(town.connect(plan.modes, 5));
        }
        // Now and then one change at the heels of another, now and then with time to settle.
        let pause = [0, 50, 200, 600][dice.roll(4) as usize];
        let next = Instant::now() + Duration::from_millis(pause);
        thread::sleep(next.saturating_duration_since(Instant::now()));
    }
    for (_, streams) in &streams {
        streams.wait_for_echoes(5);
    }
    check(&streams, &diary);
    let alive = streams.iter().flat_map(|(_, streams)| streams.reports());
    let alive = alive.filter(|report| report.broken.is_none()).count();
    assert!(alive >= plan.modes * connections, "{alive} are alive");
}

#[test]
fn connections_in_each_mode_survive_changes_in_any_order() {
    needs_balancer!();
    play(&Town::new(1), Plan::new(MODES.len(), "[flows]\nlearn = \"2s\"\n"), 1, |_| {});
}

/// Has all threads of this process, which are the clients, run on one processor, then on another, for as long as it lives.
struct Restless {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Restless {
    fn start() -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let all = sched_getaffinity(None).expect("the processors of this process");
            let processors: Vec<_> = (0..CpuSet::MAX_CPU).filter(|&number| all.is_set(number)).collect();
            let mut turn = 0;
            while !stopped.load(Relaxed) {
                let mut one = CpuSet::new();
                one.set(processors[turn % processors.len()]);
                move_all(&one);
                turn += 1;
                thread::sleep(Duration::from_millis(300));
            }
            move_all(&all);
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Restless {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// Moves all threads of this process. One that has just ended is no matter.
fn move_all(to: &CpuSet) {
    for task in std::fs::read_dir("/proc/self/task").expect("threads").filter_map(Result::ok) {
        let id = task.file_name().to_string_lossy().parse().ok().and_then(Pid::from_raw);
        let _ = sched_setaffinity(id, to);
    }
}

#[test]
fn also_on_two_queues_with_connections_that_change_processors() {
    needs_balancer!();
    let town = Town::new(2);
    let _restless = Restless::start();
    play(&town, Plan::new(MODES.len(), "[flows]\nlearn = \"2s\"\n"), 3, |_| {});
}

/// SYNs from clients that are not there.
struct Flood {
    sent: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Flood {
    /// To these VIPs, about so many in a second.
    fn start(ns: &Netns, vips: Vec<IpAddr>, rate: u32) -> Self {
        let (sent, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (counted, stopped) = (Arc::clone(&sent), Arc::clone(&stop));
        let thread = ns.spawn(move || {
            let socket =
                socket(AddressFamily::INET, SocketType::RAW, Some(ipproto::RAW)).expect("a raw socket");
            let mut dice = Dice(9);
            let begin = Instant::now();
            while !stopped.load(Relaxed) {
                let due = begin.elapsed().as_millis() as u64 * u64::from(rate) / 1_000;
                while counted.load(Relaxed) < due {
                    let to = SocketAddr::new(vips[dice.roll(vips.len() as u64) as usize], 80);
                    let client = [198, 18 + dice.roll(2) as u8, dice.roll(256) as u8, dice.roll(256) as u8];
                    let from = SocketAddr::new(client.into(), 1_024 + dice.roll(60_000) as u16);
                    let packet = Draft::syn(from, to).bytes().split_off(14);
                    let _ = sendto(&socket, &packet, SendFlags::DONTWAIT, &to);
                    counted.fetch_add(1, Relaxed);
                }
                thread::sleep(Duration::from_millis(2));
            }
        });
        Self { sent, stop, thread: Some(thread) }
    }

    fn stop(mut self) -> u64 {
        self.stop.store(true, Relaxed);
        self.thread.take().expect("a thread").join().expect("an end");
        self.sent.load(Relaxed)
    }
}

/// The flow tags have room for a fraction of a second's SYNs: what was noted of a connection is long gone when its slot
/// is to move, but it is heard of while that is learned.
#[test]
fn also_with_a_table_far_too_small_for_the_syns_that_come() {
    needs_balancer!();
    let town = Town::new(1);
    let direct = (0..TAGGED).map(|place| vip(&town.bed, place)).collect();
    let client = &town.bed.net.client().ns;
    let flood = Flood::start(client, direct, 10_000);
    let mut evicted = 0;
    let plan = Plan::new(TAGGED, "[flows]\ntags = 16384\nlearn = \"3s\"\n");
    play(&town, plan, 2, |balancer| {
        let status = balancer.status();
        let event = status.reasons.iter().find(|event| event.reason == "tag-evicted").expect("the event");
        evicted = event.packets;
    });
    let sent = flood.stop();
    assert!(evicted > 20_000, "{evicted} tags gave way to {sent} SYNs: they did not come through");
}
