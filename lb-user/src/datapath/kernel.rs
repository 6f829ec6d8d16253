//! Which kernels the program runs on.

use std::fmt;

/// The oldest kernel that operators run and the program is made for.
const OLDEST: (u32, u32) = (5, 15);

/// Why a kernel will not do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit(String);

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}

/// Judges a kernel by its release, as in `/proc/sys/kernel/osrelease`.
///
/// # Errors
/// When it is too old, or not a Linux release.
pub fn require(release: &str) -> Result<(), Unfit> {
    let release = release.trim();
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    let (Some(Ok(major)), Some(Ok(minor))) = (parts.next(), parts.next()) else {
        return Err(Unfit(format!("cannot tell which kernel this is: its release is {release:?}")));
    };
    if (major, minor) < OLDEST {
        let (oldest_major, oldest_minor) = OLDEST;
        return Err(Unfit(format!(
            "this host runs Linux {release}; lb-user needs {oldest_major}.{oldest_minor} or newer"
        )));
    }
    Ok(())
}

/// Judges the running kernel.
///
/// # Errors
/// When it is too old, or cannot be told.
pub fn require_running() -> Result<(), Unfit> {
    const FILE: &str = "/proc/sys/kernel/osrelease";
    let release = std::fs::read_to_string(FILE);
    require(&release.map_err(|error| Unfit(format!("cannot tell which kernel this is: {FILE}: {error}")))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases() {
        for fit in ["5.15.0-91-generic", "5.15", "6.1.0-18-amd64", "6.18.44", "10.0.1\n"] {
            assert_eq!(require(fit), Ok(()), "{fit}");
        }
        for (unfit, why) in [
            ("5.10.0-28-amd64", "this host runs Linux 5.10.0-28-amd64; lb-user needs 5.15 or newer"),
            ("4.18.0-513.el8", "this host runs Linux 4.18.0-513.el8; lb-user needs 5.15 or newer"),
            ("plan9", "cannot tell which kernel this is: its release is \"plan9\""),
            ("", "cannot tell which kernel this is: its release is \"\""),
        ] {
            assert_eq!(require(unfit).unwrap_err().to_string(), why);
        }
    }
}
