//! `lb-user` as the unit file in `examples/systemd` runs it, and the script in `examples/init.d`.

use std::{fs, os::unix::net::UnixDatagram, path::Path, time::Duration};

use lb_tests::{
    address::Family,
    client,
    daemon::{Installation, binary},
    folder::Folder,
    http::curl,
    needs_balancer, process,
    streams::Streams,
    topology::Layout,
};

use crate::bed::Bed;

/// What `setpriv` takes for the unit's `CapabilityBoundingSet`.
pub(crate) fn bounding_set(unit: &str) -> String {
    let names =
        unit.lines().find_map(|line| line.strip_prefix("CapabilityBoundingSet=")).expect("a bounding set");
    let names = names.split(' ').map(|name| name.strip_prefix("CAP_").expect("a capability").to_lowercase());
    format!("--bounding-set=-all,+{}", names.collect::<Vec<_>>().join(",+"))
}

#[test]
fn the_units_capabilities_are_enough_and_the_manager_is_told() {
    needs_balancer!();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples/systemd/lb-user.service");
    let unit = fs::read_to_string(file).expect("the unit file");
    let folder = Folder::new();
    let manager = UnixDatagram::bind(folder.file("notify")).expect("a socket");
    manager.set_read_timeout(Some(Duration::from_secs(20))).expect("a time limit");
    let told = || {
        let mut bytes = [0; 256];
        let length = manager.recv(&mut bytes).expect("word from lb-user");
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    };
    let until =
        |wanted: &str| (0..100).map(|_| told()).find(|text| text.starts_with(wanted)).expect("it in time");

    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let socket = format!("NOTIFY_SOCKET={}", folder.file("notify").display());
    let proxied = bed.net.vip(222).of(Family::V4);
    let config = format!(
        "{}[vip.proxied]\naddress = \"{proxied}\"\nport = 80\nmode = \"http\"\nredirect = {{ scheme = \"https\" }}\n",
        config.text()
    );
    let installation = Installation::new(&bed.net.lb.ns, &["eth0"], &config)
        .xdp_mode("native")
        .option("--keep-forwarding")
        .under(&["env", &socket, "WATCHDOG_USEC=400000", "setpriv", "--no-new-privs", &bounding_set(&unit)]);
    let balancer = installation.start();
    assert_eq!(until("READY=1"), "READY=1\nSTATUS=3 VIPs");
    let _ = (until("WATCHDOG=1"), until("WATCHDOG=1"));
    let _ = balancer.wait_all_up();
    let stream = Streams::start(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 5);
    let _ = balancer.lbctl(&["server", "halt", "snat_v6/s1"]).expect("halt");

    // The takeover asks the kernel about programs that are not its own.
    let installation = balancer.stop().0;
    let _ = until("STOPPING=1");
    let balancer = installation.start();
    let _ = until("READY=1");
    stream.wait_for_echoes(5);
    stream.unbroken_except(None);
    let target = bed.target("snat", Family::V4, 80);
    let _ = client::requests(&bed.net.client().ns, target, 60).all_answered("snat");
    // A port below 1024, served by a process without a capability.
    let got = curl(&bed.net.client().ns, &[&format!("http://{proxied}/")]);
    assert_eq!(got.status, 302, "{got:?}");
    assert!(!balancer.log().contains("WARN"), "{}", balancer.log());
}

/// What the init script is run with, and is cleaned up by in the end.
struct InitScript<'a> {
    installation: Installation<'a>,
    bed: &'a Bed,
}

impl<'a> InitScript<'a> {
    fn new(bed: &'a Bed, config: &str) -> Self {
        let installation = Installation::new(&bed.net.lb.ns, &["eth0"], config).xdp_mode("native");
        let script = Self { installation, bed };
        let arguments = script.installation.arguments();
        // The script has variables of its own for these.
        let value = |option: &str| {
            let at = arguments.iter().position(|argument| argument == option).expect("an option");
            arguments[at + 1].clone()
        };
        let (options, places) = (["--iface", "--xdp-mode", "--history", "--audit"], ["--pins", "--state"]);
        let words = |options: &[&str]| {
            let pairs: Vec<_> = options.iter().map(|option| format!("{option} {}", value(option))).collect();
            pairs.join(" ")
        };
        let file = |name: &str| script.installation.config().with_file_name(name).display().to_string();
        let defaults = format!(
            "LB_USER={}\nLBCTL={}\nCONFIG={}\nSOCKET={}\nPIDFILE={}\nLOGFILE={}\nOPTIONS='{}'\nPLACES='{}'\n",
            binary("lb-user").display(),
            binary("lbctl").display(),
            value("--config"),
            value("--socket"),
            file("pid"),
            file("log"),
            words(&options),
            words(&places),
        );
        let _ = script.installation.put("defaults", defaults);
        script
    }

    /// Runs it; gives its exit code and what it said.
    fn run(&self, what: &str) -> (Option<i32>, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples/init.d/lb-user");
        let mut command = self.bed.net.lb.ns.command("sh");
        command.env("LB_DEFAULTS", self.installation.config().with_file_name("defaults")).arg(script);
        let output = process::output(what, command.arg(what), Duration::from_secs(90));
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    }
}

impl Drop for InitScript<'_> {
    fn drop(&mut self) {
        let _ = self.run("cleanup");
    }
}

/// R52.
#[test]
fn the_init_script_starts_restarts_and_stops_and_says_how_it_is() {
    needs_balancer!();
    let bed = Bed::new(Layout::default(), &[80]);
    let config = bed.config(&["snat"], 80, "");
    let script = InitScript::new(&bed, config.text());
    let before = script.installation.footprint();
    let answers = || {
        let target = bed.target("snat", Family::V4, 80);
        let _ = client::requests(&bed.net.client().ns, target, 20).all_answered("snat");
    };
    let code = |what: &str| script.run(what).0;

    assert_eq!((code("status"), code("reload")), (Some(3), Some(7)));
    assert_eq!(script.run("start"), (Some(0), String::new()));
    let (running, said) = script.run("status");
    assert!(running == Some(0) && said.contains("runs (pid "), "{said}");
    assert_eq!(code("start"), Some(0), "it is what was wanted");
    assert_eq!(script.run("status"), (Some(0), said.clone()));
    answers();
    let streams = Streams::start(&bed.net.client().ns, bed.target("snat", Family::V4, 80), 5);
    streams.wait_for_echoes(2);

    // What cannot be served leaves alone what is.
    script.installation.configure(&config.text().replace("snat", "snatch"));
    let (refused, why) = script.run("restart");
    assert!(refused == Some(6) && why.contains("lb.toml:") && why.contains("snatch"), "{why}");
    assert_eq!(code("reload"), Some(1));
    assert_eq!(script.run("status"), (Some(0), said.clone()));
    answers();

    script.installation.configure(config.text());
    assert_eq!(code("reload"), Some(0));
    assert_eq!(code("restart"), Some(0));
    let (running, another) = script.run("status");
    assert!(running == Some(0) && another != said, "{another}");
    answers();

    assert_eq!(code("stop"), Some(0));
    assert_eq!(code("status"), Some(3));
    assert_eq!(code("stop"), Some(0), "it is what was wanted");
    answers();
    streams.wait_for_echoes(2);
    streams.unbroken_except(None);
    script.installation.put("pid", "4194304\n");
    assert_eq!(code("status"), Some(1), "dead, and its file is still there");
    assert_eq!(code("nonsense"), Some(2));
    drop(streams);
    assert_eq!(code("cleanup"), Some(0));
    assert_eq!(script.installation.footprint(), before);
}
