//! Takes from the calling thread, and from all that it starts, what serving does not need: whoever gets to run code in a
//! proxy, by a mistake of ours or of a library, finds no files, no other programs, and little of the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use landlock::{
    ABI, Access as _, AccessFs, BitFlags, Ruleset, RulesetAttr as _, RulesetCreatedAttr as _, RulesetStatus,
    Scope, path_beneath_rules,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as ArgLen, SeccompCmpOp as Op, SeccompCondition,
    SeccompFilter, SeccompRule,
};

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

/// Folders in which certificates may be links to files elsewhere.
const FOLDERS_WITH_LINKS: [&str; 5] =
    ["/etc/ssl", "/etc/ssl/certs", "/etc/pki/tls", "/etc/pki/tls/certs", "/usr/lib/ssl"];

/// Links that are followed in a folder: twenty times as many as there are authorities.
const MOST_LINKS: usize = 4_096;

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
    let elsewhere = linked();
    let readable = READABLE.iter().map(Path::new).chain(elsewhere.iter().map(PathBuf::as_path));
    // What an older kernel does not know is left out by the crate.
    let newest = ABI::V6;
    let read: BitFlags<AccessFs> = AccessFs::ReadFile | AccessFs::ReadDir;
    let restricted = Ruleset::default()
        .handle_access(AccessFs::from_all(newest))
        .and_then(|rules| rules.scope(Scope::from_all(newest)))
        .and_then(Ruleset::create)
        .and_then(|rules| rules.add_rules(path_beneath_rules(readable, read)))
        .and_then(landlock::RulesetCreated::restrict_self);
    match restricted {
        Ok(status) if status.ruleset != RulesetStatus::NotEnforced => Ok(()),
        Ok(_) => Err("this kernel has no Landlock, so it may open files".into()),
        Err(error) => Err(format!("it may open files: {error}")),
    }
}

/// Where links lead that lie among the certificates of this host: some systems keep the files themselves elsewhere.
fn linked() -> BTreeSet<PathBuf> {
    let folders = FOLDERS_WITH_LINKS.iter().filter_map(|folder| fs::read_dir(folder).ok());
    let entries = folders.flat_map(|folder| folder.flatten().take(MOST_LINKS));
    let links = entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_symlink()));
    let targets = links.filter_map(|entry| fs::canonicalize(entry.path()).ok());
    // A program that looks for certificates has no use for devices and sockets.
    let files = targets.filter(|path| path.is_file());
    files.filter(|path| !READABLE.iter().any(|folder| path.starts_with(folder))).collect()
}

/// [`FORBIDDEN`] fail with `EPERM`, as do threads in namespaces of their own, and sockets of other kinds than those that
/// serving takes. `clone3` is said not to exist: what it is asked for cannot be seen from here, and the C library then uses
/// `clone`, whose flags can. (See `seccomp(2)`, `SECCOMP_SET_MODE_FILTER`.)
fn calls() -> Result<(), String> {
    let failed = |error: &dyn std::fmt::Display| format!("it may make any system call: {error}");
    let mut rules: BTreeMap<_, _> = FORBIDDEN.iter().map(|&call| (call, Vec::new())).collect();
    let conditions = conditions().map_err(|error| failed(&error))?;
    rules.extend(conditions);
    apply(rules, libc::EPERM).map_err(|error| failed(&error))?;
    apply([(libc::SYS_clone3, Vec::new())].into(), libc::ENOSYS).map_err(|error| failed(&error))
}

/// System calls that are refused with certain arguments only.
fn conditions() -> Result<Vec<(i64, Vec<SeccompRule>)>, seccompiler::Error> {
    // CLONE_NEW* of sched.h: namespaces, that of users above all. CLONE_NEWTIME is not for this call.
    const NAMESPACES: u64 = 0x7e02_0000;
    let any_of = |bit: u64| {
        let one = SeccompCondition::new(0, ArgLen::Qword, Op::MaskedEq(bit), bit)?;
        SeccompRule::new(vec![one])
    };
    let bits = (0..u64::BITS).map(|bit| 1 << bit).filter(|bit| NAMESPACES & bit != 0);
    let clone = bits.map(any_of).collect::<Result<_, _>>()?;
    let kinds = [libc::AF_INET, libc::AF_INET6, libc::AF_UNIX];
    let others =
        kinds.map(|kind| SeccompCondition::new(0, ArgLen::Dword, Op::Ne, u64::from(kind.unsigned_abs())));
    let socket = vec![SeccompRule::new(others.into_iter().collect::<Result<_, _>>()?)?];
    Ok(vec![(libc::SYS_clone, clone), (libc::SYS_socket, socket)])
}

/// Has these calls fail with `error`, in this thread and those it starts.
fn apply(rules: BTreeMap<i64, Vec<SeccompRule>>, error: i32) -> Result<(), seccompiler::Error> {
    let refused = SeccompAction::Errno(error.unsigned_abs());
    let arch = std::env::consts::ARCH.try_into()?;
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, refused, arch)?;
    seccompiler::apply_filter(&BpfProgram::try_from(filter)?)
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
            let netlink = socket2::Socket::new(libc::AF_NETLINK.into(), socket2::Type::RAW, None);
            assert_eq!(netlink.err().and_then(|error| error.raw_os_error()), Some(libc::EPERM));
            thread::spawn(|| File::open("/etc/passwd").is_err()).join().unwrap()
        });
        assert!(confined.join().unwrap(), "threads that it starts are confined as well");
        assert!(File::open("/etc/passwd").is_ok(), "other threads are not");
    }
}
