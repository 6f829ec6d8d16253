//! Collects findings while a configuration is read, and turns places into lines and columns at the end.
//!
//! Readers share one [`Report`] by plain reference; it is the only thing here that changes behind one.

use std::{
    cell::{Cell, RefCell},
    collections::{BTreeMap, HashMap, HashSet},
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

use super::{
    diagnostic::{Diagnostic, Severity},
    outside::{Mention, Role, Spot},
};

/// A place in the text: the byte offset where something starts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Place(pub(super) usize);

/// How many VIPs a finding names before it only counts them.
const NAMED_VIPS: usize = 3;

/// A finding whose line is not worked out yet.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Finding {
    place: Place,
    severity: Severity,
    text: String,
}

/// A file that is named, and the VIPs it concerns.
struct Named {
    role: Role,
    path: PathBuf,
    vips: Vec<String>,
}

/// The findings so far.
pub(super) struct Report<'t> {
    text: &'t str,
    /// Offset of each line's first byte.
    lines: Vec<usize>,
    /// In the order found, each with the VIPs it concerns. A bad value in `[vip_defaults]` concerns many
    /// VIPs and is still one mistake: it becomes one finding that names them.
    findings: RefCell<Vec<(Finding, Vec<String>)>>,
    /// Where in `findings` a finding about VIPs stands.
    about_vips: RefCell<HashMap<Finding, usize>>,
    /// Files by place, with the VIPs they concern.
    files: RefCell<BTreeMap<Place, Named>>,
    /// Lines that a syntax error made meaningless: nothing else is said about them.
    spoiled: RefCell<HashSet<usize>>,
    /// From here on a syntax error made everything meaningless.
    cut: Cell<Place>,
    /// Whether syntax errors hide parts of the file, so that what seems absent may be there.
    incomplete: Cell<bool>,
}

impl<'t> Report<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        let lines = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self {
            text,
            lines,
            findings: RefCell::default(),
            about_vips: RefCell::default(),
            files: RefCell::default(),
            spoiled: RefCell::default(),
            cut: Cell::new(Place(usize::MAX)),
            incomplete: Cell::new(false),
        }
    }

    pub(super) fn text(&self) -> &'t str {
        self.text
    }

    /// Reports a mistake.
    pub(super) fn error(&self, place: Place, text: impl Into<String>) {
        self.add(Finding { place, severity: Severity::Error, text: text.into() });
    }

    /// Reports something odd.
    pub(super) fn warning(&self, place: Place, text: impl Into<String>) {
        self.add(Finding { place, severity: Severity::Warning, text: text.into() });
    }

    /// Reports a mistake that concerns one VIP; the same mistake of several VIPs is reported once.
    pub(super) fn vip_error(&self, place: Place, vip: &str, text: impl Into<String>) {
        self.add_about_vip(Finding { place, severity: Severity::Error, text: text.into() }, vip);
    }

    /// Reports something odd that concerns one VIP, like [`Self::vip_error`].
    pub(super) fn vip_warning(&self, place: Place, vip: &str, text: impl Into<String>) {
        self.add_about_vip(Finding { place, severity: Severity::Warning, text: text.into() }, vip);
    }

    fn add(&self, finding: Finding) {
        if !self.is_spoiled(finding.place) {
            self.findings.borrow_mut().push((finding, Vec::new()));
        }
    }

    fn add_about_vip(&self, finding: Finding, vip: &str) {
        if self.is_spoiled(finding.place) {
            return;
        }
        let mut findings = self.findings.borrow_mut();
        let next = findings.len();
        let index = *self.about_vips.borrow_mut().entry(finding.clone()).or_insert(next);
        if index == next {
            findings.push((finding, Vec::new()));
        }
        let vips = &mut findings[index].1;
        if vips.last().is_none_or(|last| last != vip) {
            vips.push(vip.to_owned());
        }
    }

    /// Notes that a file is named for a VIP, in a key that may be for several.
    pub(super) fn mention(&self, place: Place, role: Role, path: &Path, vip: &str) {
        let mut files = self.files.borrow_mut();
        let named =
            files.entry(place).or_insert_with(|| Named { role, path: path.to_owned(), vips: Vec::new() });
        if named.vips.last().is_none_or(|last| last != vip) {
            named.vips.push(vip.to_owned());
        }
    }

    /// All files that are named, by place.
    pub(super) fn mentions(&self) -> Vec<Mention> {
        let files = self.files.take().into_iter();
        let mention = |(place, Named { role, path, vips }): (Place, Named)| Mention {
            path,
            role,
            place: self.spot(place),
            about: about(&vips),
        };
        files.map(mention).collect()
    }

    /// From now on nothing more is said about the lines of this stretch of text.
    pub(super) fn spoil(&self, stretch: Range<usize>) {
        self.spoiled.borrow_mut().extend(self.line(Place(stretch.start))..=self.line(Place(stretch.end)));
    }

    /// From now on nothing more is said about anything from here to the end.
    pub(super) fn cut_off(&self, from: Place) {
        self.cut.set(self.cut.get().min(from));
    }

    /// Whether a syntax error already covers this place.
    pub(super) fn is_spoiled(&self, place: Place) -> bool {
        place >= self.cut.get() || self.spoiled.borrow().contains(&self.line(place))
    }

    /// Notes that parts of the file could not be read.
    pub(super) fn set_incomplete(&self) {
        self.incomplete.set(true);
    }

    /// Whether parts of the file could not be read: then nothing may be called missing.
    pub(super) fn is_incomplete(&self) -> bool {
        self.incomplete.get()
    }

    /// Line number of a place, for messages that point at a second place.
    pub(super) fn line(&self, place: Place) -> usize {
        self.lines.partition_point(|&start| start <= place.0)
    }

    /// Line and column of a place.
    pub(super) fn spot(&self, place: Place) -> Spot {
        let line = self.line(place);
        let before = self.text.get(self.lines[line - 1]..place.0).unwrap_or_default();
        let column = before.trim_start_matches('\u{feff}').chars().count() + 1;
        Spot { line: line as u32, column: column as u32 }
    }

    /// The bytes of the line that holds a place, without its newline.
    pub(super) fn line_range(&self, place: Place) -> Range<usize> {
        let line = self.line(place);
        let end = self.lines.get(line).map_or(self.text.len(), |next| next - 1);
        self.lines[line - 1]..end.max(self.lines[line - 1])
    }

    /// Start of every line, for the few who must look at lines as text.
    pub(super) fn line_starts(&self) -> &[usize] {
        &self.lines
    }

    /// All findings, sorted by place, with lines and columns.
    pub(super) fn finish(self, file: &str) -> Vec<Diagnostic> {
        let mut findings = self.findings.into_inner();
        findings.sort_by_key(|(finding, _)| finding.place);
        let file: Arc<str> = file.into();
        // One walk over the text for all of them. A byte order mark is no column.
        let (mut offset, mut line, mut column) =
            (if self.text.starts_with('\u{feff}') { '\u{feff}'.len_utf8() } else { 0 }, 1, 1);
        findings
            .into_iter()
            .map(|(finding, vips)| {
                for character in self.text.get(offset..finding.place.0).unwrap_or_default().chars() {
                    offset += character.len_utf8();
                    (line, column) = if character == '\n' { (line + 1, 1) } else { (line, column + 1) };
                }
                let message = about(&vips) + &finding.text;
                Diagnostic { file: file.clone(), severity: finding.severity, line, column, message }
            })
            .collect()
    }
}

/// `VIP "a": `, `VIPs "a", "b" and "c": ` or `VIPs "a", "b", "c" and 20 more: `.
fn about(vips: &[String]) -> String {
    match vips {
        [] => String::new(),
        [only] => format!("VIP {only:?}: "),
        several => format!("VIPs {}: ", super::words::names(several.iter(), NAMED_VIPS)),
    }
}
