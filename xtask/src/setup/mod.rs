//! The tools this repository needs: which, why, and how they come to be here.
//!
//! Looking costs milliseconds, so most commands do it first. What is there is left alone; what is missing is
//! installed; what cannot be installed is named together with what it is needed for. Nothing is replaced
//! except a `bpf-linker` of a version that does not fit the compiler.

pub(crate) mod apt;
mod debian;
mod rust_source;

use std::{env, path::PathBuf, process::Command};

use anyhow::{Context as _, Result, bail};

use crate::shell;

/// What a tool is needed for. A command sets up its own purposes only: a demonstration need not wait for a
/// licence checker to be compiled.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Building the kernel program.
    Build,
    /// Network namespaces with real traffic.
    Network,
    /// Comparing the balancer with others.
    Compare,
    /// Measuring `l7-proxy`.
    Proxy,
    /// Playing scenarios with `l7-proxy` on the wire.
    Wire,
    /// Fuzzing.
    Fuzz,
    /// `cargo xtask check`.
    Check,
    /// `cargo xtask verify --kernels`.
    Kernels,
}

/// Something that must be there.
struct Tool {
    /// The program, or what else it is.
    name: &'static str,
    purpose: Purpose,
    /// Why, as the end of "needed to …".
    reason: &'static str,
    source: Source,
}

/// Where a tool comes from, and so how to see whether it is there.
enum Source {
    /// The source text of the standard library, of exactly the compiler's version.
    Library,
    /// A component of the Rust toolchain.
    Component(&'static str),
    /// `cargo install` of this version; where `exact`, no other version will do.
    Crate { version: &'static str, exact: bool },
    /// A package of Debian and its relatives.
    Package(&'static str),
    /// Such a package, with a module for Debian's Python.
    Python(&'static str),
}

/// The one list of tools.
const TOOLS: [Tool; 23] = [
    Tool {
        name: "rust-src",
        purpose: Purpose::Build,
        reason: "compile the core library for the kernel",
        source: Source::Library,
    },
    Tool {
        name: "bpf-linker",
        purpose: Purpose::Build,
        reason: "link the kernel program",
        // The last one that uses the LLVM of the pinned compiler; later ones want a newer LLVM of the system.
        source: Source::Crate { version: "0.10.3", exact: true },
    },
    Tool {
        name: "ip",
        purpose: Purpose::Network,
        reason: "make network namespaces and links",
        source: Source::Package("iproute2"),
    },
    Tool {
        name: "ethtool",
        purpose: Purpose::Network,
        reason: "switch checksum offload off on the links of tests",
        source: Source::Package("ethtool"),
    },
    Tool {
        name: "tcpdump",
        purpose: Purpose::Network,
        reason: "capture what arrives at servers",
        source: Source::Package("tcpdump"),
    },
    Tool {
        name: "openssl",
        purpose: Purpose::Network,
        reason: "have a TLS server and client that pass through the balancer",
        source: Source::Package("openssl"),
    },
    // Packages of programs alone: those with "server" in front would start a service on this machine.
    Tool {
        name: "redis-check-rdb",
        purpose: Purpose::Network,
        reason: "have Redis behind the balancer; it is redis-server under another name",
        source: Source::Package("redis-tools"),
    },
    Tool {
        name: "mariadbd",
        purpose: Purpose::Network,
        reason: "have MariaDB behind the balancer",
        source: Source::Package("mariadb-server-core"),
    },
    Tool {
        name: "mariadb",
        purpose: Purpose::Network,
        reason: "ask MariaDB through the balancer",
        source: Source::Package("mariadb-client-core"),
    },
    Tool {
        name: "curl",
        purpose: Purpose::Network,
        reason: "ask web sites behind the balancer as people do",
        source: Source::Package("curl"),
    },
    Tool {
        name: "websockets",
        purpose: Purpose::Network,
        reason: "have WebSockets through the balancer that are as strict as those of browsers",
        source: Source::Python("python3-websockets"),
    },
    Tool {
        name: "haproxy",
        purpose: Purpose::Compare,
        reason: "measure this balancer against it",
        source: Source::Package("haproxy"),
    },
    Tool {
        name: "nft",
        purpose: Purpose::Compare,
        reason: "measure this balancer against the kernel's own translation",
        source: Source::Package("nftables"),
    },
    Tool {
        name: "h2load",
        purpose: Purpose::Network,
        reason: "have many clients of the proxy",
        source: Source::Package("nghttp2-client"),
    },
    Tool {
        name: "valgrind",
        purpose: Purpose::Proxy,
        reason: "count the instructions that a request takes",
        source: Source::Package("valgrind"),
    },
    Tool {
        name: "varnishtest",
        purpose: Purpose::Wire,
        reason: "play clients and servers of the proxy",
        source: Source::Package("varnish"),
    },
    Tool { name: "c++", purpose: Purpose::Fuzz, reason: "compile libFuzzer", source: Source::Package("g++") },
    Tool {
        name: "cargo-fuzz",
        purpose: Purpose::Fuzz,
        reason: "run the fuzz targets",
        source: Source::Crate { version: "0.13.2", exact: false },
    },
    Tool {
        name: "cargo-fmt",
        purpose: Purpose::Check,
        reason: "check the formatting",
        source: Source::Component("rustfmt"),
    },
    Tool {
        name: "cargo-clippy",
        purpose: Purpose::Check,
        reason: "lint",
        source: Source::Component("clippy"),
    },
    Tool {
        name: "cargo-deny",
        purpose: Purpose::Check,
        reason: "check licences, sources and weaknesses of dependencies",
        source: Source::Crate { version: "0.20.2", exact: false },
    },
    Tool {
        name: "qemu-system-x86_64",
        purpose: Purpose::Kernels,
        reason: "boot other kernels",
        source: Source::Package("qemu-system-x86"),
    },
    Tool {
        name: "xz",
        purpose: Purpose::Kernels,
        reason: "unpack modules of other kernels",
        source: Source::Package("xz-utils"),
    },
];

/// Debian's Python: another that comes first in `PATH` has not its modules.
const PYTHON: &str = "/usr/bin/python3";

/// What was found of a tool.
enum Found {
    /// It will do; with a remark, if there is one to make.
    Yes(String),
    /// It is missing, or will not do; with a remark, if there is one to make.
    No(String),
}

/// Sets everything up and tells about every tool: `cargo xtask setup`.
pub(crate) fn report() -> Result<()> {
    ensure_all(&TOOLS.iter().collect::<Vec<_>>(), true)
}

/// Sets up what these purposes need; silent when all is there.
pub(crate) fn ensure(purposes: &[Purpose]) -> Result<()> {
    let tools: Vec<_> = TOOLS.iter().filter(|tool| purposes.contains(&tool.purpose)).collect();
    ensure_all(&tools, false)
}

fn ensure_all(tools: &[&Tool], tell_all: bool) -> Result<()> {
    let mut missing = Vec::new();
    for tool in tools {
        match tool.find()? {
            Found::Yes(remark) if tell_all => eprintln!("setup: {} is there{remark}", tool.name),
            Found::Yes(_) => {}
            Found::No(remark) => {
                eprintln!("setup: {} is missing{remark}; needed to {}", tool.name, tool.reason);
                missing.push(*tool);
            }
        }
    }
    let mut problems = install_packages(&missing).err().into_iter().collect::<Vec<_>>();
    for tool in &missing {
        problems.extend(tool.install().err());
    }
    let failed: Vec<_> = missing.iter().filter(|tool| !matches!(tool.find(), Ok(Found::Yes(_)))).collect();
    if failed.is_empty() {
        return Ok(());
    }
    for problem in problems {
        eprintln!("setup: {problem:#}");
    }
    for tool in &failed {
        eprintln!("setup: still missing: {}, needed to {}; {}", tool.name, tool.reason, tool.advice());
    }
    let names: Vec<_> = failed.iter().map(|tool| tool.name).collect();
    bail!("setup could not provide {}; `--no-setup` goes on without", names.join(", "))
}

impl Tool {
    fn find(&self) -> Result<Found> {
        let found = |is_there| if is_there { Found::Yes(String::new()) } else { Found::No(String::new()) };
        Ok(match self.source {
            Source::Library => found(rust_source::is_there(&sysroot()?)),
            // Beside the compiler: what rustup puts into `PATH` is there even where the component is not.
            Source::Component(_) => found(sysroot()?.join("bin").join(self.name).is_file()),
            Source::Package(_) => found(shell::find(self.name).is_some()),
            Source::Python(_) => {
                let look = format!("import {}", self.name);
                found(shell::output(shell::command(PYTHON).args(["-c", &look])).is_ok())
            }
            Source::Crate { version, exact } => match self.version() {
                None => Found::No(String::new()),
                Some(own) if own == version => Found::Yes(format!(" ({own})")),
                Some(own) if exact => Found::No(format!(" ({own} is there, but only {version} fits)")),
                Some(own) => Found::Yes(format!(" ({own}; this repository is tried with {version})")),
            },
        })
    }

    /// What the program says its version is, e.g. `0.10.3`.
    fn version(&self) -> Option<String> {
        let said = shell::output(shell::command(shell::find(self.name)?).arg("--version")).ok()?;
        said.split_whitespace().nth(1).map(str::to_owned)
    }

    /// Installs anything but packages, which are installed together.
    fn install(&self) -> Result<()> {
        match self.source {
            Source::Library => rust_source::install(&sysroot()?),
            Source::Component(component) => add_component(component),
            Source::Package(_) | Source::Python(_) => Ok(()),
            Source::Crate { version, .. } => {
                eprintln!("setup: compiling {} {version}, a matter of minutes", self.name);
                // Forced, because a program that does not fit may be in the way.
                let arguments = ["install", self.name, "--version", version, "--locked", "--force"];
                shell::run(&mut shell::cargo(arguments))
            }
        }
    }

    /// What a person can do about a tool that could not be installed.
    fn advice(&self) -> String {
        match self.source {
            Source::Library => {
                "put Rust's `library` folder into lib/rustlib/src/rust of the toolchain".into()
            }
            Source::Component(component) => format!("try `rustup component add {component}`"),
            Source::Package(package) | Source::Python(package) => {
                format!("install the package that has it ({package} in Debian)")
            }
            Source::Crate { version, .. } => {
                format!("try `cargo install {} --version {version} --locked`", self.name)
            }
        }
    }
}

/// Installs the packages among the missing tools in one go.
fn install_packages(missing: &[&Tool]) -> Result<()> {
    let packages: Vec<_> = missing
        .iter()
        .filter_map(|tool| match tool.source {
            Source::Package(package) | Source::Python(package) => Some(package),
            _ => None,
        })
        .collect();
    if packages.is_empty() {
        return Ok(());
    }
    let Some(apt) = shell::find("apt-get") else {
        bail!("there is no apt-get here, and of package managers only that one is understood");
    };
    eprintln!("setup: installing with apt: {}", packages.join(", "));
    let apt = |arguments: &[&str]| -> Result<()> {
        // Nothing is started that comes with a package: only the programs are wanted.
        let variables = [("DEBIAN_FRONTEND", "noninteractive"), ("SYSTEMD_OFFLINE", "1")];
        let names = variables.map(|(name, _)| name);
        let mut command =
            shell::root_command(apt.as_os_str(), &names).context("packages cannot be installed")?;
        // dpkg tells much; it matters only if something fails.
        shell::output(command.envs(variables).args(arguments)).map(drop)
    };
    // A list of packages that is somewhat old may still do.
    if let Err(error) = apt(&["update", "--quiet=2"]) {
        eprintln!("setup: {error:#}");
    }
    let mut arguments = vec!["install", "--quiet=2", "--yes", "--no-install-recommends"];
    arguments.extend(&packages);
    apt(&arguments)
}

/// Adds a component to the toolchain in use.
fn add_component(component: &str) -> Result<()> {
    let Some(rustup) = shell::find("rustup") else { bail!("there is no rustup to fetch {component} with") };
    let mut command = shell::command(rustup);
    command.args(["component", "add", component]);
    if let Some(toolchain) = env::var_os("RUSTUP_TOOLCHAIN") {
        command.arg("--toolchain").arg(toolchain);
    }
    shell::run(&mut command)
}

/// The folder of the Rust toolchain in use.
fn sysroot() -> Result<PathBuf> {
    Ok(shell::output(rustc().args(["--print", "sysroot"]))?.trim_end().into())
}

/// The compiler in use.
fn rustc() -> Command {
    shell::command("rustc")
}
