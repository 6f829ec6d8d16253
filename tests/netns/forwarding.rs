//! R3, R7: what a server sees of a client in each mode, and by which way the answer goes.

use std::collections::BTreeSet;

use lb_tests::{
    address::Family,
    capture::Capture,
    client,
    folder::Folder,
    frame::Frame,
    needs_balancer,
    topology::{Layout, Servers},
};

use crate::bed::{Bed, MODES};

const REQUESTS: usize = 1000;

/// Frames of a series of requests in one mode, at every server and at the balancer's switch port.
struct Seen {
    at_servers: Vec<Vec<Frame>>,
    at_balancer: Vec<Frame>,
    /// The capture files; they stay when the test fails.
    _files: Vec<Folder>,
}

#[track_caller]
fn watch(bed: &Bed, mode: &str, family: Family) -> Seen {
    let what = format!("{mode} over {family}");
    let client = bed.net.client();
    let filter = "tcp port 80 or tcp port 8080";
    let at_balancer = Capture::start(
        bed.net.tap(&bed.net.lb),
        &format!("({filter}) and host {}", client.address.of(family)),
    );
    let at_servers: Vec<_> = bed.net.servers.iter().map(|host| Capture::start(host.tap(), filter)).collect();
    let tally = client::requests(&client.ns, bed.target(mode, family, 80), REQUESTS);
    assert_eq!(tally.all_answered(&what).servers(), ["s1", "s2", "s3"], "{what}");
    let (at_servers, mut files): (Vec<_>, Vec<_>) = at_servers.into_iter().map(Capture::stop).unzip();
    let (at_balancer, file) = at_balancer.stop();
    files.push(file);
    Seen { at_servers, at_balancer, _files: files }
}

/// Frames that carry a request to a server; health checks go to the same port but carry no data.
fn requests_in(frames: &[Frame], port: u16) -> impl Iterator<Item = &Frame> {
    frames.iter().filter(move |frame| frame.dst_port == port && frame.payload > 0)
}

#[test]
fn dr_changes_the_destination_mac_only_and_answers_bypass_the_balancer() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let _balancer = bed.balance(&bed.config(&["dr"], 80, ""));
    for family in Family::BOTH {
        let vip = bed.target("dr", family, 80).ip();
        let (client, lb) = (bed.net.client(), &bed.net.lb);
        let seen = watch(&bed, "dr", family);
        let mut requests = 0;
        for (frames, host) in seen.at_servers.iter().zip(&bed.net.servers) {
            for frame in requests_in(frames, 80).filter(|frame| frame.dst == vip) {
                assert_eq!((frame.dst_mac, frame.src_mac), (host.mac, lb.mac), "{frame}");
                assert_eq!(frame.src, client.address.of(family), "{frame}");
                requests += 1;
            }
            let answers: Vec<_> =
                frames.iter().filter(|frame| frame.src_port == 80 && frame.payload > 0).collect();
            assert!(!answers.is_empty());
            for frame in answers {
                assert_eq!((frame.src, frame.dst), (vip, client.address.of(family)), "{frame}");
                assert_eq!(frame.dst_mac, client.mac, "an answer goes straight to the client: {frame}");
            }
        }
        assert_eq!(requests, REQUESTS, "each request reached exactly one server");
        let bypassed = seen.at_balancer.iter().all(|frame| frame.src != vip);
        assert!(bypassed, "an answer passed the balancer");
    }
}

#[test]
fn nat_shows_the_server_its_own_address_and_the_client_and_answers_go_through_the_balancer() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let _balancer = bed.balance(&bed.config(&["nat"], 80, ""));
    for family in Family::BOTH {
        let vip = bed.target("nat", family, 80).ip();
        let (client, lb) = (bed.net.client(), &bed.net.lb);
        let seen = watch(&bed, "nat", family);
        let mut requests = 0;
        for (frames, host) in seen.at_servers.iter().zip(&bed.net.servers) {
            for frame in requests_in(frames, 80) {
                let (src, dst) = (client.address.of(family), host.address.of(family));
                assert_eq!((frame.src, frame.dst, frame.src_mac), (src, dst, lb.mac), "{frame}");
                requests += 1;
            }
            for frame in frames.iter().filter(|frame| frame.src_port == 80 && frame.payload > 0) {
                assert_eq!(
                    (frame.src, frame.dst),
                    (host.address.of(family), client.address.of(family)),
                    "{frame}"
                );
                assert_eq!(frame.dst_mac, lb.mac, "an answer goes through the balancer: {frame}");
            }
        }
        assert_eq!(requests, REQUESTS, "each request reached exactly one server");
        let back = |frame: &&Frame| frame.src == vip && frame.dst_mac == client.mac && frame.payload > 0;
        assert_eq!(seen.at_balancer.iter().filter(back).count(), REQUESTS, "answers that left the balancer");
    }
}

#[test]
fn snat_shows_the_server_the_balancer_and_nothing_of_the_client() {
    needs_balancer!();
    // Servers without any route to the client: the mode must not need one.
    let bed = Bed::new(Layout::default(), &[80]);
    let _balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    for family in Family::BOTH {
        let (client, lb) = (bed.net.client(), &bed.net.lb);
        let seen = watch(&bed, "snat", family);
        let mut requests = 0;
        let mut sources = BTreeSet::new();
        for (frames, host) in seen.at_servers.iter().zip(&bed.net.servers) {
            for frame in requests_in(frames, 80) {
                assert_eq!((frame.dst, frame.src_mac), (host.address.of(family), lb.mac), "{frame}");
                assert!(bed.net.lb_addresses().iter().any(|address| address.is(frame.src)), "{frame}");
                sources.insert((frame.src, frame.src_port));
                requests += 1;
            }
            for frame in frames.iter().filter(|frame| frame.src_port == 80) {
                assert_eq!(frame.dst_mac, lb.mac, "{frame}");
            }
            let strangers =
                frames.iter().find(|frame| [frame.src, frame.dst].contains(&client.address.of(family)));
            assert!(strangers.is_none(), "the client shows: {}", strangers.expect("found"));
        }
        assert_eq!(requests, REQUESTS, "each request reached exactly one server");
        assert!(sources.len() > 1, "one source port for all clients cannot be told apart");
    }
}

#[test]
fn servers_behind_two_routers_answer_a_client_behind_another_one_without_any_setting() {
    needs_balancer!();
    let bed = Bed::new(Layout { place: Servers::BehindRouters, ..Layout::default() }, &[80]);
    let balancer = bed.balance(&bed.config(&["snat"], 80, ""));
    let _ = balancer.assert_native();
    for family in Family::BOTH {
        let target = bed.target("snat", family, 80);
        let tally = client::requests(&bed.net.client().ns, target, 200).all_answered(family);
        assert_eq!(tally.servers(), ["s1", "s2", "s3"], "{family}");
        let transfer = client::transfer(&bed.net.client().ns, target, 1 << 20, 17);
        transfer.unwrap_or_else(|error| panic!("{family}: {error}")).intact(family);
    }
}

#[test]
fn modes_of_different_vips_do_not_disturb_each_other() {
    needs_balancer!();
    let bed = Bed::for_all_modes(&[80]);
    let _balancer = bed.balance(&bed.config(&MODES, 80, ""));
    std::thread::scope(|scope| {
        for family in Family::BOTH {
            for mode in MODES {
                let bed = &bed;
                scope.spawn(move || {
                    let tally = client::requests(&bed.net.client().ns, bed.target(mode, family, 80), 200);
                    let _ = tally.all_answered(format!("{mode} over {family} beside the others"));
                });
            }
        }
    });
}
