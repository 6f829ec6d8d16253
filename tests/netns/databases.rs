//! R19, E9, E10: real databases, of which one at a time takes all writes. Failing over, and not back.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use lb_tests::{
    address::Family,
    client,
    folder::Folder,
    needs_balancer,
    netns::Netns,
    process::{self, Running},
    server::Server,
    topology::{Host, Layout, Topology},
    wait,
};
use lb_user::snapshot::Health;
use rustix::process::Signal;

use crate::{bed::Bed, config::Config};

const LIMIT: Duration = Duration::from_secs(30);

/// R19's persistence, and E9's and E10's end of sessions.
const ONE_FOR_ALL: &str = "persistence = { type = \"last-successful\" }\n";

/// Two hosts in a pool that resets the sessions of a server that goes down, and VIPs of a mode with these ports and checks.
fn config(net: &Topology, mode: &str, vips: &[(&str, u16, &str)]) -> Config {
    let top = "[health]\ninterval = \"200ms\"\nrise = 2\nfall = 3\n";
    let mut config = Config::with_top(top).pool("all", Family::V4, &net.servers);
    for (name, port, health) in vips {
        let more = format!("{ONE_FOR_ALL}health = {health}\nserver_port = {}\n", port % 10_000);
        config = config.vip(name, net.vip(200).of(Family::V4), &port.to_string(), mode, "all", &more);
    }
    let text = config.text().replace("[pool.all]\n", "[pool.all]\non_down = \"reset\"\n");
    Config::with_top(&text)
}

/// A Redis that may be asked.
struct Redis<'a> {
    host: &'a Host,
    _running: Running,
}

impl<'a> Redis<'a> {
    fn start(host: &'a Host, folder: &Folder, master: Option<&Host>) -> Self {
        let mut command = host.ns.command("bash");
        let own = folder.file(&host.name);
        std::fs::create_dir(&own).expect("a folder");
        // Debian has the server and its helper in one program that goes by its name.
        let master =
            master.map_or_else(String::new, |master| format!("--replicaof {} 6379", master.address.v4));
        let line = format!(
            "exec -a redis-server redis-check-rdb --port 6379 --bind 0.0.0.0 --protected-mode no --save '' --dir {} \
             --requirepass geheim --masterauth geheim {master}",
            own.display()
        );
        let mut running = Running::start("redis-server", command.args(["-c", &line]));
        running.wait_for_line(LIMIT, "Ready to accept connections");
        Self { host, _running: running }
    }

    /// Tells it something; gives the first line of the answer.
    fn tell(&self, words: &str) -> String {
        let target = self.host.address.at(Family::V4, 6379);
        Session::open(&self.host.ns, target)
            .expect("a connection to the server itself")
            .ask(words)
            .expect("an answer")
    }
}

/// A client's connection to Redis, logged in.
struct Session(BufReader<TcpStream>);

impl Session {
    fn open(ns: &Netns, target: SocketAddr) -> Result<Self, String> {
        let stream = ns.run(|| client::connect(target, None, Duration::from_secs(2)))?;
        stream.set_read_timeout(Some(Duration::from_secs(5))).map_err(|error| error.to_string())?;
        let mut session = Self(BufReader::new(stream));
        session.ask("AUTH geheim")?;
        Ok(session)
    }

    fn ask(&mut self, words: &str) -> Result<String, String> {
        let say = format!("{words}\r\n");
        self.0.get_mut().write_all(say.as_bytes()).map_err(|error| error.to_string())?;
        self.line()
    }

    fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.0.read_line(&mut line) {
            Ok(0) => Err("the connection has ended".into()),
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// The name of the server that this connection leads to, which each was told once.
    fn who(&mut self) -> Result<String, String> {
        self.ask("CONFIG GET proc-title-template")?;
        for _ in 0..3 {
            self.line()?;
        }
        self.line()
    }
}

#[test]
fn redis_clients_follow_the_master_and_do_not_go_back() {
    needs_balancer!();
    follow_the_master("snat");
}

#[test]
fn redis_clients_follow_the_master_through_the_proxy() {
    needs_balancer!();
    follow_the_master("tcp");
}

/// Redis' own client and load, in a namespace; gives what it said.
#[track_caller]
fn tool(ns: &Netns, program: &str, target: SocketAddr, words: &[&str]) -> String {
    let mut command = ns.command(program);
    command.args(["-h", &target.ip().to_string(), "-p", &target.port().to_string(), "-a", "geheim"]);
    let output = process::output(program, command.args(words), LIMIT);
    let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{program} {words:?}: {said}{why}");
    said.trim().to_owned()
}

/// What Redis' own programs do through a VIP: large values both ways, requests in heaps, messages to those who wait.
#[track_caller]
fn use_redis(clients: &Netns, target: SocketAddr) {
    let large = "x".repeat(100_000);
    assert_eq!(tool(clients, "redis-cli", target, &["set", "large", &large]), "OK");
    assert_eq!(tool(clients, "redis-cli", target, &["get", "large"]), large);
    let requests = if std::env::var_os("LB_TEST_FULL").is_some() { "100000" } else { "5000" };
    let words = ["-n", requests, "-c", "20", "-P", "10", "-t", "set,get,lrange_100", "--csv"];
    let said = tool(clients, "redis-benchmark", target, &words);
    assert!(["SET", "GET", "LRANGE_100"].iter().all(|name| said.contains(&format!("\"{name}"))), "{said}");
    let mut waiting = Session::open(clients, target).expect("a session");
    assert_eq!(waiting.ask("SUBSCRIBE news").as_deref(), Ok("*3"));
    (0..5).for_each(|_| drop(waiting.line().expect("the rest of the answer")));
    assert_eq!(tool(clients, "redis-cli", target, &["publish", "news", "hello"]), "1");
    let message: Vec<_> = (0..7).map(|_| waiting.line().expect("a line of the message")).collect();
    assert_eq!(message.last().map(String::as_str), Some("hello"), "{message:?}");
}

#[track_caller]
fn follow_the_master(mode: &str) {
    let bed = Bed { servers: Vec::new(), net: Topology::build(Layout { servers: 2, ..Layout::default() }) };
    let folder = Folder::new();
    let [one, two] = &bed.net.servers[..] else { panic!("two servers") };
    let first = Redis::start(one, &folder, None);
    let second = Redis::start(two, &folder, Some(one));
    for redis in [&first, &second] {
        assert_eq!(redis.tell(&format!("CONFIG SET proc-title-template {}", redis.host.name)), "+OK");
    }
    let health = "{ check = \"redis\", password = \"geheim\" }";
    let balancer = bed.start(&config(&bed.net, mode, &[("redis", 6379, health)]));
    let _ = balancer.wait_health(LIMIT, "redis", "s1", Health::Up);
    let status = balancer.wait_health(LIMIT, "redis", "s2", Health::Down);
    let reason = &status.vips[0].servers[1].reason;
    assert_eq!(reason, "its role is slave, expected master");

    let (clients, target) = (&bed.net.client().ns, bed.net.vip(200).at(Family::V4, 6379));
    let mut old = wait::until(LIMIT, "a session", || Session::open(clients, target));
    if mode == "tcp" {
        use_redis(clients, target);
    }
    assert_eq!(old.who().as_deref(), Ok("s1"));
    let idle = Session::open(clients, target).expect("an idle session");

    // The roles change: s2 is promoted, s1 follows it.
    let changed = Instant::now();
    assert_eq!(second.tell("REPLICAOF NO ONE"), "+OK");
    assert_eq!(first.tell(&format!("REPLICAOF {} 6379", two.address.v4)), "+OK");
    let new = wait::until(LIMIT, "new clients to be with the new master", || {
        let who = Session::open(clients, target).and_then(|mut session| session.who());
        if who.as_deref() == Ok("s2") { Ok(Instant::now()) } else { Err(format!("{who:?}")) }
    });
    wait::until(LIMIT, "the session with the old master to end", || match old.ask("PING") {
        Err(_) => Ok(()),
        Ok(answer) => Err(answer),
    });
    // Nobody says anything there.
    idle.0.get_ref().set_read_timeout(Some(LIMIT)).expect("a time limit");
    let mut idle = idle;
    assert!(idle.line().is_err(), "the idle session, too");
    let limit = Duration::from_secs(5);
    assert!(new - changed < limit && changed.elapsed() < limit * 2, "E10: {:?}", new - changed);

    // Both are masters: no fail-back.
    assert_eq!(first.tell("REPLICAOF NO ONE"), "+OK");
    let _ = balancer.wait_health(LIMIT, "redis", "s1", Health::Up);
    let who = Session::open(clients, target).and_then(|mut session| session.who());
    assert_eq!(who.as_deref(), Ok("s2"));
}

/// Makes an empty database and starts MariaDB on it; it calls itself by its host's number.
fn mariadb(host: &Host, number: usize, folder: &Folder) -> Running {
    let data = folder.file(&format!("data{number}"));
    let mut install = Command::new("mariadb-install-db");
    install.args([
        "--no-defaults",
        "--auth-root-authentication-method=normal",
        "--skip-test-db",
        "--user=root",
    ]);
    let made = process::output(
        "mariadb-install-db",
        install.arg(format!("--datadir={}", data.display())),
        LIMIT * 2,
    );
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    let users = "CREATE USER lb_check;\nCREATE USER app IDENTIFIED BY 'geheim';\n";
    let users = folder.write(&format!("users{number}.sql"), users);
    let socket = folder.file(&format!("{number}.sock"));
    let mut command = host.ns.command("mariadbd");
    command.args([
        "--no-defaults",
        "--user=root",
        "--port=3306",
        "--bind-address=0.0.0.0",
        "--skip-name-resolve",
    ]);
    command.args([format!("--server-id={number}"), path("--datadir", &data), path("--socket", &socket)]);
    command.args([path("--init-file", &users), path("--pid-file", &folder.file(&format!("{number}.pid")))]);
    let mut running = Running::start("mariadbd", &mut command);
    running.wait_for_line(LIMIT, "ready for connections");
    running
}

fn path(option: &str, path: &Path) -> String {
    format!("{option}={}", path.display())
}

/// A client's question; gives what was printed.
fn ask(ns: &Netns, port: u16, net: &Topology, question: &str) -> Command {
    let mut command = ns.command("mariadb");
    let target = net.vip(200).of(Family::V4).to_string();
    command.args([
        "--no-defaults",
        "--batch",
        "--skip-column-names",
        "--connect-timeout=5",
        "-uapp",
        "-pgeheim",
    ]);
    command.args(["-h", &target, "-P", &port.to_string(), "-e", question]);
    command
}

#[test]
fn mysql_clients_are_all_with_one_server_leave_it_when_it_hangs_and_do_not_go_back() {
    needs_balancer!();
    let bed = Bed { servers: Vec::new(), net: Topology::build(Layout { servers: 2, ..Layout::default() }) };
    let (net, folder) = (&bed.net, Folder::new());
    let mut databases = [0, 1].map(|index| mariadb(&net.servers[index], index + 1, &folder));
    let checks = [0, 1].map(|index| Server::start(&net.servers[index].ns, "galera", &[9200], false));
    let health = "{ check = \"mysql\", user = \"lb_check\", timeout = \"200ms\" }";
    let galera = "{ check = \"http\", port = 9200, expect = 200 }";
    // E9: each is a backup, and they serve nevertheless.
    let text = config(net, "snat", &[("mysql", 3306, health), ("galera", 13306, galera)]);
    let balancer =
        bed.start(&Config::with_top(&text.text().replace(", address", ", backup = true, address")));
    let status = balancer.wait_all_up();
    let reason = &status.vips[0].servers[0].reason;
    assert!(reason.starts_with("logged in to 10.") || reason.starts_with("logged in to 11."), "{reason}");
    let serving = |port: u16| {
        let mut command = ask(&net.client().ns, port, net, "select @@server_id");
        let output = process::output("mariadb", &mut command, LIMIT);
        let (said, why) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        if output.status.success() { Ok(said.trim().to_owned()) } else { Err(why.into_owned()) }
    };
    for _ in 0..10 {
        assert_eq!([serving(3306), serving(13306)], [Ok("1".into()), Ok("1".into())]);
    }

    // A check that logs in and out is no failed connection, or the servers would turn this host away.
    let errors = "select variable_value from information_schema.global_status where variable_name = 'Aborted_connects'";
    let counted = process::output("mariadb", &mut ask(&net.client().ns, 3306, net, errors), LIMIT);
    assert_eq!(String::from_utf8_lossy(&counted.stdout).trim(), "0");

    let mut session = Running::start("mariadb", &mut ask(&net.client().ns, 3306, net, "select sleep(600)"));
    wait::until_true(LIMIT, "the session to be counted", || {
        balancer.status().vips[0].servers[0].traffic.active > 0
    });
    // It hangs: the kernel still takes connections, but nobody speaks.
    databases[0].signal(Signal::STOP);
    let _ = balancer.wait_health(LIMIT, "mysql", "s1", Health::Down);
    assert_eq!(serving(3306), Ok("2".into()));
    let (ended, said) = session.wait(LIMIT);
    assert!(!ended.success() && said.contains("Lost connection"), "{said}");

    databases[0].signal(Signal::CONT);
    let _ = balancer.wait_health(LIMIT, "mysql", "s1", Health::Up);
    assert_eq!(serving(3306), Ok("2".into()), "no fail-back");

    // clustercheck's word counts where it is asked, although the port is open.
    checks[0].close(9200);
    let _ = balancer.wait_health(LIMIT, "galera", "s1", Health::Down);
    assert_eq!(serving(13306), Ok("2".into()));
    let status = balancer.status();
    assert_eq!(status.vips[0].servers[0].health, Health::Up, "the other VIP asks MariaDB itself");
}
