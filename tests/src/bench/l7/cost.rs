//! What a process has spent and holds, as the kernel tells it.

use std::{fs, thread, time::Duration};

use anyhow::{Context as _, Result, bail};

/// Processor time of a process, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Spent(u64);

impl Spent {
    /// All its threads up to now.
    ///
    /// # Errors
    /// When it has ended, or the kernel keeps no such account.
    pub fn until_now(process: u32) -> Result<Self> {
        let folder = format!("/proc/{process}/task");
        let mut sum = None;
        for thread in fs::read_dir(&folder).with_context(|| format!("{folder}: has it ended?"))? {
            // A thread may have ended since we were told of it. Those of a proxy do not.
            if let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) {
                let spent = nanos(&text).with_context(|| format!("schedstat in {folder}: {text:?}"))?;
                sum = Some(sum.unwrap_or(0) + spent);
            }
        }
        sum.map(Self).with_context(|| format!("no schedstat in {folder}: the kernel keeps no account"))
    }

    /// Microseconds since then.
    #[must_use]
    pub fn micros_since(self, before: Self) -> f64 {
        self.0.saturating_sub(before.0) as f64 / 1e3
    }
}

/// Waits until a process takes a hundredth of a processor at most, which is what timers may take.
///
/// # Errors
/// When it does not within half a minute, or has ended.
pub fn rest(process: u32) -> Result<()> {
    for _ in 0..60 {
        let before = Spent::until_now(process)?;
        thread::sleep(Duration::from_millis(500));
        if Spent::until_now(process)?.micros_since(before) < 5_000.0 {
            return Ok(());
        }
    }
    bail!("the proxy does not come to rest, though nobody asks it for anything")
}

/// Time on a processor, of a line of `schedstat`.
fn nanos(line: &str) -> Option<u64> {
    line.split_whitespace().next()?.parse().ok()
}

/// Bytes of memory that a process has to itself.
///
/// # Errors
/// When it has ended.
pub fn resident(process: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{process}/status")).context("has it ended?")?;
    kibibytes(&text, "RssAnon:").map(|kib| kib << 10).context("no RssAnon in /proc/PID/status")
}

fn kibibytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim_end().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        assert_eq!(nanos("2047057 11090091 3\n"), Some(2_047_057));
        assert_eq!(nanos(""), None);
        let status = "VmRSS:\t    9 kB\nRssAnon:\t    1024 kB\n";
        assert_eq!(kibibytes(status, "RssAnon:"), Some(1024));
        assert_eq!(kibibytes(status, "RssFile:"), None);
    }

    #[test]
    fn a_process_that_works_spends_time() {
        let own = std::process::id();
        let before = Spent::until_now(own).unwrap();
        crate::wait::until(std::time::Duration::from_secs(20), "time to be spent", || {
            let spent = Spent::until_now(own).unwrap().micros_since(before);
            if spent > 0.0 { Ok(()) } else { Err(format!("{spent} µs")) }
        });
    }
}
