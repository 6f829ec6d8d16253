//! `lb-user` as the unit file in `examples/systemd` runs it.

use std::{fs, os::unix::net::UnixDatagram, path::Path, time::Duration};

use lb_tests::{
    address::Family, client, daemon::Installation, folder::Folder, http::curl, needs_balancer,
    streams::Streams, topology::Layout,
};

use crate::bed::Bed;

/// What `setpriv` takes for the unit's `CapabilityBoundingSet`.
fn bounding_set(unit: &str) -> String {
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
