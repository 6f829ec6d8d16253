//! Child processes that cannot outlive a test or hang it.

use std::{
    io::{BufRead as _, BufReader, Read},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::{Arc, Mutex},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait;

/// A running program whose output is kept; killed on drop. Its output is printed when the test fails.
#[derive(Debug)]
pub struct Running {
    what: String,
    child: Child,
    log: Arc<Mutex<String>>,
    stdout: Arc<Mutex<String>>,
    readers: Vec<JoinHandle<()>>,
}

impl Running {
    /// Starts `command`; `what` is its name in messages. Both output streams are read into one log.
    ///
    /// # Panics
    /// When it cannot be started.
    #[track_caller]
    #[must_use]
    pub fn start(what: &str, command: &mut Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("start {what}: {error}"));
        let (log, stdout) = (Arc::<Mutex<String>>::default(), Arc::<Mutex<String>>::default());
        let readers = vec![
            keep(child.stdout.take().expect("piped"), vec![Arc::clone(&log), Arc::clone(&stdout)]),
            keep(child.stderr.take().expect("piped"), vec![Arc::clone(&log)]),
        ];
        Self { what: what.to_owned(), child, log, stdout, readers }
    }

    /// Process id. `ip netns exec` replaces itself with the program, so this is the program's own id.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What it has printed to its standard output so far, nothing else in between.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.lock().expect("log").clone()
    }

    /// What it has printed so far, to both streams.
    #[must_use]
    pub fn log(&self) -> String {
        self.log.lock().expect("log").clone()
    }

    /// Exit status, if it has ended.
    ///
    /// # Panics
    /// Never in practice: only when the operating system has lost the child.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("ask for a child's state")
    }

    /// Waits until a line of output contains `text`.
    ///
    /// # Panics
    /// When that does not happen within `limit`, or the program ends before.
    #[track_caller]
    pub fn wait_for_line(&mut self, limit: Duration, text: &str) {
        let what = format!("{} to say {text:?}", self.what);
        wait::until(limit, &what, || match self.exited() {
            _ if self.log().contains(text) => Ok(Ok(())),
            Some(status) => Ok(Err(format!("{} ended with {status}: {}", self.what, self.log()))),
            None => Err(self.log()),
        })
        .unwrap_or_else(|message| panic!("{message}"));
    }

    /// Sends a signal; nothing happens when the program has ended.
    pub fn signal(&mut self, signal: Signal) {
        // A program whose end was noticed has no process id any more; somebody else may have it.
        if self.exited().is_none()
            && let Some(pid) = i32::try_from(self.id()).ok().and_then(Pid::from_raw)
        {
            let _ = kill_process(pid, signal);
        }
    }

    /// Waits for the end; gives status and everything printed.
    ///
    /// # Panics
    /// When it has not ended within `limit`.
    #[track_caller]
    pub fn wait(&mut self, limit: Duration) -> (ExitStatus, String) {
        let what = format!("{} to end", self.what);
        let status = wait::until(limit, &what, || self.exited().ok_or_else(|| self.log()));
        // What it has started may go on, and keep its streams open: then there is no end to wait for.
        let until = Instant::now() + Duration::from_millis(500);
        while self.readers.iter().any(|reader| !reader.is_finished()) && Instant::now() < until {
            thread::sleep(Duration::from_millis(5));
        }
        (status, self.log())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already ended is fine; the status was taken or nobody wants it.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- output of {} ---\n{}--- end of output ---", self.what, self.log());
        }
    }
}

/// Runs a short command to its end.
///
/// # Panics
/// When it cannot be started or takes longer than `limit`.
#[track_caller]
pub fn output(what: &str, command: &mut Command, limit: Duration) -> Output {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("start {what}: {error}"));
    let stdout = gather(child.stdout.take().expect("piped"));
    let stderr = gather(child.stderr.take().expect("piped"));
    let mut child = KillOnDrop(child);
    let status = wait::until(limit, &format!("{what} to end"), || {
        child.0.try_wait().expect("ask for a child's state").ok_or_else(|| "still running".to_owned())
    });
    let stdout = stdout.join().unwrap_or_default();
    let stderr = stderr.join().unwrap_or_default();
    Output { status, stdout, stderr }
}

struct KillOnDrop(Child);

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn gather(mut stream: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        bytes
    })
}

fn keep(stream: impl Read + Send + 'static, logs: Vec<Arc<Mutex<String>>>) -> JoinHandle<()> {
    thread::spawn(move || {
        let mut lines = BufReader::new(stream);
        let mut line = Vec::new();
        while lines.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
            for log in &logs {
                log.lock().expect("log").push_str(&String::from_utf8_lossy(&line));
            }
            line.clear();
        }
    })
}
