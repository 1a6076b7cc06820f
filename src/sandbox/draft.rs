//! The body of a write: read once, held to the document field by field, all faults reported together.
//!
//! [`parse`] turns bytes into a [`Draft`] that borrows from them (no value tree); [`Draft::check`] turns that into a
//! [`Write`] the platform can apply, or into the list of what is wrong.

use std::borrow::Cow;
use std::fmt;

use serde::Deserializer as _;
use serde::de::{Deserialize, IgnoredAny, MapAccess, SeqAccess, Visitor};

use super::catalogue::Catalogue;
use super::field::{Code, FIELD_COUNT, FIELDS, PACKAGE_ID, Rule, at_most, check, index_of};

/// The greatest `sourceVersion`: what a double holds exactly.
const VERSION_MAX: i64 = 9_007_199_254_740_991;
/// `externalId` has at most so many characters.
const EXTERNAL_ID_MAX: usize = 100;
/// Bits of `Write::names` beyond the table of fields.
const EXTERNAL_ID_BIT: u32 = 62;
const PREVIOUS_BIT: u32 = 63;

/// What a property held in the body.
#[derive(Debug, Default)]
enum Given<'a> {
    #[default]
    Absent,
    Null,
    Text(Cow<'a, str>),
    Integer(i128),
    /// A boolean, an array, an object or a number with a fraction.
    Other,
}

/// A body that is a JSON object, nothing about it judged yet.
#[derive(Debug)]
pub(super) struct Draft<'a> {
    external_id: Given<'a>,
    previous_external_id: Given<'a>,
    source_version: Given<'a>,
    values: [Given<'a>; FIELD_COUNT],
    unknown: Vec<String>,
}

/// Which schema a body is held to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `NewEmployee`
    Create,
    /// `EmployeePatch`
    Patch,
}

/// One entry of a validation problem's `errors`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct FieldError {
    pub(super) field: Cow<'static, str>,
    pub(super) code: Code,
}

/// A write that meets the document.
#[derive(Debug)]
pub(super) struct Write {
    pub(super) external_id: Option<String>,
    pub(super) previous_external_id: Option<String>,
    pub(super) source_version: i64,
    /// Place in the table of fields, and the new value; `None` clears.
    pub(super) changes: Vec<(usize, Option<Box<str>>)>,
}

/// Why bytes are not a draft.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NotADraft {
    /// Not JSON at all.
    NotJson,
    /// JSON, but no object.
    NotAnObject,
}

/// Reads a body.
pub(super) fn parse(body: &[u8]) -> Result<Draft<'_>, NotADraft> {
    let mut json = serde_json::Deserializer::from_slice(body);
    let draft = json.deserialize_any(DraftVisitor).and_then(|draft| json.end().map(|()| draft));
    // A type error is raised before the rest is read, so whether the bytes are JSON is asked anew.
    draft.map_err(|_error| match serde_json::from_slice::<IgnoredAny>(body) {
        Ok(_) => NotADraft::NotAnObject,
        Err(_) => NotADraft::NotJson,
    })
}

impl Draft<'_> {
    /// The HR id in the body, for the journal and for faults aimed at one employee.
    pub(super) fn external_id(&self) -> Option<&str> {
        self.external_id.text()
    }

    /// The version in the body, where it is a whole number.
    pub(super) fn source_version(&self) -> Option<i64> {
        match self.source_version {
            Given::Integer(n) => i64::try_from(n).ok(),
            _ => None,
        }
    }

    /// The properties present but for `sourceVersion`, as bits; see [`names_of`].
    pub(super) fn names(&self) -> u64 {
        let bit = |given: &Given<'_>, at: u32| if given.is_absent() { 0 } else { 1_u64 << at };
        let fields = (0_u32..).zip(&self.values).fold(0, |all, (at, given)| all | bit(given, at));
        fields | bit(&self.external_id, EXTERNAL_ID_BIT) | bit(&self.previous_external_id, PREVIOUS_BIT)
    }

    /// Holds every property to the schema.
    pub(super) fn check(self, kind: Kind, catalogue: &Catalogue) -> Result<Write, Vec<FieldError>> {
        let mut errors = Vec::new();
        let mut fault = |field: &'static str, code| errors.push(FieldError { field: field.into(), code });
        let needs_external_id = kind == Kind::Create || !self.previous_external_id.is_absent();
        let external_id = link_id(self.external_id, needs_external_id).unwrap_or_else(|code| {
            fault("externalId", code);
            None
        });
        let mut unknown = self.unknown;
        let previous_external_id = match kind {
            Kind::Create if !self.previous_external_id.is_absent() => {
                unknown.push("previousExternalId".into());
                None
            }
            _ => link_id(self.previous_external_id, false).unwrap_or_else(|code| {
                fault("previousExternalId", code);
                None
            }),
        };
        let source_version = version(&self.source_version).unwrap_or_else(|code| {
            fault("sourceVersion", code);
            0
        });
        let mut changes = Vec::with_capacity(8);
        for ((at, field), given) in FIELDS.iter().enumerate().zip(self.values) {
            let outcome = match given {
                Given::Absent if kind == Kind::Create && !field.nullable => Err(Code::Required),
                Given::Absent => continue,
                Given::Null if field.nullable => Ok(None),
                Given::Null => Err(Code::Required),
                Given::Text(text) => check(field.rule, &text).and_then(|()| match field.rule {
                    Rule::Picklist(_) if !catalogue.lists(field.name, &text) => Err(Code::UnknownValue),
                    _ => Ok(Some(text.into_owned().into_boxed_str())),
                }),
                Given::Integer(_) | Given::Other => Err(Code::Format),
            };
            match outcome {
                Ok(value) => changes.push((at, value)),
                Err(code) => fault(field.name, code),
            }
        }
        errors.extend(unknown.into_iter().map(|name| FieldError { field: name.into(), code: Code::Format }));
        if errors.is_empty() {
            Ok(Write { external_id, previous_external_id, source_version, changes })
        } else {
            Err(errors)
        }
    }
}

impl Write {
    /// The package it names, if any.
    pub(super) fn package(&self) -> Option<&str> {
        self.changes.iter().find(|(at, _)| *at == PACKAGE_ID).and_then(|(_, value)| value.as_deref())
    }
}

/// The property names behind the bits of [`Draft::names`], in the document's order.
pub(super) fn names_of(bits: u64) -> Vec<&'static str> {
    let has = |at: u32| bits & (1_u64 << at) != 0;
    let links = [(EXTERNAL_ID_BIT, "externalId"), (PREVIOUS_BIT, "previousExternalId")];
    let links = links.into_iter().filter(|(at, _)| has(*at)).map(|(_, name)| name);
    let fields = (0_u32..).zip(&FIELDS).filter(|(at, _)| has(*at)).map(|(_, field)| field.name);
    links.chain(fields).collect()
}

fn link_id(given: Given<'_>, required: bool) -> Result<Option<String>, Code> {
    match given {
        Given::Absent if required => Err(Code::Required),
        Given::Absent => Ok(None),
        Given::Null => Err(Code::Required),
        Given::Text(text) if text.is_empty() => Err(Code::Required),
        Given::Text(text) => at_most(&text, EXTERNAL_ID_MAX).map(|()| Some(text.into_owned())),
        Given::Integer(_) | Given::Other => Err(Code::Format),
    }
}

fn version(given: &Given<'_>) -> Result<i64, Code> {
    match given {
        Given::Absent | Given::Null => Err(Code::Required),
        Given::Integer(n) => {
            let n = i64::try_from(*n).map_err(|_too_large| Code::OutOfRange)?;
            if (1..=VERSION_MAX).contains(&n) { Ok(n) } else { Err(Code::OutOfRange) }
        }
        Given::Text(_) | Given::Other => Err(Code::Format),
    }
}

impl Given<'_> {
    fn is_absent(&self) -> bool {
        matches!(self, Given::Absent)
    }

    fn text(&self) -> Option<&str> {
        match self {
            Given::Text(text) => Some(text),
            _ => None,
        }
    }
}

struct DraftVisitor;

impl<'de> Visitor<'de> for DraftVisitor {
    type Value = Draft<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Draft<'de>, A::Error> {
        let mut draft = Draft {
            external_id: Given::Absent,
            previous_external_id: Given::Absent,
            source_version: Given::Absent,
            values: std::array::from_fn(|_| Given::Absent),
            unknown: Vec::new(),
        };
        while let Some(Name(name)) = map.next_key()? {
            let given = map.next_value()?;
            match &*name {
                "externalId" => draft.external_id = given,
                "previousExternalId" => draft.previous_external_id = given,
                "sourceVersion" => draft.source_version = given,
                other => match index_of(other).and_then(|at| draft.values.get_mut(at)) {
                    Some(place) => *place = given,
                    None => draft.unknown.push(name.into_owned()),
                },
            }
        }
        Ok(draft)
    }
}

/// A property's name: borrowed unless it has escapes.
struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NameVisitor;
        impl<'de> Visitor<'de> for NameVisitor {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a property name")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(NameVisitor)
    }
}

impl<'de> Deserialize<'de> for Given<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(GivenVisitor)
    }
}

struct GivenVisitor;

impl<'de> Visitor<'de> for GivenVisitor {
    type Value = Given<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Given<'de>, E> {
        Ok(Given::Null)
    }

    fn visit_bool<E>(self, _: bool) -> Result<Given<'de>, E> {
        Ok(Given::Other)
    }

    fn visit_i64<E>(self, n: i64) -> Result<Given<'de>, E> {
        Ok(Given::Integer(n.into()))
    }

    fn visit_u64<E>(self, n: u64) -> Result<Given<'de>, E> {
        Ok(Given::Integer(n.into()))
    }

    fn visit_f64<E>(self, n: f64) -> Result<Given<'de>, E> {
        // JSON Schema: a number without a fraction is an integer, however it is written.
        if n.fract() != 0.0 {
            return Ok(Given::Other);
        }
        Ok(Given::Integer(format!("{n:.0}").parse().unwrap_or(i128::MAX)))
    }

    fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Given<'de>, E> {
        Ok(Given::Text(Cow::Borrowed(text)))
    }

    fn visit_str<E>(self, text: &str) -> Result<Given<'de>, E> {
        Ok(Given::Text(Cow::Owned(text.to_owned())))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Given<'de>, A::Error> {
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Given::Other)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Given<'de>, A::Error> {
        while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
        Ok(Given::Other)
    }
}
