//! Starts l7-proxy: as a user without privileges, in a process group of its own.

use std::{
    fs::{self, File, Permissions},
    io,
    os::{
        fd::{AsRawFd as _, OwnedFd},
        unix::{
            fs::{FileExt as _, MetadataExt as _, PermissionsExt as _},
            net::UnixListener,
            process::CommandExt as _,
        },
    },
    path::Path,
    process::{Child, Command, Stdio},
};

use super::Options;

/// What the proxy is to log; all that it gets of the environment.
const LOG: &str = "L7_PROXY_LOG";

/// Names that the proxy runs as where no user is named, of which the first that this host has is taken.
const USUAL_USERS: [&str; 2] = ["l7-proxy", "nobody"];

/// Starts the program, which then waits to be told what to serve; with so many threads, or as it likes.
///
/// # Errors
/// What keeps it from being started, in words.
pub(super) fn start(options: &Options, workers: Option<usize>) -> Result<Child, String> {
    let program = options.program.as_deref().ok_or_else(missing)?;
    let shown = program.display();
    // Who only checks a configuration may be anybody.
    let other = if nix::unistd::geteuid().is_root() { Some(user(&options.user)?) } else { None };
    let control = control(&options.socket)
        .map_err(|error| format!("cannot listen on {}: {error}", options.socket.display()))?;
    // Opened here: the user it runs as may not be allowed into the folder where it lies.
    let opened = File::open(program).map_err(|error| format!("cannot open {shown}: {error}"))?;
    if is_script(&opened) {
        return Err(format!(
            "{shown} is a script, whose interpreter could not open it; name the program that it starts"
        ));
    }
    let mut command = Command::new(format!("/proc/self/fd/{}", opened.as_raw_fd()));
    command.arg0("l7-proxy").arg("--control").stdin(Stdio::from(OwnedFd::from(control)));
    command.args(workers.map(|workers| format!("--workers={workers}")));
    // Ctrl-C is for lb-user, which has the proxy end in good time.
    command.env_clear().envs(std::env::var_os(LOG).map(|filter| (LOG, filter)));
    command.process_group(0).current_dir("/");
    if let Some((uid, gid)) = other {
        command.uid(uid).gid(gid);
    }
    command.spawn().map_err(|error| match other {
        Some((uid, _)) => format!("cannot start {shown} as the user with number {uid}: {error}"),
        None => format!("cannot start {shown}: {error}"),
    })
}

/// Whether the kernel would start an interpreter: which would be told a file that is closed by then.
fn is_script(file: &File) -> bool {
    let mut begin = [0; 2];
    file.read_exact_at(&mut begin, 0).is_ok() && begin == *b"#!"
}

/// Why there is no proxy to start.
pub(super) fn missing() -> String {
    "modes http and tcp need l7-proxy, and there is none beside lb-user nor where programs usually are; install it, or \
     name it with --l7-proxy"
        .into()
}

/// The socket by which the proxy is spoken to; of root alone.
fn control(path: &Path) -> io::Result<UnixListener> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Numbers of a user and of their group.
fn user(name: &str) -> Result<(u32, u32), String> {
    let of_name = |name: &str| nix::unistd::User::from_name(name).ok().flatten();
    let found = match name.parse::<u32>() {
        Ok(number) => nix::unistd::User::from_uid(number.into()).ok().flatten(),
        Err(_) if name.is_empty() => USUAL_USERS.into_iter().find_map(of_name),
        Err(_) => of_name(name),
    };
    match (found, name.parse()) {
        (Some(user), _) if user.uid.is_root() => {
            Err("l7-proxy is not run as root; name another user with --l7-user".into())
        }
        (Some(user), _) => Ok((user.uid.as_raw(), user.gid.as_raw())),
        (None, Ok(number)) if number != 0 => Ok((number, number)),
        _ => Err(format!("there is no user {name:?} for l7-proxy; make one, or name another with --l7-user")),
    }
}

/// Whether the program with this device and inode is the one that lies at `path`.
pub(super) fn lies_at(program: Option<(u64, u64)>, path: &Path) -> bool {
    let lies = fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
    // Where either is not known, nothing better is known to be there.
    lies.zip(program).is_none_or(|(lies, runs)| lies == runs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proxy_is_nobody_and_never_root() {
        assert!(user("").is_ok_and(|(uid, _)| uid != 0));
        assert!(user("nobody").is_ok());
        assert_eq!(user("54321"), Ok((54321, 54321)));
        for wrong in ["root", "0", "no such user"] {
            assert!(user(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_script_is_no_program() {
        let mut file = tempfile::tempfile().unwrap();
        assert!(!is_script(&file), "an empty file is refused by the kernel");
        io::Write::write_all(&mut file, b"#!/bin/sh\n").unwrap();
        assert!(is_script(&file) && !is_script(&File::open("/proc/self/exe").unwrap()));
    }

    #[test]
    fn a_program_is_known_by_its_file() {
        let file = |path: &str| fs::metadata(path).ok().map(|file| (file.dev(), file.ino()));
        assert!(lies_at(file("/bin/sh"), Path::new("/bin/sh")));
        assert!(!lies_at(file("/bin/sh"), Path::new("/bin/cat")));
        assert!(lies_at(file("/bin/sh"), Path::new("/nowhere")) && lies_at(None, Path::new("/bin/sh")));
    }
}
