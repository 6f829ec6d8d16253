//! Which processor threads run on. Whether a wake-up crosses processors is luck, and on a virtual machine it
//! costs more than any balancer: so latency is measured with everybody on one.

use std::fs;

use rustix::{
    process::Pid,
    thread::{CpuSet, sched_getaffinity, sched_setaffinity},
};

/// All threads of some processes on processor 0, until this is dropped.
#[derive(Debug)]
pub struct OnOne {
    processes: Vec<u32>,
    before: CpuSet,
}

impl OnOne {
    /// Puts them there; also threads that they start meanwhile.
    ///
    /// # Panics
    /// When the kernel refuses.
    #[must_use]
    pub fn new(processes: Vec<u32>) -> Self {
        let before = sched_getaffinity(None).expect("which processors this thread may use");
        let mut one = CpuSet::new();
        one.set((0..CpuSet::MAX_CPU).find(|&cpu| before.is_set(cpu)).expect("it may use one"));
        set(&processes, &one);
        Self { processes, before }
    }
}

impl Drop for OnOne {
    fn drop(&mut self) {
        set(&self.processes, &self.before);
    }
}

fn set(processes: &[u32], cpus: &CpuSet) {
    for process in processes {
        // A process or thread that has ended meanwhile runs nowhere.
        let Ok(threads) = fs::read_dir(format!("/proc/{process}/task")) else { continue };
        let ids = threads.filter_map(|thread| thread.ok()?.file_name().to_str()?.parse().ok());
        ids.filter_map(Pid::from_raw).for_each(|id| {
            let _ = sched_setaffinity(Some(id), cpus);
        });
    }
}
