//! What the verifier makes of the programs. Its numbers are those of the running kernel; others count otherwise,
//! hence the distance to the limits.

use std::io::Write as _;

use aya::{
    EbpfLoader,
    programs::{ProgramInfo, Xdp},
};
use lb_tests::{MOST_VERIFIED, needs_kernel_program, stack};
use lb_user::datapath::programs;

#[test]
fn every_program_loads_with_room_to_spare() {
    needs_kernel_program!();
    let object = lb_user::datapath::OBJECT;
    let stacks = stack::of_programs(object).expect("an object whose calls can be followed");
    let mut known: Vec<_> = [false, true].into_iter().flat_map(programs::names).collect();
    known.sort();
    assert!(stacks.keys().eq(&known), "programs in the object: {:?}", stacks.keys());
    for frags in [false, true] {
        // Both kinds may not be in one array of programs.
        let mut ebpf = EbpfLoader::new().load(object).expect("an object that aya understands");
        for name in programs::names(frags) {
            let xdp: &mut Xdp =
                ebpf.program_mut(&name).expect("named just now").try_into().expect("an XDP program");
            xdp.load().unwrap_or_else(|error| panic!("the verifier refuses {name}: {error}"));
            let info: ProgramInfo = xdp.info().expect("what the kernel knows of it");
            let verified = info.verified_instruction_count().expect("counted since Linux 5.16");
            let stack = stacks[&name];
            // Written to the stream itself: the test runner hides what a passing test prints.
            let _ = writeln!(
                std::io::stderr(),
                "{name}: {verified} instructions verified, {stack} bytes of stack"
            );
            assert!(verified <= MOST_VERIFIED, "{name}: {verified} instructions were verified");
            assert!(stack <= stack::LIMIT, "{name} needs {stack} bytes of stack");
        }
    }
}
