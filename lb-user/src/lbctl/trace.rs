//! `lbctl trace`: what becomes of packets, as they pass.

use std::{
    io::{self, ErrorKind, IsTerminal as _, Write as _},
    net::{IpAddr, SocketAddr},
    ops::ControlFlow,
};

use clap::{Args, ValueEnum};

use super::{
    client::{self, At, Failure},
    pcapng::{Capture, Frame},
};
use crate::{
    admin::query,
    trace::{Ends, Filter, Line, Packet, Sighting},
};

/// What the command line says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Which packets: host ADDRESS, net ADDRESS/LENGTH, port NUMBER, vip NAME, tcp, udp, icmp, pass, drop, forward,
    /// answer, reason NAME, joined by "and"; all by default. Addresses and ports are those of the packet as it comes,
    /// and of the client and the server of its flow.
    #[arg(value_name = "FILTER")]
    filter: Vec<String>,

    /// `text` for people, `json` for programs (a line for each packet), `pcapng` for Wireshark.
    #[arg(short, long, value_enum, default_value_t = Form::Text)]
    output: Form,

    /// End after this many packets.
    #[arg(long, short = 'c', value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,

    /// End after this many seconds.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    duration: Option<u64>,

    /// Show only one of this many flows, with all its packets.
    #[arg(long, value_name = "NUMBER", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    sample: u32,

    /// With `json`: also the first 128 bytes of each frame as it leaves, or as it was passed or dropped.
    #[arg(long)]
    bytes: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    Text,
    Json,
    Pcapng,
}

impl Options {
    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn problem(&self) -> Option<String> {
        if self.bytes && self.output == Form::Text {
            return Some("--bytes goes with -o json; -o pcapng has the bytes anyway".into());
        }
        Filter::parse(&self.filter.join(" ")).err().map(|error| error.to_string())
    }

    fn path(&self) -> String {
        let (filter, sample) = (self.filter.join(" "), self.sample.to_string());
        let bytes = self.bytes || self.output == Form::Pcapng;
        let (count, seconds) =
            (self.count.map(|count| count.to_string()), self.duration.map(|s| s.to_string()));
        let mut pairs = vec![("filter", filter.as_str()), ("sample", sample.as_str())];
        pairs.extend(bytes.then_some(("bytes", "true")));
        pairs.extend(count.as_deref().map(|count| ("count", count)));
        pairs.extend(seconds.as_deref().map(|seconds| ("seconds", seconds)));
        format!("/v1/trace?{}", query::encode(&pairs))
    }
}

/// Prints packets until there is an end to it: a count, a time, Ctrl-C, or nobody who reads.
///
/// # Errors
/// When lb-user cannot be reached, refuses or goes away.
pub fn run(at: &At, options: &Options) -> Result<(), Failure> {
    if options.output == Form::Pcapng && io::stdout().is_terminal() {
        return Err(Failure::Answer(
            "pcapng is not for terminals: lbctl trace -o pcapng > packets.pcapng".into(),
        ));
    }
    let mut printer = Printer { form: options.output, capture: Capture::default(), seen: 0, lost: 0 };
    if options.output == Form::Pcapng {
        let start = printer.capture.begin();
        let _ = printer.write(&start)?;
    }
    let outcome = client::lines(at, &options.path(), |line| printer.line(line));
    // A refusal speaks for itself.
    if outcome.is_ok() || printer.seen > 0 {
        printer.sum_up();
    }
    outcome
}

struct Printer {
    form: Form,
    capture: Capture,
    seen: u64,
    lost: u32,
}

impl Printer {
    fn line(&mut self, text: &str) -> Result<ControlFlow<()>, Failure> {
        let line: Line = serde_json::from_str(text).map_err(|error| {
            Failure::Answer(format!(
                "a line of lb-user was not understood ({error}); is lbctl {} of the same version?",
                env!("CARGO_PKG_VERSION")
            ))
        })?;
        match &line {
            Line::Lost { lost } => self.lost = *lost,
            Line::Packet(_) => self.seen += 1,
        }
        let out = match (self.form, &line) {
            (Form::Json, _) => format!("{text}\n").into_bytes(),
            (Form::Text, Line::Packet(seen)) => format!("{}\n", render(seen)).into_bytes(),
            (Form::Text, Line::Lost { lost }) => format!(
                "({lost} packets so far came too fast to be shown; a narrower filter or --sample helps)\n"
            )
            .into_bytes(),
            (Form::Pcapng, Line::Packet(seen)) => self.frame(seen),
            (Form::Pcapng, Line::Lost { .. }) => Vec::new(),
        };
        self.write(&out)
    }

    fn frame(&mut self, seen: &Sighting) -> Vec<u8> {
        let sent = matches!(seen.verdict.as_str(), "forward" | "answer");
        let out = seen.out.as_deref().filter(|_| sent);
        let bytes = seen.frame().unwrap_or_default();
        self.capture.add(&Frame {
            interface: out.unwrap_or(&seen.interface),
            outbound: out.is_some(),
            time: seen.time * 1_000_000_000 + u64::from(seen.nanoseconds),
            bytes: &bytes,
            length: seen.frame_length,
            comment: &render(seen),
        })
    }

    fn write(&self, bytes: &[u8]) -> Result<ControlFlow<()>, Failure> {
        let mut stdout = io::stdout().lock();
        match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
            Ok(()) => Ok(ControlFlow::Continue(())),
            // Whoever reads, e.g. `head`, has seen enough.
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ControlFlow::Break(())),
            Err(error) => Err(Failure::Answer(format!("cannot write the packets: {error}"))),
        }
    }

    /// Says on the other channel how much was seen, as tcpdump does.
    fn sum_up(&self) {
        let Self { seen, lost, .. } = self;
        let _ = writeln!(io::stderr(), "{seen} packets shown, {lost} lost");
    }
}

/// A packet in one line.
fn render(seen: &Sighting) -> String {
    let mut parts = vec![clock(seen), seen.interface.clone()];
    match &seen.packet {
        Some(packet) => parts.extend(packet_words(packet)),
        None => parts.push(format!("frame of {} bytes", seen.frame_length)),
    }
    let mut fate = seen.verdict.clone();
    if let Some(out) = &seen.out {
        fate += &format!(" {out}");
    }
    if let Some(reason) = &seen.reason {
        fate += &format!(" ({reason})");
    }
    parts.push(format!("| {fate}"));
    parts.extend(seen.vip.as_ref().map(|vip| format!("| vip {vip}")));
    parts.extend(seen.slot.as_ref().map(|slot| {
        let state = if slot.tagged { "tagged" } else { "settled" };
        let server = slot.server.as_deref().unwrap_or("nobody");
        format!("slot {} {state} {server}", slot.number)
    }));
    parts.extend(flow_words(seen).map(|flow| format!("| {flow}")));
    parts.extend(
        seen.server
            .as_ref()
            .map(|server| format!("| {} {server}", if seen.reply { "from" } else { "server" })),
    );
    if let Some(change) = &seen.change {
        let leaves = seen.leaves.as_ref().map(|ends| format!(" {}", arrow(ends))).unwrap_or_default();
        parts.push(format!("| {change}{leaves}"));
    }
    parts.join(" ")
}

fn flow_words(seen: &Sighting) -> Option<&'static str> {
    Some(match (seen.in_table, seen.entered, seen.tags.as_deref()) {
        (true, true, _) => "new flow",
        (true, false, _) => "known flow",
        (false, true, _) => "flow noted in tags",
        (false, false, Some("hit")) => "known to tags",
        (false, false, Some(_)) => "unknown to tags",
        (false, false, None) => return None,
    })
}

fn packet_words(packet: &Packet) -> Vec<String> {
    let mut words = vec![packet.protocol.clone(), arrow(&packet.ends)];
    words.extend(packet.flags.as_ref().map(|flags| format!("[{flags}]")));
    words.extend(packet.kind.clone());
    words.push(format!("{} bytes", packet.length));
    words
}

fn arrow(ends: &Ends) -> String {
    let end = |address: IpAddr, port: u16| match port {
        0 => address.to_string(),
        port => SocketAddr::new(address, port).to_string(),
    };
    format!("{} > {}", end(ends.source, ends.source_port), end(ends.destination, ends.destination_port))
}

/// Time of day, UTC.
fn clock(seen: &Sighting) -> String {
    let second = seen.time % 86_400;
    let (hour, minute, micros) = (second / 3_600, second / 60 % 60, seen.nanoseconds / 1_000);
    format!("{hour:02}:{minute:02}:{:02}.{micros:06}Z", second % 60)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::SlotSeen;

    fn ends(source: [u8; 4], sport: u16, destination: [u8; 4], dport: u16) -> Ends {
        let (source, destination) = (source.into(), destination.into());
        Ends { source, source_port: sport, destination, destination_port: dport }
    }

    fn syn() -> Sighting {
        Sighting {
            time: 86_400 + 3_661,
            nanoseconds: 1_500,
            interface: "eth0".into(),
            verdict: "forward".into(),
            packet: Some(Packet {
                protocol: "tcp".into(),
                ends: ends([10, 0, 0, 9], 40_000, [192, 0, 2, 1], 80),
                flags: Some("S".into()),
                kind: None,
                length: 74,
            }),
            vip: Some("web".into()),
            slot: Some(SlotSeen { number: 7, tagged: false, server: Some("s1".into()) }),
            in_table: true,
            entered: true,
            server: Some("s1".into()),
            change: Some("translate".into()),
            leaves: Some(ends([10, 1, 0, 1], 20_000, [10, 1, 0, 2], 8_080)),
            out: Some("eth1".into()),
            frame_length: 74,
            bytes: Some("0102".into()),
            ..Sighting::default()
        }
    }

    #[test]
    fn a_packet_is_a_line() {
        assert_eq!(
            render(&syn()),
            "01:01:01.000001Z eth0 tcp 10.0.0.9:40000 > 192.0.2.1:80 [S] 74 bytes | forward eth1 | vip web slot 7 \
             settled s1 | new flow | server s1 | translate 10.1.0.1:20000 > 10.1.0.2:8080"
        );
        let unread = Sighting {
            interface: "eth0".into(),
            verdict: "pass".into(),
            reason: Some("not-ip".into()),
            frame_length: 42,
            ..Sighting::default()
        };
        assert_eq!(render(&unread), "00:00:00.000000Z eth0 frame of 42 bytes | pass (not-ip)");
    }

    #[test]
    fn a_frame_of_a_capture_is_where_it_was_seen() {
        let mut printer = Printer { form: Form::Pcapng, capture: Capture::default(), seen: 0, lost: 0 };
        let forwarded = printer.frame(&syn());
        let text = String::from_utf8_lossy(&forwarded).into_owned();
        assert!(text.contains("eth1") && text.contains("| new flow | server s1"), "{text}");
        let dropped = Sighting { verdict: "drop".into(), out: None, interface: "front".into(), ..syn() };
        let text = String::from_utf8_lossy(&printer.frame(&dropped)).into_owned();
        assert!(text.contains("front"), "{text}");
    }

    #[test]
    fn the_request_carries_everything() {
        let options = Options {
            filter: vec!["host".into(), "::1".into()],
            output: Form::Pcapng,
            count: Some(5),
            duration: Some(6),
            sample: 7,
            bytes: false,
        };
        assert_eq!(options.problem(), None);
        assert_eq!(options.path(), "/v1/trace?filter=host%20%3A%3A1&sample=7&bytes=true&count=5&seconds=6");
        let wrong = Options { filter: vec!["hots".into()], ..options };
        assert!(wrong.problem().unwrap().contains("\"hots\" is not understood"));
    }
}
