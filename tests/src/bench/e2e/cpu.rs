//! How busy the machine is: all processors, all processes, from `/proc/stat`.

use std::fs;

/// Time that processors have spent since boot, in hundredths of a second, or the difference of two such.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cpu {
    /// Doing anything at all.
    pub busy: u64,
    /// Of that, in soft interrupts, where the kernel handles packets.
    pub softirq: u64,
}

impl Cpu {
    /// Up to now.
    ///
    /// # Panics
    /// When the kernel does not tell.
    #[must_use]
    pub fn now() -> Self {
        let text = fs::read_to_string("/proc/stat").expect("read /proc/stat");
        Self::read(&text).expect("the line of all processors in /proc/stat")
    }

    /// What has been spent since then.
    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self { busy: self.busy - before.busy, softirq: self.softirq - before.softirq }
    }

    fn read(text: &str) -> Option<Self> {
        let line = text.lines().find_map(|line| line.strip_prefix("cpu "))?;
        let times: Vec<u64> = line.split_whitespace().map_while(|time| time.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq
        let [user, nice, system, _, _, irq, softirq, ..] = times[..] else { return None };
        Some(Self { busy: user + nice + system + irq + softirq, softirq })
    }
}

#[cfg(test)]
mod tests {
    use super::Cpu;

    #[test]
    fn reads_the_line_of_all_processors() {
        let text = "cpu  10 1 20 1000 5 2 7 3 0 0\ncpu0 5 0 10 500 2 1 3 1 0 0\n";
        assert_eq!(Cpu::read(text), Some(Cpu { busy: 40, softirq: 7 }));
        assert_eq!(Cpu::read("intr 1 2 3\n"), None);
    }
}
