//! Wrong input and wrong surroundings: one clear line, an exit code other than 0, and nothing left behind.

use std::{
    fs,
    net::TcpListener,
    os::unix::{
        fs::PermissionsExt as _,
        net::{UnixListener, UnixStream},
    },
    time::Duration,
};

use lb_tests::{
    address::Family,
    bystander::{self, Bystander},
    client,
    daemon::{Installation, attached_program, binary},
    folder::Folder,
    http::curl,
    needs_balancer,
    process::{self, Running},
    server::Server,
    topology::{Layout, Servers, Topology},
    wait,
};

use crate::{
    bed::Bed,
    l7::certificate,
    proxied::{one_vip, webs},
};

/// Starts `lb-user`, which must refuse: the last line it says names every one of `words`.
#[track_caller]
fn refused(installation: &Installation<'_>, words: &[&str]) -> i32 {
    let before = installation.footprint();
    let (status, log) = installation.run_to_end();
    assert_eq!(installation.footprint(), before, "something was left behind; log: {log}");
    complaint(&log, words);
    let code = status.code().unwrap_or_else(|| panic!("ended by a signal: {status}; log: {log}"));
    assert_ne!(code, 0, "{log}");
    code
}

/// Insists that the last line of a log is the only complaint in it, and names every one of `words`.
#[track_caller]
fn complaint(log: &str, words: &[&str]) {
    assert!(!log.contains("panicked"), "{log}");
    let last = log.trim_end().lines().last().unwrap_or_default();
    for word in words {
        assert!(last.contains(word), "the last line does not say {word:?}:\n{log}");
    }
    let before = log.trim_end().strip_suffix(last).unwrap_or_default().to_lowercase();
    assert!(!before.contains("error"), "more than one complaint:\n{log}");
}

fn bed() -> Bed {
    Bed::new(Layout { servers: 1, ..Layout::default() }, &[80])
}

fn two_wires() -> Layout {
    Layout { servers: 1, place: Servers::SecondWire, ..Layout::default() }
}

#[test]
fn an_interface_that_does_not_exist() {
    needs_balancer!();
    let bed = bed();
    let config = bed.config(&["snat"], 80, "");
    let _ = refused(&Installation::new(&bed.net.lb.ns, &["eth7"], config.text()), &["eth7"]);
    // The first interface is fine: it must not keep anything when the second one is not.
    let _ = refused(&Installation::new(&bed.net.lb.ns, &["eth0", "eth7"], config.text()), &["eth7"]);
}

#[test]
fn a_user_who_is_not_root() {
    needs_balancer!();
    let bed = bed();
    let config = bed.config(&["snat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text());
    let before = installation.footprint();
    // A copy that anybody may run, wherever the original is.
    let folder = Folder::new();
    let copy = folder.file("lb-user");
    fs::copy(binary("lb-user"), &copy).expect("copy lb-user");
    fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).expect("let others run it");
    let mut command = bed.net.lb.ns.command("setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(copy);
    let (status, log) =
        Running::start("lb-user", command.args(installation.arguments())).wait(Duration::from_secs(20));
    assert!(!status.success(), "{log}");
    complaint(&log, &["root"]);
    assert_eq!(installation.footprint(), before);
}

#[test]
fn a_kernel_that_is_too_old() {
    needs_balancer!();
    let bed = bed();
    let config = bed.config(&["snat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text());
    let before = installation.footprint();
    let folder = Folder::new();
    let release = folder.write("osrelease", "5.4.0-42-generic\n");
    // In a mount namespace of its own, the kernel gives another release.
    let script = r#"mount --bind "$0" /proc/sys/kernel/osrelease && exec "$@""#;
    let mut command = bed.net.lb.ns.command("unshare");
    command.args(["--mount", "sh", "-c", script]).arg(release).arg(binary("lb-user"));
    let (status, log) =
        Running::start("lb-user", command.args(installation.arguments())).wait(Duration::from_secs(20));
    assert_eq!(status.code(), Some(1), "{log}");
    complaint(&log, &["5.4.0-42-generic", "5.15"]);
    assert_eq!(installation.footprint(), before);
}

#[test]
fn root_without_the_capabilities_it_needs() {
    needs_balancer!();
    let bed = bed();
    let config = bed.config(&["snat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text());
    let before = installation.footprint();
    // Containers are like this: user id 0, and not much behind it.
    for (missing, named) in [("-net_admin", "CAP_NET_ADMIN"), ("-bpf,-sys_admin,-perfmon", "CAP_BPF")] {
        let mut command = bed.net.lb.ns.command("setpriv");
        command.args([&format!("--bounding-set={missing}"), &format!("--inh-caps={missing}")]);
        let command = command.arg(binary("lb-user")).args(installation.arguments());
        let (status, log) = Running::start("lb-user", command).wait(Duration::from_secs(20));
        assert!(!status.success(), "{log}");
        complaint(&log, &[named]);
        assert_eq!(installation.footprint(), before, "without {missing}: {log}");
    }
}

#[test]
fn a_broken_configuration_names_file_line_and_column() {
    needs_balancer!();
    let bed = bed();
    let good = bed.config(&["snat"], 80, "");
    let broken = format!("{}\n[vip.more]\nadress = \"10.0.0.1\"\n", good.text());
    let line = broken.lines().position(|line| line.starts_with("adress")).expect("the slip") + 1;
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], &broken);
    let before = installation.footprint();
    let (status, log) = installation.run_to_end();
    assert_eq!(status.code(), Some(1), "{log}");
    assert!(log.contains(&format!("lb.toml:{line}:1: ")) && log.contains("address"), "{log}");
    assert_eq!(installation.footprint(), before);
}

#[test]
fn check_tells_good_from_bad_without_touching_anything() {
    needs_balancer!();
    let bed = bed();
    let good = bed.config(&["snat"], 80, "");
    for (text, code) in [(good.text().to_owned(), 0), (good.text().replace("snat", "snatch"), 1)] {
        let installation = Installation::new(&bed.net.lb.ns, &["eth0"], &text);
        let before = installation.footprint();
        let mut command = bed.net.lb.ns.command(binary("lb-user"));
        command.args(installation.arguments()).arg("--check");
        let output = process::output("lb-user --check", &mut command, Duration::from_secs(20));
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(installation.footprint(), before);
    }
}

/// Nothing is refused for want of a route, for it may come; a file that is not there is told by a start, and refuses a
/// reload.
#[test]
fn what_a_configuration_takes_for_granted() {
    needs_balancer!();
    let bed = bed();
    let good = bed.config(&["snat"], 80, "").text().to_owned();
    let far = r#"
[pool.far]
servers = [{ name = "far", address = "203.0.113.9" }]
[vip.far]
address = "10.0.0.77"
port = 80
mode = "snat"
pool = "far"
health = { check = "redis", password_file = "gone" }
"#;
    let text = good.clone() + far;
    let place = |what: &str| {
        let at = text.find(what).expect("it is there");
        let column = at - text[..at].rfind('\n').expect("a line");
        format!("lb.toml:{}:{column}", text[..at].lines().count())
    };
    let no_route = format!(
        "{}: warning: pool \"far\": server \"far\": no route to 203.0.113.9; add a route to its network, or correct the \
         address",
        place("\"203.0.113.9")
    );
    let no_file = format!("{}: error: VIP \"far\": the password file gone cannot be read: ", place("\"gone"));
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], &text);
    let mut command = bed.net.lb.ns.command(binary("lb-user"));
    command.args(installation.arguments()).arg("--check");
    let output = process::output("lb-user --check", &mut command, Duration::from_secs(20));
    let printed = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{printed}");
    assert!(printed.contains(&no_route) && printed.contains(&no_file), "{printed}");
    assert_eq!(printed.matches("no route to").count(), 1, "{printed}");

    let balancer = installation.start();
    assert!(balancer.log().contains(&no_file), "{}", balancer.log());
    let _ = balancer.reload(&good).expect("a good file");
    let refused = balancer.reload(&text).expect_err("a file that names one that is not there");
    assert!(refused.contains(&no_file), "{refused}");
    let _ =
        balancer.reload(&text.replace("password_file = \"gone\"", "role = \"any\"")).expect("a good file");
    assert!(balancer.log().contains(&no_route), "{}", balancer.log());
}

/// R45, and what only the proxy can tell: told by `--check` with its place, whoever asks.
#[test]
fn check_asks_the_proxy_about_its_vips() {
    needs_balancer!();
    let bed = bed();
    let base = bed.config(&["snat"], 80, "");
    let config = |bytes: u32| {
        format!(
            "{}\n[vip.secure]\naddress = \"10.9.9.9\"\nport = 443\nmode = \"http\"\nredirect = {{ scheme = \"https\" }}\n\
             tls = {{ certificates = [\"pair.pem\"] }}\nlimits = {{ header_bytes = {bytes} }}\n",
            base.text()
        )
    };
    let place = |key: &str| {
        let text = config(1_024);
        let vip = text.find("[vip.secure]").expect("the VIP");
        let at = vip + text[vip..].find(key).expect("the key");
        let column = at - text[..at].rfind('\n').expect("a line before it");
        format!(
            "lb.toml:{}:{column}: error: VIP \"secure\": ",
            text[..at].lines().count() + usize::from(column == 1)
        )
    };
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], base.text());
    let (one, another) = (certificate("one.example"), certificate("another.example"));
    let split = |pem: &str| {
        let at = pem.find("-----BEGIN PRIVATE KEY").expect("a key");
        (pem[..at].to_owned(), pem[at..].to_owned())
    };
    let mixed = split(&one).0 + &split(&another).1;
    let turned = split(&one).1 + &split(&one).0;
    let key_of_another = [place("\"pair.pem"), "pair.pem".to_owned()];
    let of_proxy = [place("443"), "limits.header_bytes: must be 1024 to".to_owned()];
    let before = installation.footprint();
    for (pem, bytes, wanted) in [
        (&one, 1_024, None),
        (&turned, 1_024, None),
        (&mixed, 1_024, Some(&key_of_another)),
        (&one, 10, Some(&of_proxy)),
    ] {
        installation.configure(&config(bytes));
        let file = installation.put("pair.pem", pem);
        for readable in [installation.config().parent().expect("a folder"), &file, &installation.config()] {
            fs::set_permissions(readable, fs::Permissions::from_mode(0o755)).expect("permissions");
        }
        // Nobody needs to be root for it.
        for under in [&["env"][..], &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]] {
            let mut command = bed.net.lb.ns.command(under[0]);
            command.args(&under[1..]).arg(binary("lb-user")).args(installation.arguments()).arg("--check");
            let output = process::output("lb-user --check", &mut command, Duration::from_secs(20));
            let printed = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.success(), wanted.is_none(), "{under:?}: {printed}");
            if let Some([place, problem]) = wanted {
                complaint(&printed, &[place, problem]);
            }
        }
    }
    assert_eq!(installation.footprint(), before);
}

#[test]
fn a_second_instance_on_the_same_interface() {
    needs_balancer!();
    let bed = bed();
    let config = bed.config(&["snat"], 80, "");
    let balancer = bed.balance(&config);
    let first = format!("another lb-user (pid {})", balancer.id());
    let _ = refused(&Installation::new(&bed.net.lb.ns, &["eth0"], config.text()), &[&first]);
    let _ = client::requests(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 20)
        .all_answered("the first one");
}

#[test]
fn a_foreign_program_on_the_interface() {
    needs_balancer!();
    let bed = bed();
    let config = bed.config(&["snat"], 80, "");
    let foreign = Bystander::attach(&bed.net.lb.ns, "eth0");
    for mode in ["auto", "native", "generic"] {
        let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text()).xdp_mode(mode);
        let _ = refused(&installation, &["eth0", bystander::NAME, &foreign.id.to_string()]);
        assert_eq!(attached_program(&bed.net.lb.ns, "eth0"), Some(foreign.id.into()));
    }
}

#[test]
fn a_second_instance_on_another_interface() {
    needs_balancer!();
    let bed = Bed::new(two_wires(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let first = Installation::new(&bed.net.lb.ns, &["eth0"], config.text()).start();
    let second = Installation::new(&bed.net.lb.ns, &["eth1"], config.text());
    let _ = refused(&second, &["another lb-user", &first.id().to_string()]);
    assert_eq!(first.status().interfaces.len(), 1, "the first instance goes on");
    assert_eq!(first.installation().footprint().programs, [Some(first.assert_native()[0].program_id.into())]);
}

#[test]
fn an_administration_socket_that_is_in_use() {
    needs_balancer!();
    let bed = bed();
    let config = bed.config(&["snat"], 80, "");
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config.text());
    let socket = installation.socket();
    let path = socket.display().to_string();
    let other = UnixListener::bind(&socket).expect("a socket of another program");
    let _ = refused(&installation, &[&path]);
    drop(UnixStream::connect(&socket).expect("the other program still has its socket"));
    drop(other);
    fs::remove_file(&socket).expect("remove the socket");

    fs::write(&socket, "notes").expect("a file in its place");
    let _ = refused(&installation, &[&path]);
    assert_eq!(fs::read_to_string(&socket).expect("the file"), "notes");
}

#[test]
fn a_vip_port_that_a_service_of_the_host_has_on_every_address() {
    needs_balancer!();
    let bed = bed();
    let _sshd = Server::start(&bed.net.lb.ns, "sshd", &[22], false);
    let config = bed.config(&["snat"], 22, "");
    let _ = refused(&Installation::new(&bed.net.lb.ns, &["eth0"], config.text()), &["snat_v4", "port 22"]);
}

#[test]
fn a_configuration_file_that_does_not_exist() {
    needs_balancer!();
    let bed = bed();
    let mut command = bed.net.lb.ns.command(binary("lb-user"));
    command.args(["--iface", "eth0", "--config", "/nonexistent/lb.toml"]);
    let (status, log) = Running::start("lb-user", &mut command).wait(Duration::from_secs(20));
    assert!(!status.success(), "{log}");
    complaint(&log, &["/nonexistent/lb.toml"]);
}

#[test]
fn a_place_for_health_that_somebody_has_keeps_nothing_else_from_being_changed() {
    needs_balancer!();
    let net = Topology::build(Layout::default());
    let _servers = webs(&net);
    let own = net.lb.address.of(Family::V4);
    let config = |port: u16, more: &str| one_vip(&net, &format!("{more}[proxy]\nadmin = \"{own}:{port}\"\n"));
    let take = |port: u16| net.lb.ns.run(|| TcpListener::bind((own, port))).expect("a port");
    let taken = [take(901), take(902)];
    let balancer = Installation::new(&net.lb.ns, &["eth0"], &config(901, "")).xdp_mode("native").start();
    let _ = balancer.wait_all_up();
    let other = "timeouts = { client_idle = \"60s\" }\n";
    let _ = balancer.reload(&config(901, other)).expect("a reload");
    assert!(balancer.log().contains("warning: admin in [proxy]"), "{}", balancer.log());
    let refused = balancer.reload(&config(902, other)).expect_err("another place that is taken");
    assert!(refused.contains("take another port"), "{refused}");
    balancer.installation().configure(&config(901, other));
    let _ = balancer.lbctl(&["rollback", "1"]).expect("the way back");
    drop(taken);
    let url = format!("http://{own}:901/health");
    wait::until_true(Duration::from_secs(20), "it to tell of health", || {
        curl(&net.client().ns, &[&url]).status == 200
    });
}
