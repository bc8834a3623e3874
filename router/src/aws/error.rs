//! Errors under AWS's names, with AWS's status and form.

use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value};

use crate::registry::{Code, Refusal};

/// Names the error, for clients that look no further.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// An error as a client of AWS reads it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Error {
    status: StatusCode,
    name: &'static str,
    /// `message`, and whatever else the error's shape has.
    body: Map<String, Value>,
}

impl Error {
    pub(crate) fn new(status: StatusCode, name: &'static str, message: impl Into<String>) -> Error {
        let message = ("message".to_owned(), Value::String(message.into()));
        Error {
            status,
            name,
            body: Map::from_iter([message]),
        }
    }

    /// The request itself is wrong.
    pub(super) fn invalid(message: impl Into<String>) -> Error {
        Error::new(StatusCode::BAD_REQUEST, "InvalidRequestException", message)
    }

    pub(super) fn not_found(what: &str, name: &str) -> Error {
        let message = format!("{what} {name:?} does not exist");
        Error::new(StatusCode::NOT_FOUND, "ResourceNotFoundException", message)
    }

    pub(super) fn not_configured() -> Error {
        Error::new(
            StatusCode::NOT_FOUND,
            "NotConfiguredException",
            "logging is not configured: set the logging options first",
        )
    }

    /// For who has signed in and may not do that.
    pub(crate) fn denied(message: impl Into<String>) -> Error {
        Error::new(StatusCode::FORBIDDEN, "AccessDeniedException", message)
    }

    /// Where the operation knows no such error: the request cannot be done as things are.
    pub(super) fn without_limit(self) -> Error {
        match self.name {
            "LimitExceededException" => Error {
                status: StatusCode::BAD_REQUEST,
                name: "InvalidRequestException",
                ..self
            },
            _ => self,
        }
    }

    /// What is wrong with a dynamic group is its query, if anything of the request is.
    pub(super) fn of_query(self) -> Error {
        match self.name {
            "InvalidRequestException" => Error {
                name: "InvalidQueryException",
                ..self
            },
            _ => self,
        }
    }

    /// The thing or group that is there already.
    pub(super) fn about(mut self, id: &str, arn: &str) -> Error {
        if self.name == "ResourceAlreadyExistsException" {
            self.body.insert("resourceId".into(), id.into());
            self.body.insert("resourceArn".into(), arn.into());
        }
        self
    }

    pub(super) fn is_not_found(&self) -> bool {
        self.name == "ResourceNotFoundException"
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Error {
        let (status, name) = match refusal.code {
            Code::InvalidRequest | Code::Conflict => (400, "InvalidRequestException"),
            Code::ResourceNotFound => (404, "ResourceNotFoundException"),
            Code::ResourceAlreadyExists => (409, "ResourceAlreadyExistsException"),
            Code::VersionConflict => (409, "VersionConflictException"),
            Code::LimitExceeded => (410, "LimitExceededException"),
            Code::NotConfigured => (404, "NotConfiguredException"),
            Code::Unauthorized => (403, "AccessDeniedException"),
            Code::Throttling => (400, "ThrottlingException"),
            Code::ServiceUnavailable => (503, "ServiceUnavailableException"),
        };
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Error::new(status, name, refusal.message)
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let headers = [
            (
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            ),
            (ERROR_TYPE, HeaderValue::from_static(self.name)),
        ];
        (self.status, headers, Value::Object(self.body).to_string()).into_response()
    }
}
