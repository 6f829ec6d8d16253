//! What health checks cost: many servers in many VIPs, all on loopback, probed as the daemon does.
//!
//! ```console
//! $ cargo run --release -p lb-user --example health_load              # 2000 servers in 23 VIPs, every 2 s
//! $ cargo run --release -p lb-user --example health_load -- 500 23 10 apart
//! ```
//!
//! Arguments: servers, VIPs, seconds to measure, and `apart` for VIPs that each check a port of their own, so that no
//! probe is shared. The servers are a process of its own, so that the processor time told is that of the checks; what
//! the kernel does for loopback on the sender's time is in it.

use std::{
    env,
    io::{BufRead as _, BufReader},
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use lb_user::{
    health::{Checker, Place, Target, TargetId},
    model::HealthCheck,
    snapshot::Health,
};
use rustix::time::{ClockId, clock_gettime};
use tokio::{sync::mpsc, time::timeout};

/// First probes are over after this long.
const WARM_UP: Duration = Duration::from_secs(4);

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == "serve") {
        serve(arguments[1].parse().expect("a number of ports"));
        return;
    }
    let number = |place: usize, default: u32| {
        arguments.get(place).map_or(default, |text| text.parse().expect("a number"))
    };
    let (servers, vips, seconds) = (number(0, 2_000), number(1, 23), number(2, 20));
    let apart = arguments.get(3).is_some_and(|word| word == "apart");
    let ports = if apart { vips } else { 1 };

    let mut command = Command::new(env::current_exe().expect("the path of this program"));
    let mut child = command
        .args(["serve", &ports.to_string()])
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the servers");
    let lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let ports: Vec<u16> =
        lines.take(ports as usize).map(|line| line.expect("a line").parse().expect("a port")).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(measure(servers, vips, seconds, &ports));
    child.kill().expect("stop the servers");
    child.wait().expect("the servers end");
}

/// Takes connections on so many ports of every loopback address, and closes them when the other side does.
fn serve(ports: u32) {
    let listeners: Vec<_> =
        (0..ports).map(|_| TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).expect("a free port")).collect();
    for listener in &listeners {
        println!("{}", listener.local_addr().expect("its address").port());
    }
    std::thread::scope(|scope| {
        for listener in &listeners {
            scope.spawn(|| listener.incoming().for_each(drop));
        }
    });
}

async fn measure(servers: u32, vips: u32, seconds: u32, ports: &[u16]) {
    let (sender, mut events) = mpsc::channel(1_024);
    let checker = Checker::spawn(Vec::new(), sender, Path::new(""));
    let target = |vip: u32, server: u32| {
        let address = Ipv4Addr::from_bits(Ipv4Addr::new(127, 1, 0, 0).to_bits() + server);
        let probe = SocketAddr::from((address, ports[vip as usize % ports.len()]));
        Target {
            id: TargetId { vip: format!("vip{vip}"), server: format!("server{server}") },
            place: Place::At { server: address.into(), probe },
            check: HealthCheck::default(),
        }
    };
    let pairs = (0..vips).flat_map(|vip| (0..servers).map(move |server| (vip, server)));
    checker.set_targets(pairs.map(|(vip, server)| target(vip, server)).collect());

    let (mut up, mut down) = (0u32, 0u32);
    let mut listen = async |time: Duration| {
        let end = Instant::now() + time;
        while let Ok(Some(event)) =
            timeout(end.saturating_duration_since(Instant::now()), events.recv()).await
        {
            match event.state {
                Health::Up if event.changed => up += 1,
                Health::Down if event.changed => down += 1,
                _ => {}
            }
        }
    };
    listen(WARM_UP).await;
    let (began, before) = (Instant::now(), processor_time());
    listen(Duration::from_secs(seconds.into())).await;
    let (took, used) = (began.elapsed(), processor_time() - before);
    println!(
        "{servers} servers in {vips} VIPs on {} ports: {up} of {} up, {down} went down; {:.1} % of one processor over {:.0} s",
        ports.len(),
        servers * vips,
        100.0 * used.as_secs_f64() / took.as_secs_f64(),
        took.as_secs_f64(),
    );
}

/// Processor time of this process so far, in user space and in the kernel.
fn processor_time() -> Duration {
    let time = clock_gettime(ClockId::ProcessCPUTime);
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
