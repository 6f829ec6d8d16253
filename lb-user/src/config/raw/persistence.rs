//! `persistence = { … }`: keys that belong to one kind of it, and are refused with others.

use l7_spec::CookiePersistence;

use crate::{
    config::{
        reader::{Field, Located, Table},
        report::Place,
        values::{boolean, cookie_attribute, cookie_name, entry_count, one_of, persistence_time, plain},
    },
    model::Persistence,
};

/// Kinds of persistence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    None,
    Cookie,
    SourceIp,
    LastSuccessful,
}

const KINDS: [(&str, Kind); 4] = [
    ("none", Kind::None),
    ("source-ip", Kind::SourceIp),
    ("last-successful", Kind::LastSuccessful),
    ("cookie", Kind::Cookie),
];

/// What became of a key: where it stands if it is there, and whether it is wrong.
struct Key {
    name: &'static str,
    of: Kind,
    place: Option<Place>,
    is_broken: bool,
}

impl Key {
    fn of<T>(name: &'static str, of: Kind, field: &Field<T>) -> Self {
        Self { name, of, place: field.get().map(|field| field.key), is_broken: field.is_broken() }
    }
}

pub(super) fn read_persistence(table: &mut Table<'_, '_>) -> Field<Persistence> {
    let kind =
        table.need("type", r#"type = "source-ip""#, |value| one_of(value, "kind of persistence", &KINDS));
    let name = table.get("name", cookie_name);
    let (http_only, same_site) = (table.get("http_only", boolean), table.get("same_site", plain));
    let (secure, domain) = (table.get("secure", boolean), table.get("domain", cookie_attribute));
    let path = table.get("path", cookie_attribute);
    let (timeout, entries) = (table.get("timeout", persistence_time), table.get("entries", entry_count));
    let keys = [
        Key::of("name", Kind::Cookie, &name),
        Key::of("http_only", Kind::Cookie, &http_only),
        Key::of("same_site", Kind::Cookie, &same_site),
        Key::of("secure", Kind::Cookie, &secure),
        Key::of("domain", Kind::Cookie, &domain),
        Key::of("path", Kind::Cookie, &path),
        Key::of("timeout", Kind::SourceIp, &timeout),
        Key::of("entries", Kind::SourceIp, &entries),
    ];
    let Some(kind) = kind.get() else { return Field::Broken };
    if !fit(table, kind.value, &keys) {
        return Field::Broken;
    }
    let value = match (kind.value, name.into_value()) {
        (Kind::Cookie, Some(name)) => {
            let usual = CookiePersistence::named(&name);
            Persistence::Cookie(CookiePersistence {
                http_only: http_only.into_value().unwrap_or(usual.http_only),
                same_site: same_site.into_value(),
                secure: secure.into_value(),
                domain: domain.into_value(),
                path: path.into_value().unwrap_or(usual.path),
                name,
            })
        }
        (Kind::Cookie, None) => {
            let label = table.label();
            let problem = format!("{label} needs the \"name\" of the cookie; add name = \"SERVERID\"");
            table.report().error(table.at(), problem);
            return Field::Broken;
        }
        (Kind::None, _) => Persistence::None,
        (Kind::SourceIp, _) => {
            Persistence::SourceIp { timeout: timeout.into_value(), entries: entries.into_value() }
        }
        (Kind::LastSuccessful, _) => Persistence::LastSuccessful,
    };
    Field::Set(Located { value, key: kind.key, at: kind.at })
}

/// Whether all keys that are there belong to this kind and can be used; what does not is reported.
fn fit(table: &Table<'_, '_>, kind: Kind, keys: &[Key]) -> bool {
    let mut fit = true;
    for key in keys {
        if let (Some(place), true) = (key.place, key.of != kind) {
            let of = KINDS.iter().find(|(_, of)| *of == key.of).map_or("", |(word, _)| *word);
            let (name, label) = (key.name, table.label());
            table.report().error(place, format!("{name} in {label} belongs to type = {of:?}; remove it"));
            fit = false;
        }
        fit &= !key.is_broken;
    }
    fit
}
