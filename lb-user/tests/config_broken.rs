//! A table of broken configurations and exactly what is said about each: `tests/broken/*.toml`.
//!
//! The first line of a file says what is wrong with it. What must be reported, all of it and in this order,
//! stands behind the line `# ---- reported`, which the checked text ends before. To write that part anew after
//! a change of wording: `UPDATE_REPORTED=1 cargo test -p lb-user --test config_broken`, then read the diff.

use std::{fs, path::PathBuf};

use lb_user::config::{Severity, check};

const MARK: &str = "# ---- reported\n";

#[test]
fn each_is_reported_with_place_and_remedy() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 40, "only {} cases found", files.len());
    let mut different = Vec::new();
    for file in &files {
        let name = file.file_name().unwrap().to_str().unwrap();
        let whole = fs::read_to_string(file).unwrap();
        let (text, expected) = whole.split_once(MARK).unwrap_or((&whole, ""));
        let lines = match check(name, text) {
            Ok(checked) => checked.warnings,
            Err(wrong) => {
                assert!(wrong.error_count() > 0);
                wrong.into_iter().collect()
            }
        };
        assert!(lines.iter().all(|line| !line.message.contains('\n')), "{name}: {lines:?}");
        let reported: String = lines.iter().map(|line| format!("# {line}\n")).collect();
        if std::env::var_os("UPDATE_REPORTED").is_some() {
            fs::write(file, format!("{text}{MARK}{reported}")).unwrap();
        } else if reported != expected {
            different.push(format!("{name}\n--- reported\n{reported}--- expected\n{expected}"));
        }
    }
    assert!(different.is_empty(), "{}", different.join("\n"));
}

/// The cases named `warning_…`, and only they, are usable.
#[test]
fn only_errors_refuse_a_configuration() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/broken");
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        let whole = fs::read_to_string(&path).unwrap();
        let text = whole.split_once(MARK).unwrap().0;
        match check(name, text) {
            Ok(checked) => {
                assert!(name.starts_with("warning_"), "{name} is accepted");
                assert!(!checked.warnings.is_empty(), "{name} has nothing to say");
                assert!(
                    checked.warnings.iter().all(|warning| warning.severity == Severity::Warning),
                    "{name}"
                );
            }
            Err(_) => assert!(!name.starts_with("warning_"), "{name} is refused"),
        }
    }
}
