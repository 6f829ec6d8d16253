//! The Unix socket's file: made so that nobody else can ever connect, replaced only when nobody answers,
//! removed at the end only if it is still ours.

use std::{
    fmt,
    fs::{self, DirBuilder, File, Permissions, TryLockError},
    io::{self, ErrorKind},
    os::unix::{
        fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::SocketAddr,
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use tokio::{
    net::{UnixListener, UnixStream},
    time::sleep,
};

/// How long to wait for another lb-user that is making its socket in the same folder.
const LOCK_PATIENCE: Duration = Duration::from_secs(2);

/// Why there is no socket.
#[derive(Debug)]
pub enum Error {
    /// Somebody answers on it.
    Taken(PathBuf),
    /// There is something else at its path.
    NotASocket(PathBuf),
    /// The system refused.
    Io {
        /// What was attempted, e.g. `create the folder`.
        attempt: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(path) => {
                write!(f, "another lb-user answers on {}; give this one its own --socket", path.display())
            }
            Self::NotASocket(path) => {
                write!(f, "{} exists and is not a socket; choose another --socket", path.display())
            }
            Self::Io { attempt, path, cause } => {
                write!(f, "admin socket: cannot {attempt} {}: {cause}", path.display())
            }
        }
    }
}

impl std::error::Error for Error {}

/// The listening socket. Dropping it removes its file.
#[derive(Debug)]
pub struct Socket {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file.
    identity: (u64, u64),
    owner: u32,
    /// The folder, if this socket made it.
    folder: Option<PathBuf>,
}

impl Socket {
    /// Makes the socket, with mode 0600, and its folder (0755) where missing.
    ///
    /// # Errors
    /// When somebody answers there already, when something else is in the way or the system refuses.
    pub async fn bind(path: &Path) -> Result<Self, Error> {
        let folder = match path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            _ => Path::new("."),
        };
        let failed = |attempt, path: &Path| {
            let path = path.to_owned();
            move |cause| Error::Io { attempt, path, cause }
        };
        // Moving a socket to a path that is too long to connect to would succeed.
        SocketAddr::from_pathname(path).map_err(failed("use", path))?;
        let made = make_folder(folder).map_err(failed("create the folder", folder))?;
        // Held to the end of this function: of two that start together one sees the other's socket.
        let _lock = lock(folder).await.map_err(failed("lock the folder", folder))?;
        check_free(path).await?;

        // No mask and no later chmod protects a socket between its birth and the chmod. A folder that
        // only we can enter does; the finished socket is then moved to its place in one step.
        let nursery = folder.join(".lb-user-new");
        let listener = bind_in(&nursery, path).map_err(failed("make", path));
        let swept = fs::remove_dir_all(&nursery).map_err(failed("remove", &nursery));
        let (listener, metadata) = listener?;
        let socket = Self {
            listener,
            path: path.to_owned(),
            identity: (metadata.dev(), metadata.ino()),
            owner: metadata.uid(),
            folder: made.then(|| folder.to_owned()),
        };
        swept.map(|()| socket)
    }

    /// The user who owns the socket: the one this process runs as.
    #[must_use]
    pub fn owner(&self) -> u32 {
        self.owner
    }

    pub(super) async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = |metadata: fs::Metadata| (metadata.dev(), metadata.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // Nobody is left to be told; the next lb-user replaces what cannot be removed.
            let _ = fs::remove_file(&self.path);
        }
        if let Some(folder) = &self.folder {
            // Fails, as it should, when somebody else has put something there.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// Makes the folder unless it is there; says whether it did.
fn make_folder(folder: &Path) -> io::Result<bool> {
    if folder.is_dir() {
        return Ok(false);
    }
    if let Some(parent) = folder.parent() {
        fs::create_dir_all(parent)?;
    }
    match DirBuilder::new().mode(0o755).create(folder) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && folder.is_dir() => Ok(false),
        Err(error) => Err(error),
    }
}

async fn lock(folder: &Path) -> io::Result<File> {
    let file = File::open(folder)?;
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::Error(error)) => return Err(error),
            Err(TryLockError::WouldBlock) if Instant::now() >= deadline => {
                return Err(io::Error::other("somebody else holds a lock on it"));
            }
            Err(TryLockError::WouldBlock) => sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Whether the path is free or holds a socket that nobody listens on.
///
/// # Errors
/// When somebody answers there, something else is in the way or the system refuses.
pub async fn check_free(path: &Path) -> Result<(), Error> {
    match fs::symlink_metadata(path) {
        Ok(metadata) if !metadata.file_type().is_socket() => return Err(Error::NotASocket(path.to_owned())),
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(cause) => return Err(Error::Io { attempt: "look at", path: path.to_owned(), cause }),
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(Error::Taken(path.to_owned())),
        // Its queue of connections is full: hung, but there.
        Err(error) if error.kind() == ErrorKind::WouldBlock => Err(Error::Taken(path.to_owned())),
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionRefused | ErrorKind::NotFound) => Ok(()),
        Err(cause) => Err(Error::Io { attempt: "try", path: path.to_owned(), cause }),
    }
}

/// Removes what one that was killed has left; tells whether there was anything.
///
/// # Errors
/// When somebody answers there, something else is in the way or the system refuses.
pub async fn remove_left(path: &Path) -> Result<bool, Error> {
    check_free(path).await?;
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(cause) => Err(Error::Io { attempt: "remove", path: path.to_owned(), cause }),
    }
}

/// Binds inside a folder of mode 0700, sets the mode and moves the socket to `path`.
fn bind_in(nursery: &Path, path: &Path) -> io::Result<(UnixListener, fs::Metadata)> {
    // One that was killed half-way may have left it; the lock says it is not in use.
    if nursery.exists() {
        fs::remove_dir_all(nursery)?;
    }
    DirBuilder::new().mode(0o700).create(nursery)?;
    let newborn = nursery.join("s");
    let listener = UnixListener::bind(&newborn)?;
    fs::set_permissions(&newborn, Permissions::from_mode(0o600))?;
    fs::rename(&newborn, path)?;
    Ok((listener, fs::symlink_metadata(path)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A path in a folder of its own, which is removed with the first value.
    fn place() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("lb/admin.sock");
        (folder, path)
    }

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    #[tokio::test]
    async fn the_socket_is_private_and_goes_away_with_its_folder() {
        let (folder, path) = place();
        let socket = Socket::bind(&path).await.unwrap();
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()) & 0o022, 0, "nobody else may write there");
        let names: Vec<_> = fs::read_dir(path.parent().unwrap()).unwrap().map(Result::unwrap).collect();
        assert_eq!(names.len(), 1, "nothing else is left in the folder: {names:?}");
        UnixStream::connect(&path).await.unwrap();
        drop(socket);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn only_what_nobody_answers_on_is_removed() {
        let (folder, path) = place();
        assert!(!remove_left(&path).await.unwrap());
        let socket = Socket::bind(&path).await.unwrap();
        assert!(matches!(remove_left(&path).await, Err(Error::Taken(_))));
        let left = folder.path().join("left");
        drop(UnixListener::bind(&left).unwrap());
        assert!(remove_left(&left).await.unwrap() && !left.exists());
        let file = folder.path().join("file");
        fs::write(&file, "").unwrap();
        assert!(matches!(remove_left(&file).await, Err(Error::NotASocket(_))));
        drop(socket);
    }

    #[tokio::test]
    async fn a_folder_that_was_there_stays() {
        let (_folder, path) = place();
        fs::create_dir(path.parent().unwrap()).unwrap();
        drop(Socket::bind(&path).await.unwrap());
        assert!(!path.exists());
        assert!(path.parent().unwrap().exists());
    }

    #[tokio::test]
    async fn a_socket_that_nobody_listens_on_is_replaced() {
        let (_folder, path) = place();
        fs::create_dir(path.parent().unwrap()).unwrap();
        // Dropping a listener leaves its file, as a killed process does.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let _socket = Socket::bind(&path).await.unwrap();
        UnixStream::connect(&path).await.expect("the new one answers");
        assert_eq!(mode(&path), 0o600);
    }

    #[tokio::test]
    async fn a_living_socket_is_left_alone() {
        let (_folder, path) = place();
        let _first = Socket::bind(&path).await.unwrap();
        let inode = fs::metadata(&path).unwrap().ino();
        let error = Socket::bind(&path).await.unwrap_err().to_string();
        assert!(error.starts_with(&format!("another lb-user answers on {}", path.display())), "{error}");
        assert_eq!(fs::metadata(&path).unwrap().ino(), inode);
    }

    #[tokio::test]
    async fn a_living_socket_with_a_full_queue_is_left_alone_too() {
        let (_folder, path) = place();
        let _first = Socket::bind(&path).await.unwrap();
        let mut waiting = Vec::new();
        while let Ok(stream) = UnixStream::connect(&path).await {
            waiting.push(stream);
            assert!(waiting.len() < 100_000, "the queue is never full");
        }
        assert!(matches!(Socket::bind(&path).await, Err(Error::Taken(_))));
    }

    #[tokio::test]
    async fn other_files_are_not_overwritten() {
        let (_folder, path) = place();
        fs::create_dir(path.parent().unwrap()).unwrap();
        fs::write(&path, "precious").unwrap();
        assert!(matches!(Socket::bind(&path).await, Err(Error::NotASocket(_))));
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[tokio::test]
    async fn the_socket_of_a_successor_is_not_removed() {
        let (_folder, path) = place();
        let first = Socket::bind(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Socket::bind(&path).await.unwrap();
        drop(first);
        UnixStream::connect(&path).await.expect("the second still answers");
    }

    #[tokio::test]
    async fn of_two_that_start_together_one_gives_way() {
        for _ in 0..20 {
            let (_folder, path) = place();
            let (first, second) = tokio::join!(Socket::bind(&path), Socket::bind(&path));
            assert_eq!(u32::from(first.is_ok()) + u32::from(second.is_ok()), 1);
        }
    }

    #[tokio::test]
    async fn refusals_of_the_system_name_the_path() {
        let error = Socket::bind(Path::new("/proc/lb/admin.sock")).await.unwrap_err().to_string();
        assert!(error.starts_with("admin socket: cannot create the folder /proc/lb: "), "{error}");
        let (folder, _) = place();
        let long = folder.path().join("x".repeat(200));
        assert!(Socket::bind(&long).await.is_err(), "nobody could connect to so long a path");
    }

    #[tokio::test]
    async fn leftovers_of_one_that_was_killed_do_not_matter() {
        let (_folder, path) = place();
        let nursery = path.parent().unwrap().join(".lb-user-new");
        fs::create_dir_all(&nursery).unwrap();
        fs::write(nursery.join("s"), "").unwrap();
        let _socket = Socket::bind(&path).await.unwrap();
        assert!(!nursery.exists());
    }
}
