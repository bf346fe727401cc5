//! The types that a setting can have.

use crate::component::{Name, Node, Value};
use crate::flow::time::Span;

/// A type that a setting can have.
pub trait Setting: Sized {
    /// What is expected, for messages: `"a length of time like \"10s\""`.
    const EXPECTED: &'static str;

    /// From the value. The error says what is wrong; `None` says that the value is of another type.
    fn read(node: &Node) -> Result<Self, Option<String>>;
}

impl Setting for String {
    const EXPECTED: &'static str = "a string";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(None),
        }
    }
}

impl Setting for Name {
    const EXPECTED: &'static str = "a string";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let text = String::read(node)?;
        Ok(Name { text, at: node.at.clone(), expanded: node.expanded })
    }
}

impl Setting for bool {
    const EXPECTED: &'static str = "true or false";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match node.value {
            Value::Boolean(value) => Ok(value),
            _ => Err(None),
        }
    }
}

impl Setting for i64 {
    const EXPECTED: &'static str = "a whole number";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match node.value {
            Value::Integer(value) => Ok(value),
            _ => Err(None),
        }
    }
}

impl Setting for u64 {
    const EXPECTED: &'static str = "a whole number from 0";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let value = i64::read(node)?;
        u64::try_from(value).map_err(|_| Some(format!("expected a whole number from 0, got {value}")))
    }
}

impl Setting for u16 {
    const EXPECTED: &'static str = "a whole number from 0 to 65535";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let value = i64::read(node)?;
        u16::try_from(value).map_err(|_| Some(format!("expected {}, got {value}", Self::EXPECTED)))
    }
}

impl Setting for usize {
    const EXPECTED: &'static str = "a whole number from 1";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        let value = i64::read(node)?;
        let wrong = || Some(format!("expected a whole number from 1, got {value}"));
        usize::try_from(value).ok().filter(|value| *value > 0).ok_or_else(wrong)
    }
}

impl Setting for f64 {
    const EXPECTED: &'static str = "a number";
    #[expect(clippy::cast_precision_loss, reason = "a setting that is written as a whole number")]
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match node.value {
            Value::Float(value) => Ok(value),
            Value::Integer(value) => Ok(value as f64),
            _ => Err(None),
        }
    }
}

impl Setting for Span {
    const EXPECTED: &'static str = "a length of time like \"10s\"";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::String(text) => text.parse().map_err(Some),
            Value::Integer(n) => {
                Err(Some(format!("a bare number is no length of time; write its unit: \"{n}s\" or \"{n}ms\"")))
            }
            _ => Err(None),
        }
    }
}

impl<T: Setting> Setting for Vec<T> {
    const EXPECTED: &'static str = "an array";
    fn read(node: &Node) -> Result<Self, Option<String>> {
        match &node.value {
            Value::Array(nodes) => {
                let wrong =
                    |node: &Node| format!("expected {} in the array, got {}", T::EXPECTED, node.value.type_name());
                nodes.iter().map(|node| T::read(node).map_err(|why| why.or_else(|| Some(wrong(node))))).collect()
            }
            _ => Err(None),
        }
    }
}
