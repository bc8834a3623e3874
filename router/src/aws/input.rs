//! What a request asks: fields of its body, of its query and of its path, each taken by its name. What
//! nobody took is no field that thinglog keeps, and refused rather than dropped.

use std::collections::BTreeMap;

use axum::http::Uri;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use thinglog_schemas::{Level, name};

use super::error::Error;
use crate::sigv4::decode;

/// Entries of a page unless told, and most: AWS's.
const USUAL: usize = 25;
const MOST: usize = 250;
/// Bytes of a token that say which list it is of.
const MARK: usize = 8;
/// Most characters of a value that an error shows.
const SHOWN: usize = 60;

/// The fields of a request that were not taken yet.
#[derive(Default)]
pub(super) struct Input {
    body: Map<String, Value>,
    query: BTreeMap<String, String>,
    within: &'static str,
    /// Of what is asked for, pages apart.
    mark: [u8; MARK],
}

/// One page of a list: how long it may be and what it comes behind.
pub(super) struct Page {
    pub(super) limit: usize,
    pub(super) after: Option<String>,
    mark: [u8; MARK],
}

impl Input {
    /// Reads query and body; an empty body has no fields.
    pub(super) fn read(uri: &Uri, body: &[u8]) -> Result<Input, Error> {
        let mut fields = BTreeMap::new();
        let query = uri.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let value = value.replace('+', " ");
            if fields.insert(text(name)?, text(&value)?).is_some() {
                return Err(Error::invalid("a query parameter is there twice"));
            }
        }
        let body = match body.trim_ascii() {
            [] => Map::new(),
            body => serde_json::from_slice(body)
                .map_err(|error| Error::invalid(format!("the body is no JSON object: {error}")))?,
        };
        Ok(Input {
            body,
            mark: mark(uri.path(), &fields),
            query: fields,
            within: "",
        })
    }

    /// Everything that was said has been taken.
    pub(super) fn end(self) -> Result<(), Error> {
        let said = |(_, value): &(&String, &Value)| !is_nothing(value);
        let of_body = self.body.iter().find(said).map(|(name, _)| name);
        match of_body.or(self.query.keys().next()) {
            None => Ok(()),
            Some(field) => {
                let field = shown(field);
                let kept = "is nothing that thinglog keeps; leave it out";
                Err(wrong(self.within, &field, kept))
            }
        }
    }

    fn take(&mut self, field: &str) -> Option<Value> {
        self.body.remove(field).filter(|value| !value.is_null())
    }

    pub(super) fn text(&mut self, field: &str) -> Result<Option<String>, Error> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong(self.within, field, "must be a string")),
        }
    }

    pub(super) fn flag(&mut self, field: &str) -> Result<Option<bool>, Error> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Bool(flag)) => Ok(Some(flag)),
            Some(_) => Err(wrong(self.within, field, "must be true or false")),
        }
    }

    pub(super) fn version(&mut self, field: &str) -> Result<Option<u64>, Error> {
        match self.take(field) {
            None => Ok(None),
            Some(value) => value
                .as_u64()
                .map(Some)
                .ok_or_else(|| wrong(self.within, field, "must be a version number")),
        }
    }

    pub(super) fn level(&mut self, field: &str) -> Result<Option<Level>, Error> {
        let level = |word: &str| match word {
            "DEBUG" => Some(Level::Debug),
            "INFO" => Some(Level::Info),
            "WARN" => Some(Level::Warn),
            "ERROR" => Some(Level::Error),
            "DISABLED" => Some(Level::Disabled),
            _ => None,
        };
        let within = self.within;
        let known = |word: &str| {
            format!(
                "must be DEBUG, INFO, WARN, ERROR or DISABLED, not {}",
                shown(word)
            )
        };
        self.text(field)?
            .map(|word| level(&word).ok_or_else(|| wrong(within, field, &known(&word))))
            .transpose()
    }

    /// The fields of an object in this one.
    pub(super) fn object(&mut self, field: &'static str) -> Result<Option<Input>, Error> {
        match self.take(field) {
            None => Ok(None),
            Some(Value::Object(body)) => Ok(Some(Input::of(field, body))),
            Some(_) => Err(wrong(self.within, field, "must be an object")),
        }
    }

    fn of(within: &'static str, body: Map<String, Value>) -> Input {
        Input {
            body,
            within,
            ..Input::default()
        }
    }

    /// The objects of a list.
    pub(super) fn objects(&mut self, field: &'static str) -> Result<Option<Vec<Input>>, Error> {
        let Some(value) = self.take(field) else {
            return Ok(None);
        };
        let wrong = || wrong(self.within, field, "must be a list of objects");
        let Value::Array(values) = value else {
            return Err(wrong());
        };
        let objects = values.into_iter().map(|value| match value {
            Value::Object(body) => Ok(Input::of(field, body)),
            _ => Err(wrong()),
        });
        objects.collect::<Result<_, _>>().map(Some)
    }

    /// The strings of a list.
    pub(super) fn texts(&mut self, field: &str) -> Result<Vec<String>, Error> {
        let Some(value) = self.take(field) else {
            return Ok(Vec::new());
        };
        serde_json::from_value(value)
            .map_err(|_| wrong(self.within, field, "must be a list of strings"))
    }

    /// Names and values.
    pub(super) fn texts_by_name(
        &mut self,
        field: &str,
    ) -> Result<Option<BTreeMap<String, String>>, Error> {
        self.take(field)
            .map(|value| {
                serde_json::from_value(value)
                    .map_err(|_| wrong(self.within, field, "must hold strings by name"))
            })
            .transpose()
    }

    pub(super) fn query_text(&mut self, field: &str) -> Option<String> {
        self.query.remove(field)
    }

    pub(super) fn query_flag(&mut self, field: &str) -> Result<Option<bool>, Error> {
        match self.query.remove(field).as_deref() {
            None => Ok(None),
            Some("true") => Ok(Some(true)),
            Some("false") => Ok(Some(false)),
            Some(_) => Err(wrong("", field, "must be true or false")),
        }
    }

    pub(super) fn query_version(&mut self, field: &str) -> Result<Option<u64>, Error> {
        let version = self.query.remove(field).map(|text| text.parse());
        version
            .transpose()
            .map_err(|_| wrong("", field, "must be a version number"))
    }

    /// `maxResults` and `nextToken`.
    pub(super) fn page(&mut self) -> Result<Page, Error> {
        let limit = match self.query.remove("maxResults").map(|text| text.parse()) {
            None => USUAL,
            Some(Ok(limit)) if (1..=MOST).contains(&limit) => limit,
            Some(_) => return Err(wrong("", "maxResults", "must be 1 to 250")),
        };
        let of_this = |token: String| {
            let bytes = BASE64.decode(token).ok()?;
            let last = bytes.strip_prefix(&self.mark)?;
            String::from_utf8(last.to_vec()).ok()
        };
        let after = self.query.remove("nextToken").map(|token| {
            of_this(token).ok_or_else(|| wrong("", "nextToken", "is none that this list has given"))
        });
        Ok(Page {
            limit,
            after: after.transpose()?,
            mark: self.mark,
        })
    }
}

impl Page {
    /// The entries of a sorted list that belong to the page, and the token of the next one.
    pub(super) fn of<T>(
        &self,
        entries: impl Iterator<Item = (String, T)>,
    ) -> (Vec<T>, Option<String>) {
        let behind = |(place, _): &(String, T)| {
            self.after
                .as_ref()
                .is_none_or(|after| place.as_str() > after.as_str())
        };
        let mut entries = entries.filter(behind).peekable();
        let (mut page, mut last) = (Vec::new(), String::new());
        while page.len() < self.limit
            && let Some((place, entry)) = entries.next()
        {
            page.push(entry);
            last = place;
        }
        (page, entries.peek().is_some().then(|| self.token(&last)))
    }

    /// The token of the page behind a place.
    pub(super) fn token(&self, last: &str) -> String {
        BASE64.encode([&self.mark, last.as_bytes()].concat())
    }
}

/// What pages of one list have in common, and those of no other.
fn mark(path: &str, query: &BTreeMap<String, String>) -> [u8; MARK] {
    let asked = query
        .iter()
        .filter(|(field, _)| !["maxResults", "nextToken"].contains(&field.as_str()));
    let mut digest = Sha256::new().chain_update(path);
    for (field, value) in asked {
        digest.update(["\0", field, "\0", value].concat());
    }
    let mut mark = [0; MARK];
    mark.copy_from_slice(&digest.finalize()[..MARK]);
    mark
}

/// A part of a path or query, decoded.
pub(super) fn text(encoded: &str) -> Result<String, Error> {
    String::from_utf8(decode(encoded)).map_err(|_| Error::invalid("the request is not UTF-8"))
}

/// A name of AWS's alphabet, for what is created; others that thinglog knows are found all the same.
pub(super) fn new_name(name: &str, what: &str) -> Result<String, Error> {
    let fits = |c: char| c.is_ascii_alphanumeric() || ":_-".contains(c);
    match (1..=128).contains(&name.len()) && name.chars().all(fits) {
        true => Ok(name.to_owned()),
        false => Err(Error::invalid(format!(
            "{} is no name of a {what}: 1-128 characters of a-z A-Z 0-9 : _ -",
            shown(name)
        ))),
    }
}

/// A name of something that may exist.
pub(super) fn old_name(name: &str, what: &str) -> Result<String, Error> {
    match name::is_valid(name) {
        true => Ok(name.to_owned()),
        false => new_name(name, what),
    }
}

/// A field that must be there.
pub(super) fn needed<T>(value: Option<T>, field: &str) -> Result<T, Error> {
    value.ok_or_else(|| Error::invalid(format!("{field} is missing")))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(values) => values.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        _ => false,
    }
}

fn wrong(within: &str, field: &str, must: &str) -> Error {
    match within {
        "" => Error::invalid(format!("{field} {must}")),
        within => Error::invalid(format!("{within}.{field} {must}")),
    }
}

fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(SHOWN).collect::<String>())
}
