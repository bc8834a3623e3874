//! Who a connected client is and what it may do: a [`Login`] with its proof, and the [`Pass`] that its
//! connection and its session hold.

use std::sync::Arc;

use super::{Grant, Reach, Rights, Role};
use crate::codec::{CodecError, Reason};

/// A client that proved who it is.
#[derive(Clone, Debug)]
pub(crate) struct Login {
    /// `None` is nobody in particular.
    pub(crate) principal: Option<Arc<str>>,
    /// When the proof ends, ns since the epoch.
    pub(crate) expires: Option<u64>,
    pub(super) grant: Grant,
    pub(super) proof: Proof,
}

/// What proved it, to see after a reload whether it still does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Proof {
    /// Nobody is asked.
    Open,
    Anonymous,
    Certificate,
    /// Fingerprint of the password's hash.
    Password([u8; 32]),
    /// Digest of the device's token.
    Token([u8; 32]),
    /// Fingerprint of the issuer's key.
    Issuer([u8; 32]),
    /// A part of this process.
    Part,
}

/// Why a login no longer stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gone(pub(crate) &'static str);

impl Login {
    pub(super) fn new(principal: &str, grant: Grant, proof: Proof) -> Login {
        Login {
            principal: Some(principal.into()),
            expires: None,
            grant,
            proof,
        }
    }

    pub(super) fn nobody(proof: Proof) -> Login {
        Login {
            principal: None,
            expires: None,
            grant: Grant::default(),
            proof,
        }
    }

    /// Of a client of a broker that asks nobody.
    #[cfg(test)]
    pub(crate) fn open() -> Login {
        Login::nobody(Proof::Open)
    }

    /// Refuses a client id that is not the device's own: `<device>` or `<device>/<instance>`.
    pub(crate) fn check_client_id(&self, client_id: &str) -> Result<(), CodecError> {
        let own = |name: &str| {
            client_id
                .strip_prefix(name)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        match (&self.principal, self.grant.role) {
            (Some(name), Some(Role::Device)) if !own(name) => Err(CodecError::new(
                Reason::ClientIdInvalid,
                "a device's client id is its name, or its name, a slash and anything",
            )),
            _ => Ok(()),
        }
    }

    /// A client id for a client that left the choice to the broker.
    pub(crate) fn assign_client_id(&self, random: String) -> String {
        match (&self.principal, self.grant.role) {
            (Some(name), Some(Role::Device)) => format!("{name}/{random}"),
            _ => random,
        }
    }

    /// Whether a session of `owner` may be taken up. One of nobody's may by anybody; the parts of this
    /// process take over from the separate ones and the other way round.
    pub(crate) fn may_take(&self, owner: Option<&str>) -> bool {
        let Some(owner) = owner else { return true };
        match self.proof {
            Proof::Open => true,
            Proof::Part if self.grant.role == Some(Role::Router) => true,
            _ if owner.starts_with('$') && self.grant.role == Some(Role::Router) => true,
            _ => self.principal.as_deref() == Some(owner),
        }
    }
}

/// A client's login with the rights it has by one reading of the files. A connection holds one and
/// gets another after a reload; so does its session, for what happens after the connection.
#[derive(Debug)]
pub(crate) struct Pass {
    pub(super) login: Login,
    pub(super) client_id: Arc<str>,
    pub(super) rights: Rights,
    /// Reloads before it was made.
    pub(super) generation: u64,
}

impl Pass {
    pub(crate) fn principal(&self) -> Option<&Arc<str>> {
        self.login.principal.as_ref()
    }

    /// The device that the client is.
    pub(crate) fn device(&self) -> Option<&Arc<str>> {
        let principal = self.login.principal.as_ref();
        principal.filter(|_| self.login.grant.role == Some(Role::Device))
    }

    /// When the login ends, ns since the epoch.
    pub(crate) fn expires(&self) -> Option<u64> {
        self.login.expires
    }

    /// Whether the client may take up a session of `owner`.
    pub(crate) fn may_take(&self, owner: Option<&str>) -> bool {
        self.login.may_take(owner)
    }

    /// Whether a message on `topic` may be delivered.
    pub(crate) fn may_read(&self, topic: &str) -> bool {
        self.rights.may_read(topic)
    }

    /// Whether the client may publish on `topic`.
    pub(crate) fn may_write(&self, topic: &str) -> bool {
        self.rights.may_write(topic)
    }

    /// How far a subscription goes.
    pub(crate) fn reach(&self, filter: &str) -> Reach {
        self.rights.reach(filter)
    }

    /// Whether the client is told where messages come from (`thinglog-*` properties), and may choose
    /// where a durable subscription starts.
    pub(crate) fn is_trusted(&self) -> bool {
        self.rights.is_trusted()
    }
}
