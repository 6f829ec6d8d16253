//! Edits, letter by letter.

use serde_json::json;

use super::*;
use crate::{config, reload::changes};

const FILE: &str = r#"# The balancer of the house.

[health]
interval = "2s"   # not less

[pool.web]
servers = [
  { name = "a", address = "10.0.0.1" },   # rack 1
  # Old, but good.
  { name = "b", address = "10.0.0.2", weight = 50 },
]

[[pool.db.servers]]
name = "d1"
address = "10.0.0.9"

# ---- shops ----

# The shop.
[vip.shop]
address = "192.0.2.1"
port = 80           # plain
mode = "snat"
pool = "web"

[vip.shop.health]
check = "http"

# ---- databases ----

[vip.sql]
address = "192.0.2.1"
port = 3306
mode = "snat"
pool = "db"
# The end.
"#;

fn keys(value: Json) -> Map<String, Json> {
    value.as_object().unwrap().clone()
}

/// The text after an edit; it must be a good configuration, and nothing else than `told` may be different.
fn edited(text: &str, edit: &Edit, told: &[&str]) -> String {
    let new = edit.apply(text).unwrap_or_else(|error| panic!("{edit:?}: {error}"));
    config::check("lb.toml", &new).unwrap_or_else(|error| panic!("{edit:?}: {error}\n{new}"));
    let changes: Vec<_> = changes::between(text, &new).iter().map(ToString::to_string).collect();
    assert_eq!(changes, told, "{new}");
    new
}

fn server(name: &str) -> Map<String, Json> {
    keys(json!({ "name": name, "address": "10.0.0.3", "backup": true }))
}

#[test]
fn a_server_is_added_in_the_manner_of_the_list() {
    let add = |pool: &str| Edit::AddServer { pool: pool.into(), keys: server("c") };
    let told = "+ pool.web.servers.c: { address = \"10.0.0.3\", backup = true }";
    let new = edited(FILE, &add("web"), &[told]);
    let expected = FILE.replace(
        "weight = 50 },\n]",
        "weight = 50 },\n  { name = \"c\", address = \"10.0.0.3\", backup = true },\n]",
    );
    assert_eq!(new, expected);
    // Comments behind the last entry stay there, with a comma or without.
    for comma in [",", ""] {
        let file = FILE.replace("weight = 50 },\n]", &format!("weight = 50 }}{comma} # rack 2\n]"));
        let new = edited(&file, &add("web"), &[told]);
        assert!(new.contains("# rack 2\n  { name = \"c\""), "{new}");
    }
    let line = "[pool.web]\nservers = [{ name = \"a\", address = \"10.0.0.1\" }]\n";
    let new = edited(line, &add("web"), &[told]);
    assert!(
        new.starts_with("[pool.web]\nservers = [{ name = \"a\", address = \"10.0.0.1\" }, { name = \"c\""),
        "{new}"
    );

    let told = "+ pool.db.servers.c: { address = \"10.0.0.3\", backup = true }";
    let new = edited(FILE, &add("db"), &[told]);
    assert!(
        new.contains("\n\n[[pool.db.servers]]\nname = \"c\"\naddress = \"10.0.0.3\"\nbackup = true\n"),
        "{new}"
    );
    assert!(add("none").apply(FILE).unwrap_err().contains("there is no pool \"none\""));
    let twice = Edit::AddServer { pool: "web".into(), keys: server("a") };
    assert_eq!(twice.apply(FILE).unwrap_err(), "pool \"web\" has a server \"a\" already");
}

#[test]
fn a_server_goes_with_its_comments_and_no_others() {
    let remove = |name: &str| Edit::RemoveServer { pool: "web".into(), name: name.into() };
    let new = edited(FILE, &remove("b"), &["- pool.web.servers.b: { address = \"10.0.0.2\", weight = 50 }"]);
    let expected =
        FILE.replace("\n  # Old, but good.\n  { name = \"b\", address = \"10.0.0.2\", weight = 50 },", "");
    assert_eq!(new, expected);
    let new = edited(FILE, &remove("a"), &["- pool.web.servers.a: { address = \"10.0.0.1\" }"]);
    assert_eq!(new, FILE.replace("\n  { name = \"a\", address = \"10.0.0.1\" },   # rack 1", ""));
    assert_eq!(remove("z").apply(FILE).unwrap_err(), "pool \"web\" has no server \"z\"");
    // And back again.
    let added = Edit::AddServer { pool: "web".into(), keys: server("c") }.apply(FILE).unwrap();
    assert_eq!(remove("c").apply(&added).unwrap(), FILE);
    let table = Edit::AddServer { pool: "db".into(), keys: server("c") }.apply(FILE).unwrap();
    let back = Edit::RemoveServer { pool: "db".into(), name: "c".into() };
    assert_eq!(back.apply(&table).unwrap(), FILE);
}

/// R23.
#[test]
fn a_clone_differs_in_what_is_said_and_in_nothing_else() {
    let clone = |name: &str, different: Json| Edit::CloneVip {
        from: "shop".into(),
        name: name.into(),
        keys: keys(different),
    };
    let new = edited(
        FILE,
        &clone("shop2", json!({ "port": 8080 })),
        &[
            "+ vip.shop2: { address = \"192.0.2.1\", health = { check = \"http\" }, mode = \"snat\", pool = \"web\", port = 8080 }",
        ],
    );
    let expected = "pool = \"db\"\n\n[vip.shop2]\naddress = \"192.0.2.1\"\nport = 8080\nmode = \"snat\"\npool = \"web\"\n\n\
                    [vip.shop2.health]\ncheck = \"http\"\n# The end.\n";
    assert!(new.ends_with(expected), "{new}");
    assert!(new.starts_with(FILE.strip_suffix("# The end.\n").unwrap()), "{new}");
    let same = clone("shop2", json!({})).apply(FILE).unwrap();
    let refused = config::check("lb.toml", &same).unwrap_err().to_string();
    assert!(refused.contains("shop") && refused.contains("port 80"), "{refused}");
    assert_eq!(clone("sql", json!({})).apply(FILE).unwrap_err(), "there is a VIP \"sql\" already");
    let of_nobody = Edit::CloneVip { from: "x".into(), name: "y".into(), keys: Map::new() };
    assert_eq!(of_nobody.apply(FILE).unwrap_err(), "there is no VIP \"x\" in the file");
}

#[test]
fn a_vip_comes_and_goes_and_what_stands_above_others_stays() {
    let add = Edit::AddVip {
        name: "dns".into(),
        keys: keys(
            json!({ "address": "192.0.2.9", "port": "53,5353", "mode": "snat", "pool": "web", "protocol": "udp", "health": { "port": 53 } }),
        ),
    };
    let new = add.apply(FILE).unwrap();
    config::check("lb.toml", &new).unwrap();
    assert!(new.contains("\n\n[vip.dns]\naddress = \"192.0.2.9\"\nport = \"53,5353\"\n"), "{new}");
    let remove = |name: &str| Edit::RemoveVip { name: name.into() };
    assert_eq!(remove("dns").apply(&new).unwrap(), FILE);
    assert!(add.apply(&new).unwrap_err().contains("already"));

    let new = remove("shop").apply(FILE).unwrap();
    assert!(
        !new.contains("The shop") && new.contains("# ---- shops ----\n\n# ---- databases ----\n\n[vip.sql]"),
        "{new}"
    );
    let new = remove("sql").apply(FILE).unwrap();
    assert!(new.contains("# ---- databases ----\n"), "{new}");
    assert_eq!(remove("x").apply(FILE).unwrap_err(), "there is no VIP \"x\" in the file");
    // From nothing.
    let new = add.apply("").unwrap();
    assert!(new.contains("[vip.dns]") && !new.contains("[vip]"), "{new}");
}

#[test]
fn other_ways_of_writing_the_same_are_edited_too() {
    let file = "vip = { a = { address = \"192.0.2.1\", port = 80, mode = \"snat\", pool = \"p\" } }\n\
                pool.p.servers = [{ name = \"s\", address = \"10.0.0.1\" }]\n";
    config::check("lb.toml", file).unwrap();
    let clone = Edit::CloneVip { from: "a".into(), name: "b".into(), keys: keys(json!({ "port": 81 })) };
    let new = clone.apply(file).unwrap();
    assert_eq!(config::check("lb.toml", &new).unwrap().config.vips.len(), 2, "{new}");
    let add = Edit::AddServer { pool: "p".into(), keys: server("c") };
    let new = add.apply(&new).unwrap();
    assert_eq!(config::check("lb.toml", &new).unwrap().config.pools[0].servers.len(), 2, "{new}");
    let dotted = "vip.a.port = 80\nvip.a.address = \"192.0.2.1\"\nvip.a.mode = \"snat\"\nvip.a.pool = \"p\"\n[pool.p]\n";
    let new = clone.apply(dotted).unwrap();
    assert_eq!(config::check("lb.toml", &new).unwrap().config.vips.len(), 2, "{new}");
    let first =
        Edit::AddServer { pool: "p".into(), keys: keys(json!({ "name": "s", "address": "10.0.0.1" })) };
    let new = first.apply(&new).unwrap();
    assert_eq!(config::check("lb.toml", &new).unwrap().config.pools[0].servers.len(), 1, "{new}");
}

#[test]
fn what_is_sent_is_what_is_meant() {
    let edit = Edit::CloneVip { from: "a".into(), name: "b".into(), keys: keys(json!({ "port": 81 })) };
    let text = serde_json::to_string(&edit).unwrap();
    assert_eq!(text, r#"{"edit":"clone-vip","from":"a","name":"b","keys":{"port":81}}"#);
    assert_eq!(serde_json::from_str::<Edit>(&text).unwrap(), edit);
    assert!(serde_json::from_str::<Edit>(r#"{"edit":"remove-vip","name":"b","x":1}"#).is_err());
    let null = Edit::AddVip { name: "x".into(), keys: keys(json!({ "port": null })) };
    assert!(null.apply("").unwrap_err().contains("null"));
}

#[test]
fn whatever_the_text_is_an_edit_is_refused_or_done() {
    let edits = [
        Edit::AddServer { pool: "web".into(), keys: server("c") },
        Edit::RemoveServer { pool: "web".into(), name: "b".into() },
        Edit::AddServer { pool: "db".into(), keys: server("c") },
        Edit::CloneVip { from: "shop".into(), name: "two".into(), keys: keys(json!({ "port": 81 })) },
        Edit::AddVip { name: "new".into(), keys: keys(json!({ "port": 82 })) },
        Edit::RemoveVip { name: "shop".into() },
    ];
    let mut done = 0;
    for end in (0..FILE.len()).filter(|end| FILE.is_char_boundary(*end)) {
        for (text, edit) in edits.iter().flat_map(|edit| [(&FILE[..end], edit), (&FILE[end..], edit)]) {
            let Ok(new) = edit.apply(text) else { continue };
            new.parse::<toml::Table>().unwrap_or_else(|error| panic!("{edit:?}: {error}\n{text}\n=>\n{new}"));
            done += 1;
        }
    }
    assert!(done > 500, "{done}");
    for odd in
        ["vip = 7", "[pool]\nweb = 7", "[pool.web]\nservers = 7", "[[vip]]", "[pool.web]\nservers = [7]"]
    {
        for edit in &edits {
            if let Ok(new) = edit.apply(odd) {
                assert!(new.parse::<toml::Table>().is_ok(), "{edit:?}: {odd}: {new}");
            }
        }
    }
}

/// Every VIP of every example: cloned, then the clone removed; every server: taken out and put back.
#[test]
fn what_is_undone_leaves_no_trace_in_real_files() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("examples");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut edited = 0;
    for file in files.filter(|path| path.extension().is_some_and(|extension| extension == "toml")) {
        let text = std::fs::read_to_string(&file).unwrap();
        let config = config::check("example", &text).unwrap().config;
        for vip in &config.vips {
            let clone = Edit::CloneVip {
                from: vip.name.clone(),
                name: "copy".into(),
                keys: keys(json!({ "address": "203.0.113.77" })),
            };
            let with = clone.apply(&text).unwrap();
            let checked =
                config::check("example", &with).unwrap_or_else(|error| panic!("{error}\n{with}")).config;
            let (copy, others) = checked.vips.split_last().unwrap();
            assert_eq!(others, config.vips, "the others are as they were");
            let expected = crate::model::Vip { name: "copy".into(), address: copy.address, ..vip.clone() };
            assert_eq!(*copy, expected);
            let without = Edit::RemoveVip { name: "copy".into() }.apply(&with).unwrap();
            assert_eq!(without, text, "{}: {}", file.display(), vip.name);
            let gone = Edit::RemoveVip { name: vip.name.clone() }.apply(&text).unwrap();
            let left =
                config::check("example", &gone).unwrap_or_else(|error| panic!("{error}\n{gone}")).config;
            assert_eq!(left.vips.len() + 1, config.vips.len());
            edited += 1;
        }
        for pool in &config.pools {
            let added =
                Edit::AddServer { pool: pool.name.clone(), keys: server("one-more") }.apply(&text).unwrap();
            let checked = config::check("example", &added).unwrap_or_else(|error| panic!("{error}\n{added}"));
            let other = checked.config.pool(&pool.name).unwrap();
            assert_eq!(other.servers[..pool.servers.len()], pool.servers);
            let back = Edit::RemoveServer { pool: pool.name.clone(), name: "one-more".into() };
            assert_eq!(back.apply(&added).unwrap(), text, "{}: {}", file.display(), pool.name);
        }
    }
    assert!(edited > 25, "{edited}");
}
