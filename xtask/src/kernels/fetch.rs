//! Kernels of Debian's cloud images, fetched once with an apt of our own and kept under `target/kernels`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail};

use crate::{setup::apt::Apt, shell};

/// The package that depends on the newest cloud kernel of a suite.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// How packages with parts of a kernel begin; the newest suites have the image and the modules apart.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// What the tests need beyond what is built into these kernels.
const MODULES: [&str; 1] = ["veth"];

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// As `uname -r` says it, e.g. `6.1.0-50-cloud-amd64`.
    pub(super) release: String,
    /// What the boot loader loads.
    pub(super) image: PathBuf,
    /// Modules to load, in this order, not compressed.
    pub(super) modules: Vec<PathBuf>,
}

/// The folder of all kernels.
pub(super) fn folder() -> PathBuf {
    shell::target().join("kernels")
}

/// The kernel of a suite: the one that is there, unless `anew`; else what Debian has now.
pub(super) fn kernel(suite: &str, anew: bool) -> Result<Kernel> {
    let place = folder().join(suite);
    if anew || !place.exists() {
        let work = folder().join("work");
        let fetched = fetch(suite, &work, &place);
        // Only downloads; an error here would hide the one above.
        let _ = fs::remove_dir_all(&work);
        fetched.with_context(|| format!("no kernel of {suite} can be had"))?;
    }
    let release = fs::read_to_string(place.join("release")).context("a kernel without its release")?;
    let modules = MODULES.iter().map(|name| place.join(format!("{name}.ko"))).collect();
    Ok(Kernel { release, image: place.join("vmlinuz"), modules })
}

fn fetch(suite: &str, work: &Path, place: &Path) -> Result<()> {
    let apt = Apt::new(work)?;
    let mut problems = Vec::new();
    for mirror in apt.mirrors() {
        let unpacked = work.join("unpacked");
        let fetched = unpack(&apt, mirror, suite, &unpacked).and_then(|()| pick(&unpacked, place));
        match fetched {
            Ok(()) => return Ok(()),
            Err(error) => problems.push(format!("{error:#}")),
        }
    }
    bail!(problems.join("; "))
}

/// Unpacks all that the newest kernel of a suite consists of.
fn unpack(apt: &Apt, mirror: &str, suite: &str, into: &Path) -> Result<()> {
    eprintln!("kernels: asking for {PACKAGE} of {suite}");
    apt.select(mirror, suite)?;
    let mut packages = vec![PACKAGE.to_owned()];
    let mut at = 0;
    // Grows by what each package depends on, and ends: a name comes in once.
    while let Some(package) = packages.get(at) {
        let table = apt.ask(&["depends", "--important", package])?;
        for part in parts(&table) {
            if !packages.iter().any(|known| known == part) {
                packages.push(part.to_owned());
            }
        }
        at += 1;
    }
    // The first only points to the others.
    packages.iter().skip(1).try_for_each(|package| apt.unpack(package, into))
}

/// In the table of `apt-cache depends`, the packages with parts of a kernel.
fn parts(table: &str) -> impl Iterator<Item = &str> {
    let names = table.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    names.filter(|name| PARTS.iter().any(|part| name.starts_with(part)))
}

/// Takes what is needed out of unpacked packages. The place appears whole or not at all.
fn pick(unpacked: &Path, place: &Path) -> Result<()> {
    let files = files_below(unpacked)?;
    let find = |wanted: &dyn Fn(&str) -> bool| {
        files.iter().find(|file| file.file_name().and_then(|name| name.to_str()).is_some_and(wanted))
    };
    let partial = place.with_extension("partial");
    for leftover in [partial.as_path(), place] {
        if leftover.exists() {
            fs::remove_dir_all(leftover)?;
        }
    }
    fs::create_dir_all(&partial)?;
    let image = find(&|name| name.starts_with("vmlinuz")).context("the package has no kernel image")?;
    fs::copy(image, partial.join("vmlinuz"))?;
    for module in MODULES {
        let plain = format!("{module}.ko");
        let packed = format!("{module}.ko.xz");
        let file = find(&|name| name == plain || name == packed)
            .with_context(|| format!("the package has no module {module}"))?;
        let copy = partial.join(file.file_name().expect("found by its name"));
        fs::copy(file, &copy)?;
        if copy.extension().is_some_and(|extension| extension == "xz") {
            shell::output(shell::command("xz").arg("--decompress").arg(&copy))?;
        }
    }
    let release = files.iter().find_map(|file| release(file)).context("the modules have no folder")?;
    fs::write(partial.join("release"), release)?;
    fs::rename(&partial, place).with_context(|| format!("cannot make {}", place.display()))
}

/// The release, which is the name of the folder that modules lie in: `…/modules/RELEASE/kernel/…`.
fn release(file: &Path) -> Option<String> {
    let words: Vec<_> = file.iter().filter_map(|word| word.to_str()).collect();
    let found = words.windows(3).find(|three| three[0] == "modules" && three[2] == "kernel")?;
    Some(found[1].to_owned())
}

/// All files below a folder; links are left out.
fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let (mut files, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let entry = entry?;
            let kind = entry.file_type()?;
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                files.push(entry.path());
            }
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::{parts, release};

    #[test]
    fn a_kernel_may_come_in_parts() {
        let table = "\
linux-image-7.2.12-cloud-amd64
  PreDepends: linux-base
 |Depends: dracut
  Depends: <linux-initramfs-tool>
    dracut
  Depends: linux-base-7.2.12-cloud-amd64
  Depends: linux-binary-7.2.12-cloud-amd64
  Depends: linux-modules-7.2.12-cloud-amd64
";
        let parts: Vec<_> = parts(table).collect();
        assert_eq!(parts, ["linux-binary-7.2.12-cloud-amd64", "linux-modules-7.2.12-cloud-amd64"]);
    }

    #[test]
    fn the_release_is_where_the_modules_are() {
        let file = "u/usr/lib/modules/6.12.107+deb13-cloud-amd64/kernel/drivers/net/veth.ko.xz";
        assert_eq!(release(Path::new(file)).as_deref(), Some("6.12.107+deb13-cloud-amd64"));
        assert_eq!(release(Path::new("u/boot/vmlinuz-6.1")), None);
    }
}
