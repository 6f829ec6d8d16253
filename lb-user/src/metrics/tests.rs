use std::collections::{HashMap, HashSet};

use super::*;
use crate::{lbctl::status::tests::snapshot, snapshot::LastReload};

const PROCESS: Process = Process { resident: 4_096, cpu: 1.5, files: 7 };

/// What the specification asks of a text as a whole; gives the samples.
fn checked(text: &str) -> HashMap<&str, &str> {
    let (mut families, mut samples) = (HashSet::new(), HashMap::new());
    let (mut family, mut kind) = ("", "");
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        if line == "# EOF" {
            assert!(lines.peek().is_none(), "nothing follows the end");
            return samples;
        }
        if let Some(declared) = line.strip_prefix("# TYPE ") {
            (family, kind) = declared.split_once(' ').expect("a name and a kind");
            assert!(families.insert(family), "{family} comes twice");
            continue;
        }
        if let Some(rest) = line.strip_prefix("# HELP ").or(line.strip_prefix("# UNIT ")) {
            assert!(rest.starts_with(&format!("{family} ")), "{line}");
            continue;
        }
        let (sample, value) = line.rsplit_once(' ').expect("a sample and its value");
        let name = sample.split('{').next().expect("a name");
        let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} is not of {family}"));
        let right = match kind {
            "counter" => "_total",
            "info" => "_info",
            _ => "",
        };
        assert_eq!(suffix, right, "{line}");
        assert!(value.parse::<f64>().is_ok_and(|value| value >= 0.0), "{line}");
        assert!(samples.insert(sample, value).is_none(), "{sample} comes twice");
    }
    panic!("there is no end");
}

#[test]
fn the_text_is_what_the_specification_asks_for() {
    let text = render(&snapshot(), &PROCESS, &Counts::default());
    let samples = checked(&text);
    for (sample, value) in [
        ("lb_build_info{version=\"0.1.0\"}", "1"),
        ("lb_interface_native{interface=\"eth1\"}", "0"),
        ("lb_vip_degraded{vip=\"aodh\"}", "1"),
        ("lb_vip_served{vip=\"horizon\"}", "0"),
        ("lb_vip_enabled{vip=\"horizon\"}", "1"),
        ("lb_server_up{vip=\"aodh\",server=\"c0\"}", "1"),
        ("lb_server_up{vip=\"aodh\",server=\"c1\"}", "0"),
        ("lb_server_reachable{vip=\"aodh\",server=\"c2\"}", "0"),
        ("lb_server_state{vip=\"aodh\",server=\"c2\",lb_server_state=\"drain\"}", "1"),
        ("lb_server_state{vip=\"aodh\",server=\"c2\",lb_server_state=\"ready\"}", "0"),
        ("lb_packets_dropped_total{reason=\"no-server\"}", "3"),
        ("lb_packets_passed_total{reason=\"not-for-a-vip\"}", "123456"),
        ("lb_events_total{event=\"tag-evicted\"}", "12"),
        ("lb_reload_ok", "1"),
        ("process_cpu_seconds_total", "1.5"),
        ("lb_api_requests_total{way=\"tcp\",status=\"4xx\"}", "0"),
        ("lb_api_logins_refused_total", "0"),
    ] {
        assert_eq!(samples.get(sample), Some(&value), "{sample} in\n{text}");
    }
}

#[test]
fn a_reload_that_failed_shows() {
    let last_reload = Some(LastReload { time: 9, problem: Some("no".into()), confirm_until: Some(10) });
    let text = render(&Snapshot { last_reload, ..snapshot() }, &PROCESS, &Counts::default());
    let samples = checked(&text);
    assert_eq!((samples["lb_reload_ok"], samples["lb_reload_time_seconds"]), ("0", "9"));
    assert_eq!(samples["lb_reload_unconfirmed"], "1");
}

#[test]
fn names_cannot_break_the_text() {
    let mut odd = snapshot();
    odd.vips[0].name = "a\"} 7\nb\\".into();
    let text = render(&odd, &PROCESS, &Counts::default());
    assert_eq!(checked(&text).get(r#"lb_vip_degraded{vip="a\"} 7\nb\\"}"#), Some(&"1"));
}

#[test]
fn this_process_takes_something() {
    let Process { resident, cpu, files } = Process::this();
    assert!(resident > 100_000 && cpu > 0.0 && files > 2, "{resident} bytes, {cpu} s, {files} files");
}
