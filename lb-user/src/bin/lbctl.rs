//! The operator's command; see [`lb_user::lbctl`].

use std::process::ExitCode;

fn main() -> ExitCode {
    lb_user::lbctl::main()
}
