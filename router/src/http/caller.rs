//! Who makes a request. Handlers take a [`Caller`] as an argument: what they may do is for the parts
//! that know the fleet to say.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;

/// Who makes a request, and as what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The user, as changes are signed with it; `anonymous` where nobody signs in.
    pub name: Arc<str>,
    /// What it may do at all.
    pub role: Role,
    /// The groups that an operator is limited to; none is no limit.
    pub groups: Vec<String>,
}

/// What a caller is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Everything.
    Admin,
    /// Sees and sets levels; with groups, those of its groups and their devices only.
    Operator,
    /// Nothing but `/metrics`: devices, routers, and users without a role.
    Other,
}

impl Caller {
    /// Who calls where nobody signs in: it has all rights.
    pub fn anonymous() -> Caller {
        Caller {
            name: Arc::from("anonymous"),
            role: Role::Admin,
            groups: Vec::new(),
        }
    }

    /// Whether all of the fleet is open to it.
    pub fn is_unlimited(&self) -> bool {
        match self.role {
            Role::Admin => true,
            Role::Operator => self.groups.is_empty(),
            Role::Other => false,
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = StatusCode;

    /// The caller that the sign-in found; every route behind it has one.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Caller, StatusCode> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}
