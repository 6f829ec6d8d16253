//! Whether JSON is of the form that a JSON schema asks for: the keywords that our own descriptions use, and no others. One
//! that is not known here is a panic, so that nothing is taken for checked.

use serde_json::{Map, Value};

/// Says what is wrong with a value, and where.
///
/// # Errors
/// The first difference.
///
/// # Panics
/// When the schema uses a keyword that is not known here, or refers to nothing.
pub fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    Checker { document }.check(schema, value, "$")
}

struct Checker<'a> {
    document: &'a Value,
}

impl Checker<'_> {
    fn check(&self, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
        let Value::Object(schema) = schema else {
            return if *schema == Value::Bool(false) {
                Err(format!("{at}: nothing may be here"))
            } else {
                Ok(())
            };
        };
        for (keyword, wanted) in schema {
            self.keyword(keyword, wanted, schema, value, at)?;
        }
        Ok(())
    }

    fn keyword(
        &self,
        keyword: &str,
        wanted: &Value,
        schema: &Map<String, Value>,
        value: &Value,
        at: &str,
    ) -> Result<(), String> {
        let wrong = |what: &str| Err(format!("{at}: {what}: {value}"));
        match keyword {
            "description" | "format" | "default" | "title" => Ok(()),
            "$ref" => {
                let pointer = wanted.as_str().and_then(|reference| reference.strip_prefix('#'));
                let schema = pointer.and_then(|pointer| self.document.pointer(pointer));
                self.check(schema.unwrap_or_else(|| panic!("{wanted} leads nowhere")), value, at)
            }
            "type" => {
                let names = wanted.as_array().map_or_else(|| vec![wanted], |names| names.iter().collect());
                let fits = names.iter().any(|name| is_a(value, name.as_str().expect("the name of a type")));
                if fits { Ok(()) } else { wrong(&format!("not of the type {wanted}")) }
            }
            "const" => {
                if value == wanted {
                    Ok(())
                } else {
                    wrong(&format!("not {wanted}"))
                }
            }
            "minimum" | "maximum" => {
                let (Some(number), Some(limit)) = (value.as_f64(), wanted.as_f64()) else { return Ok(()) };
                let fits = if keyword == "minimum" { number >= limit } else { number <= limit };
                if fits { Ok(()) } else { wrong(&format!("beyond the {keyword} {wanted}")) }
            }
            "required" => {
                let Value::Object(members) = value else { return Ok(()) };
                let missing = names(wanted).find(|name| !members.contains_key(*name));
                missing.map_or(Ok(()), |name| wrong(&format!("without {name}")))
            }
            "properties" => {
                let (Value::Object(members), Value::Object(known)) = (value, wanted) else { return Ok(()) };
                let known =
                    members.iter().filter_map(|(name, member)| Some((name, member, known.get(name)?)));
                known.into_iter().try_for_each(|(name, member, schema)| {
                    self.check(schema, member, &format!("{at}.{name}"))
                })
            }
            "additionalProperties" => {
                let Value::Object(members) = value else { return Ok(()) };
                let known = schema.get("properties");
                let others =
                    members.iter().filter(|(name, _)| known.is_none_or(|known| known.get(name).is_none()));
                others
                    .into_iter()
                    .try_for_each(|(name, member)| self.check(wanted, member, &format!("{at}.{name}")))
            }
            "items" => {
                let entries = value.as_array().into_iter().flatten().enumerate();
                entries
                    .into_iter()
                    .try_for_each(|(place, entry)| self.check(wanted, entry, &format!("{at}[{place}]")))
            }
            "anyOf" | "oneOf" => {
                let ways: Vec<_> = wanted.as_array().expect("a list of schemas").iter().collect();
                let outcomes: Vec<_> = ways.iter().map(|schema| self.check(schema, value, at)).collect();
                match outcomes.iter().filter(|outcome| outcome.is_ok()).count() {
                    1 => Ok(()),
                    0 => wrong(&format!("fits none of {} ways: {outcomes:?}", ways.len())),
                    _ if keyword == "anyOf" => Ok(()),
                    _ => wrong("fits several ways of which one is wanted"),
                }
            }
            other => panic!("the keyword {other} is not known here"),
        }
    }
}

fn names(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

fn is_a(value: &Value, name: &str) -> bool {
    match name {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("{other} is no type of JSON"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_fits_passes_and_what_does_not_is_named_with_its_place() {
        let document = json!({ "defs": { "Server": {
            "type": "object",
            "properties": {
                "name": { "type": "string" },
                "weight": { "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 10 }, { "const": "file" }] },
                "tags": { "type": ["array", "null"], "items": { "type": "string" } },
            },
            "required": ["name"],
            "additionalProperties": false,
        } } });
        let schema = json!({ "type": "array", "items": { "$ref": "#/defs/Server" } });
        let outcome = |value: Value| check(&document, &schema, &value);
        for fits in [
            json!([]),
            json!([{ "name": "a" }]),
            json!([{ "name": "a", "weight": 10, "tags": null }, { "name": "b", "weight": "file", "tags": ["x"] }]),
        ] {
            assert_eq!(outcome(fits), Ok(()));
        }
        for (wrong, at) in [
            (json!({}), "$: not of the type"),
            (json!([{}]), "$[0]: without name"),
            (json!([{ "name": 7 }]), "$[0].name: not of the type"),
            (json!([{ "name": "a", "weight": 11 }]), "$[0].weight: fits none"),
            (json!([{ "name": "a", "tags": ["x", 1] }]), "$[0].tags[1]"),
            (json!([{ "name": "a", "more": 1 }]), "$[0].more: nothing may be here"),
        ] {
            let error = outcome(wrong).unwrap_err();
            assert!(error.starts_with(at), "{error}");
        }
        let both = json!({ "oneOf": [{ "type": "integer" }, { "type": "number" }] });
        assert!(check(&document, &both, &json!(1)).is_err() && check(&document, &both, &json!(1.5)).is_ok());
    }
}
