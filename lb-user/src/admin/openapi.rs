//! The interface's description of itself (OpenAPI 3.1), made of the table of routes and of the types that answers are
//! written from.
//!
//! The schemas come from `schemars`: it reads the same derives as serde, so that they cannot say something else, and pulls
//! in nothing but derive macros. `utoipa` would do as well, but binds paths to handler functions; here one table has them.

use std::sync::LazyLock;

use hyper::Method;
use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    error::Body,
    routes::{Answer, Parameter, ROUTES, Route},
};

/// The document.
#[must_use]
pub fn document() -> &'static Value {
    static DOCUMENT: LazyLock<Value> = LazyLock::new(make);
    &DOCUMENT
}

fn make() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut answers = settings.clone().for_serialize().into_generator();
    // What is asked for is written out where it is: some of its types say more when they are read than when they are written.
    let mut bodies =
        settings.with(|settings| settings.inline_subschemas = true).for_deserialize().into_generator();
    let refusal = answers.subschema_for::<Body>().to_value();
    let mut paths = Map::new();
    for route in &ROUTES {
        let entry = paths.entry(route.path).or_insert_with(|| json!({}));
        let described = operation(route, &mut answers, &mut bodies);
        let method = if route.writes { Method::POST } else { Method::GET };
        entry[method.as_str().to_ascii_lowercase()] = described;
    }
    let schemas = answers.take_definitions(true);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "lb-user",
            "summary": "What lbctl asks the load balancer daemon for.",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "MIT OR Apache-2.0" },
        },
        "servers": [
            { "url": "https://{host}", "description": "With --api.", "variables": { "host": { "default": "localhost:9443" } } },
            { "url": "http://localhost", "description": "Over the admin socket, /run/lb/admin.sock." },
        ],
        "security": [{ "token": [] }, {}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": { "token": {
                "type": "http",
                "scheme": "bearer",
                "description": "Over TCP: a token that lbctl token new has made. Over the socket the user id counts.",
            } },
            "responses": { "Refused": {
                "description": "It was not done. 400: what is asked for makes no sense; 401: no valid token; 403: another \
                    role is needed; 404: nothing is there; 405, 408, 413, 415, 429: as HTTP has it; 409: one at a time; 412: \
                    something else is in use than If-Match says; 422: it cannot be done; 500: a fault of lb-user.",
                "content": { "application/json": { "schema": refusal } },
            } },
            "headers": { "ETag": {
                "description": "What is in use: the configuration and the operators' words, not what is counted.",
                "schema": { "type": "string" },
            } },
        },
    })
}

/// One row of the table.
fn operation(route: &Route, answers: &mut SchemaGenerator, bodies: &mut SchemaGenerator) -> Value {
    let mut parameters: Vec<_> = route.parameters().map(parameter).collect();
    let mut operation = json!({
        "operationId": format!("{:?}", route.op),
        "summary": route.about,
        "description": format!("Needs the role {} or above.", route.role),
        "x-role": route.role.name(),
    });
    if route.writes {
        parameters.push(json!({
            "name": "If-Match",
            "in": "header",
            "description": "An ETag: it is done only if that is still in use.",
            "schema": { "type": "string" },
        }));
    }
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(describe) = route.body {
        let schema = describe(bodies).to_value();
        operation["requestBody"] =
            json!({ "required": true, "content": { "application/json": { "schema": schema } } });
    }
    let content = match route.answer {
        Answer::Json(describe) => json!({ "application/json": { "schema": describe(answers).to_value() } }),
        Answer::Lines(describe) => json!({ "application/jsonl": { "schema": describe(answers).to_value() } }),
        Answer::Text(kind) => json!({ kind: {} }),
    };
    let mut ok = json!({ "description": "Done.", "content": content });
    if route.tagged {
        ok["headers"] = json!({ "ETag": { "$ref": "#/components/headers/ETag" } });
    }
    operation["responses"] = json!({ "200": ok, "default": { "$ref": "#/components/responses/Refused" } });
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    json!({
        "name": parameter.name,
        "in": "query",
        "required": parameter.required,
        "description": parameter.about,
        "schema": { "type": parameter.kind },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every reference in a document.
    fn references<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::Object(members) => {
                found.extend(members.get("$ref").and_then(Value::as_str));
                members.values().for_each(|member| references(member, found));
            }
            Value::Array(entries) => entries.iter().for_each(|entry| references(entry, found)),
            _ => {}
        }
    }

    #[test]
    fn every_row_of_the_table_is_described_and_every_reference_leads_somewhere() {
        let document = document();
        for route in &ROUTES {
            let method = if route.writes { "post" } else { "get" };
            let operation = &document["paths"][route.path][method];
            assert_eq!(operation["summary"], route.about, "{}", route.path);
            assert_eq!(operation.get("requestBody").is_some(), route.body.is_some(), "{}", route.path);
            let named = operation["parameters"].as_array().into_iter().flatten();
            let named: Vec<_> = named.filter_map(|parameter| parameter["name"].as_str()).collect();
            assert!(route.parameters().all(|parameter| named.contains(&parameter.name)), "{named:?}");
        }
        let mut found = Vec::new();
        references(document, &mut found);
        assert!(found.len() > 20, "{found:?}");
        for reference in found {
            let pointer = reference.strip_prefix('#').expect("within the document");
            assert!(document.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }

    #[test]
    fn descriptions_are_those_of_the_types() {
        let schemas = &document()["components"]["schemas"];
        let snapshot = &schemas["Snapshot"];
        assert!(snapshot["properties"]["vips"]["description"].as_str().unwrap().contains("file order"));
        assert!(snapshot["required"].as_array().unwrap().contains(&"etag".into()));
        let weight = &document()["paths"]["/v1/server"]["post"]["requestBody"]["content"]["application/json"];
        assert!(weight.to_string().contains("65535") || weight.to_string().contains("uint16"), "{weight}");
    }

    #[test]
    fn the_copy_in_the_repository_is_up_to_date() {
        let copy = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.json")).unwrap();
        let copy: Value = serde_json::from_str(&copy).unwrap();
        assert!(copy == *document(), "say: cargo run -p lb-user --bin lbctl openapi > lb-user/openapi.json");
    }
}
