//! Over tables in ordinary memory.

use lb_common::abi::Vip;

use super::*;
use crate::{datapath::flows::tests::tables, plan::Desired};

/// VIPs `web` (number 0, which the flows have) and `dr`; servers 1 to 3.
fn insight() -> Insight {
    let mut written = Desired::default();
    for (id, mode) in [(0, Mode::Snat), (1, Mode::Dr)] {
        let key = lb_common::abi::VipKey { address: id.into(), port: 80, protocol: 6 };
        written.vips4.insert(key, Vip { id, mode: mode as u8, ..Vip::default() });
    }
    let names = Names::made_up(&[(0, "web"), (1, "dr")], &[(1, "s1"), (2, "s2"), (3, "s1")]);
    Insight { written, names, attached: Vec::new() }
}

fn filter(vip: Option<&str>, server: Option<&str>, client: Option<(IpAddr, u8)>) -> Filter {
    Filter { vip: vip.map(str::to_owned), server: server.map(str::to_owned), client }
}

#[test]
fn those_are_listed_that_the_filter_names_the_latest_first() {
    let (tables, insight) = (tables(), insight());
    let now = tick();
    // The client's address is the place.
    for (place, server, age) in [(1, 1, 30), (2, 2, 10), (70, 3, 20)] {
        let _ = tables.enter(place, server, now - age);
    }
    let list = |filter: &Filter, limit| list(&tables, &insight, filter, limit);
    let servers = |filter: &Filter| -> Vec<String> {
        let listed = list(filter, 10).unwrap();
        assert_eq!(listed.matching as usize, listed.connections.len());
        listed.connections.into_iter().map(|connection| connection.server).collect()
    };
    assert_eq!(servers(&Filter::default()), ["s2", "s1", "s1"]);
    assert_eq!(servers(&filter(Some("web"), Some("s1"), None)), ["s1", "s1"]);
    let client = address4(2);
    assert_eq!(servers(&filter(None, None, Some((client, 32)))), ["s2"]);
    assert_eq!(servers(&filter(None, None, Some((IpAddr::from([0; 4]), 0)))).len(), 3);
    assert_eq!(servers(&filter(None, None, Some((IpAddr::from([0; 16]), 0)))).len(), 0);
    let few = list(&Filter::default(), 1).unwrap();
    assert_eq!((few.matching, few.connections.len(), few.connections[0].server.as_str()), (3, 1, "s2"));
    assert_eq!((few.connections[0].state, few.connections[0].protocol.as_str()), (State::Open, "tcp"));
    assert!((9..=12).contains(&few.connections[0].idle), "{}", few.connections[0].idle);
    for (wrong, why) in [
        (filter(Some("none"), None, None), "there is no VIP \"none\""),
        (filter(None, Some("s9"), None), "there is no server \"s9\""),
        (filter(Some("dr"), None, None), "VIP \"dr\" is of mode dr: of its connections a hash is kept"),
    ] {
        let refused = list(&wrong, 1).unwrap_err();
        assert!(refused.starts_with(why), "{refused}");
    }
}

#[test]
fn a_flow_that_is_forgotten_is_gone_from_both_tables_and_others_stay() {
    let (tables, insight) = (tables(), insight());
    let now = tick();
    let _ = tables.enter(1, 1, now);
    let _ = tables.enter(2, 2, now);
    let mut records = Vec::new();
    tables.for_each_record(&mut |record| records.push(record)).unwrap();
    assert_eq!(records.len(), 2);
    assert!(tables.forget(&records[0]) && !tables.forget(&records[0]), "once");
    let left = list(&tables, &insight, &Filter::default(), 10).unwrap();
    assert_eq!((left.matching, left.connections[0].server.as_str()), (1, "s2"));
    // Another flow has taken the place.
    let _ = tables.enter(65, 3, now);
    let mut other = records[0];
    other.number = 65;
    assert!(!tables.forget(&other));
}
