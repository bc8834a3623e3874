//! The key that requests must carry.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::Path,
};

use hyper::header::HeaderValue;
use subtle::ConstantTimeEq;

/// A shorter key could be guessed.
const SHORTEST: usize = 16;
const LONGEST: usize = 256;

/// Why there is no key to ask for.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The file cannot be read or made.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// Others than its owner and group may read it.
    #[error("every user of this device can read it; make it private (chmod 600)")]
    Open,
    /// What it holds is no key.
    #[error(
        "it must hold a key of {SHORTEST} to {LONGEST} letters, digits, - and _; delete it, and one is made"
    )]
    Unfit,
}

pub(super) struct ApiKey(String);

impl ApiKey {
    /// The key in the file; makes one when there is no file.
    pub(super) fn load_or_make(path: &Path) -> Result<ApiKey, KeyError> {
        match File::open(path) {
            Ok(file) => ApiKey::load(file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => ApiKey::make(path),
            Err(error) => Err(error.into()),
        }
    }

    fn load(file: File) -> Result<ApiKey, KeyError> {
        if file.metadata()?.mode() & 0o007 != 0 {
            return Err(KeyError::Open);
        }
        let mut text = String::new();
        file.take(2 * LONGEST as u64).read_to_string(&mut text)?;
        let key = text.trim();
        // Nothing that a URL would have to escape.
        let fit = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if !(SHORTEST..=LONGEST).contains(&key.len()) || !key.bytes().all(fit) {
            return Err(KeyError::Unfit);
        }
        Ok(ApiKey(key.to_owned()))
    }

    fn make(path: &Path) -> Result<ApiKey, KeyError> {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(|error| io::Error::other(error.to_string()))?;
        let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let mut options = File::options();
        let mut file = options
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)?;
        file.write_all(format!("{key}\n").as_bytes())?;
        file.sync_all()?;
        let path = path.display();
        tracing::info!(%path, "made an API key for HTTP");
        Ok(ApiKey(key))
    }

    /// Whether a request carries it: `?apikey=`, `Authorization: Bearer` or `ApiKey`.
    pub(super) fn is_in(&self, query: Option<&str>, authorization: Option<&HeaderValue>) -> bool {
        let mut pairs = query.into_iter().flat_map(|query| query.split('&'));
        let in_query = pairs.find_map(|pair| pair.strip_prefix("apikey="));
        let in_header = authorization.and_then(|value| {
            let (scheme, key) = value.to_str().ok()?.split_once(' ')?;
            let known = ["bearer", "apikey"];
            known
                .contains(&&*scheme.to_ascii_lowercase())
                .then_some(key.trim())
        });
        // As the supervisor does, the query first.
        let given = in_query.filter(|key| !key.is_empty()).or(in_header);
        given.is_some_and(|given| bool::from(given.as_bytes().ct_eq(self.0.as_bytes())))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state/api-key");
        let made = ApiKey::load_or_make(&path).unwrap();
        assert_eq!(made.0.len(), 64);
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(ApiKey::load_or_make(&path).unwrap().0, made.0);
        let other = ApiKey::load_or_make(&dir.path().join("other")).unwrap();
        assert_ne!(other.0, made.0);
    }

    #[test]
    fn a_key_that_protects_nothing_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        let load = |text: &str, mode: u32| {
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            ApiKey::load_or_make(&path)
        };
        assert!(load("0123456789abcdef\n", 0o640).is_ok());
        assert!(matches!(
            load("0123456789abcdef", 0o644),
            Err(KeyError::Open)
        ));
        for text in ["", "short", "0123456789abcde f", "0123456789abcdef%00"] {
            assert!(
                matches!(load(text, 0o600), Err(KeyError::Unfit)),
                "{text:?}"
            );
        }
    }

    #[test]
    fn the_key_is_taken_from_query_or_header() {
        let key = ApiKey("0123456789abcdef".into());
        let header = |text: &str| HeaderValue::from_str(text).unwrap();
        for (query, authorization, taken) in [
            (Some("apikey=0123456789abcdef"), None, true),
            (Some("x=1&apikey=0123456789abcdef"), None, true),
            (None, Some("Bearer 0123456789abcdef"), true),
            (None, Some("apikey 0123456789abcdef"), true),
            (Some("apikey="), Some("Bearer 0123456789abcdef"), true),
            (Some("apikey=wrong"), Some("Bearer 0123456789abcdef"), false),
            (Some("apikey=0123456789abcde"), None, false),
            (Some("key=0123456789abcdef"), None, false),
            (None, Some("Basic 0123456789abcdef"), false),
            (None, None, false),
        ] {
            let value = authorization.map(header);
            assert_eq!(
                key.is_in(query, value.as_ref()),
                taken,
                "{query:?} {authorization:?}"
            );
        }
    }
}
