//! `lbctl why`: what would become of a packet, and how that comes about.

use std::net::SocketAddr;

use clap::{Args, ValueEnum};

use super::{
    client::{self, At, Failure},
    output::{Format, render as rendered},
    understood,
};
use crate::{admin::query, trace::Why};

/// What the command line says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// Where the packet comes from: ADDRESS:PORT, with [] around IPv6 addresses.
    #[arg(value_name = "SOURCE", value_parser = end)]
    source: SocketAddr,

    /// Where it is sent to.
    #[arg(value_name = "DESTINATION", value_parser = end)]
    destination: SocketAddr,

    /// Its protocol.
    #[arg(value_enum, default_value_t = Protocol::Tcp)]
    protocol: Protocol,

    /// TCP: ask about a packet of a connection that is open, not about the SYN that begins one.
    #[arg(long)]
    established: bool,

    /// In what form.
    #[arg(short, long, value_enum, default_value_t = Format::Table)]
    output: Format,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Protocol {
    Tcp,
    Udp,
}

fn end(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "it must be ADDRESS:PORT, such as 192.0.2.1:80 or [2001:db8::1]:80".into())
}

/// The answer, ready to be printed.
///
/// # Errors
/// When lb-user cannot be reached, or refuses.
pub fn run(at: &At, options: &Options) -> Result<String, Failure> {
    let (source, destination) = (options.source.to_string(), options.destination.to_string());
    let protocol = if options.protocol == Protocol::Tcp { "tcp" } else { "udp" };
    let mut pairs = vec![("source", source.as_str()), ("destination", &destination), ("protocol", protocol)];
    pairs.extend(options.established.then_some(("established", "true")));
    let body = client::get(at, &format!("/v1/why?{}", query::encode(&pairs)))?;
    let why: Why = understood(&body)?;
    rendered(options.output, &why, |_| render(&why))
}

fn render(why: &Why) -> String {
    why.steps.iter().map(|step| format!("{:<8} {}\n", step.what, step.text)).collect()
}
