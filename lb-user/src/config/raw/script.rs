//! `script = [{ send = "…" }, { expect = "…" }]`: a conversation with a server, step by step.

use crate::{
    config::{
        reader::{Field, Table},
        values::{bytes, expected_bytes},
    },
    model::Step,
};

/// More steps are no health check.
const MOST_STEPS: usize = 16;

pub(super) fn read(table: &mut Table<'_, '_>) -> Field<Vec<Step>> {
    let steps = table.tables("script", "step", r#"{ send = "PING\r\n" }"#, read_step);
    let Field::Set(located) = &steps else { return steps.map(|_| Vec::new()) };
    let (label, count) = (table.label(), located.value.len());
    let problem = if count == 0 {
        "is empty; add a step such as { expect = \"220 \" }".to_owned()
    } else if count > MOST_STEPS {
        format!("has {count} steps; at most {MOST_STEPS} are allowed")
    } else if located.value.iter().any(Option::is_none) {
        return Field::Broken;
    } else {
        return steps.map(|steps| steps.into_iter().flatten().collect());
    };
    table.report().error(located.at, format!("script in {label} {problem}"));
    Field::Broken
}

/// One step, if it can be used.
fn read_step(step: &mut Table<'_, '_>) -> Option<Step> {
    let send = step.get("send", words);
    let expect = step.get("expect", expected_bytes);
    let begins = step.get("begins", expected_bytes);
    let fields = [&send, &expect, &begins];
    let written = fields.iter().filter(|field| !field.is_absent()).count();
    if written != 1 {
        let misspelt = !step.misspelt().is_empty();
        if !misspelt && !step.report().is_incomplete() {
            let label = step.label().to_owned();
            let text = format!("{label} needs one of the keys send, expect and begins, and has {written}");
            step.report().error(step.at(), text);
        }
        return None;
    }
    let [send, expect, begins] = [send, expect, begins].map(Field::into_value);
    send.map(Step::Send).or(expect.map(Step::Expect)).or(begins.map(Step::Begins))
}

fn words(value: &toml::de::DeValue<'_>) -> Result<Vec<u8>, String> {
    match bytes(value)? {
        nothing if nothing.is_empty() => {
            Err("nothing would be sent; write what to say, or remove the step".into())
        }
        bytes => Ok(bytes),
    }
}
