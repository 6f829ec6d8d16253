//! What the verifier makes of the program. Its numbers are those of the running kernel; others count otherwise,
//! hence the distance to the limits.

use std::io::Write as _;

use aya::{
    EbpfLoader,
    programs::{Program, ProgramInfo},
};
use lb_tests::{needs_kernel_program, stack};

/// The kernel gives up at a million; older ones see less, and take more steps.
const MOST_VERIFIED: u32 = 200_000;

#[test]
fn every_program_loads_with_room_to_spare() {
    needs_kernel_program!();
    let object = lb_user::datapath::OBJECT;
    let stacks = stack::of_programs(object).expect("an object whose calls can be followed");
    let mut ebpf = EbpfLoader::new().load(object).expect("an object that aya understands");
    let mut programs = Vec::new();
    for (name, program) in ebpf.programs_mut() {
        let Program::Xdp(xdp) = program else { panic!("{name} is no XDP program") };
        xdp.load().unwrap_or_else(|error| panic!("the verifier refuses {name}: {error}"));
        let info: ProgramInfo = xdp.info().expect("what the kernel knows of it");
        let verified = info.verified_instruction_count().expect("counted since Linux 5.16");
        let stack = stacks[name];
        // Written to the stream itself: the test runner hides what a passing test prints.
        let _ =
            writeln!(std::io::stderr(), "{name}: {verified} instructions verified, {stack} bytes of stack");
        assert!(verified < MOST_VERIFIED, "{name}: {verified} instructions were verified");
        assert!(stack <= stack::LIMIT, "{name} needs {stack} bytes of stack");
        programs.push(name.to_owned());
    }
    assert_eq!(programs, [lb_user::datapath::load::PROGRAM]);
}
