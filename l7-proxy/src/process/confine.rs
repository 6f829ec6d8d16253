//! Takes from the calling thread, and from all that it starts, what serving does not need: whoever gets to run code in a
//! proxy, by a mistake of ours or of a library, finds no files, no other programs, and little of the kernel.

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    Scope, path_beneath_rules,
};
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter};

/// What is still read: certificates that this host trusts; how many processors, files and how much memory it may use.
const READABLE: [&str; 9] = [
    "/etc/ssl",
    "/etc/pki",
    "/etc/ca-certificates",
    "/usr/lib/ssl",
    "/usr/share/ca-certificates",
    "/usr/local/share/ca-certificates",
    "/var/lib/ca-certificates",
    "/sys/fs/cgroup",
    "/proc/self",
];

/// System calls that nothing here makes, and that are of use to an intruder: other programs and processes, mounts,
/// and parts of the kernel in which there often is something to break.
const FORBIDDEN: [i64; 37] = [
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_fsopen,
    libc::SYS_fsmount,
    libc::SYS_fsconfig,
    libc::SYS_fspick,
    libc::SYS_move_mount,
    libc::SYS_mount_setattr,
    libc::SYS_open_tree,
    libc::SYS_open_by_handle_at,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_quotactl,
    libc::SYS_acct,
    libc::SYS_personality,
];

/// Confines the calling thread and those that it starts from now on; there is no way back. To be called before others are
/// started.
///
/// # Errors
/// What this kernel cannot, in words. The rest is done all the same.
pub fn confine() -> Result<(), String> {
    let done = [files(), calls()];
    let problems: Vec<_> = done.into_iter().filter_map(Result::err).collect();
    if problems.is_empty() { Ok(()) } else { Err(problems.join("; ")) }
}

/// No file is opened any more but to read those in [`READABLE`]; nobody outside is sent a signal. (Landlock: see
/// `landlock(7)`. What is open already stays so.)
fn files() -> Result<(), String> {
    // What an older kernel does not know is left out by the crate.
    let newest = ABI::V6;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))
        .and_then(|rules| rules.scope(Scope::from_all(newest)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(READABLE, read)))
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(()),
        Ok(_) => Err("this kernel has no Landlock, so it may open files".into()),
        Err(error) => Err(format!("it may open files: {error}")),
    }
}

/// [`FORBIDDEN`] fail with `EPERM`. (See `seccomp(2)`, `SECCOMP_SET_MODE_FILTER`.)
fn calls() -> Result<(), String> {
    let refused = SeccompAction::Errno(libc::EPERM.unsigned_abs());
    let rules = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let program = std::env::consts::ARCH
        .try_into()
        .and_then(|arch| SeccompFilter::new(rules, SeccompAction::Allow, refused, arch))
        .and_then(BpfProgram::try_from)
        .map_err(|error| format!("it may make any system call: {error}"))?;
    seccompiler::apply_filter(&program).map_err(|error| format!("it may make any system call: {error}"))
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::ErrorKind::PermissionDenied, net::TcpListener, process::Command, thread};

    use super::*;

    /// Confines a thread, not the process that runs the other tests.
    #[test]
    fn files_and_programs_are_out_of_reach_and_sockets_are_not() {
        let confined = thread::spawn(|| {
            confine().unwrap();
            let read = File::open("/etc/passwd").map_err(|error| error.kind());
            let write = File::create("/tmp/l7-proxy-was-here").map_err(|error| error.kind());
            let program = Command::new("/bin/true").spawn().map_err(|error| error.kind());
            assert!(matches!(read, Err(PermissionDenied)), "{read:?}");
            assert!(matches!(write, Err(PermissionDenied)), "{write:?}");
            assert!(matches!(program, Err(PermissionDenied)), "{program:?}");
            let program = Command::new("/bin/true").spawn().map_err(|error| error.raw_os_error());
            assert_eq!(
                program.map(|_| ()),
                Err(Some(libc::EPERM)),
                "by seccomp, and not by Landlock (EACCES)"
            );
            TcpListener::bind("127.0.0.1:0").unwrap();
            thread::spawn(|| File::open("/etc/passwd").is_err()).join().unwrap()
        });
        assert!(confined.join().unwrap(), "threads that it starts are confined as well");
        assert!(File::open("/etc/passwd").is_ok(), "other threads are not");
    }
}
