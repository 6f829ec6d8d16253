//! `lbctl explain`: what a key of the configuration file means. Needs no lb-user.

use clap::Args;

use super::{
    client::Failure,
    output::print,
    table::{Align::Left, Cell, Table},
};
use crate::config::keys::{KEYS, Key, explained};

/// What the command line says.
#[derive(Clone, Debug, Args)]
pub struct Options {
    /// The key: where it stands, with names or without, such as vip.port, vip.shop.health.path; or its last word. Without
    /// one, all keys are listed.
    key: Option<String>,
}

/// Explains it.
///
/// # Errors
/// When there is no such key.
pub fn run(options: &Options) -> Result<(), Failure> {
    match options.key.as_deref() {
        None => print(&list(KEYS.iter())),
        Some(path) => match explained(path).map_err(Failure::Answer)?.as_slice() {
            [] => Ok(()),
            // A section: its own meaning, and what is in it.
            [section, inside @ ..] if inside.iter().all(|key| key.path.starts_with(section.path)) => {
                let rest = list(inside.iter().copied());
                print(&(explain(section) + if inside.is_empty() { "" } else { "\n" } + &rest))
            }
            keys if keys.len() <= 3 => {
                let texts: Vec<_> = keys.iter().map(|key| explain(key)).collect();
                print(&texts.join("\n"))
            }
            keys => print(&list(keys.iter().copied())),
        },
    }
}

fn explain(key: &Key) -> String {
    let Key { path, values, default, meaning, example } = key;
    format!("{path}\n  {meaning}\n  values   {values}\n  default  {default}\n  example  {example}\n")
}

fn list<'a>(keys: impl Iterator<Item = &'a Key>) -> String {
    let mut table = Table::new(0, &[("KEY", Left), ("DEFAULT", Left), ("MEANING", Left)]);
    let rows: Vec<_> =
        keys.map(|key| table.push([key.path, key.default, key.meaning].map(Cell::from).to_vec())).collect();
    if rows.is_empty() {
        return String::new();
    }
    std::iter::once(0).chain(rows).map(|row| table.line(row, false)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_a_paragraph_and_a_section_a_list() {
        let text = explain(explained("vip.mss").unwrap()[0]);
        assert!(text.starts_with("vip.mss\n  TCP: ") && text.ends_with("example  mss = 1400\n"), "{text}");
        let all = list(KEYS.iter());
        assert_eq!(all.lines().count(), KEYS.len() + 1);
        assert_eq!(list(std::iter::empty()), "");
    }
}
