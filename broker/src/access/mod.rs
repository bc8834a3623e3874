//! Who may connect, and who may do what.
//!
//! [`Access`] proves who a client is ([`password`], [`token`], [`jwt`], or the certificate it showed)
//! and gives it its [`Rights`]: what its role allows ([`roles`]) and the rules of the ACL file
//! ([`acl`]). Connections ask these for every publish, subscription and delivery. The files are read
//! again by [`Access::reload`]; connections notice by its generation and renew their rights.

pub(crate) mod acl;
pub(crate) mod config;
pub mod file;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod jwt;
mod keys;
mod login;
mod logins;
pub mod password;
mod rights;
mod roles;
mod rules;
mod throttle;
pub mod token;
mod verify;

use std::{
    collections::HashMap,
    net::IpAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use thinglog_schemas::Topics;
use tokio::time::sleep;
use tracing::info;

use self::{
    acl::Acl,
    jwt::Issuer,
    password::Passwords,
    rights::Rules,
    throttle::{Named, Throttle},
    token::Tokens,
    verify::{Verdict, Verifier},
};
use crate::{
    clock,
    codec::{CodecError, Reason},
    peer::network,
};

pub use config::{Auth, Jwt};
pub use file::FileError;
use login::Proof;
pub(crate) use login::{Gone, Login, Pass};
pub use logins::{Known, Logins, Unknown};
pub use rights::{Because, Decision};
pub(crate) use rights::{Reach, Rights};
pub use roles::{Grant, Role};
pub use rules::Action;

/// Most parts of this process that log in.
const MAX_PARTS: usize = 64;

/// What a client shows of itself.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Credentials<'a> {
    pub(crate) username: Option<&'a str>,
    pub(crate) password: Option<&'a [u8]>,
    /// Common name of a verified certificate.
    pub(crate) certificate: Option<&'a str>,
}

impl Credentials<'_> {
    fn named(&self) -> Named {
        let name = self.certificate.or(self.username);
        match name.is_some_and(|name| !name.is_empty()) {
            true => Named::Yes,
            false => Named::No,
        }
    }
}

/// The files as they were read last.
struct Tables {
    passwords: Passwords,
    tokens: Tokens,
    issuer: Option<Issuer>,
    rules: Arc<Rules>,
}

/// The topics that nobody but the broker itself publishes on, whatever a rule allows: `$SYS/#` and
/// `connected/#` below the root, which others take for the broker's word.
#[derive(Debug)]
pub(crate) struct Own {
    connected: String,
}

impl Own {
    pub(crate) fn new(topics: &Topics) -> Own {
        Own {
            connected: format!("{}/connected/", topics.root()),
        }
    }

    /// Why a client may not publish on `topic`, if it is one of them.
    pub(crate) fn refuses(&self, topic: &str) -> Option<&'static str> {
        if topic.starts_with("$SYS/") {
            Some("$SYS is the broker's own")
        } else if topic.starts_with(&self.connected) {
            Some("connected/ is the broker's own")
        } else {
            None
        }
    }
}

/// Proves who clients are and says what they may do.
pub(crate) struct Access {
    pub(crate) own: Own,
    config: Auth,
    topics: Topics,
    tables: RwLock<Arc<Tables>>,
    generation: AtomicU64,
    verifier: Verifier,
    throttle: Mutex<Throttle>,
    /// Digests of the passwords of parts of this process, with their roles.
    parts: Mutex<HashMap<String, ([u8; 32], Role)>>,
}

impl Access {
    /// Reads the files (blocking).
    pub(crate) fn open(config: &Auth, topics: &Topics) -> Result<Access, FileError> {
        let tables = Tables::read(config, topics)?;
        let verifier = Verifier::new().map_err(|error| {
            FileError::of(Path::new("/dev/urandom"), format!("no randomness: {error}"))
        })?;
        Ok(Access {
            own: Own::new(topics),
            config: config.clone(),
            topics: topics.clone(),
            tables: RwLock::new(Arc::new(tables)),
            generation: AtomicU64::new(0),
            verifier,
            throttle: Mutex::default(),
            parts: Mutex::default(),
        })
    }

    /// Whether anything limits what clients may do.
    pub(crate) fn is_on(&self) -> bool {
        self.config.is_on()
    }

    /// Reads the files again (blocking); one that cannot be used changes nothing.
    pub(crate) fn reload(&self) -> Result<(), FileError> {
        let tables = Tables::read(&self.config, &self.topics)?;
        *self.tables.write() = Arc::new(tables);
        self.verifier.forget();
        self.generation.fetch_add(1, Ordering::Release);
        if self.is_on() {
            info!("users, tokens, keys and rules read again");
        }
        Ok(())
    }

    /// Counts the reloads.
    fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// A login for a part of this process, which nobody else can know; the user name begins with `$`,
    /// as no other does, unless the part is a device. `None` when nobody is asked.
    pub(crate) fn part(&self, name: &str, role: Role) -> Option<(String, String)> {
        if !self.is_on() {
            return None;
        }
        let name = match role {
            Role::Device => name.to_owned(),
            _ => format!("${name}"),
        };
        let password = token::generate().ok()?;
        let mut parts = self.parts.lock();
        if parts.len() >= MAX_PARTS && !parts.contains_key(&name) {
            return None;
        }
        parts.insert(name.clone(), (Sha256::digest(&password).into(), role));
        Some((name, password))
    }

    /// Finds out who a client is. May take a while for passwords: others are served meanwhile.
    pub(crate) async fn login(
        &self,
        shown: Credentials<'_>,
        address: IpAddr,
    ) -> Result<Login, CodecError> {
        let failed = |text| CodecError::new(Reason::BadCredentials, text);
        let tables = self.tables.read().clone();
        let outcome = match (shown.certificate, shown.username, shown.password) {
            (Some(name), ..) => tables.by_certificate(name).ok_or_else(|| {
                CodecError::new(
                    Reason::NotAuthorized,
                    "the certificate's common name cannot be a user's name",
                )
            }),
            _ if !self.is_on() => Ok(Login::nobody(Proof::Open)),
            (None, None, None) if self.config.anonymous => Ok(Login::nobody(Proof::Anonymous)),
            (None, None, None) => Err(CodecError::new(
                Reason::NotAuthorized,
                "no user name and password",
            )),
            (None, _, None) => Err(failed("no password")),
            (None, username, Some(password)) => {
                let username = username.unwrap_or_default();
                match std::str::from_utf8(password) {
                    Ok(text) if token::is_token(text) => self
                        .by_token(&tables, username, text)
                        .ok_or_else(|| failed("wrong device name or token")),
                    Ok(text) if tables.issuer.is_some() && jwt::is_jwt(text) => {
                        tables.by_issuer(text, clock::now()).map_err(failed)
                    }
                    _ => {
                        let from = (address, shown.named());
                        return self.by_password(&tables, username, password, from).await;
                    }
                }
            }
        };
        if outcome.is_err() {
            self.regret(address, shown.named()).await;
        }
        outcome
    }

    /// Counts a failure and holds up its answer.
    async fn regret(&self, address: IpAddr, named: Named) {
        let wait = {
            let mut throttle = self.throttle.lock();
            let now = clock::now();
            throttle.failed(address, named, now);
            throttle.attempt(address, named, now)
        };
        sleep(wait.unwrap_or(Duration::ZERO)).await;
    }

    fn by_token(&self, tables: &Tables, device: &str, token: &str) -> Option<Login> {
        if let Some((digest, role)) = self.parts.lock().get(device) {
            let given: [u8; 32] = Sha256::digest(token).into();
            if bool::from(given.ct_eq(digest)) {
                return Some(Login::new(device, Grant::of(*role), Proof::Part));
            }
        }
        let digest = tables.tokens.verify(device, token)?;
        Some(Login::new(
            device,
            Grant::of(Role::Device),
            Proof::Token(digest),
        ))
    }

    async fn by_password(
        &self,
        tables: &Tables,
        username: &str,
        password: &[u8],
        (address, named): (IpAddr, Named),
    ) -> Result<Login, CodecError> {
        let (hash, counts) = tables.passwords.hash_of(username);
        let right = || {
            let grant = tables
                .passwords
                .get(username)
                .map(|user| user.grant.clone());
            let proof = Proof::Password(password::fingerprint(hash));
            Ok(Login::new(username, grant.unwrap_or_default(), proof))
        };
        if counts && self.verifier.knows(hash, password) {
            return right();
        }
        let wait = self.throttle.lock().attempt(address, named, clock::now());
        let Some(wait) = wait else {
            return Err(CodecError::new(
                Reason::ServerBusy,
                "too many failed logins from this address",
            ));
        };
        sleep(wait).await;
        let address_key = network(address);
        let verdict = self.verifier.verify(address_key, (hash, counts), password);
        match verdict.await {
            Verdict::Right => right(),
            Verdict::Wrong => {
                self.throttle.lock().failed(address, named, clock::now());
                Err(CodecError::new(
                    Reason::BadCredentials,
                    "wrong user name or password",
                ))
            }
            Verdict::Busy => Err(CodecError::new(
                Reason::ServerBusy,
                "too many logins at once",
            )),
        }
    }

    /// What a client holds that logged in so.
    pub(crate) fn pass(&self, login: Login, client_id: Arc<str>) -> Arc<Pass> {
        // Before the rules: at worst a pass is renewed once more than needed.
        let generation = self.generation();
        let rules = self.tables.read().rules.clone();
        let rights = match login.proof {
            Proof::Open => Rights::unlimited(rules),
            _ => Rights::new(rules, login.principal.clone(), &client_id, &login.grant),
        };
        Arc::new(Pass {
            login,
            client_id,
            rights,
            generation,
        })
    }

    /// What a client may do that was here before the broker started, as far as its name tells.
    pub(crate) fn absent(&self, principal: Option<&str>, client_id: Arc<str>) -> Arc<Pass> {
        let login = match principal {
            None if self.is_on() => Login::nobody(Proof::Anonymous),
            None => Login::nobody(Proof::Open),
            Some(name) if name.starts_with('$') => {
                Login::new(name, Grant::of(Role::Router), Proof::Part)
            }
            Some(name) => {
                let grant = self.tables.read().grant_of_certificate(name);
                Login::new(name, grant, Proof::Certificate)
            }
        };
        self.pass(login, client_id)
    }

    /// Whether nothing was read since the pass was made.
    pub(crate) fn is_current(&self, pass: &Pass) -> bool {
        self.generation() == pass.generation
    }

    /// The pass as it stands now.
    pub(crate) fn renew(&self, pass: &Arc<Pass>) -> Result<Arc<Pass>, Gone> {
        if self.is_current(pass) {
            return Ok(pass.clone());
        }
        let login = self.judge(&pass.login)?;
        Ok(self.pass(login, pass.client_id.clone()))
    }

    /// The login as it stands after a reload.
    fn judge(&self, login: &Login) -> Result<Login, Gone> {
        let tables = self.tables.read().clone();
        let name = login.principal.as_deref().unwrap_or_default();
        let mut renewed = login.clone();
        match &login.proof {
            Proof::Open | Proof::Anonymous | Proof::Part => {}
            Proof::Certificate => renewed.grant = tables.grant_of_certificate(name),
            Proof::Password(fingerprint) => match tables.passwords.get(name) {
                Some(user)
                    if user.hash.as_deref().map(password::fingerprint) == Some(*fingerprint) =>
                {
                    renewed.grant = user.grant.clone();
                }
                Some(_) => return Err(Gone("the user's password was changed")),
                None => return Err(Gone("the user was removed")),
            },
            Proof::Token(digest) if !tables.tokens.has(name, digest) => {
                return Err(Gone("the device's token was removed"));
            }
            Proof::Issuer(key) if !tables.issuer.as_ref().is_some_and(|i| i.has(key)) => {
                return Err(Gone("the key of the client's token was removed"));
            }
            Proof::Token(_) | Proof::Issuer(_) => {}
        }
        Ok(renewed)
    }
}

impl Tables {
    fn read(config: &Auth, topics: &Topics) -> Result<Tables, FileError> {
        let passwords = match &config.passwords {
            Some(path) => Passwords::parse(path, &file::read_secret(path, password::ADVICE)?)?,
            None => Passwords::default(),
        };
        let tokens = match &config.tokens {
            Some(path) => Tokens::parse(path, &file::read_secret(path, token::ADVICE)?)?,
            None => Tokens::default(),
        };
        let issuer = match &config.jwt {
            Some(jwt) => Some(Issuer {
                keys: keys::read(&jwt.keys)?,
                config: jwt.clone(),
            }),
            None => None,
        };
        let acl = match &config.acl {
            Some(path) => Acl::parse(path, &file::read(path, "write the rules there")?)?,
            None => Acl::default(),
        };
        Ok(Tables {
            passwords,
            tokens,
            issuer,
            rules: Arc::new(Rules::new(topics, acl, config.acl.clone())),
        })
    }

    fn grant_of_certificate(&self, name: &str) -> Grant {
        let listed = self.passwords.get(name).map(|user| user.grant.clone());
        listed.unwrap_or(Grant::of(Role::Device))
    }

    fn by_certificate(&self, name: &str) -> Option<Login> {
        password::valid_name(name)
            .then(|| Login::new(name, self.grant_of_certificate(name), Proof::Certificate))
    }

    fn by_issuer(&self, token: &str, now: u64) -> Result<Login, &'static str> {
        let issuer = self.issuer.as_ref().ok_or("tokens are not taken")?;
        let claims = issuer.verify(token, now)?;
        Ok(Login {
            principal: Some(claims.principal),
            expires: Some(claims.expires),
            grant: claims.grant,
            proof: Proof::Issuer(claims.key),
        })
    }
}

/// What tokens of an issuer are verified with, in a few words, as `check` shows it (blocking).
pub fn describe_keys(jwt: &Jwt) -> Result<String, FileError> {
    keys::read(&jwt.keys).map(|keys| keys::describe(&keys))
}

/// Waits until `time` (ns since the epoch); for ever when there is none.
pub(crate) async fn until(time: Option<u64>) {
    /// The clock may be set meanwhile, so it is looked at now and then.
    const LOOK: Duration = Duration::from_secs(60);
    let Some(time) = time else {
        return std::future::pending().await;
    };
    loop {
        let left = time.saturating_sub(clock::now());
        if left == 0 {
            return;
        }
        sleep(Duration::from_nanos(left).min(LOOK)).await;
    }
}

/// Whom a question about the rules is about.
#[derive(Clone, Debug, Default)]
pub struct Who {
    /// The user; `None` is a client without a name.
    pub user: Option<String>,
    /// The client id.
    pub client_id: Option<String>,
    /// Role and groups; `None` is what the files say.
    pub grant: Option<Grant>,
}

/// Which rule of the files decides whether `who` may do something, as the broker would decide.
pub fn explain(
    config: &Auth,
    topics: &Topics,
    who: &Who,
    action: Action,
    topic: &str,
) -> Result<Explained, FileError> {
    let tables = Tables::read(config, topics)?;
    let listed = |user: &String| tables.passwords.get(user).is_some() || tables.tokens.knows(user);
    let is_known = who.user.as_ref().is_none_or(listed);
    let grant = match (&who.grant, &who.user) {
        (Some(grant), _) => grant.clone(),
        (None, None) => Grant::default(),
        (None, Some(user)) => match tables.passwords.get(user) {
            Some(user) => user.grant.clone(),
            None if tables.tokens.knows(user) => Grant::of(Role::Device),
            None => Grant::default(),
        },
    };
    let rights = Rights::new(
        tables.rules,
        who.user.as_deref().map(Arc::from),
        who.client_id.as_deref().unwrap_or_default(),
        &grant,
    );
    let own = match action {
        Action::Write => Own::new(topics).refuses(topic),
        Action::Read | Action::Subscribe => None,
    };
    let decision = match own {
        Some(reason) => Decision {
            allowed: false,
            because: Because::Own(reason),
        },
        None => rights.explain(action, topic),
    };
    Ok(Explained {
        decision,
        grant,
        is_known,
    })
}

/// An answer of [`explain`].
#[derive(Clone, Debug)]
pub struct Explained {
    /// Whether it is allowed, and why.
    pub decision: Decision,
    /// Role and groups that counted.
    pub grant: Grant,
    /// The user is nobody in particular, or in the file of passwords or that of tokens.
    pub is_known: bool,
}

#[cfg(test)]
mod tests;
