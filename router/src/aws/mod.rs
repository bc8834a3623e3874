//! AWS IoT's REST interface for logging, things and thing groups, as AWS's own clients speak it, and
//! their signatures.
//!
//! Paths, shapes and errors are those of AWS's service description of IoT, version 2015-05-28. Whatever
//! is changed becomes the same documents that operators write themselves. What AWS keeps and thinglog
//! does not (tags, billing groups, destinations of single events) is refused, never dropped.
//!
//! | operation | documents |
//! |---|---|
//! | Set/GetV2LoggingOptions | `config/default`: `role`, `level`, `disabled`; `config/source/…` |
//! | Set/GetLoggingOptions | `config/default`: `role`, `level` |
//! | Set/List/DeleteV2LoggingLevel | `config/default`, `group`, `device`, `principal`, `source-ip`: `level` |
//! | …ThingGroup, …DynamicThingGroup | `config/group/…`, `config/member/…` |
//! | …Thing | `config/device/…` |

mod arn;
mod error;
mod groups;
mod input;
mod levels;
mod membership;
mod options;
pub(crate) mod signature;
mod things;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde_json::Value;

pub(crate) use error::Error;

use self::input::Input;
use crate::destinations::running::Shown;
use crate::registry::{Caller, Registry};

/// The first segments of the paths that AWS's clients ask for.
const PATHS: [&str; 6] = [
    "v2LoggingOptions",
    "v2LoggingLevel",
    "loggingOptions",
    "thing-groups",
    "dynamic-thing-groups",
    "things",
];

/// Whether the path is one of AWS's.
pub(crate) fn serves(path: &str) -> bool {
    let first = path.trim_start_matches('/').split('/').next();
    first.is_some_and(|first| PATHS.contains(&first))
}

/// The routes, to be mounted where every request has a [`Caller`].
pub(crate) fn routes(fleet: Registry, destinations: Shown) -> Router {
    let below = |router: Router<Asked>, path: &&str| {
        router
            .route(&format!("/{path}"), any(answer))
            .route(&format!("/{path}/{{*rest}}"), any(answer))
    };
    let routes = PATHS.iter().fold(Router::new(), below);
    let asked = Asked {
        fleet,
        destinations,
    };
    routes.with_state(asked)
}

/// What every call is asked of.
#[derive(Clone)]
struct Asked {
    fleet: Registry,
    destinations: Shown,
}

/// The answer to an operation that is not here.
pub(crate) fn unknown(method: &Method, path: &str) -> Error {
    let message = format!("{method} {path} is no operation that thinglog has");
    Error::new(StatusCode::NOT_FOUND, "UnknownOperationException", message)
}

/// One call: who asks what, of which fleet.
struct Call<'a> {
    fleet: &'a Registry,
    destinations: &'a Shown,
    caller: &'a Caller,
    input: Input,
}

/// What is answered: `Null` where AWS answers nothing.
type Answer = Result<Value, Error>;

impl Call<'_> {
    /// The call when all of its input was taken.
    fn ended(mut self) -> Result<Self, Error> {
        std::mem::take(&mut self.input).end()?;
        Ok(self)
    }
}

async fn answer(
    State(asked): State<Asked>,
    caller: Caller,
    method: Method,
    uri: Uri,
    body: Bytes,
) -> Response {
    let answered = match Input::read(&uri, &body) {
        Ok(input) => {
            let call = Call {
                fleet: &asked.fleet,
                destinations: &asked.destinations,
                caller: &caller,
                input,
            };
            operate(&method, uri.path(), call).await
        }
        Err(error) => Err(error),
    };
    match answered {
        Ok(Value::Null) => StatusCode::OK.into_response(),
        Ok(value) => {
            let json = [(header::CONTENT_TYPE, "application/json")];
            (StatusCode::OK, json, value.to_string()).into_response()
        }
        Err(error) => error.into_response(),
    }
}

async fn operate(method: &Method, path: &str, call: Call<'_>) -> Answer {
    let segments = path.split('/').filter(|segment| !segment.is_empty());
    let segments = segments.map(input::text).collect::<Result<Vec<_>, _>>()?;
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    match (method.as_str(), segments.as_slice()) {
        ("POST", ["v2LoggingOptions"]) => options::set_v2(call).await,
        ("GET", ["v2LoggingOptions"]) => options::get_v2(call),
        ("POST", ["loggingOptions"]) => options::set(call).await,
        ("GET", ["loggingOptions"]) => options::get(call),
        ("POST", ["v2LoggingLevel"]) => levels::set(call).await,
        ("GET", ["v2LoggingLevel"]) => levels::list(call),
        ("DELETE", ["v2LoggingLevel"]) => levels::delete(call).await,
        ("PUT", ["thing-groups", "addThingToThingGroup"]) => membership::add(call).await,
        ("PUT", ["thing-groups", "removeThingFromThingGroup"]) => membership::remove(call).await,
        ("PUT", ["thing-groups", "updateThingGroupsForThing"]) => membership::update(call).await,
        ("GET", ["thing-groups"]) => groups::list(call),
        ("GET", ["thing-groups", name]) => groups::describe(call, name),
        ("POST", ["thing-groups", name]) => groups::create(call, name).await,
        ("PATCH", ["thing-groups", name]) => groups::update(call, name).await,
        ("DELETE", ["thing-groups", name]) => groups::delete(call, name, false).await,
        ("GET", ["thing-groups", name, "things"]) => membership::things(call, name),
        ("POST", ["dynamic-thing-groups", name]) => groups::create_dynamic(call, name).await,
        ("PATCH", ["dynamic-thing-groups", name]) => groups::update_dynamic(call, name).await,
        ("DELETE", ["dynamic-thing-groups", name]) => groups::delete(call, name, true).await,
        ("GET", ["things"]) => things::list(call).await,
        ("GET", ["things", name]) => things::describe(call, name),
        ("POST", ["things", name]) => things::create(call, name).await,
        ("PATCH", ["things", name]) => things::update(call, name).await,
        ("DELETE", ["things", name]) => things::delete(call, name).await,
        ("GET", ["things", name, "thing-groups"]) => membership::groups(call, name),
        _ => Err(unknown(method, path)),
    }
}
