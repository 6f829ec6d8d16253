//! The frames of `lb-common/tests/vectors/packets.txt`: what comes in, and exactly what must go out.

use std::{fmt::Write as _, iter::Peekable};

use lb_common::host::Outcome;

/// The file.
pub const TEXT: &str = include_str!("../../tests/vectors/packets.txt");

/// Frames that follow one another through the same tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Case {
    /// What it shows.
    pub title: String,
    /// The frames.
    pub steps: Vec<Step>,
}

/// One frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// The interface it comes in by.
    pub ifindex: u32,
    /// The frame.
    pub bytes: Vec<u8>,
    /// What becomes of it.
    pub outcome: Expected,
}

/// What must become of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It leaves by an interface as these bytes.
    Out(u32, Vec<u8>),
    /// It is left to the host, for this reason.
    Pass(String),
    /// It ends, for this reason.
    Drop(String),
    /// It goes back as these bytes: the answer to itself, of this name.
    Answer(String, Vec<u8>),
}

impl Expected {
    /// What became of a frame that is now `bytes`.
    #[must_use]
    pub fn of(outcome: Outcome, bytes: Vec<u8>) -> Self {
        match outcome {
            Outcome::Forward { ifindex, .. } => Self::Out(ifindex, bytes),
            Outcome::Pass(reason) => Self::Pass(reason.label().into()),
            Outcome::Drop(reason) => Self::Drop(reason.label().into()),
            Outcome::Answer(event) => Self::Answer(event.label().into(), bytes),
        }
    }
}

/// All cases of the file.
///
/// # Panics
/// Where the file is not as its head says.
#[must_use]
pub fn cases() -> Vec<Case> {
    parse(TEXT)
}

/// Reads such a text.
///
/// # Panics
/// Where it is not as the file's head says.
#[must_use]
pub fn parse(text: &str) -> Vec<Case> {
    let mut cases = Vec::<Case>::new();
    let mut lines = text.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).peekable();
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("== ") {
            cases.push(Case { title: title.to_owned(), steps: Vec::new() });
            continue;
        }
        let ifindex = line.strip_prefix("in ").and_then(|index| index.parse().ok());
        let ifindex = ifindex.unwrap_or_else(|| panic!("expected \"in <interface>\", found {line:?}"));
        let bytes = hex(&mut lines);
        let line = lines.next().expect("a frame has an outcome");
        let outcome = match line.split_once(' ') {
            Some(("out", index)) => Expected::Out(index.parse().expect("an interface"), hex(&mut lines)),
            Some(("pass", reason)) => Expected::Pass(reason.to_owned()),
            Some(("drop", reason)) => Expected::Drop(reason.to_owned()),
            Some(("answer", name)) => Expected::Answer(name.to_owned(), hex(&mut lines)),
            _ => panic!("expected an outcome, found {line:?}"),
        };
        let case = cases.last_mut().expect("a title comes first");
        case.steps.push(Step { ifindex, bytes, outcome });
    }
    cases
}

/// Lines that begin with a space.
fn hex<'a>(lines: &mut Peekable<impl Iterator<Item = &'a str>>) -> Vec<u8> {
    let mut digits = String::new();
    while let Some(line) = lines.next_if(|line| line.starts_with(' ')) {
        digits.extend(line.split_whitespace());
    }
    let pairs = digits.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).expect("ASCII"));
    pairs.map(|pair| u8::from_str_radix(pair, 16).expect("two hexadecimal digits")).collect()
}

/// The text of a case, the reverse of [`parse`].
#[must_use]
pub fn write(case: &Case) -> String {
    let mut text = format!("== {}\n", case.title);
    for step in &case.steps {
        let _ = writeln!(text, "in {}\n{}", step.ifindex, dump(&step.bytes));
        let _ = match &step.outcome {
            Expected::Out(ifindex, bytes) => writeln!(text, "out {ifindex}\n{}", dump(bytes)),
            Expected::Pass(reason) => writeln!(text, "pass {reason}"),
            Expected::Drop(reason) => writeln!(text, "drop {reason}"),
            Expected::Answer(name, bytes) => writeln!(text, "answer {name}\n{}", dump(bytes)),
        };
    }
    text
}

/// A frame in lines: the Ethernet addresses, then 32 bytes each.
fn dump(frame: &[u8]) -> String {
    let (head, rest) = frame.split_at(frame.len().min(12));
    let line = |bytes: &[u8]| {
        let words: Vec<_> = bytes
            .chunks(4)
            .map(|word| word.iter().fold(String::new(), |t, b| t + &format!("{b:02x}")))
            .collect();
        format!("  {}", words.join(" "))
    };
    let lines: Vec<_> = [head].into_iter().chain(rest.chunks(32)).map(line).collect();
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_can_be_read() {
        let step = |outcome| Step { ifindex: 1, bytes: (0..100).collect(), outcome };
        let steps = vec![
            step(Expected::Out(2, vec![0xab; 13])),
            step(Expected::Pass("not-vip".into())),
            step(Expected::Drop("no-server".into())),
            step(Expected::Answer("echo-answered".into(), vec![1; 50])),
        ];
        let cases =
            vec![Case { title: "a title".into(), steps: steps.clone() }, Case { title: "b".into(), steps }];
        let text: String = cases.iter().map(write).collect();
        assert_eq!(parse(&format!("# a comment\n\n{text}")), cases);
    }
}
