//! How HTTP finds out who calls. Who the users are is not the router's business: whoever builds it
//! gives it something that knows them.

use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;

use super::caller::Caller;

/// What a request shows of its sender.
#[derive(Clone, Copy)]
pub enum Shown<'a> {
    /// `Authorization: Basic`, RFC 7617.
    Password {
        /// Name of the user or device.
        user: &'a str,
        /// Its password or token.
        password: &'a str,
    },
    /// `Authorization: Bearer`, RFC 6750.
    Bearer(&'a str),
}

/// Why somebody is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denied {
    /// What was shown proves nobody; the reason may be told to the sender.
    Wrong(&'static str),
    /// Too many try at once, or this address failed too often; later it may work.
    Busy(&'static str),
}

/// Who it is that has signed in, by what is known of users now; `None` when that proof no longer counts.
pub type Still = Arc<dyn Fn() -> Option<Caller> + Send + Sync>;

/// Somebody who has signed in.
#[derive(Clone)]
pub struct SignedIn {
    /// Who it is.
    pub caller: Caller,
    /// Who it is later. Takes no longer than looking something up.
    pub still: Still,
}

/// A key for signed requests.
#[derive(Clone)]
pub struct AccessKey {
    /// What signatures are made with. Never shown, never logged.
    pub secret: String,
    /// Whom it stands for.
    pub caller: Caller,
}

impl fmt::Debug for AccessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AccessKey")
            .field("caller", &self.caller)
            .finish_non_exhaustive()
    }
}

/// An answer that may take a while.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Knows users and keys. What it does is bounded in time and memory, whoever asks however often, and
/// takes as long for users that do not exist as for those that do.
pub trait Authenticate: Send + Sync + 'static {
    /// Finds out who a client at `address` is; failures slow down the address.
    fn sign_in<'a>(
        &'a self,
        shown: Shown<'a>,
        address: IpAddr,
    ) -> Answer<'a, Result<SignedIn, Denied>>;

    /// The access key of this id.
    fn access_key(&self, id: &str) -> Option<AccessKey>;

    /// A client at `address` showed a wrong key or signature: slows the address down. Resolves when it
    /// may be told.
    fn refused(&self, address: IpAddr) -> Answer<'_, ()>;
}
