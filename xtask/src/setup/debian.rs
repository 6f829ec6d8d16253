//! Reading what apt reads and writes: lists of sources, tables of versions. Pure.

/// The mirrors in a file of stanzas (`*.sources`, deb822).
pub(super) fn mirrors_of_stanzas(text: &str) -> Vec<String> {
    let mut mirrors = Vec::new();
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        if field(stanza, "Enabled").iter().any(|value| value.eq_ignore_ascii_case("no")) {
            continue;
        }
        if field(stanza, "Types").contains(&"deb") && is_archive(&field(stanza, "Suites")) {
            mirrors.extend(field(stanza, "URIs").into_iter().map(str::to_owned));
        }
    }
    mirrors
}

/// The words of a field, which may go on in lines that start with a blank.
fn field<'a>(stanza: &[&'a str], name: &str) -> Vec<&'a str> {
    let mut words = Vec::new();
    let mut inside = false;
    for line in stanza {
        if line.starts_with([' ', '\t']) {
            if inside {
                words.extend(line.split_whitespace());
            }
        } else if let Some((key, value)) = line.split_once(':') {
            inside = key.trim().eq_ignore_ascii_case(name);
            if inside {
                words.extend(value.split_whitespace());
            }
        }
    }
    words
}

/// The mirrors in a file of lines (`*.list`): `deb [options] URI suite components`.
pub(super) fn mirrors_of_lines(text: &str) -> Vec<String> {
    let mut mirrors = Vec::new();
    for line in text.lines() {
        let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
        let rest = rest.trim_start();
        let rest =
            if rest.starts_with('[') { rest.split_once(']').map_or("", |(_, rest)| rest) } else { rest };
        let mut words = rest.split_whitespace();
        if let (Some(uri), Some(suite)) = (words.next(), words.next())
            && is_archive(&[suite])
            && !uri.starts_with("cdrom:")
        {
            mirrors.push(uri.to_owned());
        }
    }
    mirrors
}

/// Whether suites are of the archive itself. Security updates lie apart and have no rust-src.
fn is_archive(suites: &[&str]) -> bool {
    suites.iter().any(|suite| !suite.contains("security"))
}

/// Each mirror once, at its first place.
pub(super) fn without_repeats(mirrors: Vec<String>) -> Vec<String> {
    let mut once: Vec<String> = Vec::new();
    for mirror in mirrors {
        let mirror = mirror.trim_end_matches('/');
        if !once.iter().any(|known| known == mirror) {
            once.push(mirror.to_owned());
        }
    }
    once
}

/// In the table of `apt-cache madison`, the version that is of a release of Rust, e.g.
/// `1.95.0+dfsg1-1~bpo13+1` of `1.95.0`.
pub(super) fn version_of_release<'a>(table: &'a str, release: &str) -> Option<&'a str> {
    table.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).find(|version| {
        let upstream = version.rsplit_once('-').map_or(*version, |(upstream, _)| upstream);
        // Repacked sources say so after a plus. A tilde would mean "before that release": no match.
        upstream.split('+').next() == Some(release)
    })
}

#[cfg(test)]
mod tests {
    use super::{mirrors_of_lines, mirrors_of_stanzas, version_of_release, without_repeats};

    #[test]
    fn stanzas_give_the_archive_and_neither_security_nor_sources_nor_what_is_off() {
        let text = "\
# a comment
Types: deb deb-src
URIs: http://mirror.example/debian
# another, inside
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb-src
URIs: http://sources.example/debian
Suites: bookworm

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
";
        assert_eq!(mirrors_of_stanzas(text), ["http://mirror.example/debian"]);
    }

    #[test]
    fn a_field_may_go_on_in_further_lines() {
        let text =
            "types: deb\nuris:\n http://one.example/debian\n\thttp://two.example/debian\nsuites: sid\n";
        assert_eq!(mirrors_of_stanzas(text), ["http://one.example/debian", "http://two.example/debian"]);
    }

    #[test]
    fn lines_may_have_options_and_comments() {
        let text = "\
# deb http://commented.example/debian bookworm main
deb http://plain.example/debian bookworm main contrib
deb [ arch=amd64 signed-by=/some/key.gpg ] http://options.example/debian sid main
deb-src http://sources.example/debian bookworm main
deb http://plain.example/debian-security bookworm-security main
deb cdrom:[Debian]/ bookworm main
deb
";
        assert_eq!(mirrors_of_lines(text), ["http://plain.example/debian", "http://options.example/debian"]);
    }

    #[test]
    fn a_mirror_is_tried_once() {
        let mirrors = ["http://a.example/debian/", "http://b.example/debian", "http://a.example/debian"];
        let once = without_repeats(mirrors.map(str::to_owned).to_vec());
        assert_eq!(once, ["http://a.example/debian", "http://b.example/debian"]);
    }

    #[test]
    fn only_the_very_release_matches() {
        let table = "\
 rust-src | 1.97.0+dfsg1-2 | http://mirror.example/debian sid/main amd64 Packages
 rust-src | 1.95.0~rc2+dfsg1-1 | http://mirror.example/debian sid/main amd64 Packages
 rust-src | 1.95.0+dfsg1-1~bpo13+1 | http://mirror.example/debian trixie-backports/main amd64 Packages
";
        assert_eq!(version_of_release(table, "1.95.0"), Some("1.95.0+dfsg1-1~bpo13+1"));
        assert_eq!(version_of_release(table, "1.97.0"), Some("1.97.0+dfsg1-2"));
        assert_eq!(version_of_release(table, "1.96.0"), None);
        assert_eq!(version_of_release("", "1.95.0"), None);
        assert_eq!(version_of_release(" rust-src | 1.95.0-1 | somewhere", "1.95.0"), Some("1.95.0-1"));
    }
}
