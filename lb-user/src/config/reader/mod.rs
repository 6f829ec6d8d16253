//! Reads tables of the parsed document key by key, notes every mistake in the [`Report`], and goes on.
//!
//! A reader asks a [`Table`] for the keys it knows; whatever is left when it is done is unknown and is
//! reported with the key that was probably meant. So the keys are listed in one place: where they are read.

mod field;
mod unknown;

use toml::de::{DeTable, DeValue};

use super::{
    report::{Place, Report},
    values::{Read, found, name_problem},
    words::quote,
};
pub(super) use field::{Broken, Field, Located};

/// A table that is being read.
pub(super) struct Table<'d, 'r> {
    report: &'r Report<'d>,
    entries: &'d DeTable<'d>,
    /// The path that names the table in TOML, `vip.web`; empty for the top level.
    path: String,
    /// How messages name it.
    label: Label<'d>,
    /// Where it starts.
    at: Place,
    asked: Vec<&'static str>,
    /// Needed keys that are not there, with what to say about it unless they are only misspelt.
    missing: Vec<(&'static str, String)>,
    /// Keys that are often written here but belong elsewhere, with where that is.
    elsewhere: &'static [(&'static str, &'static str)],
    /// Every key is welcome: the keys are names that the user chose.
    open: bool,
    /// The table's own name is one that the user chose.
    named: bool,
}

/// How messages name a table.
#[derive(Clone, Copy)]
enum Label<'d> {
    /// By its path, `[vip.web]`.
    Path,
    /// One of a list: what it is, its name, and its place from 1 on.
    Item(&'static str, Option<&'d str>, usize),
}

impl<'d, 'r> Table<'d, 'r> {
    /// Reads the whole document.
    pub(super) fn root<T>(
        report: &'r Report<'d>,
        entries: &'d DeTable<'d>,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        Self::enter(report, entries, String::new(), Label::Path, Place(0), read)
    }

    fn enter<T>(
        report: &'r Report<'d>,
        entries: &'d DeTable<'d>,
        path: String,
        label: Label<'d>,
        at: Place,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let (asked, missing) = (Vec::new(), Vec::new());
        let (elsewhere, open, named) = (&[], false, false);
        let mut table = Self { report, entries, path, label, at, asked, missing, elsewhere, open, named };
        let result = read(&mut table);
        table.report_missing_keys();
        table.report_unknown_keys();
        result
    }

    /// An optional key.
    pub(super) fn get<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Field<T> {
        self.asked.push(key);
        let Some((key_at, value_at, value)) = self.find(key) else {
            // What a syntax error hides is not absent.
            return if self.report.is_incomplete() { Field::Broken } else { Field::Absent };
        };
        match read(value) {
            Ok(value) => Field::Set(Located { value, key: key_at, at: value_at }),
            Err(problem) => {
                self.wrong(key, value_at, &problem);
                Field::Broken
            }
        }
    }

    /// A key that must be there; `example` is a line that would do.
    pub(super) fn need<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&DeValue<'_>) -> Read<T>,
    ) -> Field<T> {
        let field = self.get(key, read);
        if field.is_absent() {
            self.missing.push((key, format!("{} needs {key:?}; add {example}", self.label())));
            return Field::Broken;
        }
        field
    }

    /// An optional list; `example` is one that would do.
    pub(super) fn list<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Field<Vec<Located<T>>> {
        self.asked.push(key);
        let Some((key_at, value_at, value)) = self.find(key) else {
            return if self.report.is_incomplete() { Field::Broken } else { Field::Absent };
        };
        let DeValue::Array(items) = value else {
            self.wrong(key, value_at, &format!("expected a list such as {example}, found {}", found(value)));
            return Field::Broken;
        };
        let mut all = Vec::with_capacity(items.len());
        for item in items {
            let at = Place(item.span().start);
            match read(item.get_ref()) {
                Ok(value) => all.push(Located { value, key: at, at }),
                Err(problem) => self.wrong(key, at, &problem),
            }
        }
        if all.len() < items.len() {
            return Field::Broken;
        }
        Field::Set(Located { value: all, key: key_at, at: value_at })
    }

    /// An optional table; `example` is one that would do.
    pub(super) fn table<T>(
        &mut self,
        key: &'static str,
        example: &str,
        read: impl FnOnce(&mut Self) -> T,
    ) -> Field<T> {
        self.asked.push(key);
        let Some((key_at, value_at, value)) = self.find(key) else {
            return if self.report.is_incomplete() { Field::Broken } else { Field::Absent };
        };
        let DeValue::Table(entries) = value else {
            self.wrong(key, value_at, &format!("expected a table such as {example}, found {}", found(value)));
            return Field::Broken;
        };
        let value = Self::enter(self.report, entries, self.path_of(key), Label::Path, value_at, read);
        Field::Set(Located { value, key: key_at, at: value_at })
    }

    /// An optional list of tables; `kind` is what one of them describes, `example` one that would do. Tables
    /// are read even where others of the list are wrong.
    pub(super) fn tables<T>(
        &mut self,
        key: &'static str,
        kind: &'static str,
        example: &str,
        mut read: impl FnMut(&mut Self) -> T,
    ) -> Field<Vec<T>> {
        self.asked.push(key);
        let Some((key_at, value_at, value)) = self.find(key) else {
            return if self.report.is_incomplete() { Field::Broken } else { Field::Absent };
        };
        let DeValue::Array(items) = value else {
            let found = found(value);
            self.wrong(
                key,
                value_at,
                &format!("expected a list of tables such as [{example}], found {found}"),
            );
            return Field::Broken;
        };
        let mut all = Vec::with_capacity(items.len());
        let path = self.path_of(key);
        for (index, item) in items.iter().enumerate() {
            let at = Place(item.span().start);
            let DeValue::Table(entries) = item.get_ref() else {
                let found = found(item.get_ref());
                self.wrong(key, at, &format!("expected a table such as {example}, found {found}"));
                continue;
            };
            let name = match entries.get("name").map(|name| name.get_ref()) {
                Some(DeValue::String(name)) => Some(&**name),
                _ => None,
            };
            let label = Label::Item(kind, name, index + 1);
            all.push(Self::enter(self.report, entries, path.clone(), label, at, &mut read));
        }
        Field::Set(Located { value: all, key: key_at, at: value_at })
    }

    /// An optional list of tables, for which one table may stand alone.
    pub(super) fn table_or_tables<T>(
        &mut self,
        key: &'static str,
        kind: &'static str,
        example: &str,
        read: impl FnMut(&mut Self) -> T,
    ) -> Field<Vec<T>> {
        match self.find(key) {
            Some((.., DeValue::Array(_))) => self.tables(key, kind, example, read),
            _ => self.table(key, example, read).map(|one| vec![one]),
        }
    }

    /// Every key of this table is a name that the user chose, and its value a table: reads them in the order
    /// of the file.
    pub(super) fn named<T>(
        &mut self,
        kind: &str,
        mut read: impl FnMut(Located<String>, &mut Self) -> T,
    ) -> Vec<T> {
        self.open = true;
        let mut all = Vec::with_capacity(self.entries.len());
        for (name, key_at, at, value) in self.in_file_order() {
            let path = self.path_of(name);
            let DeValue::Table(entries) = value else {
                let (path, found) = (&self.path, found(value));
                self.wrong(
                    name,
                    key_at,
                    &format!("expected the table of {kind}, [{path}.NAME], found {found}"),
                );
                continue;
            };
            if let Some(problem) = name_problem(name) {
                self.report.error(key_at, problem);
            }
            let located = Located { value: name.to_owned(), key: key_at, at: key_at };
            all.push(Self::enter(self.report, entries, path, Label::Path, at, |table| {
                table.named = true;
                read(located, table)
            }));
        }
        all
    }

    /// Every key of this table is read by `read_key`, every value by `read`: in the order of the file.
    pub(super) fn entries<K, T>(
        &mut self,
        read_key: impl Fn(&str) -> Read<K>,
        read: impl Fn(&DeValue<'_>) -> Read<T>,
    ) -> Vec<(K, Located<T>)> {
        self.open = true;
        let mut all = Vec::new();
        for (name, key_at, at, value) in self.in_file_order() {
            let key = read_key(name).map_err(|problem| self.wrong(name, key_at, &problem));
            let value = read(value).map_err(|problem| self.wrong(name, at, &problem));
            if let (Ok(key), Ok(value)) = (key, value) {
                all.push((key, Located { value, key: key_at, at }));
            }
        }
        all
    }

    /// Names keys that are often written here but belong elsewhere, and where that is.
    pub(super) fn belong_elsewhere(&mut self, keys: &'static [(&'static str, &'static str)]) {
        self.elsewhere = keys;
    }

    /// How messages name this table.
    pub(super) fn label(&self) -> String {
        match self.label {
            Label::Path => format!("[{}]", self.path),
            Label::Item(kind, name, number) => {
                // The path ends with the key of the list.
                let of = self.path.rsplit_once('.').map_or("", |(of, _)| of);
                let name = name.map_or_else(|| number.to_string(), quote);
                format!("{kind} {name} of [{of}]")
            }
        }
    }

    /// Where this table starts.
    pub(super) fn at(&self) -> Place {
        self.at
    }

    pub(super) fn report(&self) -> &'r Report<'d> {
        self.report
    }

    fn find(&self, key: &str) -> Option<(Place, Place, &'d DeValue<'d>)> {
        let (key, value) = self.entries.get_key_value(key)?;
        // The parser puts a value without a place where a syntax error left none.
        let written = !value.span().is_empty();
        written.then(|| (Place(key.span().start), Place(value.span().start), value.get_ref()))
    }

    fn in_file_order(&self) -> Vec<(&'d str, Place, Place, &'d DeValue<'d>)> {
        let mut all: Vec<_> = self
            .entries
            .iter()
            .map(|(key, value)| {
                (&**key.get_ref(), Place(key.span().start), Place(value.span().start), value.get_ref())
            })
            .collect();
        all.sort_by_key(|&(_, at, ..)| at);
        all
    }

    fn wrong(&self, key: &str, at: Place, problem: &str) {
        let key = plain(key);
        let key = if self.path.is_empty() { key } else { format!("{key} in {}", self.label()) };
        self.report.error(at, format!("{key}: {problem}"));
    }

    fn path_of(&self, key: &str) -> String {
        let dot = if self.path.is_empty() { "" } else { "." };
        format!("{}{dot}{}", self.path, plain(key))
    }
}

/// A key as TOML wants it: in quotes only where it must be.
fn plain(key: &str) -> String {
    let bare = |sign: char| sign.is_ascii_alphanumeric() || matches!(sign, '_' | '-');
    if !key.is_empty() && key.len() <= 64 && key.chars().all(bare) { key.to_owned() } else { quote(key) }
}
