//! Whatever the text: no panic, places that exist, and a time that grows with the size and not faster.

use std::{fmt::Write as _, fs, path::PathBuf};

use lb_user::config::{Diagnostic, check};

fn examples() -> Vec<String> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../examples");
    let texts: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "toml"))
        .map(|path| fs::read_to_string(path).unwrap())
        .collect();
    assert_eq!(texts.len(), 3);
    texts
}

/// Checks a text of any kind and that what is said about it makes sense; gives the number of findings.
fn survives(text: &str) -> usize {
    let findings: Vec<Diagnostic> = match check("any.toml", text) {
        Ok(checked) => checked.warnings,
        Err(wrong) => {
            assert!(wrong.error_count() > 0, "refused without an error:\n{text}");
            wrong.into_iter().collect()
        }
    };
    let lines: Vec<&str> = text.split('\n').collect();
    for finding in &findings {
        let line = lines.get(finding.line as usize - 1);
        let line = line.unwrap_or_else(|| panic!("{finding} is behind the end of\n{text}"));
        // An error at the end of a line or of the text stands one behind its last character.
        let room = 1..=line.chars().count() as u32 + 1;
        assert!(room.contains(&finding.column), "{finding} is outside of {line:?}");
        assert!(!finding.message.is_empty() && !finding.message.contains('\n'), "{finding}");
    }
    assert!(findings.is_sorted_by_key(|finding| (finding.line, finding.column)), "{findings:?}");
    findings.len()
}

#[test]
fn cut_off_at_every_byte() {
    for text in examples() {
        for end in (0..text.len()).filter(|&end| text.is_char_boundary(end)) {
            survives(&text[..end]);
        }
    }
}

#[test]
fn without_each_line_in_turn() {
    for text in examples() {
        let lines: Vec<&str> = text.lines().collect();
        for missing in 0..lines.len() {
            let mut rest = lines.clone();
            rest.remove(missing);
            survives(&rest.join("\n"));
        }
    }
}

/// Every sign of TOML put in at, and put over, many places of the shortest example.
#[test]
fn with_every_sign_at_every_place() {
    let text = examples().into_iter().min_by_key(String::len).unwrap();
    for at in (0..text.len()).step_by(7).filter(|&at| text.is_char_boundary(at)) {
        for sign in
            ["[", "]", "{", "}", "\"", "'", "\"\"\"", "=", ",", ".", "#", "\n", "\r", "\\", "0", "ü", "\0"]
        {
            survives(&format!("{}{sign}{}", &text[..at], &text[at..]));
            if text.is_char_boundary(at + 1) {
                survives(&format!("{}{sign}{}", &text[..at], &text[at + 1..]));
            }
        }
    }
}

#[test]
fn odd_texts() {
    for text in [
        "\0",
        "\u{feff}\u{feff}",
        "\r",
        "[",
        "]",
        "[[",
        "[[]]",
        "[]",
        "{",
        "=",
        "==",
        ".",
        "\"",
        "'''",
        "\"\"\"",
        "\\",
        "vip",
        "vip =",
        "vip.=1",
        "vip = [[",
        "vip = {{",
        "[vip.\"\"]\n[vip.'']",
        "[vip.a]\n[vip]\na = 1",
        "[[vip.a]]\n[vip.a.health]\nport = 1",
        "[pool]\na = { servers = [[]] }",
        "[[pool.a.servers]]\n[[pool.a.servers.name]]",
        "vip.a.b.c.d.e = 1\nvip.a.b = 2",
        "[vip.a.error_pages]\n\"\" = ''\n[vip.a.error_pages.503]",
        "[vip.a]\nport = \"1-2-3,-,--,99999999999999999999\"",
        "[vip.a]\nport = 0x1f90\nserver_port = 0o17\nmode = 1e400",
        "port = inf\nmode = -nan\naddress = 1979-05-27T07:32:00Z",
        "x = 99999999999999999999999999999999999999999999",
        "ключ = 1\n\"ключ\" = 'значение'",
    ] {
        survives(text);
    }
}

#[test]
fn deep_and_long_texts() {
    for text in [
        "[".repeat(100_000),
        format!("x = {}", "[".repeat(100_000)),
        format!("x = {}", "{ a = ".repeat(100_000)),
        format!("x{} = 1", ".a".repeat(100_000)),
        format!("x = [{}]", "\"a\", ".repeat(100_000)),
        format!(
            "[vip.a]\nport = \"{}\"",
            (1..=30_000).map(|port| format!("{},", port * 2)).collect::<String>()
        ),
        format!("vip = {{ {} }}", (0..20_000).map(|n| format!("v{n} = 1, ")).collect::<String>()),
        "x = y\n".repeat(20_000),
        "[vip.a]\nport = 1\n".repeat(5_000),
        "no key here\n".repeat(20_000),
        "\n".repeat(1_000_000),
    ] {
        survives(&text);
    }
}

#[test]
fn columns_count_characters_and_no_byte_order_mark() {
    let place = |text: &str| {
        let wrong = check("f", text).unwrap_err();
        let last = &wrong.as_slice()[wrong.as_slice().len() - 1];
        (last.line, last.column)
    };
    assert_eq!(place("x = 1"), (1, 1));
    assert_eq!(place("\u{feff}x = 1"), (1, 1));
    assert_eq!(place("\u{feff}\nx = 1"), (2, 1));
    assert_eq!(place("# ü\r\n\r\n  x = 1"), (3, 3));
    assert_eq!(place("vip = { \"ü€😀\" = { x = 1 } }"), (1, 19));
    assert_eq!(place("vip.\"ü€😀\".tls = { certificates = [\"ü€😀\", 5] }"), (1, 42));
}

/// A large site: 1,000 VIPs of three ports each, every one with a pool of five servers.
fn large(pools: usize, servers: usize) -> String {
    let mut text = String::from("[vip_defaults]\nmode = \"snat\"\nport = \"80,443,8000-8002\"\n");
    for pool in 0..pools {
        write!(text, "[pool.p{pool}]\nservers = [\n").unwrap();
        for server in 0..servers {
            let number = pool * servers + server;
            let (high, low) = (number / 250, number % 250 + 1);
            writeln!(text, "  {{ name = \"s{server}\", address = \"10.1.{high}.{low}\" }},").unwrap();
        }
        let (high, low) = (pool / 250, pool % 250 + 1);
        write!(text, "]\n[vip.v{pool}]\naddress = \"10.2.{high}.{low}\"\npool = \"p{pool}\"\n").unwrap();
    }
    text
}

#[test]
fn a_large_configuration_loads() {
    let checked = check("large.toml", &large(1_000, 5)).unwrap_or_else(|wrong| panic!("{wrong}"));
    assert_eq!(checked.warnings, []);
    let config = checked.config;
    assert_eq!((config.vips.len(), config.pools.len()), (1_000, 1_000));
    assert_eq!(config.pools.iter().map(|pool| pool.servers.len()).sum::<usize>(), 5_000);
    for (number, vip) in config.vips.iter().enumerate() {
        assert_eq!(vip.name, format!("v{number}"));
        assert_eq!(config.servers_of(vip).len(), 5);
    }
    assert_eq!(config.servers_of(&config.vips[999])[4].address().unwrap().to_string(), "10.1.19.250");
}

#[test]
fn a_large_configuration_full_of_mistakes_is_reported_in_full() {
    let wrong = check("large.toml", &large(1_000, 5).replace("pool = \"p", "poool = \"p")).unwrap_err();
    assert_eq!(wrong.error_count(), 1_000);
    let same_address = large(1_000, 5).replace("address = \"10.2.", "address = \"10.2.0.1\" #");
    let wrong = check("large.toml", &same_address).unwrap_err();
    assert_eq!(wrong.error_count(), 999, "every VIP but the first clashes");
}

/// The messages of errors only, without places.
fn errors(text: &str) -> Vec<String> {
    check("f", text).unwrap_err().into_iter().map(|finding| finding.message).collect()
}

#[test]
fn limits_are_named() {
    let vips = |count: usize| {
        let mut text = String::from(
            "[pool.p]\nservers = [{ name = \"a\", address = \"10.0.0.2\" }]\n\
             [vip_defaults]\naddress = \"10.0.0.1\"\nmode = \"snat\"\npool = \"p\"\n",
        );
        for vip in 0..count {
            writeln!(text, "[vip.v{vip}]\nport = {}", vip + 1).unwrap();
        }
        text
    };
    assert!(check("f", &vips(4_095)).is_ok());
    assert_eq!(errors(&vips(4_098)), ["VIP \"v4095\": there are 4098 VIPs; at most 4095 are possible"]);

    let pairs = |servers: usize, vips: usize| {
        let mut text = large(1, servers);
        for vip in 1..vips {
            writeln!(text, "[vip.w{vip}]\naddress = \"10.3.0.{vip}\"\npool = \"p0\"").unwrap();
        }
        text
    };
    assert!(check("f", &pairs(1_285, 51)).is_ok(), "51 × 1285 = 65535");
    assert_eq!(
        errors(&pairs(1_286, 51)),
        [
            "VIP \"w50\": with this VIP the servers, counted once per VIP, of all VIPs add up to 65586; at most 65535 \
          are possible"
        ]
    );
}
