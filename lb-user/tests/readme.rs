//! The configuration that README.md shows is one that `lb-user` takes.

use std::{fs, path::Path, process::Command};

#[test]
fn the_configuration_in_the_readme_is_valid() {
    let readme =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("README.md")).unwrap();
    let (_, rest) = readme.split_once("```toml\n").expect("README.md shows a configuration");
    let (text, _) = rest.split_once("```").expect("the block ends");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("lb.toml");
    fs::write(&file, text).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_lb-user"))
        .args(["--check", "--elsewhere"])
        .arg("--config")
        .arg(&file)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
