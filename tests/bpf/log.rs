//! The log of the programs: drops that an operator should hear of, as the daemon reads them.

use std::sync::{Arc, Mutex};

use aya_log::EbpfLogger;
use lb_common::abi::{Mode, RING_SIZE, protocol};
use lb_testkit::{
    draft::Draft,
    world::{self, World},
};
use lb_tests::needs_kernel_program;
use log::{Level, Log, Metadata, Record};

use crate::kernel::{Action, Kernel, place};

/// Keeps what it is given.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<(Level, String)>>>);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.lock().expect("nobody has failed").push((record.level(), record.args().to_string()));
    }

    fn flush(&self) {}
}

/// Sends this many datagrams that need ports of which there is one; gives what is logged.
fn log_of(datagrams: u16, frags: bool) -> Vec<(Level, String)> {
    // Drops are counted by CPU.
    lb_tests::packet::stay_on_this_cpu();
    let mut world = World::new(RING_SIZE);
    world.tables.settings.snat_count = 1;
    let service = world.service(Mode::Snat, protocol::UDP, true);
    world.fill_ring(&service, &[1]);
    let mut kernel = Kernel::load_some(&world.tables, frags);
    let lines = Lines::default();
    let mut logger = EbpfLogger::init_with_logger(kernel.ebpf(), lines.clone()).expect("a log");
    for port in 0..=datagrams {
        let frame = Draft::udp(world::client(true, 9, 40_000 + port), service.at).bytes();
        let (action, _) = kernel.run(world::FRONT, &frame);
        assert_eq!(action == Action::Drop, port > 0, "the first has the port");
    }
    logger.flush();
    std::mem::take(&mut *lines.0.lock().expect("nobody has failed"))
}

#[test]
fn drops_for_want_of_ports_are_logged_ever_more_rarely() {
    needs_kernel_program!();
    place(|| {
        let line = |count| {
            let text = format!("dropped: no free source port for a new flow ({count} so far on this CPU)");
            (Level::Warn, text)
        };
        let expected = [1, 2, 4, 8, 16, 32, 64].map(line);
        for frags in [true, false] {
            assert_eq!(log_of(100, frags), expected);
        }
    });
}
