//! Whose name requests are signed with: of the configuration, of the environment, of the container or
//! of the instance; the first that there is. Those of a container or an instance end and are fetched
//! again five minutes before; what is refused is fetched again, too.

use parking_lot::Mutex;
use serde::Deserialize;
use thinglog_schemas::json;

use super::sources::Metadata;
use crate::clock;
use crate::config::AwsKeys;

/// Fetched again this long before they end, ns.
const EARLY: u64 = 300 * 1_000_000_000;

/// An access key.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Credentials {
    pub(crate) key_id: String,
    pub(crate) secret: String,
    pub(crate) token: Option<String>,
    /// When they end, ns since the Unix epoch.
    pub(crate) expires: Option<u64>,
}

/// Secrets are not shown.
impl std::fmt::Debug for Credentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Credentials");
        shown.field("key_id", &self.key_id).finish_non_exhaustive()
    }
}

/// The answer of the container's and the instance's services.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Document {
    access_key_id: String,
    secret_access_key: String,
    token: Option<String>,
    expiration: Option<String>,
}

impl Credentials {
    /// Reads what the container's or the instance's service says; the error says what is wrong.
    pub(super) fn parse(document: &[u8]) -> Result<Credentials, String> {
        let document: Document = serde_json::from_slice(document)
            .map_err(|error| format!("the answer holds no credentials: {error}"))?;
        let expires = document.expiration.map(|text| {
            json::parse_time(&text).ok_or(format!("Expiration {text:?} is no time of RFC 3339"))
        });
        Ok(Credentials {
            key_id: document.access_key_id,
            secret: document.secret_access_key,
            token: document.token.filter(|token| !token.is_empty()),
            expires: expires.transpose()?,
        })
    }

    fn is_fresh(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now + EARLY < expires)
    }

    fn is_valid(&self, now: u64) -> bool {
        self.expires.is_none_or(|expires| now < expires)
    }
}

/// Where they come from.
enum Source {
    Keys(AwsKeys),
    Environment,
    Metadata(Box<Metadata>),
}

/// Gives credentials, fetching them when it must.
pub(crate) struct Provider {
    source: Source,
    known: Mutex<Option<Credentials>>,
}

impl Provider {
    /// The first source that there is; the error names the key that cannot be used.
    pub(crate) fn new(keys: Option<&AwsKeys>) -> Result<Provider, String> {
        let source = match keys {
            Some(keys) => Source::Keys(keys.clone()),
            None if variable("AWS_ACCESS_KEY_ID").is_some() => Source::Environment,
            None => Source::Metadata(Box::new(Metadata::new(variable)?)),
        };
        let known = match &source {
            Source::Keys(keys) => Some(of_keys(keys)?),
            Source::Environment => Some(of_environment()?),
            Source::Metadata(_) => None,
        };
        Ok(Provider {
            source,
            known: Mutex::new(known),
        })
    }

    /// Credentials that have not ended; the error says where they were looked for.
    pub(crate) async fn get(&self) -> Result<Credentials, String> {
        let known = self.known.lock().clone();
        if let Some(known) = known.as_ref().filter(|it| it.is_fresh(clock::now_ns())) {
            return Ok(known.clone());
        }
        let fetched = match &self.source {
            Source::Keys(keys) => of_keys(keys),
            Source::Environment => of_environment(),
            Source::Metadata(metadata) => metadata.fetch().await,
        };
        match (fetched, known) {
            (Ok(fetched), _) => {
                *self.known.lock() = Some(fetched.clone());
                Ok(fetched)
            }
            (Err(reason), Some(known)) if known.is_valid(clock::now_ns()) => {
                tracing::warn!(reason, "credentials cannot be fetched again yet");
                Ok(known)
            }
            (Err(reason), _) => Err(format!("no credentials: {reason}")),
        }
    }

    /// They were refused: the next request asks for them again.
    pub(crate) fn forget(&self) {
        *self.known.lock() = None;
    }
}

/// A variable of the environment that is not empty.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn of_keys(keys: &AwsKeys) -> Result<Credentials, String> {
    let read = |key: &str, secret: &crate::config::Secret| {
        let secret = secret.read();
        secret.map_err(|error| format!("credentials.{key}: {error}"))
    };
    let token = keys.session_token.as_ref();
    Ok(Credentials {
        key_id: keys.access_key_id.clone(),
        secret: read("secret_access_key", &keys.secret_access_key)?,
        token: token
            .map(|token| read("session_token", token))
            .transpose()?,
        expires: None,
    })
}

fn of_environment() -> Result<Credentials, String> {
    let missing = |name| format!("{name} is not set, AWS_ACCESS_KEY_ID is");
    let secret = variable("AWS_SECRET_ACCESS_KEY");
    Ok(Credentials {
        key_id: variable("AWS_ACCESS_KEY_ID").unwrap_or_default(),
        secret: secret.ok_or_else(|| missing("AWS_SECRET_ACCESS_KEY"))?,
        token: variable("AWS_SESSION_TOKEN"),
        expires: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: u64 = 1_000_000_000;

    #[test]
    fn a_document_of_the_metadata_services_is_read() {
        let text =
            br#"{"Code": "Success", "AccessKeyId": "ASIA", "SecretAccessKey": "s", "Token": "t",
                        "Expiration": "2026-01-02T03:04:05Z"}"#;
        let read = Credentials::parse(text).unwrap();
        assert_eq!((&*read.key_id, &*read.secret), ("ASIA", "s"));
        assert_eq!(read.token.as_deref(), Some("t"));
        let expires = 1_767_323_045 * S;
        assert_eq!(read.expires, Some(expires));
        assert!(read.is_fresh(expires - 301 * S));
        assert!(!read.is_fresh(expires - 300 * S));
        assert!(read.is_valid(expires - 1) && !read.is_valid(expires));
        for text in ["", "{}", r#"{"Code": "AssumeRoleUnauthorizedAccess"}"#] {
            let error = Credentials::parse(text.as_bytes()).unwrap_err();
            assert!(error.contains("no credentials"), "{error}");
        }
    }

    #[test]
    fn secrets_are_never_shown() {
        let text = br#"{"AccessKeyId": "ASIA", "SecretAccessKey": "hush", "Token": "hushed"}"#;
        let shown = format!("{:?}", Credentials::parse(text).unwrap());
        assert!(shown.contains("ASIA") && !shown.contains("hush"), "{shown}");
    }

    #[tokio::test]
    async fn a_secret_in_a_file_is_read_again_when_it_was_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "old\n").unwrap();
        let keys = serde_json::json!({
            "access_key_id": "AKIA", "secret_access_key": {"file": file.path()},
        });
        let provider = Provider::new(Some(&serde_json::from_value(keys).unwrap())).unwrap();
        std::fs::write(&file, "new\n").unwrap();
        assert_eq!(provider.get().await.unwrap().secret, "old");
        provider.forget();
        assert_eq!(provider.get().await.unwrap().secret, "new");
        std::fs::remove_file(&file).unwrap();
        provider.forget();
        let error = provider.get().await.unwrap_err();
        assert!(error.contains("credentials.secret_access_key"), "{error}");
    }
}
