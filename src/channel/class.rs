//! A class: the word that names a channel in SQL, JSON, routing keys and on the command line.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::openapi::{ObjectBuilder, RefOr, Schema, Type};

use super::properties::Channel;
use super::{instagram, messenger};
use crate::text::UnknownWord;

/// The channel of a line, readable as its [`Channel`].
#[derive(Clone, Copy)]
pub struct Class(&'static Channel);

impl Class {
    pub const MESSENGER: Class = Class(&messenger::MESSENGER);
    pub const INSTAGRAM: Class = Class(&instagram::INSTAGRAM);

    /// Every channel, in the order in which interfaces list them.
    pub const ALL: &'static [Class] = &[
        Class::MESSENGER,
        Class::INSTAGRAM,
        #[cfg(test)]
        Class(&super::sample::SAMPLE),
    ];

    pub const fn as_str(self) -> &'static str {
        self.0.name
    }
}

impl Deref for Class {
    type Target = Channel;

    fn deref(&self) -> &Channel {
        self.0
    }
}

impl PartialEq for Class {
    fn eq(&self, other: &Class) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for Class {}

impl Hash for Class {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name.hash(state);
    }
}

impl fmt::Debug for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name)
    }
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.0.name)
    }
}

impl FromStr for Class {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Class, UnknownWord> {
        let known = Class::ALL.iter().find(|class| class.as_str() == word);
        known.copied().ok_or_else(|| UnknownWord { what: "class", value: word.to_owned() })
    }
}

impl Serialize for Class {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.0.name)
    }
}

impl<'de> Deserialize<'de> for Class {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Class, D::Error> {
        let word = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        word.parse().map_err(serde::de::Error::custom)
    }
}

impl utoipa::PartialSchema for Class {
    fn schema() -> RefOr<Schema> {
        let words = Class::ALL.iter().map(|class| class.as_str());
        ObjectBuilder::new().schema_type(Type::String).enum_values(Some(words)).into()
    }
}

impl utoipa::ToSchema for Class {}
