//! A login by SCRAM (RFC 5802, RFC 7677): the password is proved in both directions and never sent. Pure;
//! the random number is an argument.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, Mac};
use sha2::{Digest, Sha256, Sha512};

/// The fewest rounds that the standard allows (RFC 7677, section 4): with less, whoever pretends to be
/// the server gets a proof that the password is quickly guessed from.
const LEAST_ROUNDS: u32 = 4096;
/// More are an attempt to keep the router busy; Kafka's own have at most 16,384.
const MOST_ROUNDS: u32 = 100_000;

/// Which hash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => Sha256::digest(data).to_vec(),
            Hash::Sha512 => Sha512::digest(data).to_vec(),
        }
    }

    fn hmac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        match self {
            Hash::Sha256 => sign(&Hmac::<Sha256>::new_from_slice(key), data),
            Hash::Sha512 => sign(&Hmac::<Sha512>::new_from_slice(key), data),
        }
    }

    /// `Hi` of RFC 5802, which is PBKDF2.
    fn stretch(self, password: &[u8], salt: &[u8], rounds: u32) -> Vec<u8> {
        match self {
            Hash::Sha256 => stretch(&Hmac::<Sha256>::new_from_slice(password), salt, rounds),
            Hash::Sha512 => stretch(&Hmac::<Sha512>::new_from_slice(password), salt, rounds),
        }
    }
}

/// Keys of any length are good for HMAC, so there is no error.
fn sign<M: Mac + Clone, E>(keyed: &Result<M, E>, data: &[u8]) -> Vec<u8> {
    let Ok(keyed) = keyed else {
        return Vec::new();
    };
    let mut mac = keyed.clone();
    mac.update(data);
    mac.finalize().into_bytes().to_vec()
}

fn stretch<M: Mac + Clone, E>(keyed: &Result<M, E>, salt: &[u8], rounds: u32) -> Vec<u8> {
    let mut block = sign(keyed, &[salt, &[0, 0, 0, 1]].concat());
    let mut out = block.clone();
    for _ in 1..rounds {
        block = sign(keyed, &block);
        xor(&mut out, &block);
    }
    out
}

fn xor(out: &mut [u8], other: &[u8]) {
    for (out, other) in out.iter_mut().zip(other) {
        *out ^= other;
    }
}

/// A login under way, before the server has spoken.
pub(super) struct Login {
    hash: Hash,
    password: String,
    nonce: String,
    /// What is sent first, without its head.
    first: String,
}

/// A login of which only the server's own proof is missing.
pub(super) struct Proof {
    expected: Vec<u8>,
}

impl Login {
    /// Begins a login; `nonce` is random and has no comma.
    pub(super) fn new(hash: Hash, user: &str, password: &str, nonce: &str) -> Login {
        let user = user.replace('=', "=3D").replace(',', "=2C");
        Login {
            hash,
            password: password.into(),
            nonce: nonce.into(),
            first: format!("n={user},r={nonce}"),
        }
    }

    /// What is sent first.
    pub(super) fn first(&self) -> String {
        format!("n,,{}", self.first)
    }

    /// Answers the server's first message.
    pub(super) fn answer(self, said: &str) -> Result<(String, Proof), String> {
        let wrong = || "the server's first message of SCRAM makes no sense".to_owned();
        let field = |name: &str| {
            let found = said.split(',').find_map(|field| field.strip_prefix(name));
            found.ok_or_else(wrong)
        };
        let nonce = field("r=")?;
        if !nonce.starts_with(&self.nonce) || nonce.len() == self.nonce.len() {
            return Err("the server's number is not made of ours".into());
        }
        let salt = STANDARD.decode(field("s=")?).map_err(|_| wrong())?;
        let rounds: u32 = field("i=")?.parse().map_err(|_| wrong())?;
        if !(LEAST_ROUNDS..=MOST_ROUNDS).contains(&rounds) {
            return Err(format!(
                "the server asks for {rounds} rounds, and {LEAST_ROUNDS} to {MOST_ROUNDS} are done"
            ));
        }
        let hash = self.hash;
        let salted = hash.stretch(self.password.as_bytes(), &salt, rounds);
        let end = format!("c=biws,r={nonce}");
        let all = format!("{},{said},{end}", self.first);
        let key = hash.hmac(&salted, b"Client Key");
        let mut proof = hash.hmac(&hash.digest(&key), all.as_bytes());
        xor(&mut proof, &key);
        let expected = hash.hmac(&hash.hmac(&salted, b"Server Key"), all.as_bytes());
        let answer = format!("{end},p={}", STANDARD.encode(proof));
        Ok((answer, Proof { expected }))
    }
}

impl Proof {
    /// Whether the server knows the password as well.
    pub(super) fn check(&self, said: &str) -> Result<(), String> {
        if let Some(error) = said.strip_prefix("e=") {
            return Err(format!("the server says {error:?}"));
        }
        let proof = said.split(',').next().and_then(|it| it.strip_prefix("v="));
        match proof.and_then(|proof| STANDARD.decode(proof).ok()) {
            Some(proof) if proof == self.expected => Ok(()),
            _ => Err("the server does not know the password: it is not the one it says".into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 7677, section 3.
    #[test]
    fn the_example_of_the_standard_holds() {
        let login = Login::new(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO");
        assert_eq!(login.first(), "n,,n=user,r=rOprNGfwEbeRWgbNEkqO");
        let said = "r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
                    s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096";
        let (answer, proof) = login.answer(said).unwrap();
        assert_eq!(
            answer,
            "c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,\
             p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
        );
        let right = "v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(proof.check(right), Ok(()));
        for wrong in ["v=7rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=", "", "e=no"] {
            assert!(proof.check(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_server_that_makes_no_sense_is_told() {
        for said in [
            "",
            "r=abcd,s=AA==,i=4096",
            "r=abc,s=AA==,i=4096",
            "r=abcx,s=!,i=4096",
            "r=abcx,s=AA==,i=0",
            "r=abcx,s=AA==,i=4095",
            "r=abcx,s=AA==,i=100001",
            "r=abcx,s=AA==,i=99999999",
        ] {
            let login = Login::new(Hash::Sha512, "a,b=c", "p", "abc");
            assert_eq!(login.first(), "n,,n=a=2Cb=3Dc,r=abc");
            let made = login.answer(said);
            let is_right = said.starts_with("r=abcd");
            assert_eq!(made.is_ok(), is_right, "{said}");
        }
    }
}
