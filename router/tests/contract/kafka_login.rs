//! The broker's side of a login by SASL: PLAIN (RFC 4616) and SCRAM (RFC 5802), reckoned by ring.

use std::num::NonZeroU32;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::{digest, hmac, pbkdf2};

const ROUNDS: u32 = 4096;
const SALT: &[u8] = b"pepper";
const NONCE: &str = "fromTheBroker";

/// How far a login has come.
pub(crate) struct Session {
    /// Nobody: there is nothing to be proved, or it has been.
    wanted: Option<(String, String)>,
    mechanism: Option<Scram>,
    /// What the client and the broker said first.
    said: Option<(String, String)>,
}

#[derive(Clone, Copy)]
struct Scram {
    derive: pbkdf2::Algorithm,
    sign: hmac::Algorithm,
    hash: &'static digest::Algorithm,
}

impl Session {
    pub(crate) fn new(wanted: Option<(String, String)>) -> Session {
        Session {
            wanted,
            mechanism: None,
            said: None,
        }
    }

    pub(crate) fn is_open(&self) -> bool {
        self.wanted.is_none()
    }

    /// Gives an error code.
    pub(crate) fn begin(&mut self, mechanism: &str) -> i16 {
        self.mechanism = match mechanism {
            "PLAIN" => None,
            "SCRAM-SHA-256" => Some(Scram {
                derive: pbkdf2::PBKDF2_HMAC_SHA256,
                sign: hmac::HMAC_SHA256,
                hash: &digest::SHA256,
            }),
            "SCRAM-SHA-512" => Some(Scram {
                derive: pbkdf2::PBKDF2_HMAC_SHA512,
                sign: hmac::HMAC_SHA512,
                hash: &digest::SHA512,
            }),
            _ => return 33,
        };
        0
    }

    /// The next step; the error is why nobody is let in.
    pub(crate) fn answer(&mut self, text: &str) -> Result<String, String> {
        let (user, password) = self.wanted.clone().ok_or("a login too many")?;
        let refused = || "Authentication failed during authentication".to_owned();
        let Some(scram) = self.mechanism else {
            let right = format!("\0{user}\0{password}");
            self.wanted.take_if(|_| text == right).ok_or_else(refused)?;
            return Ok(String::new());
        };
        let Some((bare, first)) = self.said.take() else {
            let bare = text.strip_prefix("n,,").ok_or_else(refused)?.to_owned();
            let user = user.replace('=', "=3D").replace(',', "=2C");
            let nonce = bare.strip_prefix(&format!("n={user},r="));
            let nonce = nonce.ok_or_else(refused)?;
            let salt = STANDARD.encode(SALT);
            let first = format!("r={nonce}{NONCE},s={salt},i={ROUNDS}");
            self.said = Some((bare, first.clone()));
            return Ok(first);
        };
        let (end, proof) = text.rsplit_once(",p=").ok_or_else(refused)?;
        let all = format!("{bare},{first},{end}");
        let mut salted = vec![0; scram.hash.output_len()];
        let rounds = NonZeroU32::new(ROUNDS).unwrap();
        pbkdf2::derive(scram.derive, rounds, SALT, password.as_bytes(), &mut salted);
        let sign = |key: &[u8], text: &[u8]| {
            let key = hmac::Key::new(scram.sign, key);
            hmac::sign(&key, text).as_ref().to_vec()
        };
        let stored = digest::digest(scram.hash, &sign(&salted, b"Client Key"));
        let signature = sign(stored.as_ref(), all.as_bytes());
        let proof = STANDARD.decode(proof).map_err(|_| refused())?;
        let key: Vec<u8> = proof.iter().zip(&signature).map(|(a, b)| a ^ b).collect();
        if digest::digest(scram.hash, &key).as_ref() != stored.as_ref() {
            return Err(refused());
        }
        self.wanted = None;
        let proof = sign(&sign(&salted, b"Server Key"), all.as_bytes());
        Ok(format!("v={}", STANDARD.encode(proof)))
    }
}
