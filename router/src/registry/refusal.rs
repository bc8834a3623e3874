//! Why a change or a question is refused, under the names that AWS IoT gives its errors.

use serde::Serialize;

/// The kind of a refusal. Its name is part of every answer, so that callers can tell them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
pub enum Code {
    /// Something is missing, unknown or out of its range.
    InvalidRequest,
    /// What the request names does not exist.
    ResourceNotFound,
    /// It exists already and says something else.
    ResourceAlreadyExists,
    /// It has another version than the caller expects.
    VersionConflict,
    /// One more would be too many.
    LimitExceeded,
    /// Nothing was ever set there.
    NotConfigured,
    /// It contradicts what there is, or another change came first.
    Conflict,
    /// The caller may not do that.
    Unauthorized,
    /// Too many requests at a time; try again.
    Throttling,
    /// The broker cannot be reached or does not answer; nothing, or not all, may have changed.
    ServiceUnavailable,
}

impl Code {
    /// Every code.
    pub const ALL: [Code; 10] = [
        Code::InvalidRequest,
        Code::ResourceNotFound,
        Code::ResourceAlreadyExists,
        Code::VersionConflict,
        Code::LimitExceeded,
        Code::NotConfigured,
        Code::Conflict,
        Code::Unauthorized,
        Code::Throttling,
        Code::ServiceUnavailable,
    ];

    /// As in answers: `InvalidRequest`. AWS's error types are this and `Exception`.
    pub const fn name(self) -> &'static str {
        match self {
            Code::InvalidRequest => "InvalidRequest",
            Code::ResourceNotFound => "ResourceNotFound",
            Code::ResourceAlreadyExists => "ResourceAlreadyExists",
            Code::VersionConflict => "VersionConflict",
            Code::LimitExceeded => "LimitExceeded",
            Code::NotConfigured => "NotConfigured",
            Code::Conflict => "Conflict",
            Code::Unauthorized => "Unauthorized",
            Code::Throttling => "Throttling",
            Code::ServiceUnavailable => "ServiceUnavailable",
        }
    }

    /// The HTTP status: AWS IoT's (a limit is 410 there), but for `Unauthorized`, which is 403 because
    /// the caller has signed in (401 asks to), and `Throttling`, which is 429 (400 there).
    pub const fn status(self) -> u16 {
        match self {
            Code::InvalidRequest => 400,
            Code::Unauthorized => 403,
            Code::ResourceNotFound | Code::NotConfigured => 404,
            Code::ResourceAlreadyExists | Code::VersionConflict | Code::Conflict => 409,
            Code::LimitExceeded => 410,
            Code::Throttling => 429,
            Code::ServiceUnavailable => 503,
        }
    }
}

/// A refusal: nothing has changed, unless the code is [`Code::ServiceUnavailable`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}: {message}", code.name())]
pub struct Refusal {
    /// Its kind.
    pub code: Code,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal that says why.
    pub fn new(code: Code, message: impl Into<String>) -> Refusal {
        Refusal {
            code,
            message: message.into(),
        }
    }

    /// The request itself is wrong.
    pub fn invalid(message: impl Into<String>) -> Refusal {
        Refusal::new(Code::InvalidRequest, message)
    }

    /// `what` does not exist.
    pub fn not_found(what: impl std::fmt::Display) -> Refusal {
        Refusal::new(Code::ResourceNotFound, format!("{what} does not exist"))
    }
}
