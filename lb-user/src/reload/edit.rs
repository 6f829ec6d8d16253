//! Changes to a configuration file that keep what people have put into it: comments, order, spelling. Pure.
//!
//! Whether what comes out can be used is judged afterwards, as a whole, like any other file.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use toml_edit::{
    Array, ArrayOfTables, Decor, DocumentMut, InlineTable, Item, RawString, Table, TableLike, Value,
};

/// A change to the file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "edit", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Edit {
    /// Another VIP.
    AddVip {
        /// Its name.
        name: String,
        /// What stands in its table.
        keys: Map<String, Json>,
    },
    /// A VIP goes.
    RemoveVip {
        /// Its name.
        name: String,
    },
    /// A VIP like another one.
    CloneVip {
        /// The name of the other.
        from: String,
        /// Its own name.
        name: String,
        /// What is different.
        keys: Map<String, Json>,
    },
    /// Another server of a pool.
    AddServer {
        /// The pool's name.
        pool: String,
        /// What stands in its table; its name, too.
        keys: Map<String, Json>,
    },
    /// A server of a pool goes.
    RemoveServer {
        /// The pool's name.
        pool: String,
        /// The server's.
        name: String,
    },
}

impl Edit {
    /// The text with the change.
    ///
    /// # Errors
    /// When what it is about is not there, or is already; or the text is not TOML.
    pub fn apply(&self, text: &str) -> Result<String, String> {
        let mut file: DocumentMut =
            text.parse().map_err(|error: toml_edit::TomlError| error.to_string().trim_end().to_owned())?;
        match self {
            Self::AddVip { name, keys } => add_vip(&mut file, name, new_table(keys)?)?,
            Self::CloneVip { from, name, keys } => {
                let mut copy = member(&mut file, "vip", from)?.clone();
                forget_place(&mut copy);
                let table = copy.as_table_like_mut().ok_or_else(|| format!("[vip.{from}] is no table"))?;
                for (key, value) in keys {
                    table.insert(key, Item::Value(value_of(value)?));
                }
                add_vip(&mut file, name, copy)?;
            }
            Self::RemoveVip { name } => remove_vip(&mut file, name)?,
            Self::AddServer { pool, keys } => {
                let name = keys.get("name").and_then(Json::as_str).unwrap_or_default();
                match servers(&mut file, pool, name)? {
                    (_, Some(_)) => return Err(format!("pool {pool:?} has a server {name:?} already")),
                    (List::Inline(list), None) => push(list, inline_table(keys)?),
                    (List::Tables(list), None) => list.push(own_table(keys)?),
                }
            }
            Self::RemoveServer { pool, name } => match servers(&mut file, pool, name)? {
                (_, None) => return Err(format!("pool {pool:?} has no server {name:?}")),
                (List::Inline(list), Some(place)) => take_out(list, place),
                (List::Tables(list), Some(place)) => drop(list.remove(place)),
            },
        }
        Ok(file.to_string())
    }
}

/// A VIP or pool of this name.
fn member<'a>(file: &'a mut DocumentMut, kind: &str, name: &str) -> Result<&'a mut Item, String> {
    let what = if kind == "vip" { "VIP" } else { kind };
    let group = file.get_mut(kind).and_then(Item::as_table_like_mut);
    group
        .and_then(|group| group.get_mut(name))
        .ok_or_else(|| format!("there is no {what} {name:?} in the file"))
}

fn add_vip(file: &mut DocumentMut, name: &str, vip: Item) -> Result<(), String> {
    let mut all = Table::new();
    all.set_implicit(true);
    let vips = file.entry("vip").or_insert(Item::Table(all));
    let vips = vips.as_table_like_mut().ok_or("vip is no table in the file")?;
    if vips.contains_key(name) {
        return Err(format!("there is a VIP {name:?} already"));
    }
    vips.insert(name, vip);
    Ok(())
}

fn new_table(keys: &Map<String, Json>) -> Result<Item, String> {
    own_table(keys).map(Item::Table)
}

/// A table under a heading of its own, after an empty line.
fn own_table(keys: &Map<String, Json>) -> Result<Table, String> {
    let mut table = Table::new();
    for (key, value) in keys {
        table.insert(key, Item::Value(value_of(value)?));
    }
    table.decor_mut().set_prefix("\n");
    Ok(table)
}

fn inline_table(keys: &Map<String, Json>) -> Result<InlineTable, String> {
    keys.iter().map(|(key, value)| Ok((key, value_of(value)?))).collect()
}

fn value_of(value: &Json) -> Result<Value, String> {
    Ok(match value {
        Json::Null => return Err("null is nothing that a configuration can say".into()),
        Json::Bool(value) => (*value).into(),
        Json::Number(value) => match (value.as_i64(), value.as_f64()) {
            (Some(value), _) => value.into(),
            (None, Some(value)) => value.into(),
            (None, None) => return Err(format!("{value} is too large")),
        },
        Json::String(value) => value.as_str().into(),
        Json::Array(list) => list.iter().map(value_of).collect::<Result<Array, _>>()?.into(),
        Json::Object(table) => inline_table(table)?.into(),
    })
}

/// Has tables stand where they are put, not where they were; what was said above them was about the original.
fn forget_place(item: &mut Item) {
    match item {
        Item::Table(table) => {
            table.set_position(None);
            table.decor_mut().set_prefix("\n");
            table.iter_mut().for_each(|(_, item)| forget_place(item));
        }
        Item::ArrayOfTables(list) => {
            for table in list.iter_mut() {
                table.set_position(None);
                table.iter_mut().for_each(|(_, item)| forget_place(item));
            }
        }
        Item::None | Item::Value(_) => {}
    }
}

/// Takes a VIP out. What stands above its heading is about it, up to the last empty line; the rest stays.
fn remove_vip(file: &mut DocumentMut, name: &str) -> Result<(), String> {
    let above = match member(file, "vip", name)? {
        Item::Table(table) => prefix(table.decor()),
        _ => String::new(),
    };
    let position = member(file, "vip", name)?.as_table().and_then(Table::position);
    let vips = file.get_mut("vip").and_then(Item::as_table_like_mut);
    vips.and_then(|vips| vips.remove(name));
    let kept = above.rfind("\n\n").map_or("", |end| &above[..=end]);
    if kept.trim().is_empty() {
        return Ok(());
    }
    let places = tables(file.as_table()).into_iter().filter_map(Table::position);
    let next = places.filter(|place| Some(*place) > position).min();
    if let Some(next) = next {
        at_place(file.as_table_mut(), next, &mut |table| {
            let below = prefix(table.decor());
            table.decor_mut().set_prefix(format!("{kept}{below}"));
        });
    } else {
        let below = file.trailing().as_str().unwrap_or("").to_owned();
        file.set_trailing(format!("{kept}{below}"));
    }
    Ok(())
}

/// All tables with a heading of their own.
fn tables(of: &Table) -> Vec<&Table> {
    let mut all = Vec::new();
    for (_, item) in of {
        match item {
            Item::Table(table) => {
                if !table.is_implicit() && !table.is_dotted() {
                    all.push(table);
                }
                all.extend(tables(table));
            }
            Item::ArrayOfTables(list) => list.iter().for_each(|table| {
                all.push(table);
                all.extend(tables(table));
            }),
            Item::None | Item::Value(_) => {}
        }
    }
    all
}

/// Has the table at a place changed.
fn at_place(of: &mut Table, place: isize, change: &mut dyn FnMut(&mut Table)) {
    for (_, item) in of.iter_mut() {
        match item {
            Item::Table(table) => {
                if !table.is_implicit() && table.position() == Some(place) {
                    change(table);
                }
                at_place(table, place, change);
            }
            Item::ArrayOfTables(list) => list.iter_mut().for_each(|table| {
                if table.position() == Some(place) {
                    change(table);
                }
                at_place(table, place, change);
            }),
            Item::None | Item::Value(_) => {}
        }
    }
}

/// The servers of a pool, as they are written.
enum List<'a> {
    /// `servers = [{ … }, … ]`
    Inline(&'a mut Array),
    /// `[[pool.web.servers]]`
    Tables(&'a mut ArrayOfTables),
}

/// The servers of a pool, and the place of one of them.
fn servers<'a>(
    file: &'a mut DocumentMut,
    pool: &str,
    name: &str,
) -> Result<(List<'a>, Option<usize>), String> {
    let table = member(file, "pool", pool)?.as_table_like_mut();
    let table = table.ok_or_else(|| format!("[pool.{pool}] is no table"))?;
    let list = table.entry("servers").or_insert(Item::Value(Array::new().into()));
    let is_it = |table: &dyn TableLike| table.get("name").and_then(Item::as_str) == Some(name);
    match list {
        Item::Value(Value::Array(list)) => {
            let place =
                list.iter().position(|server| server.as_inline_table().is_some_and(|table| is_it(table)));
            Ok((List::Inline(list), place))
        }
        Item::ArrayOfTables(list) => {
            let place = list.iter().position(|table| is_it(table));
            Ok((List::Tables(list), place))
        }
        _ => Err(format!("servers of pool {pool:?} is no list")),
    }
}

fn prefix(decor: &Decor) -> String {
    decor.prefix().and_then(RawString::as_str).unwrap_or("").to_owned()
}

/// Appends to a list, in the manner of its last entry. A comment behind that one stays there.
fn push(list: &mut Array, table: InlineTable) {
    let mut value = Value::from(table);
    let Some(last) = list.iter().last() else {
        list.push(value);
        return;
    };
    let before = prefix(last.decor());
    let margin = before.rfind('\n').map_or("", |line| &before[line..]).to_owned();
    if margin.is_empty() {
        list.push(value);
        return;
    }
    // Without a comma behind the last entry, what follows is its own.
    let mut tail = list.trailing().as_str().unwrap_or("").to_owned();
    let last = list.len() - 1;
    if let Some(last) = list.get_mut(last) {
        let suffix = last.decor().suffix().and_then(RawString::as_str).unwrap_or("").to_owned();
        last.decor_mut().set_suffix("");
        tail = suffix + &tail;
    }
    let (comment, end) = tail.split_at(tail.rfind('\n').unwrap_or(0));
    value.decor_mut().set_prefix(format!("{}{margin}", comment.trim_end()));
    list.push_formatted(value);
    list.set_trailing_comma(true);
    list.set_trailing(if end.contains('\n') { end.to_owned() } else { "\n".to_owned() });
}

/// Takes an entry out of a list. What stands on its line goes with it; what stands on the line before stays.
fn take_out(list: &mut Array, place: usize) {
    let removed = prefix(list.remove(place).decor());
    let (before, _) = split_line(&removed);
    let behind = match list.get(place) {
        Some(next) => prefix(next.decor()),
        None => list.trailing().as_str().unwrap_or("").to_owned(),
    };
    let (_, rest) = split_line(&behind);
    let joined =
        if removed.contains('\n') || behind.contains('\n') { format!("{before}{rest}") } else { removed };
    if let Some(next) = list.get_mut(place) {
        next.decor_mut().set_prefix(joined);
    } else if behind.contains('\n') {
        list.set_trailing(joined);
    }
}

/// What is on a line still, and the rest.
fn split_line(text: &str) -> (&str, &str) {
    text.split_at(text.find('\n').unwrap_or(text.len()))
}

#[cfg(test)]
mod tests;
