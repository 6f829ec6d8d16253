//! Words for messages: quoted user text, lists, and the guess what a misspelt name was meant to be.

/// User text in quotes: escaped so that it stays on one line, cut where it is too long to read.
pub(super) fn quote(text: &str) -> String {
    const LONGEST: usize = 60;
    match text.char_indices().nth(LONGEST) {
        None => format!("{text:?}"),
        Some((end, _)) => format!("{:?}…", &text[..end]),
    }
}

/// `"a", "b" and "c"`; after `most` names only `"a", "b" and 5 more`.
pub(super) fn names(all: impl ExactSizeIterator<Item = impl AsRef<str>>, most: usize) -> String {
    let count = all.len();
    let mut shown: Vec<String> = all.take(most).map(|name| quote(name.as_ref())).collect();
    if count > most {
        shown.push(format!("{} more", count - most));
    }
    join(&shown, "and")
}

/// `"a", "b" or "c"`.
pub(super) fn choices<'a>(all: impl Iterator<Item = &'a str>) -> String {
    join(&all.map(quote).collect::<Vec<_>>(), "or")
}

/// `a, b and c`.
pub(super) fn join(items: &[String], word: &str) -> String {
    match items {
        [] => String::new(),
        [only] => only.clone(),
        [init @ .., last] => format!("{} {word} {last}", init.join(", ")),
    }
}

/// The candidate that was probably meant: few typing slips away, or the same word cut short.
pub(super) fn nearest<'a>(meant: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let meant = meant.to_lowercase();
    candidates
        .filter_map(|candidate| {
            let lower = candidate.to_lowercase();
            let slips = strsim::osa_distance(&meant, &lower);
            let bearable = (meant.chars().count().max(lower.chars().count()) / 3).max(1);
            let cut_short =
                meant.len().min(lower.len()) >= 3 && (lower.starts_with(&meant) || meant.starts_with(&lower));
            (slips <= bearable || cut_short).then_some((slips, candidate))
        })
        .min_by_key(|&(slips, _)| slips)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_text_stays_on_one_line_and_is_cut() {
        assert_eq!(quote("a\nb\"c"), r#""a\nb\"c""#);
        assert_eq!(quote(&"ä".repeat(61)), format!("\"{}\"…", "ä".repeat(60)));
    }

    #[test]
    fn lists_read_like_sentences() {
        assert_eq!(names(["a"].iter(), 3), r#""a""#);
        assert_eq!(names(["a", "b", "c"].iter(), 3), r#""a", "b" and "c""#);
        assert_eq!(names(["a", "b", "c", "d"].iter(), 2), r#""a", "b" and 2 more"#);
        assert_eq!(choices(["tcp", "udp"].into_iter()), r#""tcp" or "udp""#);
    }

    #[test]
    fn guesses_are_near_or_absent() {
        let keys = ["address", "port", "protocol", "pool"];
        let guess = |meant| nearest(meant, keys.into_iter());
        assert_eq!(guess("ports"), Some("port"));
        assert_eq!(guess("prot"), Some("port"));
        assert_eq!(guess("Addr"), Some("address"));
        assert_eq!(guess("adress"), Some("address"));
        assert_eq!(guess("weight"), None);
        assert_eq!(guess(""), None);
    }
}
