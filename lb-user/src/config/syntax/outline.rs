//! Where things are in a document: what a syntax error must know that the parser does not tell with it.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use crate::config::report::{Place, Report};

/// A key somewhere in the document.
pub(super) struct Key<'d> {
    pub(super) name: &'d str,
    pub(super) at: usize,
    /// Start of the inline table it stands in, if it does.
    pub(super) inline: Option<usize>,
}

/// A line with the header of a table.
pub(super) struct Section {
    /// Where the line starts.
    pub(super) start: Place,
    /// What stands between the brackets, without spaces.
    pub(super) name: String,
}

/// Keys, inline tables, plain values and headers, each sorted by place.
#[derive(Default)]
pub(super) struct Outline<'d> {
    keys: Vec<Key<'d>>,
    inline_tables: Vec<Range<usize>>,
    scalars: Vec<Range<usize>>,
    sections: Vec<Section>,
}

impl<'d> Outline<'d> {
    pub(super) fn new(report: &Report<'_>, document: &'d DeTable<'_>) -> Self {
        let mut outline = Self::default();
        outline.add_table(document, report.text(), None);
        outline.keys.sort_by_key(|key| key.at);
        outline.inline_tables.sort_by_key(|span| span.start);
        outline.scalars.sort_by_key(|span| span.start);
        for &start in report.line_starts() {
            let start = Place(start);
            let line = report.text()[report.line_range(start)].trim_start();
            if let Some(header) = line.strip_prefix('[') {
                let header = header.trim_start_matches('[').split(']').next().unwrap_or_default();
                outline.sections.push(Section { start, name: header.split_whitespace().collect() });
            }
        }
        outline
    }

    fn add_table(&mut self, table: &'d DeTable<'_>, text: &str, inline: Option<usize>) {
        for (key, value) in table {
            self.keys.push(Key { name: key.get_ref(), at: key.span().start, inline });
            self.add_value(value, text, inline);
        }
    }

    fn add_value(&mut self, value: &'d Spanned<DeValue<'_>>, text: &str, inline: Option<usize>) {
        let span = value.span();
        match value.get_ref() {
            DeValue::Table(table) if text[span.clone()].starts_with('{') => {
                self.add_table(table, text, Some(span.start));
                self.inline_tables.push(span);
            }
            DeValue::Table(table) => self.add_table(table, text, inline),
            DeValue::Array(items) => {
                for item in items {
                    self.add_value(item, text, inline);
                }
            }
            _ => self.scalars.push(span),
        }
    }

    /// Where the innermost inline table around a place starts.
    pub(super) fn inline_table(&self, at: usize) -> Option<usize> {
        self.inline_tables.iter().rev().find(|span| span.contains(&at)).map(|span| span.start)
    }

    /// The number or text at a place.
    pub(super) fn value_at(&self, at: usize) -> Option<Range<usize>> {
        let behind = self.scalars.partition_point(|span| span.start <= at);
        self.scalars[..behind].last().filter(|span| at <= span.end).cloned()
    }

    /// The last header at or before a place.
    pub(super) fn section(&self, at: Place) -> Option<&Section> {
        self.sections[..self.behind(at)].last()
    }

    /// The byte before the next header.
    pub(super) fn end_of_section(&self, at: Place) -> Option<usize> {
        self.sections.get(self.behind(at)).map(|next| next.start.0 - 1)
    }

    /// The first header of this name, if it stands before the given one.
    pub(super) fn earlier(&self, section: &Section) -> Option<&Section> {
        self.sections
            .iter()
            .find(|known| known.name == section.name)
            .filter(|first| first.start < section.start)
    }

    fn behind(&self, at: Place) -> usize {
        self.sections.partition_point(|section| section.start <= at)
    }

    /// Keys whose place lies in a stretch of text.
    pub(super) fn keys_within(&self, stretch: Range<usize>) -> &[Key<'d>] {
        let first = self.keys.partition_point(|key| key.at < stretch.start);
        let behind = self.keys.partition_point(|key| key.at < stretch.end);
        &self.keys[first..behind.max(first)]
    }
}
