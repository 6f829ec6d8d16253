//! Tokens, by which the API over TCP knows who asks. The file holds only their digests, a line for each:
//!
//! ```text
//! # name  role      digest of the token                until (a day, UTC)
//! ci      operator  sha256:5f2b…                       2027-01-31
//! ```
//!
//! A token is 256 random bits, so a plain SHA-256 of it tells nothing, and nobody guesses one. Pure, but for the making.

use std::{collections::HashSet, fmt::Write as _};

use aws_lc_rs::{
    constant_time::verify_slices_are_equal,
    digest::{SHA256, digest},
    error::Unspecified,
    rand::{SecureRandom as _, SystemRandom},
};

use super::role::Role;

/// Before the digits of a token, so that it is recognised where it should not be.
const PREFIX: &str = "lb_";

/// Random bytes in a token.
const BYTES: usize = 32;

const DAY: u64 = 86_400;

/// What a token is known by.
pub type Digest = [u8; 32];

/// One line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Who has it, for logs.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// What it is known by.
    pub digest: Digest,
    /// The day after its last one, in days since 1970; `None` if it is good for ever.
    pub until: Option<u64>,
}

/// All lines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens(Vec<Token>);

/// Why a token is not good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Nobody has it.
    Unknown,
    /// It was, until lately.
    Over {
        /// Its name.
        name: String,
    },
}

impl Tokens {
    /// Reads a file.
    ///
    /// # Errors
    /// The first line that is wrong, and what would be right.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut tokens = Vec::new();
        let mut names = HashSet::new();
        for (number, line) in text.lines().enumerate() {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let token = parse(line).map_err(|why| format!("line {}: {why}", number + 1))?;
            if !names.insert(token.name.clone()) {
                return Err(format!("line {}: there is another token called {:?}", number + 1, token.name));
            }
            tokens.push(token);
        }
        Ok(Self(tokens))
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> &[Token] {
        &self.0
    }

    /// Whose token this is, `now` (seconds since 1970). How long it takes does not depend on what is wrong with it.
    ///
    /// # Errors
    /// When it is nobody's, or not any more.
    pub fn find(&self, secret: &str, now: u64) -> Result<&Token, Wrong> {
        let digest = digest_of(secret);
        let mut found = None;
        for token in &self.0 {
            if verify_slices_are_equal(&token.digest, &digest).is_ok() {
                found = Some(token);
            }
        }
        let token = found.ok_or(Wrong::Unknown)?;
        if token.is_over(now) { Err(Wrong::Over { name: token.name.clone() }) } else { Ok(token) }
    }

    /// Whether a token is still good.
    #[must_use]
    pub fn has(&self, digest: &Digest, now: u64) -> bool {
        self.0.iter().any(|token| token.digest == *digest && !token.is_over(now))
    }
}

impl Token {
    /// Makes a token that nobody has had; gives the line and the secret itself, which is in no file.
    ///
    /// # Errors
    /// When the name or the day makes no line, or the system has no randomness.
    pub fn make(name: &str, role: Role, until: Option<&str>) -> Result<(String, String), String> {
        let mut random = [0; BYTES];
        SystemRandom::new().fill(&mut random).map_err(|Unspecified| "there is no randomness")?;
        let secret = format!("{PREFIX}{}", hex(&random));
        let mut line = format!("{name} {role} sha256:{}", hex(&digest_of(&secret)));
        if let Some(until) = until {
            let _ = write!(line, " {until}");
        }
        let _ = parse(&line)?;
        Ok((line, secret))
    }

    /// Whether its last day has passed.
    #[must_use]
    pub fn is_over(&self, now: u64) -> bool {
        self.until.is_some_and(|until| now / DAY >= until)
    }
}

fn parse(line: &str) -> Result<Token, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (name, role, digest, until) = match words[..] {
        [name, role, digest] => (name, role, digest, None),
        [name, role, digest, until] => (name, role, digest, Some(until)),
        _ => {
            return Err(
                "write NAME ROLE sha256:DIGEST, and perhaps the last day it is good (2027-01-31)".into()
            );
        }
    };
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-@".contains(&byte);
    if name.len() > 64 || !name.bytes().all(fits) {
        return Err(format!("{name:?} is no name for a token: up to 64 letters, digits, and . _ - @"));
    }
    let digest = digest.strip_prefix("sha256:").and_then(from_hex);
    let digest = digest.ok_or("the digest must be sha256: and 64 hexadecimal digits")?;
    let until = until.map(|day| days(day).ok_or_else(|| format!("{day:?} is no day such as 2027-01-31")));
    let until = until.transpose()?.map(|day| day + 1);
    Ok(Token { name: name.to_owned(), role: role.parse()?, digest, until })
}

fn digest_of(secret: &str) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
    bytes
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (place, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(digest)
}

/// The days from 1970-01-01 to a day such as `2027-01-31`.
fn days(text: &str) -> Option<u64> {
    let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let lengths = [31, if leap(year) { 29 } else { 28 }, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let length = *lengths.get(usize::try_from(month).ok()?.checked_sub(1)?)?;
    if parts.next().is_some() || !(1970..=9999).contains(&year) || !(1..=length).contains(&day) {
        return None;
    }
    let years = (1970..year).map(|year| if leap(year) { 366 } else { 365 }).sum::<u64>();
    Some(years + lengths.iter().take(month as usize - 1).sum::<u64>() + day - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_that_was_made_is_found_until_its_last_day_is_over() {
        let (line, secret) = Token::make("ci", Role::Operator, Some("2026-02-28")).unwrap();
        assert!(secret.starts_with("lb_") && secret.len() == 67 && !line.contains(&secret[3..]), "{line}");
        let (other, _) = Token::make("boss", Role::Admin, None).unwrap();
        let tokens = Tokens::parse(&format!("# tokens\n\n{other}\n  {line}\n")).unwrap();
        let last = 20_512 * DAY; // 2026-02-28
        let found = tokens.find(&secret, last + DAY - 1).unwrap();
        assert_eq!((found.name.as_str(), found.role), ("ci", Role::Operator));
        assert_eq!(tokens.find(&secret, last + DAY), Err(Wrong::Over { name: "ci".into() }));
        assert!(tokens.has(&found.digest, last) && !tokens.has(&found.digest, last + DAY));
        for wrong in ["", "lb_", &secret[1..], &secret.to_uppercase(), &format!("{secret} ")] {
            assert_eq!(tokens.find(wrong, 0), Err(Wrong::Unknown), "{wrong}");
        }
        assert_ne!(Token::make("x", Role::Viewer, None).unwrap().1, secret);
    }

    #[test]
    fn a_line_that_is_wrong_is_named() {
        let (line, _) = Token::make("ci", Role::Viewer, None).unwrap();
        for (text, why) in [
            ("ci viewer".to_owned(), "line 1: write NAME ROLE"),
            (format!("\n{}", line.replace("viewer", "root")), "line 2: \"root\" is no role"),
            (line.replace("sha256:", "md5:"), "sha256: and 64"),
            (line[..line.len() - 1].to_owned(), "64 hexadecimal"),
            (line.replace("ci ", "c/i "), "is no name"),
            (format!("{line} 2026-02-29"), "is no day"),
            (format!("{line} soon"), "is no day"),
            (format!("{line}\n{line}"), "line 2: there is another token called \"ci\""),
        ] {
            let error = Tokens::parse(&text).unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
        assert!(Token::make("a b", Role::Viewer, None).is_err());
        assert!(Token::make("a", Role::Viewer, Some("tomorrow")).is_err());
    }

    #[test]
    fn days_are_counted_as_calendars_do() {
        for (text, count) in [
            ("1970-01-01", 0),
            ("1972-03-01", 790),
            ("2000-02-29", 11_016),
            ("2026-11-21", 20_778),
            ("2100-03-01", 47_541),
        ] {
            assert_eq!(days(text), Some(count), "{text}");
        }
        for wrong in
            ["1969-12-31", "2026-13-01", "2026-00-01", "2026-04-31", "2100-02-29", "2026-1", "1-1-1-1"]
        {
            assert_eq!(days(wrong), None, "{wrong}");
        }
    }
}
