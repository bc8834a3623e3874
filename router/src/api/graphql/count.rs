//! How many there are of something. GraphQL's `Int` ends at 2^31 (its specification, 3.5.1); bytes and
//! events do not.

use async_graphql::{InputValueError, InputValueResult, Number, Scalar, ScalarType, Value};
use serde::Deserialize;

/// So many, of up to 64 bits.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(transparent)]
pub(super) struct Count(pub(super) u64);

/// A whole number from 0: a plain number of JSON, which may pass the 2^31 of `Int`.
#[Scalar(name = "Count")]
impl ScalarType for Count {
    fn parse(value: Value) -> InputValueResult<Count> {
        match &value {
            Value::Number(number) => number.as_u64().map(Count),
            _ => None,
        }
        .ok_or_else(|| InputValueError::expected_type(value))
    }

    fn to_value(&self) -> Value {
        Value::Number(Number::from(self.0))
    }
}
