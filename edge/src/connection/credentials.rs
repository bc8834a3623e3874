//! What proves who connects, as it stands in files at this moment. [`Credentials::load`] reads all of
//! it for a connection; [`Credentials::look`] says now and then whether a file has new content that
//! can be used, so that the connection is made anew. Secrets never appear in an error.

use std::{
    fs::File,
    hash::{DefaultHasher, Hash, Hasher},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use tokio_rustls::rustls::ClientConfig;

use super::{Login, Tls, tls};

/// Longest password: MQTT counts its bytes with 16 bits (section 3.1.3.6).
const MAX_PASSWORD: usize = u16::MAX as usize;
/// Largest file that is read; a bundle of all public authorities has 220 KB.
const MAX_FILE: u64 = 4 << 20;

/// Why nothing can be shown to the broker.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CredentialError {
    #[error("{path}: {reason}", path = path.display())]
    File { path: PathBuf, reason: String },
    #[error("TLS: {0}")]
    Tls(String),
}

impl CredentialError {
    pub(super) fn unusable(path: &Path, reason: impl Into<String>) -> CredentialError {
        CredentialError::File {
            path: path.to_owned(),
            reason: reason.into(),
        }
    }
}

/// What one connection shows.
#[derive(Clone, Debug, Default)]
pub(crate) struct Proof {
    pub(crate) user: Option<(String, super::Secret)>,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    /// When the token ends, seconds since the Unix epoch.
    pub(crate) expires: Option<u64>,
}

/// The sources of a publisher's proof.
#[derive(Debug)]
pub(crate) struct Credentials {
    login: Login,
    tls: Option<Tls>,
    paths: Vec<PathBuf>,
    /// Of each path, when it was last read: cheap to ask for.
    seen: Vec<Option<Stamp>>,
    /// Hash of the content that the last connection was made with.
    used: Option<u64>,
    /// Kept while the files stay the same: resumes TLS sessions.
    config: Option<(u64, Arc<ClientConfig>)>,
}

/// Changes when a file is written or replaced: device, inode, length, modification time (s, ns).
type Stamp = (u64, u64, u64, i64, i64);

/// Contents of the files, by path.
#[derive(Debug, Default)]
pub(super) struct Files(Vec<(PathBuf, Vec<u8>)>);

impl Files {
    /// Of a file that was read; empty for others.
    pub(super) fn bytes(&self, path: &Path) -> &[u8] {
        let found = self.0.iter().find(|(of, _)| of == path);
        found.map_or(&[], |(_, bytes)| bytes)
    }

    fn digest(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.0.hash(&mut hasher);
        hasher.finish()
    }
}

impl Credentials {
    pub(crate) fn new(login: Login, tls: Option<Tls>) -> Credentials {
        let mut paths = Vec::new();
        if let Login::PasswordFile { path, .. } | Login::TokenFile { path, .. } = &login {
            paths.push(path.clone());
        }
        if let Some(tls) = &tls {
            paths.extend(tls.ca.clone());
            paths.extend(
                tls.identity
                    .iter()
                    .flat_map(|(a, b)| [a.clone(), b.clone()]),
            );
        }
        Credentials {
            login,
            tls,
            paths,
            seen: Vec::new(),
            used: None,
            config: None,
        }
    }

    /// Whether anything can change.
    pub(crate) fn has_files(&self) -> bool {
        !self.paths.is_empty()
    }

    /// Whether the connection is encrypted.
    pub(crate) fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Reads everything for a connection (blocking, a few small files).
    pub(crate) fn load(&mut self) -> Result<Proof, CredentialError> {
        self.seen = self.paths.iter().map(|path| stamp(path)).collect();
        self.used = None;
        let files = read(&self.paths)?;
        let proof = self.prove(&files)?;
        self.used = Some(files.digest());
        Ok(proof)
    }

    /// Whether what is in the files now is new since the last [`load`](Credentials::load) and can be
    /// used; `false` while nothing changed. An error is told once for each change.
    pub(crate) fn look(&mut self) -> Result<bool, CredentialError> {
        let now: Vec<_> = self.paths.iter().map(|path| stamp(path)).collect();
        if now == self.seen {
            return Ok(false);
        }
        self.seen = now;
        let files = read(&self.paths)?;
        if self.used == Some(files.digest()) {
            return Ok(false);
        }
        self.prove(&files).map(|_| true)
    }

    /// The last handshake failed: the system's authorities are read anew for the next.
    pub(crate) fn distrust(&mut self) {
        self.config = None;
    }

    /// Who connects and by what, for people.
    pub(crate) fn describe(&self) -> String {
        let mut text = match &self.login {
            Login::Anonymous => "without user name".to_owned(),
            Login::Password { user, .. } => format!("as user {user:?}"),
            Login::PasswordFile { user, path } => {
                format!("as user {user:?} with the password in {}", path.display())
            }
            Login::TokenFile { user, path } => {
                format!("as user {user:?} with the token in {}", path.display())
            }
        };
        if let Some((certificate, _)) = self.tls.as_ref().and_then(|tls| tls.identity.as_ref()) {
            text.push_str(&format!(
                " and the certificate in {}",
                certificate.display()
            ));
        }
        text
    }

    /// Where the authorities come from, for people.
    pub(crate) fn describe_authorities(&self) -> String {
        match self.tls.as_ref().and_then(|tls| tls.ca.as_ref()) {
            Some(path) => format!("the authorities in {}", path.display()),
            None => "the authorities of this system".to_owned(),
        }
    }

    fn prove(&mut self, files: &Files) -> Result<Proof, CredentialError> {
        let mut proof = Proof::default();
        proof.user = match &self.login {
            Login::Anonymous => None,
            Login::Password { user, password } => Some((user.clone(), password.clone())),
            Login::PasswordFile { user, path } | Login::TokenFile { user, path } => {
                let secret = secret(path, files.bytes(path))?;
                if matches!(self.login, Login::TokenFile { .. }) {
                    proof.expires = expiry(&secret)
                        .map_err(|reason| CredentialError::unusable(path, reason))?;
                }
                Some((user.clone(), super::Secret(secret)))
            }
        };
        if let Some(settings) = &self.tls {
            let digest = files.digest();
            let kept = self.config.take().filter(|(of, _)| *of == digest);
            let config = match kept {
                Some((_, config)) => config,
                None => Arc::new(tls::client_config(settings, files)?),
            };
            self.config = Some((digest, config.clone()));
            proof.tls = Some(config);
        }
        Ok(proof)
    }
}

fn stamp(path: &Path) -> Option<Stamp> {
    let of = std::fs::metadata(path).ok()?;
    Some((of.dev(), of.ino(), of.len(), of.mtime(), of.mtime_nsec()))
}

fn read(paths: &[PathBuf]) -> Result<Files, CredentialError> {
    let mut files = Files::default();
    for path in paths {
        let bytes = read_file(path);
        let bytes = bytes.map_err(|error| CredentialError::unusable(path, error.to_string()))?;
        files.0.push((path.clone(), bytes));
    }
    Ok(files)
}

fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe that nobody writes to would wait.
    if !std::fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    let mut bytes = Vec::new();
    let file = File::open(path)?;
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(io::Error::other("it is larger than 4 MiB"));
    }
    Ok(bytes)
}

/// A password or token: the file without its last end of line.
fn secret(path: &Path, bytes: &[u8]) -> Result<String, CredentialError> {
    let fail = |reason: &str| Err(CredentialError::unusable(path, reason));
    let Ok(text) = std::str::from_utf8(bytes) else {
        return fail("it is not UTF-8");
    };
    let text = text.strip_suffix('\n').unwrap_or(text);
    let text = text.strip_suffix('\r').unwrap_or(text);
    match text.len() {
        0 => fail("it is empty"),
        length if length > MAX_PASSWORD => fail("it is longer than 65,535 bytes"),
        _ => Ok(text.to_owned()),
    }
}

/// When a JWT ends (RFC 7519 section 4.1.4), if it says so. Its signature is the broker's business.
fn expiry(token: &str) -> Result<Option<u64>, String> {
    #[derive(serde::Deserialize)]
    struct Claims {
        exp: Option<f64>,
    }
    let mut parts = token.split('.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err("it holds no JWT: three parts with dots between them".into());
    };
    let claims = URL_SAFE_NO_PAD.decode(payload).ok();
    let claims = claims.and_then(|json| serde_json::from_slice::<Claims>(&json).ok());
    match claims {
        Some(claims) => Ok(claims.exp.map(|exp| exp.max(0.0) as u64)),
        None => Err("it holds no JWT: the part in the middle is not JSON in base64url".into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn token(claims: &str) -> String {
        format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(claims))
    }

    fn password_file(path: &Path) -> Credentials {
        let login = Login::PasswordFile {
            user: "lamp-7".into(),
            path: path.to_owned(),
        };
        Credentials::new(login, None)
    }

    fn password(proof: Proof) -> String {
        proof.user.unwrap().1.0
    }

    #[test]
    fn a_replaced_password_file_is_noticed_and_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "first\n").unwrap();
        let mut credentials = password_file(&path);
        assert_eq!(password(credentials.load().unwrap()), "first");
        assert!(!credentials.look().unwrap());
        let new = dir.path().join("new");
        fs::write(&new, "second").unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(credentials.look().unwrap());
        assert_eq!(password(credentials.load().unwrap()), "second");
        assert!(!credentials.look().unwrap());
    }

    #[test]
    fn a_file_that_is_written_again_with_the_same_content_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "same").unwrap();
        let mut credentials = password_file(&path);
        credentials.load().unwrap();
        let new = dir.path().join("new");
        fs::write(&new, "same").unwrap();
        fs::rename(&new, &path).unwrap();
        assert!(!credentials.look().unwrap());
    }

    #[test]
    fn a_file_that_cannot_be_used_is_told_once_and_the_repaired_one_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        fs::write(&path, "first").unwrap();
        let mut credentials = password_file(&path);
        credentials.load().unwrap();
        fs::write(&path, "").unwrap();
        let error = credentials.look().unwrap_err().to_string();
        assert!(error.contains("password: it is empty"), "{error}");
        assert!(!credentials.look().unwrap());
        fs::write(&path, "second").unwrap();
        assert!(credentials.look().unwrap());
    }

    #[test]
    fn what_is_no_password_is_refused_by_file_and_reason() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        let mut credentials = password_file(&path);
        let mut reason = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            credentials.load().unwrap_err().to_string()
        };
        assert!(reason(b"\r\n").ends_with("password: it is empty"));
        assert!(reason(b"\xff").ends_with("it is not UTF-8"));
        assert!(reason(&vec![b'x'; 70_000]).ends_with("it is longer than 65,535 bytes"));
        let mut folder = password_file(dir.path());
        let error = folder.load().unwrap_err().to_string();
        assert!(error.ends_with("it is no regular file"), "{error}");
    }

    #[test]
    fn the_end_of_a_token_is_known() {
        assert_eq!(
            expiry(&token(r#"{"exp":1767323045}"#)),
            Ok(Some(1_767_323_045))
        );
        assert_eq!(expiry(&token(r#"{"exp":12.5,"sub":"x"}"#)), Ok(Some(12)));
        assert_eq!(expiry(&token(r#"{"sub":"x"}"#)), Ok(None));
        for text in ["", "secret", "a.b", "a.b.c.d", "e30.*.c2ln", "e30.bm8.c2ln"] {
            let error = expiry(text).unwrap_err();
            assert!(error.starts_with("it holds no JWT"), "{error}");
        }
    }

    #[test]
    fn certificates_and_keys_that_do_not_fit_are_refused_by_file() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let issue = || rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let (one, other) = (issue(), issue());
        let certificate = write("lamp.pem", &one.cert.pem());
        let key = write("lamp.key", &one.signing_key.serialize_pem());
        let foreign = write("other.key", &other.signing_key.serialize_pem());
        let junk = write("junk.pem", "spilled coffee");
        let load = |tls: Tls| Credentials::new(Login::Anonymous, Some(tls)).load();
        let trusting = Tls::new().ca(&certificate);
        assert!(load(trusting.clone().identity(&certificate, &key)).is_ok());
        let refusals = [
            (
                Tls::new().ca(&junk),
                "junk.pem: it holds no certificate in PEM",
            ),
            (
                trusting.clone().identity(&junk, &key),
                "junk.pem: it holds no certificate in PEM",
            ),
            (
                trusting.clone().identity(&certificate, &junk),
                "junk.pem: it holds no private key in PEM",
            ),
            (
                trusting.clone().identity(&certificate, &foreign),
                "other.key: it is not the key of",
            ),
            (
                trusting.server_name("no name"),
                "is neither a host name nor",
            ),
            (
                Tls::new().ca(dir.path().join("nowhere.pem")),
                "nowhere.pem: No such file",
            ),
        ];
        for (tls, reason) in refusals {
            let error = load(tls).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }
}
