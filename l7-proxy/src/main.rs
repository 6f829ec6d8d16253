//! The companion proxy for the virtual services that the kernel cannot forward: HTTP, and TCP whose TLS ends
//! at the balancer. It serves nothing yet, says so, and fails, so that nobody takes it for a working one.

use std::process::ExitCode;

use clap::Parser;

/// `EX_UNAVAILABLE` of sysexits.h: the service is not there, however often one asks.
const UNAVAILABLE: u8 = 69;

/// Companion proxy of the load balancer for HTTP and TLS virtual services. It serves nothing yet.
#[derive(Parser)]
#[command(version)]
struct Arguments {}

fn main() -> ExitCode {
    let Arguments {} = Arguments::parse();
    eprintln!(
        "l7-proxy {}: serves nothing yet; layer 4 services need only lb-user",
        env!("CARGO_PKG_VERSION")
    );
    ExitCode::from(UNAVAILABLE)
}
