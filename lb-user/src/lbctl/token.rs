//! `lbctl token`: who may ask lb-user from elsewhere.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::{
    client::Failure,
    output::{Output, print, render},
    table::{Align::Left, Table},
    units,
};
use crate::admin::{
    role::Role,
    token::{Token, Tokens},
};

/// Where tokens are unless `--file` says otherwise.
const DEFAULT: &str = "/etc/lb/tokens";

/// What a file begins with.
const HEAD: &str = "# Who may use the API of lb-user: name, role, digest, last day. Take a line away and say lbctl reload to revoke it.\n";

const DAY: u64 = 86_400;

/// What about tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum Word {
    /// Make a token, note its digest in the file, and print it: it is in no file. lb-user knows it after `lbctl reload`.
    New(New),
    /// List the tokens in the file. To revoke one, take its line away and say `lbctl reload`.
    List {
        /// The file.
        #[arg(long, value_name = "FILE", default_value = DEFAULT)]
        file: PathBuf,
        /// How.
        #[command(flatten)]
        output: Output,
    },
}

/// A token that is wanted.
#[derive(Clone, Debug, Args)]
pub struct New {
    /// What it may do: viewer looks; operator steers servers and VIPs, ends connections, traces; admin does everything.
    #[arg(long, value_enum)]
    role: Role,

    /// Who is to have it, for logs.
    #[arg(long)]
    name: String,

    /// For how many days it is good. [default: for ever]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    days: Option<u64>,

    /// The file, which is made if it is not there.
    #[arg(long, value_name = "FILE", default_value = DEFAULT)]
    file: PathBuf,
}

/// A line of a list.
#[derive(Debug, Serialize)]
struct Row {
    name: String,
    role: Role,
    /// The last day on which it is good, if there is one.
    until: Option<String>,
    /// Whether that has passed.
    over: bool,
}

/// Does what is asked for.
///
/// # Errors
/// When a file cannot be read or written, or there is a token of the name.
pub fn run(word: &Word) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    match word {
        Word::New(wanted) => {
            let secret = make(wanted, now).map_err(Failure::Answer)?;
            let file = wanted.file.display();
            eprintln!("noted in {file}; keep it: it is shown once. lb-user knows it after: lbctl reload");
            print(&format!("{secret}\n"))
        }
        Word::List { file, output } => output.show(|format| {
            let rows = list(file, now).map_err(Failure::Answer)?;
            render(format, &rows, |_| table(&rows))
        }),
    }
}

/// Makes a token and notes it; gives the secret.
fn make(wanted: &New, now: u64) -> Result<String, String> {
    let New { role, name, days, file } = wanted;
    let shown = file.display();
    let before = match fs::read_to_string(file) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => HEAD.to_owned(),
        Err(error) => return Err(format!("cannot read {shown}: {error}")),
    };
    let until = days.map(|days| day(now / DAY + days));
    let (line, secret) = Token::make(name, *role, until.as_deref())?;
    let end = if before.is_empty() || before.ends_with('\n') { "" } else { "\n" };
    let text = format!("{before}{end}{line}\n");
    // What is there must be good already: else lb-user would not read it, and the token were of no use.
    let _ = Tokens::parse(&text).map_err(|why| format!("{shown}: {why}"))?;
    write(file, &text).map_err(|error| format!("cannot write {shown}: {error}"))?;
    Ok(secret)
}

/// Replaces the file in one step; nobody else can read it.
fn write(file: &Path, text: &str) -> io::Result<()> {
    let mut name = file.file_name().unwrap_or_default().to_owned();
    name.push(".new");
    let beside = file.with_file_name(name);
    let _ = fs::remove_file(&beside);
    let mut new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&beside)?;
    new.write_all(text.as_bytes())?;
    new.sync_all()?;
    fs::rename(&beside, file)
}

fn list(file: &Path, now: u64) -> Result<Vec<Row>, String> {
    let shown = file.display();
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let tokens = Tokens::parse(&text).map_err(|why| format!("{shown}: {why}"))?;
    let row = |token: &Token| Row {
        name: token.name.clone(),
        role: token.role,
        until: token.until.map(|until| day(until - 1)),
        over: token.is_over(now),
    };
    Ok(tokens.all().iter().map(row).collect())
}

fn day(days: u64) -> String {
    let (year, month, day) = units::date(days);
    format!("{year:04}-{month:02}-{day:02}")
}

fn table(rows: &[Row]) -> String {
    if rows.is_empty() {
        return "there are no tokens\n".into();
    }
    let mut table = Table::new(0, &[("NAME", Left), ("ROLE", Left), ("UNTIL", Left)]);
    for row in rows {
        let until = row.until.clone().unwrap_or_else(|| "for ever".into());
        let until = if row.over { format!("{until} (over)") } else { until };
        table.push(vec![row.name.clone().into(), row.role.name().into(), until.into()]);
    }
    (0..=rows.len()).map(|line| table.line(line, false)).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn what_is_made_is_listed_and_good_until_its_last_day() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tokens");
        let now = 20_778 * DAY; // 2026-11-21
        let wanted = |name: &str, role, days| New { role, name: name.into(), days, file: file.clone() };
        let secret = make(&wanted("ci", Role::Operator, Some(10)), now).unwrap();
        let _ = make(&wanted("me", Role::Admin, None), now).unwrap();
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.starts_with('#') && !text.contains(&secret), "{text}");
        let tokens = Tokens::parse(&text).unwrap();
        assert_eq!(tokens.find(&secret, now + 10 * DAY).unwrap().name, "ci");
        assert!(tokens.find(&secret, now + 11 * DAY).is_err());
        let told = table(&list(&file, now + 11 * DAY).unwrap());
        assert!(told.contains("ci    operator  2026-12-01 (over)") && told.contains("for ever"), "{told}");
        let again = make(&wanted("ci", Role::Viewer, None), now).unwrap_err();
        assert!(again.contains("another token called \"ci\""), "{again}");
        assert_eq!(fs::read_to_string(&file).unwrap(), text, "nothing was written");
    }
}
